"""PyG against DGL: are the two libraries equivalent, and what does each cost? Imports no torch."""

import math
from typing import Any

import pandas as pd

from distillbench.frames import check_runs, failures, finished
from distillbench.paired import ALPHA, MIN_SEEDS, paired_differences, tost

EQUIVALENCE_COLUMNS = [
    "dataset", "pair", "method", "role", "metric", "backend_a", "backend_b", "n_pairs", "mean_a", "mean_b", "diff",
    "ci90_low", "ci90_high", "delta", "p_tost", "verdict", "note",
]  # fmt: skip


def equivalence(
    runs: pd.DataFrame,
    *,
    backend_a: str = "pyg",
    backend_b: str = "dgl",
    delta: float = 0.01,
    min_seeds: int = MIN_SEEDS,
) -> pd.DataFrame:
    """Are the two libraries equivalent within ±``delta`` (a fraction)? Per data set, pair and method, seeds paired.

    Two one-sided paired t tests (Schuirmann 1987, by statsmodels): ``p_tost`` <= 0.05 rejects "they differ by delta or
    more", which is the 90% t interval of ``diff`` = a - b lying within ±delta. A large p of a test of
    difference would show nothing. Rows are separate claims and not adjusted for their number. EQUIVALENCE_COLUMNS come
    back, without rows if ``runs`` lacks one of the backends; ``verdict`` is ``equivalent within δ``, ``not shown
    equivalent`` or ``n too small``. Raises ValueError for delta <= 0.
    """
    check_runs(runs, None)
    if delta <= 0:
        raise ValueError(f"delta: {delta} is not a margin; give a positive fraction such as 0.01")
    rows: list[dict[str, Any]] = []
    if {backend_a, backend_b} <= set(runs["backend"]):
        for (dataset, pair, method), group in runs.groupby(["dataset", "pair", "method"], sort=False):
            a, b = (group[group["backend"] == backend] for backend in (backend_a, backend_b))
            score_a, score_b = finished(a), finished(b)
            d = paired_differences(score_a, score_b)
            seeds = score_a.index.intersection(score_b.index)
            low, high, p = tost(d, delta)
            shown = "equivalent within δ" if p <= ALPHA else "not shown equivalent"
            failed = [(backend_a, failures(a)), (backend_b, failures(b))]
            rows.append({
                "dataset": dataset, "pair": pair, "method": method,
                "role": group["role"].iloc[0], "metric": group["metric"].iloc[0],
                "backend_a": backend_a, "backend_b": backend_b, "n_pairs": d.size,
                "mean_a": score_a[seeds].mean(), "mean_b": score_b[seeds].mean(),
                "diff": d.mean() if d.size else math.nan,
                "ci90_low": low, "ci90_high": high, "delta": delta, "p_tost": p,
                "verdict": "n too small" if d.size < min_seeds else shown,
                "note": "; ".join(f"{backend}: {text}" for backend, text in failed if text),
            })  # fmt: skip
    return pd.DataFrame(rows, columns=EQUIVALENCE_COLUMNS)
