"""The picture across cells."""

import math
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from distillbench.figures import across as across_figures
from distillbench.figures.across import MOST_IN_DIAGRAM, draw_across
from distillbench.figures.style import styled
from distillbench.statistics import across
from tests.statistics.conftest import BASE, runs_of

METHODS = ("supervised", "kd", "at", "lsp")


def found_of(methods=METHODS, *, cells=7, step=0.03, seeds=4, resamples=50, **kw):
    """What is found where the methods are ``step`` apart, the last the best."""
    random = np.random.default_rng(0)
    runs = [
        runs_of(
            {
                name: (0.5 + k * step + random.normal(0, 0.01, seeds)).round(4).tolist()
                for k, name in enumerate(methods)
            },
            dataset=f"d{cell}",
        )
        for cell in range(cells)
    ]
    return across.across_cells(pd.concat(runs, ignore_index=True), resamples=resamples, **kw)


def drawn(found):
    """The figure, and its axes by title ('' for the diagram)."""
    with styled():
        figure = across_figures._figure(found)
        figure.canvas.draw()
    return figure, {ax.get_title(loc="left"): ax for ax in figure.axes}


def texts(figure):
    return [text.get_text() for ax in figure.axes for text in ax.texts] + [text.get_text() for text in figure.texts]


def whole(figure):
    """Every text of the figure lies within the page."""
    renderer = figure.canvas.get_renderer()
    page = figure.bbox
    artists = [*figure.texts, *(text for ax in figure.axes for text in (*ax.texts, *ax.get_yticklabels(), ax.title))]
    boxes = [artist.get_window_extent(renderer) for artist in artists if artist.get_text() and artist.get_visible()]
    return all(box.x0 >= 0 and box.x1 <= page.x1 and box.y0 >= 0 and box.y1 <= page.y1 for box in boxes)


def test_png_and_svg_are_written_and_equal_input_gives_equal_files(tmp_path):
    found = found_of()
    for n in "ab":
        draw_across(found, png=tmp_path / f"{n}.png", svg=tmp_path / f"{n}.svg")
    for form in ("png", "svg"):
        assert (tmp_path / f"a.{form}").read_bytes() == (tmp_path / f"b.{form}").read_bytes()
    ElementTree.parse(tmp_path / "a.svg")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width == 1600 and picture.height > 600


def test_the_diagram_joins_what_nemenyi_does_not_tell_apart():
    found = found_of()
    assert (found.nemenyi.to_numpy() <= 0.05).sum() == 2 * 3
    _, axes = drawn(found)
    # 7 cells in which the ranks are 1, 2, 3, 4: CD = 2.569 √(20/42) = 1.77, so 1-2, 2-3 and 3-4 are joined
    assert found.table["mean_rank"].tolist() == [1, 2, 3, 4] and found.critical_difference == pytest.approx(
        1.77, abs=0.01
    )
    bars = [line for line in axes[""].lines if line.get_linewidth() > 3]
    assert sorted((min(bar.get_xdata()), max(bar.get_xdata())) for bar in bars) == [(1, 2), (2, 3), (3, 4)]
    labels = [text.get_text().strip() for text in axes[""].texts]
    assert labels == ["lsp  1.00", "at  2.00", "4.00  supervised", "3.00  kd", "CD = 1.77"]


def test_points_and_bars_are_the_tables_estimates_by_mean_rank():
    found = found_of()
    _, axes = drawn(found)
    table = found.table
    rank, iqm = axes["Mean rank, 1 is best"], axes["Interquartile mean, %"]
    assert (
        [label.get_text() for label in rank.get_yticklabels()]
        == table["method"].tolist()
        == ["lsp", "at", "kd", "supervised"]
    )
    points = [line for line in iqm.lines if line.get_marker() == "o"]
    assert [float(p.get_xdata()[0]) for p in points] == pytest.approx((100 * table["iqm"]).tolist())
    assert [int(p.get_ydata()[0]) for p in points] == [0, 1, 2, 3]
    bars = [list(line.get_xdata()) for line in iqm.lines if line.get_linewidth() == 2]
    assert bars == [pytest.approx([100 * low, 100 * high]) for low, high in table[["iqm_low", "iqm_high"]].to_numpy()]
    assert [p.get_markerfacecolor() == "white" for p in points] == [False, False, False, True]
    improvement = axes["P(improvement)"]
    values = [float(line.get_xdata()[0]) for line in improvement.lines if line.get_marker() == "o"]
    assert values[:3] == pytest.approx(table["p_improve"].tolist()[:3]) and math.isnan(values[3])


