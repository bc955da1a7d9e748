"""The comparison of a cell: on simulated runs, and on cases worked through."""

import gc
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from distillbench.statistics import compare, paired, power

from .conftest import BASE, UP, row_of, runs_of, shifted


def test_a_cell_worked_through():
    methods = {"kd": shifted(UP), "at": shifted([-x for x in UP]), "lsp": shifted([*UP[:5], *(-x for x in UP[:5])])}
    found = compare.compare(runs_of({"kd": methods["kd"], "supervised": BASE, "teacher": [0.94] * 10, **methods}))
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
    weak = compare.compare(runs_of({"supervised": BASE, "kd": shifted(UP)}, resplit=True))
    kd = row_of(weak, "kd")
    assert kd["verdict"] == "better on these splits"
    assert kd["p_resplit"] == pytest.approx(paired.paired_t_p(UP, test_over_train=29))
    below = compare.compare(runs_of({"supervised": BASE, "kd": shifted([-x for x in UP])}, resplit=True))
    assert row_of(below, "kd")["verdict"] == "worse on these splits"
    steady = compare.compare(runs_of({"supervised": BASE, "kd": shifted([0.05 + x / 50 for x in UP])}, resplit=True))
    assert row_of(steady, "kd")["verdict"] == "better"


def test_the_corrected_test_is_adjusted_for_the_number_of_methods():
    steady = shifted([0.0018 + up / 50 for up in UP])  # p resplit is 0.025 by itself
    alone = row_of(compare.compare(runs_of({"supervised": BASE, "kd": steady}, resplit=True)), "kd")
    three = {"supervised": BASE, "kd": steady, "at": shifted(UP), "lsp": shifted(UP[::-1])}
    beside = row_of(compare.compare(runs_of(three, resplit=True)), "kd")
    assert 0.05 / 3 < alone["p_resplit"] == beside["p_resplit"] < 0.05
    assert beside["p_resplit_holm"] == pytest.approx(3 * alone["p_resplit"])
    assert (alone["verdict"], beside["verdict"]) == ("better", "better on these splits")


def test_unknown_split_sizes_never_give_the_stronger_word():
    runs = runs_of({"supervised": BASE, "kd": shifted([0.05 + x / 50 for x in UP])}, resplit=True)
    found = compare.compare(runs.assign(n_train=pd.Series(pd.NA, index=runs.index, dtype="Int64")))
    assert row_of(found, "kd")["verdict"] == "better on these splits"


def test_a_failed_seed_stays_visible_and_leaves_the_pairs_paired():
    broken = {("kd", 3): ("diverged", "loss is\nNaN"), ("supervised", 5): ("oom", "")}
    kd = row_of(compare.compare(runs_of({"supervised": BASE, "kd": shifted(UP)}, broken=broken)), "kd")
    kept = [up for seed, up in enumerate(UP) if seed not in (3, 5)]
    assert (kd["n_ok"], kd["n"], kd["n_pairs"]) == (9, 10, 8)
    assert kd["diff"] == pytest.approx(np.mean(kept)) and kd["p_wilcoxon"] == 2 / 2**8
    assert kd["note"] == (
        "seed 3 diverged (loss is NaN); supervised: seed 5 oom; compared over 8 of 10 seeds; "
        "ranked for the best over the 8 seeds that all finished"
    )


def test_seeds_pair_by_number_not_by_place():
    runs = runs_of({"supervised": BASE, "kd": shifted(UP)})
    shuffled = runs.sample(frac=1, random_state=0).sort_values("method", ascending=False, kind="stable")
    pd.testing.assert_frame_equal(compare.compare(shuffled), compare.compare(runs))


def test_a_seed_the_baseline_lacks_is_noted():
    runs = runs_of({"supervised": BASE[:8], "kd": shifted(UP)})
    kd = row_of(compare.compare(runs), "kd")
    assert kd["n_pairs"] == 8 and "no run of supervised for seeds 8, 9" in kd["note"]


