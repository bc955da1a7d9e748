"""Curves of training: the validation metric by epoch, a panel per method, every seed a line. Imports no torch."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from distillbench.figures.style import (
    FAINT,
    TEXT,
    caption,
    draw_message,
    head_height,
    library_look,
    new_figure,
    save,
    shortened,
    styled,
)
from distillbench.params import TEACHER
from distillbench.record import read_shard
from distillbench.wording import backend_label, metric_label

# Inches: margins, a panel, between panels across and down. At most so many panels beside each other.
LEFT, RIGHT, PANEL_WIDTH, PANEL_HEIGHT, ACROSS, DOWN, COLUMNS = 0.65, 0.2, 1.95, 1.25, 0.2, 0.45, 5
LEAST_WIDTH = 6.0  # of the page, for its title
DPI = 100  # many panels, and shown on a screen
HEAD = "Thin: one seed each. Thick: their median, as far as more than half of the seeds were trained."

Histories = Mapping[tuple[str, int], pd.DataFrame]


def draw_curves(
    histories: Histories,
    dataset: str,
    backend: str,
    pair: str,
    *,
    png: Path,
    svg: Path,
    metric: str = "",
    selected: Mapping[tuple[str, int], int] | None = None,
) -> None:
    """Draw the validation curves of one cell; write PNG and SVG.

    histories: by (method, seed) what ``seed-*.history.csv`` holds, with columns ``epoch`` and ``val`` (a fraction,
    NaN at an epoch without evaluation). metric: its name, for the axis. selected: by (method, seed) the epoch whose
    weights were kept, marked by a point. The teacher comes first, methods in the order in which ``histories`` has them;
    all panels share their axes. Without a history a small figure says so. Raises ValueError naming a history without
    these columns.
    """
    title = f"{dataset}, {pair}, {backend_label(backend)}: training curves"
    for (method, seed), history in histories.items():
        if missing := {"epoch", "val"} - set(history.columns):
            raise ValueError(f"history of {method}, seed {seed}: no column {', '.join(sorted(missing))}")
    curves = {
        run: history.loc[np.isfinite(history["val"].astype(float)), ["epoch", "val"]].astype(float)
        for run, history in histories.items()
    }
    if all(curve.empty for curve in curves.values()):
        draw_message(title, "No epoch was evaluated: nothing was trained here.", png=png, svg=svg)
        return
    with styled():
        save(_figure(curves, selected or {}, title, backend, metric), png=png, svg=svg, dpi=DPI)


def _figure(
    curves: dict[tuple[str, int], pd.DataFrame],
    selected: Mapping[tuple[str, int], int],
    title: str,
    backend: str,
    metric: str,
) -> Figure:
    methods = sorted(dict.fromkeys(method for method, _ in curves), key=lambda method: method != TEACHER)
    columns = min(len(methods), COLUMNS)
    rows = math.ceil(len(methods) / columns)
    width = max(LEFT + RIGHT + columns * PANEL_WIDTH + (columns - 1) * ACROSS, LEAST_WIDTH)
    wide = (width - LEFT - RIGHT - (columns - 1) * ACROSS) / columns
    head_text = HEAD + (" Points: the epoch whose weights were selected." if selected else "")
    head, foot = head_height(head_text, width) + 0.3, 0.55
    high = PANEL_HEIGHT if rows > 1 else 1.6 * PANEL_HEIGHT
    height = head + rows * high + (rows - 1) * DOWN + foot
    figure = new_figure(width, height)
    everything = pd.concat([curve for curve in curves.values() if len(curve)])
    low, top = 100 * everything["val"].min(), 100 * everything["val"].max()
    last, pad = everything["epoch"].max(), 0.05 * max(top - low, 1.0)
    for number, method in enumerate(methods):
        row, column = divmod(number, columns)
        bottom = height - head - (row + 1) * high - row * DOWN
        left = LEFT + column * (wide + ACROSS)
        ax = figure.add_axes((left / width, bottom / height, wide / width, high / height))
        ax.set_xlim(min(1, last - 1), last + 0.02 * max(last - 1, 1))
        ax.set_ylim(low - pad, top + pad)
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        ax.yaxis.set_major_locator(MaxNLocator(4))
        ax.grid(axis="y")
        ax.tick_params(labelsize=7.5, labelleft=column == 0, labelbottom=number + columns >= len(methods))
        runs = {seed: curve for (name, seed), curve in curves.items() if name == method}
        marks = {seed: epoch for (name, seed), epoch in selected.items() if name == method}
        _draw_method(ax, method, runs, marks, backend)
    middle = LEFT + (width - LEFT - RIGHT) / 2
    figure.text(middle / width, 0.12 / height, "epoch", ha="center", va="bottom")
    label = f"validation {metric_label(metric)}, %" if metric else "validation metric, %"
    figure.text(0.12 / width, (foot + (height - head)) / 2 / height, label, rotation=90, ha="left", va="center")
    caption(figure, title, head_text, "")
    return figure


def _draw_method(ax: Axes, method: str, runs: dict[int, pd.DataFrame], marks: dict[int, int], backend: str) -> None:
    colour, marker = library_look(backend)
    trained = {seed: curve for seed, curve in runs.items() if len(curve)}
    count = f"{len(runs)} seed{'s' * (len(runs) != 1)}"
    if len(trained) < len(runs):
        count = f"{len(trained)} of {count}"
    ax.set_title(shortened(method, 20), fontsize=8.5, color=TEXT, pad=3)
    ax.set_title(count, loc="right", fontsize=7, color=FAINT, fontweight="normal", pad=3)
    if not trained:
        ax.text(0.5, 0.5, "not trained", transform=ax.transAxes, ha="center", va="center", color=FAINT)
        return
    lines = [np.column_stack([curve["epoch"], 100 * curve["val"]]) for curve in trained.values()]
    ax.add_collection(LineCollection(lines, colors=colour, linewidths=0.6, alpha=0.45), autolim=False)
    middle = median_curve(list(trained.values()))
    ax.plot(middle.index, 100 * middle, color=colour, lw=1.6, marker=marker if len(middle) == 1 else "", ms=3)
    for seed, epoch in marks.items():
        value = trained[seed].loc[trained[seed]["epoch"] == epoch, "val"] if seed in trained else pd.Series()
        if len(value):
            ax.plot(
                [epoch], [100 * value.iloc[0]], ls="", marker=marker, ms=3, mfc="white", mec=TEXT, mew=0.7, zorder=3
            )


def median_curve(curves: list[pd.DataFrame]) -> pd.Series:
    """Median over seeds of ``val`` by epoch, at the epochs that more than half of ``curves`` have.

    Seeds stop early at different epochs; a median over the few that went on would be of those that still improved.
    """
    by_epoch = pd.concat(curves).groupby("epoch")["val"]
    median: pd.Series = by_epoch.median()[by_epoch.count() > len(curves) / 2]
    return median


def draw(*, records: Sequence[str], dataset: str, backend: str, pair: str, png: str, svg: str) -> str:
    """See plan.figures.Figure: one cell, of every run whose history is there."""
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
        histories, dataset, backend, pair, png=Path(png), svg=Path(svg), metric=metric, selected=selected
    )  # fmt: skip
    return f"{dataset}, {backend}, {pair}: {len(histories)} curves"
