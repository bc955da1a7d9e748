"""PyG against DGL in one picture: per method the difference with the margin of equivalence, and the ratio of times.

Imports no torch.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from matplotlib.transforms import blended_transform_factory

from distillbench.figures.style import (
    BAND,
    FAINT,
    TEACHER,
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
from distillbench.wording import backend_label, metric_label, signed

# Inches: page, a method's line, names of methods, the two panels, the numbers right of each, right margin.
WIDTH, LINE, DIFFERENCE, RATIO, NUMBERS, RIGHT = 11.0, 0.23, 3.3, 2.3, 1.75, 0.1
LEFT = WIDTH - DIFFERENCE - RATIO - 2 * NUMBERS - RIGHT
COLOUR = library_look("pyg").colour
TITLE = "PyG against DGL"


def draw_libraries(equivalence: pd.DataFrame, *, png: Path, svg: Path) -> None:
    """Draw what ``libraries.equivalence`` returned, every row of it, in blocks of one data set and pair.

    Left the difference in percentage points with its 90% interval over the margin of equivalence, right the ratio of
    training times with its 95% interval. Without rows a small figure says that only one library ran.
    """
    if equivalence.empty:
        text = "Nothing to compare: runs of only one library."
        draw_message(TITLE, text, png=png, svg=svg)
        return
    with styled():
        save(_figure(equivalence), png=png, svg=svg)


def _figure(equivalence: pd.DataFrame) -> Figure:
    first = equivalence.iloc[0]
    a, b = backend_label(first["backend_a"]), backend_label(first["backend_b"])
    margin = " and ".join(f"±{100 * delta:g}" for delta in sorted(set(equivalence["delta"])))
    head_text = (
        f"Filled: equivalence within the grey margin, {margin} points, is shown by two one-sided tests over paired "
        "seeds (the 90% interval lies inside it). Open: not shown, which does not mean that they differ."
    )
    foot_text = (
        f"Difference: {a} minus {b} with the same seed, mean over the seeds. Times: {a} over {b}, median of the paired "
        "ratios of training time with its 95% interval (between two order statistics; none below 6 seeds); early "
        "stopping is part of it, and other jobs ran beside. Rows are separate claims, not adjusted for their number."
    )
    notes = list(dict.fromkeys(str(note) for note in equivalence["note"].dropna() if note))
    more = f" · and {len(notes) - 3} more notes in equivalence.csv" if len(notes) > 3 else ""
    foot_text += f" Notes: {' · '.join(notes[:3])}{more}." if notes else ""
    blocks = list(equivalence.groupby(["dataset", "pair"], sort=False))
    places, y = [], 0.0
    for _, block in blocks:
        places.append(y + 1.0 + np.arange(len(block)))
        y += len(block) + 1.6
    rows = y - 0.6
    head, foot = head_height(head_text, WIDTH) + 0.45, foot_height(foot_text, WIDTH) + 0.5
    height = head + rows * LINE + foot
    figure = new_figure(WIDTH, height)

    def panel(left: float, wide: float) -> Axes:
        ax = figure.add_axes((left / WIDTH, foot / height, wide / WIDTH, rows * LINE / height))
        ax.set_ylim(rows - 0.5, -0.5)
        ax.spines["left"].set_visible(False)
        ax.set_yticks([])
        return ax

    difference, ratio = panel(LEFT, DIFFERENCE), panel(LEFT + DIFFERENCE + NUMBERS, RATIO)
    _difference_axis(difference, equivalence, a, b)
    _ratio_axis(ratio, equivalence, a, b)
    for ((dataset, pair), block), at in zip(blocks, places, strict=True):
        metric = metric_label(block["metric"].iloc[0])
        difference.annotate(f"{dataset} · {pair} · test {metric}", (0, at[0] - 1), xycoords=_beside(difference),
                            xytext=(-(LEFT - 0.12) * 72, 0), textcoords="offset points", va="center",
                            fontweight="bold", color=TEACHER)  # fmt: skip
        delta = 100 * block["delta"].iloc[0]
        difference.fill_betweenx([at[0] - 0.5, at[-1] + 0.5], -delta, delta, color=BAND, lw=0, zorder=0)
        for ax in (difference, ratio):
            ax.plot([0 if ax is difference else 1] * 2, [at[0] - 0.5, at[-1] + 0.5], color=FAINT, lw=0.9, zorder=1)
        for y, row in zip(at, block.to_dict("records"), strict=True):
            name = shortened(str(row["method"]), 22)
            difference.text(-0.02, y, name, transform=_beside(difference), ha="right", va="center", color=TEXT)
            _draw_difference(difference, y, row)
            _draw_ratio(ratio, y, row)
    caption(figure, f"{a} against {b}: the same seeds, the same initial weights", head_text, foot_text)
    return figure


def _draw_difference(ax: Axes, y: float, row: dict[Any, Any]) -> None:
    shown = str(row["verdict"]).startswith("equivalent")
    if math.isnan(row["diff"]):
        _write(ax, y, "no pairs" if row["n_pairs"] == 0 else "", FAINT)
        return
    text = signed(row["diff"])
    if not math.isnan(row["ci90_low"]):
        ax.plot([100 * row["ci90_low"], 100 * row["ci90_high"]], [y, y], color=COLOUR, lw=1.8, solid_capstyle="butt")
        text += f" [{signed(row['ci90_low'])}, {signed(row['ci90_high'])}]"
    _mark(ax, 100 * row["diff"], y, shown)
    if row["verdict"] == "too few seeds":
        text += f" n = {row['n_pairs']}"
    _write(ax, y, text, TEXT if shown else FAINT)


def _draw_ratio(ax: Axes, y: float, row: dict[Any, Any]) -> None:
    if math.isnan(row["time_ratio"]):
        return
    text, certain = f"{row['time_ratio']:.2f}", False
    if not math.isnan(row["time_ratio_low"]):
        low, high = row["time_ratio_low"], row["time_ratio_high"]
        ax.plot([low, high], [y, y], color=COLOUR, lw=1.8, solid_capstyle="butt")
        text += f" [{low:.2f}, {high:.2f}]"
        certain = low > 1 or high < 1
    ax.plot([row["time_ratio"]], [y], ls="", marker="|", ms=9, mew=2.2, color=COLOUR, zorder=3)
    _write(ax, y, text, TEXT if certain else FAINT)


def _mark(ax: Axes, x: float, y: float, filled: bool) -> None:
    ax.plot([x], [y], ls="", marker="o", ms=5.5, mfc=COLOUR if filled else "white", mec=COLOUR, mew=1.2, zorder=3)


def _write(ax: Axes, y: float, text: str, colour: str) -> None:
    """Numbers right of a panel."""
    ax.text(1.03, y, text, transform=_beside(ax), va="center", fontsize=8, color=colour)


def _beside(ax: Axes) -> Any:
    return blended_transform_factory(ax.transAxes, ax.transData)


def _difference_axis(ax: Axes, rows: pd.DataFrame, a: str, b: str) -> None:
    ends = 100 * rows[["diff", "ci90_low", "ci90_high"]].to_numpy(float)
    reach = 1.08 * max([130 * rows["delta"].max(), *np.abs(ends[~np.isnan(ends)])])
    ax.set_xlim(-reach, reach)
    ax.set_xlabel("difference, percentage points", labelpad=2)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:+g}".replace("-", "−") if abs(x) > 1e-9 else "0"))
    _sides(ax, f"← {b} better", f"{a} better →")


def _ratio_axis(ax: Axes, rows: pd.DataFrame, a: str, b: str) -> None:
    known = rows[["time_ratio", "time_ratio_low", "time_ratio_high"]].to_numpy(float)
    known = known[~np.isnan(known)]
    ax.set_xscale("log")
    reach = 1.1 * max([2.0, *known, *(1 / known)])
    ax.set_xlim(1 / reach, reach)
    ax.xaxis.set_major_locator(LogLocator(subs=[1, 2, 5] if reach > 3 else [1, 1.5, 2, 5, 7], numticks=20))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    ax.set_xlabel(f"training time, {a} / {b}" if len(known) else "training time: not measured", labelpad=2)
    _sides(ax, f"← {a} faster", f"{b} faster →")


def _sides(ax: Axes, left: str, right: str) -> None:
    """What the two halves of an axis mean, above it."""
    for x, text, side in ((0.0, left, "left"), (1.0, right, "right")):
        ax.annotate(text, (x, 1), xycoords="axes fraction", xytext=(0, 4), textcoords="offset points", ha=side,
                    va="bottom", fontsize=8, color=FAINT)  # fmt: skip


def draw(*, equivalence: str, png: str, svg: str) -> str:
    """See plan.figures.Figure: every method of every data set and pair."""
    draw_libraries(pd.read_csv(equivalence, keep_default_na=True), png=Path(png), svg=Path(svg))
    return f"PyG against DGL: {png}"
