"""Two sources of chance: the seeds, and the rows of the test part. Imports no torch.

A difference between two methods, seen with n seeds on N test rows, would be another with other seeds and another on
other rows. The error of a mean score has both: SE² = s²/n + s²_rows/N, where s² is the variance over seeds of the
seeds' means and s²_rows the variance over rows of the rows' means. It is the two-way cluster-robust variance without
its third term, which would take away what both count, the noise of single predictions; without it the error is a little
too large and never negative (Cameron, Gelbach, Miller, J. Bus. Econ. Stat. 2011; Davezies, D'Haultfœuille, Guyonvarch,
Ann. Statist. 2021).

Where every seed has a split of its own, two seeds still have a share ρ of their training rows in common, as random
parts of one data set do, and so their results are correlated. To first order, what training rows do to a score is a sum
over them, and the correlation is ρ: the variance of the mean is s²_train (1/n + ρ/(1-ρ)). s²_train is what s² has
beyond the sampling of the test rows. The correction of Nadeau and Bengio (Machine Learning 2003) takes n_test/n_train
instead, which with few labels and many test rows is 30, not 0.03.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from distillbench.predictions import RowScores
from distillbench.statistics.paired import Estimate, Interval, paired_differences

Array = NDArray[np.float64]
DRAWS = 20_000  # of the largest of several t: the level is found to within a thirtieth of itself
AT_ONCE = 2_000


@dataclass(frozen=True)
class Sample:
    """Scores by seed, and for each seed the scores of its test rows; None where nobody stored predictions."""

    scores: "pd.Series[float]"
    rows: Mapping[int, RowScores] | None = None

    def __sub__(self, other: "Sample") -> "Sample":
        """The differences, over the seeds that both have."""
        seeds = self.scores.index.intersection(other.scores.index)
        d = pd.Series(paired_differences(self.scores, other.scores), index=seeds, dtype=float)
        if self.rows is None or other.rows is None:
            return Sample(d)
        pairs = {seed: (self.rows[seed], other.rows[seed]) for seed in seeds}
        if any(not np.array_equal(a.rows, b.rows) for a, b in pairs.values()):
            return Sample(d)  # not of the same rows
        return Sample(d, {seed: RowScores(a.rows, a.values - b.values) for seed, (a, b) in pairs.items()})

    def over(self, seeds: "pd.Index[int]") -> "Sample":
        """The same, of these seeds alone."""
        rows = self.rows
        return Sample(self.scores[seeds], None if rows is None else {seed: rows[seed] for seed in seeds})


def mean_of(samples: Sequence[Sample]) -> Sample:
    """The mean of samples of the same seeds, such as one method's with several libraries."""
    first, *others = samples
    if not others:
        return first
    scores = sum((other.scores for other in others), start=first.scores) / len(samples)
    if any(each.rows is None for each in samples):
        return Sample(scores)
    rows = {}
    for seed in scores.index:
        parts = [each.rows[seed] for each in samples if each.rows is not None]
        if any(not np.array_equal(part.rows, parts[0].rows) for part in parts):
            return Sample(scores)
        rows[seed] = RowScores(parts[0].rows, np.mean([part.values for part in parts], axis=0))
    return Sample(scores, rows)


