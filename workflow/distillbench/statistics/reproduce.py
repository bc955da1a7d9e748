"""Our runs beside published results: what was reproduced, what was not, and what cannot be said. Imports no torch.

For every published row (see ``claims``) of a pair that names its ``published`` results there are two quantities:

- the **score** itself;
- the **gain** over the student alone of the same source and metric. Papers claim "A beats B", and a score can be missed
  for reasons (data, tuning, library) that leave the gain alone, or be met while the gain is not. Ours is the mean of
  the paired differences, seed by seed.

Each is judged by d = ours - published and its 95% t interval, with Welch's and Satterthwaite's degrees of freedom. It
is an interval for the difference of what the two procedures give on average, so both sides' spread over seeds counts:

- A published std s_p over n_p runs adds s_p²/n_p. Population stds are turned into sample stds first (``claims``).
- One run without a std is one draw from a distribution whose spread nobody knows. The plainest assumption is that it
  is as wide as ours: it adds our own s², and d has the prediction interval s²(1 + 1/n). Our spread is then used twice
  and is no independent estimate, so the degrees of freedom stay n - 1. Where the number of runs is not said, one is
  assumed, which is the widest. A mean over n_p runs without a std adds s²/n_p.
- A published gain is the difference of two numbers of which nobody says whether their runs were paired: their variances
  are added, those published as well as those taken from ours. Taking the std of our *paired* differences for a single
  published run would assume a pairing that was not claimed, and make one run about as telling as ten with stds.
  If their seeds were paired, the interval is too wide and the verdict errs towards "inconclusive".

The verdict is one of equivalence, not of a test of difference (p > .05 would call every noisy comparison a success):

- ``reproduced``: the whole interval is within ±margin.
- ``not reproduced``: the whole interval is beyond the margin, on one side. Agreement is excluded and the difference
  is large enough to matter.
- ``inconclusive``: anything else; or fewer than 3 of our seeds, which have no interval worth the name.
- ``not comparable``: the data are not the published ones (every row then), our runs lack the metric, or the source
  itself says that its number is not comparable. ``not compared``: the published number is not verified. ``not run``:
  we have no run of that method, or of the student alone that a gain needs.

The margin of a score is ``margin`` (0.5 percentage points). That of a claimed gain is at most half of it: with a
margin as large as the claim, no gain at all would "reproduce" a gain of 0.4 points. A gain counts as claimed unless its
own published stds leave it indistinguishable from zero (95%); without stds the number is taken at its word.

What this means for single runs: with n = 10, a score can be "reproduced" only if our seeds spread by less than 0.21
points, and is "not reproduced" at a distance above 0.5 points + 2.4 s. Most claims made by one run can be neither
confirmed nor refuted; to say so is the finding. No verdict knows how a published run was chosen: the best of many looks
like a single run. Intervals are not adjusted for their number; of twenty, one is expected to miss.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import t as student_t

from distillbench.data.cards import Card
from distillbench.plan.published import PUBLISHED, SUPERVISED, Claim, ClaimsError, matching, mismatch
from distillbench.statistics.paired import Interval, paired_differences
from distillbench.wording import metric_label

MARGIN = 0.5  # percentage points
MIN_SEEDS = 3
CONFIDENCE = 0.95
TEACHER = "teacher"
COLUMNS = [
    "dataset", "backend", "pair", "protocol", "source", "teacher", "student", "method", "variant", "metric", "quantity",
    "verified", "published", "published_std", "published_seeds", "n_ok", "n", "ours", "ours_std", "ours_low",
    "ours_high", "diff", "diff_low", "diff_high", "margin", "verdict", "reason",
]  # fmt: skip
NO_INTERVAL = Interval(math.nan, math.nan)


class Published(NamedTuple):
    """A published number with what is known of its spread.

    claims: one for a score; for a gain the method's, and that of the student alone. ours: for each claim our own runs
    of the same, percent [n], whose spread stands in for a std that was not published.
    """

    value: float
    claims: tuple[Claim, ...]
    ours: tuple[NDArray[np.float64], ...]

    @property
    def std(self) -> float | None:
        """As published for a score; for a gain that of the difference of two independent runs. None if not known."""
        if len(self.claims) == 1:
            return self.claims[0].std
        stds = [claim.sample_std for claim in self.claims if claim.sample_std is not None]
        return math.hypot(*stds) if len(stds) == len(self.claims) else None

    def known_variances(self) -> list[tuple[float, int]]:
        """(variance of the published mean, degrees of freedom) for each claim that has a std."""
        return [(c.sample_std**2 / c.seeds, c.seeds - 1) for c in self.claims if c.sample_std is not None and c.seeds]

    def borrowed_variance(self) -> float:
        """The variance of the published mean that must be assumed, from our own spread."""
        return sum(
            float(x.var(ddof=1)) / (claim.seeds or 1)
            for claim, x in zip(self.claims, self.ours, strict=True)
            if claim.sample_std is None
        )

    def assumption(self) -> str:
        """What had to be assumed of the published spread, in words; empty where nothing was."""
        bare = [claim for claim in self.claims if claim.sample_std is None]
        if any(claim.seeds is None for claim in bare):
            return "number of published runs not said: taken as one, spread as ours"
        if any(claim.seeds == 1 for claim in bare):
            return "one published run, spread taken to be ours"
        return "no published std, spread taken to be ours" if bare else ""


def reproduction(
    runs: pd.DataFrame,
    claims: Sequence[Claim],
    pairs: Sequence[dict[str, Any]],
    cards: dict[str, Card],
    *,
    margin: float = MARGIN,
) -> pd.DataFrame:
    """One row per published result and library, with COLUMNS; the module's docstring says how it is judged.

    ``runs`` as ``tables.runs_table`` makes them, fractions; everything that comes back is percent or percentage points.
    ``cards`` are the data cards by the data set's name in the config. A published result of which there are several
    variants of ours has a row for each. Raises ClaimsError where a pair names results that ``claims`` lacks.
    """
    rows: list[dict[str, Any]] = []
    for pair in pairs:
        card = cards[pair["dataset"]]
        named = (card.dataset, pair["teacher"], pair["student"], pair["sources"])
        if problem := mismatch(claims, *named, pair["methods"]):
            where = f"datasets.{pair['dataset']}.pairs.{pair['pair']}.published"
            raise ClaimsError(f"{where}: {problem} ({PUBLISHED})")
        found = matching(claims, *named)
        of_pair = runs[(runs["dataset"] == pair["dataset"]) & (runs["pair"] == pair["pair"])]
        about = card.provenance
        obstacle = "" if about["canonical"] else about.get("remark") or "the data are not the published ones"
        for backend in pd.unique(of_pair["backend"]):
            cell = of_pair[of_pair["backend"] == backend]
            place = {"dataset": pair["dataset"], "backend": backend, "pair": pair["pair"]}
            place["protocol"] = pair.get("protocol", "")
            rows += [place | row for claim in found for row in _rows(claim, found, cell, pair, obstacle, margin)]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"published_seeds": "Int64", "n_ok": "Int64", "n": "Int64"})


def t_interval(ours: NDArray[np.float64], published: Published | None = None) -> Interval:
    """95% t interval of mean(``ours`` [n]), or of its difference to a published value; see the module's docstring.

    Nothing varies: an interval of length zero. Fewer than MIN_SEEDS values: NaN.
    """
    if ours.size < MIN_SEEDS:
        return NO_INTERVAL
    centre = float(ours.mean()) - (published.value if published else 0.0)
    own = float(ours.var(ddof=1)) / ours.size + (published.borrowed_variance() if published else 0.0)
    half = _half_width([(own, ours.size - 1), *(published.known_variances() if published else [])])
    return Interval(centre - half, centre + half)


def judge(difference: Interval, margin: float) -> tuple[str, str]:
    """Verdict and reason for the interval of ours - published, both in percentage points."""
    low, high = difference
    size = f"{margin:.3g} points"
    if -margin <= low and high <= margin:
        return "reproduced", f"within ±{size}"
    if low > margin or high < -margin:
        return "not reproduced", f"ours is {'higher' if low > margin else 'lower'} by more than {size}"
    if low <= 0 <= high:
        return "inconclusive", f"both agreement and a difference of more than {size} are possible"
    return "inconclusive", f"ours is {'higher' if low > 0 else 'lower'}, perhaps by less than {size}"


def gain_margin(gain: Published, margin: float) -> float:
    """The margin for a gain: at most half of what is claimed; see the module's docstring."""
    known = gain.known_variances()
    claimed = abs(gain.value) > (_half_width(known) if len(known) == len(gain.claims) else 0.0)
    return min(margin, abs(gain.value) / 2) if claimed else margin


