"""How many seeds? The power of the signed-rank test, the smallest detectable difference, the seeds a difference needs.

    python -m distillbench.power [--results results] [--csv FILE]             of the runs there are
    python -m distillbench.power --std 0.01 --methods 5 --seeds 5 10 20 50    before there are any

Everywhere ``alpha`` is the level of ONE test at its hardest. In a cell of m methods that is the family's level over m,
Holm's first step: what is detectable at that level is detectable whatever the other methods do. Imports no torch.
"""

import argparse
import math
import sys
from bisect import bisect_left
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from statsmodels.stats.power import TTestPower

from distillbench.frames import CELL
from distillbench.paired import ALPHA
from distillbench.record import RecordError, write_atomically

POWER = 0.8
POWER_COLUMNS = [*CELL, "method", "resplit", "alpha", "n_pairs", "diff", "diff_std", "detectable", "seeds_needed"]
MOST_SEEDS = 1000  # who would need more is told so, not how many
SIMULATED = 30  # pairs, up to which power is simulated; from there on the approximation is as good, and free
SAMPLES = 20_000  # standard error of a power of 0.8: 0.003
AT_ONCE = 2_000
NOTHING = "–"
ON_THESE_SPLITS = (
    "Where every seed draws its own split, this is about a difference on these splits (signed-rank test), not about\n"
    "the corrected resampled test, which asks for more"
)


