"""One figure per data set: every seed a point, mean and interval per method, both libraries, teacher and student alone.

Drawn without pyplot, so that nothing depends on a display or on global state; equal input gives equal files.
Importing this module imports no torch.
"""

import math
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import blended_transform_factory

from distillbench.figures.style import ALARM, FAINT, GROUND, TEACHER, TEXT, Look, library_look, new_figure, save, styled
from distillbench.params import MIN_SEEDS
from distillbench.runs import read_parquet, read_runs
from distillbench.statistics.paired import paired_estimate, t_interval
from distillbench.wording import backend_label, backend_order, metric_label, signed

# Inches: a method's line, a panel's width, panel to panel, between rows of panels (title and axis), page head and foot.
LINE, PANEL, PITCH, BETWEEN, HEAD, FOOT = 0.46, 2.75, 5.35, 0.95, 0.7, 0.55
RUNS_AT, DIFFERENCE_AT = PANEL + 0.15, PANEL + 0.7  # from the panel's left edge: the columns of text beside it


def draw_dataset(
    runs: pd.DataFrame,
    comparison: pd.DataFrame,
    dataset: str,
    *,
    png: Path,
    svg: Path,
    baseline: str = "supervised",
) -> None:
    """Draw the runs of ``dataset`` and what ``comparison`` (of ``stats.compare``) says of them; write PNG and SVG.

    One row of panels per pair, one column per backend, one line per student method; the horizontal axis is the test
    metric in percent and shared within the figure. A teacher far from all students stands behind a break of the axis.
    Raises ValueError where ``runs`` has none of ``dataset``.
    """
    of_dataset = runs[runs["dataset"] == dataset]
    if of_dataset.empty:
        known = ", ".join(map(str, pd.unique(runs["dataset"])))
        raise ValueError(f"figure: no runs of '{dataset}' (data sets: {known})")
    compared = comparison[comparison["dataset"] == dataset]
    with styled():
        save(_figure(of_dataset, compared, dataset, baseline), png=png, svg=svg)


def _figure(runs: pd.DataFrame, comparison: pd.DataFrame, dataset: str, baseline: str) -> Figure:
    pairs, backends = list(pd.unique(runs["pair"])), sorted(pd.unique(runs["backend"]), key=backend_order)
    present = list(pd.unique(comparison.loc[comparison["role"] == "student", "method"]))
    methods = [baseline, *(m for m in present if m != baseline)] if baseline in present else present
    labels = {m: f"{m}\n({_alone(baseline)})" if m == baseline else m for m in methods}
    margin = 0.25 + 0.078 * max((len(line) for label in labels.values() for line in label.split("\n")), default=10)
    run = {pair: set(comparison.loc[comparison["pair"] == pair, "method"]) for pair in pairs}
    drawn = {pair: [m for m in methods if m in run[pair]] or methods for pair in pairs}
    panels = {pair: LINE * max(len(drawn[pair]), 2) for pair in pairs}
    width = margin + PITCH * len(backends)
    head = HEAD + 0.16 * _legend(width, baseline).count("\n")
    height = head + FOOT + sum(panels.values()) + len(pairs) * BETWEEN
    figure = new_figure(width, height)
    scale = _scale(runs)
    top = height - head - 0.5
    for pair, panel in panels.items():
        bottom = top - panel
        top = bottom - BETWEEN
        for column, backend in enumerate(backends):
            ax = figure.add_axes(((margin + PITCH * column) / width, bottom / height, PANEL / width, panel / height))
            here = (runs["pair"] == pair) & (runs["backend"] == backend)
            there = (comparison["pair"] == pair) & comparison["backend"].map(lambda b, own=backend: own in b.split("+"))
            label = backend_label(backend) + (f" · {pair}" if len(pairs) > 1 else "")
            look = library_look(backend)
            _draw_panel(ax, runs[here], comparison[there], drawn[pair], baseline, label, look, scale)
            if column == 0:
                ax.set_yticks(range(len(drawn[pair])), [labels[m] for m in drawn[pair]])
    _draw_heading(figure, runs, dataset, baseline, _foot(comparison, baseline))
    return figure


class Scale(NamedTuple):
    """The horizontal axis of a figure, in percent; ``gap`` is what is cut out between students and teachers."""

    low: float
    high: float
    gap: tuple[float, float] | None
    ticks: list[float]


def _scale(runs: pd.DataFrame) -> Scale:
    ok = runs[runs["status"] == "ok"].assign(percent=100 * runs["test"])
    students = ok.loc[ok["role"] == "student", "percent"]
    teachers = ok.loc[ok["role"] == "teacher"].groupby(["pair", "backend"])["percent"].mean()
    values = pd.concat([students, teachers])
    low, high = (values.min(), values.max()) if len(values) else (0.0, 100.0)
    pad = 0.06 * max(students.max() - students.min(), 1.0) if len(students) else 1.0
    gap = None
    if len(students) and len(teachers):
        start, end = students.max() + pad, teachers.min() - 3 * pad
        gap = (start, end) if end - start > 0.5 * (start - students.min()) else None
    low, high = low - pad, high + (3 if gap else 1) * pad
    upper = gap[0] - 0.05 * (gap[0] - low) if gap else high  # no number under the mark of the break
    ticks = MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(low, upper)
    return Scale(low, high, gap, [tick for tick in ticks if low <= tick <= upper])


