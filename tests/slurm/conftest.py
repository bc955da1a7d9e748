"""A SLURM on this machine for each file of tests here, which `make test-slurm` runs and a plain `pytest` does not."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.slurm.projects import TABLE, TINY, OnSlurm, slurm
from tests.workflow.conftest import HELD, Project, checkout

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def cluster(request, tmp_path_factory):
    """SLURM, running as the file's CLUSTER says (start.sh). What it started is stopped again, whatever happened."""
    folder = tmp_path_factory.mktemp("slurm")
    daemons = ["slurmctld", "slurmd", "munged", "slurmdbd", "mariadbd"]
    missing = [name for name in daemons if not shutil.which(name)]
    assert not missing, f"{', '.join(missing)} not found: `make test-slurm` installs them"
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **request.module.CLUSTER}
    try:
        subprocess.run([HERE / "start.sh", folder], check=True, timeout=120, env=environment)
        yield folder
        slurm("scancel", "--user", "root", "--full")  # only where start.sh has succeeded: this cluster is ours
    finally:
        subprocess.run([HERE / "stop.sh", folder], check=True, timeout=120)


@pytest.fixture(scope="session")
def quiet(tmp_path_factory) -> Project:
    """The tiny config run to its table when nothing happens, without SLURM."""
    project = checkout(tmp_path_factory.mktemp("quiet") / "project")
    project.configure(**TINY)
    (project.folder / "methods/held.py").write_text(HELD)
    (project.folder / "go").touch()
    project.run(TABLE)
    return project


@pytest.fixture
def project(cluster, quiet, tmp_path):
    """A copy of it without the students: what is trained from here on is trained by jobs of SLURM."""
    copy = quiet.copy(tmp_path / "project")
    for folder in ("runs", "tables", "logs/runs"):
        shutil.rmtree(copy.folder / "results" / folder)
    submitting = OnSlurm(copy.folder, copy.environment)
    yield submitting
    submitting.end()
