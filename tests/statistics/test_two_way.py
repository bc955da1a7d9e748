"""Errors over seeds and test rows: by hand, and in simulations of what they promise."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from distillbench.predictions import RowScores
from distillbench.statistics.paired import step_down_p
from distillbench.statistics.two_way import Sample, TwoWay, interval_of, mean_of


def sample(table, rows=None):
    """Of row scores [seeds, rows]."""
    table, rows = np.asarray(table, float), np.arange(np.shape(table)[1]) if rows is None else rows
    scores = {seed: RowScores(rows, values) for seed, values in enumerate(table)}
    return Sample(pd.Series(table.mean(axis=1)), scores)


def test_both_parts_by_hand():
    table = np.array([[1.0, 0, 1, 0], [1, 1, 0, 1], [1, 0, 0, 1]])
    estimate = TwoWay([sample(table)]).estimate(0)
    seeds, rows = table.mean(axis=1).var(ddof=1) / 3, table.mean(axis=0).var(ddof=1) / 4
    assert estimate.mean == pytest.approx(table.mean())
    assert estimate.se == pytest.approx(math.sqrt(seeds + rows))
    assert estimate.df == pytest.approx((seeds + rows) ** 2 / (seeds**2 / 2 + rows**2 / 3))


def test_without_predictions_the_error_is_of_seeds_alone():
    scores = pd.Series([0.80, 0.83, 0.79, 0.82])
    two_way = TwoWay([Sample(scores)])
    assert two_way.n_rows[0] == 0
    assert two_way.estimate(0) == pytest.approx((scores.mean(), scores.std(ddof=1) / 2, 3))
    assert interval_of(two_way.estimate(0), 0.05) == pytest.approx(
        stats.t.interval(0.95, 3, scores.mean(), scores.std(ddof=1) / 2)
    )


def test_cora_as_published():
    """Ten seeds and 1,000 test rows: what the rows add to an interval that knew seeds alone."""
    random = np.random.default_rng(0)
    seeds, rows = random.standard_normal(10), random.standard_normal(1000)
    seeds, rows = (x / x.std(ddof=1) for x in (seeds - seeds.mean(), rows - rows.mean()))
    table = 0.022 + 0.011 * seeds[:, None] + 0.0055 * math.sqrt(1000) * rows
    found = TwoWay([sample(table)])
    assert math.sqrt(found.variance_of_rows[0]) == pytest.approx(0.0055, rel=1e-6)
    low, high = interval_of(found.estimate(0), 0.05)
    alone = interval_of(TwoWay([Sample(pd.Series(table.mean(axis=1)))]).estimate(0), 0.05)
    assert (alone.low, alone.high) == pytest.approx((0.0141, 0.0299), abs=1e-4)
    assert (low, high) == pytest.approx((0.0090, 0.0350), abs=3e-4)


def test_a_row_that_few_seeds_test_counts_for_as_much():
    """Redrawn splits: the error over rows is that of each row's part of the mean, by hand."""
    a, b = RowScores(np.array([0, 1]), np.array([1.0, 0.0])), RowScores(np.array([1, 2]), np.array([1.0, 1.0]))
    found = TwoWay([Sample(pd.Series([0.5, 1.0]), {0: a, 1: b})])
    parts = np.array([(1 - 0.75) / 4, (0 - 0.75 + 1 - 0.75) / 4, (1 - 0.75) / 4])
    assert found.n_rows[0] == 3
    assert found.variance_of_rows[0] == pytest.approx(3 / 2 * (parts**2).sum())


def test_units_count_once():
    scores = pd.Series([0.1, 0.3, 0.2, 0.4, 0.6, 0.5])
    found = TwoWay([Sample(scores)], pd.Series(list("aabbcc")))
    means = [0.2, 0.3, 0.55]
    assert found.by_unit[0] == pytest.approx(means)
    assert found.estimate(0) == pytest.approx((np.mean(means), np.std(means, ddof=1) / math.sqrt(3), 2))


def test_differences_and_means_keep_rows_where_they_are_the_same():
    a, b = sample([[1, 0, 1], [1, 1, 1]]), sample([[0, 0, 1], [1, 0, 1]])
    d, both = a - b, mean_of([a, b])
    assert d.scores.tolist() == pytest.approx([1 / 3, 1 / 3])
    assert d.rows[1].values.tolist() == [0, 1, 0]
    assert both.rows[0].values.tolist() == [0.5, 0, 1]
    other = sample([[1, 0, 1], [1, 1, 1]], rows=np.array([0, 1, 5]))
    assert (a - other).rows is None
    assert mean_of([a, other]).rows is None


def test_the_joint_level_is_sidaks_for_independent_errors_and_alpha_for_equal_ones():
    random = np.random.default_rng(0)
    many = TwoWay([Sample(pd.Series(random.standard_normal(2000))) for _ in range(5)])
    assert many.level(range(5), 0.05) == pytest.approx(1 - 0.95**0.2, rel=0.06)
    same = Sample(pd.Series(random.standard_normal(20)))
    assert TwoWay([same, same]).level([0, 1], 0.05) == pytest.approx(0.05, rel=0.06)
    assert TwoWay([same]).level([0], 0.05) == 0.05


