"""Accuracy against cost: which points nothing beats, what the table holds, what the figure says."""

import re

import numpy as np
import pandas as pd
import pytest

from distillbench.figures.pareto import draw_pareto
from distillbench.statistics.pareto import ON_FRONTIER, PARETO_COLUMNS, frontier, pareto_table

from .conftest import BASE, UP, row_of, runs_of, shifted

NAN = float("nan")


# the frontier


def test_a_point_is_on_the_frontier_unless_another_beats_it():
    cost, score = [1, 2, 3, 4, 2], [5, 7, 6, 9, 4]
    # (3, 6) costs more than (2, 7) and scores less; (2, 4) scores less at the same cost
    assert frontier(cost, score).tolist() == [True, True, False, True, False]


def test_equal_points_both_stay_and_half_equal_ones_do_not():
    assert frontier([1, 1], [5, 5]).tolist() == [True, True]
    assert frontier([1, 2], [5, 5]).tolist() == [True, False]
    assert frontier([1, 1], [5, 6]).tolist() == [False, True]


def test_what_is_not_known_is_never_on_the_frontier_and_beats_nothing():
    assert frontier([NAN, 1, 2, 0], [9, 5, 6, NAN]).tolist() == [False, True, True, False]
    assert frontier([NAN], [NAN]).tolist() == [False]
    assert frontier([], []).tolist() == []


def test_the_frontier_is_the_best_so_far_in_order_of_cost():
    rng = np.random.default_rng(0)
    cost, score = rng.integers(0, 30, (2, 200)).astype(float)
    second = []
    for c, s in zip(cost, score, strict=True):
        best_of_cheaper = score[cost < c].max(initial=-np.inf)
        second.append(s == score[cost == c].max() and s > best_of_cheaper)
    assert frontier(cost, score).tolist() == second


# the table


def profile(backend="pyg", pair="gat", role="student", latency=5.0, memory=2.0, parameters=100):
    return {"dataset": "toy", "backend": backend, "pair": pair, "role": role, "latency_ms": latency} | {
        "peak_memory_mb": memory, "parameters": parameters,
    }  # fmt: skip


def results(scores=None, *, params=None, seconds=None, **more):
    """Runs of a teacher of 900 parameters and of students of 100, which are trained for as many seconds as given."""
    scores = scores or {"teacher": [0.9] * 10, "supervised": BASE, "kd": shifted(UP)}
    runs = runs_of(scores, **more)
    sizes = {"teacher": 900} | (params or {})
    runs["params"] = [sizes.get(method, 100) for method in runs["method"]]
    times = {"teacher": 8.0, "supervised": 2.0, "kd": 3.0} | (seconds or {})
    runs["train_seconds"] = [times[method] for method in runs["method"]]
    runs.loc[runs["status"] != "ok", "train_seconds"] = np.nan
    return runs


PROFILES = pd.DataFrame([profile(), profile(role="teacher", latency=20.0, memory=9.0, parameters=900)])


def test_a_row_holds_score_and_costs():
    table = pareto_table(results(broken={("kd", 3): ("oom", "")}), PROFILES)
    assert list(table.columns) == PARETO_COLUMNS and len(table) == 3
    kd = row_of(table, "kd")
    kept = np.delete(shifted(UP), 3)
    assert (kd["score"], kd["score_std"]) == pytest.approx((np.mean(kept), np.std(kept, ddof=1)))
    assert (kd["n_ok"], kd["n"], kd["train_seconds"]) == (9, 10, 3)
    assert (kd["latency_ms"], kd["peak_memory_mb"], kd["parameters"]) == (5, 2, 100)
    teacher = row_of(table, "teacher")
    assert (teacher["latency_ms"], teacher["parameters"], teacher["role"]) == (20, 900, "teacher")


def test_training_time_is_a_median_over_finished_seeds():
    runs = results(broken={("kd", 9): ("oom", "")})
    runs.loc[runs["method"] == "kd", "train_seconds"] = [1, 2, 3, 4, 5, 6, 7, 8, 90, 1000]
    assert row_of(pareto_table(runs), "kd")["train_seconds"] == 5


