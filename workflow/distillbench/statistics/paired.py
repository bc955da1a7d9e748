"""Tests and effect sizes of paired differences: what can be said of n numbers, one a seed. Imports no torch."""

import math
from collections.abc import Sequence
from typing import NamedTuple, cast

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.optimize import minimize_scalar

ALPHA = 0.05
DELTA = 0.01  # margin of equivalence, a fraction
RESAMPLES = 9999


class Interval(NamedTuple):
    """Lower and upper end, in the unit of the values; NaN where it cannot be computed."""

    low: float
    high: float


def paired_differences(a: pd.Series, b: pd.Series) -> NDArray[np.float64]:
    """a - b [n_pairs] over the index values (seeds) that both have, rounded to 12 decimals.

    Metrics are counts over counts; without the rounding two equal differences (one node more, twice) differ in the last
    bit of their floats, and a tie would be ranked as if it were none.
    """
    seeds = a.index.intersection(b.index)
    differences: NDArray[np.float64] = a.loc[seeds].to_numpy(float) - b.loc[seeds].to_numpy(float)
    return differences.round(12)


def bca_interval(values: ArrayLike, *, confidence: float = 0.95, resamples: int = RESAMPLES) -> Interval:
    """Bias-corrected and accelerated bootstrap interval of the mean of ``values`` [n].

    Efron, JASA 1987; computed by scipy with a fixed generator, so that the same runs give the same interval. With few
    seeds it is somewhat narrow: on normal data with n = 10 it covers the mean in about 90% of the cases, not 95%.
    One value has no interval (NaN), nor has anything without ``resamples``; equal values have one of length zero.
    """
    x = np.asarray(values, float)
    if x.size < 2 or not resamples:
        return Interval(math.nan, math.nan)
    if np.ptp(x) == 0:
        return Interval(float(x[0]), float(x[0]))
    found = stats.bootstrap(
        (x,), np.mean, confidence_level=confidence, n_resamples=resamples, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    return Interval(float(found.low), float(found.high))


def signed_rank_p(differences: ArrayLike) -> float:
    """Exact two-sided p of Wilcoxon's signed-rank test for ``differences`` [n], correct with ties and zeros at any n.

    Wilcoxon, Biometrics Bulletin 1945: zeros are dropped, ties share their mid-rank. Given the ranks, all 2^n signs are
    equally likely under the null; the distribution of the positive rank sum is built by convolution, one rank at a
    time, which is the enumeration without listing it. Not ``scipy.stats.wilcoxon``: its exact distribution assumes
    untied ranks, and with ties it falls back, above n = 13, on the normal approximation. All zero: p = 1.
    """
    d = np.asarray(differences, float)
    d = d[d != 0]
    if d.size == 0:
        return 1.0
    doubled = np.rint(2 * stats.rankdata(np.abs(d))).astype(int)  # mid-ranks are halves
    chance = np.ones(1)
    for rank in doubled:
        grown = np.zeros(chance.size + rank)
        grown[: chance.size] += chance / 2
        grown[rank:] += chance / 2
        chance = grown
    positive = int(doubled[d > 0].sum())
    return float(min(1.0, 2 * min(chance[: positive + 1].sum(), chance[positive:].sum())))


def rank_biserial(differences: ArrayLike) -> float:
    """Matched-pairs rank-biserial correlation of ``differences`` [n], in [-1, 1]; 0 where all are zero.

    (W+ - W-) / (W+ + W-) with the rank sums of the signed-rank test, zeros dropped. Kerby, Compr. Psychol. 2014.
    """
    d = np.asarray(differences, float)
    d = d[d != 0]
    if d.size == 0:
        return 0.0
    ranks = stats.rankdata(np.abs(d))
    return float((ranks * np.sign(d)).sum() / ranks.sum())


def share_improved(differences: ArrayLike) -> float:
    """Share of ``differences`` [n] above zero, a zero counting half."""
    d = np.asarray(differences, float)
    return float((d > 0).mean() + (d == 0).mean() / 2)


def sign_flip_p(differences: ArrayLike, *, resamples: int = RESAMPLES) -> float:
    """Two-sided p of the sign-flip permutation test of the mean of ``differences`` [n], by scipy.

    Fisher (The Design of Experiments, 1935, section 21): if nothing but chance tells the two apart, every difference is
    as likely with the other sign. Exact, over all 2^n signs, up to n = 13; above, over ``resamples`` random ones from a
    fixed generator. Unlike ``signed_rank_p`` it weighs differences by their size. All zero: p = 1; n < 2: NaN.
    """
    d = np.asarray(differences, float)
    if d.size < 2:
        return math.nan
    found = stats.permutation_test(
        (d,), np.mean, permutation_type="samples", n_resamples=resamples, rng=np.random.default_rng(0)
    )
    return float(found.pvalue)


class Estimate(NamedTuple):
    """A mean of differences, its standard error and the degrees of freedom of its t statistic."""

    mean: float
    se: float
    df: float


def paired_estimate(differences: ArrayLike, *, test_over_train: float = 0.0) -> Estimate:
    """Mean of ``differences`` [n] with n - 1 degrees of freedom; the error is NaN for n < 2 or where the ratio is NaN.

    With ``test_over_train`` = n_test / n_train the error is the corrected one of Nadeau and Bengio (Machine Learning
    2003, section 3): the variance of the mean is (1/n + n_test/n_train) s², because re-drawn splits of one data set
    overlap.
    """
    d = np.asarray(differences, float)
    if d.size < 2:
        return Estimate(float(d.mean()) if d.size else math.nan, math.nan, 0)
    variance = 0.0 if np.ptp(d) == 0 else float(d.var(ddof=1))
    return Estimate(float(d.mean()), math.sqrt((1 / d.size + test_over_train) * variance), d.size - 1)


def mixed_estimate(differences: ArrayLike, teachers: ArrayLike) -> Estimate:
    """Mean of ``differences`` [n] whose students share ``teachers`` [n] (labels): a mixed model.

    d_i = μ + u_teacher(i) + e_i with a random effect of the teacher, by restricted maximum likelihood (Laird and Ware,
    Biometrics 1982). Students of one teacher are not independent, so n students are worth less than n seeds; the
    degrees of freedom are the teachers' less one, which with equally many students each is the t test of the teachers'
    means, and is conservative where teachers do not matter. One teacher: the error is NaN, since nothing is known of
    other teachers.

    With one random effect the likelihood depends on a single number, the ratio of the two variances, so that it is
    minimised here and not by statsmodels, whose general optimiser ends in a singular matrix or without an error where
    that ratio is zero.
    """
    d, (labels, groups) = np.asarray(differences, float), np.unique(np.asarray(teachers), return_inverse=True)
    size = np.bincount(groups)
    means = np.bincount(groups, weights=d) / size
    within = float(((d - means[groups]) ** 2).sum())
    if len(labels) == d.size or len(labels) < 2 or math.sqrt(within) < 1e-12:
        return paired_estimate(means)._replace(df=max(len(labels) - 1, 0))

    def at(ratio: float) -> tuple[float, float, float]:
        """-2 log likelihood, mean and error where the teachers' variance is ``ratio`` times that of one student."""
        weights = size / (1 + size * ratio)
        mean = float(weights @ means / weights.sum())
        variance = (within + float(weights @ (means - mean) ** 2)) / (d.size - 1)
        fit = (d.size - 1) * math.log(variance) + np.log1p(size * ratio).sum() + math.log(weights.sum())
        return float(fit), mean, math.sqrt(variance / weights.sum())

    # over the logarithm, so that students of one teacher may be all but equal
    found = minimize_scalar(lambda log: at(math.exp(log))[0], bounds=(-25, 60), method="bounded")
    _, mean, se = min(at(0.0), at(math.exp(float(found.x))))
    return Estimate(mean, se, len(labels) - 1)


def two_sided_p(estimate: Estimate) -> float:
    """Two-sided p of the t test that the mean is 0; differences that do not vary give 1 if zero, else 0."""
    mean, se, df = estimate
    if math.isnan(se):
        return math.nan
    if se == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * stats.t.sf(abs(mean) / se, df))


