"""The comparison of a data set and pair: on cases worked through, and on simulated runs."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from distillbench.predictions import RowScores
from distillbench.statistics import compare, paired, two_way
from distillbench.statistics.power import smallest_detectable
from distillbench.statistics.two_way import Sample, TwoWay

from .conftest import BASE, UP, row_of, runs_of, shifted

NEAR = [0.001, -0.001, 0.002, -0.002, 0.0015, -0.001, 0.0005, 0.001, -0.0015, 0.0]


def test_a_cell_worked_through():
    methods = {"kd": shifted(UP), "at": shifted([-x for x in UP]), "lsp": shifted([*UP[:5], *(-x for x in UP[:5])])}
    found = compare.compare(runs_of({"kd": methods["kd"], "supervised": BASE, "teacher": [0.94] * 10, **methods}))
    assert list(found["method"]) == ["teacher", "supervised", "kd", "at", "lsp"]
    assert list(found["verdict"]) == ["control", "control", "better", "worse", "no difference shown"]
    kd = row_of(found, "kd")
    assert kd["diff"] == pytest.approx(np.mean(UP)) and kd["se"] == pytest.approx(np.std(UP, ddof=1) / math.sqrt(10))
    assert (kd["mean"], kd["std"]) == pytest.approx((np.mean(methods["kd"]), np.std(methods["kd"], ddof=1)))
    together = paired.step_down_p([np.subtract(methods[name], BASE) for name in ("kd", "at", "lsp")])
    assert kd["p"] == together[0] and 2 / 1024 < kd["p"] < 0.01
    assert kd["p_wilcoxon"] == 6 / 1024  # Holm: the smallest of three, times three
    assert (kd["improved"], kd["collapsed"], kd["n_ok"], kd["n"], kd["n_pairs"]) == (10, 0, 10, 10, 10)
    assert row_of(found, "at")["improved"] == 0
    assert row_of(found, "teacher")["diff"] == pytest.approx(0.94 - np.mean(BASE))
    assert math.isnan(row_of(found, "supervised")["diff"])


def test_the_interval_is_that_of_all_methods_together_and_the_teachers_its_own():
    scores = {"supervised": BASE, "kd": shifted(UP), "at": shifted(UP[::-1]), "teacher": shifted([x + 0.1 for x in UP])}
    found = compare.compare(runs_of(scores))
    t = (row_of(found, "kd")["ci_high"] - np.mean(UP)) / (np.std(UP, ddof=1) / math.sqrt(10))
    samples = [Sample(pd.Series(UP)), Sample(pd.Series(UP[::-1]))]
    level = TwoWay(samples).level([0, 1], 0.05)
    assert 0.025 < level < 0.04
    assert t == pytest.approx(scipy_stats.t.ppf(1 - level / 2, 9))
    teacher = row_of(found, "teacher")
    own = scipy_stats.t.interval(0.95, 9, np.mean(UP) + 0.1, np.std(UP, ddof=1) / math.sqrt(10))
    assert (teacher["ci_low"], teacher["ci_high"]) == pytest.approx(own)


# Rows of the test part


def with_rows(scores, disagree, *, backend="pyg"):
    """Row scores of runs whose accuracy is ``scores`` [by method]; ``disagree``: how many rows a method's differ in."""
    stored, n = {}, 1000
    for method, values in scores.items():
        for seed, value in enumerate(values):
            right = np.zeros(n, np.float32)
            right[: round(value * n)] = 1
            if method in disagree:  # the same rows in all seeds: right in as many as it is wrong in
                number = disagree[method]
                right[:number], right[-number:] = 0, 1
            stored["toy", backend, "gat", method, seed] = RowScores(np.arange(n), right)
    return stored


