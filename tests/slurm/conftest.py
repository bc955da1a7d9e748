"""A SLURM of one node, for all tests here. A plain `pytest` does not collect them, `make test-slurm` does."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.slurm.projects import CPUS, MEMORY_MB, TABLE, TINY, OnSlurm, slurm
from tests.workflow.conftest import Project, checkout

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """SLURM, running. What it started is stopped again, whatever happened."""
    folder = tmp_path_factory.mktemp("slurm")
    missing = [name for name in ("slurmctld", "slurmd", "munged") if not shutil.which(name)]
    assert not missing, f"{', '.join(missing)} not found: `make test-slurm` installs slurm-wlm and munge"
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "CPUS": str(CPUS), "MEMORY_MB": str(MEMORY_MB)}
    try:
        subprocess.run([HERE / "start.sh", folder], check=True, timeout=120, env=environment)
        yield folder
    finally:
        slurm("scancel", "--user", "root", "--full")
        subprocess.run([HERE / "stop.sh", folder], check=True, timeout=120)


@pytest.fixture(scope="session")
def quiet(tmp_path_factory) -> Project:
    """The tiny config run to its table when nothing happens, without SLURM."""
    project = checkout(tmp_path_factory.mktemp("quiet") / "project")
    project.configure(**TINY)
    project.run(TABLE)
    return project


@pytest.fixture
def project(cluster, quiet, tmp_path) -> OnSlurm:
    """A copy of it without the students: what is trained from here on is trained by jobs of SLURM."""
    copy = quiet.copy(tmp_path / "project")
    for folder in ("runs", "tables", "logs/runs"):
        shutil.rmtree(copy.folder / "results" / folder)
    return OnSlurm(copy.folder, copy.environment)
