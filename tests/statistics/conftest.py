"""Frames of runs for the tests of statistics, and no warning goes unnoticed there."""

import math
import warnings

import pandas as pd
import pytest

SIZES = {"n_train": 50, "n_val": 300, "n_test": 1450}
BASE = [0.780, 0.795, 0.801, 0.787, 0.810, 0.792, 0.799, 0.784, 0.805, 0.790]
UP = [0.011, 0.004, 0.017, 0.008, 0.023, 0.015, 0.002, 0.019, 0.006, 0.013]


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def runs_of(scores, *, backend="pyg", dataset="toy", pair="gat", resplit=False, broken=None):
    """A frame of runs: ``scores`` maps a method to its test metrics per seed; ``broken`` (method, seed) to a status."""
    rows = []
    for method, values in scores.items():
        for seed, value in enumerate(values):
            status, reason = (broken or {}).get((method, seed), ("ok", ""))
            role = "teacher" if method == "teacher" else "student"
            rows.append(
                {"dataset": dataset, "backend": backend, "pair": pair, "method": method, "role": role, "seed": seed}
                | {"status": status, "reason": reason, "task": "multiclass", "metric": "accuracy", "params": 185172}
                | {"val": 0.8, "test": value if status == "ok" else math.nan, "resplit": resplit, **SIZES}
            )
    return pd.DataFrame(rows)


def shifted(by):
    return [base + up for base, up in zip(BASE, by, strict=True)]


def row_of(frame, method):
    (row,) = frame[frame["method"] == method].to_dict("records")
    return row