def _apply(scale: Scale, ax: Axes) -> None:
    """Set scale, limits and ticks of ``ax``, and mark the break."""
    low, high, gap, ticks = scale
    if gap:
        left = gap[0] + 0.06 * (gap[0] - low)  # what is left of the gap
        true, drawn = [low, *gap, high], [low, gap[0], left, left + high - gap[1]]
        ax.set_xscale("function", functions=(_through(true, drawn), _through(drawn, true)))
    ax.set_xlim(low, high)
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    for x in gap or ():
        ax.plot([x], [0], marker=[(-0.5, -1), (0.5, 1)], ms=9, color=FAINT, mew=1, clip_on=False,
                transform=ax.get_xaxis_transform(), zorder=5)  # fmt: skip


def _through(x: list[float], y: list[float]) -> Any:
    """The piecewise linear function through the points, straight on beyond the ends."""

    def function(values: Any) -> Any:
        v = np.asarray(values, float)
        inside = np.interp(v, x, y)
        return inside + np.minimum(v - x[0], 0) + np.maximum(v - x[-1], 0)

    return function


def _draw_panel(
    ax: Axes,
    runs: pd.DataFrame,
    comparison: pd.DataFrame,
    methods: list[str],
    baseline: str,
    label: str,
    look: Look,
    scale: Scale,
) -> None:
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(methods) - 0.5, -0.5)
    ax.set_yticks(range(len(methods)), [""] * len(methods))
    ax.set_title(label, loc="left", fontweight="bold", fontsize=11, color=look.colour, pad=26)
    if runs.empty or (runs["status"] == "skipped").all():
        reasons = [textwrap.fill(str(reason), 40) for reason in pd.unique(runs["reason"]) if reason]
        text = "\n".join(["skipped" if len(runs) else "not run", *reasons])
        ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=FAINT, fontsize=10)
        ax.set_xticks([])
        ax.spines["bottom"].set_visible(False)
        ax.set_facecolor(GROUND)
        return
    _apply(scale, ax)
    ax.set_xlabel(f"test {metric_label(runs['metric'].iloc[0])}, %", labelpad=2)
    for y in range(len(methods)):
        ax.axhline(y + 0.5, color="#eeeeee", lw=0.8, zorder=0)
    ok = runs[runs["status"] == "ok"]
    means = 100 * ok.groupby("method")["test"].mean()
    teachers = 100 * ok.loc[ok["role"] == "teacher", "test"]
    alone = means.get(baseline, math.nan)
    lines = []
    if len(teachers):
        ax.axvline(teachers.mean(), color=TEACHER, lw=1.8, zorder=1)
        planned = int((runs["role"] == "teacher").sum())
        missing = f"{len(teachers)} / {planned} ok\n" if len(teachers) < planned else ""
        lines.append((teachers.mean(), f"{missing}teacher {teachers.mean():.1f}", TEACHER))
    if not math.isnan(alone):
        ax.axvline(alone, color=FAINT, lw=1.2, ls=(0, (4, 3)), zorder=1)
        lines.append((alone, f"{_alone(baseline)} {alone:.1f}", FAINT))
    _name_lines(ax, lines)
    seeds = sorted(pd.unique(runs["seed"]))
    offsets = dict(zip(seeds, np.linspace(0.05, 0.36, len(seeds)) if len(seeds) > 1 else [0.2], strict=True))
    aside = blended_transform_factory(ax.transAxes, ax.transData)
    for x, heading in ((RUNS_AT, "runs ok"), (DIFFERENCE_AT, "difference, points")):
        ax.text(x / PANEL, -0.6, heading, transform=aside, va="bottom", fontsize=7.5, color=FAINT)
    for y, method in enumerate(methods):
        of_method = runs[runs["method"] == method]
        _draw_method(ax, of_method[of_method["status"] == "ok"], y, offsets, look)
        for row in comparison[comparison["method"] == method].to_dict("records"):
            _annotate(ax, aside, y, row, method == baseline)


def _draw_method(ax: Axes, ok: pd.DataFrame, y: int, offsets: dict[int, float], look: Look) -> None:
    """The mean and its interval on the line's upper half, the seeds below it: none hides another."""
    colour, marker = look
    percent = 100 * ok["test"].to_numpy(float)
    places = [y + offsets[seed] for seed in ok["seed"]]
    ax.plot(percent, places, ls="", marker=marker, ms=4, mfc=colour, mec="none", alpha=0.5, zorder=2)
    if percent.size:
        interval = t_interval(paired_estimate(percent))
        if percent.size >= MIN_SEEDS:  # of fewer, it would be far too narrow
            ax.plot(interval, [y - 0.14, y - 0.14], color=colour, lw=2.6, solid_capstyle="butt", zorder=3)
        ax.plot([percent.mean()], [y - 0.14], ls="", marker=marker, ms=8, mfc=colour, mec="white", mew=1.2, zorder=4)


