# The project with everything pinned, for a pod or a container:
#   docker build --tag distillbench .        docker run --volume "$PWD/results:/project/results" distillbench --cores 4
# torch comes as PyPI has it, for CPUs and, on Linux x86-64, NVIDIA GPUs. For CPUs alone, a fifth of the size:
#   docker build --build-arg PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu --build-arg TORCH=2.13.0+cpu .
# A pod for each job, results copied to S3 (docs/cluster.md), with dependencies of their own that are not pinned:
#   docker build --build-arg EXTRAS=kubernetes,s3 .
FROM python:3.11-slim

ARG TORCH=2.13.0
ARG PIP_EXTRA_INDEX_URL
ARG EXTRAS=server
ENV PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1

# DGL's OpenMP; Debian keeps one version of it per release, so there is nothing to pin
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --uid 1000 distillbench \
    && mkdir /project \
    && chown distillbench /project
WORKDIR /project

# before the code, which changes more often
COPY requirements.lock ./
RUN sed "s/^torch==.*/torch==${TORCH}/" requirements.lock > /tmp/requirements \
    && pip install --requirement /tmp/requirements \
    && rm /tmp/requirements

COPY --chown=distillbench . .
RUN pip install --constraint requirements.lock --editable ".[${EXTRAS}]"

USER 1000
ENTRYPOINT ["snakemake"]
CMD ["--cores", "all"]
