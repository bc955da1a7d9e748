"""Across cells: do methods rank alike over data sets and pairs, and how sure is that? Imports no torch.

A cell here is a (data set, pair), and the score of a seed in it the mean over the libraries: two libraries on the same
splits and initial weights are one piece of evidence, not two.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import scikit_posthocs
from numpy.typing import NDArray
from scipy import stats

from distillbench.params import MIN_CELLS
from distillbench.statistics.frames import check_runs
from distillbench.statistics.paired import ALPHA, holm, signed_rank_p

ACROSS_COLUMNS = [
    "method", "mean_rank", "rank_low", "rank_high", "first", "iqm", "iqm_low", "iqm_high",
    "p_improve", "p_improve_low", "p_improve_high", "p_nemenyi", "p_wilcoxon_holm",
]  # fmt: skip
MIN_METHODS = 3  # two are compared by the signed-rank test of one pair
NAMED = 12  # methods that a sentence names, at most

Array = NDArray[np.float64]


class Across(NamedTuple):
    """What can be said over ``cells`` cells of ``methods`` (students with a finished run in each), and ``sentence``.

    ``statistic`` and ``p`` are Friedman's; NaN where there were too few cells or methods. ``table`` has a row per
    method by mean rank with ACROSS_COLUMNS, none where there were too few. ``nemenyi`` and ``wilcoxon`` are symmetric
    frames of pairwise p values [methods, methods], empty unless Friedman's test rejects at ``alpha``.
    ``critical_difference`` is Nemenyi's, in ranks. ``left_out``: methods without a finished run in some cell.
    """

    cells: int
    methods: tuple[str, ...]
    statistic: float
    p: float
    sentence: str
    table: pd.DataFrame
    nemenyi: pd.DataFrame
    wilcoxon: pd.DataFrame
    critical_difference: float
    left_out: tuple[str, ...]
    baseline: str
    alpha: float


class Cell(NamedTuple):
    """``scores`` [seeds, methods] and the baseline's ``reference`` [seeds], NaN where nothing finished, and ``drawn``.

    ``drawn`` [1 + resamples, seeds] is how often each seed counts: once in the first row, which is what was observed.
    """

    scores: Array
    reference: Array
    drawn: Array


def across_cells(
    runs: pd.DataFrame,
    *,
    baseline: str = "supervised",
    min_cells: int = MIN_CELLS,
    alpha: float = ALPHA,
    resamples: int = 2000,
) -> Across:
    """Do the students' test scores rank alike over cells? Tests and intervals, if cells and methods suffice.

    Tests, over the mean scores of the cells: Friedman's (JASA 1937, by scipy; its chi-square approximation is rough
    below ten cells and five methods); where it rejects, Nemenyi's for every pair (Demšar, JMLR 2006, by
    scikit-posthocs) and, as a second opinion that does not depend on which other methods are there, the exact
    signed-rank test with Holm's correction over the pairs (Benavoli, Corani, Mangili, JMLR 2016). Columns ``p_nemenyi``
    and ``p_wilcoxon_holm`` are those against ``baseline``.

    Estimates, each with a 95% percentile interval of a bootstrap stratified by cell (Agarwal et al., NeurIPS 2021:
    "rliable"), in which the seeds of a cell are resampled together for all methods, since they are paired:

    - ``mean_rank``, and ``first``: the share of resamples in which it is lowest (ties share);
    - ``iqm``: interquartile mean of the scores of all cells and seeds, fractions as they are;
    - ``p_improve``: mean over cells of P(X > Y), ties half, X a score of the method and Y one of ``baseline`` with any
      seed. The one in ``stats.compare`` is another: the share of seeds improved on with the SAME seed.

    The intervals say how sure the result is over seeds, for these cells; the tests, how sure over cells. A cell's score
    is over the seeds that finished; in a resample that has none of a method's, all of them stand in. Failed seeds may
    well have been the hard ones. Methods without a finished run in some cell are left out and named.
    Raises ValueError as ``frames.check_runs`` does.
    """
    check_runs(runs, baseline)
    cells, methods, left_out = _cells(runs, baseline, resamples)
    k, nothing = len(methods), pd.DataFrame()
    if len(cells) < min_cells or k < MIN_METHODS:
        sentence = (
            f"No test across data sets: at least {min_cells} cells (data set × pair) and {MIN_METHODS} methods are "
            f"needed; here are {len(cells)} and {k}.{_lacking(left_out)}"
        )
        table, nan = pd.DataFrame(columns=ACROSS_COLUMNS), math.nan
        return Across(len(cells), methods, nan, nan, sentence, table, nothing, nothing, nan, left_out, baseline, alpha)
    means = np.array([np.nanmean(cell.scores, axis=0) for cell in cells]).round(12)
    statistic, p = _friedman(means)
    found = Across(
        cells=len(cells),
        methods=methods,
        statistic=statistic,
        p=p,
        sentence="",
        table=_estimates(cells, methods, baseline),
        nemenyi=_nemenyi(means, methods) if p <= alpha else nothing,
        wilcoxon=_wilcoxon(means, methods) if p <= alpha else nothing,
        critical_difference=critical_difference(k, len(cells), alpha),
        left_out=left_out,
        baseline=baseline,
        alpha=alpha,
    )
    for column, pairwise in (("p_nemenyi", found.nemenyi), ("p_wilcoxon_holm", found.wilcoxon)):
        if baseline in pairwise:
            found.table[column] = found.table["method"].map(pairwise[baseline].drop(baseline))
    datasets = runs.loc[runs["status"] == "ok", "dataset"].nunique()
    related = "" if datasets >= len(cells) else (
        f" The cells are pairs of {datasets} data set{'s' * (datasets > 1)}: those of one are not independent."
    )  # fmt: skip
    return found._replace(sentence=_sentence(found) + related)


def critical_difference(methods: int, cells: int, alpha: float) -> float:
    """The difference of two mean ranks from which Nemenyi's test rejects (Demšar 2006, section 3.2.2)."""
    q = stats.studentized_range.ppf(1 - alpha, methods, math.inf) / math.sqrt(2)
    return float(q * math.sqrt(methods * (methods + 1) / (6 * cells)))


