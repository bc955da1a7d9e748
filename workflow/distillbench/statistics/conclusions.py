"""What a run shows, in sentences: each says what a verdict of the tables says, nothing stronger. Imports no torch.

A sentence can be quoted alone: the finding, its size, its interval, how many seeds. "No difference shown" stays that,
and never becomes "equal"; too few seeds are no result.
"""

import math
import re
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import pandas as pd

from distillbench.statistics.compare import LESS
from distillbench.statistics.paired import ALPHA
from distillbench.wording import backend_label, metric_label, signed

Row = dict[Hashable, Any]
FEW = 3  # methods that a sentence gives sizes of, at most
NAMED = 8  # that it names


def conclusions(
    comparison: pd.DataFrame, equivalence: pd.DataFrame | None = None, across: str = "", *, alpha: float = ALPHA
) -> list[str]:
    """All conclusions of a run: the finding over all, a line for each data set and pair, and what was not decided.

    ``comparison``: rows of ``compare.compare``; ``equivalence``: of ``libraries.equivalence``; ``across``: the sentence
    of ``across``. What speaks of several data sets or pairs together goes by ``p_table``, adjusted over all of them.
    """
    comparison = _apart(comparison)
    pairs = [rows for _, rows in comparison.groupby(["dataset", "pair"], sort=False)]
    texts = [overview(comparison, alpha)] if len(pairs) != 1 else []
    texts += [finding(rows) for rows in pairs]
    texts += _undecided(comparison) + _unfinished(comparison)
    texts += _libraries(equivalence) if equivalence is not None else []
    return [*texts, *([across] if across else [])]


def overview(comparison: pd.DataFrame, alpha: float = ALPHA) -> str:
    """How many comparisons show something, all of them tested together, and the largest gain."""
    compared = _compared(_apart(comparison))
    tested = compared[compared["p_table"].notna()]
    if tested.empty:
        return "Nothing was decided: no method has enough seeds beside the baseline's."
    alone, number = _alone(comparison), len(tested)
    shown = tested[tested["verdict"].str.startswith(("better", "worse")) & (tested["p_table"] <= alpha)]
    better, worse = (shown[shown["verdict"].str.startswith(word)] for word in ("better", "worse"))
    if shown.empty:
        return f"No method is shown to differ from {alone} in any of the {number} comparisons, tested together."
    counted = [f"{_show(len(better))} a method better than {alone}"]
    counted += [f"{_show(len(worse))} one worse"] if len(worse) else []
    text = f"Of {number} comparisons, tested together, {' and '.join(counted)}."
    if better.empty:
        return text
    most = better.sort_values("diff", ascending=False).to_dict("records")[0]
    return f"{text} The largest gain is that of {_name(most)} on {most['dataset']} ({most['pair']}): {_size(most)}."


def _show(number: int) -> str:
    return "none shows" if number == 0 else "1 shows" if number == 1 else f"{number} show"


def finding(rows: pd.DataFrame) -> str:
    """The line of one data set and pair, whose rows these are."""
    first, alone = rows.iloc[0], _alone(rows)
    split = "" if rows["resplit"].astype(bool).any() else ", its one split"
    place = f"On {first['dataset']} ({first['pair']}{split})"
    compared = _compared(_apart(rows))
    tested = compared[compared["p"].notna()]
    if tested.empty:
        return f"{place}, nothing was decided: {_why_nothing(rows)}."
    better, worse = (_ordered(tested, word) for word in ("better", "worse"))
    parts = []
    if better:
        parts.append(f"{_sizes(better)} above {alone}{_undecided_best(better)}")
    if worse:
        parts.append(f"{_sizes(worse)} below {'it' if better else alone}")
    if not parts:
        most = tested.sort_values("diff", ascending=False).to_dict("records")[0]
        seen = f"; the largest difference seen is that of {_name(most)}, {_size(most)}" if most["diff"] > 0 else ""
        parts.append(f"no method is shown to differ from {alone}{seen}")
    alike = list(tested.loc[tested["verdict"].str.startswith("equivalent"), "method"])
    if alike:
        margin = f"±{100 * first['delta']:g} point{'' if first['delta'] == 0.01 else 's'}"
        parts.append(f"{_listed(_few(alike))} {'is' if len(alike) == 1 else 'are'} within {margin} of {alone}")
    return f"{place}, {'; '.join(parts)}.{_levels(rows)}"


