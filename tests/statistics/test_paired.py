"""Every statistic of paired differences against a second implementation or a case small enough to work by hand."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats
from scipy.optimize import minimize
from statsmodels.regression.mixed_linear_model import MixedLM
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


@pytest.mark.parametrize("m", [1, 2, 30])
def test_holm_is_statsmodels(m):
    rng = np.random.default_rng(m)
    p = np.minimum(rng.uniform(0, 0.2, m).round(2), 0.1)  # with ties; the largest are cut at 1
    assert paired.holm(p.tolist()) == multipletests(p, method="holm")[1].tolist()
    assert paired.holm([math.nan] * m + p.tolist())[m:] == multipletests(p, method="holm")[1].tolist()


def test_holm_of_nothing_known_is_nothing():
    assert paired.holm([]) == []
    assert all(math.isnan(p) for p in paired.holm([math.nan, math.nan]))


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


# Tests of the mean, and a mean of students that share teachers


def test_the_sign_flip_test_by_hand():
    # |mean| of 1, 2, 3: of the 8 signings only +++ and --- reach 2, so p = 2/8
    assert paired.sign_flip_p([1, 2, 3]) == 0.25
    # 3, 2, -1 has mean 4/3; as large or larger upwards: +++, ++- and, tied, none of -++ (4/3 - 2/3): 2 of 8, twice
    assert paired.sign_flip_p([3, 2, -1]) == 0.5


def test_the_sign_flip_test_agrees_with_enumeration():
    rng = np.random.default_rng(9)
    for n in (4, 7, 10):
        d = rng.normal(0.5, 1, n).round(1)  # ties and zeros occur
        sums = np.array([np.dot(signs, np.abs(d)) for signs in itertools.product([-1, 1], repeat=n)])
        seen = d.sum()
        one_sided = [(sums >= seen - 1e-9).mean(), (sums <= seen + 1e-9).mean()]
        assert paired.sign_flip_p(d) == pytest.approx(min(1, 2 * min(one_sided)))


def test_the_sign_flip_test_of_nothing():
    assert paired.sign_flip_p([0, 0, 0]) == 1
    assert math.isnan(paired.sign_flip_p([0.1]))
    assert paired.sign_flip_p(np.arange(1, 21)) == paired.sign_flip_p(np.arange(1, 21)), "random signs, fixed generator"


def test_equally_many_students_a_teacher_are_the_t_test_of_the_teachers_means():
    rng = np.random.default_rng(10)
    teachers = np.repeat(np.arange(6), 4)
    d = 0.03 + rng.normal(0, 0.02, 6)[teachers] + rng.normal(0, 0.01, 24)
    found = paired.mixed_estimate(d, teachers)
    means = d.reshape(6, 4).mean(axis=1)
    assert found.mean == pytest.approx(means.mean())
    assert found.se == pytest.approx(scipy_stats.sem(means), rel=1e-3) and found.df == 5
    assert paired.two_sided_p(found) == pytest.approx(scipy_stats.ttest_1samp(means, 0).pvalue, rel=1e-3)
    naive = paired.paired_t_p(d)
    assert paired.two_sided_p(found) > 3 * naive, "24 students of six teachers are no 24 pieces of evidence"


def test_a_mixed_model_of_unequal_numbers_maximises_the_restricted_likelihood():
    teachers = np.array([0, 0, 0, 0, 1, 1, 2, 2, 2, 3])
    d = np.array([1.0, 1.2, 0.9, 1.1, 2.0, 2.2, 0.1, 0.3, 0.2, 1.5])

    def minus_log_likelihood(logs):
        between, within = np.exp(logs)
        covariance = within * np.eye(10) + between * (teachers[:, None] == teachers[None])
        inverse = np.linalg.inv(covariance)
        information = inverse.sum()
        residual = d - inverse.sum(axis=0) @ d / information
        return (np.linalg.slogdet(covariance)[1] + math.log(information) + residual @ inverse @ residual) / 2

    between, within = np.exp(minimize(minus_log_likelihood, [0.0, -3.0], method="Nelder-Mead", tol=1e-10).x)
    inverse = np.linalg.inv(within * np.eye(10) + between * (teachers[:, None] == teachers[None]))
    found = paired.mixed_estimate(d, teachers)
    assert found.mean == pytest.approx(inverse.sum(axis=0) @ d / inverse.sum(), rel=1e-3)
    assert found.se == pytest.approx(inverse.sum() ** -0.5, rel=1e-3)


def test_teachers_of_one_student_each_are_no_groups_and_one_teacher_tells_nothing():
    assert paired.mixed_estimate(UP, range(10)) == paired.paired_estimate(UP)
    assert math.isnan(paired.two_sided_p(paired.mixed_estimate(UP, ["a"] * 10)))
    same = paired.mixed_estimate([0.1, 0.1, 0.2, 0.2], ["a", "a", "b", "b"])
    assert (same.mean, same.df) == (pytest.approx(0.15), 1) and same.se == pytest.approx(0.05)


def test_equivalence_with_the_corrected_error():
    # d = 1, 2, 3, 4: mean 2.5, variance of the mean (1/4 + 1/4) 5/3; within ±5: t = (5 - 2.5)/sqrt(5/6)
    estimate = paired.paired_estimate([1, 2, 3, 4], test_over_train=0.25)
    assert paired.equivalence_p(estimate, 5) == pytest.approx(scipy_stats.t.sf(2.5 / math.sqrt(5 / 6), 3))
    plain = paired.equivalence_p(paired.paired_estimate(UP), 0.02)
    assert plain == pytest.approx(ttost_paired(np.array(UP), np.zeros(10), -0.02, 0.02)[0])
    below = paired.paired_estimate([-up for up in UP])
    assert paired.equivalence_p(below, 0.02) == plain, "the margin has two sides"
    assert [paired.equivalence_p(paired.paired_estimate([d, d]), 0.2) for d in (0.3, 0.1, -0.1, -0.3)] == [1, 0, 0, 1]


def test_without_resamples_there_is_no_interval():
    assert all(map(math.isnan, paired.bca_interval(UP, resamples=0)))


def test_the_mixed_model_is_right_where_a_general_optimiser_is_not():
    # Singular for statsmodels 0.14; two teachers of five students: the t test of their means
    d = [-2.54, -8.96, -1.85, -10.45, 4.46, 4.81, -4.28, 0.97, -5.83, -13.4]
    found = paired.mixed_estimate(d, list("aaaaabbbbb"))
    assert found.mean == pytest.approx(np.mean(d)) and found.df == 1
    assert found.se >= scipy_stats.sem([np.mean(d[:5]), np.mean(d[5:])]) - 1e-9
    # no error for statsmodels: the teachers' variance is estimated as zero, and the error is that of all students
    even = [1.98, 1.6, 1.87, 2.14, 1.9, 2.27, 2.2, 1.97, 1.91, 1.8]
    flat = paired.mixed_estimate(even, list("aaaaaaabcd"))
    assert flat.mean == pytest.approx(np.mean(even)) and flat.se == pytest.approx(scipy_stats.sem(even))
    assert flat.df == 3 and paired.two_sided_p(flat) < 0.001


def test_the_mixed_model_agrees_with_statsmodels_where_that_converges():
    rng = np.random.default_rng(14)
    teachers = np.repeat(np.arange(8), [1, 2, 3, 4, 5, 6, 7, 8])
    for between in (0.5, 1.0, 3.0):
        d = 1 + rng.normal(0, between, 8)[teachers] + rng.normal(0, 1, teachers.size)
        fitted = MixedLM(d, np.ones_like(d), teachers).fit(reml=True)
        found = paired.mixed_estimate(d, teachers)
        assert found.mean == pytest.approx(fitted.fe_params[0], abs=1e-6)
        # the error at its variances; its own bse is of a numerical Hessian that mixes in that of the variances
        of_one = fitted.scale * np.eye(d.size) + fitted.cov_re[0, 0] * (teachers[:, None] == teachers)
        assert found.se == pytest.approx(np.linalg.inv(of_one).sum() ** -0.5, rel=1e-4)


# The best of several


def test_worse_than_the_best_by_hand():
    # two methods, three seeds: A is ahead by 1, 2, 3. Of the 8 flips, two have so large a t statistic: +++ and ---
    scores = np.array([[1.0, 0], [2, 0], [3, 0]])
    assert list(paired.worse_than_best_p(scores)) == [1, 0.25]


def test_worse_than_the_best_is_the_largest_t_of_all_pairs_under_joint_flips():
    rng = np.random.default_rng(15)
    x = rng.normal([0, 0.5, 1, 2], 1, (7, 4))
    pairs = list(itertools.combinations(range(4), 2))

    def t(signs):
        return [abs(scipy_stats.ttest_1samp(signs * (x[:, a] - x[:, b]), 0).statistic) for a, b in pairs]

    largest = [max(t(np.array(signs))) for signs in itertools.product([-1, 1], repeat=7)]
    seen, best = dict(zip(pairs, t(np.ones(7)), strict=True)), int(x.mean(axis=0).argmax())
    found = paired.worse_than_best_p(x)
    for method in set(range(4)) - {best}:
        expected = np.mean(np.array(largest) >= seen[tuple(sorted((method, best)))] - 1e-9)
        assert found[method] == pytest.approx(expected)
    assert found[best] == 1


def test_the_best_among_equals_and_with_many_seeds():
    same = np.tile(np.arange(10.0)[:, None], (1, 3))
    assert list(paired.worse_than_best_p(same)) == [1, 1, 1]
    many = np.random.default_rng(16).normal([0, 0, 1.5], 1, (40, 3))
    assert paired.worse_than_best_p(many)[:2].max() < 0.01 and paired.worse_than_best_p(many)[2] == 1


def test_differences_that_do_not_vary_have_the_smallest_p_there_is():
    noise = np.random.default_rng(17).normal(0, 0.01, (10, 1))
    scores = np.tile([0.8, 0.7, 0.6, 0.7], (10, 1)) + noise
    assert list(paired.worse_than_best_p(scores)) == [1, 2 / 1024, 2 / 1024, 2 / 1024]
    assert list(paired.worse_than_best_p(scores[:, :1])) == [1]


def test_students_that_are_all_but_equal_are_their_teachers():
    base, teachers = [0.02] * 4 + [0.05] * 4 + [0.04] * 4, np.repeat([0, 1, 2], 4)
    of_means = scipy_stats.sem([0.02, 0.05, 0.04])
    for nearly in (0, 1e-9, 1e-7, 1e-6, 1e-5):
        d = np.array(base)
        d[0] += nearly
        assert paired.mixed_estimate(d, teachers).se == pytest.approx(of_means, rel=1e-3)
