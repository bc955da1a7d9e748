"""The picture across cells: which ranks are told apart, and how sure ranks and scores are over seeds.

Above a critical-difference diagram, drawn by scikit-posthocs; below, a line per method. With many methods the diagram
is a thicket, and a band of one critical difference from the lowest rank takes its place. Imports no torch.
"""

import math
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import scikit_posthocs
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from distillbench.figures.style import (
    BAND,
    FAINT,
    LOOKS,
    TEACHER,
    TEXT,
    caption,
    draw_message,
    foot_height,
    head_height,
    new_figure,
    save,
    shortened,
    styled,
)
from distillbench.runs import read_runs
from distillbench.statistics.across import Across, across_cells

MOST_IN_DIAGRAM = 24  # methods
# Inches: page, margins, a line of the diagram and of the panels, between panels, a panel's title and its axis.
WIDTH, RIGHT, STEP, LINE, GAP, ABOVE, BELOW = 10.0, 0.3, 0.24, 0.25, 0.3, 0.35, 0.35
LETTERS = 30  # of a name
DIAGRAM = (
    "Diagram: mean rank over cells, 1 is best. What a bar joins, Nemenyi's test does not tell apart at {alpha:g}; CD: "
    "the critical difference. "
)
BANDED = (
    "Band: one critical difference ({cd:.2f} ranks) from the lowest mean rank; methods in it are not told apart from "
    "that one by Nemenyi's test at {alpha:g}. "
)
UNDECIDED = "Friedman's test does not reject at {alpha:g}, so no two methods are told apart{joined}. "
FOOT = (
    "Points and bars: estimate and 95% interval when the seeds of each cell are resampled, all methods together: how "
    "sure they are over seeds, for these cells. Interquartile mean: of the test scores of all cells and seeds, a "
    "quarter cut off at either end. P(improvement): the chance that a run of the method is above a run of {baseline} "
    "on the same cell, whatever the seeds. Hollow: {baseline}; dashed: its value, or even odds."
)


def draw_across(across: Across, *, png: Path, svg: Path) -> None:
    """Draw what ``across_cells`` found, methods by mean rank; write PNG and SVG.

    Where it found too few cells or methods, a small figure says so, so that a declared file is always there.
    """
    if across.table.empty:
        draw_message("Across data sets", across.sentence, png=png, svg=svg)
        return
    with styled():
        save(_figure(across), png=png, svg=svg)


def _figure(across: Across) -> Figure:
    table, k = across.table, len(across.table)
    names = [shortened(str(name), LETTERS) for name in table["method"]]
    with_diagram = k <= MOST_IN_DIAGRAM
    decided = across.p <= across.alpha
    lead = (DIAGRAM if with_diagram else BANDED) if decided else UNDECIDED
    joined = ", and one bar joins all" if with_diagram else ""
    foot = lead.format(alpha=across.alpha, cd=across.critical_difference, joined=joined)
    foot += FOOT.format(baseline=shortened(across.baseline, LETTERS))
    sentence = textwrap.fill(across.sentence, 132, break_on_hyphens=False)  # names and numbers are wider than prose
    head, end = head_height(sentence, WIDTH), foot_height(foot, WIDTH)
    diagram = STEP * (_levels(across) + math.ceil(k / 2) + 3.4) + 0.2 if with_diagram else 0.0
    panels = LINE * k
    height = head + diagram + ABOVE + panels + BELOW + end
    figure = new_figure(WIDTH, height)
    caption(figure, f"Across {across.cells} cells (data set × pair)", sentence, foot)
    if with_diagram:
        box = (0.06, (height - head - diagram + 0.2) / height, 0.88, (diagram - 0.2) / height)
        _draw_diagram(figure.add_axes(box), across, names)
    left = 0.35 + 0.078 * max(map(len, names))
    width = (WIDTH - left - RIGHT - 2 * GAP) / 3
    rank, iqm, improvement = (
        figure.add_axes(
            ((left + column * (width + GAP)) / WIDTH, (end + BELOW) / height, width / WIDTH, panels / height)
        )
        for column in range(3)
    )
    for ax in (rank, iqm, improvement):
        _prepare(ax, k)
    rank.set_yticks(range(k), names)
    for label, method in zip(rank.get_yticklabels(), table["method"], strict=True):
        label.set_fontweight("bold" if method == across.baseline else "normal")
    _draw_estimates(rank, table, across.baseline, "mean_rank", "rank", "Mean rank, 1 is best")
    if decided and not with_diagram:
        best = table["mean_rank"].min()
        rank.axvspan(best, best + across.critical_difference, color=BAND, zorder=0)
    _draw_estimates(iqm, table, across.baseline, "iqm", "iqm", "Interquartile mean, %", 100)
    of_baseline = table.loc[table["method"] == across.baseline, "iqm"]
    if len(of_baseline):
        iqm.axvline(100 * of_baseline.iloc[0], color=FAINT, lw=1, ls="--", zorder=1)
    _draw_estimates(improvement, table, across.baseline, "p_improve", "p_improve", "P(improvement)")
    improvement.axvline(0.5, color=FAINT, lw=1, ls="--", zorder=1)
    improvement.set_xlim(-0.03, 1.03)
    if table["p_improve"].isna().all():
        improvement.text(0.5, 0.5, "the baseline lacks\nin some cell", transform=improvement.transAxes,
                         ha="center", va="center", color=FAINT, backgroundcolor="white")  # fmt: skip
    return figure