def test_all_failed_and_all_skipped():
    broken = {("kd", s): ("diverged", "loss is NaN") for s in range(10)}
    broken |= {("at", s): ("skipped", "dgl is not installed") for s in range(10)}
    found = compare.compare(runs_of({"supervised": BASE, "kd": BASE, "at": BASE, "lsp": shifted(UP)}, broken=broken))
    kd, at, lsp = (row_of(found, method) for method in ("kd", "at", "lsp"))
    assert kd["verdict"] == "all failed" and math.isnan(kd["mean"]) and kd["n_ok"] == 0
    assert at["verdict"] == "skipped" and at["note"] == "skipped (dgl is not installed)"
    assert lsp["p_holm"] == lsp["p_wilcoxon"], "methods without pairs are not in the family"


def test_without_a_finished_baseline_there_is_no_verdict():
    broken = {("supervised", s): ("timeout", "") for s in range(10)}
    found = compare.compare(runs_of({"supervised": BASE, "kd": shifted(UP)}, broken=broken))
    assert row_of(found, "supervised")["verdict"] == "all failed"
    assert row_of(found, "kd")["verdict"] == "too few seeds" and row_of(found, "kd")["mean"] > 0


def test_too_few_seeds_give_no_verdict():
    kd = row_of(compare.compare(runs_of({"supervised": BASE[:5], "kd": shifted(UP)[:5]})), "kd")
    assert kd["verdict"] == "too few seeds" and math.isnan(kd["p_holm"]) and kd["p_wilcoxon"] == 0.0625
    assert kd["diff"] == pytest.approx(np.mean(UP[:5])) and np.isnan([kd["ci_low"], kd["ci_high"]]).all()
    one = row_of(compare.compare(runs_of({"supervised": BASE[:1], "kd": shifted(UP)[:1]})), "kd")
    assert one["verdict"] == "too few seeds" and math.isnan(one["ci_low"]) and math.isnan(one["std"])


def test_a_family_that_cannot_reject_is_told_to_run_more_seeds():
    scores = {"supervised": BASE[:6]} | {name: shifted(UP)[:6] for name in ("kd", "at")}
    found = compare.compare(runs_of(scores))
    assert row_of(found, "kd")["verdict"] == "no difference shown"
    assert "more seeds are needed" in row_of(found, "kd")["note"] and "0.062" in row_of(found, "kd")["note"]


def test_zeros_cannot_reject_and_few_others_are_told_so():
    half = [0.01, 0.012, 0.014, 0.016, 0.018, 0, 0, 0, 0, 0]  # five pairs differ: p is 0.0625 at best
    kd = row_of(compare.compare(runs_of({"supervised": BASE, "kd": shifted(half)})), "kd")
    assert kd["p_value"] == 0.0625 and "5 pairs that differ, 1 methods" in kd["note"]


def test_identical_runs_are_equivalent_and_said_to_be_identical():
    for resplit in (False, True):
        kd = row_of(compare.compare(runs_of({"supervised": BASE, "kd": BASE}, resplit=resplit)), "kd")
        assert (kd["diff"], kd["ci_low"], kd["ci_high"], kd["p_wilcoxon"], kd["effect"]) == (0, 0, 0, 1, 0)
        assert (kd["p_improve"], kd["verdict"]) == (0.5, "equivalent within δ")
        assert kd["note"] == "identical to supervised in every seed"
        assert kd["detectable"] == 0 and pd.isna(kd["seeds_needed"])


def test_ranks_against_the_mean_decide_nothing():
    by = [0.001, 0.0012, 0.0014, 0.0016, 0.0018, 0.0022, 0.0024, 0.0026, 0.0028, -0.9]  # nine up, the mean far down
    found = compare.compare(runs_of({"supervised": BASE, "kd": shifted(by)}), alpha=0.5)
    assert row_of(found, "kd")["verdict"] == "no difference shown"
    assert "differ in direction" in row_of(found, "kd")["note"]


