"""The tables of the report page: the CSV files of a run as text, in the columns that a first reader needs. No torch.

The files have every column with full precision; here are percent and percentage points.
"""

import json
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from distillbench.plan.tuning import in_words
from distillbench.statistics.frames import CELL
from distillbench.tables.comparison import COLUMNS, MARKS, groups, heading, texts_of
from distillbench.tables.profiles import SIZE, SPEED, notes
from distillbench.tables.profiles import WORDS as WORDS_OF_PROFILES
from distillbench.tables.tuning import footnotes
from distillbench.wording import NOTHING, backend_label, reason_in_words, signed

Record = dict[Hashable, Any]
# what is text also where it looks like a number, or like a missing value: a method may be called "nan" or "1e3"
NAMES = (
    *CELL, "method", "variant", "role", "baseline", "metric", "reason", "test", "chosen", "scores", "verdict", "best",
    "note", "backend_a", "backend_b", "source", "teacher", "student", "protocol", "quantity", "device", "model",
    "values", "mistrusted", "skipped", "inference_status", "exported_status",
    "onnx_status", "energy_status", "training_status",
)  # fmt: skip


class Line(NamedTuple):
    """A row of a table; ``strong`` where a test shows something."""

    texts: list[str]
    strong: bool = False


class Table(NamedTuple):
    """A table as the page shows it. ``words``: columns of words, the others are aligned right. ``prose``: all wrap."""

    caption: str
    columns: list[str]
    lines: list[Line]
    words: frozenset[str]
    notes: list[str]
    prose: bool = False


def prose_table(caption: str, records: Sequence[dict[str, str]]) -> Table:
    """Texts in the columns that the records' keys name; a column that says nothing anywhere is left out."""
    kept = [name for name in (records[0] if records else {}) if any(record[name] for record in records)]
    lines = [Line([record[name] or NOTHING for name in kept]) for record in records]
    return Table(caption, kept, lines, frozenset(kept), [], prose=True)


def read_table(path: Path) -> pd.DataFrame | None:
    """A CSV of ``tables/``, None where there is none. Names stay text, other columns are numbers where they can be."""
    if not path.is_file():
        return None
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    for name in frame.columns:
        if name in NAMES:
            continue
        column = frame[name]
        if len(column) and column.isin(["True", "False"]).all():
            frame[name] = column == "True"
            continue
        try:
            frame[name] = pd.to_numeric(column.replace("", None))
        except (ValueError, TypeError):
            continue
    return frame


def comparison_tables(comparison: pd.DataFrame) -> list[Table]:
    """Every method beside the baseline, as ``tables/comparison.html`` has it: a table per data set and pair."""
    tables = []
    for rows in groups(comparison):
        caption, libraries = heading(rows)
        notes = list(dict.fromkeys(note for note in rows["note"] if note))
        lines = []
        for row in rows.to_dict("records"):
            texts = texts_of(row, libraries)
            texts["Verdict"] += f" [{notes.index(row['note']) + 1}]" if row["note"] else ""
            lines.append(Line(list(texts.values()), _shows(row)))
        numbered = [f"[{number}] {note}" for number, note in enumerate(notes, 1)]
        tables.append(Table(caption, list(COLUMNS), lines, WORDS, numbered))
    return tables


def best_tables(comparison: pd.DataFrame) -> list[Table]:
    """Of each data set and pair, how far the students are behind the one with the highest mean."""
    tables = []
    for rows in groups(comparison):
        caption, libraries = heading(rows)
        ranked = rows[rows["best_diff"].notna()].sort_values("best_diff", ascending=False, kind="stable")
        lines = [
            Line(
                [texts_of(row, libraries)["Method"], _points("best_diff")(row), _interval("best_low", "best_high")(row)]
            )
            for row in ranked.to_dict("records")
        ]
        if lines:
            tables.append(Table(caption, ["Method", "Behind the best, points", "Interval"], lines, WORDS, []))
    return tables