def _levels(across: Across) -> int:
    """How many lines the diagram's bars may take at most: as many as ranks can begin a bar."""
    ranks = np.sort(across.table["mean_rank"].to_numpy())
    reach = np.searchsorted(ranks, ranks + across.critical_difference, "right") if len(across.nemenyi) else [len(ranks)]
    return len({end for start, end in enumerate(reach) if end - start > 1})


def _draw_diagram(ax: Axes, across: Across, names: list[str]) -> None:
    """The critical-difference diagram (Demšar 2006, section 3.2.4), with a name and a rank at each end of a line."""
    table, k = across.table, len(names)
    ranks = pd.Series(table["mean_rank"].to_numpy())
    p = across.nemenyi.loc[table["method"], table["method"]].to_numpy() if len(across.nemenyi) else np.ones((k, k))
    margin = max(ranks.min() - 1, k - ranks.max()) + 0.04 * k
    drawn = scikit_posthocs.critical_difference_diagram(
        ranks,
        pd.DataFrame(p),
        alpha=across.alpha,
        ax=ax,
        label_fmt_left="{label}",
        label_fmt_right="{label}",
        text_h_margin=margin,
        elbow_props={"color": FAINT, "lw": 0.9},
        marker_props={"color": LOOKS[0].colour, "s": 22},
        crossbar_props={"color": TEACHER, "linewidth": 3.2, "solid_capstyle": "round"},
    )
    for label in drawn["labels"]:  # it was given places for names: a name may hold what a format would read
        place, on_left = int(label.get_text()), label.get_horizontalalignment() == "right"
        rank = f"{ranks[place]:.2f}"
        label.set_text(f"{names[place]}  {rank} " if on_left else f" {rank}  {names[place]}")
        label.set_color(TEXT)
        label.set_fontweight("bold" if table["method"].iloc[place] == across.baseline else "normal")
    bottom = min(label.get_position()[1] for label in drawn["labels"])
    inches = [0.6 + 0.082 * max(map(len, of_side)) for of_side in (names[: (k + 1) // 2], names[(k + 1) // 2 :])]
    per_inch = (float(np.ptp(ranks)) + 2 * margin) / (ax.get_position().width * WIDTH - sum(inches))
    left, right = ranks.min() - margin - inches[0] * per_inch, ranks.max() + margin + inches[1] * per_inch
    ax.set(xlim=(left, right), ylim=(bottom - 0.6, 2.8))
    ax.set_xticks([tick for tick in MaxNLocator(8, integer=True).tick_values(1, k) if 1 <= tick <= k] if k > 8
                  else range(1, k + 1))  # fmt: skip
    ax.spines["top"].set(visible=True, bounds=(1, k))
    cd = min(across.critical_difference, k - 1)
    ax.plot([1, 1 + cd], [2.0, 2.0], color=TEXT, lw=1.2, marker="|", ms=7)
    ax.text(1 + cd, 2.0, f"  CD = {across.critical_difference:.2f}", va="center", fontsize=8, color=TEXT)


def _prepare(ax: Axes, k: int) -> None:
    ax.set_ylim(k - 0.5, -0.5)
    ax.set_yticks([])
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x")
    for y in range(1, k, 2):
        ax.axhspan(y - 0.5, y + 0.5, color="#f6f6f6", lw=0, zorder=-1)


def _draw_estimates(
    ax: Axes, table: pd.DataFrame, baseline: str, name: str, prefix: str, title: str, scale: float = 1
) -> None:
    """A point and its interval on each method's line."""
    for y, (method, value, low, high) in enumerate(
        table[["method", name, f"{prefix}_low", f"{prefix}_high"]].itertuples(index=False)
    ):
        colour = TEACHER if method == baseline else LOOKS[0].colour
        ax.plot([scale * low, scale * high], [y, y], color=colour, lw=2, solid_capstyle="butt", zorder=3)
        ax.plot([scale * value], [y], ls="", marker="o", ms=6, mfc="white" if method == baseline else colour,
                mec=colour, mew=1.2, zorder=4)  # fmt: skip
    ax.set_title(title, fontsize=9)
    ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))


def draw(*, runs: str, png: str, svg: str, baseline: str, alpha: float) -> str:
    """See plan.figures.Figure: the ranks of methods over data sets and pairs."""
    found = across_cells(read_runs(Path(runs)), baseline=baseline, alpha=alpha)
    draw_across(found, png=Path(png), svg=Path(svg))
    return f"{found.cells} cells: {png}"