def _half_width(parts: Sequence[tuple[float, int]]) -> float:
    """Of the 95% t interval, for a sum of (variance, degrees of freedom). Satterthwaite, Biometrics Bulletin 1946."""
    variance = sum(part for part, _ in parts)
    if variance == 0:
        return 0.0
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts)
    return float(student_t.ppf((1 + CONFIDENCE) / 2, freedom)) * math.sqrt(variance)


def _rows(
    claim: Claim, claims: Sequence[Claim], cell: pd.DataFrame, pair: dict[str, Any], data: str, margin: float
) -> list[dict[str, Any]]:
    """The rows of one published number in one cell: score and gain, for every variant of ours.

    ``data`` says why the data are not the published ones; empty where they are.
    """
    alike = [c for c in claims if (c.source, c.metric) == (claim.source, claim.metric)]
    control = next((c for c in alike if c.method == SUPERVISED), None)
    alone = next(iter(_variants(SUPERVISED, cell, pair)), "")
    rows = []
    for variant in _variants(claim.method, cell, pair) or [""]:
        scores, base = _scores(cell, variant, claim.metric), _scores(cell, alone, claim.metric)
        of = cell[cell["method"] == variant]
        row = {name: getattr(claim, name) for name in ("source", "teacher", "student", "method", "metric")}
        row |= {"variant": variant, "n": len(of)}
        score, ours = Published(claim.mean, (claim,), (scores.to_numpy(),)), scores.to_numpy()
        obstacles = [*_obstacles(score, cell, data), *_not_run(claim.method, of)]
        rows.append(row | {"quantity": "score"} | _compared(score, ours, obstacles, len(of), margin))
        if control is None or claim.method in (TEACHER, SUPERVISED):
            continue
        seeds = scores.index.intersection(base.index)
        paired = (scores.loc[seeds].to_numpy(), base.loc[seeds].to_numpy())
        # both are published with two decimals: without the rounding 96.1 - 95.7 is not 0.4
        gain = Published(round(claim.mean - control.mean, 9), (claim, control), paired)
        obstacles = [*_obstacles(gain, cell, data), *_not_run(claim.method, of)]
        obstacles += _not_run(SUPERVISED, cell[cell["method"] == alone])
        ours = paired_differences(scores, base)
        rows.append(row | {"quantity": "gain"} | _compared(gain, ours, obstacles, len(of), gain_margin(gain, margin)))
    return rows


