"""Training curves: every seed a line, the median as far as it speaks of most seeds, one panel per method."""

import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from distillbench.figures.curves import _draw_method, draw_curves, median_curve


def history(values, **columns):
    epochs = range(1, len(values) + 1)
    return pd.DataFrame({"epoch": epochs, "seconds": 0.1, "loss": 1.0, "task": 1.0, "val": values} | columns)


def rising(seed, epochs=30):
    rng = np.random.default_rng(seed)
    return history(0.8 - 0.6 * np.exp(-np.arange(epochs) / 6) + rng.normal(0, 0.01, epochs))


@pytest.fixture
def texts(tmp_path):
    def draw(histories, **options):
        png, svg = tmp_path / "figure.png", tmp_path / "figure.svg"
        draw_curves(histories, "digits", "pyg", "gat", png=png, svg=svg, **options)
        assert png.read_bytes().startswith(b"\x89PNG")
        return re.findall(r"<!-- (.*?) -->", svg.read_text(encoding="utf-8"), re.DOTALL)

    return draw


def test_the_median_is_of_most_seeds():
    curves = [history([0.1, 0.2, 0.3]), history([0.3, 0.5]), history([0.2, 0.9, 0.4])]
    assert median_curve(curves).to_dict() == {1: 0.2, 2: 0.5, 3: pytest.approx(0.35)}
    # of two seeds, one alone is not more than half
    assert median_curve([history([0.1, 0.2, 0.9]), history([0.3])]).to_dict() == {1: 0.2}
    assert median_curve([history([0.1, 0.2])]).to_dict() == {1: 0.1, 2: 0.2}


def test_what_is_drawn_is_every_evaluated_epoch_in_percent():
    ax = Figure().subplots()
    runs = {0: history([0.25, 0.5, 0.75]), 1: history([0.5, 1.0])}
    _draw_method(ax, "kd", runs, {0: 3, 1: 1}, "pyg")
    (seeds,) = ax.collections
    assert [line.tolist() for line in seeds.get_segments()] == [[[1, 25], [2, 50], [3, 75]], [[1, 50], [2, 100]]]
    median, *marks = (line.get_xydata().tolist() for line in ax.lines)
    assert median == [[1, 37.5], [2, 75]]  # the third epoch is of one seed in two
    assert marks == [[[3, 75]], [[1, 50]]]


def test_every_method_has_a_panel_and_the_teacher_is_first(texts):
    methods = ["supervised", "kd", "teacher"]
    shown = texts({(m, s): rising(s) for m in methods for s in range(3)}, metric="accuracy", selected={("kd", 0): 30})
    assert {"digits, gat, PyG: training curves", "validation accuracy, %", "epoch"} <= set(shown)
    assert [text for text in shown if text in methods] == ["teacher", "supervised", "kd"]
    assert shown.count("3 seeds") == 3
    assert "weights were selected" in " ".join(" ".join(shown).split())


def test_the_selected_epoch_is_marked_where_it_was_evaluated(tmp_path):
    def marks(selected):
        draw_curves({("kd", 0): rising(0), ("kd", 1): rising(1)}, "digits", "pyg", "gat", png=tmp_path / "a.png",
                    svg=tmp_path / "a.svg", selected=selected)  # fmt: skip
        return (tmp_path / "a.svg").read_text(encoding="utf-8").count("fill: #ffffff; stroke: #444444")

    assert marks(None) == 0
    assert marks({("kd", 0): 12, ("kd", 1): 20}) == marks({("kd", 0): 12}) + 1 > 1
    assert marks({("kd", 0): 99, ("lsp", 0): 3}) == 0


def test_epochs_without_evaluation_are_left_out_and_the_line_goes_on(texts):
    sparse = rising(0)
    sparse.loc[sparse["epoch"] % 5 != 0, "val"] = np.nan
    assert "1 seed" in texts({("kd", 0): sparse})
    evaluated = sparse.dropna(subset="val")
    assert median_curve([evaluated]).index.tolist() == [5, 10, 15, 20, 25, 30]


def test_runs_that_ended_before_an_evaluation_are_counted(texts):
    histories = {("kd", 0): rising(0), ("kd", 1): history([]), ("lsp", 0): history([np.nan, np.inf])}
    shown = texts(histories)
    assert {"1 of 2 seeds", "0 of 1 seed", "not trained"} <= set(shown)


@pytest.mark.parametrize("histories", [{}, {("kd", 0): history([])}, {("kd", 0): history([np.nan])}])
def test_nothing_trained_is_a_figure_that_says_so(texts, histories):
    assert "No epoch was evaluated: nothing was trained here." in texts(histories)


@pytest.mark.parametrize("methods", [1, 4, 40])
def test_one_method_or_many(texts, methods):
    shown = texts({(f"m{n}", 0): rising(n, epochs=12) for n in range(methods)})
    assert {f"m{n}" for n in range(methods)} <= set(shown)


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.5], [0.0, 1.0]], ids=["one epoch", "constant", "two epochs"])
def test_short_histories_are_drawn(texts, values):
    assert "2 seeds" in texts({("kd", 0): history(values), ("kd", 1): history(values)})


def test_names_are_shown_as_they_are(texts):
    shown = texts({("$x_1$ & <b>", 0): rising(0), ("y" * 50, 0): rising(1)})
    assert "$x_1$ &amp; &lt;b&gt;" in shown and "y" * 19 + "…" in shown


def test_the_picture_of_many_long_runs_is_small(tmp_path):
    histories = {(f"m{n}", s): rising(10 * n + s, epochs=150) for n in range(22) for s in range(10)}
    draw_curves(histories, "digits", "dgl", "gat", png=tmp_path / "a.png", svg=tmp_path / "a.svg")
    assert (tmp_path / "a.png").stat().st_size < 200_000


def test_equal_histories_give_equal_files(tmp_path):
    for name in ("a", "b"):
        histories = {("kd", s): rising(s) for s in range(3)}
        draw_curves(histories, "digits", "pyg", "gat", png=tmp_path / f"{name}.png", svg=tmp_path / f"{name}.svg")
    for form in ("png", "svg"):
        assert (tmp_path / f"a.{form}").read_bytes() == (tmp_path / f"b.{form}").read_bytes()


def test_a_history_of_something_else_is_named(tmp_path):
    with pytest.raises(ValueError, match="history of kd, seed 3: no column val"):
        draw_curves({("kd", 3): rising(0).drop(columns="val")}, "digits", "pyg", "gat", png=tmp_path / "a",
                    svg=tmp_path / "b")  # fmt: skip
