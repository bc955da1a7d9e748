"""A copy of the project in which Snakemake runs for real."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CONFIG = {
    "results": "results",
    "seeds": 3,
    "backends": ["pyg", "dgl"],
    "datasets": {
        "synthetic": {
            "params": {"nodes": 40, "train": 4},
            "pairs": {
                "gat": {
                    "teacher": {"model": "gat", "hidden": 8, "heads": 2},
                    "student": {"model": "gcn", "hidden": 4},
                    "training": {"epochs": 4, "batch_size": 2},
                }
            },
        },
        "digits": {
            "pairs": {
                "gat": {
                    "teacher": {"model": "gat", "hidden": 8, "heads": 2},
                    "student": {"model": "gat", "hidden": 2},
                    "training": {"epochs": 4},
                }
            },
        },
    },
    "methods": {"supervised": {}, "at": {}, "lsp": {}},
    "profile": False,
    "execution": {"seeds_per_job": 2},
}
# methods/held.py, for what happens while jobs run: on a busy machine nothing that takes its time is sure to last
HELD = '''"""The student alone, held in the third epoch of its second seed until the file `go` is there."""

import time
from pathlib import Path

from distillbench.plugin import ALL_TASKS, Method


class Held(Method):
    """Waits for a quarter of an hour at most."""

    paper, tasks, requires = "none", ALL_TASKS, frozenset()

    def terms(self, student, teacher, ctx):
        deadline = time.monotonic() + 900
        while ctx.epoch == 2 and any(Path("results").glob("runs/*/*/*/held/seed-0.json")) and not Path("go").exists():
            if time.monotonic() > deadline:
                raise TimeoutError("nobody let it go")
            time.sleep(0.02)
        return {"task": ctx.task_loss(student.logits)}
'''


def wait_for(condition: Callable[[], Any], said: Callable[[], Any] = str, seconds: float = 400) -> Any:
    """Until the condition holds; ``said``: what to show where it never does."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, said()
        time.sleep(0.05)
    return found


@dataclass
class Project:
    """A checkout of its own, with its results."""

    folder: Path
    environment: dict[str, str]

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "snakemake", *arguments, "--cores", "2", "--configfile", "config/test.yaml"]

    def run(self, *arguments: str, succeeds: bool = True) -> str:
        """Run Snakemake; return what it printed."""
        done = subprocess.run(
            self.command(*arguments), cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=600
        )
        output = done.stdout + done.stderr
        assert (done.returncode == 0) == succeeds, output
        return output

    def jobs(self) -> dict[str, int]:
        """Jobs that a run would do now, by rule."""
        lines = self.run("-n", "--quiet", "rules").splitlines()
        starts = [i for i, line in enumerate(lines) if line.startswith("---")]
        if not starts:
            return {}
        counts = {}
        for line in lines[starts[0] + 1 :]:
            if not line.strip():
                break
            rule, count = line.split()
            counts[rule] = int(count)
        return {rule: count for rule, count in counts.items() if rule not in ("total", "all")}

    def configure(self, **changes: Any) -> None:
        (self.folder / "config/test.yaml").write_text(yaml.safe_dump({**CONFIG, **changes}, sort_keys=False))

    def records(self) -> dict[str, tuple[int, bytes]]:
        """Every seed's record: when it was written, and its content."""
        results = self.folder / "results"
        files = sorted([*results.glob("teachers/*/*/*/seed-*.json"), *results.glob("runs/*/*/*/*/seed-*.json")])
        return {str(f.relative_to(results)): (f.stat().st_mtime_ns, f.read_bytes()) for f in files}

    def copy(self, to: Path) -> "Project":
        shutil.copytree(self.folder, to)  # with modification times, which Snakemake compares
        return Project(to, {**self.environment, "PYTHONPATH": str(to / "workflow")})


def checkout(to: Path) -> Project:
    for name in ("Snakefile", "workflow", "methods", "datasets", "models", "config", "profiles"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, to / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            to.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, to / name)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DISTILLBENCH")}
    project = Project(to, {**environment, "PYTHONPATH": str(to / "workflow")})
    project.configure()
    return project


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Project:
    """The small config, run to its end once. Copy it before changing anything."""
    project = checkout(tmp_path_factory.mktemp("workflow") / "project")
    project.output = project.run()  # type: ignore[attr-defined]
    return project


@pytest.fixture
def project(finished, tmp_path) -> Project:
    """A copy of the finished project, to change."""
    return finished.copy(tmp_path / "project")