def test_rows_widen_the_interval_and_can_take_a_verdict_away():
    scores = {"supervised": BASE, "kd": shifted(UP)}
    alone = row_of(compare.compare(runs_of(scores)), "kd")
    same = row_of(compare.compare(runs_of(scores), with_rows(scores, {})), "kd")
    other = row_of(compare.compare(runs_of(scores), with_rows(scores, {"kd": 40})), "kd")
    assert (alone["n_rows"], same["n_rows"], other["n_rows"]) == (0, 1000, 1000)
    assert math.isnan(alone["se_rows"]) and alone["p"] == same["p"] == other["p"] == 2 / 1024
    assert alone["verdict"] == same["verdict"] == "better"
    assert other["se_rows"] == pytest.approx(math.sqrt(0.08 / 1000), rel=0.05)  # 80 of 1,000 rows differ
    assert other["ci_low"] < 0 < other["ci_high"] and other["verdict"] == "no difference shown"


def test_rows_of_some_seeds_alone_are_not_used():
    scores = {"supervised": BASE, "kd": shifted(UP)}
    stored = with_rows(scores, {"kd": 40})
    del stored["toy", "pyg", "gat", "kd", 3]
    assert row_of(compare.compare(runs_of(scores), stored), "kd")["n_rows"] == 0


def test_where_splits_are_redrawn_shared_training_rows_count():
    scores = {"supervised": BASE, "kd": shifted(UP)}
    one, redrawn = (row_of(compare.compare(runs_of(scores, resplit=r)), "kd") for r in (False, True))
    share = 50 / 1800
    assert redrawn["se"] / one["se"] == pytest.approx(math.sqrt(1 + 10 * share / (1 - share)))
    unknown = compare.compare(runs_of(scores, resplit=True).drop(columns=["n_train", "n_val", "n_test"]))
    assert row_of(unknown, "kd")["se"] == one["se"]


# What is missing


def test_a_failed_seed_stays_visible_and_leaves_the_pairs_paired():
    broken = {("kd", 3): ("diverged", "loss is\nNaN"), ("supervised", 5): ("oom", "")}
    kd = row_of(compare.compare(runs_of({"supervised": BASE, "kd": shifted(UP)}, broken=broken)), "kd")
    kept = [up for seed, up in enumerate(UP) if seed not in (3, 5)]
    assert (kd["n_ok"], kd["n"], kd["n_pairs"], kd["improved"]) == (9, 10, 8, 8)
    assert kd["diff"] == pytest.approx(np.mean(kept)) and kd["p"] == 2 / 2**8
    assert kd["note"].startswith("seed 3 diverged (loss is NaN); supervised: seed 5 ")
    assert kd["note"].endswith("compared over 8 of 10 seeds")


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
    assert lsp["p_wilcoxon"] == 2 / 1024, "methods without pairs are not in the family"


def test_without_a_finished_baseline_there_is_no_verdict():
    broken = {("supervised", s): ("timeout", "") for s in range(10)}
    found = compare.compare(runs_of({"supervised": BASE, "kd": shifted(UP)}, broken=broken))
    assert row_of(found, "supervised")["verdict"] == "all failed"
    assert row_of(found, "kd")["verdict"] == "too few seeds" and row_of(found, "kd")["mean"] > 0


def test_too_few_seeds_give_no_verdict():
    kd = row_of(compare.compare(runs_of({"supervised": BASE[:5], "kd": shifted(UP)[:5]})), "kd")
    assert kd["verdict"] == "too few seeds" and kd["improved"] == 5
    assert kd["diff"] == pytest.approx(np.mean(UP[:5]))
    assert np.isnan([kd[name] for name in ("p", "p_table", "p_wilcoxon", "ci_low", "ci_high")]).all()
    one = row_of(compare.compare(runs_of({"supervised": BASE[:1], "kd": shifted(UP)[:1]})), "kd")
    assert one["verdict"] == "too few seeds" and math.isnan(one["ci_low"]) and math.isnan(one["std"])


def test_no_number_of_methods_makes_six_seeds_too_few():
    scores = {"supervised": BASE[:6]} | {f"m{n:03}": shifted([up * (n % 3 - 1) for up in UP])[:6] for n in range(100)}
    found = compare.compare(runs_of(scores))
    assert len(found) == 101 and row_of(found, "m002")["p"] == 2 / 2**6
    assert row_of(found, "m002")["p_wilcoxon"] == 1, "Holm would need 11 seeds"
    assert not found["verdict"].isin(["too few seeds"]).any()