def test_students_of_a_pair_differ_only_in_training_time():
    table = pareto_table(results(), PROFILES).set_index("method")
    flags = list(ON_FRONTIER.values())
    assert table.loc["teacher", flags].all() and table.loc["kd", flags].all()
    assert table.loc["supervised", flags].tolist() == [False, False, False, True]  # cheapest to train


def test_the_frontier_is_of_one_library_and_all_its_pairs():
    better = {"teacher": [0.95] * 10, "supervised": [0.93] * 10}
    other = results(
        better, pair="sage", params={"teacher": 90, "supervised": 50}, seconds={"teacher": 1, "supervised": 1}
    )
    dgl = results({"kd": [0.1] * 10}, backend="dgl")
    table = pareto_table(pd.concat([results(), other, dgl]))
    on = table.set_index(["backend", "pair", "method"])["on_frontier_parameters"]
    assert on[on].index.tolist() == [("pyg", "sage", "teacher"), ("pyg", "sage", "supervised"), ("dgl", "gat", "kd")]


def test_a_method_that_changes_the_student_has_no_profile_of_it():
    table = pareto_table(results(params={"kd": 120}), PROFILES)
    kd = row_of(table, "kd")
    assert kd["parameters"] == 120 and np.isnan([kd["latency_ms"], kd["peak_memory_mb"]]).all()
    assert not kd["on_frontier_latency"]


def test_equal_means_tie_though_their_floats_differ():
    scores = {"supervised": [0.1, 0.2, 0.3] * 2, "kd": [0.3, 0.2, 0.1] * 2}
    runs = results(scores, seconds={"supervised": 1, "kd": 1})
    assert pareto_table(runs)["on_frontier_training"].all()


def test_without_profiles_times_or_finished_runs_the_costs_are_not_known():
    runs = results().drop(columns="train_seconds")
    table = pareto_table(runs)
    assert table[["latency_ms", "peak_memory_mb", "train_seconds"]].isna().all(axis=None)
    assert table["on_frontier_parameters"].tolist() == [True, False, True] and not table["on_frontier_latency"].any()
    failed = pareto_table(results(broken={("kd", s): ("diverged", "") for s in range(10)}), PROFILES)
    kd = row_of(failed, "kd")
    assert kd["n_ok"] == 0 and np.isnan(kd["score"]) and not any(kd[flag] for flag in ON_FRONTIER.values())


def test_profiles_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="profiles: no column latency_ms"):
        pareto_table(results(), PROFILES.drop(columns="latency_ms"))
    with pytest.raises(ValueError, match="two rows for toy/pyg/gat/student"):
        pareto_table(results(), pd.concat([PROFILES, PROFILES[:1]]))


# the figure


@pytest.fixture
def texts(tmp_path):
    def draw(table, dataset="toy"):
        png, svg = tmp_path / "figure.png", tmp_path / "figure.svg"
        draw_pareto(table, dataset, png=png, svg=svg)
        assert png.read_bytes().startswith(b"\x89PNG")
        return re.findall(r"<!-- (.*?) -->", svg.read_text(encoding="utf-8"), re.DOTALL)

    return draw


def both():
    profiles = pd.concat([PROFILES, PROFILES.assign(backend="dgl")])
    return pareto_table(pd.concat([results(), results(backend="dgl")]), profiles)


def test_it_has_a_panel_for_each_cost_and_says_how_it_was_measured(texts):
    shown = texts(both())
    axes = {"latency of a forward pass, ms", "peak memory of a forward pass, MB", "training time of one seed, s"}
    assert axes <= set(shown) and {"PyG · gat", "DGL · gat", "test accuracy, %"} <= set(shown)
    everything = " ".join(" ".join(shown).split())
    assert "order of magnitude" in everything and "other jobs beside it" in everything and "one column" in everything