class TwoWay:
    """Means of k samples, their errors, and how the errors go together.

    units: for seeds that are not independent, such as those of one teacher, what they have in common; a unit then
    counts as one, with the mean of its seeds. common: where every seed has a split of its own, the share of the
    training rows that two of them have in common; else 0. ``mean``, ``variance_of_seeds``, ``variance_of_rows`` are
    [k]; where a sample has no rows, the second part is zero and ``n_rows`` is 0. ``by_unit`` [k, units] has NaN where a
    sample has no seed.
    """

    def __init__(self, samples: Sequence[Sample], units: "pd.Series[str] | None" = None, common: float = 0.0) -> None:
        seeds = sorted({seed for sample in samples for seed in sample.scores.index})
        label = {seed: units[seed] if units is not None else seed for seed in seeds}
        names = list(dict.fromkeys(label.values()))
        place = {seed: names.index(label[seed]) for seed in seeds}
        ids: NDArray[np.int64] = np.unique(
            np.concatenate([np.empty(0, np.int64)] + [r.rows for s in samples for r in (s.rows or {}).values()])
        )
        k = len(samples)
        self.mean, self.n_units, self.n_rows = np.full(k, math.nan), np.zeros(k, int), np.zeros(k, int)
        self.by_unit = np.full((k, len(names)), math.nan)
        self._seeds, self._rows = np.zeros((k, len(names))), np.zeros((k, len(ids)))
        known: dict[bytes, NDArray[np.int64]] = {}  # a split that all seeds share is looked up once
        for j, sample in enumerate(samples):
            if sample.scores.empty:
                continue
            of_unit = pd.Series([place[seed] for seed in sample.scores.index], index=sample.scores.index)
            means = sample.scores.groupby(of_unit).mean()
            self.by_unit[j, means.index], n = means.to_numpy(), len(means)
            self.mean[j], self.n_units[j] = means.mean(), n
            weights = 1 / (n * of_unit.map(of_unit.value_counts()))  # of each seed; their sum is 1
            if n > 1:
                self._seeds[j, means.index] = (means - self.mean[j]) / n * math.sqrt(n / (n - 1))
            if sample.rows:
                count: NDArray[np.bool_] = np.zeros(len(ids), bool)
                for seed, scored in sample.rows.items():
                    key = scored.rows.tobytes()
                    if key not in known:
                        known[key] = np.searchsorted(ids, scored.rows)
                    at = known[key]
                    count[at] = True
                    self._rows[j, at] += weights[seed] * (scored.values - self.mean[j]) / len(at)
                seen = self.n_rows[j] = int(count.sum())
                self._rows[j] *= math.sqrt(seen / max(seen - 1, 1))
            if common and n > 1 and (spread := float(means.var(ddof=1))):
                training = max(spread - _of_sampling(sample), 0.0)
                self._seeds[j] *= math.sqrt(1 + n * training / spread * common / (1 - common))

    @cached_property
    def variance_of_seeds(self) -> Array:
        """s²/n of each [k], with what seeds share of their training rows; NaN of fewer than two units."""
        return np.where(self.n_units > 1, (self._seeds**2).sum(axis=1), math.nan)

    @cached_property
    def variance_of_rows(self) -> Array:
        """s²_rows/N of each [k]."""
        return np.asarray((self._rows**2).sum(axis=1))

    def estimate(self, j: int) -> Estimate:
        """Mean, standard error and degrees of freedom (Satterthwaite's) of one sample."""
        return _estimate(
            self.mean[j], self.variance_of_seeds[j], self.n_units[j], self.variance_of_rows[j], self.n_rows[j]
        )

    def level(self, members: Sequence[int], alpha: float) -> float:
        """The level of each interval at which those of all ``members`` hold together with probability 1 - alpha.

        The errors are taken to be normal with the correlation of the estimates; the quantile of the largest of them is
        found by simulation with a fixed generator (Hothorn, Bretz, Westfall, Biom. J. 2008, whose common degrees of
        freedom are each one's own here). One alone: alpha.
        """
        return _joint_level(self._root(members), np.eye(len(members)), alpha)

    def to_best(self, alpha: float) -> tuple[int, list[Estimate], list[Interval]]:
        """The sample with the highest mean, the differences of all to it, and their intervals.

        The intervals hold together for all pairs (as of ``level``), since the best is chosen by the data. All samples
        are of the same seeds.
        """
        k = len(self.mean)
        best = int(np.argmax(self.mean))
        first, second = np.triu_indices(k, 1)
        contrasts = np.zeros((len(first), k))
        contrasts[np.arange(len(first)), first], contrasts[np.arange(len(first)), second] = 1, -1
        level = _joint_level(self._root(range(k)), contrasts, alpha)
        estimates, intervals = [], []
        for j in range(k):
            seeds = ((self._seeds[j] - self._seeds[best]) ** 2).sum()
            rows = ((self._rows[j] - self._rows[best]) ** 2).sum() if self.n_rows[j] and self.n_rows[best] else 0.0
            found = _estimate(self.mean[j] - self.mean[best], seeds, self.n_units[j], rows, self.n_rows[j])
            estimates.append(found)
            intervals.append(interval_of(found, level))
        return best, estimates, intervals

    def _root(self, members: Sequence[int]) -> Array:
        """A matrix [members, …] whose product with its transpose is the covariance of the estimates.

        The seeds' parts as they are, and Cholesky's root of the rows': there is one, so that every machine draws the
        same; a trace on the diagonal lets methods that are alike have one, too.
        """
        which = list(members)
        of_rows = self._rows[which] @ self._rows[which].T
        trace = float(np.trace(of_rows))
        root = np.linalg.cholesky(of_rows + 1e-9 * trace * np.eye(len(which))) if trace else np.zeros((len(which), 0))
        return np.hstack([self._seeds[which], root])


def interval_of(estimate: Estimate, level: float) -> Interval:
    """The interval of Student's t at ``level`` (0.05: 95%); NaN where the error is."""
    if math.isnan(estimate.se):
        return Interval(math.nan, math.nan)
    half = float(stats.t.ppf(1 - level / 2, estimate.df)) * estimate.se if estimate.se else 0.0
    return Interval(estimate.mean - half, estimate.mean + half)


def _of_sampling(sample: Sample) -> float:
    """How much of the variance over seeds is of test parts that are not the same rows; unknown: none."""
    if not sample.rows:
        return 0.0
    sizes = [len(scored.rows) for scored in sample.rows.values()]
    every = len(np.unique(np.concatenate([scored.rows for scored in sample.rows.values()])))
    noise = [float(scored.values.var()) / len(scored.rows) for scored in sample.rows.values()]
    return float(np.mean(noise)) * (1 - float(np.mean(sizes)) / every)


def _estimate(mean: float, seeds: float, n: int, rows: float, n_rows: int) -> Estimate:
    total = seeds + rows
    if math.isnan(total) or n < 2:
        return Estimate(float(mean), math.nan, 0)
    if total == 0:
        return Estimate(float(mean), 0.0, n - 1)
    df = total**2 / (seeds**2 / (n - 1) + (rows**2 / (n_rows - 1) if n_rows > 1 else 0.0))
    return Estimate(float(mean), math.sqrt(total), df)


def _joint_level(root: Array, contrasts: Array, alpha: float) -> float:
    """The level of each of several two-sided normal tests whose largest exceeds it with probability ``alpha``."""
    spread = contrasts @ root
    size = np.sqrt((spread**2).sum(axis=1))
    spread = spread[size > 0] / size[size > 0, None]
    if len(spread) < 2:
        return alpha
    random, largest = np.random.default_rng(0), []
    for _ in range(DRAWS // AT_ONCE):
        largest.append(np.abs(random.standard_normal((AT_ONCE, root.shape[1])) @ spread.T).max(axis=1))
    return float(min(alpha, 2 * stats.norm.sf(np.quantile(np.concatenate(largest), 1 - alpha))))