def test_identical_runs_are_equivalent_and_said_to_be_identical():
    for resplit in (False, True):
        kd = row_of(compare.compare(runs_of({"supervised": BASE, "kd": BASE}, resplit=resplit)), "kd")
        assert (kd["diff"], kd["ci_low"], kd["ci_high"], kd["p"], kd["improved"]) == (0, 0, 0, 1, 0)
        assert (kd["verdict"], kd["detectable"]) == ("equivalent within δ", 0)
        assert kd["note"] == "identical to supervised in every seed"


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
    with pytest.raises(ValueError, match="delta: 0 is not a margin"):
        compare.compare(runs, delta=0)
    assert compare.compare(runs.head(0)).empty


# Libraries


def test_libraries_that_agree_are_one_row_of_their_mean():
    other = [x + 0.001 * (-1) ** n for n, x in enumerate(shifted(UP))]
    runs = pd.concat([
        runs_of({"supervised": BASE, "kd": shifted(UP), "teacher": [0.9] * 10}),
        runs_of({"supervised": BASE, "kd": other, "teacher": [0.9] * 10}, backend="dgl"),
    ])  # fmt: skip
    found = compare.compare(runs)
    assert list(found["backend"]) == ["pyg+dgl"] * 3 and list(found["n"]) == [10] * 3
    assert row_of(found, "kd")["diff"] == pytest.approx(np.mean(UP))
    assert row_of(found, "kd")["diff_std"] < np.std(UP, ddof=1) + 0.001
    assert found["p_table"].notna().sum() == 1, "one comparison, not two"
    rows = with_rows({"supervised": BASE, "kd": shifted(UP)}, {"kd": 40})
    rows |= with_rows({"supervised": BASE, "kd": other}, {"kd": 40}, backend="dgl")
    assert row_of(compare.compare(runs, rows), "kd")["n_rows"] == 1000


def test_libraries_that_differ_have_a_row_each_in_one_family():
    by = [0.03 + x / 10 for x in UP]
    runs = pd.concat([
        runs_of({"supervised": BASE, "kd": shifted(UP), "at": shifted(NEAR)}),
        runs_of({"supervised": BASE, "kd": shifted(by), "at": shifted(NEAR)}, backend="dgl"),
    ])  # fmt: skip
    found = compare.compare(runs)
    assert list(found["method"] + " " + found["backend"]) == ["supervised pyg+dgl", "kd pyg", "kd dgl", "at pyg+dgl"]
    assert found["p_table"].notna().sum() == 3
    # where the baseline differs, nothing can be one row
    moved = pd.concat([
        runs_of({"supervised": BASE, "kd": shifted(UP)}),
        runs_of({"supervised": shifted(by), "kd": shifted(UP)}, backend="dgl"),
    ])  # fmt: skip
    assert list(compare.compare(moved)["backend"]) == ["pyg", "dgl"] * 2


def test_libraries_that_noise_tells_apart_are_one_row():
    wide = [x + 0.1 * (-1) ** n + 0.01 for n, x in enumerate(shifted(UP))]  # the means are two points apart
    runs = pd.concat([
        runs_of({"supervised": BASE, "kd": shifted(UP)}),
        runs_of({"supervised": BASE, "kd": [*wide[:9], wide[9] + 0.1]}, backend="dgl"),
    ])  # fmt: skip
    assert list(compare.compare(runs)["backend"]) == ["pyg+dgl"] * 2


def test_a_seed_that_one_library_lost_keeps_the_rows_apart_and_a_missing_library_is_said():
    lost = {("kd", 2): ("oom", "out of memory")}
    runs = pd.concat([
        runs_of({"supervised": BASE, "kd": shifted(UP)}),
        runs_of({"supervised": BASE, "kd": shifted(UP)}, backend="dgl", broken=lost),
    ])  # fmt: skip
    found = compare.compare(runs)
    assert list(found["backend"]) == ["pyg+dgl", "pyg", "dgl"] and list(found["n_ok"]) == [10, 10, 9]
    gone = {(name, s): ("skipped", "dgl is not installed") for name in ("supervised", "kd") for s in range(10)}
    runs = pd.concat([
        runs_of({"supervised": BASE, "kd": shifted(UP)}),
        runs_of({"supervised": BASE, "kd": BASE}, backend="dgl", broken=gone),
    ])  # fmt: skip
    found = compare.compare(runs)
    assert list(found["backend"]) == ["pyg", "dgl", "pyg", "dgl"]
    assert list(found["verdict"]) == ["control", "skipped", "better", "skipped"]


