"""The table of runs as the statistics read it: what it must have, what finished, what failed. Imports no torch."""

import difflib
from typing import Any

import pandas as pd

from distillbench.record import printable
from distillbench.wording import reason_in_words

CELL = ["dataset", "backend", "pair"]
NEEDED = [*CELL, "method", "role", "seed", "status", "reason", "metric", "test", "params", "resplit"]


def check_runs(runs: pd.DataFrame, baseline: str | None) -> None:
    """Refuse a table of runs that cannot be compared.

    Raises ValueError where a column or the ``baseline`` is missing, a seed is there twice, or a finished run has no
    test value; the message names it, and the nearest method that there is.
    """
    if missing := [name for name in NEEDED if name not in runs.columns]:
        raise ValueError(f"runs: no column {', '.join(missing)}")
    identity = [*CELL, "method", "seed"]
    if (twice := runs.duplicated(identity)).any():
        raise ValueError(f"runs: two rows for {'/'.join(map(str, runs.loc[twice, identity].iloc[0]))}")
    hollow = (runs["status"] == "ok") & runs["test"].isna()
    if hollow.any():
        run = "/".join(map(str, runs.loc[hollow, identity].iloc[0]))
        raise ValueError(f"runs: {run} has status ok and no test value")
    methods = [str(m) for m in pd.unique(runs["method"])]
    if baseline is not None and methods and baseline not in methods:
        near = difflib.get_close_matches(baseline, methods, 1)
        guess = f"; did you mean '{near[0]}'?" if near else ""
        raise ValueError(f"baseline: no runs of '{baseline}'{guess} (methods: {', '.join(methods)})")


def finished(runs: pd.DataFrame) -> pd.Series:
    """The test metric of the finished runs of one method in one cell, by seed."""
    ok = runs[runs["status"] == "ok"]
    return ok.set_index("seed")["test"].sort_index()


def shared_teachers(cell: pd.DataFrame) -> "pd.Series[Any] | None":
    """The teacher of each seed of a cell, by the digest of its weights, where seeds share any; else None."""
    if "weights" not in cell.columns:
        return None
    taught = cell[(cell["role"] == "teacher") & (cell["status"] == "ok") & (cell["weights"].fillna("") != "")]
    weights = taught.set_index("seed")["weights"]
    if not weights.duplicated().any():
        return None
    alone = {seed: f"seed {seed}" for seed in cell["seed"].unique()}  # of a seed without: as if it had its own
    return pd.Series(alone | weights.to_dict())


def failures(runs: pd.DataFrame) -> str:
    """``seeds 3, 5 diverged (loss is NaN); seed 7 oom``; where all were skipped, only why."""
    bad = runs[runs["status"] != "ok"]
    if bad.empty:
        return ""
    parts = []
    for (status, reason), group in bad.fillna({"reason": ""}).groupby(["status", "reason"], sort=False):
        why = reason_in_words(printable(str(reason)))
        why = f" ({why})" if why else ""
        whole = status == "skipped" and len(group) == len(runs)
        said = "ended with an error" if status == "error" else status
        parts.append(f"{'' if whole else seeds_in_words(set(group['seed'])) + ' '}{said}{why}")
    return "; ".join(parts)


def seeds_in_words(seeds: set[int]) -> str:
    """``seed 3``, ``seeds 3, 5``."""
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, sorted(seeds)))}"