def test_cells_are_families_of_their_own_and_another_baseline_can_be_named():
    runs = pd.concat([runs_of({"kd": BASE, "lsp": shifted(UP)}, backend=name) for name in ("pyg", "dgl")])
    found = compare.compare(runs, baseline="kd")
    assert list(found["backend"]) == ["pyg", "pyg", "dgl", "dgl"]
    assert list(found["verdict"]) == ["control", "better"] * 2
    assert (found.loc[found["method"] == "lsp", "p_holm"] == 2 / 1024).all()


def test_bad_input_is_named():
    runs = runs_of({"supervised": BASE, "kd": shifted(UP)})
    with pytest.raises(ValueError, match="did you mean 'supervised'"):
        compare.compare(runs, baseline="supervized")
    with pytest.raises(ValueError, match="no column status"):
        compare.compare(runs.drop(columns="status"))
    with pytest.raises(ValueError, match="two rows for toy/pyg/gat/supervised/0"):
        compare.compare(pd.concat([runs, runs.head(1)]))
    with pytest.raises(ValueError, match="toy/pyg/gat/kd/2 has status ok and no test value"):
        compare.compare(runs.assign(test=runs["test"].mask((runs["method"] == "kd") & (runs["seed"] == 2))))
    assert compare.compare(runs.head(0)).empty


# Which test decides


def test_the_permutation_test_can_decide():
    by = [0.001, 0.0012, 0.0014, 0.0016, 0.0018, 0.0022, 0.0024, 0.0026, 0.0028, -0.9]  # nine up, the mean far down
    runs = runs_of({"supervised": BASE, "kd": shifted(by)})
    ranks, mean = (row_of(compare.compare(runs, test=name), "kd") for name in ("wilcoxon", "permutation"))
    assert ranks["p_value"] == ranks["p_wilcoxon"] and mean["p_value"] == paired.sign_flip_p(by)
    assert mean["p_value"] > ranks["p_value"], "by size, the one fall outweighs nine small gains"
    assert (ranks["test"], mean["test"]) == ("wilcoxon", "permutation")
    with pytest.raises(ValueError, match="test: unknown 'ttest': choose from wilcoxon, permutation"):
        compare.compare(runs, test="ttest")


def taught_by(runs, teachers):
    """The same runs with a teacher of given weights for each seed."""
    taught = runs_of({"teacher": [0.9] * len(teachers)}).assign(weights=teachers)
    return pd.concat([taught, runs.assign(weights=[f"student {n}" for n in range(len(runs))])])


def test_seeds_that_share_teachers_are_tested_by_a_mixed_model():
    runs = runs_of({"supervised": BASE, "kd": shifted(UP)})
    own = row_of(compare.compare(taught_by(runs, list("abcdefghij"))), "kd")
    assert (own["test"], own["p_value"], own["verdict"]) == ("wilcoxon", 2 / 1024, "better")
    two = row_of(compare.compare(taught_by(runs, list("aaaaabbbbb"))), "kd")
    expected = paired.mixed_estimate(UP, list("aaaaabbbbb"))  # worked out in test_paired
    half = scipy_stats.t.ppf(0.975, 1) * expected.se
    assert (two["ci_low"], two["ci_high"]) == pytest.approx((expected.mean - half, expected.mean + half))
    assert two["test"] == "mixed model" and two["diff"] == pytest.approx(np.mean(UP))
    assert two["p_value"] >= 0.05 and two["verdict"] != "better", "two teachers show little, however many students"
    assert two["ci_high"] - two["ci_low"] > 3 * (own["ci_high"] - own["ci_low"])
    assert "10 seeds share 2 teachers: difference, interval and test are of a mixed model" in two["note"]
    assert math.isnan(two["detectable"]), "the power of another test would be no answer"
    assert two["best"] == ""
    one = row_of(compare.compare(taught_by(runs, ["a"] * 10)), "kd")
    assert one["verdict"] == "too few seeds" and "nothing is known of others" in one["note"]


