"""In a container, on Kubernetes, and with results on object storage."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
JOB = yaml.safe_load((ROOT / "profiles/kubernetes/job.yaml").read_text())
POD = JOB["spec"]["template"]["spec"]


def snakemake(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run Snakemake on a copy of the project's code in the folder."""
    for name in ("Snakefile", "workflow", "methods", "datasets", "models", "config", "profiles", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    command = [sys.executable, "-m", "snakemake", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "workflow")}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200)


def test_the_linter_finds_nothing_in_the_dockerfile():
    hadolint = shutil.which("hadolint", path=Path(sys.executable).parent)
    assert hadolint
    found = subprocess.run([hadolint, "Dockerfile"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert found.returncode == 0 and not found.stdout, found.stdout + found.stderr


def test_the_image_has_the_locked_torch_and_no_root():
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    locked = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if line.startswith("torch==")]
    assert [line.replace("ARG TORCH=", "torch==") for line in lines if line.startswith("ARG TORCH")] == locked
    assert [line for line in lines if line.startswith("USER")] == [f"USER {POD['securityContext']['runAsUser']}"]


def test_the_pod_plans_the_run(tmp_path):
    done = snakemake(tmp_path, *POD["containers"][0]["args"], "--dry-run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rule distill:" in done.stdout


def test_the_profile_fits_into_the_pod():
    profile = yaml.safe_load((ROOT / "profiles/kubernetes/config.yaml").read_text())
    memory = dict(entry.split("=") for entry in profile["resources"])["mem_mb"]
    container = POD["containers"][0]
    assert int(memory) < int(container["resources"]["limits"]["memory"].removesuffix("Gi")) * 1024
    assert container["args"][container["args"].index("--cores") + 1] == container["resources"]["limits"]["cpu"]
    assert container["resources"]["limits"] == container["resources"]["requests"]


def test_results_on_object_storage_are_refused(tmp_path):
    """Fault: the results are to be on object storage (Snakemake's default storage provider).

    Provoked: a run with the storage plugin for folders, and an empty folder, in place of S3.
    Promised: it is refused before anything is written, saying what to do instead.
    """
    (tmp_path / "store").mkdir()
    (tmp_path / "project").mkdir()
    done = snakemake(
        tmp_path / "project", "--cores", "1", "--workflow-profile", "none", "--configfile", "config/smoke.yaml",
        "--default-storage-provider", "fs", "--default-storage-prefix", str(tmp_path / "store"),
    )  # fmt: skip
    output = done.stdout + done.stderr
    assert done.returncode != 0
    assert "--default-storage-provider 'fs'" in output and "docs/cluster.md" in output and "Traceback" not in output
    assert not list((tmp_path / "store").iterdir()) and not (tmp_path / "project/results").exists()