def test_intervals_to_the_best_are_of_all_pairs():
    random = np.random.default_rng(0)
    shared = random.standard_normal((400, 1))
    scores = shared + random.standard_normal((400, 3)) * 0.1 + [0, 1, 0.5]
    best, estimates, intervals = TwoWay([Sample(pd.Series(x)) for x in scores.T]).to_best(0.05)
    assert best == 1
    d = scores[:, 0] - scores[:, 1]
    assert estimates[0] == pytest.approx((d.mean(), d.std(ddof=1) / 20, 399))
    half = (intervals[0].high - intervals[0].low) / 2 / estimates[0].se
    assert half == pytest.approx(stats.studentized_range.ppf(0.95, 3, 399) / math.sqrt(2), rel=0.02)  # Tukey's
    assert intervals[1] == (0, 0)


def scores_of(random, shape, kind):
    if kind == "normal":
        return random.standard_normal(shape)
    if kind == "heavy tails":
        return random.standard_t(3, shape) / math.sqrt(3)
    return random.exponential(1, shape) - 1


def simulated(random, n, rows, kind, of_seeds=0.01, of_rows=0.2, noise=0.2):
    """Row scores [seeds, rows] of mean 0 with both sources of chance."""
    seeds, each = scores_of(random, (n, 1), kind), scores_of(random, rows, kind)
    return of_seeds * seeds + of_rows * each + noise * random.standard_normal((n, rows))


@pytest.mark.parametrize("kind", ["normal", "heavy tails", "skewed"])
@pytest.mark.parametrize("n", [5, 10, 30])
def test_the_interval_covers_new_seeds_and_new_rows(n, kind):
    random, covered = np.random.default_rng(0), 0
    for _ in range(600):
        low, high = interval_of(TwoWay([sample(simulated(random, n, 300, kind))]).estimate(0), 0.05)
        covered += low <= 0 <= high
    assert covered / 600 >= 0.93


@pytest.mark.parametrize(("methods", "n"), [(5, 10), (21, 10)])
def test_together_they_keep_5_percent_of_the_families_where_both_sources_are_there(methods, n):
    """No method differs on other rows with other seeds; flips alone would claim so in most of the families."""
    random, claimed, flipped, times = np.random.default_rng(2), 0, 0, 300
    for _ in range(times):
        alone = simulated(random, n, 200, "normal")
        two_way = TwoWay([sample(simulated(random, n, 200, "normal") - alone) for _ in range(methods)])
        level, p = two_way.level(range(methods), 0.05), step_down_p(two_way.by_unit)
        intervals = [interval_of(two_way.estimate(j), level) for j in range(methods)]
        claimed += any(q <= 0.05 and not low <= 0 <= high for q, (low, high) in zip(p, intervals, strict=True))
        flipped += bool((p <= 0.05).any())
    assert claimed / times <= 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / times)
    assert flipped / times > 0.5


@pytest.mark.parametrize(("size", "train"), [(600, 17), (300, 30), (300, 150)])
def test_on_redrawn_splits_the_interval_covers_the_difference_on_new_data(size, train):
    """Two linear classifiers of a mixture of Gaussians, each seed with a split of its own: all features, or three."""
    random, n, dim, found, intervals = np.random.default_rng(0), 10, 8, [], []
    for _ in range(400):
        y = np.arange(size) % 2
        x = random.standard_normal((size, dim)) + 0.5 * y[:, None]
        rows = {}
        for seed in range(n):
            order = random.permutation(size)
            part, rest = order[:train], np.sort(order[train + size // 6 :])
            right = []
            for used in (dim, 3):
                one, two = (x[part][y[part] == label, :used].mean(axis=0) for label in (0, 1))
                right.append(((x[rest, :used] - (one + two) / 2) @ (two - one) > 0) == y[rest])
            rows[seed] = RowScores(rest, right[0].astype(float) - right[1])
        scores = pd.Series({seed: scored.values.mean() for seed, scored in rows.items()})
        estimate = TwoWay([Sample(scores, rows)], common=train / size).estimate(0)
        found.append(estimate.mean)
        intervals.append(interval_of(estimate, 0.05))
    truth = np.mean(found)  # its error is a twentieth of one interval's
    assert np.mean([low <= truth <= high for low, high in intervals]) >= 0.93
    assert truth > 0.02
    assert np.mean([low > 0 for low, _ in intervals]) > 0.3  # nor is it so wide that it says nothing


def test_what_seeds_share_of_their_training_rows_by_hand():
    rows = {0: RowScores(np.array([0, 1]), np.array([1.0, 0.0])), 1: RowScores(np.array([1, 2]), np.array([1.0, 1.0]))}
    scores = pd.Series([0.5, 1.0])
    found = TwoWay([Sample(scores, rows)], common=0.2)
    spread, sampling = 0.125, (0.25 / 2 + 0) / 2 * (1 - 2 / 3)
    assert found.variance_of_seeds[0] == pytest.approx(spread / 2 + (spread - sampling) * 0.2 / 0.8)
    alone = TwoWay([Sample(scores)], common=0.2)
    assert alone.variance_of_seeds[0] == pytest.approx(spread / 2 + spread * 0.25)