def test_with_shared_teachers_the_direction_is_that_of_the_model():
    # 30 students of one teacher up, one each of 19 others down: over teachers the method is worse
    by = [0.021] * 30 + [-0.02] * 19
    by = [value + 0.0001 * (-1) ** n for n, value in enumerate(by)]
    base = [0.8 + 0.0003 * n for n in range(49)]
    runs = runs_of({"supervised": base, "kd": [b + up for b, up in zip(base, by, strict=True)]})
    kd = row_of(compare.compare(taught_by(runs, ["a"] * 30 + [f"t{n}" for n in range(19)])), "kd")
    assert np.mean(by) > 0 > kd["diff"] and kd["ci_high"] < 0
    assert kd["verdict"] == "worse"


def test_teachers_without_a_digest_are_not_shared():
    runs = taught_by(runs_of({"supervised": BASE, "kd": shifted(UP)}), [math.nan] * 10)
    assert row_of(compare.compare(runs), "kd")["test"] == "wilcoxon"


def test_a_failed_teacher_is_not_shared():
    taught = taught_by(runs_of({"supervised": BASE, "kd": shifted(UP)}), ["a", "", "", *"defghij"])
    assert row_of(compare.compare(taught), "kd")["test"] == "wilcoxon"


# Equivalence, the gap, power, the best


def test_equivalence_to_the_baseline_is_tost_and_needs_both_where_splits_are_redrawn():
    near = [0.001, -0.001, 0.002, -0.002, 0.0015, -0.001, 0.0005, 0.001, -0.0015, 0.0]
    found = row_of(compare.compare(runs_of({"supervised": BASE, "kd": shifted(near)}), delta=0.01), "kd")
    above, below = (
        scipy_stats.ttest_1samp(near, bound, alternative=side).pvalue
        for bound, side in ((-0.01, "greater"), (0.01, "less"))
    )
    assert found["p_equivalent"] == pytest.approx(max(above, below), rel=1e-6)
    assert found["verdict"] == "equivalent within δ"
    redrawn = row_of(compare.compare(runs_of({"supervised": BASE, "kd": shifted(near)}, resplit=True)), "kd")
    assert redrawn["verdict"] == "equivalent within δ on these splits"
    assert redrawn["p_equivalent_resplit"] > 0.05
    narrow = row_of(compare.compare(runs_of({"supervised": BASE, "kd": shifted(near)}), delta=0.0001), "kd")
    assert narrow["verdict"] == "no difference shown"
    with pytest.raises(ValueError, match="delta: 0 is not a margin"):
        compare.compare(runs_of({"supervised": BASE, "kd": BASE}), delta=0)


def test_equivalence_is_adjusted_for_the_number_of_methods():
    near = [0.001, -0.001, 0.002, -0.002, 0.0015, -0.001, 0.0005, 0.001, -0.0015, 0.0]
    one = row_of(compare.compare(runs_of({"supervised": BASE, "a": shifted(near)}), delta=0.002), "a")
    two = row_of(compare.compare(runs_of({"supervised": BASE, "a": shifted(near), "b": shifted(UP)}), delta=0.002), "a")
    assert two["p_equivalent"] == pytest.approx(2 * one["p_equivalent"])


def test_the_share_of_the_gap_that_is_closed():
    teacher = [base + 0.1 + up / 10 for base, up in zip(BASE, UP, strict=True)]
    scores = {"teacher": teacher, "supervised": BASE, "kd": shifted([0.05] * 10), "at": shifted([-0.01] * 10)}
    found = compare.compare(runs_of(scores))
    gap = np.mean(np.subtract(teacher, BASE))
    assert row_of(found, "kd")["gap_closed"] == pytest.approx(0.05 / gap)
    assert row_of(found, "at")["gap_closed"] == pytest.approx(-0.01 / gap)
    assert math.isnan(row_of(found, "teacher")["gap_closed"])
    level = compare.compare(runs_of(scores | {"teacher": [b + (-1) ** n / 50 for n, b in enumerate(BASE)]}))
    assert math.isnan(row_of(level, "kd")["gap_closed"]), "there is no gap to close"
    ahead = compare.compare(runs_of(scores | {"teacher": [b + (-1) ** n / 50 + 0.001 for n, b in enumerate(BASE)]}))
    assert row_of(ahead, "teacher")["diff"] > 0 and math.isnan(row_of(ahead, "kd")["gap_closed"]), "none is shown"
    few = compare.compare(runs_of({name: values[:5] for name, values in scores.items()}))
    assert math.isnan(row_of(few, "kd")["gap_closed"]), "five seeds do not show one"


