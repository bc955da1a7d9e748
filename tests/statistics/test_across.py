"""Across cells: Friedman, Nemenyi, and estimates under resampling of seeds."""

import math

import numpy as np
import pandas as pd
import pytest
import scikit_posthocs
from scipy import stats
from statsmodels.stats.multitest import multipletests

from distillbench.statistics import across

from .conftest import BASE, UP, runs_of, shifted


def over_cells(scores, **kw):
    """``scores`` [cells] of method → test metrics per seed, as runs in data sets d0, d1, …"""
    return pd.concat([runs_of(of_cell, dataset=f"d{n}", **kw) for n, of_cell in enumerate(scores)], ignore_index=True)


def simulated(cells=8, seeds=10, methods=("supervised", "kd", "at", "lsp"), step=0.01, *, seed=0):
    """Methods whose effects are ``step`` apart, the last the best, on data sets of unlike difficulty."""
    random = np.random.default_rng(seed)
    return [
        {
            name: (level + k * step + shared + random.normal(0, 0.01, seeds)).round(4).tolist()
            for k, name in enumerate(methods)
        }
        for level, shared in ((random.uniform(0.5, 0.8), random.normal(0, 0.02, seeds)) for _ in range(cells))
    ]


def row(found, method):
    (only,) = found.table[found.table["method"] == method].to_dict("records")
    return only


def means_of(scores):
    return np.array([[np.mean(values) for values in of_cell.values()] for of_cell in scores]).round(12)


def test_too_few_cells_are_said_to_be_too_few():
    found = across.across_cells(runs_of({"supervised": BASE, "kd": BASE, "at": BASE}))
    assert found.cells == 1 and math.isnan(found.p) and math.isnan(found.statistic)
    assert "at least 6 cells (data set × pair) and 3 methods are needed; here are 1 and 3." in found.sentence
    assert found.table.empty and list(found.table) == across.ACROSS_COLUMNS and found.nemenyi.empty


def test_two_methods_are_too_few_and_the_teacher_is_none():
    found = across.across_cells(over_cells([{"teacher": BASE, "supervised": BASE, "kd": shifted(UP)}] * 6))
    assert found.methods == ("supervised", "kd") and "here are 6 and 2." in found.sentence and found.table.empty


def test_where_nothing_finished_there_are_no_cells():
    broken = {(method, seed): ("oom", "") for method in ("supervised", "kd", "at") for seed in range(2)}
    found = across.across_cells(over_cells([{"supervised": [0, 0], "kd": [0, 0], "at": [0, 0]}] * 6, broken=broken))
    assert (found.cells, found.methods, found.left_out) == (0, (), ("supervised", "kd", "at"))
    assert "here are 0 and 0. Left out, without a finished run in some cell: supervised, kd, at." in found.sentence


def test_friedman_counts_two_libraries_on_one_data_set_once():
    order = [{"supervised": [0.7], "kd": [0.8], "at": [0.75]}] * 5 + [{"supervised": [0.7], "kd": [0.75], "at": [0.8]}]
    runs = pd.concat([over_cells(order, backend=name) for name in ("pyg", "dgl")])
    found = across.across_cells(runs, resamples=10)
    # ranks sum to 6, 17, 13 over 6 cells of 3 methods: χ² = 12/(6·3·4) (36 + 289 + 169) - 3·6·4 = 10.33, 2 degrees
    assert found.cells == 6 and found.statistic == pytest.approx(12 / 72 * 494 - 72)
    assert found.p == pytest.approx(math.exp(-found.statistic / 2))
    assert "differ" in found.sentence
    # best is rank 1 here: mean ranks are 3, 7/6, 11/6
    assert found.table.set_index("method")["mean_rank"].to_dict() == pytest.approx(
        {"kd": 7 / 6, "at": 11 / 6, "supervised": 3}
    )
    assert list(found.table["method"]) == ["kd", "at", "supervised"]


def test_the_score_of_a_cell_is_the_mean_over_the_libraries():
    pyg = [{"supervised": [0.7], "kd": [0.8], "at": [0.75]}] * 6
    dgl = [{"supervised": [0.7], "kd": [0.6], "at": [0.75]}] * 6
    runs = pd.concat([over_cells(pyg, backend="pyg"), over_cells(dgl, backend="dgl")])
    found = across.across_cells(runs, resamples=10)
    # means are 0.7, 0.7 and 0.75: kd is first with one library, last with the other
    ranks = found.table.set_index("method")["mean_rank"].to_dict()
    assert found.cells == 6 and ranks == {"at": 1, "supervised": 2.5, "kd": 2.5}


