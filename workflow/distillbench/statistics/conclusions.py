"""What a run shows, in sentences: each says what a verdict of the tables says, and nothing stronger. Imports no torch.

"No difference shown" stays that, and never becomes "equal"; verdicts that differ between libraries are not a difference
between libraries; too few seeds are no result.
"""

import math
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import pandas as pd

from distillbench.params import MIN_SEEDS
from distillbench.wording import backend_label, backend_order, metric_label, signed

Row = dict[Hashable, Any]
TESTED = ("better", "worse", "no difference shown", "equivalent")  # how verdicts begin that a test stands behind
TOO_FEW = "too few seeds"
SPLITS = " on these splits"
FEW = 3  # methods whose intervals a sentence can carry
# how an overview counts each verdict; {it}: the method, named where it is first spoken of
COUNTED = {
    "better": "{n} show{s} {it} better",
    "better on these splits": "{n} show{s} {it} better on these splits only",
    "worse": "{n} show{s} {it} worse",
    "worse on these splits": "{n} show{s} {it} worse on these splits only",
    "equivalent within δ": "{n} show{s} {it} equivalent",
    "equivalent within δ on these splits": "{n} show{s} {it} equivalent on these splits only",
    "no difference shown": "in {n} no difference is shown",
    TOO_FEW: "{n} ha{ve} too few seeds to conclude anything",
    "all failed": "{n} had no run that finished",
    "skipped": "{n} {was} not run",
}


def conclusions(
    comparison: pd.DataFrame, equivalence: pd.DataFrame | None = None, across: str = "", *, delta: float | None = None
) -> list[str]:
    """All conclusions of a run, in order: an overview, per data set and pair what ``findings`` says, and ``across``.

    ``comparison``: rows of ``stats.compare``; ``equivalence``: of ``libraries.equivalence``; ``across``: the sentence
    of ``across.across_cells``; ``delta``: margin of the verdict "equivalent within δ", a fraction. Columns that are not
    there are not spoken of.
    """
    texts = [overview(comparison)]
    for (dataset, pair), rows in comparison.groupby(["dataset", "pair"], sort=False):
        alike = None
        if equivalence is not None:
            alike = equivalence[(equivalence["dataset"] == dataset) & (equivalence["pair"] == pair)]
        texts += findings(rows, alike, delta=delta)
    return [*texts, *([across] if across else [])]


def overview(comparison: pd.DataFrame) -> str:
    """How many comparisons there are, and how many of them came out how."""
    verdicts = Counter(str(verdict) for verdict in _compared(comparison)["verdict"])
    number, alone = verdicts.total(), _alone(comparison)
    if not number:
        return "No method was compared with another: there are controls only."
    if set(verdicts) == {"no difference shown"} and number > 1:
        return f"None of the {number} comparisons with {alone} shows a difference."
    counted: list[str] = []
    for verdict, words in COUNTED.items():
        if n := verdicts[verdict]:
            it = "it" if any("the method" in said for said in counted) else "the method"
            forms = {"s": "s", "ve": "s", "was": "was"} if n == 1 else {"s": "", "ve": "ve", "was": "were"}
            counted.append(words.format(n=n, it=it, **forms))
    if len(counted) == 1 < number:
        return f"All {number} comparisons with {alone} {counted[0].partition(' ')[2]}."
    return f"Of {_count(number, 'comparison')} with {alone}, {_listed(counted)}."


def findings(rows: pd.DataFrame, equivalence: pd.DataFrame | None = None, *, delta: float | None = None) -> list[str]:
    """What is shown on one data set and pair: ``rows`` and ``equivalence`` are those of it, in all libraries.

    First where teacher and baseline stand, then what is better, worse, equivalent, not shown to differ, not decided;
    then which methods are best, and whether the libraries are equivalent.
    """
    if rows.empty:
        return []
    place = f"On {rows['dataset'].iloc[0]} ({rows['pair'].iloc[0]})"
    alone = _alone(rows)
    backends = sorted(pd.unique(rows["backend"]), key=backend_order)
    not_run = [b for b in backends if (rows.loc[rows["backend"] == b, "verdict"] == "skipped").all()]
    texts = [_not_run(place, rows[rows["backend"] == backend]) for backend in not_run]
    live = [backend for backend in backends if backend not in not_run]
    if not live:
        return texts
    texts += [*_levels(place, rows, live, alone), *_failed_controls(place, rows, live, alone)]
    by_verdicts: dict[tuple[str, ...], list[str]] = {}
    of: dict[tuple[str, str], Row] = {(row["method"], row["backend"]): row for row in rows.to_dict("records")}
    for method in pd.unique(_compared(rows[rows["backend"].isin(live)])["method"]):
        verdicts = tuple(str(of[method, b]["verdict"]) if (method, b) in of else "" for b in live)
        by_verdicts.setdefault(verdicts, []).append(method)
    differing: list[str] = []
    for verdicts, methods in sorted(by_verdicts.items(), key=lambda item: _order(next(filter(None, item[0])))):
        if len(said := set(verdicts) - {""}) > 1:
            differing += methods
            continue
        there = [backend for backend, verdict in zip(live, verdicts, strict=True) if verdict]
        found = {method: [of[method, backend] for backend in there] for method in methods}
        texts.append(_same(f"{place}, ", found, said.pop(), alone, _libraries(there, len(live)), delta))
    texts += _differing(place, {m: [of[m, b] for b in live if (m, b) in of] for m in differing}, delta)
    texts += _best(place, rows, live)
    if equivalence is None:
        return texts
    without = rows.loc[rows["verdict"].isin(["skipped", "all failed"]), "method"]  # in one library: nothing to compare
    return texts + _equivalence(place, equivalence[~equivalence["method"].isin(without)])


