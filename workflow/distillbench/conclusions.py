"""What a run shows, in sentences: each says what a verdict of the tables says, and nothing stronger. Imports no torch.

"No difference shown" stays that, and never becomes "equal"; verdicts that differ between libraries are not a difference
between libraries; too few seeds are no result.
"""

import math
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import pandas as pd

from distillbench.tables import backend_label, metric_label, signed

Row = dict[Hashable, Any]
TESTED = ("better", "worse", "no difference shown", "equivalent")  # how verdicts begin that a test stands behind
TOO_FEW = "too few seeds"
SPLITS = " on these splits"
FEW = 3  # methods whose intervals a sentence can carry


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
    verdicts = [str(verdict) for verdict in comparison.loc[comparison["verdict"] != "control", "verdict"]]
    if not verdicts:
        return "No method was compared with another: there are controls only."
    kinds = {
        "{n} show{s} the method better": [v for v in verdicts if v.startswith("better")],
        "{n} show{s} it worse": [v for v in verdicts if v.startswith("worse")],
        "{n} show{s} it equivalent": [v for v in verdicts if v.startswith("equivalent")],
        "{n} show{s} no difference": [v for v in verdicts if v == "no difference shown"],
        "{n} ha{ve} too few seeds to conclude anything": [v for v in verdicts if v == TOO_FEW],
        "{n} had no run that finished": [v for v in verdicts if v == "all failed"],
        "{n} {was} not run": [v for v in verdicts if v == "skipped"],
    }
    counted = [
        words.format(n=len(of_kind), s="s" * one, ve="s" if one else "ve", was="was" if one else "were")
        for words, of_kind in kinds.items()
        if of_kind
        for one in [len(of_kind) == 1]
    ]
    alone = _alone(comparison)
    if len(counted) == 1 < len(verdicts):
        return f"All {len(verdicts)} comparisons with {alone} {counted[0].partition(' ')[2]}."
    return f"Of {_count(len(verdicts), 'comparison')} with {alone}, {_listed(counted)}."


def findings(rows: pd.DataFrame, equivalence: pd.DataFrame | None = None, *, delta: float | None = None) -> list[str]:
    """What is shown on one data set and pair: ``rows`` and ``equivalence`` are those of it, in all libraries.

    First where teacher and baseline stand, then what is better, worse, equivalent, not shown to differ, not decided;
    then which methods are best, and whether the libraries are equivalent.
    """
    if rows.empty:
        return []
    place = f"On {rows['dataset'].iloc[0]} ({rows['pair'].iloc[0]})"
    alone = _alone(rows)
    backends = sorted(pd.unique(rows["backend"]), key=lambda backend: (backend != "pyg", str(backend)))
    not_run = [b for b in backends if (rows.loc[rows["backend"] == b, "verdict"] == "skipped").all()]
    texts = [_not_run(place, rows[rows["backend"] == backend]) for backend in not_run]
    live = [backend for backend in backends if backend not in not_run]
    if not live:
        return texts
    texts += _levels(place, rows, live, alone)
    by_verdicts: dict[tuple[str, ...], list[str]] = {}
    of: dict[tuple[str, str], Row] = {(row["method"], row["backend"]): row for row in rows.to_dict("records")}
    for method in pd.unique(rows.loc[(rows["role"] != "teacher") & (rows["verdict"] != "control"), "method"]):
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
    return texts + (_equivalence(place, equivalence) if equivalence is not None and len(equivalence) else [])


def _order(verdict: str) -> int:
    first = ("better", "worse", "equivalent", "no difference shown")
    return next((rank for rank, word in enumerate(first) if verdict.startswith(word)), len(first))


def _not_run(place: str, rows: pd.DataFrame) -> str:
    reasons = list(dict.fromkeys(str(note) for note in rows["note"] if isinstance(note, str) and note))
    why = f": {'; '.join(reasons)}" if reasons else ""
    return f"{place}, nothing was run with {backend_label(rows['backend'].iloc[0])}{why}."