def test_the_gap_is_of_the_seeds_that_all_three_finished():
    teacher, kd = [base + 0.1 for base in BASE], shifted([0.02] * 9 + [0.05])
    scores = {"teacher": teacher, "supervised": BASE, "kd": kd}
    found = compare.compare(runs_of(scores, broken={("teacher", 9): ("diverged", "NaN")}))
    assert row_of(found, "kd")["gap_closed"] == pytest.approx(0.2)
    assert row_of(found, "kd")["diff"] == pytest.approx(0.023)
    # the student has lost the seed in which the teacher is far ahead: over all ten the gap would be 0.11
    scores = {"teacher": [*teacher[:9], BASE[9] + 0.2], "supervised": BASE, "kd": shifted([0.02] * 10)}
    found = compare.compare(runs_of(scores, broken={("kd", 9): ("oom", "")}))
    assert row_of(found, "teacher")["diff"] == pytest.approx(0.11)
    assert row_of(found, "kd")["gap_closed"] == pytest.approx(0.2)


def test_power_is_that_of_holms_first_step():
    scores = {"supervised": BASE, "kd": shifted(UP), "at": shifted(UP[::-1]), "lsp": BASE}
    kd = row_of(compare.compare(runs_of(scores)), "kd")
    assert kd["detectable"] == power.smallest_detectable(10, np.std(UP, ddof=1), 0.05 / 3)
    assert kd["seeds_needed"] == power.seeds_needed(np.mean(UP), np.std(UP, ddof=1), 0.05 / 3)


def test_best_is_marked_by_the_test_and_never_by_the_mean_alone():
    close = [up + (-1) ** n * 0.004 for n, up in enumerate(UP)]
    scores = {"supervised": BASE, "kd": shifted(UP), "at": shifted(close), "lsp": shifted([-x for x in UP])}
    found = compare.compare(runs_of({"teacher": [0.94] * 10} | scores)).set_index("method")
    assert np.mean(close) == pytest.approx(np.mean(UP)), "a tie in the mean"
    assert found["best"].to_dict() == {"teacher": "", "supervised": "", "kd": "best", "at": "not worse", "lsp": ""}
    few = compare.compare(runs_of({name: values[:5] for name, values in scores.items()}))
    assert set(few["best"]) == {""}


def test_who_finished_fewer_seeds_is_not_ranked_and_it_is_said():
    hard = {("lucky", seed): ("diverged", "loss is NaN") for seed in (0, 3, 7, 9)}
    runs = runs_of({"supervised": BASE, "kd": shifted(UP), "lucky": shifted([0.03] * 10)}, broken=hard)
    found = compare.compare(runs).set_index("method")
    assert found.loc["lucky", "mean"] > found.loc["kd", "mean"]
    assert (found.loc["kd", "best"], found.loc["lucky", "best"]) == ("best", "")
    assert "not ranked for the best: finished 6 of the 10 seeds that others did" in found.loc["lucky", "note"]


def test_who_is_worse_than_the_baseline_is_worse_than_the_best():
    wild = [-0.4, -0.002, -0.003, -0.0025, -0.004, -0.3, -0.001, -0.0015, -0.5, -0.0035]  # in every seed, t is small
    found = compare.compare(runs_of({"supervised": BASE, "sp": shifted(wild), "kd": shifted(UP)}))
    sp = row_of(found, "sp")
    assert sp["verdict"] == "worse" and sp["p_best"] > 0.05 and sp["best"] == ""