def _compared(
    published: Published, ours: NDArray[np.float64], obstacles: Sequence[tuple[str, str]], n: int, margin: float
) -> dict[str, Any]:
    """Ours beside the published. Their difference only without ``obstacles`` (verdict, reason): the first decides."""
    low, high = t_interval(ours)
    mean = float(ours.mean()) if ours.size else math.nan
    row = {
        "verified": all(claim.verified for claim in published.claims),
        "published": published.value,
        "published_std": published.std,
        "published_seeds": min((claim.seeds for claim in published.claims if claim.seeds), default=None),
        "n_ok": ours.size,
        "ours": mean,
        "ours_std": ours.std(ddof=1) if ours.size > 1 else math.nan,
        "ours_low": low,
        "ours_high": high,
        "margin": margin,
    }
    if obstacles:
        reasons = dict.fromkeys(reason for _, reason in obstacles)
        return row | {"verdict": obstacles[0][0], "reason": "; ".join(reasons)}
    interval = t_interval(ours, published)
    row |= {"diff": mean - published.value, "diff_low": interval.low, "diff_high": interval.high}
    if ours.size < MIN_SEEDS:
        verdict, reason = "inconclusive", f"{ours.size or 'none'} of our {n} seeds finished, {MIN_SEEDS} are needed"
        return row | {"verdict": verdict, "reason": reason}
    verdict, reason = judge(interval, margin)
    remarks = [reason, published.assumption()]
    remarks.append(f"{n - ours.size} of our {n} seeds left out: a run failed" if ours.size < n else "")
    return row | {"verdict": verdict, "reason": "; ".join(filter(None, remarks))}


def _obstacles(published: Published, cell: pd.DataFrame, data: str) -> list[tuple[str, str]]:
    """Why a published number cannot be compared with any run of ours: (verdict, reason)."""
    found = [("not comparable", data)] if data else []
    if not all(claim.verified for claim in published.claims):
        found.append(("not compared", "recalled, not read in the source"))
    found += [("not comparable", claim.note) for claim in published.claims if "not comparable" in claim.note]
    metric = published.claims[0].metric
    if not _column(cell, metric):
        found.append(("not comparable", f"our runs have no {metric_label(metric)}"))
    return found


def _not_run(method: str, of: pd.DataFrame) -> list[tuple[str, str]]:
    if of.empty:
        return [("not run", f"no run of {method}")]
    if (of["status"] == "skipped").all():
        return [("not run", f"skipped: {'; '.join(pd.unique(of['reason']))}")]
    return []


def _variants(method: str, cell: pd.DataFrame, pair: dict[str, Any]) -> list[str]:
    """Our names of a published method: those the pair maps to it first, then one of the same name."""
    present = [str(name) for name in pd.unique(cell["method"])]
    named = [variant for variant, name in pair["methods"].items() if name == method and variant in present]
    return named + [name for name in present if name == method and name not in pair["methods"]]


def _scores(cell: pd.DataFrame, variant: str, metric: str) -> pd.Series:
    """Percent, by seed, of the finished runs; empty where there are none or they lack the metric."""
    ok = cell[(cell["method"] == variant) & (cell["status"] == "ok")]
    column = _column(cell, metric)
    scores: pd.Series = 100 * ok.set_index("seed")[column].dropna() if column else pd.Series(dtype=float)
    return scores


def _column(cell: pd.DataFrame, metric: str) -> str:
    """Where a metric is in the table of runs; empty where it is not."""
    if len(cell) and cell["metric"].iloc[0] == metric:
        return "test"
    return metric if metric in cell.columns and cell[metric].notna().any() else ""