def power(effect: float, n: int, alpha: float) -> float:
    """The chance that the exact two-sided signed-rank test of ``n`` pairs rejects at level ``alpha``.

    The differences are normal with mean ``effect`` × their standard deviation (a standardised effect, either sign).
    Up to 30 pairs by simulation with a fixed generator, standard error at most 0.004. Above, by the test's asymptotic
    relative efficiency: as the t test of n · 3/π pairs (Noether, JASA 1987; by statsmodels), which differs from the
    simulation by less than 0.025 there (for alpha >= 0.0001). 0 where n is too small for the test ever to reject. Tied
    differences and zeros make the test weaker than this. Raises ValueError unless 0 < alpha < 1.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha: {alpha:g} is not between 0 and 1")
    shift = abs(effect)
    if n < _fewest(alpha):
        return 0.0
    if n > SIMULATED:
        towards, away = (
            float(TTestPower().power(shift, n * 3 / math.pi, alpha / 2, alternative=side))
            for side in ("larger", "smaller")
        )  # apart, because scipy's noncentral t is NaN in a tail that is empty or full
        return (1.0 if math.isnan(towards) else towards) + (0.0 if math.isnan(away) else away)
    limits = _limits(n, critical_rank_sum(n, alpha))
    return float(2 - (np.searchsorted(limits, -shift, "right") + np.searchsorted(limits, shift, "right")) / len(limits))


def smallest_detectable(n: int, std: float, alpha: float, power: float = POWER) -> float:
    """The smallest mean difference that the test of ``n`` pairs finds with probability ``power``, in the unit of std.

    ``std`` is the standard deviation of the paired differences; see ``power`` for the rest. NaN where n is too small
    for the test ever to reject at ``alpha``, or std is unknown (NaN). Raises ValueError unless 0 < alpha < power < 1.
    """
    return _smallest_effect(n, alpha, power) * std


def seeds_needed(diff: float, std: float, alpha: float, power: float = POWER) -> int | None:
    """The smallest number of pairs of which the test finds a mean difference ``diff`` with probability ``power``.

    ``std`` is the standard deviation of the paired differences, in the unit of ``diff``. None where more than 1,000
    are needed, there is no difference, or either is unknown (NaN). With differences that do not vary (std 0), the
    smallest number with which the test can reject. Raises ValueError unless 0 < alpha < power < 1.
    """
    _check_levels(alpha, power)
    if diff == 0 or math.isnan(diff) or math.isnan(std):
        return None
    if std == 0:
        return _fewest(alpha)
    tried = range(_fewest(alpha), MOST_SEEDS + 1)
    found = bisect_left(tried, True, key=lambda n: abs(diff) / std >= _smallest_effect(n, alpha, power))
    return tried[found] if found < len(tried) else None


def critical_rank_sum(n: int, alpha: float) -> int:
    """The smallest rank sum of the positive differences, of ``n`` without ties, with a two-sided exact p <= ``alpha``.

    Built as in ``paired.signed_rank_p``. There is one where 2 / 2^n, the p of n differences of one sign, is <= alpha.
    """
    chance = np.ones(1)
    for rank in range(1, n + 1):
        chance = (np.pad(chance, (0, rank)) + np.pad(chance, (rank, 0))) / 2
    return int(np.flatnonzero(2 * chance[::-1].cumsum()[::-1] <= alpha)[0])


def _fewest(alpha: float) -> int:
    """The smallest number of pairs with which the test can reject: 2 / 2^n <= alpha."""
    return math.ceil(1 - math.log2(alpha))


def power_table(
    runs: pd.DataFrame,
    *,
    baseline: str = "supervised",
    alpha: float = ALPHA,
    power: float = POWER,
    family: Literal["cell", "table"] = "cell",
) -> pd.DataFrame:
    """What ``runs`` could have shown, and what they would have needed: a row per cell and student, POWER_COLUMNS.

    ``diff`` is the mean and ``diff_std`` the sample standard deviation of the ``n_pairs`` differences to ``baseline``,
    as ``stats.compare`` has them; ``detectable`` and ``seeds_needed`` are those of the functions above at the row's
    ``alpha``: the family's over the number of students of the ``family`` that have enough pairs for a verdict (of the
    cell that have any pair, where none has enough). NaN where seeds share teachers: there another test decides.
    Fractions throughout. Raises ValueError as ``frames.check_runs`` does.
    """
    from distillbench.stats import MIXED, compare  # they import this module

    compared = compare(runs, baseline=baseline, alpha=alpha, family=family, resamples=0)
    students = compared[(compared["role"] == "student") & (compared["method"] != baseline)]
    rows = []
    for cell, of_cell in students.groupby(CELL, sort=False):
        tested = of_cell["level"].dropna()
        level = float(tested.iloc[0]) if len(tested) else alpha / max(int((of_cell["n_pairs"] > 0).sum()), 1)
        for row in of_cell.to_dict("records"):
            std = math.nan if row["test"] == MIXED else row["diff_std"]
            found = (
                smallest_detectable(row["n_pairs"], std, level, power),
                seeds_needed(row["diff"], std, level, power),
            )
            rows.append([*cell, row["method"], row["resplit"], level, row["n_pairs"], row["diff"], std, *found])
    return pd.DataFrame(rows, columns=POWER_COLUMNS).astype({"seeds_needed": "Int64"})


@cache
def _limits(n: int, critical: int) -> NDArray[np.float32]:
    """Sorted, of SAMPLES standard normal samples [n]: the shift below which the test does not reject upwards, negated.

    The positive rank sum of x is the number of its Walsh averages (x_i + x_j)/2, i <= j, above zero (Tukey 1949). So
    for x = z + shift the sum reaches ``critical`` where the critical-th largest Walsh average of z exceeds -shift:
    one sample answers for every effect, and power is monotone in it.
    """
    random = np.random.default_rng(0)
    i, j = np.triu_indices(n)
    place = len(i) - critical
    found = []
    for _ in range(SAMPLES // AT_ONCE):
        z = random.standard_normal((AT_ONCE, n), dtype=np.float32)
        found.append(np.partition((z[:, i] + z[:, j]) / 2, place, axis=1)[:, place])
    limits: NDArray[np.float32] = np.sort(np.concatenate(found))
    return limits


@cache
def _smallest_effect(n: int, alpha: float, wanted: float) -> float:
    """The standardised effect at which ``power`` reaches ``wanted``, never below it; NaN where it cannot."""
    _check_levels(alpha, wanted)
    if n < _fewest(alpha):
        return math.nan
    low, high = 0.0, 1.0
    while power(high, n, alpha) < wanted:
        low, high = high, 2 * high
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle, n, alpha) >= wanted else (middle, high)
    return high


def _check_levels(alpha: float, wanted: float) -> None:
    if not 0 < alpha < wanted < 1:
        raise ValueError(f"power: {wanted:g} is not between alpha ({alpha:g}) and 1, or alpha is not above 0")


def _report(table: pd.DataFrame, baseline: str, alpha: float, power: float) -> str:
    """``power_table`` for people: a block per cell, in percentage points, and what the columns mean."""
    blocks = []
    for (dataset, backend, pair), rows in table.groupby(CELL, sort=False):
        shown = [
            {
                "method": row["method"],
                "pairs": str(row["n_pairs"]),
                "difference": _points(row["diff"], "+.2f"),
                "std": _points(row["diff_std"]),
                "detectable": _points(row["detectable"]),
                "seeds needed": _seeds(row["seeds_needed"], row["diff"], row["diff_std"]),
            }
            for row in rows.to_dict("records")
        ]
        cell = f"{dataset} · {backend} · {pair}"
        title = f"{cell}: {_shared_out(alpha, round(alpha / rows['alpha'].iloc[0]))}"
        blocks.append(f"{title}\n{_aligned(shown)}")
    notes = [
        f"Percentage points. difference: method minus {baseline} with the same seed, mean over the pairs; std: of",
        f"these differences. detectable: the smallest mean difference that so many show with probability {power:g}",
        f"({NOTHING}: so few can show none). seeds needed: for a difference and a std as large as those seen, which",
        "are themselves uncertain: an order of magnitude.",
        "Exact signed-rank test at the first step of Holm's correction, normal differences.",
    ]
    if table["resplit"].any():
        notes.append(f"{ON_THESE_SPLITS} ({', '.join(pd.unique(table.loc[table['resplit'], 'dataset']))}).")
    return "\n\n".join([*blocks, "\n".join(notes)])


def _plan(std: float, methods: int, seeds: Sequence[int], alpha: float, power: float) -> str:
    """The smallest detectable difference for each number of ``seeds``."""
    level = alpha / methods
    shown = [
        {"seeds": str(n), "detectable": _points(smallest_detectable(n, std, level, power))} for n in sorted(set(seeds))
    ]
    return "\n".join(
        [
            f"{_shared_out(alpha, methods)}; paired differences with a std of {_points(std)} points:",
            _aligned(shown),
            "",
            f"Percentage points: the smallest mean difference shown with probability {power:g}",
            f"({NOTHING}: so few seeds show none; from {_fewest(level)} on they can). Exact signed-rank test at the",
            "first step of Holm's correction, normal differences.",
            f"{ON_THESE_SPLITS}.",
        ]
    )


def _shared_out(alpha: float, methods: int) -> str:
    return f"{alpha:g} over {methods} method{'s' * (methods != 1)}, each tested at {alpha / methods:.3g}"


def _points(fraction: float, form: str = ".2f") -> str:
    return NOTHING if math.isnan(fraction) else f"{100 * fraction:{form}}"


def _seeds(needed: Any, diff: float, std: float) -> str:
    if not pd.isna(needed):
        return str(needed)
    return NOTHING if diff == 0 or math.isnan(diff) or math.isnan(std) else f"> {MOST_SEEDS}"


def _aligned(rows: list[dict[str, str]]) -> str:
    """Columns of text, the first to the left where it holds names."""
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in rows[0]}
    lines = [{name: name for name in widths}, *rows]
    return "\n".join(
        "  " + "  ".join(text.ljust(widths[name]) if name == "method" else text.rjust(widths[name])
                        for name, text in line.items())
        for line in lines
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what runs could have shown, or what a number of seeds could; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m distillbench.power", description="How many seeds? What so many can show, and what is needed."
    )
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of the runs (%(default)s)")
    parser.add_argument("--baseline", default="supervised", help="method that the others are compared with")
    parser.add_argument("--alpha", type=_share, default=ALPHA, help="level of a cell's tests together (%(default)s)")
    parser.add_argument(
        "--family",
        choices=("cell", "table"),
        default="cell",
        help="of Holm's correction (%(default)s)",
    )
    parser.add_argument("--power", type=_share, default=POWER, help="wanted probability (%(default)s)")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table of the runs there, in fractions")
    parser.add_argument("--std", type=_positive, help="plan without runs: std of the paired differences, a fraction")
    parser.add_argument("--methods", type=_count, help="with --std: methods compared with the baseline")
    parser.add_argument("--seeds", type=_count, nargs="+", help="with --std: numbers of seeds")
    given = parser.parse_args(arguments)
    if given.alpha >= given.power:
        parser.error(f"--power: {given.power:g} is not above --alpha ({given.alpha:g})")
    planning = [given.std is not None, given.methods is not None, given.seeds is not None]
    if any(planning) and not all(planning):
        parser.error("--std, --methods and --seeds go together: they plan without runs")
    if all(planning):
        if given.csv:
            parser.error("--csv: is for runs, not with --std")
        print(_plan(given.std, given.methods, given.seeds, given.alpha, given.power))
        return 0
    try:
        options = {"baseline": given.baseline, "alpha": given.alpha, "power": given.power, "family": given.family}
        table = power_table(_runs(given.results), **options)
    except (OSError, RecordError, ValueError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    if table.empty:
        print(f"{parser.prog}: {given.results}: no student was run but {given.baseline}", file=sys.stderr)
        return 1
    if given.csv:
        write_atomically(given.csv, table.to_csv(index=False))
    print(_report(table, given.baseline, given.alpha, given.power))
    return 0


def _runs(results: Path) -> pd.DataFrame:
    from distillbench.tables import read_runs  # here, because tables needs the statistics, and they need power

    path = results / "tables" / "runs.parquet"
    if not path.exists():
        raise FileNotFoundError(f"no runs at {path}: run snakemake first, or name another folder with --results")
    return read_runs(path)


def _share(text: str) -> float:
    value = _number(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def _positive(text: str) -> float:
    value = _number(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


if __name__ == "__main__":
    raise SystemExit(main())