def _levels(place: str, rows: pd.DataFrame, backends: Sequence[str], alone: str) -> list[str]:
    """Means of teacher and baseline: how much there is to gain. No test stands behind these numbers, nor is named."""
    said: dict[str, list[str]] = {}
    for backend in backends:
        here = rows[(rows["backend"] == backend) & rows["mean"].notna()]
        teacher, baseline = here[here["role"] == "teacher"], here[here["method"] == here["baseline"]]
        parts = [f"teacher {100 * teacher['mean'].iloc[0]:.1f}%"] if len(teacher) else []
        parts += [f"{alone} {100 * baseline['mean'].iloc[0]:.1f}%"] if len(baseline) else []
        if parts:
            said.setdefault(", ".join(parts), []).append(backend)
    each = [f"{what} ({_libraries(there, len(backends)).removeprefix('with ')})" for what, there in said.items()]
    return [f"{place}, mean test {metric_label(str(rows['metric'].iloc[0]))}: {'; '.join(each)}."] if each else []


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
        pairs = sorted({int(row["n_pairs"]) for row in rows})
        number = _range([str(n) for n in pairs], "to")
        return (
            f"{place}nothing can be concluded about {names} {_neither(libraries)}: {number} paired seeds are too few."
        )
    if verdict == "all failed":
        return f"{place}no run of {names} finished {_neither(libraries)}{_why(rows)}."
    return f"{place}{names} {is_or_are} marked “{verdict}” {libraries}{_why(rows)}."


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
    """The method with the highest mean, and those not shown worse than it, where ``best`` says so."""
    if "best" not in rows.columns:
        return []
    said: dict[str, list[str]] = {}
    for backend in backends:
        here = rows[(rows["backend"] == backend) & (rows["role"] != "teacher")]
        best, rest = here[here["best"] == "best"], list(here.loc[here["best"] == "not worse", "method"])
        if best.empty:
            continue
        others = f"not shown worse than it: {_listed(rest)}" if rest else "all others that could be tested are worse"
        what = f"{_listed(best['method'])}; {others}"
        said.setdefault(what, []).append(backend)
    return [
        f"{place}, highest mean {_libraries(there, len(backends))}: {what}." for what, there in said.items() if what
    ]


def _equivalence(place: str, rows: pd.DataFrame) -> list[str]:
    """Whether two libraries agree, method by method."""
    libraries = f"{backend_label(rows['backend_a'].iloc[0])} and {backend_label(rows['backend_b'].iloc[0])}"
    alike, few = rows["verdict"].str.startswith("equivalent"), rows["verdict"] == TOO_FEW
    shown, undecided, open_ = (list(rows.loc[which, "method"]) for which in (alike, few, ~alike & ~few))
    margin = f"within {_points(float(rows['delta'].iloc[0]))}"
    if len(undecided) == len(rows):
        return [f"{place}, there are too few paired seeds to say whether {libraries} are equivalent."]
    parts = []
    if shown:
        rest = [*open_, *undecided]
        every = f"all {len(rows)} models" if not rest else f"all models but {_listed(rest)}"
        named = every if len(rest) <= FEW < len(shown) else _listed(shown)
        parts.append(f"{libraries} are equivalent {margin} for {named}")
    if open_ and not shown:
        parts.append(
            f"{libraries} are shown to be equivalent {margin} for no model (which does not mean that they differ)"
        )
    elif open_:
        parts.append(f"for {_listed(open_)} it is not shown (which does not mean that they differ)")
    parts += [f"there are too few paired seeds for {_listed(undecided)}"] if undecided else []
    return [f"{place}, {'; '.join(parts)}."]


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
    closed = f" ({100 * gap:.0f}% of the gap to the teacher)" if gap > 0 else ""
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
    return f"equivalent {_margin(verdict, delta)}" if verdict.startswith("equivalent") else verdict


def _margin(verdict: str, delta: float | None) -> str:
    said = verdict.removeprefix("equivalent ").removesuffix(SPLITS)
    return said if delta is None else said.replace("δ", _points(delta))


def _why(rows: list[Row]) -> str:
    notes = dict.fromkeys(str(row["note"]) for row in rows if isinstance(row.get("note"), str) and row["note"])
    return f" ({'; '.join(notes)})" if notes else ""


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
