"""A training job that takes about a second: digits, one cell on torch alone, three seeds of the student alone."""

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import yaml

from distillbench.jobs.data import prepare_data
from distillbench.jobs.train import train
from distillbench.paths import Cell
from distillbench.plan.plan import Plan, make_plan
from distillbench.record import Record, read_shard

ROOT = Path(__file__).parents[2]
CELL = Cell("digits", "csr", "gat")
CONFIG: dict[str, Any] = {
    "seeds": 3,
    "backends": ["csr"],
    "datasets": {
        "digits": {
            "pairs": {
                "gat": {
                    "teacher": {"model": "gat", "hidden": 4},
                    "student": {"model": "gat", "hidden": 2},
                    "training": {"epochs": 12},
                }
            }
        }
    },
    "methods": {"supervised": {}, "kd": {}},
    "profile": False,
    "execution": {"checkpoint_seconds": 1e-6},  # after every epoch, however fast the machine is
}


def plan_of(results: Path, **changes: Any) -> Plan:
    config = {**CONFIG, "results": str(results), **changes}
    file = results.parent / "config.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    return make_plan(config, [file], ROOT)


def prepare(plan: Plan) -> None:
    prepare_data(str(plan.paths.root), file=plan.dataset_file("digits"), **plan.data_params("digits"))


def run_job(plan: Plan, method: str = "supervised") -> list[Record]:
    """Train the shard of a method, or the teacher's, here."""
    teacher = method == "teacher"
    train(
        results=str(plan.paths.root),
        shard=0,
        params=plan.teacher_params(CELL, 0) if teacher else plan.student_params(CELL, method, 0),
        sources=list(plan.contents(plan.run_sources(CELL, method))),
        execution=plan.config.execution.model_dump(),
        planned_runs=plan.runs,
    )
    return read_shard(plan.paths.shard(CELL, method, 0))


def started(work, *arguments) -> multiprocessing.Process:
    """``work(*arguments)`` in a process of its own, a fork of this one, which has imported everything."""
    process = multiprocessing.get_context("fork").Process(target=work, args=arguments)
    process.start()
    return process


def results_of(records: list[Record]) -> list[dict[str, Any]]:
    """What a run ended in, without the times it took."""
    times = {"train_seconds", "started", "ended"}
    return [record.model_dump(exclude=times) for record in records]


@pytest.fixture
def plan(tmp_path, one_thread) -> Plan:
    plan = plan_of(tmp_path / "results")
    prepare(plan)
    return plan
