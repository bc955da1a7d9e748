"""The comparison for people: HTML, LaTeX and Markdown beside CSV and Parquet. Imports no torch.

A stranger should be able to read it alone: the notes below it say what was tested and how, and which seeds failed.
"""

import html as markup
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import great_tables as gt
import pandas as pd

from distillbench.params import MIN_SEEDS
from distillbench.record import write_atomically
from distillbench.runs import write_csv, write_parquet
from distillbench.statistics.paired import ALPHA, COLLAPSE
from distillbench.tables.latex import latex_tables
from distillbench.wording import NOTHING, backend_label, backend_order, markdown_text, metric_label, signed, table_row

SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
MEAN, DIFFERENCE, IMPROVED = "Mean ± sd, %", "Difference, points", "Improved"
COLUMNS = ("Method", MEAN, DIFFERENCE, IMPROVED, "p, adjusted", "Gap closed", "Verdict")
LEFT = ("Method", "Verdict")
MARKS = {"better": "▲ ", "worse": "▼ ", "equivalent": "≈ "}  # a verdict is found without reading, in grey, too

# the table scrolls by itself where the page is narrow, with the names of the methods in view
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ margin: 1rem; font: 14px/1.5 system-ui, sans-serif; color: #333; }}
#comparison {{ overflow-x: auto; }}
#comparison td, #comparison th {{ white-space: nowrap; font-variant-numeric: tabular-nums; }}
#comparison tbody td:first-child:not([colspan]) {{ position: sticky; left: 0; background: #fff; }}
ul {{ max-width: 62rem; padding-left: 1.2rem; font-size: 13px; }}
@media (max-width: 40rem) {{ #comparison table {{ font-size: 12px !important; }} }}
</style>
</head>
<body>
{table}
<ul>
{notes}
</ul>
</body>
</html>
"""


class _Shown(NamedTuple):
    """The comparison as text. texts: COLUMNS, and "cell", the heading that a row stands under.

    failed, differs [rows]: places to colour. notes: below the table.
    """

    texts: pd.DataFrame
    failed: list[int]
    differs: list[int]
    notes: list[str]


def write_comparison(
    comparison: pd.DataFrame,
    *,
    csv: Path,
    parquet: Path,
    html: Path,
    tex: Path,
    markdown: Path,
    alpha: float = ALPHA,
    min_seeds: int = MIN_SEEDS,
    remarks: Sequence[str] = (),
) -> None:
    """Write what ``statistics.compare.compare`` returned in five forms; the options as given to it.

    ``remarks`` are sentences for the notes, about all data sets together. CSV and Parquet have all columns with full
    precision, in fractions. The others show seven, in percent and percentage points, and end in notes. The HTML needs
    no network; the LaTeX needs ``booktabs`` and compiles as pasted.
    """
    shown = _shown(comparison, [*explanations(comparison, alpha, min_seeds), *remarks])
    write_csv(comparison, csv)
    write_parquet(comparison, parquet)
    write_atomically(html, _html(shown))
    write_atomically(tex, _latex(shown))
    write_atomically(markdown, _markdown(shown))


def _shown(comparison: pd.DataFrame, notes: list[str]) -> _Shown:
    marked = list(dict.fromkeys(note for note in comparison["note"] if note))
    rows, texts = [], []
    for of_pair in groups(comparison):
        title, libraries = heading(of_pair)
        for row in of_pair.to_dict("records"):
            said = texts_of(row, libraries)
            texts.append({"cell": title} | said | {"Verdict": said["Verdict"] + _mark(row["note"], marked)})
            rows.append(row)
    return _Shown(
        pd.DataFrame(texts, columns=["cell", *COLUMNS]),
        [place for place, row in enumerate(rows) if row["n_ok"] < row["n"] or row["collapsed"]],
        [place for place, row in enumerate(rows) if row["verdict"].startswith(("better", "worse"))],
        [*notes, *(f"{str(number).translate(SUPERSCRIPTS)} {note}" for number, note in enumerate(marked, 1))],
    )


def groups(comparison: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows that are tested together: of each data set and pair. What a library skipped for one reason is one."""
    found = []
    for _, rows in comparison.groupby(["dataset", "pair"], sort=False):
        skipped = rows[rows["verdict"] == "skipped"]
        for _, of_library in skipped.groupby("backend", sort=False):
            if len(of_library) > 1 and of_library["note"].nunique() == 1:
                every = of_library.head(1).assign(method=f"all {len(of_library)} methods", n=of_library["n"].sum())
                rows = pd.concat([rows.drop(of_library.index), every])
        found.append(rows)
    return found


def heading(rows: pd.DataFrame) -> tuple[str, str]:
    """Of the rows of one data set and pair, ``cora · gcn · test accuracy · PyG, DGL``; and the libraries that ran."""
    ran = {name for backend in rows.loc[rows["verdict"] != "skipped", "backend"] for name in backend.split("+")}
    libraries = "+".join(sorted(ran, key=backend_order))
    first = rows.iloc[0]
    said = [first["dataset"], first["pair"], f"test {metric_label(first['metric'])}", backend_label(libraries)]
    return " · ".join(filter(None, said)), libraries


def texts_of(row: Mapping[Any, Any], libraries: str) -> dict[str, str]:
    """One row of the comparison as COLUMNS, as every table has them; who is not of all ``libraries`` names its own."""
    name = str(row["method"]) + (" (baseline)" if row["method"] == row["baseline"] else "")
    return {
        "Method": name if row["backend"] == libraries else f"{name}, {backend_label(row['backend'])}",
        MEAN: _mean(row["mean"], row["std"]),
        DIFFERENCE: _difference(row),
        IMPROVED: _improved(row),
        "p, adjusted": _p(row["p"]) if row["verdict"] != "control" else NOTHING,
        "Gap closed": NOTHING if math.isnan(row["gap_closed"]) else f"{round(100 * row['gap_closed'])}%",
        "Verdict": next((mark for word, mark in MARKS.items() if str(row["verdict"]).startswith(word)), "")
        + str(row["verdict"]),
    }


def _mean(mean: float, std: float) -> str:
    if math.isnan(mean):
        return NOTHING
    return f"{100 * mean:.1f}" if math.isnan(std) else f"{100 * mean:.1f} ± {100 * std:.1f}"


def _difference(row: Mapping[Any, Any]) -> str:
    interval = "" if math.isnan(row["ci_low"]) else f" [{signed(row['ci_low'])}, {signed(row['ci_high'])}]"
    return signed(row["diff"]) + interval


def _improved(row: Mapping[Any, Any]) -> str:
    """``9/10``, ``7/10 (1 failed, 1 collapsed)``; of the baseline only what failed or collapsed."""
    counted = {"failed": row["n"] - row["n_ok"] if row["verdict"] != "skipped" else 0, "collapsed": row["collapsed"]}
    said = ", ".join(f"{count} {what}" for what, count in counted.items() if count)
    share = f"{row['improved']}/{row['n']}" if row["n_pairs"] else NOTHING
    return f"{share} ({said})" if said else share


def _p(p: float) -> str:
    if math.isnan(p):
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _mark(note: str, marked: Sequence[str]) -> str:
    return str(marked.index(note) + 1).translate(SUPERSCRIPTS) if note else ""


def explanations(comparison: pd.DataFrame, alpha: float = ALPHA, min_seeds: int = MIN_SEEDS) -> list[str]:
    """What the columns are and how it was tested, in sentences; docs/statistics.md has the reasons."""
    baseline = next(iter(comparison["baseline"]), "the baseline")
    tested = comparison[comparison["p_table"].notna()]
    known = tested["n_rows"] > 0
    sources = "new seeds and new test rows"
    if len(tested) and not known.any():
        sources = "new seeds alone (no predictions are stored, so nothing is said of new test rows)"
    elif not known.all():
        lacking = ", ".join(pd.unique(tested.loc[~known, "dataset"]))
        sources += f" (of {lacking} new seeds alone: no predictions are stored)"
    notes = [
        f"Difference to {baseline} with the same seed, in percentage points; its {_percent(1 - alpha)} interval allows "
        f"for {sources}, and those of all methods under one heading hold together. Several libraries are one row "
        f"where they agree; a row of one names it.",
        f"p, adjusted: step-down max-|t| under flips of the seeds' signs (Westfall and Young), over the methods under "
        f"one heading. “better”, “worse”: p ≤ {alpha:g} and an interval without 0.{_equivalence(comparison)} “no "
        f"difference shown” does not mean equal. Below {min_seeds} pairs there is no verdict."
        f"{_whole_table(comparison, alpha)}",
        f"Improved: seeds above {baseline}'s, of those asked for. Collapsed: {100 * COLLAPSE:g} points or more below "
        f"the method's median.{_unseen(comparison)} Gap closed: the difference as a share of the teacher's, where both "
        f"are above 0 and the teacher's is shown.",
    ]
    one = comparison.loc[~comparison["resplit"].astype(bool) & (comparison["n_ok"] > 0), "dataset"]
    if len(one):
        notes.append(f"One split for all seeds, so that it is about that split: {', '.join(pd.unique(one))}.")
    return notes


def _percent(share: float) -> str:
    return f"{100 * share:g}%"


def _equivalence(comparison: pd.DataFrame) -> str:
    """What δ is, where a verdict has it."""
    of = comparison[comparison["verdict"].str.contains("δ")]
    if of.empty:
        return ""
    margins: dict[str, str] = {}
    for row in of.drop_duplicates(["dataset", "pair"]).to_dict("records"):
        where = f"{row['dataset']} ({row['pair']})"
        said = f"±{100 * row['delta']:g}"
        margins[said] = f"{margins[said]}, {where}" if said in margins else where
    within = next(iter(margins)) if len(margins) == 1 else ", ".join(f"{m} on {where}" for m, where in margins.items())
    return f" “δ”: two one-sided t tests (Holm) show the difference to be within {within} points."


def _whole_table(comparison: pd.DataFrame, alpha: float) -> str:
    """What a correction over all headings leaves of the verdicts: every one is a family of its own."""
    if comparison.drop_duplicates(["dataset", "pair"]).shape[0] < 2:
        return ""
    shown = comparison["verdict"].str.startswith(("better", "worse"))
    if not shown.any():
        return ""
    left = int((shown & (comparison["p_table"] <= alpha)).sum())
    number = int(comparison["p_table"].notna().sum())
    return f" Adjusted over all {number} comparisons, {left} of the {shown.sum()} “better” and “worse” hold as well."


def _unseen(comparison: pd.DataFrame) -> str:
    """What may still collapse where nothing did: the exact upper bound of a share of which none was seen."""
    tested = comparison[comparison["p_table"].notna()]
    if tested.empty:
        return ""
    n = int(tested["n_ok"].max())
    return f" Where none of {n} did, up to {100 * (1 - 0.05 ** (1 / n)):.0f}% may (95%)."


def _html(shown: _Shown) -> str:
    title = "Comparison over paired seeds"
    texts = shown.texts
    table = gt.GT(texts, id="comparison", groupname_col="cell" if len(texts) else None)
    right = [name for name in texts.columns if name not in (*LEFT, "cell")]
    table = table.tab_header(title).cols_align("right", right).cols_align("left", list(LEFT))
    if shown.failed:
        table = table.tab_style(gt.style.text(color="#b00020"), gt.loc.body(columns=IMPROVED, rows=shown.failed))
    if shown.differs:
        places = gt.loc.body(columns=["Method", "Verdict"], rows=shown.differs)
        table = table.tab_style(gt.style.text(weight="bold"), places)
    table = table.tab_options(
        table_font_size="14px", row_group_font_weight="bold", row_group_background_color="#f4f4f4",
        data_row_padding="5px", heading_align="left", table_margin_left="0", table_body_hlines_color="#eeeeee",
    )  # fmt: skip
    notes = "\n".join(f"<li>{markup.escape(note)}</li>" for note in shown.notes)
    return PAGE.format(title=title, table=table.as_raw_html(), notes=notes)


def _latex(shown: _Shown) -> str:
    texts = shown.texts
    if len(texts):
        texts = texts.assign(group=texts["cell"].str.split(" · ").str[0])
    return latex_tables(
        texts, caption="Comparison over paired seeds", notes=shown.notes, left=LEFT, wrapped={"Verdict": "2.9cm"}
    )


def _markdown(shown: _Shown) -> str:
    lines = []
    for cell, rows in shown.texts.groupby("cell", sort=False) if len(shown.texts) else ():
        lines += [f"**{markdown_text(str(cell))}**", "", table_row(COLUMNS)]
        lines.append("|" + "|".join(":---" if name in LEFT else "---:" for name in COLUMNS) + "|")
        for row in rows[list(COLUMNS)].to_dict("records"):
            lines.append(table_row(markdown_text(str(text)) for text in row.values()))
        lines.append("")
    return "\n".join([*lines, *(f"- {markdown_text(note)}" for note in shown.notes)]) + "\n"
