"""How many seeds? What the runs there are could have shown, and what so many could before there are any."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import pandas as pd

from distillbench.params import fewest_pairs
from distillbench.statistics.compare import MIXED, compare
from distillbench.statistics.frames import CELL
from distillbench.statistics.paired import ALPHA
from distillbench.statistics.power import MOST_SEEDS, POWER, seeds_needed, smallest_detectable
from distillbench.wording import NOTHING

POWER_COLUMNS = [*CELL, "method", "resplit", "alpha", "n_pairs", "diff", "diff_std", "detectable", "seeds_needed"]
ON_THESE_SPLITS = (
    "Where every seed draws its own split, this is about a difference on these splits (signed-rank test), not about\n"
    "the corrected resampled test, which asks for more"
)


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
    as ``compare`` has them; ``detectable`` and ``seeds_needed`` are those of statistics.power at the row's ``alpha``:
    the family's over the number of students of the ``family`` that have enough pairs for a verdict (of the cell that
    have any pair, where none has enough). NaN where seeds share teachers: there another test decides.
    Fractions throughout. Raises ValueError as ``frames.check_runs`` does.
    """
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


def power_text(table: pd.DataFrame, baseline: str, alpha: float, power: float) -> str:
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


def plan_text(std: float, methods: int, seeds: Sequence[int], alpha: float, power: float) -> str:
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
            f"({NOTHING}: so few seeds show none; from {fewest_pairs(level)} on they can). Exact signed-rank test at",
            "the first step of Holm's correction, normal differences.",
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