def equivalence_p(estimate: Estimate, delta: float) -> float:
    """p of two one-sided t tests (Schuirmann 1987) that the mean lies within ±``delta``: the larger of the two.

    Differences that do not vary are inside the margin (0) or not (1).
    """
    mean, se, df = estimate
    if math.isnan(se):
        return math.nan
    if se == 0:
        return 0.0 if abs(mean) < delta else 1.0
    return float(stats.t.sf((delta - abs(mean)) / se, df))


def paired_t_p(differences: ArrayLike, *, test_over_train: float = 0.0) -> float:
    """Two-sided p of the paired t test of ``differences`` [n]; with a ratio, the corrected resampled one."""
    return two_sided_p(paired_estimate(differences, test_over_train=test_over_train))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p values of one family (Scand. J. Statist. 1979). A NaN stays NaN and is not counted.

    The largest of (m - i + 1) p_(i) up to each rank i of m. Not by statsmodels, whose ``multipletests`` collects all of
    Python's garbage twice a call: 0.1 s, five times in every cell.
    """
    values = np.array(p, float)
    known = np.flatnonzero(~np.isnan(values))
    ranked = known[values[known].argsort()]
    adjusted = np.maximum.accumulate(np.arange(len(ranked), 0, -1) * values[ranked])
    values[ranked] = adjusted.clip(max=1)
    return cast("list[float]", values.tolist())


def t_interval(estimate: Estimate, confidence: float = 0.95) -> Interval:
    """Interval of the mean by the t distribution; NaN where its error is."""
    if math.isnan(estimate.se):
        return Interval(math.nan, math.nan)
    half = float(stats.t.ppf((1 + confidence) / 2, estimate.df)) * estimate.se
    return Interval(estimate.mean - half, estimate.mean + half)


def worse_than_best_p(scores: ArrayLike) -> NDArray[np.float64]:
    """For each of k methods with ``scores`` [n, k] of the same n seeds: p that none of the others is better [k].

    The method with the highest mean is chosen by the data, so every pair is taken to have been compared with every
    other one: a single-step maximum of the t statistics of all pairs (Westfall and Young, Resampling-Based Multiple
    Testing, 1993), under joint flips of the sign of a seed's differences: exact over all 2^n flips up to n = 12, above
    over 4,095 random ones from a fixed generator. p_j is the share of flips at which any pair differs as much as method
    j and the best one do. The best has p = 1.
    """
    x = np.asarray(scores, float)
    n, k = x.shape
    first, second = np.triu_indices(k, 1)
    d = (x[:, first] - x[:, second]).round(12)  # see paired_differences
    if k < 2:
        return np.ones(k)
    if n <= 12:
        flips = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    else:
        flips = np.vstack([np.ones(n, int), np.random.default_rng(0).choice([-1, 1], (4095, n))])
    squares = (d**2).mean(axis=0)  # no flip changes these

    def t(part: NDArray[np.int64]) -> NDArray[np.float64]:
        means = part @ d / n
        variance = squares - means**2
        constant = variance <= 1e-12 * squares  # differences that do not vary, but for rounding
        with np.errstate(divide="ignore", invalid="ignore"):
            size = np.where(constant, np.inf, np.abs(means) / np.sqrt(np.maximum(variance, 0)))
        return np.where(squares == 0, 0.0, size)

    parts = np.array_split(flips, max(1, k * k * n // 4000))
    largest = np.concatenate([t(part).max(axis=1) for part in parts])
    seen, best = t(flips[:1])[0], int(x.mean(axis=0).argmax())  # the first flips nothing
    p = np.ones(k)
    for place, (a, b) in enumerate(zip(first, second, strict=True)):
        if best in (a, b):
            p[a if b == best else b] = (largest >= seen[place] * (1 - 1e-9)).mean()
    return p
