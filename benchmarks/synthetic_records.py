"""Configs and results of any size: the grid of the default config made larger, and records of it that nobody trained.

The records are written by the package's own writer at the places where a plan looks for them, with hyper-parameters,
environment and histories as of a real run; only scores, digests and times are drawn at random.
"""

import copy
import csv
import io
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from distillbench.jobs.data import prepare_data
from distillbench.params import METRICS, TEACHER
from distillbench.paths import Cell
from distillbench.plan.plan import Plan, hyperparameters, make_plan
from distillbench.record import Record, digest, environment, write_atomically, write_record, write_shard

ROOT = Path(__file__).parents[1]
STARTED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
EPOCHS = (50, 150)


def grid_of(results: Path, *, datasets: int, pairs: int, methods: tuple[str, ...]) -> dict[str, Any]:
    """The default config with so many data sets (digits, with other splits) × pairs, both libraries, ten seeds."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "config/config.yaml").read_text(encoding="utf-8"))
    digits = config["datasets"]["digits"]
    pair = digits["pairs"]["gat"]
    config["results"], config["backends"] = str(results), ["pyg", "dgl"]
    config["methods"] = dict.fromkeys(methods)
    config["datasets"] = {}
    for d in range(datasets):
        entry = copy.deepcopy({"dataset": "digits", "params": digits["params"] | {"val": 300 - d}, "pairs": {}})
        for p in range(pairs):
            entry["pairs"][f"gat-{p + 1}"] = pair | {"student": pair["student"] | {"hidden": p + 1}}
        config["datasets"][f"digits-{d}"] = entry
    return config


def write_results(config: dict[str, Any], file: Path) -> Plan:
    """Write the config, its data sets, and a record and a history for every seed of its runs. Returns its plan."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    plan = make_plan(config, [file], ROOT)
    for dataset in plan.config.datasets:
        prepare_data(str(plan.paths.root), file=plan.dataset_file(dataset), **plan.data_params(dataset))
    rng, started = np.random.default_rng(0), STARTED
    known: dict[str, dict[str, Any]] = {name: environment(name, "cpu", 1) for name in plan.config.backends}
    for cell in plan.cells:
        for method in (TEACHER, *plan.methods_of(cell)):
            for shard in plan.shards:
                if method == TEACHER:
                    params = plan.teacher_params(cell, shard)
                else:
                    params = plan.student_params(cell, method, shard)
                records = []
                for seed in params["seeds"]:
                    records.append(_write_run(plan, cell, method, seed, params, known[cell.backend], rng, started))
                    started = datetime.fromisoformat(records[-1].ended)  # one run after the other
                write_shard(plan.paths.shard(cell, method, shard), records)
    return plan


def _write_run(
    plan: Plan,
    cell: Cell,
    method: str,
    seed: int,
    params: dict[str, Any],
    environment: dict[str, Any],
    rng: np.random.Generator,
    started: datetime,
) -> Record:
    epochs = int(rng.integers(*EPOCHS, endpoint=True))
    val = np.clip(0.8 - 0.5 * np.exp(-np.arange(epochs) / 10) + rng.normal(0, 0.02, epochs), 0, 1)
    best = int(val.argmax())
    test = float(np.clip(val[best] + rng.normal(0, 0.02), 0, 1))
    seconds = rng.uniform(0.01, 0.03, epochs).cumsum()
    loss = {name: rng.exponential(1.0, epochs) for name in ("task", *([] if method == TEACHER else ["structure"]))}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["epoch", "seconds", "loss", *loss, "val"])
    for e in range(epochs):
        parts = [float(values[e]) for values in loss.values()]
        writer.writerow([e + 1, round(seconds[e], 4), sum(parts), *parts, float(val[e])])
    run = "/".join((*cell, method, str(seed)))
    declared = plan.dataset_declaration(cell.dataset)
    record = Record(
        key=digest(run),
        **cell._asdict(),
        method=method,
        role="teacher" if method == TEACHER else "student",
        seed=seed,
        status="ok",
        task=declared.task,
        metric=METRICS[declared.task],
        resplit=True,
        split_sizes={"train": 50, "val": params["dataset_params"]["val"], "test": 1400},
        val=float(val[best]),
        test=test,
        test_metrics={METRICS[declared.task]: test, "macro_f1": test},
        epochs=epochs,
        best_epoch=best + 1,
        params=364,
        train_seconds=float(seconds[-1]),
        hyperparameters=hyperparameters(params),
        environment=environment,
        digests={"code": plan.code_digest(cell, method)} | {name: digest(name, run) for name in ("data", "weights")},
        started=_iso(started),
        ended=_iso(started + timedelta(seconds=float(seconds[-1]))),
    )
    folder = plan.paths.runs(cell, method)
    write_atomically(folder / f"seed-{seed}.history.csv", text.getvalue())
    write_record(folder / f"seed-{seed}.json", record)
    return record


def _iso(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds")
