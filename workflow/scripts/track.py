"""Bring MLflow up to date with the records."""

from distillbench.jobs.warm import call

call(
    "distillbench.tracking.sync:track",
    {"results": snakemake.config["results"], "synced": snakemake.output.synced},
    log=snakemake.log[0],
    library="tables",
    warm=snakemake.config["execution"]["warm_start"],
)
