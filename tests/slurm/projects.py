"""Projects that run on SLURM."""

import subprocess
import sys

from tests.workflow.conftest import CONFIG, Project

CPUS, MEMORY_MB = 2, 8000
QUICK = (
    "--slurm-init-seconds-before-status-checks", "12", "--latency-wait", "10",
    "--default-resources", "mem_mb=2000", "runtime=5", "in_group=1",
)  # fmt: skip
DIGITS = {
    "pairs": {
        "gat": {
            "teacher": {"model": "gat", "hidden": 8, "heads": 2},
            "student": {"model": "gat", "hidden": 2},
            "training": {"epochs": 150},
            "teacher_training": {"epochs": 4},
        }
    }
}
# torch alone, so that a job takes as short as it can
TINY = {
    **CONFIG, "backends": ["csr"], "methods": {"supervised": {}, "lsp": {}}, "datasets": {"digits": DIGITS},
    "resources": {"memory_mb": 2000, "run_minutes": 1},
    "execution": {"seeds_per_job": 3, "checkpoint_seconds": 0.2},
}  # fmt: skip
TABLE = "results/tables/comparison.csv"


class OnSlurm(Project):
    """A checkout whose jobs are submitted."""

    def command(self, *arguments: str) -> list[str]:
        target, options = [a for a in arguments if not a.startswith("-")], [a for a in arguments if a.startswith("-")]
        profile = ("--workflow-profile", "profiles/slurm", "--configfile", "config/test.yaml", *QUICK)
        return [sys.executable, "-m", "snakemake", *target, *options, *profile]

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Snakemake in the background; its output is in the file ``output``."""
        with (self.folder / "output").open("a") as output:
            return subprocess.Popen(
                self.command(*arguments),
                cwd=self.folder, env=self.environment, stdout=output, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip

    @property
    def output(self) -> str:
        return (self.folder / "output").read_text()

    def finish(self, run: "subprocess.Popen[str]") -> str:
        """Wait for it to succeed."""
        assert run.wait(400) == 0, self.output
        return self.output


def slurm(*command: str) -> str:
    """The output of one of SLURM's commands."""
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
