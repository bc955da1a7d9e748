"""Which differences between methods are shown, and which are not. The unit is the seed, and seeds are paired.

Seed s fixes split, teacher, initial weights and batch order for every method of a data set and pair, so every statement
here is about the differences method - baseline, seed by seed. docs/statistics.md explains the tests. Importing this
module imports no torch.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np
import pandas as pd
from scipy import stats

from distillbench.params import MIN_SEEDS
from distillbench.predictions import Rows
from distillbench.statistics.frames import check_runs, failures, finished, seeds_in_words, shared_teachers
from distillbench.statistics.paired import (
    ALPHA,
    COLLAPSE,
    DELTA,
    Deltas,
    equivalence_p,
    holm,
    margin,
    signed_rank_p,
    step_down_p,
)
from distillbench.statistics.power import POWER
from distillbench.statistics.two_way import Sample, TwoWay, interval_of, mean_of
from distillbench.wording import backend_label, backend_order

TESTED = ("better", "worse", "equivalent", "no difference shown")  # how verdicts begin that a test stands behind
SIZES = ("n_train", "n_val", "n_test")
LESS = ", by less than δ"
NAN = math.nan


@dataclass
class Compared:
    """A method on one data set and pair, beside the baseline. Metrics are fractions, NaN is what is not known.

    Attributes:
        backend: the library; several joined by ``+`` where they agree: see ``_together``.
        resplit: every seed has a split of its own.
        n_ok, n: seeds that finished (with each of the libraries), and that were asked for.
        mean, std: of the test metric over the seeds that finished; the sample standard deviation.
        n_pairs: seeds that the baseline finished, too. What follows is about these.
        diff, diff_std: mean and sample standard deviation of the differences to the baseline.
        se, se_rows: standard error of ``diff``, and the part of it that is of the test rows (``two_way``); n_rows: how
            many there were; 0 where no predictions are stored, and the error is of seeds alone.
        ci_low, ci_high: interval of ``diff``: those of all methods of the data set and pair hold together with 95%
            (1 - alpha).
        improved, collapsed: seeds above the baseline's; seeds ten points or more below the method's median.
        p, p_table: of step-down max-|t| over the methods of the data set and pair (``paired.step_down_p``), and of
            all of the table.
        p_wilcoxon: signed-rank test with Holm's correction, for comparison; it decides nothing.
        p_equivalent: two one-sided tests within ±``delta``, by Holm; unknown where seeds collapsed.
        detectable: smallest true difference whose interval would exclude 0 with 80% power; likewise.
        gap_closed: ``diff`` as a share of the teacher's, where both are positive and the teacher's is shown.
        best_diff, best_low, best_high: difference to the student with the highest mean, and its interval; those of all
            pairs hold together. Over the seeds that all of them finished; NaN for who lacks one.
        verdict: see ``compare``.
    """

    dataset: str
    backend: str
    pair: str
    method: str
    role: str
    baseline: str
    metric: str
    resplit: bool
    params: int | None
    n_ok: int
    n: int
    mean: float
    std: float
    n_pairs: int = 0
    diff: float = NAN
    diff_std: float = NAN
    se: float = NAN
    se_rows: float = NAN
    n_rows: int = 0
    ci_low: float = NAN
    ci_high: float = NAN
    improved: int = 0
    collapsed: int = 0
    p: float = NAN
    p_table: float = NAN
    p_wilcoxon: float = NAN
    p_equivalent: float = NAN
    detectable: float = NAN
    gap_closed: float = NAN
    best_diff: float = NAN
    best_low: float = NAN
    best_high: float = NAN
    delta: float = DELTA
    verdict: str = ""
    note: str = ""

    @property
    def is_control(self) -> bool:
        """Whether it is the baseline, a teacher or another control: in no family of tests."""
        return self.role != "student" or self.method == self.baseline

    def add_note(self, text: str) -> None:
        """Say one thing more."""
        self.note = "; ".join(filter(None, [self.note, text]))


COMPARISON_COLUMNS = [field.name for field in fields(Compared)]


def compare(
    runs: pd.DataFrame,
    rows: Rows | None = None,
    *,
    baseline: str = "supervised",
    alpha: float = ALPHA,
    delta: Deltas = DELTA,
    min_seeds: int = MIN_SEEDS,
) -> pd.DataFrame:
    """Compare every method with ``baseline`` on each data set and pair, paired over seeds.

    ``runs`` has one row per run (``runs.runs_table``), ``rows`` the score of each test row (``predictions``). A row per
    data set, pair and method comes back, with COMPARISON_COLUMNS (``Compared``): the teacher first, then other controls
    and the baseline, then the methods in order of appearance. A method has one row where the libraries agree on it, and
    one for each where they do not. delta: margin of equivalence (``paired.margin``).

    ``verdict`` is one of

    - ``better``, ``worse``: the p of step-down max-|t| is at most ``alpha``, and the simultaneous two-way interval
      excludes 0; ``…, by less than δ`` where the difference is shown to be within the margin, too;
    - ``equivalent within δ``: no difference is shown, and two one-sided tests show it to be within ±δ;
    - ``no difference shown``: which is not "equal";
    - ``too few seeds``: fewer than ``min_seeds`` pairs, or teachers where seeds share them;
    - ``control``; ``skipped``; ``all failed``.

    Both are asked for, since flips of the signs of seeds are exact with few seeds but know nothing of test rows.
    Raises ValueError where ``runs`` lacks a column or the baseline, has two runs of one seed, or a finished run without
    a test value, or where a margin is not positive.
    """
    check_runs(runs, baseline)
    found = [
        _Family(of_pair, rows or {}, baseline, alpha, margin(delta, str(dataset), str(pair)), min_seeds)
        for (dataset, pair), of_pair in runs.groupby(["dataset", "pair"], sort=False)
    ]
    _adjust_table(found)
    every = [asdict(row) for family in found for row in family.finish()]
    return pd.DataFrame(every, columns=COMPARISON_COLUMNS).astype({"params": "Int64"})


class _Family:
    """The methods of one data set and pair, which are tested together."""

    def __init__(
        self, runs: pd.DataFrame, stored: Rows, baseline: str, alpha: float, delta: float, min_seeds: int
    ) -> None:
        self.baseline, self.alpha, self.delta, self.min_seeds = baseline, alpha, delta, min_seeds
        self.dataset, self.pair = str(runs["dataset"].iloc[0]), str(runs["pair"].iloc[0])
        self.units = next(
            (units for _, cell in runs.groupby("backend") if (units := shared_teachers(cell)) is not None), None
        )
        self.common = _common(runs)
        self.of = {(str(m), str(b)): each for (m, b), each in runs.groupby(["method", "backend"], sort=False)}
        self.alone = {key: self._sample(key, each, stored) for key, each in self.of.items()}
        self.rows: list[Compared] = []
        self.samples: list[Sample] = []
        self.differences: list[Sample] = []
        for method in self._ordered(runs):
            for backends in self._together(method):
                self._add(method, backends)
        # together, what has enough pairs; the teacher and others for themselves
        self.tested = [j for j, row in enumerate(self.rows) if not row.is_control and self._units_of(j) >= min_seeds]
        self._test()
        self._find_best()

    def _sample(self, key: tuple[str, str], of_method: pd.DataFrame, stored: Rows) -> Sample:
        method, backend = key
        scores = finished(of_method)
        found = {seed: stored.get((self.dataset, backend, self.pair, method, int(seed))) for seed in scores.index}
        known = {seed: each for seed, each in found.items() if each is not None}
        return Sample(scores, known if len(known) == len(scores) else None)

    def _ordered(self, runs: pd.DataFrame) -> list[str]:
        """Teacher, other controls, baseline, students."""
        role = runs.drop_duplicates("method").set_index("method")["role"]
        place = {"teacher": 0, "student": 3}
        names = [str(name) for name in role.index]
        return sorted(names, key=lambda name: 2 if name == self.baseline else place.get(role[name], 1))

    def _together(self, method: str) -> list[tuple[str, ...]]:
        """The libraries whose runs are one row, and those that have one each.

        Two libraries give the same score to the last digit in most runs: they are one piece of evidence, not two. They
        agree where they finished the same seeds, and these do not show the means of two to differ by more than δ (by
        flips of signs), of the method and of the baseline.
        """
        there = sorted((b for m, b in self.of if m == method), key=backend_order)
        skipped = [b for b in there if (self.of[method, b]["status"] == "skipped").all()]
        live = [b for b in there if b not in skipped]
        alike = self._agree(method, live) and (method == self.baseline or self._agree(self.baseline, live))
        return [tuple(live)] * bool(live) + [(b,) for b in skipped] if alike else [(b,) for b in there]

    def _agree(self, method: str, backends: Sequence[str]) -> bool:
        scores = [self.alone[method, b].scores for b in backends if (method, b) in self.alone]
        for a, b in itertools.combinations(scores, 2):
            if not a.index.equals(b.index):
                return False
            d = (a - b).to_numpy(float)
            if d.size and (abs(d.mean()) > self.delta and step_down_p(d)[0] <= self.alpha):
                return False
        return True

    def _add(self, method: str, backends: tuple[str, ...]) -> None:
        frames = [self.of[method, b] for b in backends]
        sample = mean_of([self.alone[method, b] for b in backends])
        against = [self.alone[self.baseline, b] for b in backends if (self.baseline, b) in self.alone]
        reference = mean_of(against) if len(against) == len(backends) else Sample(pd.Series(dtype=float))
        d = sample - reference if method != self.baseline else Sample(pd.Series(dtype=float))
        frame, known = frames[0], pd.concat([f["params"] for f in frames]).dropna()
        median = sample.scores.median()
        row = Compared(
            dataset=self.dataset,
            backend="+".join(backends),
            pair=self.pair,
            method=method,
            role=str(frame["role"].iloc[0]),
            baseline=self.baseline,
            metric=str(frame["metric"].iloc[0]),
            resplit=any(bool(f["resplit"].astype(bool).any()) for f in frames),
            params=int(known.iloc[0]) if len(known) else None,
            n_ok=len(sample.scores),
            n=max(map(len, frames)),
            mean=sample.scores.mean(),
            std=sample.scores.std(ddof=1),
            n_pairs=len(d.scores),
            diff_std=d.scores.std(ddof=1) if d.scores.nunique() > 1 else 0.0 if len(d.scores) > 1 else NAN,
            improved=int((d.scores > 0).sum()),
            collapsed=int((sample.scores <= median - COLLAPSE + 1e-12).sum()),
            delta=self.delta,
            note=self._note(method, backends, len(d.scores)),
        )
        if (skip := [f for f in frames if (f["status"] == "skipped").all()]) and len(skip) == len(frames):
            row.verdict = "skipped"
        if len(d.scores) > 1 and not d.scores.any():
            row.add_note(f"identical to {self.baseline} in every seed")
        self.rows.append(row)
        self.samples.append(sample)
        self.differences.append(d)

    def _note(self, method: str, backends: tuple[str, ...], pairs: int) -> str:
        """Which seeds failed and why, and what that leaves of the pairing."""
        parts = [self._failures(method, backends)]
        seeds = {int(seed) for b in backends for seed in self.of[method, b]["seed"]}
        known = {
            int(seed) for b in backends if (self.baseline, b) in self.of for seed in self.of[self.baseline, b]["seed"]
        }
        skipped = all((self.of[method, b]["status"] == "skipped").all() for b in backends)
        if method != self.baseline and pairs < len(seeds) and not skipped:
            parts.append(f"{self.baseline}: {text}" if (text := self._failures(self.baseline, backends)) else "")
            parts.append(f"no run of {self.baseline} for {seeds_in_words(seeds - known)}" if seeds - known else "")
            parts.append(f"compared over {pairs} of {len(seeds)} seeds")
        return "; ".join(filter(None, parts))

    def _failures(self, method: str, backends: tuple[str, ...]) -> str:
        said: dict[str, list[str]] = {}
        for backend in backends:
            if (method, backend) in self.of and (text := failures(self.of[method, backend])):
                said.setdefault(text, []).append(backend)
        if len(said) == 1 and len(next(iter(said.values()))) == len(backends):
            return next(iter(said))
        return "; ".join(f"{backend_label('+'.join(where))}: {text}" for text, where in said.items())

    def _units_of(self, j: int) -> int:
        scores = self.differences[j].scores
        return len(scores) if self.units is None else int(self.units[scores.index].nunique())

    def _test(self) -> None:
        """Estimates, intervals and tests of every difference."""
        self.two_way = TwoWay(self.differences, self.units, self.common)
        level = self.two_way.level(self.tested, self.alpha) if self.tested else self.alpha
        adjusted = dict(zip(self.tested, step_down_p(self.two_way.by_unit[self.tested]), strict=True))
        for j, row in enumerate(self.rows):
            if not row.n_pairs:
                continue
            estimate, n = self.two_way.estimate(j), self._units_of(j)
            row.diff, row.n_rows = estimate.mean, int(self.two_way.n_rows[j])
            if self.units is not None:
                shared = f"{row.n_pairs} seeds share {n} teacher{'s' * (n > 1)}"
                row.add_note(f"{shared}: the unit is the teacher" if n > 1 else f"{shared}: nothing is known of others")
            if n < self.min_seeds:
                continue
            own = level if j in adjusted else self.alpha
            row.se, row.se_rows = estimate.se, math.sqrt(self.two_way.variance_of_rows[j]) if row.n_rows else NAN
            row.ci_low, row.ci_high = interval_of(estimate, own)
            row.p = adjusted[j] if j in adjusted else float(step_down_p(self.two_way.by_unit[[j]])[0])
            if not row.collapsed:
                row.p_equivalent = equivalence_p(estimate, self.delta)
                reach = stats.t.ppf(1 - own / 2, estimate.df) + stats.t.ppf(POWER, estimate.df)
                row.detectable = float(reach * estimate.se)
        tested = [self.rows[j] for j in self.tested]
        by_unit = self.two_way.by_unit[self.tested]
        wilcoxon = holm([signed_rank_p(d[~np.isnan(d)].round(12)) for d in by_unit])
        for row, p, same in zip(tested, wilcoxon, holm([row.p_equivalent for row in tested]), strict=True):
            row.p_wilcoxon, row.p_equivalent = p, same
        self._close_gaps()

    def _close_gaps(self) -> None:
        """Meaningful only where the teacher is shown to be ahead of the baseline."""
        taught = {row.backend: j for j, row in enumerate(self.rows) if row.role == "teacher"}
        for j, row in enumerate(self.rows):
            ahead = next((t for b, t in taught.items() if set(row.backend.split("+")) <= set(b.split("+"))), None)
            if ahead is None or row.role != "student" or not row.diff > 0:
                continue
            teacher = self.rows[ahead]
            if not (teacher.diff > 0 and teacher.p <= self.alpha and teacher.ci_low > 0):
                continue
            seeds = self.differences[j].scores.index.intersection(self.differences[ahead].scores.index)
            if len(seeds):
                both = TwoWay([self.differences[k].over(seeds) for k in (j, ahead)], self.units)
                row.gap_closed = float(both.mean[0] / both.mean[1]) if both.mean[1] > 0 and both.mean[0] > 0 else NAN

    def _find_best(self) -> None:
        """The difference to the student with the highest mean, over the seeds that all with the most finished."""
        students = [j for j, row in enumerate(self.rows) if row.role == "student" and row.n_ok]
        most = max((self.rows[j].n_ok for j in students), default=0)
        complete = [set(self.samples[j].scores.index) for j in students if self.rows[j].n_ok == most]
        seeds = sorted(set.intersection(*complete)) if complete else []
        ranked = [j for j in students if set(seeds) <= set(self.samples[j].scores.index)]
        units = len(seeds) if self.units is None else self.units[seeds].nunique()
        if units < self.min_seeds or len(ranked) < 2:
            return
        samples = [self.samples[j].over(pd.Index(seeds)) for j in ranked]
        _, estimates, intervals = TwoWay(samples, self.units, self.common).to_best(self.alpha)
        for j, estimate, interval in zip(ranked, estimates, intervals, strict=True):
            row = self.rows[j]
            row.best_diff, row.best_low, row.best_high = estimate.mean, *interval

    def finish(self) -> list[Compared]:
        """The rows with their verdicts."""
        for row in self.rows:
            row.verdict = row.verdict or self._verdict(row)
        return self.rows

    def _verdict(self, row: Compared) -> str:
        if row.n_ok == 0:
            return "all failed"
        if row.is_control:
            return "control"
        if math.isnan(row.p):
            return "too few seeds"
        if row.p <= self.alpha and not row.ci_low <= 0 <= row.ci_high:
            word = "better" if row.diff > 0 else "worse"
            return word + LESS if row.p_equivalent <= self.alpha else word
        return "equivalent within δ" if row.p_equivalent <= self.alpha else "no difference shown"


def _common(runs: pd.DataFrame) -> float:
    """The share of the training rows that two seeds have in common where each draws its own split; else 0."""
    drawn = runs[runs["resplit"].astype(bool) & (runs["status"] == "ok")]
    if drawn.empty or "n_train" not in drawn.columns:
        return 0.0
    train, val, test = (drawn[name].astype(float).mean() if name in drawn.columns else 0.0 for name in SIZES)
    share = train / (train + val + test)
    return 0.0 if math.isnan(share) else share


def _adjust_table(families: Sequence[_Family]) -> None:
    """``p_table``: one family of all comparisons of the table. A seed's signs are flipped on all data sets at once."""
    tested = [(family.rows[j], family.two_way.by_unit[j]) for family in families for j in family.tested]
    width = max((len(d) for _, d in tested), default=0)
    padded = np.array([np.pad(d, (0, width - len(d)), constant_values=NAN) for _, d in tested])
    for (row, _), p in zip(tested, step_down_p(padded) if len(tested) else [], strict=True):
        row.p_table = float(p)
