"""Every statistic of paired differences against a second implementation or a case small enough to work by hand."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from distillbench import paired

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


def test_rank_biserial_by_hand():
    assert paired.rank_biserial([3, -1, 2, -4]) == 0  # W+ = 3 + 2, W- = 1 + 4
    assert paired.rank_biserial([3, -1, 2]) == pytest.approx(4 / 6)  # W+ = 5, W- = 1
    assert paired.rank_biserial([1, -1, 2, 0]) == pytest.approx(0.5)  # ranks 1.5, 1.5, 3; the zero dropped
    assert paired.rank_biserial(UP) == 1
    assert paired.rank_biserial([0, 0]) == 0


def test_share_improved_counts_ties_half():
    assert paired.share_improved([1, 2, -1, 0]) == 2.5 / 4


def test_holm_by_hand():
    # sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1 = 0.04, 0.06, 0.06, 0.04, then made non-decreasing
    assert paired.holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    adjusted = paired.holm([0.04, math.nan, 0.01])
    assert adjusted[::2] == pytest.approx([0.04, 0.02]) and math.isnan(adjusted[1])


def test_paired_t_is_scipys():
    assert paired.paired_t_p(UP) == pytest.approx(scipy_stats.ttest_1samp(UP, 0).pvalue, rel=1e-9)


def test_nadeau_bengio_by_hand():
    # d = 1, 2, 3, 4: mean 2.5, s² = 5/3; with n_test/n_train = 1/4 the variance of the mean is (1/4 + 1/4) 5/3 = 5/6
    t = 2.5 / math.sqrt(5 / 6)
    assert paired.paired_t_p([1, 2, 3, 4], test_over_train=0.25) == pytest.approx(2 * scipy_stats.t.sf(t, 3), rel=1e-12)
    # t distribution with 3 degrees of freedom in closed form
    angle = math.atan(t / math.sqrt(3))
    by_hand = 1 - 2 / math.pi * (angle + math.sin(angle) * math.cos(angle))
    assert paired.paired_t_p([1, 2, 3, 4], test_over_train=0.25) == pytest.approx(by_hand, rel=1e-9)


def test_differences_without_variance_need_no_division():
    assert paired.paired_t_p([0, 0, 0]) == 1
    assert paired.paired_t_p([0.1, 0.1, 0.1]) == 0
    assert math.isnan(paired.paired_t_p([0.1]))
    assert paired.bca_interval([0.1, 0.1]) == (0.1, 0.1)
    assert all(map(math.isnan, paired.bca_interval([0.1])))


def test_bca_is_scipys_and_repeats():
    expected = scipy_stats.bootstrap((UP,), np.mean, method="BCa", n_resamples=9999, rng=np.random.default_rng(0))
    assert paired.bca_interval(UP) == tuple(expected.confidence_interval)
    assert paired.bca_interval(UP) == paired.bca_interval(UP)
