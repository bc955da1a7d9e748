"""PyG against DGL: are the two libraries equivalent, and what does each cost? Imports no torch."""

import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from distillbench.params import MIN_SEEDS
from distillbench.statistics.frames import check_runs, failures, finished, shared_teachers
from distillbench.statistics.paired import (
    ALPHA,
    DELTA,
    Deltas,
    equivalence_p,
    margin,
    paired_differences,
    paired_estimate,
    t_interval,
)

EQUIVALENCE_COLUMNS = [
    "dataset", "pair", "method", "role", "metric", "backend_a", "backend_b", "n_pairs", "mean_a", "mean_b", "diff",
    "ci90_low", "ci90_high", "delta", "p_tost", "verdict", "time_ratio", "time_ratio_low",
    "time_ratio_high", "note",
]  # fmt: skip
TIME_COLUMNS = [
    "dataset", "pair", "backend_a", "backend_b", "device_a", "device_b", "n_seeds", "seconds_a", "seconds_b",
    "time_ratio", "time_ratio_low", "time_ratio_high",
]  # fmt: skip


class Ratio(NamedTuple):
    """A median of ratios and its 95% interval; NaN where it cannot be computed."""

    median: float
    low: float
    high: float


def equivalence(
    runs: pd.DataFrame,
    *,
    backend_a: str = "pyg",
    backend_b: str = "dgl",
    delta: Deltas = DELTA,
    min_seeds: int = MIN_SEEDS,
) -> pd.DataFrame:
    """Are the two libraries equivalent within ±``delta`` (a fraction)? Per data set, pair and method, seeds paired.

    Two one-sided paired t tests (Schuirmann 1987; see ``paired.equivalence_p``): ``p_tost`` <= 0.05 rejects "they
    differ by delta or more", which is the 90% t interval of ``diff`` = a - b lying within ±delta. A large p of a test
    of difference would show nothing. Where seeds share teachers, a teacher's seeds count once, with their mean. Rows
    are separate claims and not adjusted for their number. EQUIVALENCE_COLUMNS come back, without rows if ``runs`` lacks
    one of the backends. ``verdict`` is ``equivalent within δ``, ``not shown equivalent``, or ``too few seeds``.
    delta: margin, see ``paired.margin``. ``time_ratio``: see ``median_ratio``, of the training times
    a / b; below 1, a was faster. Early stopping is part of it, and so are the devices: ``note`` says where they differ.
    NaN where ``runs`` has no ``train_seconds``. Raises ValueError for delta <= 0.
    """
    check_runs(runs, None)
    rows: list[dict[str, Any]] = []
    teachers = {
        (dataset, pair): _shared(of_pair, backend_a, backend_b)
        for (dataset, pair), of_pair in runs.groupby(["dataset", "pair"], sort=False)
    }
    if {backend_a, backend_b} <= set(runs["backend"]):
        for (dataset, pair, method), group in runs.groupby(["dataset", "pair", "method"], sort=False):
            a, b = (group[group["backend"] == backend] for backend in (backend_a, backend_b))
            score_a, score_b = finished(a), finished(b)
            d = paired_differences(score_a, score_b)
            seeds = score_a.index.intersection(score_b.index)
            taught = teachers[dataset, pair]
            within = margin(delta, str(dataset), str(pair))
            by_unit = d if taught is None else pd.Series(d).groupby(taught[seeds].to_numpy()).mean().to_numpy()
            estimate = paired_estimate(by_unit)
            low, high = t_interval(estimate, 0.9)
            p = equivalence_p(estimate, within)
            shown = "equivalent within δ" if p <= ALPHA else "not shown equivalent"
            time_a, time_b = training_times(a), training_times(b)
            timed = time_a.index.intersection(time_b.index)
            ratio = median_ratio(time_a[timed], time_b[timed])
            notes = [f"{name}: {text}" for name, of in ((backend_a, a), (backend_b, b)) if (text := failures(of))]
            if taught is not None:
                number = taught[seeds].nunique()
                notes.append(f"{d.size} seeds share {number} teacher{'s' * (number > 1)}")
            if len(timed) and (devices := _devices(a)) != _devices(b):
                notes.append(f"times: {backend_a} on {devices}, {backend_b} on {_devices(b)}")
            rows.append({
                "dataset": dataset, "pair": pair, "method": method,
                "role": group["role"].iloc[0], "metric": group["metric"].iloc[0],
                "backend_a": backend_a, "backend_b": backend_b, "n_pairs": d.size,
                "mean_a": score_a[seeds].mean(), "mean_b": score_b[seeds].mean(),
                "diff": estimate.mean,
                "ci90_low": low, "ci90_high": high, "delta": within, "p_tost": p,
                "verdict": "too few seeds" if by_unit.size < min_seeds or math.isnan(p) else shown,
                "time_ratio": ratio.median, "time_ratio_low": ratio.low, "time_ratio_high": ratio.high,
                "note": "; ".join(notes),
            })  # fmt: skip
    return pd.DataFrame(rows, columns=EQUIVALENCE_COLUMNS)