def _cells(runs: pd.DataFrame, baseline: str, resamples: int) -> tuple[list[Cell], tuple[str, ...], tuple[str, ...]]:
    """Scores and draws of each cell, the methods that are in all of them, and those that are not."""
    ok = runs[runs["status"] == "ok"]
    by_seed = ok.groupby(["dataset", "pair", "seed", "method"], sort=False)["test"].mean().round(12).unstack()
    students = pd.unique(runs.loc[runs["role"] == "student", "method"])
    reference = by_seed[baseline] if baseline in by_seed else pd.Series(math.nan, by_seed.index)
    by_seed = by_seed.reindex(columns=students).dropna(how="all")
    complete = by_seed.notna().groupby(level=["dataset", "pair"], sort=False).any().all()
    methods = [name for name in students if complete[name]] if len(by_seed) else []
    random = np.random.default_rng(0)
    cells = []
    for _, of_cell in by_seed.groupby(level=["dataset", "pair"], sort=False):
        n = len(of_cell)
        drawn = random.multinomial(n, np.full(n, 1 / n), size=resamples).astype(float)
        theirs = np.asarray(reference.reindex(of_cell.index), float)
        cells.append(Cell(of_cell[methods].to_numpy(float), theirs, np.vstack([np.ones(n), drawn])))
    return cells, tuple(map(str, methods)), tuple(str(name) for name in students if name not in methods)


def _weights(drawn: Array, scores: Array) -> Array:
    """How often each of ``scores`` [seeds] counts in each draw: not where it is NaN; all, where none was drawn."""
    done = ~np.isnan(scores)
    weights = drawn * done
    weights[weights.sum(axis=1) == 0] = done
    return weights


def _estimates(cells: list[Cell], methods: tuple[str, ...], baseline: str) -> pd.DataFrame:
    """The rows of ``across_cells``, by mean rank, before any p value."""
    ranks = _mean_ranks(cells)
    lowest = ranks[1:] == ranks[1:].min(axis=1, keepdims=True)
    first = (lowest / lowest.sum(axis=1, keepdims=True)).mean(axis=0)
    with_reference = all((~np.isnan(cell.reference)).any() for cell in cells)
    rows = []
    for m, method in enumerate(methods):
        row = {"method": method, "first": first[m]}
        row |= _estimate("mean_rank", "rank", ranks[:, m]) | _estimate("iqm", "iqm", _iqm(cells, m))
        if with_reference and method != baseline:
            row |= _estimate("p_improve", "p_improve", _improvement(cells, m))
        rows.append(row)
    table = pd.DataFrame(rows, columns=ACROSS_COLUMNS).astype(dict.fromkeys(ACROSS_COLUMNS[1:], float))
    return table.sort_values("mean_rank", kind="stable", ignore_index=True)


def _estimate(name: str, prefix: str, draws: Array) -> dict[str, float]:
    """What was observed, which is the first of ``draws``, and the percentile interval of the others."""
    low, high = np.percentile(draws[1:], [2.5, 97.5])
    return {name: float(draws[0]), f"{prefix}_low": float(low), f"{prefix}_high": float(high)}


def _mean_ranks(cells: list[Cell]) -> Array:
    """Mean over cells of the ranks of the methods' mean scores, 1 the best, ties shared; [draws, methods]."""
    total = 0
    for cell in cells:
        means = np.empty((len(cell.drawn), cell.scores.shape[1]))
        for m, scores in enumerate(cell.scores.T):
            weights = _weights(cell.drawn, scores)
            means[:, m] = weights @ np.nan_to_num(scores) / weights.sum(axis=1)
        total = total + stats.rankdata(-means.round(12), axis=1)
    return np.asarray(total / len(cells))