def test_ranks_and_friedman_agree_with_scipy_where_methods_tie():
    scores = simulated(cells=7)
    for of_cell in scores[:3]:
        of_cell["at"] = of_cell["kd"][::-1]  # the same mean from other seeds
    found = across.across_cells(over_cells(scores), resamples=10)
    means = means_of(scores)
    assert (found.statistic, found.p) == pytest.approx(stats.friedmanchisquare(*means.T))
    ranks = stats.rankdata(-means, axis=1).mean(axis=0)
    assert [row(found, method)["mean_rank"] for method in scores[0]] == pytest.approx(list(ranks))


def test_pairwise_p_are_nemenyis_and_the_exact_signed_rank_tests_with_holm():
    scores = simulated(step=0.02)
    found = across.across_cells(over_cells(scores), resamples=10)
    methods, means = list(scores[0]), means_of(scores)
    assert found.p < 0.05
    long = pd.DataFrame(means, columns=methods).melt(ignore_index=False, var_name="m", value_name="y").reset_index()
    nemenyi = scikit_posthocs.posthoc_nemenyi_friedman(
        long, y_col="y", group_col="m", block_col="index", block_id_col="index", melted=True
    )
    np.testing.assert_allclose(found.nemenyi.loc[methods, methods], nemenyi.loc[methods, methods], atol=1e-9)
    pairs = [(a, b) for k, a in enumerate(methods) for b in methods[k + 1 :]]
    p = [
        stats.wilcoxon(means[:, methods.index(a)], means[:, methods.index(b)], method="exact").pvalue for a, b in pairs
    ]
    assert [found.wilcoxon.loc[a, b] for a, b in pairs] == pytest.approx(list(multipletests(p, method="holm")[1]))
    assert [found.wilcoxon.loc[b, a] for a, b in pairs] == [found.wilcoxon.loc[a, b] for a, b in pairs]
    for method in ("kd", "at", "lsp"):
        assert row(found, method)["p_nemenyi"] == found.nemenyi.loc[method, "supervised"]
        assert row(found, method)["p_wilcoxon_holm"] == found.wilcoxon.loc[method, "supervised"]
    assert math.isnan(row(found, "supervised")["p_nemenyi"]) and math.isnan(row(found, "supervised")["p_improve"])


def test_the_critical_difference_is_that_of_demsars_table():
    # Demšar 2006, table 5(a): q at 0.05 is 2.569 for 4 methods, 3.164 for 10; section 3.2.3: 14 data sets, CD 1.25
    assert across.critical_difference(4, 14, 0.05) == pytest.approx(1.25, abs=0.005)
    assert across.critical_difference(10, 30, 0.05) == pytest.approx(3.164 * math.sqrt(110 / 180), abs=0.001)


def test_no_pairs_are_tested_unless_friedman_rejects():
    found = across.across_cells(over_cells(simulated(step=0.0, seed=5)), resamples=10)
    assert found.p > 0.05 and found.nemenyi.empty and found.wilcoxon.empty
    assert "are not shown to differ" in found.sentence and "Nemenyi" not in found.sentence
    assert found.table["p_nemenyi"].isna().all() and found.table["iqm"].notna().all()


def test_identical_runs_tie_in_everything():
    found = across.across_cells(over_cells([{"supervised": BASE, "kd": BASE, "at": BASE}] * 6), resamples=50)
    assert (found.statistic, found.p) == (0, 1)
    assert (found.table[["mean_rank", "rank_low", "rank_high"]] == 2).all(axis=None)
    assert found.table["first"].tolist() == pytest.approx([1 / 3] * 3)
    assert [row(found, m)["p_improve"] for m in ("kd", "at")] == [0.5, 0.5]


def test_iqm_and_improvement_are_those_of_their_definitions():
    scores = simulated(cells=6, seeds=7)
    found = across.across_cells(over_cells(scores), resamples=10)
    for method in ("kd", "at", "lsp"):
        pooled = np.concatenate([of_cell[method] for of_cell in scores])
        assert row(found, method)["iqm"] == pytest.approx(stats.trim_mean(pooled, 0.25))
        above = [
            np.mean([(x > y) + (x == y) / 2 for x in of_cell[method] for y in of_cell["supervised"]])
            for of_cell in scores
        ]
        assert row(found, method)["p_improve"] == pytest.approx(np.mean(above))
        u = [stats.mannwhitneyu(of_cell[method], of_cell["supervised"]).statistic / 49 for of_cell in scores]
        assert row(found, method)["p_improve"] == pytest.approx(np.mean(u))