def _compared(rows: pd.DataFrame) -> pd.DataFrame:
    """What is compared with the baseline: neither it nor the teacher, whatever became of their own runs."""
    return rows[(rows["role"] != "teacher") & (rows["method"] != rows["baseline"]) & (rows["verdict"] != "control")]


def _order(verdict: str) -> int:
    first = ("better", "worse", "equivalent", "no difference shown")
    return next((rank for rank, word in enumerate(first) if verdict.startswith(word)), len(first))


def _not_run(place: str, rows: pd.DataFrame) -> str:
    reasons = list(dict.fromkeys(_reason(note) for note in rows["note"] if isinstance(note, str) and note))
    why = f": {'; '.join(reasons)}" if reasons else ""
    return f"{place}, nothing was run with {backend_label(rows['backend'].iloc[0])}{why}."


def _levels(place: str, rows: pd.DataFrame, backends: Sequence[str], alone: str) -> list[str]:
    """Means of teacher and baseline: how much there is to gain. No test stands behind these numbers, nor is named."""
    said: dict[str, list[str]] = {}
    for backend in backends:
        here = rows[(rows["backend"] == backend) & rows["mean"].notna()]
        teacher, baseline = here[here["role"] == "teacher"], here[here["method"] == here["baseline"]]
        baseline = baseline[baseline["role"] != "teacher"]
        parts = [f"teacher {100 * teacher['mean'].iloc[0]:.1f}%"] if len(teacher) else []
        parts += [f"{alone} {100 * baseline['mean'].iloc[0]:.1f}%"] if len(baseline) else []
        if parts:
            said.setdefault(", ".join(parts), []).append(backend)
    each = [f"{what} ({_libraries(there, len(backends)).removeprefix('with ')})" for what, there in said.items()]
    return [f"{place}, mean test {metric_label(str(rows['metric'].iloc[0]))}: {'; '.join(each)}."] if each else []


def _failed_controls(place: str, rows: pd.DataFrame, backends: Sequence[str], alone: str) -> list[str]:
    """A teacher or a baseline without any run that finished: why there is nothing to learn from, or to compare with."""
    said: dict[tuple[str, str], list[str]] = {}
    failed = rows[rows["verdict"].isin(["skipped", "all failed"])]
    for who, which in (("the teacher", failed["role"] == "teacher"), (alone, failed["method"] == failed["baseline"])):
        for row in failed[which & failed["backend"].isin(backends)].to_dict("records"):
            said.setdefault((who, _why([row])), []).append(row["backend"])
    return [
        f"{place}, no run of {who} finished {_neither(_libraries(there, len(backends)))}{why}."
        for (who, why), there in said.items()
    ]


def _same(
    place: str, found: dict[str, list[Row]], verdict: str, alone: str, libraries: str, delta: float | None
) -> str:
    """One sentence for the methods that have the same verdict in every library that ran."""
    names, rows = _listed(found), [row for of_method in found.values() for row in of_method]
    is_or_are = "is" if len(found) == 1 else "are"
    splits = " on these splits (which says nothing of new data from the same source)" if SPLITS in verdict else ""
    if verdict.startswith("better"):
        beats = "beats" if len(found) == 1 else "beat"
        return f"{place}{names} {beats} {alone} {libraries}{splits}: {_sizes(found)}."
    if verdict.startswith("worse"):
        return f"{place}{names} {is_or_are} worse than {alone} {libraries}{splits}: {_sizes(found)}."
    if verdict.startswith("equivalent"):
        return f"{place}{names} {is_or_are} equivalent to {alone} {libraries} {_margin(verdict, delta)}{splits}."
    if verdict == "no difference shown":
        return f"{place}no difference from {alone} is shown {_neither(libraries)} for {names}{_detectable(rows)}."
    if verdict == TOO_FEW:
        nothing = f"{place}nothing can be concluded about {names} {_neither(libraries)}"
        return f"{nothing}: {_too_few(rows)}."
    if verdict == "all failed":
        return f"{place}no run of {names} finished {_neither(libraries)}{_why(rows)}."
    if verdict == "skipped":
        return f"{place}{names} {'was' if len(found) == 1 else 'were'} not run {_neither(libraries)}{_why(rows)}."
    return f"{place}{names} {is_or_are} marked “{verdict}” {libraries}{_why(rows)}."


