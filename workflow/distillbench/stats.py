"""Which differences between methods are shown, and which are not. The unit is the seed, and seeds are paired.

Seed s fixes split, teacher, initial weights and batch order for every method of a cell (data set, backend, pair), so
every statement here is about the differences method - baseline, seed by seed. Importing this module imports no torch.
"""

import difflib
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

ALPHA = 0.05
MIN_SEEDS = 6  # the smallest n at which an exact two-sided signed-rank test can reach p < 0.05 (2/2^6 = 0.031)
RESAMPLES = 9999
CELL = ["dataset", "backend", "pair"]
COMPARISON_COLUMNS = [
    *CELL, "method", "role", "baseline", "metric", "resplit", "params", "n_ok", "n", "mean", "std", "n_pairs", "diff",
    "ci_low", "ci_high", "p_wilcoxon", "p_holm", "p_ttest", "p_resplit", "p_resplit_holm", "effect", "p_improve",
    "verdict", "note",
]  # fmt: skip
EQUIVALENCE_COLUMNS = [
    "dataset", "pair", "method", "role", "metric", "backend_a", "backend_b", "n_pairs", "mean_a", "mean_b", "diff",
    "ci90_low", "ci90_high", "delta", "p_tost", "verdict", "note",
]  # fmt: skip
NEEDED = [
    *CELL, "method", "role", "seed", "status", "reason", "metric", "test", "params", "resplit", "n_train", "n_test",
]  # fmt: skip


class Interval(NamedTuple):
    """Lower and upper end, in the unit of the values; NaN where it cannot be computed."""

    low: float
    high: float


class Across(NamedTuple):
    """Friedman's test over cells: ``statistic`` and ``p`` are NaN where there were too few, ``sentence`` says which."""

    cells: int
    methods: tuple[str, ...]
    statistic: float
    p: float
    sentence: str


def paired_differences(a: pd.Series, b: pd.Series) -> NDArray[np.float64]:
    """a - b [n_pairs] over the index values (seeds) that both have, rounded to 12 decimals.

    Metrics are counts over counts; without the rounding two equal differences (one node more, twice) differ in the last
    bit of their floats, and a tie would be ranked as if it were none.
    """
    seeds = a.index.intersection(b.index)
    differences: NDArray[np.float64] = a.loc[seeds].to_numpy(float) - b.loc[seeds].to_numpy(float)
    return differences.round(12)


