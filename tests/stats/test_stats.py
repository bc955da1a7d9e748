"""The comparison of a cell: on simulated runs, and on cases worked through."""

import gc
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from distillbench import paired, stats

from .conftest import BASE, UP, row_of, runs_of, shifted


def test_a_cell_worked_through():
    methods = {"kd": shifted(UP), "at": shifted([-x for x in UP]), "lsp": shifted([*UP[:5], *(-x for x in UP[:5])])}
    found = stats.compare(runs_of({"kd": methods["kd"], "supervised": BASE, "teacher": [0.94] * 10, **methods}))
    assert list(found["method"]) == ["teacher", "supervised", "kd", "at", "lsp"]
    assert list(found["verdict"]) == ["control", "control", "better", "worse", "no difference shown"]
    kd = row_of(found, "kd")
    assert kd["diff"] == pytest.approx(np.mean(UP)) and kd["ci_low"] < kd["diff"] < kd["ci_high"]
    assert kd["mean"] == pytest.approx(np.mean(methods["kd"])) and kd["std"] == pytest.approx(
        np.std(methods["kd"], ddof=1)
    )
    assert (kd["p_wilcoxon"], kd["p_holm"]) == (2 / 1024, 6 / 1024)  # smallest of three, times three
    assert (kd["effect"], kd["p_improve"], kd["n_ok"], kd["n"], kd["n_pairs"]) == (1, 1, 10, 10, 10)
    assert row_of(found, "at")["effect"] == -1
    assert math.isnan(kd["p_resplit"]) and math.isnan(row_of(found, "teacher")["p_holm"])
    assert row_of(found, "teacher")["diff"] == pytest.approx(0.94 - np.mean(BASE))
    assert math.isnan(row_of(found, "supervised")["diff"])


def test_a_redrawn_split_needs_both_tests_for_the_stronger_word():
    weak = stats.compare(runs_of({"supervised": BASE, "kd": shifted(UP)}, resplit=True))
    kd = row_of(weak, "kd")
    assert kd["verdict"] == "better on these splits"
    assert kd["p_resplit"] == pytest.approx(paired.paired_t_p(UP, test_over_train=29))
    below = stats.compare(runs_of({"supervised": BASE, "kd": shifted([-x for x in UP])}, resplit=True))
    assert row_of(below, "kd")["verdict"] == "worse on these splits"
    steady = stats.compare(runs_of({"supervised": BASE, "kd": shifted([0.05 + x / 50 for x in UP])}, resplit=True))
    assert row_of(steady, "kd")["verdict"] == "better"


def test_unknown_split_sizes_never_give_the_stronger_word():
    runs = runs_of({"supervised": BASE, "kd": shifted([0.05 + x / 50 for x in UP])}, resplit=True)
    found = stats.compare(runs.assign(n_train=pd.Series(pd.NA, index=runs.index, dtype="Int64")))
    assert row_of(found, "kd")["verdict"] == "better on these splits"


def test_a_failed_seed_stays_visible_and_leaves_the_pairs_paired():
    broken = {("kd", 3): ("diverged", "loss is\nNaN"), ("supervised", 5): ("oom", "")}
    kd = row_of(stats.compare(runs_of({"supervised": BASE, "kd": shifted(UP)}, broken=broken)), "kd")
    kept = [up for seed, up in enumerate(UP) if seed not in (3, 5)]
    assert (kd["n_ok"], kd["n"], kd["n_pairs"]) == (9, 10, 8)
    assert kd["diff"] == pytest.approx(np.mean(kept)) and kd["p_wilcoxon"] == 2 / 2**8
    assert kd["note"] == "seed 3 diverged (loss is NaN); supervised: seed 5 oom; compared over 8 of 10 seeds"


def test_seeds_pair_by_number_not_by_place():
    runs = runs_of({"supervised": BASE, "kd": shifted(UP)})
    shuffled = runs.sample(frac=1, random_state=0).sort_values("method", ascending=False, kind="stable")
    pd.testing.assert_frame_equal(stats.compare(shuffled), stats.compare(runs))


def test_a_seed_the_baseline_lacks_is_noted():
    runs = runs_of({"supervised": BASE[:8], "kd": shifted(UP)})
    kd = row_of(stats.compare(runs), "kd")
    assert kd["n_pairs"] == 8 and "no run of supervised for seeds 8, 9" in kd["note"]


def test_all_failed_and_all_skipped():
    broken = {("kd", s): ("diverged", "loss is NaN") for s in range(10)}
    broken |= {("at", s): ("skipped", "dgl is not installed") for s in range(10)}
    found = stats.compare(runs_of({"supervised": BASE, "kd": BASE, "at": BASE, "lsp": shifted(UP)}, broken=broken))
    kd, at, lsp = (row_of(found, method) for method in ("kd", "at", "lsp"))
    assert kd["verdict"] == "all failed" and math.isnan(kd["mean"]) and kd["n_ok"] == 0
    assert at["verdict"] == "skipped" and at["note"] == "skipped (dgl is not installed)"
    assert lsp["p_holm"] == lsp["p_wilcoxon"], "methods without pairs are not in the family"