def test_another_baseline_can_be_named_and_the_teacher_can_be_it():
    runs = pd.concat([runs_of({"kd": BASE, "lsp": shifted(UP)}, pair=name) for name in ("a", "b")])
    found = compare.compare(runs, baseline="kd")
    assert list(found["verdict"]) == ["control", "better"] * 2
    assert (found.loc[found["method"] == "lsp", "p"] == 2 / 1024).all()
    found = compare.compare(runs_of({"teacher": [0.9] * 10, "supervised": BASE}), baseline="teacher")
    assert list(found["method"]) == ["teacher", "supervised"] and row_of(found, "supervised")["verdict"] == "worse"


# Shared teachers


def taught_by(runs, teachers):
    """The same runs with a teacher of given weights for each seed."""
    taught = runs_of({"teacher": [0.9] * len(teachers)}).assign(weights=teachers)
    return pd.concat([taught, runs.assign(weights=[f"student {n}" for n in range(len(runs))])])


def test_seeds_that_share_teachers_count_once_a_teacher():
    runs = runs_of({"supervised": BASE, "kd": shifted(UP)})
    own = row_of(compare.compare(taught_by(runs, list("abcdefghij"))), "kd")
    assert (own["p"], own["verdict"], own["note"]) == (2 / 1024, "better", "")
    six = row_of(compare.compare(taught_by(runs, list("aabbccddef"))), "kd")
    means = [np.mean(UP[2 * n : 2 * n + 2]) for n in range(4)] + UP[8:]
    assert six["diff"] == pytest.approx(np.mean(means)) and six["p"] == 2 / 2**6
    assert six["se"] == pytest.approx(np.std(means, ddof=1) / math.sqrt(6))
    assert six["note"] == "10 seeds share 6 teachers: the unit is the teacher"
    two = row_of(compare.compare(taught_by(runs, list("aaaaabbbbb"))), "kd")
    assert two["verdict"] == "too few seeds" and two["n_pairs"] == 10 and "share 2 teachers" in two["note"]
    one = row_of(compare.compare(taught_by(runs, ["a"] * 10)), "kd")
    assert one["verdict"] == "too few seeds" and "nothing is known of others" in one["note"]


def test_teachers_without_a_digest_or_that_failed_are_not_shared():
    runs = runs_of({"supervised": BASE, "kd": shifted(UP)})
    for teachers in ([math.nan] * 10, ["a", "", "", *"defghij"]):
        assert "share" not in row_of(compare.compare(taught_by(runs, teachers)), "kd")["note"]


# Collapses, margins, the gap, the best


def test_a_collapse_is_counted_and_forbids_equivalence():
    by = [*NEAR[:8], -0.12, -0.2]
    found = compare.compare(runs_of({"supervised": BASE, "kd": shifted(by), "at": shifted(NEAR)}), delta=0.2)
    kd = row_of(found, "kd")
    assert kd["collapsed"] == 2 and math.isnan(kd["p_equivalent"]) and math.isnan(kd["detectable"])
    assert kd["verdict"] == "no difference shown"
    assert row_of(found, "at")["verdict"] == "equivalent within δ"


def test_ten_points_below_the_median_is_a_collapse():
    for down, expected in ((0.0999, 0), (0.1, 1)):
        flat = runs_of({"supervised": [0.8] * 10, "kd": [*[0.8] * 9, 0.8 - down]})
        assert row_of(compare.compare(flat), "kd")["collapsed"] == expected


def test_equivalence_to_the_baseline_is_tost():
    found = row_of(compare.compare(runs_of({"supervised": BASE, "kd": shifted(NEAR)}), delta=0.01), "kd")
    above, below = (
        scipy_stats.ttest_1samp(NEAR, bound, alternative=side).pvalue
        for bound, side in ((-0.01, "greater"), (0.01, "less"))
    )
    assert found["p_equivalent"] == pytest.approx(max(above, below), rel=1e-6)
    assert found["verdict"] == "equivalent within δ"
    narrow = row_of(compare.compare(runs_of({"supervised": BASE, "kd": shifted(NEAR)}), delta=0.0001), "kd")
    assert narrow["verdict"] == "no difference shown"


