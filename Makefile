# Two commands do everything on a fresh machine with Python 3.11: `make bench` and `make test`; `make help` lists all.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
CONFIG ?= config/config.yaml
PROCESSES ?= 4
SERVER ?= results/tracking-server
HOST ?= 127.0.0.1
PORT ?= 5000
KUBERNETES := $(shell sed -n 's/^kubernetes = \["\(.*\)"\].*/\1/p' pyproject.toml)
SLURM := slurm-wlm munge slurmdbd mariadb-server
PPI ?= data/ppi24/ppi.zip
CODE := workflow/distillbench workflow/scripts workflow/envs profiles methods datasets models benchmarks docs tests
export PATH := $(abspath $(BIN)):$(PATH)

.DEFAULT_GOAL := bench
.PHONY: help bench test test-slurm test-pods test-python mutants audit tracking-server ui smoke benchmarks gpu-paper format lock clean

help:  ## list what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

bench: $(VENV)/installed  ## set up, run $(CONFIG), say where the results are
	distillbench run '$(CONFIG)'

smoke:  ## the one-minute run
	$(MAKE) bench CONFIG=config/smoke.yaml

test: $(VENV)/installed  ## set up, check style and types, run the tests
	ruff check $(CODE)
	ruff format --check $(CODE)
	mypy
	bandit --quiet --configfile pyproject.toml --recursive workflow profiles methods datasets models benchmarks docs
	snakefmt --check Snakefile workflow/rules
	pytest -n logical --maxprocesses 4

test-python:  ## install the wheel for another interpreter and run it: PYTHON=python3.13 (may download CUDA)
	rm -rf build
	$(PYTHON) -m venv build/environment
	build/environment/bin/pip wheel --quiet --no-deps --wheel-dir build/wheel .
	build/environment/bin/pip install --quiet build/wheel/distillbench-*.whl
	mkdir -p build/empty && cd build/empty && ../environment/bin/distillbench run smoke

test-slurm: $(VENV)/installed  ## run on SLURM, started on this machine; as root on Debian
	@dpkg --status $(SLURM) >/dev/null 2>&1 || { \
		test "$$(id -u)" = 0 && command -v apt-get >/dev/null || \
			{ echo 'needs $(SLURM), which are installed as root on Debian' >&2; exit 1; }; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
			apt-get install -y -qq --no-install-recommends $(SLURM) >/dev/null; }
	pytest tests/slurm/on_slurm.py tests/slurm/on_nodes.py

test-pods: $(VENV)/installed  ## run with a pod for each job, on a stand-in for Kubernetes
	pip install --quiet --constraint requirements.lock '$(KUBERNETES)'
	pytest tests/cluster/test_pods.py; status=$$?; \
		pip uninstall --quiet --yes '$(firstword $(subst ==, ,$(KUBERNETES)))'; exit $$status  # it slows every start of Snakemake

mutants: $(VENV)/installed  ## plant known faults one at a time and see that tests notice them; docs/mutants.md
	python tests/mutants/run.py

audit: $(VENV)/installed  ## whether a pinned version has a known vulnerability: asks pypi.org
	pip install --quiet 'pip-audit>=2.9'
	python workflow/envs/audit.py

benchmarks: $(VENV)/installed  ## how fast the code is beside plain formulations, and how it grows; benchmarks/RESULTS.md
	python -m benchmarks

tracking-server: $(VENV)/installed  ## MLflow for a team, on PostgreSQL; HOST= and ALLOWED_HOSTS= beyond this machine
	distillbench server --folder '$(SERVER)' --host '$(HOST)' --port '$(PORT)' \
		$(if $(ALLOWED_HOSTS),--allowed-hosts '$(ALLOWED_HOSTS)')

ui: $(VENV)/installed  ## browse all runs in MLflow; PORT= where 5000 is taken
	distillbench ui '$(CONFIG)' --port '$(PORT)'

gpu-paper:  ## on a machine with a GPU, torch, PyG and click: the full PPI-24 teacher and students; PPI=path of ppi.zip
	PYTHONPATH=workflow python3 -m distillbench run gpu-paper --no-snakemake --cores $(PROCESSES) \
		--set "datasets.ppi24.params.path=$(PPI)" --publish gpu-paper

format: $(VENV)/installed  ## format all code
	ruff check --fix $(CODE)
	ruff format $(CODE)
	snakefmt Snakefile workflow/rules

lock: $(VENV)/installed  ## resolve all versions anew from pyproject.toml
	pip install --quiet --dry-run --ignore-installed --report - '.[dev]' | python workflow/envs/lock.py

$(VENV)/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -r requirements.lock
	$(BIN)/pip install --quiet --no-deps --editable .
	touch $@

clean:  ## remove the environment, not the results
	rm -rf $(VENV)