def test_without_a_finished_baseline_there_is_no_verdict():
    broken = {("supervised", s): ("timeout", "") for s in range(10)}
    found = stats.compare(runs_of({"supervised": BASE, "kd": shifted(UP)}, broken=broken))
    assert row_of(found, "supervised")["verdict"] == "all failed"
    assert row_of(found, "kd")["verdict"] == "n too small" and row_of(found, "kd")["mean"] > 0


def test_too_few_seeds_give_no_verdict():
    kd = row_of(stats.compare(runs_of({"supervised": BASE[:5], "kd": shifted(UP)[:5]})), "kd")
    assert kd["verdict"] == "n too small" and math.isnan(kd["p_holm"]) and kd["p_wilcoxon"] == 0.0625
    one = row_of(stats.compare(runs_of({"supervised": BASE[:1], "kd": shifted(UP)[:1]})), "kd")
    assert one["verdict"] == "n too small" and math.isnan(one["ci_low"]) and math.isnan(one["std"])


def test_a_family_that_cannot_reject_is_told_to_run_more_seeds():
    scores = {"supervised": BASE[:6]} | {name: shifted(UP)[:6] for name in ("kd", "at")}
    found = stats.compare(runs_of(scores))
    assert row_of(found, "kd")["verdict"] == "no difference shown"
    assert "more seeds are needed" in row_of(found, "kd")["note"] and "0.062" in row_of(found, "kd")["note"]


def test_identical_runs_show_no_difference():
    for resplit in (False, True):
        kd = row_of(stats.compare(runs_of({"supervised": BASE, "kd": BASE}, resplit=resplit)), "kd")
        assert (kd["diff"], kd["ci_low"], kd["ci_high"], kd["p_wilcoxon"], kd["effect"]) == (0, 0, 0, 1, 0)
        assert (kd["p_improve"], kd["verdict"]) == (0.5, "no difference shown")


def test_ranks_against_the_mean_decide_nothing():
    by = [0.001, 0.0012, 0.0014, 0.0016, 0.0018, 0.0022, 0.0024, 0.0026, 0.0028, -0.9]  # nine up, the mean far down
    found = stats.compare(runs_of({"supervised": BASE, "kd": shifted(by)}), alpha=0.5)
    assert row_of(found, "kd")["verdict"] == "no difference shown"
    assert "differ in direction" in row_of(found, "kd")["note"]


def test_cells_are_families_of_their_own_and_another_baseline_can_be_named():
    runs = pd.concat([runs_of({"kd": BASE, "lsp": shifted(UP)}, backend=name) for name in ("pyg", "dgl")])
    found = stats.compare(runs, baseline="kd")
    assert list(found["backend"]) == ["pyg", "pyg", "dgl", "dgl"]
    assert list(found["verdict"]) == ["control", "better"] * 2
    assert (found.loc[found["method"] == "lsp", "p_holm"] == 2 / 1024).all()


def test_bad_input_is_named():
    runs = runs_of({"supervised": BASE, "kd": shifted(UP)})
    with pytest.raises(ValueError, match="did you mean 'supervised'"):
        stats.compare(runs, baseline="supervized")
    with pytest.raises(ValueError, match="no column status"):
        stats.compare(runs.drop(columns="status"))
    with pytest.raises(ValueError, match="two rows for toy/pyg/gat/supervised/0"):
        stats.compare(pd.concat([runs, runs.head(1)]))
    with pytest.raises(ValueError, match="toy/pyg/gat/kd/2 has status ok and no test value"):
        stats.compare(runs.assign(test=runs["test"].mask((runs["method"] == "kd") & (runs["seed"] == 2))))
    assert stats.compare(runs.head(0)).empty


def test_false_positives_stay_within_five_percent(monkeypatch):
    """200 cells of four methods without any effect; the family-wise rate must not exceed 5% beyond chance."""
    monkeypatch.setattr(gc, "collect", lambda: 0)  # statsmodels does so at every call: 60 ms
    rng = np.random.default_rng(11)
    cells = []
    for number in range(200):
        base = rng.normal(0.8, 0.01, 10)
        scores = {name: np.round((base + rng.normal(0, 0.006, 10)) * 500) / 500 for name in "abcd"}
        cells.append(runs_of({"supervised": base} | scores, dataset=f"null{number}", resplit=number % 2 == 0))
    found = stats.compare(pd.concat(cells), resamples=20)
    claimed = found["verdict"].str.startswith(("better", "worse")).groupby(found["dataset"]).any()
    assert len(claimed) == 200
    assert claimed.sum() <= scipy_stats.binom.ppf(0.999, 200, 0.05)
