"""A results folder of five runs, and what MLflow shows of it."""

import contextlib
import secrets
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from distillbench.record import Record, write_record
from distillbench.tracking.sync import sync

LOSS = [0.9, 0.5, 0.4]
VAL = [0.6, 0.8, 0.7]


def free_port() -> int:
    """A port below those that the system gives to connections, one of which could take it while a server is away."""
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", 15_000 + secrets.randbelow(15_000)))
            return int(probe.getsockname()[1])


def record(**changes: Any) -> Record:
    values: dict[str, Any] = {
        "key": "k", "dataset": "digits", "backend": "pyg", "pair": "gat", "method": "lsp", "role": "student",
        "seed": 0, "status": "ok", "task": "multiclass", "metric": "accuracy", "val": 0.8, "test": 0.75, "epochs": 3,
        "best_epoch": 1, "params": 1234, "train_seconds": 6.0,
        "hyperparameters": {"method": {"weight": 100.0, "layers": [[-1, -1]]}, "training": {"lr": 0.01}},
        "environment": {"device": "cpu", "torch": "2.13.0"}, "digests": {"data": "d" * 64},
        "started": "2026-01-02T03:04:05.250+00:00", "ended": "2026-01-02T03:04:11.500+00:00",
    }  # fmt: skip
    return Record(**(values | changes))


def put(results: Path, record: Record, history: bool = True) -> Path:
    folder = results / "runs" / record.dataset / record.backend / record.pair / record.method
    if record.role == "teacher":
        folder = results / "teachers" / record.dataset / record.backend / record.pair
    path = folder / f"seed-{record.seed}.json"
    write_record(path, record)
    if history:
        rows = [f"{e},{2.0 * (e + 1)},{LOSS[e]},{LOSS[e] / 2},,{VAL[e]}" for e in range(len(LOSS))]
        path.with_name(f"seed-{record.seed}.history.csv").write_text(
            "\n".join(["epoch,seconds,loss,task,structure,val", *rows]) + "\n"
        )
    return path


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store without runs: creating its tables takes three seconds, so the tests copy it."""
    results = tmp_path_factory.mktemp("empty")
    assert sync(results) == (0, 0, 0, ())
    return results / "mlflow" / "mlflow.db"


@pytest.fixture
def results(tmp_path: Path, empty_store: Path) -> Path:
    """Five runs: a teacher and two seeds of two methods."""
    folder = tmp_path / "results"
    (folder / "mlflow").mkdir(parents=True)
    shutil.copy(empty_store, folder / "mlflow")
    put(folder, record(method="teacher", role="teacher"))
    for method in ("lsp", "kd"):
        for seed in (0, 1):
            put(folder, record(method=method, seed=seed, val=0.8 + seed / 100))
    return folder


def client(results: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{results}/mlflow/mlflow.db")


def runs(results: Path, dataset: str = "digits") -> dict[str, Any]:
    """The runs that the page shows, by identity; no two may have the same."""
    mlflow = client(results)
    found = list(mlflow.search_runs([mlflow.get_experiment_by_name(dataset).experiment_id]))
    by_identity = {run.data.tags["distillbench.run"]: run for run in found}
    assert len(by_identity) == len(found)
    return by_identity


def ids(results: Path) -> dict[str, str]:
    return {identity: run.info.run_id for identity, run in runs(results).items()}