def test_improvement_over_any_seed_is_not_that_over_the_same_seed():
    cell = {"supervised": [0.5, 0.6, 0.7], "kd": [0.51, 0.61, 0.71], "at": [0.5, 0.6, 0.7]}
    found = across.across_cells(over_cells([cell] * 6), resamples=10)
    # every seed is improved on by kd, but of the 9 pairs (x, y) only 3 + 2 + 1 have x > y
    assert row(found, "kd")["p_improve"] == pytest.approx(6 / 9)
    assert row(found, "at")["p_improve"] == pytest.approx((3 + 3 / 2) / 9)


def test_intervals_are_those_of_a_bootstrap_written_as_a_loop():
    scores = simulated(cells=6, seeds=5, seed=3)
    found = across.across_cells(over_cells(scores), resamples=4000)
    random = np.random.default_rng(99)
    ranks, iqm, improved = [], [], []
    for _ in range(1000):
        drawn = []
        for of_cell in scores:
            seeds = random.integers(0, 5, 5)
            drawn.append({method: np.array(values)[seeds] for method, values in of_cell.items()})
        ranks.append(stats.rankdata(-means_of(drawn), axis=1).mean(axis=0))
        iqm.append(stats.trim_mean(np.concatenate([of_cell["kd"] for of_cell in drawn]), 0.25))
        improved.append(np.mean([np.heaviside(np.subtract.outer(c["kd"], c["supervised"]), 0.5).mean() for c in drawn]))
    kd = row(found, "kd")
    ranks = np.array(ranks)
    for name, draws in (("rank", ranks[:, 1]), ("iqm", iqm), ("p_improve", improved)):
        # the ends of two bootstraps: within a tenth of the interval, or one step of a mean rank
        low, high = np.percentile(draws, [2.5, 97.5])
        near = max(0.1 * (high - low), 1 / 6 + 1e-9 if name == "rank" else 0)
        assert (kd[f"{name}_low"], kd[f"{name}_high"]) == pytest.approx((low, high), abs=near)
    best = (ranks == ranks.min(axis=1, keepdims=True)) / (ranks == ranks.min(axis=1, keepdims=True)).sum(
        axis=1, keepdims=True
    )
    assert [row(found, m)["first"] for m in scores[0]] == pytest.approx(list(best.mean(axis=0)), abs=0.04)
    assert found.table["first"].sum() == pytest.approx(1)


def test_seeds_are_resampled_together_so_that_a_constant_gain_is_always_first():
    shared = np.random.default_rng(0).normal(0, 0.1, 10)  # seeds differ far more than methods do
    cell = {"supervised": 0.6 + shared, "kd": 0.61 + shared, "at": 0.605 + shared}
    found = across.across_cells(over_cells([{k: list(v) for k, v in cell.items()}] * 6), resamples=200)
    kd = row(found, "kd")
    assert (kd["mean_rank"], kd["rank_low"], kd["rank_high"], kd["first"]) == (1, 1, 1, 1)
    assert kd["iqm_high"] - kd["iqm_low"] > 0.02
    assert "kd has the lowest mean rank, 1.00" in found.sentence and "first in 100% of the resamples" in found.sentence


def test_a_failed_seed_is_left_out_of_its_method_alone():
    scores = simulated(cells=6, seeds=5)
    found = across.across_cells(over_cells(scores, broken={("kd", 2): ("diverged", "loss is NaN")}), resamples=200)
    for of_cell in scores:
        del of_cell["kd"][2]
    means = means_of(scores)
    assert found.statistic == pytest.approx(stats.friedmanchisquare(*means.T).statistic)
    pooled = np.concatenate([of_cell["kd"] for of_cell in scores])
    kd = row(found, "kd")
    assert kd["iqm"] == pytest.approx(stats.trim_mean(pooled, 0.25)) and found.left_out == ()
    assert kd["p_improve"] == pytest.approx(
        np.mean([stats.mannwhitneyu(c["kd"], c["supervised"]).statistic / 20 for c in scores])
    )
    assert kd["iqm_low"] < kd["iqm"] < kd["iqm_high"]