def cell_times(runs: pd.DataFrame, *, backend_a: str = "pyg", backend_b: str = "dgl") -> pd.DataFrame:
    """What a whole cell costs in each library: TIME_COLUMNS, a row per data set and pair that both have times of.

    Per seed the training times (seconds) of all methods and the teacher are added up, of the seeds of which as many
    runs as of any finished in both libraries; ``seconds_a`` and ``seconds_b`` are the medians of these sums over the
    seeds, ``time_ratio`` is the median of a / b (see ``median_ratio``). ``device_a``, ``device_b``: what they ran on.
    """
    rows: list[dict[str, Any]] = []
    for (dataset, pair), group in runs.groupby(["dataset", "pair"], sort=False):
        by = ["method", "seed"]
        time_a, time_b = (training_times(group[group["backend"] == name], by) for name in (backend_a, backend_b))
        both = time_a.index.intersection(time_b.index)
        if both.empty:
            continue
        number = time_a[both].groupby(level="seed").size()
        whole = number.index[number == number.max()]  # a seed with fewer runs is not as long a cell
        sum_a, sum_b = (time[both].groupby(level="seed").sum()[whole] for time in (time_a, time_b))
        ratio = median_ratio(sum_a, sum_b)
        rows.append({
            "dataset": dataset, "pair": pair, "backend_a": backend_a, "backend_b": backend_b,
            "device_a": _devices(group[group["backend"] == backend_a]),
            "device_b": _devices(group[group["backend"] == backend_b]), "n_seeds": len(sum_a),
            "seconds_a": sum_a.median(), "seconds_b": sum_b.median(),
            "time_ratio": ratio.median, "time_ratio_low": ratio.low, "time_ratio_high": ratio.high,
        })  # fmt: skip
    return pd.DataFrame(rows, columns=TIME_COLUMNS)


def median_ratio(a: ArrayLike, b: ArrayLike) -> Ratio:
    """Median of the paired ratios a / b of two lists of positive numbers [n], with a 95% interval of the median.

    The interval lies between two order statistics and assumes no distribution (Thompson, Ann. Math. Statist. 1936;
    Conover, Practical Nonparametric Statistics, 3rd ed., section 3.2), by scipy; below n = 6 there is none (NaN).
    """
    ratios = np.asarray(a, float) / np.asarray(b, float)
    if not ratios.size:
        return Ratio(math.nan, math.nan, math.nan)
    median = float(np.median(ratios))
    interval = stats.quantile_test(ratios, q=median, p=0.5).confidence_interval(0.95)
    return Ratio(median, float(interval.low), float(interval.high))


def training_times(runs: pd.DataFrame, by: str | list[str] = "seed") -> pd.Series:
    """Training seconds of the finished runs, by seed (or ``by`` other columns); empty where nobody measured them."""
    if "train_seconds" not in runs.columns:
        runs = runs.assign(train_seconds=math.nan)
    timed = runs[(runs["status"] == "ok") & (runs["train_seconds"] > 0)]
    return timed.set_index(by)["train_seconds"].astype(float).sort_index()


def _devices(runs: pd.DataFrame) -> str:
    """``cpu``, ``cuda``; empty where the table does not say."""
    known = runs.loc[runs["status"] == "ok", "device"] if "device" in runs.columns else pd.Series(dtype=str)
    return ", ".join(sorted({str(device) for device in known.dropna()}))


def _shared(of_pair: pd.DataFrame, backend_a: str, backend_b: str) -> "pd.Series[Any] | None":
    """Who taught which seed, where seeds share teachers in one of the libraries: they share them in both."""
    found = (shared_teachers(of_pair[of_pair["backend"] == name]) for name in (backend_a, backend_b))
    return next((teachers for teachers in found if teachers is not None), None)
