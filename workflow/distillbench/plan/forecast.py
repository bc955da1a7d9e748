"""What a config would run, and how long it took elsewhere: ``distillbench plan``."""

import csv
from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from statistics import median

from distillbench.params import TEACHER
from distillbench.paths import Cell
from distillbench.plan.plan import Plan


def forecast(plan: Plan, published: Sequence[Path]) -> str:
    """In words. published: folders of published runs, whose training times are taken where they fit."""
    return "\n".join([*_grid(plan), "", *_time(plan, published)])


def _grid(plan: Plan) -> list[str]:
    lines = [
        f"{plan.runs:,} runs of {plan.config.seeds} seeds in {len(plan.shard_files()):,} jobs, into {plan.paths.root}:"
    ]
    for cell in plan.cells:
        lines.append(f"  {' · '.join(cell)}: teacher, {', '.join(plan.methods_of(cell))}")
    lines += [f"  {backend}: left out: {reason}" for backend, reason in plan.missing.items()]
    there = sum(Path(file).is_file() for file in plan.shard_files())
    return [*lines, f"{there:,} of the jobs' files of records are there."]


def _time(plan: Plan, published: Sequence[Path]) -> list[str]:
    known: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for file in {file.resolve() for folder in published for file in folder.glob("*/runs.csv")}:
        with file.open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                if row.get("train_seconds") and row["status"] == "ok":
                    known[row["dataset"], row["backend"], row["pair"], row["method"]].append(
                        float(row["train_seconds"])
                    )
    total, unknown = 0.0, []
    for cell in plan.cells:
        for method in (TEACHER, *plan.methods_of(cell)):
            seconds = known.get((*cell, method))
            if seconds:
                total += median(seconds) * plan.config.seeds
            else:
                unknown.append((cell, method))
    if len(unknown) == sum(1 + len(plan.methods_of(cell)) for cell in plan.cells):
        return ["Nothing like it is among the published runs: how long it takes is not known."]
    text = f"Published runs of these data sets and methods trained for {timedelta(seconds=round(total))} on one core"
    return [f"{text}{_but(unknown)}, without tuning and further teachers; models and training may differ."]


def _but(unknown: Sequence[tuple[Cell, str]]) -> str:
    return f" (without {len(unknown)} kinds of runs that nobody published)" if unknown else ""
