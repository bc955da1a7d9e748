"""Which differences between methods are shown, and which are not. The unit is the seed, and seeds are paired.

Seed s fixes split, teacher, initial weights and batch order for every method of a cell (data set, backend, pair), so
every statement here is about the differences method - baseline, seed by seed. Importing this module imports no torch.
"""

import math
from typing import Any

import pandas as pd

from distillbench.frames import CELL, check_runs, failures, finished, seeds_in_words
from distillbench.paired import (
    ALPHA,
    MIN_SEEDS,
    RESAMPLES,
    bca_interval,
    holm,
    paired_differences,
    paired_t_p,
    rank_biserial,
    share_improved,
    signed_rank_p,
)

COMPARISON_COLUMNS = [
    *CELL, "method", "role", "baseline", "metric", "resplit", "params", "n_ok", "n", "mean", "std", "n_pairs", "diff",
    "ci_low", "ci_high", "p_wilcoxon", "p_holm", "p_ttest", "p_resplit", "p_resplit_holm", "effect", "p_improve",
    "verdict", "note",
]  # fmt: skip


def compare(
    runs: pd.DataFrame,
    *,
    baseline: str = "supervised",
    alpha: float = ALPHA,
    min_seeds: int = MIN_SEEDS,
    resamples: int = RESAMPLES,
) -> pd.DataFrame:
    """Compare every method with ``baseline`` within each cell (data set, backend, pair), paired over seeds.

    ``runs`` has one row per run (see ``tables.runs_table``). One row per cell and method comes back, the teacher first,
    then the baseline, then the methods in order of appearance, with COMPARISON_COLUMNS: ``mean`` and sample ``std`` of
    the test metric over the ``n_ok`` of ``n`` seeds that finished; over the ``n_pairs`` seeds finished by both,
    ``diff`` (mean difference to the baseline) with its 95% BCa interval, ``p_wilcoxon`` (``signed_rank_p``),
    ``p_ttest`` (a check of sensitivity, decides nothing), ``effect`` (``rank_biserial``), ``p_improve``; ``p_holm``,
    adjusted by Holm (1979) over the methods of the cell that have ``min_seeds`` pairs. Fractions in [0, 1] throughout.
    Teacher and baseline are controls and belong to no family. Raises ValueError where ``runs`` lacks a column or the
    baseline, has two runs of one seed, or a finished run without a test value.

    ``verdict`` is one of

    - ``better``, ``worse``: p_holm <= alpha (and, where the split is redrawn per seed, p_resplit_holm <= alpha);
    - ``better on these splits``, ``worse on these splits``: the split is redrawn and only p_holm <= alpha;
    - ``no difference shown``: which is not "equal";
    - ``n too small``: fewer than ``min_seeds`` pairs; ``control``; ``skipped``; ``all failed``.

    Why two kinds of "better" where the split is redrawn: given the data set, seeds (split, initialisation) are
    independent and identically distributed, so the signed-rank test is valid for the difference expected over splits of
    THIS data set. ``p_resplit`` (Nadeau and Bengio) speaks of new data from the same source: re-drawn splits share
    most of their nodes, so the variance of the mean difference does not vanish with the number of seeds; its factor is
    1/n + n_test/n_train. With 50 training labels of 1,500 nodes that ratio is 29 and the test can hardly ever reject.
    The stronger word needs both tests; the weaker says what has been shown. Fixed splits: one data set, one claim.
    """
    check_runs(runs, baseline)
    teachers = list(pd.unique(runs.loc[runs["role"] == "teacher", "method"]))
    students = [m for m in pd.unique(runs["method"]) if m != baseline and m not in teachers]
    rows: list[dict[str, Any]] = []
    for _, cell in runs.groupby(CELL, sort=False):
        of = dict(list(cell.groupby("method", sort=False)))
        present = [m for m in [*teachers, baseline, *students] if m in of]
        members = [_summary(of[m], of.get(baseline, cell.head(0)), baseline, resamples) for m in present]
        _adjust(members, alpha, min_seeds)
        for row in members:
            row["verdict"] = _verdict(row, alpha, min_seeds)
        rows += members
    return pd.DataFrame(rows, columns=COMPARISON_COLUMNS).astype({"params": "Int64"})