def _annotate(ax: Axes, aside: Any, y: int, row: dict[Any, Any], is_baseline: bool) -> None:
    """Right of the panel: how many runs finished, the paired difference and the verdict."""
    whole = row["n_ok"] == row["n"]
    ax.text(RUNS_AT / PANEL, y, f"{row['n_ok']} / {row['n']}", transform=aside, va="center", fontsize=8.5,
            color=FAINT if whole else ALARM, fontweight="normal" if whole else "bold")  # fmt: skip
    if is_baseline:
        return
    shown = row["verdict"].startswith(("better", "worse"))
    style: dict[str, Any] = {"color": TEACHER if shown else FAINT, "fontweight": "bold" if shown else "normal"}
    lines = [row["verdict"]]
    if not pd.isna(row["diff"]):
        interval = "" if pd.isna(row["ci_low"]) else f" [{signed(row['ci_low'])}, {signed(row['ci_high'])}]"
        lines = [signed(row["diff"]) + interval, *lines]
    for line, text in enumerate(lines):
        place = y if len(lines) == 1 else y - 0.17 + 0.36 * line
        ax.text(
            DIFFERENCE_AT / PANEL, place, text, transform=aside, va="center", fontsize=8 if line == 0 else 7.5, **style
        )


def _name_lines(ax: Axes, lines: list[tuple[float, str, str]]) -> None:
    """Write the names (x, text, colour) of the vertical lines above the panel: within it, and not over each other."""
    to_axes = ax.transData + ax.transAxes.inverted()
    placed = sorted((float(to_axes.transform((x, 0))[0]), text, colour) for x, text, colour in lines)
    half = [0.0115 * max(map(len, text.split("\n"))) for _, text, _ in placed]  # half a text's width, in panels
    centre = [min(max(x, h - 0.1), 1 - h) for (x, _, _), h in zip(placed, half, strict=True)]
    if len(placed) == 2 and (excess := sum(half) + 0.03 - (centre[1] - centre[0])) > 0:
        left = min(excess, max(centre[0] - half[0] + 0.1, 0))
        centre = [centre[0] - left, centre[1] + excess - left]
    for x, (_, text, colour) in zip(centre, placed, strict=True):
        ax.annotate(text, (x, 1), xycoords="axes fraction", xytext=(0, 3), textcoords="offset points",
                    ha="center", va="bottom", fontsize=8.5, color=colour, annotation_clip=False)  # fmt: skip


def _foot(comparison: pd.DataFrame, baseline: str) -> str:
    """What the columns of text beside the panels are."""
    of_rows = "new seeds and test rows" if (comparison["n_rows"] > 0).any() else "new seeds"
    note = (
        f"Difference to {baseline} in percentage points, paired by seed, with an interval for {of_rows}, 95% of all "
        "methods together; bold where the verdict is that there is one. It is of all libraries together where they "
        "agree. Bars may overlap all the same: what paired seeds share cancels in the difference."
    )
    margins = sorted(set(comparison.loc[comparison["verdict"].str.contains("δ"), "delta"]))
    return note + (f" δ = {' or '.join(f'{100 * delta:g}' for delta in margins)} points." if margins else "")


def _draw_heading(figure: Figure, runs: pd.DataFrame, dataset: str, baseline: str, note: str) -> None:
    width, height = figure.get_size_inches()
    seeds, pairs = runs["seed"].nunique(), pd.unique(runs["pair"])
    metric = metric_label(runs["metric"].iloc[0])
    title = f"{dataset}{f', {pairs[0]}' if len(pairs) == 1 else ''}: test {metric}, {seeds} seed{'s' * (seeds != 1)}"
    figure.text(0.12 / width, 1 - 0.14 / height, title, va="top", fontsize=13, fontweight="bold")
    figure.text(0.12 / width, 1 - 0.42 / height, _legend(width, baseline), va="top", color=TEXT)
    figure.text(
        0.12 / width,
        0.1 / height,
        textwrap.fill(note, int(16.5 * width), break_on_hyphens=False),
        va="bottom",
        fontsize=7.5,
        color=FAINT,
    )


def _alone(baseline: str) -> str:
    return "student alone" if baseline == "supervised" else "baseline"


def _legend(width: float, baseline: str) -> str:
    text = (
        "Small points: one seed each. Large marker and bar: mean over seeds and its 95% t interval. "
        f"Solid line: mean of the teachers. Dashed line: {_alone(baseline)}."
    )
    return textwrap.fill(text, int(14.4 * width), break_on_hyphens=False)


def draw(*, runs: str, comparison: str, dataset: str, png: str, svg: str, baseline: str) -> str:
    """See plan.figures.Figure: the picture of one data set, from its tables."""
    frame, compared = read_runs(Path(runs)), read_parquet(Path(comparison))
    draw_dataset(frame, compared, dataset, png=Path(png), svg=Path(svg), baseline=baseline)
    return f"{dataset}: {png}"
