"""What the figure rules of the DAG do: tables and histories to pictures. No torch."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from distillbench.figures.across import draw_across
from distillbench.figures.curves import draw_curves
from distillbench.figures.libraries import draw_libraries
from distillbench.figures.pareto import draw_pareto
from distillbench.figures.scores import draw_dataset
from distillbench.record import read_shard
from distillbench.runs import read_parquet, read_runs
from distillbench.statistics.across import across_cells
from distillbench.statistics.pareto import pareto_table


def dataset(runs: str, comparison: str, name: str, png: str, svg: str, baseline: str, delta: float) -> str:
    """Every seed, mean and interval of one data set, with the verdicts of ``comparison``."""
    frame, compared = read_runs(Path(runs)), read_parquet(Path(comparison))
    draw_dataset(frame, compared, name, png=Path(png), svg=Path(svg), baseline=baseline, delta=delta)
    return f"{name}: {png}"


def pareto(runs: str, profiles: Sequence[str], name: str, png: str, svg: str, baseline: str) -> str:
    """One data set's test metric against what teacher and students cost. profiles: their table, or none."""
    costs = pd.concat(map(pd.read_csv, profiles)) if profiles else None
    table = pareto_table(read_runs(Path(runs)), costs)
    draw_pareto(table, name, png=Path(png), svg=Path(svg), baseline=baseline)
    return f"{name}: {png}"


def libraries(equivalence: str, png: str, svg: str) -> str:
    """PyG against DGL, every method of every data set and pair."""
    draw_libraries(pd.read_csv(equivalence, keep_default_na=True), png=Path(png), svg=Path(svg))
    return f"PyG against DGL: {png}"


def across(runs: str, png: str, svg: str, baseline: str, alpha: float) -> str:
    """The ranks of methods over data sets and pairs."""
    found = across_cells(read_runs(Path(runs)), baseline=baseline, alpha=alpha)
    draw_across(found, png=Path(png), svg=Path(svg))
    return f"{found.cells} cells: {png}"


def training(records: Sequence[str], name: str, backend: str, pair: str, png: str, svg: str) -> str:
    """The validation curves of one cell: of every run whose history is there."""
    histories: dict[tuple[str, int], pd.DataFrame] = {}
    selected: dict[tuple[str, int], int] = {}
    metric = ""
    for shard in map(Path, records):
        for record in read_shard(shard):
            history = shard.with_name(f"seed-{record.seed}.history.csv")
            run, metric = (record.method, record.seed), record.metric
            if history.exists():
                histories[run] = pd.read_csv(history)
            if record.best_epoch is not None:
                selected[run] = record.best_epoch
    draw_curves(
        histories, name, backend, pair, png=Path(png), svg=Path(svg), metric=metric, selected=selected
    )  # fmt: skip
    return f"{name}, {backend}, {pair}: {len(histories)} curves"