def test_a_seed_that_everybody_lost_leaves_the_others_ranked():
    lost = {(name, 4): ("skipped", "its teacher has the status diverged") for name in ("supervised", "kd", "at")}
    found = compare.compare(runs_of({"supervised": BASE, "kd": shifted(UP), "at": BASE}, broken=lost))
    assert row_of(found, "kd")["best"] == "best" and row_of(found, "at")["best"] == ""


def test_a_method_that_is_not_shown_to_beat_the_baseline_does_not_push_it_from_the_best():
    lead = [0.02, 0.021, 0.019, 0.02, 0.022, 0.018]  # p = 0.031: of four methods, 0.125
    behind = [-0.0001 * n for n in range(6)]
    gains = {"supervised": [0] * 6, "kd": lead, "a": behind, "b": behind, "c": behind}
    scores = {name: [b + up for b, up in zip(BASE[:6], by, strict=True)] for name, by in gains.items()}
    found = compare.compare(runs_of(scores))
    kd, alone = row_of(found, "kd"), row_of(found, "supervised")
    assert kd["verdict"] == "no difference shown" and kd["best"] == "best"
    assert [row_of(found, name)["best"] for name in "abc"] == ["", "", ""]
    assert alone["best"] == "not worse" and alone["p_best"] == kd["p_holm"]


def test_the_baseline_is_worse_than_the_best_where_that_ones_verdict_says_so():
    by = [0.02, 0.03, 0.001, 0.05, 0.002, 0.04, 0.001, 0.03, 0.02, 0.01]  # in every seed; t is small
    wild = {f"m{n}": shifted([(-1) ** (s + n) * 0.05 for s in range(10)]) for n in range(6)}
    found = compare.compare(runs_of({"supervised": BASE, "kd": shifted(by)} | wild))
    kd, alone = row_of(found, "kd"), row_of(found, "supervised")
    assert (kd["verdict"], kd["best"], alone["best"]) == ("better", "best", "")
    assert alone["p_best"] == kd["p_holm"]


def test_nobody_is_best_who_is_worse_than_the_baseline():
    runs = runs_of(
        {"supervised": BASE, "a": shifted([-0.022] * 10), "b": shifted([-0.05] * 10)},
        broken={("supervised", 3): ("diverged", "")},
    )
    assert set(compare.compare(runs)["best"]) == {""}


def test_it_is_said_over_which_seeds_the_best_was_looked_for():
    broken = {("kd", 0): ("oom", ""), ("at", 4): ("oom", ""), ("supervised", 0): ("oom", "")}
    found = compare.compare(runs_of({"supervised": BASE, "kd": shifted(UP), "at": BASE}, broken=broken))
    assert row_of(found, "kd")["best"] == "best"
    assert "ranked for the best over the 8 seeds that all finished" in row_of(found, "kd")["note"]


def test_the_teacher_can_be_the_baseline():
    found = compare.compare(runs_of({"teacher": [0.9] * 10, "supervised": BASE}), baseline="teacher")
    assert list(found["method"]) == ["teacher", "supervised"] and row_of(found, "supervised")["verdict"] == "worse"


# The whole table


def test_holm_can_be_over_the_whole_table():
    runs = pd.concat([runs_of({"supervised": BASE, "kd": shifted(UP)}, dataset=name) for name in "ab"])
    by_cell, by_table = (compare.compare(runs, family=name) for name in ("cell", "table"))
    assert list(by_cell["p_holm"].dropna()) == [2 / 1024] * 2 and list(by_table["p_holm"].dropna()) == [4 / 1024] * 2
    assert list(by_cell["p_holm_table"].dropna()) == [4 / 1024] * 2, "said in any case"
    with pytest.raises(ValueError, match="family: unknown 'cells': choose from cell, table"):
        compare.compare(runs, family="cells")


