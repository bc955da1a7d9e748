"""Accuracy against cost: what each model and method costs, and which of them nothing else beats. Imports no torch."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from distillbench.statistics.frames import check_runs, finished
from distillbench.statistics.libraries import training_times

# Costs, and the column that says whether a method is on the frontier of test score against it.
ON_FRONTIER = {
    "latency_ms": "on_frontier_latency",
    "peak_memory_mb": "on_frontier_memory",
    "parameters": "on_frontier_parameters",
    "train_seconds": "on_frontier_training",
}
PARETO_COLUMNS = [
    "dataset", "backend", "pair", "method", "role", "metric", "n_ok", "n", "score", "score_std", *ON_FRONTIER,
    *ON_FRONTIER.values(),
]  # fmt: skip
MEASURED = ["latency_ms", "peak_memory_mb"]  # what only a profile knows


def frontier(cost: ArrayLike, score: ArrayLike) -> NDArray[np.bool_]:
    """Which of the points ``cost`` [n], ``score`` [n] no other one beats: a mask [n].

    A point is beaten if another has a score at least as high at a cost at most as high, and one of the two strictly
    (Pareto dominance). Of equal points all stay; a point with a NaN is never on the frontier. Any unit, any sign.
    """
    c, s = np.asarray(cost, float), np.asarray(score, float)
    as_cheap, as_good = c[:, None] <= c, s[:, None] >= s  # [other, point]; a comparison with NaN is false
    strictly = (c[:, None] < c) | (s[:, None] > s)
    beaten = (as_cheap & as_good & strictly).any(axis=0)
    return np.asarray(~beaten & ~np.isnan(c) & ~np.isnan(s))


def pareto_table(runs: pd.DataFrame, profiles: pd.DataFrame | None = None) -> pd.DataFrame:
    """What each method scores and costs: PARETO_COLUMNS, a row per data set, backend, pair and method (or teacher).

    ``score`` is the mean test metric of the finished seeds and ``score_std`` its sample standard deviation (fractions);
    ``latency_ms`` and ``peak_memory_mb`` are of ``profiles`` (a row per data set, backend, pair and role): the students
    of a pair are one model and share them. They are NaN without a profile, and for a method that changes the student:
    its parameters are not the profile's. ``train_seconds`` is the median over the finished seeds, of this model alone:
    a student's is without its teacher's. The last four columns say whether a method is on the frontier (see
    ``frontier``) of all that ran on its data set with its backend. Raises ValueError where the table of runs lacks what
    it needs, or a profile is there twice.
    """
    check_runs(runs, None)
    measured = _measured(profiles)
    rows: list[dict[str, Any]] = []
    for (dataset, backend, pair, method), group in runs.groupby(["dataset", "backend", "pair", "method"], sort=False):
        scores, seconds, role = finished(group), training_times(group), group["role"].iloc[0]
        profile = measured.get((dataset, backend, pair, role), {})
        known = group["params"].dropna()
        parameters = float(known.iloc[0]) if len(known) else profile.get("parameters", math.nan)
        if profile.get("parameters") != parameters:
            profile = {}
        rows.append({
            "dataset": dataset, "backend": backend, "pair": pair, "method": method, "role": role,
            "metric": group["metric"].iloc[0], "n_ok": len(scores), "n": len(group),
            "score": scores.mean() if len(scores) else math.nan,
            "score_std": scores.std(ddof=1) if len(scores) > 1 else math.nan,
            "parameters": parameters,
            "train_seconds": seconds.median() if len(seconds) else math.nan,
            **{cost: profile.get(cost, math.nan) for cost in MEASURED},
        })  # fmt: skip
    table = pd.DataFrame(rows, columns=PARETO_COLUMNS)
    for cost, flag in ON_FRONTIER.items():
        table[flag] = False
        for _, group in table.groupby(["dataset", "backend"], sort=False):
            table.loc[group.index, flag] = frontier(
                group[cost], group["score"].round(12)
            )  # sums of floats: ties stay ties
    return table


def _measured(profiles: pd.DataFrame | None) -> dict[tuple[Any, ...], dict[str, float]]:
    """Latency, memory and parameters by data set, backend, pair and role."""
    if profiles is None:
        return {}
    where, what = ["dataset", "backend", "pair", "role"], [*MEASURED, "parameters"]
    if missing := [name for name in [*where, *what] if name not in profiles.columns]:
        raise ValueError(f"profiles: no column {', '.join(missing)}")
    if (twice := profiles.duplicated(where)).any():
        raise ValueError(f"profiles: two rows for {'/'.join(map(str, profiles.loc[twice, where].iloc[0]))}")
    keys: Iterable[tuple[Any, ...]] = profiles[where].itertuples(index=False, name=None)
    values = profiles[what].astype(float).to_dict("records")
    return {key: {str(name): value for name, value in row.items()} for key, row in zip(keys, values, strict=True)}