def bca_interval(values: ArrayLike, *, confidence: float = 0.95, resamples: int = RESAMPLES) -> Interval:
    """Bias-corrected and accelerated bootstrap interval of the mean of ``values`` [n].

    Efron, JASA 1987; computed by scipy with a fixed generator, so that the same runs give the same interval. With few
    seeds it is somewhat narrow: on normal data with n = 10 it covers the mean in about 90% of the cases, not 95%.
    One value has no interval (NaN); equal values have one of length zero.
    """
    x = np.asarray(values, float)
    if x.size < 2:
        return Interval(math.nan, math.nan)
    if np.ptp(x) == 0:
        return Interval(float(x[0]), float(x[0]))
    found = stats.bootstrap(
        (x,), np.mean, confidence_level=confidence, n_resamples=resamples, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    return Interval(float(found.low), float(found.high))


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
        chance = (np.pad(chance, (0, rank)) + np.pad(chance, (rank, 0))) / 2
    positive = int(doubled[d > 0].sum())
    return float(min(1.0, 2 * min(chance[: positive + 1].sum(), chance[positive:].sum())))


def rank_biserial(differences: ArrayLike) -> float:
    """Matched-pairs rank-biserial correlation of ``differences`` [n], in [-1, 1]; 0 where all are zero.

    (W+ - W-) / (W+ + W-) with the rank sums of the signed-rank test, zeros dropped. Kerby, Compr. Psychol. 2014.
    """
    d = np.asarray(differences, float)
    d = d[d != 0]
    if d.size == 0:
        return 0.0
    ranks = stats.rankdata(np.abs(d))
    return float((ranks * np.sign(d)).sum() / ranks.sum())


def share_improved(differences: ArrayLike) -> float:
    """Share of ``differences`` [n] above zero, a zero counting half."""
    d = np.asarray(differences, float)
    return float((d > 0).mean() + (d == 0).mean() / 2)


def paired_t_p(differences: ArrayLike, *, test_over_train: float = 0.0) -> float:
    """Two-sided p of the paired t test of ``differences`` [n], n - 1 degrees of freedom.

    With ``test_over_train`` = n_test / n_train it is the corrected resampled t test of Nadeau and Bengio (Machine
    Learning 2003, section 3): the variance of the mean is (1/n + n_test/n_train) s², because re-drawn splits of one
    data set overlap. NaN for n < 2 or where the ratio is NaN; differences that do not vary give 1 if zero, else 0.
    """
    d = np.asarray(differences, float)
    if d.size < 2 or math.isnan(test_over_train):
        return math.nan
    if np.ptp(d) == 0:
        return 1.0 if d[0] == 0 else 0.0
    t = d.mean() / math.sqrt((1 / d.size + test_over_train) * d.var(ddof=1))
    return float(2 * stats.t.sf(abs(t), d.size - 1))


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
    _check(runs, baseline)
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
    _check(runs, None)
    if delta <= 0:
        raise ValueError(f"delta: {delta} is not a margin; give a positive fraction such as 0.01")
    rows: list[dict[str, Any]] = []
    if {backend_a, backend_b} <= set(runs["backend"]):
        for (dataset, pair, method), group in runs.groupby(["dataset", "pair", "method"], sort=False):
            a, b = (group[group["backend"] == backend] for backend in (backend_a, backend_b))
            score_a, score_b = _finished(a), _finished(b)
            d = paired_differences(score_a, score_b)
            seeds = score_a.index.intersection(score_b.index)
            low, high, p = _tost(d, delta)
            shown = "equivalent within δ" if p <= ALPHA else "not shown equivalent"
            failed = [(backend_a, _failures(a)), (backend_b, _failures(b))]
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


def across_cells(runs: pd.DataFrame, *, min_cells: int = 6) -> Across:
    """Do the students' mean test scores rank alike over cells? Friedman's test (JASA 1937, by scipy), if cells suffice.

    A cell here is a (data set, pair), its score the mean over backends and seeds: two libraries on the same splits and
    initial weights are one piece of evidence, not two. Cells in which a method has no finished run are left out. The
    test's chi-square approximation is rough below ten cells and five methods (Demšar, JMLR 2006).
    """
    _check(runs, None)
    students = runs[runs["role"] == "student"]
    by_backend = students.groupby(["dataset", "pair", "method", "backend"], sort=False)["test"].mean()
    scores = by_backend.groupby(level=[0, 1, 2], sort=False).mean().unstack().dropna()
    cells, methods = len(scores), tuple(str(m) for m in scores.columns)
    few = f"at least {min_cells} cells (data set × pair) and 3 methods are needed; here are {cells} and {len(methods)}."
    if cells < min_cells or len(methods) < 3:
        return Across(cells, methods, math.nan, math.nan, f"No test across data sets: {few}")
    statistic, p = stats.friedmanchisquare(*scores.to_numpy().T)
    result = "differ" if p <= ALPHA else "are not shown to differ"
    test = f"(Friedman χ² = {statistic:.2f}, p = {p:.3g})"
    sentence = f"Over {cells} cells the ranks of {len(methods)} methods {result} {test}."
    return Across(cells, methods, float(statistic), float(p), sentence)


def _check(runs: pd.DataFrame, baseline: str | None) -> None:
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


def _finished(runs: pd.DataFrame) -> pd.Series:
    ok = runs[runs["status"] == "ok"]
    return ok.set_index("seed")["test"].sort_index()


def _summary(of_method: pd.DataFrame, of_baseline: pd.DataFrame, baseline: str, resamples: int) -> dict[str, Any]:
    """One row of ``compare`` before anything that needs the other methods of the cell."""
    score, reference = _finished(of_method), _finished(of_baseline)
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


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p values of one family, by statsmodels. A NaN stays NaN and is not counted."""
    values = np.asarray(p, float)
    known = ~np.isnan(values)
    if known.any():
        values[known] = multipletests(values[known], method="holm")[1]
    return cast("list[float]", values.tolist())


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
    parts = [_failures(of_method)]
    seeds, reference = set(of_method["seed"]), set(of_baseline["seed"])
    is_baseline = of_method["method"].iloc[0] == baseline
    if not is_baseline and pairs < len(seeds) and (of_method["status"] != "skipped").any():
        parts.append(f"{baseline}: {text}" if (text := _failures(of_baseline)) else "")
        parts.append(f"no run of {baseline} for {_seeds(seeds - reference)}" if seeds - reference else "")
        parts.append(f"compared over {pairs} of {len(seeds)} seeds")
    return "; ".join(filter(None, parts))


def _failures(runs: pd.DataFrame) -> str:
    """``seeds 3, 5 diverged (loss is NaN); seed 7 oom``; where all were skipped, only why."""
    bad = runs[runs["status"] != "ok"]
    if bad.empty:
        return ""
    parts = []
    for (status, reason), group in bad.fillna({"reason": ""}).groupby(["status", "reason"], sort=False):
        why = " ".join(str(reason).split())
        why = f" ({why[:157] + '…' if len(why) > 158 else why})" if why else ""
        whole = status == "skipped" and len(group) == len(runs)
        parts.append(f"{'' if whole else _seeds(set(group['seed'])) + ' '}{status}{why}")
    return "; ".join(parts)


def _seeds(seeds: set[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, sorted(seeds)))}"


def _tost(d: NDArray[np.float64], delta: float) -> tuple[float, float, float]:
    """90% t interval of the mean of ``d`` and TOST's p; differences that do not vary are inside the margin or not."""
    if d.size < 2:
        return math.nan, math.nan, math.nan
    if np.ptp(d) == 0:
        return float(d[0]), float(d[0]), 0.0 if abs(d[0]) < delta else 1.0
    half = stats.t.ppf(0.95, d.size - 1) * d.std(ddof=1) / math.sqrt(d.size)
    return d.mean() - half, d.mean() + half, float(ttost_paired(d, np.zeros_like(d), -delta, delta)[0])
