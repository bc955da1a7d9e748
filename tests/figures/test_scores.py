"""The figure of a data set says what it shows; its SVG carries every text as a comment, which is what is read here."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest

from distillbench.figures import scores
from distillbench.statistics import compare

GAIN = {"supervised": 0.0, "kd": 0.024, "lsp": 0.012}


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def runs_of(*, backends=("pyg", "dgl"), pairs=("gat",), seeds=8, teacher=0.94, gain=None, broken=()):
    rng = np.random.default_rng(2)
    base, rows = rng.normal(0.8, 0.01, seeds), []
    methods = ({} if teacher is None else {"teacher": None}) | (GAIN if gain is None else gain)
    for pair in pairs:
        for backend in backends:
            for method, up in methods.items():
                for seed in range(seeds):
                    score = teacher if up is None else base[seed] + up + rng.normal(0, 0.002)
                    status = "diverged" if (backend, method, seed) in broken else "ok"
                    rows.append(
                        {"dataset": "digits", "backend": backend, "pair": pair, "method": method, "seed": seed}
                        | {"role": "teacher" if method == "teacher" else "student", "status": status, "reason": ""}
                        | {"metric": "accuracy", "params": 1000, "test": score if status == "ok" else np.nan}
                        | {"resplit": False, "n_train": 50, "n_test": 1450}
                    )
    return pd.DataFrame(rows)


@pytest.fixture
def texts(tmp_path):
    def draw(runs, dataset="digits"):
        comparison = compare.compare(runs)
        png, svg = tmp_path / "figure.png", tmp_path / "figure.svg"
        scores.draw_dataset(runs, comparison, dataset, png=png, svg=svg)
        assert png.read_bytes().startswith(b"\x89PNG")
        return re.findall(r"<!-- (.*?) -->", svg.read_text(encoding="utf-8"), re.DOTALL)

    return draw


def test_it_reads_without_explanation(texts):
    runs = runs_of()
    shown = texts(runs)
    assert "digits, gat: test accuracy, 8 seeds" in shown
    assert {"PyG", "DGL", "kd", "lsp", "teacher 94.0", "test accuracy, %"} <= set(shown)
    alone = runs[runs["method"] == "supervised"].groupby("backend")["test"].mean()
    assert {f"student alone {100 * alone[library]:.1f}" for library in ("pyg", "dgl")} <= set(shown)
    everything = " ".join(shown)
    assert "one seed each" in everything and "95% t interval" in everything and "all methods together" in everything
    assert shown.count("better") == 4 and shown.count("8 / 8") == 6


def test_failed_seeds_are_counted(texts):
    shown = texts(runs_of(broken={("pyg", "kd", 3), ("dgl", "teacher", 0)}))
    assert shown.count("7 / 8") == 1 and "7 / 8 ok" in " ".join(shown)


def test_a_skipped_library_is_said_to_be_skipped(texts):
    runs = runs_of()
    skipped = runs["backend"] == "dgl"
    runs.loc[skipped, ["status", "reason"]] = ["skipped", "dgl is not installed: no wheel"]
    shown = texts(runs.assign(test=runs["test"].mask(skipped)))
    assert "skipped" in shown and "dgl is not installed: no wheel" in shown and "DGL" in shown


def test_every_pair_has_its_panels(texts):
    assert {"PyG · gat", "DGL · gat", "PyG · sage", "DGL · sage"} <= set(texts(runs_of(pairs=("gat", "sage"))))


@pytest.mark.parametrize(
    "options",
    [
        {"teacher": None},
        {"teacher": 0.80},
        {"teacher": 0.5},
        {"seeds": 1},
        {"backends": ("dgl",)},
        {"gain": {"supervised": 0.0, "kd": 0.01}},
        {"gain": {"supervised": 0.0, "kd": 0.01}, "broken": {("pyg", "kd", s) for s in range(8)}},
        {"gain": {"supervised": 0.0, "<b>$x_1$ & co": 0.01}},
    ],
)
def test_unusual_results_are_drawn(texts, options):
    assert texts(runs_of(**options))


def test_nothing_finished_is_drawn_too(texts):
    runs = runs_of().assign(status="oom", test=np.nan)
    assert "0 / 8" in texts(runs)


def test_the_axis_breaks_only_for_a_distant_teacher():
    assert scores._scale(runs_of(teacher=0.94)).gap
    assert scores._scale(runs_of(teacher=0.83)).gap is None
    forth, back = scores._through([0, 5, 20, 24], [0, 5, 6, 10]), scores._through([0, 5, 6, 10], [0, 5, 20, 24])
    x = np.array([-1.0, 0, 3, 5, 21, 24, 26])
    assert np.allclose(back(forth(x)), x) and np.all(np.diff(forth(x)) > 0)


def test_equal_runs_give_equal_files(tmp_path):
    runs = runs_of()
    comparison = compare.compare(runs)
    files = []
    for name in ("a", "b"):
        png, svg = tmp_path / f"{name}.png", tmp_path / f"{name}.svg"
        scores.draw_dataset(runs, comparison, "digits", png=png, svg=svg)
        files.append((png.read_bytes(), svg.read_bytes()))
    assert files[0] == files[1]


def test_an_unknown_data_set_is_named(tmp_path):
    runs = runs_of()
    with pytest.raises(ValueError, match=r"no runs of 'cora' \(data sets: digits\)"):
        scores.draw_dataset(runs, compare.compare(runs), "cora", png=tmp_path / "a", svg=tmp_path / "b")