def _summary(of_method: pd.DataFrame, of_baseline: pd.DataFrame, baseline: str, resamples: int) -> dict[str, Any]:
    """One row of ``compare`` before anything that needs the other methods of the cell."""
    score, reference = finished(of_method), finished(of_baseline)
    d = paired_differences(score, reference)
    known = of_method["params"].dropna()
    row: dict[str, Any] = {name: of_method[name].iloc[0] for name in [*CELL, "method", "role", "metric"]} | {
        "baseline": baseline,
        "resplit": bool(of_method["resplit"].astype(bool).any()),
        "params": int(known.iloc[0]) if len(known) else pd.NA,
        "n_ok": len(score),
        "n": len(of_method),
        "mean": score.mean(),
        "std": score.std(ddof=1),
        "n_pairs": 0,
        "note": _note(of_method, of_baseline, baseline, d.size),
        "skipped": bool((of_method["status"] == "skipped").all()),
    }
    if row["method"] == baseline or d.size == 0:
        return row
    ok = of_method[of_method["status"] == "ok"]
    ratio = float((ok["n_test"].astype(float) / ok["n_train"].astype(float)).mean())
    interval = bca_interval(d, resamples=resamples)
    return row | {
        "n_pairs": d.size,
        "diff": d.mean(),
        "ci_low": interval.low,
        "ci_high": interval.high,
        "p_wilcoxon": signed_rank_p(d),
        "p_ttest": paired_t_p(d),
        "p_resplit": paired_t_p(d, test_over_train=ratio) if row["resplit"] else math.nan,
        "effect": rank_biserial(d),
        "p_improve": share_improved(d),
    }


def _adjust(rows: list[dict[str, Any]], alpha: float, min_seeds: int) -> None:
    """Holm over the family of one cell; a family that cannot reject at any outcome is told so."""
    family = [
        row for row in rows
        if row["role"] == "student" and row["method"] != row["baseline"] and row["n_pairs"] >= min_seeds
    ]  # fmt: skip
    if not family:
        return
    for row, p in zip(family, holm([row["p_wilcoxon"] for row in family]), strict=True):
        row["p_holm"] = p
    for row, p in zip(family, holm([row["p_resplit"] for row in family]), strict=True):
        row["p_resplit_holm"] = p
    pairs = max(row["n_pairs"] for row in family)
    smallest = len(family) * 2.0 ** (1 - pairs)
    if smallest > alpha:
        reason = f"{pairs} pairs, {len(family)} methods: Holm's p cannot be below {smallest:.3f}, more seeds are needed"
        for row in family:
            row["note"] = "; ".join(filter(None, [row["note"], reason]))


def _verdict(row: dict[str, Any], alpha: float, min_seeds: int) -> str:
    if row["skipped"]:
        return "skipped"
    if row["n_ok"] == 0:
        return "all failed"
    if row["role"] == "teacher" or row["method"] == row["baseline"]:
        return "control"
    if row["n_pairs"] < min_seeds:
        return "n too small"
    if not row["p_holm"] <= alpha:
        return "no difference shown"
    if row["diff"] * row["effect"] <= 0:
        row["note"] = "; ".join(filter(None, [row["note"], "ranks and mean differ in direction"]))
        return "no difference shown"
    word = "better" if row["effect"] > 0 else "worse"
    return f"{word} on these splits" if row["resplit"] and not row["p_resplit_holm"] <= alpha else word


def _note(of_method: pd.DataFrame, of_baseline: pd.DataFrame, baseline: str, pairs: int) -> str:
    """Which seeds failed and why, and what that leaves of the pairing."""
    parts = [failures(of_method)]
    seeds, reference = set(of_method["seed"]), set(of_baseline["seed"])
    is_baseline = of_method["method"].iloc[0] == baseline
    if not is_baseline and pairs < len(seeds) and (of_method["status"] != "skipped").any():
        parts.append(f"{baseline}: {text}" if (text := failures(of_baseline)) else "")
        parts.append(f"no run of {baseline} for {seeds_in_words(seeds - reference)}" if seeds - reference else "")
        parts.append(f"compared over {pairs} of {len(seeds)} seeds")
    return "; ".join(filter(None, parts))