def test_equivalence_is_adjusted_for_the_number_of_methods():
    one = row_of(compare.compare(runs_of({"supervised": BASE, "a": shifted(NEAR)}), delta=0.002), "a")
    two = row_of(compare.compare(runs_of({"supervised": BASE, "a": shifted(NEAR), "b": shifted(UP)}), delta=0.002), "a")
    assert two["p_equivalent"] == pytest.approx(2 * one["p_equivalent"])


def test_a_difference_within_the_margin_that_all_seeds_share_is_better_by_less():
    small = [0.004 + x / 10 for x in NEAR]
    found = compare.compare(runs_of({"supervised": BASE, "kd": shifted(small), "at": shifted([-x for x in small])}))
    assert row_of(found, "kd")["verdict"] == "better, by less than δ"
    assert row_of(found, "at")["verdict"] == "worse, by less than δ"
    found = compare.compare(runs_of({"supervised": BASE, "kd": shifted(small)}), delta=0.002)
    assert row_of(found, "kd")["verdict"] == "better"


def test_the_margin_may_be_of_a_data_set_or_of_a_pair():
    frames = [
        runs_of({"supervised": BASE, "kd": shifted(NEAR)}, dataset=dataset, pair=pair)
        for dataset, pair in (("a", "x"), ("a", "y"), ("b", "x"))
    ]
    found = compare.compare(pd.concat(frames), delta={"a": {"x": 0.0001}, "b": 0.002})
    kd = found[found["method"] == "kd"]
    assert list(kd["delta"]) == [0.0001, 0.01, 0.002]
    assert list(kd["verdict"]) == ["no difference shown", "equivalent within δ", "equivalent within δ"]


def test_the_share_of_the_gap_that_is_closed():
    teacher = [base + 0.1 + up / 10 for base, up in zip(BASE, UP, strict=True)]
    scores = {"teacher": teacher, "supervised": BASE, "kd": shifted([0.05] * 10), "at": shifted([-0.01] * 10)}
    found = compare.compare(runs_of(scores))
    gap = np.mean(np.subtract(teacher, BASE))
    assert row_of(found, "kd")["gap_closed"] == pytest.approx(0.05 / gap)
    assert math.isnan(row_of(found, "at")["gap_closed"]), "a share below 0 is no share"
    assert math.isnan(row_of(found, "teacher")["gap_closed"])
    for lead in (0.0, 0.001):
        level = runs_of(scores | {"teacher": [b + (-1) ** n / 50 + lead for n, b in enumerate(BASE)]})
        assert math.isnan(row_of(compare.compare(level), "kd")["gap_closed"]), "no gap is shown"
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


def test_the_difference_to_the_best_has_an_interval_of_all_pairs():
    close = [up + (-1) ** n * 0.004 for n, up in enumerate(UP)]
    scores = {"supervised": BASE, "kd": shifted([x + 1e-4 for x in UP]), "at": shifted(close)}
    found = compare.compare(runs_of({"teacher": [0.94] * 10} | scores | {"lsp": shifted([-x for x in UP])}))
    best = found.set_index("method")
    assert best.loc["kd", ["best_diff", "best_low", "best_high"]].tolist() == [0, 0, 0]
    assert best.loc["at", "best_diff"] == pytest.approx(-1e-4) and best.loc["at", "best_high"] > 0
    assert best.loc["lsp", "best_high"] < 0 and best.loc["supervised", "best_high"] < 0
    assert math.isnan(best.loc["teacher", "best_diff"])
    few = compare.compare(runs_of({name: values[:5] for name, values in scores.items()}))
    assert few["best_diff"].isna().all()


