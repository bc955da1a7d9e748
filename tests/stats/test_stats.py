"""Every statistic against a second implementation or a case small enough to work by hand."""

import gc
import itertools
import math
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from distillbench import stats

SIZES = {"n_train": 50, "n_val": 300, "n_test": 1450}
BASE = [0.780, 0.795, 0.801, 0.787, 0.810, 0.792, 0.799, 0.784, 0.805, 0.790]
UP = [0.011, 0.004, 0.017, 0.008, 0.023, 0.015, 0.002, 0.019, 0.006, 0.013]


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def runs_of(scores, *, backend="pyg", dataset="toy", pair="gat", resplit=False, broken=None):
    """A frame of runs: ``scores`` maps a method to its test metrics per seed; ``broken`` (method, seed) to a status."""
    rows = []
    for method, values in scores.items():
        for seed, value in enumerate(values):
            status, reason = (broken or {}).get((method, seed), ("ok", ""))
            role = "teacher" if method == "teacher" else "student"
            rows.append(
                {"dataset": dataset, "backend": backend, "pair": pair, "method": method, "role": role, "seed": seed}
                | {"status": status, "reason": reason, "task": "multiclass", "metric": "accuracy", "params": 185172}
                | {"val": 0.8, "test": value if status == "ok" else math.nan, "resplit": resplit, **SIZES}
            )
    return pd.DataFrame(rows)


def shifted(by):
    return [base + up for base, up in zip(BASE, by, strict=True)]


def row_of(frame, method):
    (row,) = frame[frame["method"] == method].to_dict("records")
    return row


# The signed-rank test


def test_ten_positive_differences_have_the_smallest_p_there_is():
    assert stats.signed_rank_p(UP) == 2 / 1024


@pytest.mark.parametrize("n, p", [(5, 0.0625), (6, 0.03125), (8, 0.0078125)])
def test_smallest_p_for_few_seeds(n, p):
    assert stats.signed_rank_p(UP[:n]) == p


def test_ties_by_hand():
    # |d| = 1, 1, 2 have ranks 1.5, 1.5, 3; W+ = 4.5. Of the 8 signings, W+ is 0, 1.5, 1.5, 3, 3, 4.5, 4.5, 6:
    # three have W+ >= 4.5, so p = 2 * 3/8.
    assert stats.signed_rank_p([1, -1, 2]) == 0.75


def test_zeros_are_dropped_and_nothing_but_zeros_is_no_evidence():
    assert stats.signed_rank_p([0, 0, *UP[:6]]) == stats.signed_rank_p(UP[:6])
    assert stats.signed_rank_p(np.zeros(10)) == 1.0


def test_agrees_with_enumeration_of_all_signs_under_ties_and_zeros():
    rng = np.random.default_rng(7)
    for n in [1, 2, 5, 8, 10] * 4:
        d = rng.integers(-3, 5, n).astype(float)
        nonzero = d[d != 0]
        ranks = scipy_stats.rankdata(abs(nonzero))
        sums = np.array([ranks[list(map(bool, s))].sum() for s in itertools.product([0, 1], repeat=len(ranks))])
        seen = ranks[nonzero > 0].sum()
        expected = min(1.0, 2 * min((sums <= seen).mean(), (sums >= seen).mean()))
        assert stats.signed_rank_p(d) == pytest.approx(expected, abs=1e-12)


def test_agrees_with_scipy_where_scipy_is_exact():
    rng = np.random.default_rng(8)
    for n in (6, 10, 25, 40):  # no ties: scipy's own distribution
        d = rng.normal(0.3, 1, n)
        assert stats.signed_rank_p(d) == pytest.approx(scipy_stats.wilcoxon(d, method="exact").pvalue, rel=1e-9)
    d = np.array([1, 1, -1, 2, 3, 3, 0, 2.0])  # ties and a zero: scipy enumerates
    by_scipy = scipy_stats.wilcoxon(d, method=scipy_stats.PermutationMethod(n_resamples=np.inf))
    assert stats.signed_rank_p(d) == pytest.approx(by_scipy.pvalue, abs=1e-12)


def test_equal_differences_tie_although_their_floats_differ():
    a, b = pd.Series([3 / 1447, 103 / 1447, 0.0]), pd.Series([2 / 1447, 102 / 1447, 1 / 1447])
    assert len(set(np.abs(a - b))) > 1, "the case is not about rounding"
    assert len(set(np.abs(stats.paired_differences(a, b)))) == 1


# The other statistics


def test_rank_biserial_by_hand():
    assert stats.rank_biserial([3, -1, 2, -4]) == 0  # W+ = 3 + 2, W- = 1 + 4
    assert stats.rank_biserial([3, -1, 2]) == pytest.approx(4 / 6)  # W+ = 5, W- = 1
    assert stats.rank_biserial([1, -1, 2, 0]) == pytest.approx(0.5)  # ranks 1.5, 1.5, 3; the zero dropped
    assert stats.rank_biserial(UP) == 1
    assert stats.rank_biserial([0, 0]) == 0


def test_share_improved_counts_ties_half():
    assert stats.share_improved([1, 2, -1, 0]) == 2.5 / 4


def test_holm_by_hand():
    # sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1 = 0.04, 0.06, 0.06, 0.04, then made non-decreasing
    assert stats.holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    adjusted = stats.holm([0.04, math.nan, 0.01])
    assert adjusted[::2] == pytest.approx([0.04, 0.02]) and math.isnan(adjusted[1])