def equivalence_tables(equivalence: pd.DataFrame) -> list[Table]:
    """One table per data set and pair, of one library minus the other."""
    tables = []
    for (dataset, pair), rows in equivalence.groupby(["dataset", "pair"], sort=False):
        a, b = (backend_label(str(rows[name].iloc[0])) for name in ("backend_a", "backend_b"))
        margin = f"margin ±{100 * rows['delta'].iloc[0]:g} percentage points"
        caption = f"{dataset} · {pair}: {a} minus {b}, {margin}"
        notes = [f"{row['method']}: {row['note']}" for row in rows.to_dict("records") if row["note"]]
        tables.append(_table(caption, rows.to_dict("records"), EQUIVALENT, strong=_shows, notes=notes))
    return tables


def across_table(across: pd.DataFrame) -> Table:
    """What ``across.across_cells`` has in its table: the methods over all data sets and pairs, the best rank first."""
    return _table("Methods over all data sets and pairs, 95% intervals", across.to_dict("records"), RANKED)


def profiles_tables(profiles: pd.DataFrame) -> list[Table]:
    """What the models cost, and how large they are."""
    every = profiles.to_dict("records")
    records = [record for record in every if not _known(record.get("skipped", ""))]
    return [
        _table("What the models cost, with all cores", records, SPEED, notes=notes(every)),
        _table("How large the models are", records, SIZE),
    ]


def reproduction_table(reproduction: pd.DataFrame) -> Table:
    """Our results beside published ones, in the units of the publication."""
    caption = "Published results beside ours, percent and points"
    return _table(caption, reproduction.to_dict("records"), REPRODUCED, strong=_shows)


def tuning_tables(tuning: pd.DataFrame, results: Path) -> list[Table]:
    """One table per data set and pair: what was chosen for each method, and what its trials scored on validation.

    ``tuning`` has a row per trial (``tuning_table.tuning_table``); trial 0 has the default values. The budget is in the
    files below ``results`` that it was made of, and is said below the first table.
    """
    tables: list[Table] = []
    places = tuning[["dataset", "pair", "method"]].drop_duplicates().itertuples(index=False, name=None)
    budget = footnotes(
        [str(results / "tuning" / dataset / pair / f"{method}.json") for dataset, pair, method in places]
    )
    for (dataset, pair), rows in tuning.groupby(["dataset", "pair"], sort=False):
        records: list[Record] = []
        for method, trials in rows.groupby("method", sort=False):
            chosen = trials[trials["chosen"] == "yes"].to_dict("records")
            records.append({
                "method": method,
                "trials": f"{int(trials['val'].notna().sum())} / {len(trials)}",
                "values": in_words(json.loads(chosen[0]["values"])) if chosen else "",
                "default": trials.loc[trials["trial"] == 0, "val"].min(),
                "val": chosen[0]["val"] if chosen else math.nan,
                "low": trials["val"].min(),
                "high": trials["val"].max(),
            })  # fmt: skip
        caption = f"{dataset} · {pair}: validation score, mean over the tuning seeds, which are not reported"
        tables.append(_table(caption, records, TUNED, notes=[] if tables else budget[:1]))
    return tables


def failures_table(runs: pd.DataFrame) -> Table:
    """Every run that is not ok and why, runs of one method and reason together."""
    bad = runs[runs["status"] != "ok"]
    records = []
    for (dataset, backend, pair, method, status, why), rows in bad.groupby(
        [*CELL, "method", "status", "reason"], sort=False
    ):
        seeds = ", ".join(str(seed) for seed in sorted(rows["seed"]))
        where = f"{dataset} · {backend_label(str(backend))} · {pair}"
        records.append(
            {
                "Where": where,
                "Method": str(method),
                "Seeds": seeds,
                "Status": str(status),
                "Why": reason_in_words(str(why)),
            }
        )
    return prose_table("Runs that did not finish", records)


def _table(
    caption: str,
    records: Sequence[Record],
    columns: Mapping[str, Callable[[Record], str]],
    *,
    strong: Callable[[Record], bool] = lambda _: False,
    notes: Sequence[str] = (),
) -> Table:
    """Apply ``columns`` to every record; a column that says nothing anywhere is left out."""
    texts = {name: [_said(write, record) for record in records] for name, write in columns.items()}
    kept = [name for name, column in texts.items() if any(text != NOTHING for text in column)]
    lines = [Line([texts[name][i] for name in kept], strong(record)) for i, record in enumerate(records)]
    return Table(caption, kept, lines, WORDS, list(notes))