def _too_few(rows: list[Row]) -> str:
    pairs = sorted({int(row["n_pairs"]) for row in rows})
    if pairs[0] >= MIN_SEEDS:  # too few teachers then
        return _why(rows).removeprefix(" (").removesuffix(")") or "too few of them are independent"
    return "no paired seed" if pairs == [0] else f"{_range([str(n) for n in pairs], 'to')} paired seeds are too few"


def _differing(place: str, found: dict[str, list[Row]], delta: float | None) -> list[str]:
    """The methods whose verdicts differ between libraries."""
    if not found:
        return []
    said = []
    for method, rows in found.items():
        each = [
            f"{_worded(str(row['verdict']), delta)} with {backend_label(row['backend'])}"
            f"{f' ({size})' if (size := _size(row)) else ''}"
            for row in rows
        ]
        said.append(f"{method} ({', '.join(each)})" if len(found) > 1 else f"{method}: {', '.join(each)}")
    text = f"{place}, the verdict is not the same in both libraries for {'; '.join(said)}."
    tested = all(str(row["verdict"]).startswith(TESTED) for rows in found.values() for row in rows)
    return [f"{text} That verdicts differ does not show that the libraries do."] if tested else [text]


def _best(place: str, rows: pd.DataFrame, backends: Sequence[str]) -> list[str]:
    """The method with the highest mean, and those not shown worse than it, where ``best`` says so.

    Ranked are those that finished the same seeds; where the mean of another one is higher, it is named as left out.
    """
    if "best" not in rows.columns:
        return []
    said: dict[tuple[str, str], list[str]] = {}
    for backend in backends:
        here = rows[(rows["backend"] == backend) & (rows["role"] != "teacher")]
        best, rest = here[here["best"] == "best"], list(here.loc[here["best"] == "not worse", "method"])
        if best.empty:
            continue
        others = f"not shown worse than it: {_listed(rest)}" if rest else "all others that could be tested are worse"
        unranked = here["p_best"].isna() & (here["best"] == "") & (here["mean"] > best["mean"].iloc[0])
        among, left_out = _left_out(here[unranked])
        if not among and here["note"].astype(str).str.contains("ranked for the best over").any():
            among = " over the seeds that all finished"
        among += SPLITS if "resplit" in best and best["resplit"].iloc[0] else ""
        said.setdefault((among, f"{_listed(best['method'])}; {others}{left_out}"), []).append(backend)
    return [
        f"{place}, highest mean{among} {_libraries(there, len(backends))}: {what}."
        for (among, what), there in said.items()
    ]


def _left_out(higher: pd.DataFrame) -> tuple[str, str]:
    """Among which methods the highest mean was looked for, and what is said of those that have a ``higher`` one."""
    if higher.empty:
        return "", ""
    each = [f"{row['method']} ({row['n_ok']} of {row['n']})" for row in higher.to_dict("records")]
    return " of those that finished the same seeds", f"; left out: {_listed(each)}"


def _equivalence(place: str, rows: pd.DataFrame) -> list[str]:
    """Whether two libraries agree, method by method; nothing where no method ran with both."""
    if rows.empty:
        return []
    libraries = f"{backend_label(rows['backend_a'].iloc[0])} and {backend_label(rows['backend_b'].iloc[0])}"
    alike, few = rows["verdict"].str.startswith("equivalent"), rows["verdict"] == TOO_FEW
    weak = alike & rows["verdict"].str.endswith(SPLITS)
    kinds = (alike & ~weak, weak, ~alike & ~few, few)
    shown, on_splits, open_, undecided = (list(rows.loc[which, "method"]) for which in kinds)
    margin = f"within {_points(float(rows['delta'].iloc[0]))}"
    if len(undecided) == len(rows):
        return [f"{place}, there are too few paired seeds to say whether {libraries} are equivalent."]
    parts = [f"{libraries} are equivalent {margin} for {_models(shown, rows)}"] if shown else []
    if on_splits:
        whole = f"{libraries} are equivalent {margin}{SPLITS} for {_models(on_splits, rows)}"
        parts.append(f"for {_listed(on_splits)}{SPLITS} only" if shown else whole)
    if open_ and not parts:
        parts.append(
            f"{libraries} are shown to be equivalent {margin} for no model (which does not mean that they differ)"
        )
    elif open_:
        parts.append(f"for {_listed(open_)} it is not shown (which does not mean that they differ)")
    parts += [f"there are too few paired seeds for {_listed(undecided)}"] if undecided else []
    return [f"{place}, {'; '.join(parts)}."]