def test_paired_t_is_scipys():
    assert stats.paired_t_p(UP) == pytest.approx(scipy_stats.ttest_1samp(UP, 0).pvalue, rel=1e-9)


def test_nadeau_bengio_by_hand():
    # d = 1, 2, 3, 4: mean 2.5, s² = 5/3; with n_test/n_train = 1/4 the variance of the mean is (1/4 + 1/4) 5/3 = 5/6
    t = 2.5 / math.sqrt(5 / 6)
    assert stats.paired_t_p([1, 2, 3, 4], test_over_train=0.25) == pytest.approx(2 * scipy_stats.t.sf(t, 3), rel=1e-12)
    # t distribution with 3 degrees of freedom in closed form
    angle = math.atan(t / math.sqrt(3))
    by_hand = 1 - 2 / math.pi * (angle + math.sin(angle) * math.cos(angle))
    assert stats.paired_t_p([1, 2, 3, 4], test_over_train=0.25) == pytest.approx(by_hand, rel=1e-9)


def test_differences_without_variance_need_no_division():
    assert stats.paired_t_p([0, 0, 0]) == 1
    assert stats.paired_t_p([0.1, 0.1, 0.1]) == 0
    assert math.isnan(stats.paired_t_p([0.1]))
    assert stats.bca_interval([0.1, 0.1]) == (0.1, 0.1)
    assert all(map(math.isnan, stats.bca_interval([0.1])))


def test_bca_is_scipys_and_repeats():
    expected = scipy_stats.bootstrap((UP,), np.mean, method="BCa", n_resamples=9999, rng=np.random.default_rng(0))
    assert stats.bca_interval(UP) == tuple(expected.confidence_interval)
    assert stats.bca_interval(UP) == stats.bca_interval(UP)


# The comparison


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
    assert kd["p_resplit"] == pytest.approx(stats.paired_t_p(UP, test_over_train=29))
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


# Two libraries


def two_backends(a, b, **broken):
    return pd.concat(
        [
            runs_of({"kd": a}, backend="pyg", broken=broken.get("pyg")),
            runs_of({"kd": b}, backend="dgl", broken=broken.get("dgl")),
        ]
    )


def test_tost_is_two_one_sided_t_tests():
    close = [
        base + x
        for base, x in zip(BASE, [0.002, -0.001, 0.003, 0, -0.002, 0.001, 0, 0.002, -0.001, 0.001], strict=True)
    ]
    (row,) = stats.equivalence(two_backends(close, BASE), delta=0.005).to_dict("records")
    d = np.subtract(close, BASE)
    above = scipy_stats.ttest_1samp(d, -0.005, alternative="greater").pvalue
    below = scipy_stats.ttest_1samp(d, 0.005, alternative="less").pvalue
    assert row["p_tost"] == pytest.approx(max(above, below), rel=1e-9)
    interval = scipy_stats.ttest_1samp(d, 0).confidence_interval(0.90)
    assert (row["ci90_low"], row["ci90_high"]) == pytest.approx(tuple(interval), rel=1e-9)
    assert row["verdict"] == "equivalent within δ"


def test_a_difference_of_the_libraries_is_not_equivalence():
    (row,) = stats.equivalence(two_backends(shifted(UP), BASE)).to_dict("records")
    assert row["verdict"] == "not shown equivalent" and row["diff"] == pytest.approx(np.mean(UP))


def test_identical_libraries_are_equivalent_and_a_constant_shift_beyond_delta_is_not():
    (same,) = stats.equivalence(two_backends(BASE, BASE)).to_dict("records")
    assert (same["diff"], same["ci90_low"], same["p_tost"], same["verdict"]) == (0, 0, 0, "equivalent within δ")
    (apart,) = stats.equivalence(two_backends([x + 0.02 for x in BASE], BASE)).to_dict("records")
    assert (apart["p_tost"], apart["verdict"]) == (1, "not shown equivalent")


def test_a_skipped_library_gives_no_equivalence():
    skipped = {("kd", s): ("skipped", "dgl is not installed") for s in range(10)}
    (row,) = stats.equivalence(two_backends(BASE, BASE, dgl=skipped)).to_dict("records")
    assert row["verdict"] == "n too small" and row["note"] == "dgl: skipped (dgl is not installed)"
    assert stats.equivalence(runs_of({"kd": BASE})).empty
    with pytest.raises(ValueError, match="delta"):
        stats.equivalence(two_backends(BASE, BASE), delta=0)


# Across cells


def test_too_few_cells_are_said_to_be_too_few():
    found = stats.across_cells(runs_of({"supervised": BASE, "kd": BASE, "at": BASE}))
    assert (
        found.cells == 1
        and math.isnan(found.p)
        and "at least 6 cells" in found.sentence
        and "1 and 3" in found.sentence
    )


def test_friedman_counts_two_libraries_on_one_data_set_once():
    order = [{"supervised": [0.7], "kd": [0.8], "at": [0.75]}] * 5 + [{"supervised": [0.7], "kd": [0.75], "at": [0.8]}]
    runs = pd.concat(
        [runs_of(scores, dataset=f"d{n}", backend=name) for n, scores in enumerate(order) for name in ("pyg", "dgl")]
    )
    found = stats.across_cells(runs)
    # ranks sum to 6, 17, 13 over 6 cells of 3 methods: χ² = 12/(6·3·4) (36 + 289 + 169) - 3·6·4 = 10.33, 2 degrees
    assert found.cells == 6 and found.statistic == pytest.approx(12 / 72 * 494 - 72)
    assert found.p == pytest.approx(math.exp(-found.statistic / 2))
    assert "differ" in found.sentence