def _compared(rows: pd.DataFrame) -> pd.DataFrame:
    """What is compared with the baseline: neither it nor a teacher or another control."""
    return rows[(rows["role"] == "student") & (rows["method"] != rows["baseline"])]


def _ordered(tested: pd.DataFrame, word: str) -> list[Row]:
    """Those whose verdict begins so, the largest difference first."""
    shown = tested[tested["verdict"].str.startswith(word)]
    return shown.assign(_size=-shown["diff"].abs()).sort_values("_size", kind="stable").to_dict("records")


def _sizes(rows: list[Row]) -> str:
    """``dist is +2.5 points [+0.8, +4.1] (9 of 10 seeds), rkd …`` of the first few, and how many more."""
    first, *others = rows[:FEW]
    said = [f"{_name(first)} is {_size(first)}", *(f"{_name(row)} {_size(row, unit=False)}" for row in others)]
    if len(rows) > FEW:
        said.append(f"{len(rows) - FEW} more (table)")
    return _listed(said)


def _size(row: Row, unit: bool = True) -> str:
    """``+4.8 points [+1.4, +7.6] (9 of 10 seeds, 2 collapsed)``; 'less than δ' where the verdict says so."""
    low, high = float(row["ci_low"]), float(row["ci_high"])
    interval = "" if math.isnan(low) else f" [{signed(low, 1)}, {signed(high, 1)}]"
    same = row["improved"] if row["diff"] > 0 else row["n_pairs"] - row["improved"]
    seeds = f"{same} of {row['n']} seeds" + (f", {row['collapsed']} collapsed" if row["collapsed"] else "")
    less = f", less than {100 * row['delta']:g}" if LESS in row["verdict"] else ""
    return f"{signed(row['diff'], 1)}{' points' if unit else ''}{interval} ({seeds}{less})"


def _undecided_best(better: list[Row]) -> str:
    """Of those that are better, who is not shown to be behind the one with the highest mean."""
    alike = [row for row in better if row["best_diff"] == 0 or row["best_high"] >= 0]
    if len(alike) < 2 or not any(row["best_diff"] == 0 for row in alike):
        return ""
    return f" (which of {_listed(_few([_name(row) for row in alike]))} is best is not decided)"


def _levels(rows: pd.DataFrame) -> str:
    """Means of teacher and baseline: how much there is to gain. No test stands behind them."""
    known = rows[rows["mean"].notna()]
    teacher, baseline = known[known["role"] == "teacher"], known[known["method"] == known["baseline"]]
    said = []
    if len(teacher):
        said.append(f"the teacher has {_percents(teacher)}")
    if len(baseline) and baseline["role"].iloc[0] != "teacher":
        said.append(f"{_alone(rows)} {_percents(baseline)}")
    if not said:
        return ""
    text = f"{', '.join(said)} test {metric_label(str(rows['metric'].iloc[0]))}"
    return f" {text[0].upper()}{text[1:]}."


def _percents(rows: pd.DataFrame) -> str:
    if len(rows) == 1:
        return f"{100 * rows['mean'].iloc[0]:.1f}%"
    return _listed(f"{100 * row['mean']:.1f}% ({backend_label(row['backend'])})" for row in rows.to_dict("records"))


def _why_nothing(rows: pd.DataFrame) -> str:
    baseline = rows[rows["method"] == rows["baseline"]]
    if len(baseline) and not baseline["n_ok"].any():
        return f"no run of {_alone(rows)} finished{_reasons(baseline)}"
    compared = _compared(rows)
    if compared.empty:
        return "there are controls only"
    ran = compared[~compared["verdict"].isin(["skipped", "all failed"])]
    if ran.empty:
        return f"no run finished{_reasons(compared)}"
    pairs = sorted({int(n) for n in ran["n_pairs"]})
    shared = ran["note"].str.contains("share").any()
    return f"{pairs[-1]} paired seeds{' and their teachers' if shared else ''} are too few"