def test_an_unknown_cost_has_no_panel(texts):
    shown = " ".join(texts(pareto_table(results())))
    assert "latency of a" not in shown and "memory of a" not in shown and "training time of one seed" in shown
    untimed = " ".join(texts(pareto_table(results().drop(columns="train_seconds"))))
    assert "training time of one seed" not in untimed and "parameters" in untimed


def test_every_method_is_named_beside_its_training_time(texts):
    scores = {"teacher": [0.9] * 10} | {f"m{n}": shifted(np.roll(UP, n) * 2) for n in range(20)}
    runs = results(scores, seconds={f"m{n}": 1.0 + 0.3 * n for n in range(20)})
    assert {f"m{n}" for n in range(20)} <= set(texts(pareto_table(runs)))


def test_failures_and_scores_below_the_axis_are_said(texts):
    scores = {"teacher": [0.9] * 10, "supervised": BASE, "kd": [0.1] * 10, "lsp": shifted(UP), "at": BASE}
    scores |= {f"m{n}": shifted(np.roll(UP, n)) for n in range(4)}
    broken = {("lsp", 0): ("oom", "")} | {("at", s): ("diverged", "") for s in range(10)}
    shown = texts(pareto_table(results(scores, seconds=dict.fromkeys(scores, 4.0), broken=broken), PROFILES))
    assert {"kd 10.0", "lsp (9 / 10 ok)"} <= set(shown)
    assert "No finished run, so not drawn: at (pyg, gat)." in " ".join(" ".join(shown).split())


HOSTILE = "$x_1$ <b> & -- co"
NO_DGL = {(method, seed): ("skipped", "no dgl") for method in ("teacher", "supervised", "kd") for seed in range(10)}


@pytest.mark.parametrize(
    "runs",
    [
        results({"supervised": BASE}),
        results({"supervised": BASE[:1], "kd": BASE[:1]}),
        results({"supervised": BASE, "kd": BASE}, seconds={"kd": 2.0}),
        results({"supervised": BASE, HOSTILE: shifted(UP)}, seconds={HOSTILE: 1.0}),
        results({"supervised": BASE, "x" * 90: shifted(UP)}, seconds={"x" * 90: 1.0}),
        pd.concat([results(), results({"kd": BASE}, backend="dgl", pair="sage")]),
        pd.concat([results(), results(backend="dgl", broken=NO_DGL)]),
    ],
    ids=["one method", "one seed", "identical", "hostile name", "long name", "another pair", "one library skipped"],
)
def test_unusual_results_are_drawn(texts, runs):
    assert "toy: test accuracy against cost" in texts(pareto_table(runs, PROFILES))


def test_a_hundred_methods_are_drawn_and_the_unnamed_ones_listed(texts):
    rng = np.random.default_rng(1)
    names = [f"method-{n}" for n in range(100)]
    runs = results(dict.fromkeys(names, BASE[:3]), seconds={name: 1 + rng.uniform(0, 0.01) for name in names})
    shown = texts(pareto_table(runs))
    everything = " ".join(" ".join(shown).split())
    unnamed = 10 + int(re.search(r"for want of room: (?:[\w-]+, ){9}[\w-]+ and (\d+) more\.", everything)[1])
    named = {name for name in names if name in shown}
    assert 100 - unnamed in (len(named), len(named) - 1)  # one more may be named only where the model's cost is drawn


def test_nothing_finished_is_a_figure_that_says_so(texts):
    runs = results().assign(status="oom", test=np.nan, train_seconds=np.nan)
    assert "No run of this data set finished." in texts(pareto_table(runs))


def test_equal_tables_give_equal_files(tmp_path):
    for name in ("a", "b"):
        draw_pareto(both(), "toy", png=tmp_path / f"{name}.png", svg=tmp_path / f"{name}.svg")
    for form in ("png", "svg"):
        assert (tmp_path / f"a.{form}").read_bytes() == (tmp_path / f"b.{form}").read_bytes()


def test_an_unknown_data_set_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no runs of 'cora' \(data sets: toy\)"):
        draw_pareto(pareto_table(results()), "cora", png=tmp_path / "a", svg=tmp_path / "b")
