"""Projects that run on SLURM."""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.workflow.conftest import CONFIG, Project

QUICK = (
    "--slurm-init-seconds-before-status-checks", "1", "--seconds-between-status-checks", "1", "--latency-wait", "10",
    "--max-status-checks-per-second", "1",
    "--default-resources", "mem_mb=2000", "runtime=5", "in_group=1",
)  # fmt: skip
DIGITS = {
    "pairs": {
        "gat": {
            "teacher": {"model": "gat", "hidden": 8, "heads": 2},
            "student": {"model": "gat", "hidden": 2},
            "training": {"epochs": 12},
            "teacher_training": {"epochs": 4},
        }
    }
}
# torch alone, so that a job takes as short as it can
TINY = {
    **CONFIG, "backends": ["csr"], "methods": {"supervised": {}, "held": {}}, "datasets": {"digits": DIGITS},
    "resources": {"memory_mb": 2000, "run_minutes": 5},
    "execution": {"seeds_per_job": 3, "checkpoint_seconds": 1e-6},
}  # fmt: skip
STUDENTS = [f"results/runs/digits/csr/gat/{method}/records-0.json" for method in TINY["methods"]]
TABLE = "results/tables/comparison.csv"


@dataclass
class OnSlurm(Project):
    """A checkout whose jobs are submitted."""

    runs: "list[subprocess.Popen[str]]" = field(default_factory=list)

    def command(self, *arguments: str) -> list[str]:
        target, options = [a for a in arguments if not a.startswith("-")], [a for a in arguments if a.startswith("-")]
        profile = ("--workflow-profile", "profiles/slurm", "--configfile", "config/test.yaml", *QUICK)
        return [sys.executable, "-m", "snakemake", *target, *options, *profile]

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Snakemake in the background; its output is in the file ``output``."""
        with (self.folder / "output").open("a") as output:
            run = subprocess.Popen(
                self.command(*arguments),
                cwd=self.folder, env=self.environment, stdout=output, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
        self.runs.append(run)
        return run

    def end(self) -> None:
        """Kill what a failed test has left, and its jobs."""
        for run in self.runs:
            if run.poll() is None:
                run.kill()
                run.wait()
        slurm("scancel", "--user", "root", "--full")

    @property
    def output(self) -> str:
        return (self.folder / "output").read_text()

    def finish(self, run: "subprocess.Popen[str]") -> str:
        """Wait for it to succeed."""
        assert run.wait(600) == 0, self.output
        return self.output


def slurm(*command: str) -> str:
    """The output of one of SLURM's commands."""
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def wait_for(condition: Callable[[], Any], run: "subprocess.Popen[str]", seconds: float = 400) -> Any:
    """Until the condition holds, while Snakemake runs."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    return found


def table(project: Project) -> bytes:
    """The table of all records, made here."""
    if not (project.folder / TABLE).exists():
        Project(project.folder, project.environment).run(TABLE)
    return (project.folder / TABLE).read_bytes()
