"""Real jobs on data small enough to recompute: plan, data set, teachers, students, as the rules of the DAG run them."""

import copy
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from distillbench.data.graph_data import read_data
from distillbench.jobs.data import prepare_data
from distillbench.jobs.train import Job
from distillbench.paths import Cell
from distillbench.plan.plan import Plan, make_plan
from distillbench.record import Record, read_shard

ROOT = Path(__file__).parents[2]
MLP = {"model": "mlp", "hidden": 4}
CONFIG: dict[str, Any] = {
    "seeds": 2,
    "backends": ["csr"],
    "plugins": [str(ROOT / "tests/joints/plugins")],
    "datasets": {
        name: {
            "pairs": {
                "pair": {
                    # in training mode it would give other outputs
                    "teacher": {"model": "mlp", "hidden": 5, "dropout": 0.5},
                    "teachers": {"other": {"model": "mlp", "hidden": 3}},
                    "student": {"model": "gcn" if name == "one_graph" else "mlp", "hidden": 4},
                    "training": {"epochs": 2, "batch_size": 4},
                }
            }
        }
        for name in ("one_graph", "many_graphs")
    },
    "methods": {"supervised": {}, "kd": {}, "spy": {}},
    "profile": False,
}
DATASETS = tuple(CONFIG["datasets"])


@dataclass
class Runs:
    """A config's jobs, and what they wrote."""

    plan: Plan
    folder: Path

    def cell(self, dataset: str, pair: str = "pair") -> Cell:
        return Cell(dataset, "csr", pair)

    def params(self, dataset: str, method: str, pair: str = "pair") -> dict[str, Any]:
        cell = self.cell(dataset, pair)
        return self.plan.teacher_params(cell, 0) if method == "teacher" else self.plan.student_params(cell, method, 0)

    def arguments(self, dataset: str, method: str, pair: str = "pair") -> dict[str, Any]:
        """Of a job, as workflow/scripts/train.py has them from the rules."""
        return {
            "results": str(self.plan.paths.root),
            "shard": 0,
            "params": self.params(dataset, method, pair),
            "sources": list(self.plan.contents(self.plan.run_sources(self.cell(dataset, pair), method))),
            "execution": self.plan.config.execution.model_dump(),
            "planned_runs": self.plan.runs,
        }

    def job(self, dataset: str, method: str, pair: str = "pair") -> Job:
        return Job(**self.arguments(dataset, method, pair))

    def prepare(self, dataset: str) -> None:
        file = self.plan.dataset_file(dataset)
        prepare_data(str(self.plan.paths.root), file=file, **self.plan.data_params(dataset))

    def train(self, dataset: str, *methods: str) -> None:
        """The pair's teacher, the further one and these methods."""
        self.job(dataset, "teacher").run()
        self.job(dataset, "teacher", "pair@other").run()
        for method in methods:
            self.job(dataset, method).run()

    def run(self, dataset: str, *methods: str) -> None:
        """The data set, then as ``train``."""
        self.prepare(dataset)
        self.train(dataset, *methods)

    def records(self, dataset: str, method: str, pair: str = "pair") -> list[Record]:
        return read_shard(self.plan.paths.shard(self.cell(dataset, pair), method, 0))

    def file(self, dataset: str, method: str, seed: int, ending: str = "pt", pair: str = "pair") -> Path:
        return self.plan.paths.runs(self.cell(dataset, pair), method) / f"seed-{seed}.{ending}"

    def weights(self, dataset: str, method: str, seed: int, pair: str = "pair") -> dict[str, torch.Tensor]:
        return torch.load(self.file(dataset, method, seed, pair=pair), weights_only=True)

    def seen(self, run: int) -> dict[str, Any]:
        """What the spy wrote down of a run; of a job's runs the first is of seed 0."""
        return torch.load(self.folder / "seen" / f"{run}.pt", weights_only=True)

    def data(self, dataset: str):
        return read_data(self.plan.paths.data(dataset))


@pytest.fixture
def runs_in(tmp_path, one_thread):
    """``runs_in("name", protocol=…, training=…)``: a config with these changes, in a folder of its own."""

    def make(name: str = "project", training: dict[str, Any] | None = None, only: str = "", **changes: Any) -> Runs:
        folder = tmp_path / name
        (folder / "seen").mkdir(parents=True)
        config = copy.deepcopy({**CONFIG, **changes, "results": str(folder / "results")})
        config["methods"].setdefault("spy", {})["folder"] = str(folder / "seen")
        config["datasets"] = {key: value for key, value in config["datasets"].items() if only in key}
        for dataset in config["datasets"].values():
            dataset["pairs"]["pair"]["training"] |= training or {}
        return Runs(make_plan(config, [], ROOT), folder)

    return make


def drawn(seed: int, *scope: str) -> torch.Generator:
    """The stream of a scope, as seeds.py promises: the first 63 bits of SHA-256 of "seed/scope/…"."""
    text = "/".join((str(seed), *scope))
    return torch.Generator().manual_seed(int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) >> 1)