def null_benchmark(rng, number):
    """Two data sets, four methods without any effect, ten paired seeds, metrics of 500 test nodes: ties occur."""
    frames = []
    for dataset in "ab":
        base = rng.normal(0.8, 0.01, 10)
        scores = {name: base + rng.normal(0, 0.006, 10) for name in ("supervised", "kd", "at", "lsp", "gsp")}
        rounded = {name: np.round(values * 500) / 500 for name, values in scores.items()}
        frames.append(runs_of(rounded, dataset=dataset, resplit=number % 2 == 0))
    return pd.concat(frames)


def rate(claimed, tables, *by):
    """The share of tables (or of their cells) with any claim."""
    return claimed.groupby([tables[name] for name in by]).any().mean()


def test_of_1000_null_benchmarks_at_most_5_percent_claim_anything(monkeypatch):
    """Whole tables by ``p_holm_table``; their cells by the verdicts, and by who is called worse than the best."""
    monkeypatch.setattr(gc, "collect", lambda: 0)  # statsmodels does so at every call: 60 ms
    rng = np.random.default_rng(11)
    tables = pd.concat(
        compare.compare(null_benchmark(rng, number), resamples=0).assign(number=number) for number in range(1000)
    )
    shown = tables["p_holm_table"] <= 0.05
    assert 0.005 < rate(shown, tables, "number") <= 0.05, "a test that never rejects would be no test"
    claimed = tables["verdict"].str.startswith(("better", "worse"))
    assert 0.01 < rate(claimed, tables, "number", "dataset") <= 0.05
    beaten = tables["best"] == ""
    error = math.sqrt(0.05 * 0.95 / 2000)
    assert 0.01 < rate(beaten, tables, "number", "dataset") <= 0.05 + 2 * error, "an exact test, but for ties"


def test_the_permutation_test_keeps_5_percent_of_the_cells(monkeypatch):
    monkeypatch.setattr(gc, "collect", lambda: 0)
    rng = np.random.default_rng(12)
    runs = pd.concat([null_benchmark(rng, n).assign(pair=f"pair{n}") for n in range(50)])
    found = compare.compare(runs, resamples=0, test="permutation")
    claimed = found["verdict"].str.startswith(("better", "worse")).groupby([found["dataset"], found["pair"]]).any()
    assert len(claimed) == 100 and 1 <= claimed.sum() <= scipy_stats.binom.ppf(0.999, 100, 0.05)


def test_an_effect_of_the_detectable_size_is_found_in_80_percent_of_the_benchmarks(monkeypatch):
    """Four methods, one of them with a true effect that ten seeds are said to show with 80% power."""
    monkeypatch.setattr(gc, "collect", lambda: 0)
    rng = np.random.default_rng(13)
    effect, number = power.smallest_detectable(10, 0.006, 0.05 / 4), 200
    cells = []
    for cell in range(number):
        base = rng.normal(0.8, 0.01, 10)
        scores = {name: base + (name == "a") * effect + rng.normal(0, 0.006, 10) for name in "abcd"}
        cells.append(runs_of({"supervised": base} | scores, dataset=f"{cell}"))
    found = compare.compare(pd.concat(cells), resamples=0)
    share = (found.loc[found["method"] == "a", "verdict"] == "better").mean()
    error = math.sqrt(0.8 * 0.2 / number)
    assert 0.8 - 3 * error <= share <= 0.8 + 4 * error, "later steps of Holm's add a little"


def test_a_hundred_methods():
    scores = {f"m{n:03}": shifted([up * (n % 3 - 1) for up in UP]) for n in range(100)}
    found = compare.compare(runs_of({"supervised": BASE} | scores), resamples=200)
    assert len(found) == 101
    assert found["p_holm"].max() <= 1 and found["note"].str.contains("more seeds are needed").sum() == 100
    assert not found["verdict"].str.startswith(("better", "worse")).any(), "2/1024 times 100 is above 5%"