def _iqm(cells: list[Cell], m: int) -> Array:
    """Mean of the scores of method ``m`` that are left when a quarter is cut off at either end; [draws]."""
    scores = np.concatenate([cell.scores[:, m] for cell in cells])
    weights = np.hstack([_weights(cell.drawn, cell.scores[:, m]) for cell in cells])
    order = np.argsort(scores)  # NaN comes last, and has no weight
    upto = weights[:, order].cumsum(axis=1)
    n = upto[:, -1:]
    cut = np.floor(n / 4)
    kept = np.diff(np.clip(upto, cut, n - cut), axis=1, prepend=cut)
    return np.asarray(kept @ np.nan_to_num(scores[order]) / kept.sum(axis=1))


def _improvement(cells: list[Cell], m: int) -> Array:
    """Mean over cells of the chance that a score of method ``m`` is above one of the baseline, ties half; [draws]."""
    total = 0
    for cell in cells:
        scores = cell.scores[:, m]
        ours, theirs = _weights(cell.drawn, scores), _weights(cell.drawn, cell.reference)
        above = np.nan_to_num(np.heaviside(np.subtract.outer(scores, cell.reference), 0.5))
        total = total + (ours @ above * theirs).sum(axis=1) / (ours.sum(axis=1) * theirs.sum(axis=1))
    return np.asarray(total / len(cells))


def _friedman(means: Array) -> tuple[float, float]:
    """Friedman's statistic and p of ``means`` [cells, methods]; 0 and 1 where all methods tie in every cell."""
    if (np.ptp(means, axis=1) == 0).all():
        return 0.0, 1.0
    statistic, p = stats.friedmanchisquare(*means.T)
    return float(statistic), float(p)


def _nemenyi(means: Array, methods: tuple[str, ...]) -> pd.DataFrame:
    p = scikit_posthocs.posthoc_nemenyi_friedman(means).to_numpy()
    return pd.DataFrame(p, list(methods), list(methods))


def _wilcoxon(means: Array, methods: tuple[str, ...]) -> pd.DataFrame:
    """p values of the signed-rank test over cells, adjusted by Holm over all pairs; 1 on the diagonal."""
    first, second = np.triu_indices(len(methods), 1)
    p = np.eye(len(methods))
    p[first, second] = p[second, first] = holm(
        [signed_rank_p((means[:, i] - means[:, j]).round(12)) for i, j in zip(first, second, strict=True)]
    )
    return pd.DataFrame(p, list(methods), list(methods))


def _sentence(found: Across) -> str:
    """What was found, in words: Friedman, the lowest rank, the pairs told apart, the baseline's among them."""
    best, k = found.table.iloc[0], len(found.methods)
    differ = found.p <= found.alpha
    parts = [
        f"Over {found.cells} cells (data set × pair) the ranks of {k} methods "
        f"{'differ' if differ else 'are not shown to differ'} (Friedman χ² = {found.statistic:.2f}, p = {found.p:.3g})."
    ]
    if differ:
        parts.append(
            f"{best['method']} has the lowest mean rank, {best['mean_rank']:.2f} (95% interval over seeds "
            f"{best['rank_low']:.2f} to {best['rank_high']:.2f}; first in {_percent(best['first'])} of the resamples)."
        )
        parts += [_pairs_told_apart(found), _against_baseline(found)]
    return " ".join(filter(None, parts)) + _lacking(found.left_out)


def _pairs_told_apart(found: Across) -> str:
    pairs = math.comb(len(found.methods), 2)
    by = [int((np.triu(p.to_numpy() <= found.alpha, 1)).sum()) for p in (found.nemenyi, found.wilcoxon)]
    text = (
        f"Of {pairs} pairs, Nemenyi's test tells {by[0]} apart and the signed-rank test with Holm's correction {by[1]}"
    )
    smallest = pairs * 2.0 ** (1 - found.cells)
    if smallest > found.alpha:
        text += f" (whose p cannot be below {min(smallest, 1):.2g} with {found.cells} cells)"
    return text + "."


def _against_baseline(found: Across) -> str:
    """Which methods Nemenyi's test puts before or behind the baseline."""
    if found.baseline not in found.methods:
        return ""
    shown = found.table[found.table["p_nemenyi"] <= found.alpha]
    place = found.table.set_index("method").loc[found.baseline, "mean_rank"]
    sides = {
        "ahead of": list(shown.loc[shown["mean_rank"] < place, "method"]),
        "behind": list(shown.loc[shown["mean_rank"] > place, "method"]),
    }
    told = [f"{side} {found.baseline}: {_named(names)}" for side, names in sides.items() if names]
    if not told:
        return f"None is shown to differ from {found.baseline} by Nemenyi's test."
    return f"By Nemenyi's test, {'; '.join(told)}."


def _percent(share: float) -> str:
    """A share that is not all is not called 100%."""
    return f"{100 * share:.0f}%" if share == 1 or share < 0.995 else "over 99%"


def _lacking(left_out: Sequence[str]) -> str:
    """Which methods are left out, and why."""
    return f" Left out, without a finished run in some cell: {_named(left_out)}." if left_out else ""


def _named(names: Sequence[str]) -> str:
    named = ", ".join(itertools.islice(names, NAMED))
    return named + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
