"""Every statistic of paired differences against a second implementation or a case small enough to work by hand."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

from distillbench.statistics import paired

from .conftest import UP

# The signed-rank test


def test_ten_positive_differences_have_the_smallest_p_there_is():
    assert paired.signed_rank_p(UP) == 2 / 1024


@pytest.mark.parametrize("n, p", [(5, 0.0625), (6, 0.03125), (8, 0.0078125)])
def test_smallest_p_for_few_seeds(n, p):
    assert paired.signed_rank_p(UP[:n]) == p


def test_ties_by_hand():
    # |d| = 1, 1, 2 have ranks 1.5, 1.5, 3; W+ = 4.5. Of the 8 signings, W+ is 0, 1.5, 1.5, 3, 3, 4.5, 4.5, 6:
    # three have W+ >= 4.5, so p = 2 * 3/8.
    assert paired.signed_rank_p([1, -1, 2]) == 0.75
    # 1, 1, 1, 2 have ranks 2, 2, 2, 4; W+ = 8, which 4 of the 16 signings reach (the 4 with at least two of the 2s)
    assert paired.signed_rank_p([1, 1, -1, 2]) == 0.5


def test_zeros_are_dropped_and_nothing_but_zeros_is_no_evidence():
    assert paired.signed_rank_p([0, 0, *UP[:6]]) == paired.signed_rank_p(UP[:6])
    assert paired.signed_rank_p(np.zeros(10)) == 1.0


def test_agrees_with_enumeration_of_all_signs_under_ties_and_zeros():
    rng = np.random.default_rng(7)
    for n in [1, 2, 5, 8, 10] * 4:
        d = rng.integers(-3, 5, n).astype(float)
        nonzero = d[d != 0]
        ranks = scipy_stats.rankdata(abs(nonzero))
        sums = np.array([ranks[list(map(bool, s))].sum() for s in itertools.product([0, 1], repeat=len(ranks))])
        seen = ranks[nonzero > 0].sum()
        expected = min(1.0, 2 * min((sums <= seen).mean(), (sums >= seen).mean()))
        assert paired.signed_rank_p(d) == pytest.approx(expected, abs=1e-12)


def test_agrees_with_scipy_where_scipy_is_exact():
    rng = np.random.default_rng(8)
    for n in (6, 10, 25, 40):  # no ties: scipy's own distribution
        d = rng.normal(0.3, 1, n)
        assert paired.signed_rank_p(d) == pytest.approx(scipy_stats.wilcoxon(d, method="exact").pvalue, rel=1e-9)
    d = np.array([1, 1, -1, 2, 3, 3, 0, 2.0])  # ties and a zero: scipy enumerates
    by_scipy = scipy_stats.wilcoxon(d, method=scipy_stats.PermutationMethod(n_resamples=np.inf))
    assert paired.signed_rank_p(d) == pytest.approx(by_scipy.pvalue, abs=1e-12)


def test_equal_differences_tie_although_their_floats_differ():
    a, b = pd.Series([3 / 1447, 103 / 1447, 0.0]), pd.Series([2 / 1447, 102 / 1447, 1 / 1447])
    assert len(set(np.abs(a - b))) > 1, "the case is not about rounding"
    assert len(set(np.abs(paired.paired_differences(a, b)))) == 1


# The other statistics


def test_holm_by_hand():
    # sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1 = 0.04, 0.06, 0.06, 0.04, then made non-decreasing
    assert paired.holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    adjusted = paired.holm([0.04, math.nan, 0.01])
    assert adjusted[::2] == pytest.approx([0.04, 0.02]) and math.isnan(adjusted[1])


@pytest.mark.parametrize("m", [1, 2, 30])
def test_holm_is_statsmodels(m):
    rng = np.random.default_rng(m)
    p = np.minimum(rng.uniform(0, 0.2, m).round(2), 0.1)  # with ties; the largest are cut at 1
    assert paired.holm(p.tolist()) == multipletests(p, method="holm")[1].tolist()
    assert paired.holm([math.nan] * m + p.tolist())[m:] == multipletests(p, method="holm")[1].tolist()


def test_holm_of_nothing_known_is_nothing():
    assert paired.holm([]) == []
    assert all(math.isnan(p) for p in paired.holm([math.nan, math.nan]))


def test_the_t_interval_and_equivalence_are_scipys_and_statsmodels():
    estimate = paired.paired_estimate(UP)
    assert estimate == pytest.approx((np.mean(UP), scipy_stats.sem(UP), 9))
    assert paired.t_interval(estimate) == pytest.approx(
        scipy_stats.t.interval(0.95, 9, np.mean(UP), scipy_stats.sem(UP))
    )
    plain = paired.equivalence_p(estimate, 0.02)
    assert plain == pytest.approx(ttost_paired(np.array(UP), np.zeros(10), -0.02, 0.02)[0])
    below = paired.paired_estimate([-up for up in UP])
    assert paired.equivalence_p(below, 0.02) == plain, "the margin has two sides"
    assert [paired.equivalence_p(paired.paired_estimate([d, d]), 0.2) for d in (0.3, 0.1, -0.1, -0.3)] == [1, 0, 0, 1]
    assert all(map(math.isnan, paired.t_interval(paired.paired_estimate([0.1]))))


def test_the_margin_of_a_data_set_and_a_pair():
    given = {"ppi": 0.002, "digits": {"gat": 0.005}}
    places = [("ppi", "gat"), ("digits", "gat"), ("digits", "mlp"), ("cora", "gcn")]
    assert [paired.margin(given, *place) for place in places] == [0.002, 0.005, 0.01, 0.01]
    assert paired.margin(0.02, "cora", "gcn") == 0.02
    with pytest.raises(ValueError, match=r"delta: -0\.1 is not a margin"):
        paired.margin({"cora": -0.1}, "cora", "gcn")


# Step-down max-|t|


def test_one_method_is_the_sign_flip_test():
    # |t| of 1, 2, 3: of the 8 signings only +++ and --- are as large, so p = 2/8
    assert list(paired.step_down_p([1, 2, 3])) == [0.25]
    random = np.random.default_rng(9)
    for n in (4, 7, 10):
        d = random.normal(0.5, 1, n).round(1)  # ties and zeros occur
        sums = [abs(np.dot(signs, d)) for signs in itertools.product([-1, 1], repeat=n)]
        assert paired.step_down_p(d)[0] == pytest.approx(np.mean(np.array(sums) >= abs(d.sum()) - 1e-9))


def test_step_down_is_the_largest_t_of_those_that_are_left_under_joint_flips():
    random = np.random.default_rng(15)
    d = random.normal([[0], [0.5], [1], [2]], 1, (4, 7))
    flips = [np.array(signs) for signs in itertools.product([-1, 1], repeat=7)]
    t = np.array([[abs(scipy_stats.ttest_1samp(signs * each, 0).statistic) for each in d] for signs in flips])
    seen = np.array([abs(scipy_stats.ttest_1samp(each, 0).statistic) for each in d])
    order, expected, before = np.argsort(-seen), np.zeros(4), 0.0
    for place, j in enumerate(order):
        before = max(before, np.mean(t[:, order[place:]].max(axis=1) >= seen[j] - 1e-9))
        expected[j] = before
    assert paired.step_down_p(d) == pytest.approx(expected)


def test_seeds_that_a_method_lacks_are_left_out_of_its_t():
    nan = math.nan
    d = np.array([[1.2, 1.5, nan, nan, 0.7, 0.2], [0.9, 2.1, 0.3, 0.2, 1.3, 1.2], [0.4, -0.6, 0.3, 1.0, -1.0, -0.2]])

    def t(signs):
        return [abs(scipy_stats.ttest_1samp((signs * each)[~np.isnan(each)], 0).statistic) for each in d]

    flipped = np.array([t(np.array(signs)) for signs in itertools.product([-1, 1], repeat=6)])
    seen = t(np.ones(6))
    assert seen[1] > seen[0] > seen[2]
    expected = [np.mean(flipped[:, which].max(axis=1) >= seen[which[0]] - 1e-9) for which in ([0, 2], [1, 0, 2], [2])]
    assert expected[0] == 0.15625, "with zeros for what is missing it would be 0.21875"
    assert paired.step_down_p(d) == pytest.approx(expected)


def test_the_smallest_p_does_not_depend_on_the_number_of_methods():
    random = np.random.default_rng(1)
    clear = 5 + random.standard_normal((30, 6)) * 0.1
    assert paired.step_down_p(clear).min() == 2 / 2**6
    shared = np.tile(np.linspace(0.9, 1.1, 6), (30, 1))
    assert list(paired.step_down_p(shared)) == [2 / 2**6] * 30


def test_differences_that_are_zero_or_do_not_vary_and_no_differences():
    assert list(paired.step_down_p([[0, 0, 0], [0.1, 0.1, 0.1]])) == [1, 0.25]
    assert math.isnan(paired.step_down_p(np.empty((1, 0)))[0])
    assert paired.step_down_p(np.empty((0, 5))).size == 0


def test_many_seeds_are_flipped_at_random_the_same_each_time():
    d = np.random.default_rng(16).normal([[0], [1.5]], 1, (2, 40))
    first = paired.step_down_p(d)
    assert first[1] == 1 / 10_000 and first[0] > 0.05
    assert list(paired.step_down_p(d)) == list(first)


def test_step_down_keeps_5_percent_of_the_families():
    """Eight methods without any effect beside two baselines, ten seeds, metrics of 500 test nodes: ties occur."""
    random, times, wrong = np.random.default_rng(0), 1500, 0
    for _ in range(times):
        base = random.normal(0.8, 0.01, (2, 1, 10))
        scores = np.round((base + random.normal(0, 0.006, (2, 5, 10))) * 500) / 500
        wrong += bool((paired.step_down_p((scores[:, 1:] - scores[:, :1]).reshape(8, 10)) <= 0.05).any())
    error = math.sqrt(0.05 * 0.95 / times)
    assert 0.05 - 4 * error < wrong / times < 0.05 + 2.5 * error, "an exact test, but for ties"