def test_who_finished_fewer_seeds_is_not_ranked():
    hard = {("lucky", seed): ("diverged", "loss is NaN") for seed in (0, 3, 7, 9)}
    runs = runs_of({"supervised": BASE, "kd": shifted(UP), "lucky": shifted([0.03] * 10)}, broken=hard)
    found = compare.compare(runs).set_index("method")
    assert found.loc["lucky", "mean"] > found.loc["kd", "mean"]
    assert found.loc["kd", "best_diff"] == 0 and math.isnan(found.loc["lucky", "best_diff"])
    # a seed that everybody lost leaves the others ranked
    lost = {(name, 4): ("skipped", "its teacher has the status diverged") for name in ("supervised", "kd", "at")}
    found = compare.compare(runs_of({"supervised": BASE, "kd": shifted(UP), "at": BASE}, broken=lost))
    assert row_of(found, "kd")["best_diff"] == 0 and row_of(found, "at")["best_high"] < 0


# The whole table, and what the verdicts promise


def test_the_whole_table_is_tested_together_too():
    frames = [
        runs_of({"supervised": BASE, "kd": shifted(UP)}, dataset="a"),
        runs_of(
            {"supervised": BASE, "kd": shifted([0.01, 0.02, 0.015, -0.004, 0.02, 0.01, 0.03, 0.01, 0.02, 0.01])},
            dataset="b",
        ),
    ]
    found = compare.compare(pd.concat(frames))
    kd = found[found["method"] == "kd"]
    together = paired.step_down_p([UP, [0.01, 0.02, 0.015, -0.004, 0.02, 0.01, 0.03, 0.01, 0.02, 0.01]])
    assert list(kd["p_table"]) == pytest.approx(list(together))
    assert (kd["p"] <= kd["p_table"]).all()


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
    """The share of tables (or of their data sets) with any claim."""
    return claimed.groupby([tables[name] for name in by]).any().mean()


def test_of_120_null_benchmarks_at_most_5_percent_claim_anything(monkeypatch):
    """Whole tables by ``p_table`` (exactly: see test_paired); data sets by verdicts and by who is behind the best."""
    monkeypatch.setattr(two_way, "DRAWS", 4000)
    rng = np.random.default_rng(12)
    tables = pd.concat(compare.compare(null_benchmark(rng, number)).assign(number=number) for number in range(120))
    error = math.sqrt(0.05 * 0.95 / 240)
    assert 0 < rate(tables["p_table"] <= 0.05, tables, "number") <= 0.05 + 2 * error
    claimed = tables["verdict"].str.startswith(("better", "worse"))
    assert 0 < rate(claimed, tables, "number", "dataset") <= 0.05, "a test that never rejects would be no test"
    beaten = tables["best_high"] < 0
    assert 0 < rate(beaten, tables, "number", "dataset") <= 0.05 + 2 * error


def test_an_effect_of_the_detectable_size_is_found_in_80_percent_of_the_benchmarks(monkeypatch):
    """Four methods, one of them with a true effect that ten seeds are said to show with 80% power."""
    monkeypatch.setattr(two_way, "DRAWS", 4000)
    rng = np.random.default_rng(13)
    effect, number = smallest_detectable(10, 0.006, methods=4), 100
    cells = []
    for cell in range(number):
        base = rng.normal(0.8, 0.01, 10)
        scores = {name: base + (name == "a") * effect + rng.normal(0, 0.006, 10) for name in "abcd"}
        cells.append(runs_of({"supervised": base} | scores, dataset=f"{cell}"))
    found = compare.compare(pd.concat(cells))
    share = (found.loc[found["method"] == "a", "verdict"].str.startswith("better")).mean()
    error = math.sqrt(0.8 * 0.2 / number)
    assert 0.8 - 3 * error <= share <= 0.8 + 4 * error, "Bonferroni's level is a little small"


def test_of_21_methods_more_are_found_than_by_ranks():
    """Effects of 1.5 standard deviations, ten seeds."""
    rng, steps, ranks = np.random.default_rng(14), 0, 0
    for _ in range(20):
        d = rng.normal(0, 1, (21, 10)) + 1.5 * (np.arange(21) < 7)[:, None]
        steps += (paired.step_down_p(d)[:7] <= 0.05).sum()
        ranks += (np.array(paired.holm([paired.signed_rank_p(each) for each in d]))[:7] <= 0.05).sum()
    assert steps > 1.2 * ranks