def test_one_finished_seed_stands_in_for_resamples_that_have_none():
    broken = {("kd", seed): ("oom", "") for seed in range(1, 5)}
    scores = simulated(cells=6, seeds=5)
    found = across.across_cells(over_cells(scores, broken=broken), resamples=200)
    kd = row(found, "kd")
    lone = stats.trim_mean([of_cell["kd"][0] for of_cell in scores], 0.25)
    estimates = found.table.loc[:, "mean_rank":"iqm_high"].to_numpy(float)
    assert estimates.size and np.isfinite(estimates).all()
    assert kd["iqm"] == pytest.approx(lone) and np.isfinite([kd["iqm_low"], kd["rank_low"], kd["p_improve_high"]]).all()


def test_methods_lacking_in_a_cell_are_left_out_and_named():
    scores = simulated(cells=6, seeds=3, methods=("supervised", "kd", "at", "lsp", "glnn"))
    del scores[4]["glnn"]
    runs = over_cells(scores)
    lost = (runs["dataset"] == "d2") & (runs["method"] == "at")
    runs.loc[lost, ["status", "test"]] = ["oom", math.nan]
    found = across.across_cells(runs, resamples=10)
    assert found.methods == ("supervised", "kd", "lsp") and found.left_out == ("at", "glnn") and found.cells == 6
    assert found.sentence.endswith("Left out, without a finished run in some cell: at, glnn.")


def test_without_the_baseline_in_some_cell_nothing_is_said_against_it():
    scores = simulated(cells=6, methods=("kd", "at", "lsp", "supervised"), step=0.05)
    del scores[1]["supervised"]
    found = across.across_cells(over_cells(scores), resamples=10)
    assert found.left_out == ("supervised",) and found.p < 0.05
    assert found.table[["p_improve", "p_improve_low", "p_nemenyi"]].isna().all(axis=None)
    assert found.table["iqm"].notna().all() and "By Nemenyi's test," not in found.sentence


def test_the_baseline_may_be_any_method_also_the_teacher():
    scores = simulated(cells=6, methods=("supervised", "kd", "at", "teacher"))
    against = across.across_cells(over_cells(scores), baseline="teacher", resamples=10)
    assert "teacher" not in against.methods
    expected = np.mean([stats.mannwhitneyu(c["kd"], c["teacher"]).statistic / 100 for c in scores])
    assert row(against, "kd")["p_improve"] == pytest.approx(expected)
    assert math.isnan(row(across.across_cells(over_cells(scores), baseline="kd", resamples=10), "kd")["p_improve"])
    with pytest.raises(ValueError, match="did you mean 'kd'"):
        across.across_cells(over_cells(scores), baseline="kdd")


def test_the_sentence_counts_the_pairs_and_says_what_so_few_cells_cannot_show():
    methods = ("supervised", "kd", "at", "lsp", "sp", "crd")
    found = across.across_cells(over_cells(simulated(cells=8, methods=methods, step=0.03)), resamples=50)
    told = int((np.triu(found.nemenyi.to_numpy() <= 0.05, 1)).sum())
    assert f"Of 15 pairs, Nemenyi's test tells {told} apart" in found.sentence and 0 < told < 15
    assert "(whose p cannot be below 0.12 with 8 cells)" in found.sentence  # 15 · 2 / 2^8
    ahead = [m for m in found.table["method"] if m != "supervised" and found.nemenyi.loc[m, "supervised"] <= 0.05]
    assert f"By Nemenyi's test, ahead of supervised: {', '.join(ahead)}." in found.sentence


def test_equal_runs_give_equal_results_and_their_order_plays_no_part():
    runs = over_cells(simulated(cells=6, seeds=4))
    one, same = across.across_cells(runs, resamples=100), across.across_cells(runs.copy(), resamples=100)
    pd.testing.assert_frame_equal(one.table, same.table)
    assert one.sentence == same.sentence
    shuffled = across.across_cells(runs.sample(frac=1, random_state=0), resamples=100)
    exact = ["mean_rank", "iqm", "p_improve"]
    for method in one.methods:
        assert [row(shuffled, method)[c] for c in exact] == pytest.approx(
            [row(one, method)[c] for c in exact], nan_ok=True
        )


def test_ten_thousand_runs():
    methods = ("supervised", *(f"m{k}" for k in range(49)))
    runs = over_cells(simulated(cells=10, seeds=20, methods=methods, step=0.001))
    found = across.across_cells(runs)
    assert len(runs) == 10_000 and len(found.table) == 50
