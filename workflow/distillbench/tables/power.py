"""What the runs that there are could have shown, and what so many seeds could before there are any."""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from distillbench.params import fewest_pairs
from distillbench.statistics.power import POWER, smallest_detectable
from distillbench.wording import NOTHING, backend_label

POWER_COLUMNS = [
    "dataset", "pair", "method", "backend", "baseline", "n_pairs", "diff", "diff_std", "se", "se_rows", "detectable",
]  # fmt: skip


def power_table(comparison: pd.DataFrame) -> pd.DataFrame:
    """Of what ``statistics.compare.compare`` returned, the students that were compared: POWER_COLUMNS, fractions."""
    compared = (comparison["role"] == "student") & (comparison["method"] != comparison["baseline"])
    return comparison.loc[compared, POWER_COLUMNS].reset_index(drop=True)


def power_text(table: pd.DataFrame) -> str:
    """``power_table`` for people: a block per data set and pair, in percentage points, and what the columns mean."""
    blocks = []
    for (dataset, pair), rows in table.groupby(["dataset", "pair"], sort=False):
        shown = [
            {
                "method": row["method"],
                "library": backend_label(row["backend"]),
                "seeds": str(row["n_pairs"]),
                "difference": _points(row["diff"], "+.2f"),
                "std": _points(row["diff_std"]),
                "error": _points(row["se"]),
                "of rows": _points(row["se_rows"]),
                "detectable": _points(row["detectable"]),
            }
            for row in rows.to_dict("records")
        ]
        blocks.append(f"{dataset} · {pair}\n{_aligned(shown)}")
    notes = [
        f"Percentage points. difference: method minus {table['baseline'].iloc[0]} with the same seed, mean over seeds;",
        "std: of these differences. error: of the mean, by seeds and test rows; of rows: the part that more seeds do",
        f"not take away ({NOTHING}: no predictions are stored, and the error is of seeds alone). detectable: the",
        f"smallest true difference whose interval would exclude 0 with probability {POWER:g} ({NOTHING}: too few,",
        "or seeds that collapsed). It is for the next run: to add seeds until something shows finds differences that",
        "are not there.",
    ]
    return "\n\n".join([*blocks, "\n".join(notes)])


def plan_text(std: float, methods: int, seeds: Sequence[int], alpha: float, power: float) -> str:
    """The smallest detectable difference for each number of ``seeds``."""
    shown = [
        {
            "seeds": str(n),
            "detectable": _points(smallest_detectable(n, std, methods=methods, alpha=alpha, wanted=power)),
        }
        for n in sorted(set(seeds))
    ]
    return "\n".join(
        [
            f"{alpha:g} over {methods} method{'s' * (methods != 1)}; paired differences with a std of "
            f"{_points(std)} points:",
            _aligned(shown),
            "",
            f"Percentage points: the smallest mean difference shown with probability {power:g} ({NOTHING}: so few",
            f"seeds show none; from {fewest_pairs(alpha)} on they can). Normal differences, t test at alpha over the",
            "number of methods. The error of the test rows comes on top: about √(share of rows that two models predict",
            "differently / number of test rows), 0.5 points of 1,000 rows of which 3% differ.",
        ]
    )


def _points(fraction: float, form: str = ".2f") -> str:
    return NOTHING if math.isnan(fraction) else f"{100 * fraction:{form}}"


def _aligned(rows: list[dict[str, Any]]) -> str:
    """Columns of text, names to the left."""
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in rows[0]}
    lines = [{name: name for name in widths}, *rows]
    return "\n".join(
        "  " + "  ".join(text.ljust(widths[name]) if name in ("method", "library") else text.rjust(widths[name])
                        for name, text in line.items())
        for line in lines
    )  # fmt: skip
