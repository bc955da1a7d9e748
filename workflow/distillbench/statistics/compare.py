"""Which differences between methods are shown, and which are not. The unit is the seed, and seeds are paired.

Seed s fixes split, teacher, initial weights and batch order for every method of a cell (data set, backend, pair), so
every statement here is about the differences method - baseline, seed by seed. Importing this module imports no torch.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from distillbench.params import MIN_SEEDS
from distillbench.statistics.frames import CELL, check_runs, failures, finished, seeds_in_words, shared_teachers
from distillbench.statistics.paired import (
    ALPHA,
    DELTA,
    RESAMPLES,
    Estimate,
    Interval,
    bca_interval,
    equivalence_p,
    holm,
    mixed_estimate,
    paired_differences,
    paired_estimate,
    paired_t_p,
    rank_biserial,
    share_improved,
    sign_flip_p,
    signed_rank_p,
    t_interval,
    two_sided_p,
    worse_than_best_p,
)
from distillbench.statistics.power import seeds_needed, smallest_detectable

COMPARISON_COLUMNS = [
    *CELL, "method", "role", "baseline", "metric", "resplit", "params", "n_ok", "n", "mean", "std", "n_pairs", "diff",
    "diff_std", "ci_low", "ci_high", "test", "p_value", "p_holm", "p_holm_table", "p_wilcoxon", "p_ttest",
    "p_ttest_holm", "p_resplit", "p_resplit_holm", "p_equivalent", "p_equivalent_resplit", "effect", "p_improve",
    "gap_closed", "level", "detectable", "seeds_needed", "best", "p_best", "verdict", "note",
]  # fmt: skip
Test = Literal["wilcoxon", "permutation"]
Family = Literal["cell", "table"]
Row = dict[str, Any]
_Scores = dict[str, "pd.Series[float]"]  # of the finished seeds, by method
TESTS: dict[str, Callable[[ArrayLike], float]] = {"wilcoxon": signed_rank_p, "permutation": sign_flip_p}
MIXED = "mixed model"


def compare(
    runs: pd.DataFrame,
    *,
    baseline: str = "supervised",
    alpha: float = ALPHA,
    delta: float = DELTA,
    test: Test = "wilcoxon",
    family: Family = "cell",
    min_seeds: int = MIN_SEEDS,
    resamples: int = RESAMPLES,
) -> pd.DataFrame:
    """Compare every method with ``baseline`` within each cell (data set, backend, pair), paired over seeds.

    ``runs`` has one row per run (see ``tables.runs_table``). One row per cell and method comes back, the teacher first,
    then the baseline, then the methods in order of appearance, with COMPARISON_COLUMNS. Metrics are fractions:

    - ``mean`` and sample ``std`` of the test metric over the ``n_ok`` of ``n`` seeds that finished;
    - over the ``n_pairs`` seeds finished by both: ``diff`` (mean difference to the baseline) with its 95% BCa interval
      (from ``min_seeds`` pairs on), ``diff_std`` (of the differences), ``effect`` (``rank_biserial``), ``p_improve``,
      and ``gap_closed``: that difference as a share of the teacher's, over the seeds that all three finished, where the
      test shows the teacher to be ahead of the baseline;
    - ``p_value`` of the ``test`` that decides: "wilcoxon" (``signed_rank_p``), "permutation" (``sign_flip_p``), or,
      whatever was asked for, "mixed model" (``mixed_estimate``, of which ``diff`` and its interval are then, too) in a
      cell where seeds share teachers; ``p_wilcoxon`` and ``p_ttest`` (``p_ttest_holm``) beside it decide nothing;
    - ``p_holm``: ``p_value`` adjusted by Holm (1979) over the ``family``: the methods of the cell, or of the whole
      table, that have ``min_seeds`` pairs; ``p_resplit_holm``, ``p_equivalent`` (two one-sided tests within ±``delta``)
      and ``p_equivalent_resplit`` (the same with Nadeau and Bengio's error) likewise; ``p_holm_table``: always over the
      whole table;
    - ``detectable``: the smallest difference that these seeds would show with 80% power, ``seeds_needed``: the seeds
      that a difference as large as the one seen would need, both for the signed-rank test at ``level``; see ``power``;
    - ``best``: "best" for the student with the highest mean, "not worse" where ``p_best`` does not show a student to be
      worse than it, else empty; see ``_mark_best``. Of re-drawn splits it speaks of these splits.

    Teacher and baseline are controls and belong to no family. Raises ValueError where ``runs`` lacks a column or the
    baseline, has two runs of one seed, or a finished run without a test value; for an unknown test or family, or a
    margin that is not positive.

    ``verdict`` is one of

    - ``better``, ``worse``: p_holm <= alpha (and, where the split is redrawn per seed, p_resplit_holm <= alpha);
    - ``better on these splits``, ``worse on these splits``: the split is redrawn and only p_holm <= alpha;
    - ``equivalent within δ``: no difference shown and p_equivalent <= alpha (redrawn splits: p_equivalent_resplit, too;
      with the first alone it is ``equivalent within δ on these splits``);
    - ``no difference shown``: which is not "equal";
    - ``too few seeds``: fewer than ``min_seeds`` pairs, or one teacher for all;
    - ``control``; ``skipped``; ``all failed``.

    Why two kinds of "better" where the split is redrawn: given the data set, seeds (split, initialisation) are
    independent and identically distributed, so the signed-rank test is valid for the difference expected over splits of
    THIS data set. ``p_resplit`` (Nadeau and Bengio) speaks of new data from the same source: re-drawn splits share
    most of their nodes, so the variance of the mean difference does not vanish with the number of seeds; its factor is
    1/n + n_test/n_train. With 50 training labels of 1,500 nodes that ratio is 29 and the test can hardly ever reject.
    The stronger word needs both tests; the weaker says what has been shown. Fixed splits: one data set, one claim.
    """
    check_runs(runs, baseline)
    for name, value, known in (("test", test, TESTS), ("family", family, ("cell", "table"))):
        if value not in known:
            raise ValueError(f"{name}: unknown {value!r}: choose from {', '.join(known)}")
    if not delta > 0:
        raise ValueError(f"delta: {delta} is not a margin; give a positive fraction such as 0.01")
    teachers = list(pd.unique(runs.loc[runs["role"] == "teacher", "method"]))
    students = [m for m in pd.unique(runs["method"]) if m != baseline and m not in teachers]
    cells: list[tuple[list[Row], _Scores, _Decision]] = []
    for _, cell in runs.groupby(CELL, sort=False):
        of = {str(method): of_method for method, of_method in cell.groupby("method", sort=False)}
        present = [m for m in dict.fromkeys([*teachers, baseline, *students]) if m in of]
        scores = {m: finished(of_method) for m, of_method in {baseline: cell.head(0), **of}.items()}
        decide = _Decision(test, shared_teachers(cell), alpha, delta, min_seeds)
        members = [
            _summary(of[m], of.get(baseline, cell.head(0)), baseline, scores, decide, resamples) for m in present
        ]
        _close_gaps(members, scores, baseline, decide)
        cells.append((members, scores, decide))
    every = [row for members, _, _ in cells for row in members]
    for rows in [members for members, _, _ in cells] if family == "cell" else [every]:
        _adjust(rows, alpha, min_seeds)
    tested = _family(every, min_seeds)
    for row, p in zip(tested, holm([row["p_value"] for row in tested]), strict=True):
        row["p_holm_table"] = p
    for row in every:
        row["verdict"] = _verdict(row, alpha, min_seeds)
    for members, scores, decide in cells:
        _mark_best(members, scores, decide)
    return pd.DataFrame(every, columns=COMPARISON_COLUMNS).astype({"params": "Int64", "seeds_needed": "Int64"})


class _Decision:
    """The test that decides in one cell. ``teachers``: who taught which seed, where seeds share teachers."""

    def __init__(
        self, test: Test, teachers: "pd.Series[Any] | None", alpha: float, delta: float, min_seeds: int
    ) -> None:
        self.name = test if teachers is None else MIXED
        self.test, self.teachers, self.alpha, self.delta, self.min_seeds = test, teachers, alpha, delta, min_seeds

    def estimate(self, d: "pd.Series[float]") -> Estimate:
        """The mean of the differences ``d`` (by seed) and its error."""
        return paired_estimate(d) if self.teachers is None else mixed_estimate(d, self.teachers[d.index])

    def p(self, d: "pd.Series[float]") -> float:
        """The p that decides."""
        return TESTS[self.test](d.to_numpy(float)) if self.teachers is None else two_sided_p(self.estimate(d))

    def interval(self, d: "pd.Series[float]", resamples: int) -> Interval:
        """95% interval of the mean; none of too few seeds, of which a bootstrap's would be far too narrow."""
        if len(d) < self.min_seeds:
            return Interval(math.nan, math.nan)
        if self.teachers is None:
            return bca_interval(d, resamples=resamples)
        return t_interval(self.estimate(d))


def _differences(a: "pd.Series[float]", b: "pd.Series[float]") -> "pd.Series[float]":
    """a - b by seed, over the seeds that both finished."""
    return pd.Series(paired_differences(a, b), index=a.index.intersection(b.index), dtype=float)


def _summary(
    of_method: pd.DataFrame,
    of_baseline: pd.DataFrame,
    baseline: str,
    scores: _Scores,
    decide: _Decision,
    resamples: int,
) -> Row:
    """One row of ``compare`` before anything that needs the other methods of the cell."""
    score = scores[of_method["method"].iloc[0]]
    d = _differences(score, scores[baseline])
    known = of_method["params"].dropna()
    row: Row = {name: of_method[name].iloc[0] for name in [*CELL, "method", "role", "metric"]} | {
        "baseline": baseline,
        "resplit": bool(of_method["resplit"].astype(bool).any()),
        "params": int(known.iloc[0]) if len(known) else pd.NA,
        "n_ok": len(score),
        "n": len(of_method),
        "mean": score.mean(),
        "std": score.std(ddof=1),
        "n_pairs": 0,
        "seeds_needed": pd.NA,
        "best": "",
        "note": _note(of_method, of_baseline, baseline, len(d)),
        "skipped": bool((of_method["status"] == "skipped").all()),
    }
    if row["method"] == baseline or d.empty:
        return row
    ok = of_method[of_method["status"] == "ok"]
    ratio = float((ok["n_test"].astype(float) / ok["n_train"].astype(float)).mean()) if row["resplit"] else math.nan
    interval, estimate = decide.interval(d, resamples), decide.estimate(d)
    if len(d) > 1 and not d.any():
        _add_note(row, f"identical to {baseline} in every seed")
    if decide.teachers is not None:
        ratio = math.nan  # a teacher of several seeds is of one split
        taught = decide.teachers[d.index].nunique()
        about = f"{len(d)} seeds share {taught} teacher{'s' * (taught > 1)}"
        model = "difference, interval and test are of a mixed model"
        _add_note(row, f"{about}: {model}" if taught > 1 else f"{about}: nothing is known of others")
    return row | {
        "n_pairs": len(d),
        "diff": estimate.mean,
        "diff_std": 0.0 if d.nunique() == 1 else d.std(ddof=1),
        "ci_low": interval.low,
        "ci_high": interval.high,
        "test": decide.name,
        "p_value": decide.p(d),
        "p_wilcoxon": signed_rank_p(d),
        "p_ttest": paired_t_p(d),
        "p_resplit": paired_t_p(d, test_over_train=ratio),
        "p_equivalent": equivalence_p(estimate, decide.delta),
        "p_equivalent_resplit": equivalence_p(paired_estimate(d, test_over_train=ratio), decide.delta),
        "effect": rank_biserial(d),
        "p_improve": share_improved(d),
        "nonzero": int((d != 0).sum()),
    }


def _close_gaps(rows: list[Row], scores: _Scores, baseline: str, decide: _Decision) -> None:
    """``gap_closed`` of each student: meaningful only where the test shows the teacher to be ahead of the baseline."""
    taught = next((row for row in rows if row["role"] == "teacher"), None)
    if taught is None or taught["n_pairs"] < decide.min_seeds:
        return
    if not (taught["diff"] > 0 and taught["p_value"] <= decide.alpha):
        return
    ahead = _differences(scores[taught["method"]], scores[baseline])
    for row in rows:
        if row["n_pairs"] and row is not taught:
            d = _differences(scores[row["method"]], scores[baseline])
            seeds = d.index.intersection(ahead.index)
            if len(seeds):
                gap = decide.estimate(ahead[seeds]).mean
                row["gap_closed"] = decide.estimate(d[seeds]).mean / gap if gap > 0 else math.nan


def _mark_best(rows: list[Row], scores: _Scores, decide: _Decision) -> None:
    """Which students are not shown to be worse than the one with the highest mean (see ``worse_than_best_p``).

    Compared over the seeds that all with the most finished seeds finished; who lacks any of these gets no mark and a
    note. Too few seeds, shared teachers, or a best that is worse than the baseline: no mark at all. The verdicts are
    heard, too: what is worse than the baseline is worse than the best; and the baseline is worse than the best if, and
    only if, that one's verdict is that it is better.
    """
    students = [row for row in rows if row["role"] == "student" and row["n_ok"]]
    most = max((row["n_ok"] for row in students), default=0)
    if most < decide.min_seeds or decide.teachers is not None:
        return
    complete = [set(scores[row["method"]].index) for row in students if row["n_ok"] == most]
    seeds = sorted(set.intersection(*complete))
    ranked = [row for row in students if set(seeds) <= set(scores[row["method"]].index)]
    if len(seeds) < decide.min_seeds or len(ranked) < 2:
        return
    for row in students:
        if all(row is not other for other in ranked):
            _add_note(row, f"not ranked for the best: finished {row['n_ok']} of the {most} seeds that others did")
    p = worse_than_best_p(np.column_stack([scores[row["method"]][seeds] for row in ranked]))
    means = [scores[row["method"]][seeds].mean() for row in ranked]
    best = ranked[means.index(max(means))]
    if best["verdict"].startswith("worse"):
        return
    for row in ranked:
        if row["n_ok"] > len(seeds):
            _add_note(row, f"ranked for the best over the {len(seeds)} seeds that all finished")
    for row, each in zip(ranked, p, strict=True):
        row["p_best"] = math.nan if row is best else float(each)
        beaten = row["p_best"] <= decide.alpha or row["verdict"].startswith("worse")
        if row["method"] == row["baseline"] and row is not best:
            row["p_best"], beaten = best.get("p_holm", math.nan), best["verdict"].startswith("better")
        row["best"] = "best" if row is best else "" if beaten else "not worse"


def _family(rows: list[Row], min_seeds: int) -> list[Row]:
    """The rows that are tested together: no controls, and none of too few seeds or teachers."""
    return [
        row for row in rows
        if row["role"] == "student" and row["method"] != row["baseline"] and row["n_pairs"] >= min_seeds
        and not math.isnan(row["p_value"])
    ]  # fmt: skip


def _adjust(rows: list[Row], alpha: float, min_seeds: int) -> None:
    """Holm over one family, and its power; a family that cannot reject at any outcome is told so."""
    family = _family(rows, min_seeds)
    if not family:
        return
    for name, adjusted in (
        ("p_value", "p_holm"),
        ("p_ttest", "p_ttest_holm"),
        ("p_resplit", "p_resplit_holm"),
        ("p_equivalent", "p_equivalent"),
        ("p_equivalent_resplit", "p_equivalent_resplit"),
    ):
        for row, p in zip(family, holm([row[name] for row in family]), strict=True):
            row[adjusted] = p
    level = alpha / len(family)  # Holm's first step: what is shown there is shown whatever the other methods do
    for row in family:
        row["level"] = level
        if row["test"] != MIXED:
            row["detectable"] = smallest_detectable(row["n_pairs"], row["diff_std"], level)
            needed = seeds_needed(row["diff"], row["diff_std"], level)
            row["seeds_needed"] = pd.NA if needed is None else needed
    pairs = max(row["nonzero"] for row in family)
    smallest = len(family) * 2.0 ** (1 - pairs)
    if pairs and smallest > alpha:
        reason = f"{pairs} pairs that differ, {len(family)} methods: Holm's p cannot be below {min(smallest, 1):.3f}"
        for row in family:
            if row["test"] != MIXED:
                _add_note(row, f"{reason}, more seeds are needed")


def _verdict(row: Row, alpha: float, min_seeds: int) -> str:
    if row["skipped"]:
        return "skipped"
    if row["n_ok"] == 0:
        return "all failed"
    if row["role"] == "teacher" or row["method"] == row["baseline"]:
        return "control"
    if row["n_pairs"] < min_seeds or math.isnan(row["p_value"]):
        return "too few seeds"
    splits = " on these splits" if row["resplit"] else ""
    if row["p_holm"] <= alpha and (row["test"] == MIXED or row["diff"] * row["effect"] > 0):
        word = "better" if row["diff"] > 0 else "worse"
        return word if row["p_resplit_holm"] <= alpha else word + splits
    if row["p_holm"] <= alpha:
        _add_note(row, "ranks and mean differ in direction")
    elif row["p_equivalent"] <= alpha:
        return "equivalent within δ" + ("" if row["p_equivalent_resplit"] <= alpha else splits)
    return "no difference shown"


def _add_note(row: Row, text: str) -> None:
    row["note"] = "; ".join(filter(None, [row["note"], text]))


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