def test_too_few_cells_are_a_small_figure_with_the_sentence(tmp_path):
    found = across.across_cells(runs_of({"supervised": BASE, "kd": BASE, "at": BASE}))
    draw_across(found, png=tmp_path / "few.png", svg=tmp_path / "few.svg")
    with Image.open(tmp_path / "few.png") as picture:
        assert picture.height < 250
    assert "needed; here" in (tmp_path / "few.svg").read_text()


def test_where_friedman_does_not_reject_one_bar_joins_all_and_the_note_says_so():
    found = found_of(step=0.0)
    assert found.p > 0.05
    figure, axes = drawn(found)
    (bar,) = [line for line in axes[""].lines if line.get_linewidth() > 3]
    ends = found.table["mean_rank"].min(), found.table["mean_rank"].max()
    assert (min(bar.get_xdata()), max(bar.get_xdata())) == ends
    assert any("no two methods are told apart, and one bar joins all" in " ".join(t.split()) for t in texts(figure))


def test_many_methods_have_a_band_in_place_of_the_diagram_and_none_where_friedman_does_not_reject():
    methods = ("supervised", *(f"m{k}" for k in range(MOST_IN_DIAGRAM)))
    found = found_of(methods, step=0.01)
    figure, axes = drawn(found)
    assert "" not in axes and whole(figure)
    lowest = found.table["mean_rank"].min()
    bands = [patch.get_bbox() for patch in axes["Mean rank, 1 is best"].patches]
    assert (lowest, found.critical_difference) in [(b.x0, pytest.approx(b.width)) for b in bands]
    assert any("Band: one critical difference" in text for text in texts(figure))
    same, panels = drawn(found_of(methods, step=0.0))
    assert not any(patch.get_bbox().x0 > 0.9 for patch in panels["Mean rank, 1 is best"].patches)
    assert not any("Band" in text for text in texts(same))


def test_a_hundred_methods_are_a_line_each_within_the_page():
    found = found_of(("supervised", *(f"method-{k}" for k in range(99))), step=0.001, seeds=2, resamples=10, cells=6)
    figure, axes = drawn(found)
    boxes = [
        label.get_window_extent(figure.canvas.get_renderer())
        for label in axes["Mean rank, 1 is best"].get_yticklabels()
    ]
    assert len(boxes) == 100 and whole(figure)
    assert all(upper.y0 >= lower.y1 - 1 for upper, lower in pairwise(boxes))


@pytest.mark.parametrize("count", [3, 12, MOST_IN_DIAGRAM])
def test_hostile_names_are_shown_as_they_are_within_the_page(count, tmp_path):
    hostile = ("$x_1$ \\frac", "a{label}{0}<b>&", "a method's name\nin two lines and far too long to be shown whole")
    found = found_of((*hostile, *(f"m{k}" for k in range(count - 3))), baseline=hostile[0])
    figure, axes = drawn(found)
    shown = " ".join(text.get_text() for text in axes[""].texts)
    assert "$x_1$ \\frac" in shown and "a{label}{0}<b>&" in shown and "a method's name in two lines …" in shown
    assert whole(figure)
    draw_across(found, png=tmp_path / "h.png", svg=tmp_path / "h.svg")
    ElementTree.parse(tmp_path / "h.svg")


def test_without_the_baseline_its_panel_says_so():
    random = np.random.default_rng(1)
    frames = [
        runs_of(
            {m: (0.6 + random.normal(0, 0.01, 3)).tolist() for m in METHODS if m != "supervised" or cell},
            dataset=f"d{cell}",
        )
        for cell in range(6)
    ]
    figure, _ = drawn(across.across_cells(pd.concat(frames), resamples=20))
    assert "the baseline lacks\nin some cell" in texts(figure)
