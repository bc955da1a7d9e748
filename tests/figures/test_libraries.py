"""The figure of PyG against DGL says what was shown, what was not, and how long each took."""

import re

import numpy as np
import pandas as pd
import pytest

from distillbench.figures.libraries import draw_libraries
from distillbench.statistics.libraries import equivalence
from tests.statistics.conftest import BASE, UP, runs_of, shifted


def compared(a, b, *, seconds=(3.0, 2.0), **more):
    """Scores of the methods in both libraries, and the seconds that each run took there."""
    runs = [runs_of(scores, backend=name, broken=more.get(name)) for name, scores in (("pyg", a), ("dgl", b))]
    return equivalence(pd.concat([frame.assign(train_seconds=s) for frame, s in zip(runs, seconds, strict=True)]))


@pytest.fixture
def texts(tmp_path):
    def draw(rows):
        png, svg = tmp_path / "figure.png", tmp_path / "figure.svg"
        draw_libraries(rows, png=png, svg=svg)
        assert png.read_bytes().startswith(b"\x89PNG")
        return re.findall(r"<!-- (.*?) -->", svg.read_text(encoding="utf-8"), re.DOTALL)

    return draw


def test_each_method_has_its_difference_and_its_ratio_of_times(texts):
    rows = compared({"kd": shifted(UP), "lsp": BASE}, {"kd": BASE, "lsp": BASE})
    shown = texts(rows)
    low, high = (100 * rows.loc[0, name] for name in ("ci90_low", "ci90_high"))
    assert f"+1.18 [+{low:.2f}, +{high:.2f}]" in shown and "0.00 [0.00, 0.00]" in shown
    assert shown.count("1.50 [1.50, 1.50]") == 2
    assert {
        "kd",
        "lsp",
        "toy · gat · test accuracy",
        "training time, PyG / DGL",
        "← PyG faster",
        "PyG better →",
    } <= set(shown)
    everything = " ".join(" ".join(shown).split())
    assert "±1 points" in everything and "does not mean that they differ" in everything
    assert "not adjusted for their number" in everything


def test_the_margin_is_that_of_the_test(texts):
    runs = pd.concat([runs_of({"kd": BASE}), runs_of({"kd": BASE}, backend="dgl")])
    assert "±0.5 points" in " ".join(" ".join(texts(equivalence(runs, delta=0.005))).split())


def test_the_marker_is_filled_only_where_equivalence_was_shown(tmp_path):
    def open_markers(rows):
        draw_libraries(rows, png=tmp_path / "a.png", svg=tmp_path / "a.svg")
        return (tmp_path / "a.svg").read_text(encoding="utf-8").count("fill: #ffffff; stroke: #0072b2")

    shown = compared({"kd": BASE}, {"kd": BASE})
    apart = compared({"kd": shifted(UP)}, {"kd": BASE})
    few = compared({"kd": BASE[:5]}, {"kd": BASE[:5]})
    assert [rows["verdict"].item() for rows in (shown, apart, few)] == [
        "equivalent within δ", "not shown equivalent", "too few seeds",
    ]  # fmt: skip
    assert [open_markers(rows) for rows in (shown, apart, few)] == [0, 1, 1]


def test_few_seeds_and_no_pairs_are_said(texts):
    assert "0.00 [0.00, 0.00] n = 5" in texts(compared({"kd": BASE[:5]}, {"kd": BASE[:5]}))
    assert "+1.00 n = 1" in texts(compared({"kd": [0.8]}, {"kd": [0.79]}))
    skipped = {("kd", seed): ("skipped", "dgl is not installed") for seed in range(10)}
    assert "no pairs" in texts(compared({"kd": BASE}, {"kd": BASE}, dgl=skipped))


def test_times_that_nobody_measured_are_said(texts):
    rows = compared({"kd": BASE}, {"kd": BASE}, seconds=(np.nan, np.nan))
    assert "training time: not measured" in texts(rows)


def test_one_library_alone_is_a_figure_that_says_so(texts):
    assert "Nothing to compare: runs of only one library." in texts(equivalence(runs_of({"kd": BASE})))


@pytest.mark.parametrize("methods", [1, 80], ids=["one row", "eighty rows"])
def test_it_is_as_long_as_it_has_rows(texts, methods):
    scores = {f"m{n}": shifted(np.roll(UP, n)) for n in range(methods)}
    assert set(scores) <= set(texts(compared(scores, dict.fromkeys(scores, BASE))))


def test_names_are_shown_as_they_are(texts):
    names = ["$x_1$ & <b>%", "x" * 90]
    shown = texts(compared(dict.fromkeys(names, BASE), dict.fromkeys(names, BASE)))
    assert "$x_1$ &amp; &lt;b&gt;%" in shown and "x" * 21 + "…" in shown


def test_equal_rows_give_equal_files(tmp_path):
    rows = compared({"kd": shifted(UP)}, {"kd": BASE})
    for name in ("a", "b"):
        draw_libraries(rows, png=tmp_path / f"{name}.png", svg=tmp_path / f"{name}.svg")
    for form in ("png", "svg"):
        assert (tmp_path / f"a.{form}").read_bytes() == (tmp_path / f"b.{form}").read_bytes()
