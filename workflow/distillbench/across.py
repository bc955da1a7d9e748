"""Across cells: do methods rank alike over data sets and pairs? Imports no torch."""

import math
from typing import NamedTuple

import pandas as pd
from scipy import stats

from distillbench.frames import check_runs
from distillbench.paired import ALPHA


class Across(NamedTuple):
    """Friedman's test over cells: ``statistic`` and ``p`` are NaN where there were too few, ``sentence`` says which."""

    cells: int
    methods: tuple[str, ...]
    statistic: float
    p: float
    sentence: str


def across_cells(runs: pd.DataFrame, *, min_cells: int = 6) -> Across:
    """Do the students' mean test scores rank alike over cells? Friedman's test (JASA 1937, by scipy), if cells suffice.

    A cell here is a (data set, pair), its score the mean over backends and seeds: two libraries on the same splits and
    initial weights are one piece of evidence, not two. Cells in which a method has no finished run are left out. The
    test's chi-square approximation is rough below ten cells and five methods (Demšar, JMLR 2006).
    """
    check_runs(runs, None)
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