def _said(write: Callable[[Record], str], record: Record) -> str:
    try:
        return write(record) or NOTHING
    except KeyError:  # a column that this table does not have
        return NOTHING


def _shows(record: Record) -> bool:
    return str(record["verdict"]).startswith(("better", "worse", "not reproduced"))


def _text(name: str) -> Callable[[Record], str]:
    return lambda record: str(record[name])


def _format(name: str, form: str, scale: float = 1.0) -> Callable[[Record], str]:
    return lambda record: form.format(scale * record[name]).replace("-", "−") if _known(record[name]) else NOTHING


def _known(value: Any) -> bool:
    return value != "" and not pd.isna(value)


def _points(name: str) -> Callable[[Record], str]:
    return lambda record: signed(record[name])


def _interval(low: str, high: str) -> Callable[[Record], str]:
    return lambda r: f"[{signed(r[low])}, {signed(r[high])}]" if _known(r[low]) else NOTHING


def _p(name: str) -> Callable[[Record], str]:
    def write(record: Record) -> str:
        p = record[name]
        return NOTHING if not _known(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"

    return write


def _verdict(record: Record) -> str:
    mark = next((mark for word, mark in MARKS.items() if str(record["verdict"]).startswith(word)), "")
    return f"{mark}{record['verdict']}{f' [{note}]' if (note := record.get('mark')) else ''}"


def _library(record: Record) -> str:
    return backend_label(str(record["backend"]))


def _with_interval(name: str, low: str, high: str, scale: float = 1.0) -> Callable[[Record], str]:
    def write(record: Record) -> str:
        if not _known(record[name]):
            return NOTHING
        shown = f"{scale * record[name]:.2f}"
        return f"{shown} [{scale * record[low]:.2f}, {scale * record[high]:.2f}]" if _known(record[low]) else shown

    return write


EQUIVALENT: dict[str, Callable[[Record], str]] = {
    "Method": _text("method"),
    "Pairs": _format("n_pairs", "{:.0f}"),
    "Difference, points": _points("diff"),
    "90% interval": _interval("ci90_low", "ci90_high"),
    "p, two one-sided": _p("p_tost"),
    "Time ratio": _with_interval("time_ratio", "time_ratio_low", "time_ratio_high"),
    "Verdict": _verdict,
}
RANKED: dict[str, Callable[[Record], str]] = {
    "Method": _text("method"),
    "Mean rank": _with_interval("mean_rank", "rank_low", "rank_high"),
    "First": _format("first", "{:.0f}%", 100),
    "IQM, %": _with_interval("iqm", "iqm_low", "iqm_high", 100),
    "P(improve)": _with_interval("p_improve", "p_improve_low", "p_improve_high"),
    "p Nemenyi": _p("p_nemenyi"),
    "p Wilcoxon, Holm": _p("p_wilcoxon_holm"),
}
REPRODUCED: dict[str, Callable[[Record], str]] = {
    "Data set": _text("dataset"),
    "Pair": _text("pair"),
    "Library": _library,
    "Source": _text("source"),
    "Method": _text("method"),
    "What": _text("quantity"),
    "Published": _format("published", "{:.2f}"),
    "Ours": _format("ours", "{:.2f}"),
    "Difference": _format("diff", "{:+.2f}"),
    "95% interval": lambda r: f"[{r['diff_low']:+.2f}, {r['diff_high']:+.2f}]" if _known(r["diff_low"]) else NOTHING,
    "Verdict": _verdict,
    "Why": _text("reason"),
}
TUNED: dict[str, Callable[[Record], str]] = {
    "Method": _text("method"),
    "Trials ok": _text("trials"),
    "Chosen values": _text("values"),
    "Default, %": _format("default", "{:.1f}", 100),
    "Chosen, %": _format("val", "{:.1f}", 100),
    "All trials, %": lambda r: f"{100 * r['low']:.1f}–{100 * r['high']:.1f}" if _known(r["low"]) else NOTHING,
}
WORDS = frozenset(
    (
        "Method",
        "Verdict",
        "Best",
        "Chosen",
        "Data set",
        "Pair",
        "Library",
        "Role",
        "Model",
        "Source",
        "What",
        "Why",
        "Device",
        *WORDS_OF_PROFILES,
    )
)
