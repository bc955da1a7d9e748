"""The picture of accuracy against cost: latency, memory, parameters and training time, with the frontiers.

The students of a pair are one model trained in many ways: against what the model costs they stand in one column, and
only the training time tells the methods apart. So the two are drawn differently. Imports no torch.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from scipy import stats

from distillbench.figures.labels import Label, place_labels
from distillbench.figures.style import (
    FAINT,
    TEXT,
    caption,
    draw_message,
    foot_height,
    head_height,
    library_look,
    new_figure,
    save,
    shortened,
    styled,
)
from distillbench.runs import read_runs
from distillbench.statistics.pareto import ON_FRONTIER, pareto_table
from distillbench.wording import backend_label, backend_order, metric_label

# What the model costs, and the name of its axis.
OF_MODEL = {
    "latency_ms": "latency of a forward pass, ms", "peak_memory_mb": "peak memory of a forward pass, MB",
    "parameters": "parameters",
}  # fmt: skip
TRAINING = "train_seconds"
# Inches: page, margins, between panels across and down, height of a panel of costs.
WIDTH, LEFT, RIGHT, ACROSS, DOWN, PANEL = 11.0, 0.7, 0.2, 0.5, 0.85, 2.7
LETTERS = 24  # of a name, at most
HEAD = (
    "Filled, and joined by the line: the frontier of a library; nothing that ran with it scores as high for less or "
    "higher for as much. It is of means: what lies close to it may be on either side by chance."
)
COLUMN = (
    "\nThe students of a pair are one model, so they share latency, memory and parameters and stand in one column, but "
    "for methods that change it, of which only parameters and training time are known. Otherwise only training time "
    "tells the methods apart."
)
FOOT = (
    "Score: mean over the finished seeds. Latency and memory: of the profiles, measured alone with all cores. Training "
    "time: median over the finished seeds of this model alone, a student's without its teacher's; measured with other "
    "jobs beside it, so read it as an order of magnitude; vertical bars there are 95% t intervals of the score. "
    "Costs are on logarithmic axes."
)


Line = tuple[list[float], list[float]]  # the corners of a frontier: costs, scores


def draw_pareto(table: pd.DataFrame, dataset: str, *, png: Path, svg: Path, baseline: str = "supervised") -> None:
    """Draw ``dataset`` of what ``pareto_table`` returned; write PNG and SVG.

    Above a panel for each known cost of the model (latency, memory, parameters), both libraries in it. Below, for each
    pair and library, the methods against their training time. Score in percent; methods far below the others stand at
    the lower edge with their score. Raises ValueError where ``table`` has none of ``dataset``.
    """
    of_dataset = table[table["dataset"] == dataset]
    if of_dataset.empty:
        known = ", ".join(map(str, pd.unique(table["dataset"])))
        raise ValueError(f"pareto: no runs of '{dataset}' (data sets: {known})")
    title = f"{dataset}: test {metric_label(of_dataset['metric'].iloc[0])} against cost"
    drawn = of_dataset[of_dataset["score"].notna()]
    if drawn.empty:
        draw_message(title, "No run of this data set finished.", png=png, svg=svg)
        return
    with styled():
        save(_figure(of_dataset, drawn.assign(percent=100 * drawn["score"]), title, baseline), png=png, svg=svg)


def _figure(whole: pd.DataFrame, drawn: pd.DataFrame, title: str, baseline: str) -> Figure:
    costs = [cost for cost in OF_MODEL if (drawn[cost] > 0).any()]
    timed = drawn[drawn[TRAINING] > 0]
    pairs, backends = list(pd.unique(timed["pair"])), sorted(pd.unique(drawn["backend"]), key=backend_order)
    # one pair: the libraries in one panel; several have too many columns for that
    together = [backends] if drawn["pair"].nunique() == 1 else [[backend] for backend in backends]
    together = together if costs else []
    most = max((len(timed[timed["pair"] == pair]) / len(backends) for pair in pairs), default=0)
    tall = 2.5 + 0.05 * max(most - 15, 0)
    head_text = HEAD + (COLUMN if costs else "")
    head = head_height(head_text, WIDTH) + 0.35
    foot_text = _foot(whole, drawn)
    foot = foot_height(foot_text, WIDTH) + 0.75
    rows = [PANEL] * len(together) + [tall] * len(pairs)
    height = head + sum(rows) + DOWN * (len(rows) - 1) + foot
    figure = new_figure(WIDTH, height)

    def panels(row: int, count: int) -> list[Axes]:
        """``count`` panels side by side in a row counted from the top."""
        bottom = height - head - sum(rows[: row + 1]) - DOWN * row
        wide = (WIDTH - LEFT - RIGHT - ACROSS * (count - 1)) / count
        wide = min(wide, (WIDTH - LEFT - RIGHT - ACROSS) / 2) if row < len(together) else wide
        return [
            figure.add_axes(
                ((LEFT + n * (wide + ACROSS)) / WIDTH, bottom / height, wide / WIDTH, rows[row] / height)
            )
            for n in range(count)
        ]  # fmt: skip

    unlabelled: list[str] = []
    for row, libraries in enumerate(together):
        _draw_costs(panels(row, len(costs)), drawn, costs, libraries, baseline)
    for row, pair in enumerate(pairs, len(together)):
        here = timed[timed["pair"] == pair]
        low, high = _range(here["percent"])
        for ax, backend in zip(panels(row, len(backends)), backends, strict=True):
            one = here[here["backend"] == backend]
            line = timed[timed["backend"] == backend]
            _prepare(ax, here[TRAINING], low, high)
            ax.set_title(f"{backend_label(backend)} · {pair}", color=library_look(backend).colour)
            ax.set_xlabel("training time of one seed, s", labelpad=2)
            _draw_training(ax, one, line, low, baseline, unlabelled)
            if ax.get_position().x0 * WIDTH < LEFT + 0.1:
                ax.set_ylabel(f"test {metric_label(drawn['metric'].iloc[0])}, %")
    foot_text += _listed("Without a name, for want of room", list(dict.fromkeys(unlabelled)))
    caption(figure, title, head_text, foot_text)
    return figure


def _draw_costs(axes: list[Axes], drawn: pd.DataFrame, costs: list[str], libraries: list[str], baseline: str) -> None:
    """One row of panels, with the given libraries; its axes are those of all libraries."""
    ranges = [_range(group) for _, group in drawn.groupby("pair")["percent"]]
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    several = drawn["pair"].nunique() > 1
    for ax, cost in zip(axes, costs, strict=True):
        known = drawn[drawn[cost] > 0]
        _prepare(ax, known[cost], low, high)
        ax.set_xlabel(OF_MODEL[cost], labelpad=2)
        if ax is axes[0]:
            ax.set_ylabel(f"test {metric_label(drawn['metric'].iloc[0])}, %")
        labels: list[Label] = []
        points: list[tuple[float, float]] = []
        lines: list[Line] = []
        shared = cost == "parameters" and len(libraries) > 1
        if shared:
            known = known.assign(parameters=_aside(ax, known, libraries))
            every = "both" if len(libraries) == 2 else "all"
            ax.set_xlabel(f"parameters (equal in {every}, drawn side by side)", labelpad=2)
        for backend in libraries:
            of_library = known[known["backend"] == backend]
            look = library_look(backend)
            lines += _draw_frontier(ax, of_library, cost, look.colour)
            for _, column in of_library[of_library["role"] == "student"].groupby(["pair", cost], sort=False):
                ax.plot(
                    [column[cost].iloc[0]] * 2, [column["percent"].min(), column["percent"].max()], color=look.colour,
                    lw=5, alpha=0.15, solid_capstyle="round", zorder=1,
                )  # fmt: skip
            _draw_points(ax, of_library, cost, low, baseline)
            points += list(zip(of_library[cost], of_library["percent"].clip(lower=low), strict=True))
            for row in of_library[_named(of_library, cost, baseline)].to_dict("records"):
                text = shortened(str(row["method"]), LETTERS)
                text += f" ({shortened(str(row['pair']), LETTERS)})" if several else ""
                colour = TEXT if shared else look.colour
                style = {"color": colour, "fontsize": 7, "fontweight": _weight(row, baseline)}
                if not (shared and any(label.text == text for label in labels)):
                    labels.append(Label(row[cost], max(row["percent"], low), text, style))
        place_labels(ax, labels, points, lines)
    axes[0].legend(
        handles=[
            axes[0].plot([], [], ls="", marker=library_look(name).marker, color=library_look(name).colour,
                         label=backend_label(name))[0]
            for name in libraries
        ],
        loc="lower left", bbox_to_anchor=(0, 1), ncols=len(libraries), borderpad=0, handletextpad=0.2,
    )  # fmt: skip


def _draw_training(
    ax: Axes, here: pd.DataFrame, library: pd.DataFrame, low: float, baseline: str, unlabelled: list[str]
) -> None:
    if here.empty:
        ax.text(0.5, 0.5, "no finished run", transform=ax.transAxes, ha="center", va="center", color=FAINT)
        return
    colour = library_look(str(here["backend"].iloc[0])).colour
    # of all pairs of the library; where another pair has all of it, it would be a line without a point
    lines = _draw_frontier(ax, library, TRAINING, colour) if here[ON_FRONTIER[TRAINING]].any() else []
    half = stats.t.ppf(0.975, here["n_ok"].clip(lower=2) - 1) * here["score_std"] / np.sqrt(here["n_ok"])
    ax.vlines(here[TRAINING], here["percent"] - 100 * half, here["percent"] + 100 * half, color=colour, lw=1, alpha=0.3)
    _draw_points(ax, here, TRAINING, low, baseline)
    flag = ON_FRONTIER[TRAINING]
    first = here.assign(first=_named(here, TRAINING, baseline)).sort_values(["first", "percent"], ascending=False)
    labels = []
    for row in first.to_dict("records"):
        text = shortened(str(row["method"]), LETTERS)
        if row["n_ok"] < row["n"]:
            text += f" ({row['n_ok']} / {row['n']} ok)"
        if row["percent"] < low:
            text += f" {row['percent']:.1f}"
        style = {"color": colour if row[flag] else TEXT, "fontsize": 7, "fontweight": _weight(row, baseline)}
        labels.append(Label(row[TRAINING], max(row["percent"], low), text, style))
    points = list(zip(here[TRAINING], here["percent"].clip(lower=low), strict=True))
    unlabelled += place_labels(ax, labels, points, lines)


def _draw_points(ax: Axes, rows: pd.DataFrame, cost: str, low: float, baseline: str) -> None:
    """A marker a method: filled on the frontier, larger for the teacher, an arrow down where it lies below the axis."""
    for row in rows.to_dict("records"):
        look, flagged = library_look(row["backend"]), row[ON_FRONTIER[cost]]
        below = row["percent"] < low
        ax.plot(
            [row[cost]], [max(row["percent"], low)], ls="", marker="v" if below else look.marker,
            ms=8.5 if row["role"] == "teacher" else 5.5, mfc=look.colour if flagged else "white", mec=look.colour,
            mew=1.9 if row["method"] == baseline else 1.0, zorder=4 if flagged else 3, clip_on=False,
        )  # fmt: skip


def _draw_frontier(ax: Axes, rows: pd.DataFrame, cost: str, colour: str) -> list[Line]:
    """The best score that can be had for at most so much, as a step line to the right edge; returns its corners."""
    best = rows[rows[ON_FRONTIER[cost]]].sort_values([cost, "percent"])
    if best.empty:
        return []
    x = [*np.repeat(best[cost].to_numpy(), 2)[1:], ax.get_xlim()[1]]
    y = [*np.repeat(best["percent"].to_numpy(), 2)]
    ax.plot(x, y, color=colour, lw=1.2, alpha=0.7, zorder=2)
    return [(x, y)]


def _aside(ax: Axes, rows: pd.DataFrame, backends: list[str]) -> pd.Series:
    """The parameters, moved a little to the right for every library but the first, so that none covers another."""
    left, right = ax.get_xlim()
    step = (right / left) ** 0.03
    return rows["parameters"] * rows["backend"].map({name: step**n for n, name in enumerate(backends)})


def _prepare(ax: Axes, costs: pd.Series, low: float, high: float) -> None:
    """Logarithmic horizontal axis around ``costs`` with plain numbers, score from ``low`` to ``high``."""
    left, right = costs.min(), costs.max()
    pad = max((right / left) ** 0.1, 1.15)
    ax.set_xscale("log")
    ax.set_xlim(left / pad, right * pad)
    ax.set_ylim(low, high)
    ranges: dict[float, list[float]] = {4: [1, 1.5, 2, 3, 4, 5, 7], 30: [1, 2, 5], 300: [1, 3], math.inf: [1]}
    subs = next(subs for most, subs in ranges.items() if right / left <= most)
    ax.xaxis.set_major_locator(LogLocator(subs=subs, numticks=20))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1000 else f"{value:g}"))
    ax.grid(axis="y")


def _range(percent: pd.Series) -> tuple[float, float]:
    """Limits of the score; what lies far below the rest does not stretch them (Tukey's fences, twice as far)."""
    q25, q75 = percent.quantile([0.25, 0.75])
    spread = max(q75 - q25, 0.5)
    kept = percent[percent >= q25 - 3 * spread]
    if kept.min() - percent.min() < 0.5 * (percent.max() - kept.min()):
        kept = percent  # little would be won
    pad = 0.08 * max(percent.max() - kept.min(), 1.0)
    return float(kept.min() - pad), float(percent.max() + pad)


def _named(rows: pd.DataFrame, cost: str, baseline: str) -> pd.Series:
    """Which rows are named whatever else is: the frontier, the teacher and the baseline."""
    return rows[ON_FRONTIER[cost]] | (rows["role"] == "teacher") | (rows["method"] == baseline)


def _weight(row: dict[Any, Any], baseline: str) -> str:
    return "bold" if row["role"] == "teacher" or row["method"] == baseline else "normal"


def _foot(whole: pd.DataFrame, drawn: pd.DataFrame) -> str:
    """The foot of the page: how it was measured, and what is not there."""
    text = FOOT
    if any((group < _range(group)[0]).any() for _, group in drawn.groupby("pair")["percent"]):
        text += " Arrows: further down, at the score beside them."
    gone = [f"{row.method} ({row.backend}, {row.pair})" for row in whole[whole["score"].isna()].itertuples()]
    return text + _listed("No finished run, so not drawn", gone)


def _listed(what: str, names: list[str]) -> str:
    """A sentence with the first ten of ``names`` and how many more there are; the table has them all."""
    if not names:
        return ""
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f" {what}: {', '.join(shortened(name, 2 * LETTERS) for name in names[:10])}{more}."


def draw(*, runs: str, profiles: Sequence[str], dataset: str, png: str, svg: str, baseline: str) -> str:
    """See plan.figures.Figure: the picture of one data set. profiles: their table, or none."""
    costs = pd.concat(map(pd.read_csv, profiles)) if profiles else None
    table = pareto_table(read_runs(Path(runs)), costs)
    draw_pareto(table, dataset, png=Path(png), svg=Path(svg), baseline=baseline)
    return f"{dataset}: {png}"