def _undecided(comparison: pd.DataFrame) -> list[str]:
    """One line: where no difference is shown and none is excluded, either."""
    said = []
    for (dataset, pair), rows in _compared(comparison).groupby(["dataset", "pair"], sort=False):
        open_ = rows.loc[rows["verdict"] == "no difference shown"].to_dict("records")
        few = rows.loc[(rows["verdict"] == "too few seeds")].to_dict("records")
        where = f"{dataset} ({pair})"
        said += [f"{_listed(_few(list(map(_name, open_))))} on {where}"] if open_ else []
        tested = rows["p"].notna().any()
        said += [f"{_listed(_few(list(map(_name, few))))} on {where} (too few seeds)"] if few and tested else []
    alone = _alone(comparison)
    return [f"Not decided, neither a difference from {alone} nor equivalence: {'; '.join(said)}."] if said else []


def _unfinished(comparison: pd.DataFrame) -> list[str]:
    """One line: what was not run, or did not finish at all, and why."""
    said = []
    for verdict, words in (("all failed", "no run finished"), ("skipped", "not run")):
        bad = comparison[comparison["verdict"] == verdict]
        for (dataset, backend, pair), rows in bad.groupby(["dataset", "backend", "pair"], sort=False):
            whole = verdict == "skipped" and len(rows) == len(_with(comparison, dataset, backend, pair))
            names = "everything" if whole else _listed(_few(list(rows["method"])))
            said.append(f"{names} on {dataset} ({pair}) with {backend_label(str(backend))}: {words}{_reasons(rows)}")
    return [f"Missing: {'; '.join(said)}."] if said else []


def _with(comparison: pd.DataFrame, dataset: object, backend: object, pair: object) -> pd.DataFrame:
    there = comparison["backend"].str.split("+").map(lambda names: backend in names)
    return comparison[(comparison["dataset"] == dataset) & (comparison["pair"] == pair) & there]


def _libraries(equivalence: pd.DataFrame) -> list[str]:
    """One line: of how many models two libraries are shown to be equivalent."""
    decided = equivalence[equivalence["verdict"] != "too few seeds"]
    if decided.empty:
        return []
    a, b = (backend_label(str(decided[name].iloc[0])) for name in ("backend_a", "backend_b"))
    alike = decided["verdict"].str.startswith("equivalent")
    margins = sorted(set(decided["delta"]))
    margin = " or ".join(f"±{100 * each:g}" for each in margins)
    text = f"{a} and {b} are shown to be equivalent within {margin} points for {alike.sum()} of {len(decided)} models"
    open_ = [f"{row['method']} on {row['dataset']} ({row['pair']})" for row in decided[~alike].to_dict("records")]
    return [f"{text}{f'; not shown for {_listed(_few(open_))}' if open_ else ''}."]


def _reasons(rows: pd.DataFrame) -> str:
    notes = dict.fromkeys(
        re.sub(r"^skipped \((.*)\)$", r"\1", note, flags=re.DOTALL)
        for note in rows["note"]
        if isinstance(note, str) and note
    )
    return f" ({'; '.join(notes)})" if notes else ""


def _name(row: Row) -> str:
    """The method, and its library where another has a row of its own."""
    return f"{row['method']} ({backend_label(row['backend'])})" if row["apart"] else str(row["method"])


def _apart(comparison: pd.DataFrame) -> pd.DataFrame:
    """``comparison`` with a column that says which methods have several rows on a data set and pair."""
    ran = comparison[comparison["verdict"] != "skipped"]
    return comparison.assign(
        apart=ran.duplicated(["dataset", "pair", "method"], keep=False).reindex(comparison.index, fill_value=False)
    )


def _few(names: Sequence[str]) -> list[str]:
    return [*names[:NAMED], *([f"{len(names) - NAMED} more"] if len(names) > NAMED else [])]


def _alone(rows: pd.DataFrame) -> str:
    baseline = str(next(iter(rows["baseline"]), "supervised"))
    return "the student alone" if baseline == "supervised" else baseline


def _listed(names: Iterable[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    *first, last = map(str, names)
    return f"{', '.join(first)} and {last}" if first else last