def _models(named: Sequence[str], rows: pd.DataFrame) -> str:
    """Their names; of many, those that are not among them."""
    rest = [method for method in rows["method"] if method not in named]
    every = f"all {len(rows)} models" if not rest else f"all models but {_listed(rest)}"
    return every if len(rest) <= FEW < len(named) else _listed(named)


def _sizes(found: dict[str, list[Row]]) -> str:
    """Differences, library by library; of more than FEW methods without the intervals, the largest first."""
    if len(found) > FEW:
        ordered = sorted(found.items(), key=lambda item: -abs(_number(item[1][0], "diff")))
        each = [f"{name} {' / '.join(signed(_number(r, 'diff'), 1) for r in rows)}" for name, rows in ordered]
        libraries = dict.fromkeys(backend_label(row["backend"]) for rows in found.values() for row in rows)
        return f"{', '.join(each)} points ({' / '.join(libraries)}; intervals are in the table)"
    several = len({row["backend"] for rows in found.values() for row in rows}) > 1
    sizes = {
        name: ", ".join(f"{_size(row)} with {backend_label(row['backend'])}" if several else _size(row) for row in rows)
        for name, rows in found.items()
    }
    return next(iter(sizes.values())) if len(sizes) == 1 else "; ".join(f"{n} {text}" for n, text in sizes.items())


def _size(row: Row) -> str:
    """``+4.8 points [+1.4, +7.6] (52% of the gap to the teacher), over 9 of 10 seeds``; empty without a difference."""
    if math.isnan(_number(row, "diff")):
        return ""
    low, high = _number(row, "ci_low"), _number(row, "ci_high")
    interval = "" if math.isnan(low) else f" [{signed(low, 1)}, {signed(high, 1)}]"
    gap, pairs, planned = _number(row, "gap_closed"), int(row["n_pairs"]), int(row["n"])
    share = "more than the whole gap" if gap > 1 else f"{100 * gap:.0f}% of the gap"
    closed = f" ({share} to the teacher)" if gap > 0 else ""
    fewer = f", over {pairs} of {planned} seeds" if pairs < planned else ""
    return f"{signed(_number(row, 'diff'), 1)} points{interval}{closed}{fewer}"


def _detectable(rows: list[Row]) -> str:
    known = sorted(value for row in rows if not math.isnan(value := _number(row, "detectable")))
    if not known:
        return ""
    least = _range([f"{100 * value:.1f}" for value in known], "to")
    which = "" if known[0] == known[-1] else ", depending on the method"
    return f"; the smallest that this run could have shown with 80% power: {least} points{which}"


def _worded(verdict: str, delta: float | None) -> str:
    splits = SPLITS if verdict.endswith(SPLITS) else ""
    if verdict.startswith("equivalent"):
        return f"equivalent {_margin(verdict, delta)}{splits}"
    return "not run" if verdict == "skipped" else verdict


def _margin(verdict: str, delta: float | None) -> str:
    said = verdict.removeprefix("equivalent ").removesuffix(SPLITS)
    return said if delta is None else said.replace("δ", _points(delta))


def _why(rows: list[Row]) -> str:
    notes = dict.fromkeys(_reason(row["note"]) for row in rows if isinstance(row.get("note"), str) and row["note"])
    return f" ({'; '.join(notes)})" if notes else ""


def _reason(note: str) -> str:
    """The note of what was never run without the word that says so, which the sentence has."""
    return re.sub(r"^skipped \((.*)\)$", r"\1", note, flags=re.DOTALL)


def _range(texts: Sequence[str], between: str) -> str:
    """Of texts in order: the first, or first and last."""
    return texts[0] if texts[0] == texts[-1] else f"{texts[0]} {between} {texts[-1]}"


def _libraries(backends: Sequence[str], of: int) -> str:
    return "with both libraries" if len(backends) == of == 2 else f"with {_listed(map(backend_label, backends))}"


def _neither(libraries: str) -> str:
    return libraries.replace("both libraries", "either library")


def _points(fraction: float) -> str:
    return f"±{100 * fraction:g} point{'s' * (100 * fraction != 1)}"


def _alone(rows: pd.DataFrame) -> str:
    baseline = str(next(iter(rows["baseline"]), "supervised"))
    return "the student alone" if baseline == "supervised" else baseline


def _number(row: Row, name: str) -> float:
    value = row.get(name)
    return math.nan if value is None or pd.isna(value) else float(value)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _listed(names: Iterable[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    *first, last = map(str, names)
    return f"{', '.join(first)} and {last}" if first else last
