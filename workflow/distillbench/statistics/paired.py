"""Tests and effect sizes of paired differences: what can be said of n numbers, one a seed. Imports no torch."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

ALPHA = 0.05
DELTA = 0.01  # margin of equivalence, a fraction
COLLAPSE = 0.1  # below the median of its seeds, a fraction: a seed that collapsed
EXACT = 12  # seeds, up to which all flips of signs are gone through
RESAMPLES = 9999


Deltas = float | Mapping[str, float | Mapping[str, float]]  # for all; or by data set; or by data set and pair


def margin(delta: Deltas, dataset: str, pair: str) -> float:
    """The margin of equivalence on one data set and pair, a fraction; DELTA where ``delta`` names others only.

    Raises ValueError where it is not above 0.
    """
    found = delta
    for name in (dataset, pair):
        if isinstance(found, Mapping):
            found = found.get(name, DELTA)
    assert not isinstance(found, Mapping)
    if not found > 0:
        raise ValueError(f"delta: {found} is not a margin; give a positive fraction such as 0.01")
    return found


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


class Estimate(NamedTuple):
    """A mean of differences, its standard error and the degrees of freedom of its t statistic."""

    mean: float
    se: float
    df: float


def paired_estimate(differences: ArrayLike) -> Estimate:
    """Mean of ``differences`` [n], s/√n and n - 1 degrees of freedom; the error is NaN for n < 2."""
    d = np.asarray(differences, float)
    if d.size < 2:
        return Estimate(float(d.mean()) if d.size else math.nan, math.nan, 0)
    error = 0.0 if np.ptp(d) == 0 else float(d.std(ddof=1)) / math.sqrt(d.size)
    return Estimate(float(d.mean()), error, d.size - 1)


def step_down_p(differences: ArrayLike) -> NDArray[np.float64]:
    """Adjusted two-sided p values [k] of the means of ``differences`` [k, n]: Westfall and Young's step-down max-|t|.

    If only chance tells a method from the baseline, every seed's differences are as likely with all their signs turned
    round, those of all k methods together (Westfall and Young, Resampling-Based Multiple Testing, 1993, algorithm 4.1;
    flips: Fisher 1935). Methods are taken from the largest |t| on; p is the share of flips at which any method that is
    left has a |t| as large. So no number of methods makes it impossible to show a difference: 2/2^n is the smallest
    p whatever k is. Exact over all 2^n flips up to n = 12, above over 9,999 random ones from a fixed generator and the
    one that was seen. A column is a seed; NaN where a method has none, and it is tested over the others. Differences
    that are all zero have p = 1, such that do not vary an infinite t.
    """
    d = np.atleast_2d(np.asarray(differences, float)).round(12)
    k, n = d.shape
    if not k or not n:
        return np.full(k, math.nan)
    known = ~np.isnan(d)
    d, size = np.where(known, d, 0.0), known.sum(axis=1)
    if n <= EXACT:
        flips = 1.0 - 2 * ((np.arange(2 ** (n - 1))[:, None] >> np.arange(n)) & 1)  # the other half has the same |t|
    else:
        flips = np.vstack([np.ones(n), np.random.default_rng(0).choice([-1.0, 1.0], (RESAMPLES, n))])
    squares = (d**2).sum(axis=1) / size  # no flip changes these

    def t(part: NDArray[Any]) -> NDArray[np.float64]:
        means = part @ d.T / size
        variance = squares - means**2
        constant = variance <= 1e-12 * squares  # differences that do not vary, but for rounding
        with np.errstate(divide="ignore", invalid="ignore"):
            found = np.where(constant, np.inf, np.abs(means) / np.sqrt(np.maximum(variance, 0) / (size - 1)))
        return np.where(squares == 0, 0.0, found)

    seen = t(flips[:1])[0]  # the first flips nothing
    order = np.argsort(-seen, kind="stable")
    exceeded = np.zeros(k)
    for part in np.array_split(flips, max(1, len(flips) * k // 500_000)):
        # column j: the largest of those that are left when j is reached
        largest = np.maximum.accumulate(t(part)[:, order[::-1]], axis=1)[:, ::-1]
        exceeded += (largest >= seen[order] * (1 - 1e-9)).sum(axis=0)
    p = np.empty(k)
    p[order] = np.maximum.accumulate(exceeded / len(flips))
    return p


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
