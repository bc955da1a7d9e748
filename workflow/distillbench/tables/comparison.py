"""The comparison for people: HTML, LaTeX and Markdown beside CSV and Parquet. Imports no torch.

A stranger should be able to read it alone: the notes below it say what was tested and how, what bold means, which
seeds failed.
"""

import html as markup
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import great_tables as gt
import pandas as pd

from distillbench.params import MIN_SEEDS
from distillbench.record import write_atomically
from distillbench.runs import write_csv, write_parquet
from distillbench.statistics.compare import MIXED
from distillbench.statistics.frames import CELL
from distillbench.statistics.paired import ALPHA, DELTA
from distillbench.tables.latex import latex_tables
from distillbench.wording import NOTHING, backend_label, markdown_text, metric_label, signed, table_row

SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
LEFT = ("Method", "Verdict")
MEAN = "Mean ± std, %"
# a page is no wider; the CSV has them
NOT_IN_LATEX = ("Parameters", "p t Holm", "p resplit", "P(improve)", "Detectable, pp", "Seeds needed")
TEST_NAMES = {
    "wilcoxon": "exact two-sided Wilcoxon signed-rank test over the pairs",
    "permutation": "two-sided sign-flip permutation test of the mean over the pairs",
    MIXED: "a mixed model with the teacher as random effect where seeds share teachers",
}


class _Shown(NamedTuple):
    """The comparison as text. texts: one column per column people read and "cell" for its group.

    bold [rows]: whether the mean is marked. failed, differs [rows]: places to colour. notes: below the table.
    """

    texts: pd.DataFrame
    bold: "pd.Series[Any]"
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
    delta: float = DELTA,
    family: str = "cell",
    min_seeds: int = MIN_SEEDS,
    remarks: Sequence[str] = (),
) -> None:
    """Write what ``stats.compare`` returned in five forms; the options as given to it.

    ``remarks`` are sentences for the notes, about all cells together.

    CSV and Parquet have full precision, in fractions. The others show percent and percentage points and end in notes
    that say what was tested, what the intervals are, and which seeds failed or cells were skipped, and why. The HTML
    needs no network; the LaTeX needs ``booktabs`` and compiles as pasted.
    """
    explained = _explanations(comparison, alpha, delta, family, min_seeds)
    shown = _shown(comparison, [*explained, *remarks])
    write_csv(comparison, csv)
    write_parquet(comparison, parquet)
    write_atomically(html, _html(shown))
    write_atomically(tex, _latex(shown))
    write_atomically(markdown, _markdown(shown))


def _shown(comparison: pd.DataFrame, notes: list[str]) -> _Shown:
    marked = list(dict.fromkeys(note for note in comparison["note"] if note))
    rows = _without_skipped_cells(comparison).to_dict("records")
    texts = pd.DataFrame([_texts({str(k): v for k, v in row.items()}, marked) for row in rows])
    if not comparison["resplit"].any():
        texts = texts.drop(columns="p resplit", errors="ignore")
    return _Shown(
        texts,
        pd.Series([bool(row["best"]) for row in rows], dtype=bool),
        [place for place, row in enumerate(rows) if row["n_ok"] < row["n"]],
        [place for place, row in enumerate(rows) if row["verdict"].startswith(("better", "worse"))],
        [*notes, *(f"{_mark(number)} {note}" for number, note in enumerate(marked, 1))],
    )


def _texts(row: dict[str, Any], marked: list[str]) -> dict[str, str]:
    is_baseline = row["method"] == row["baseline"]
    mark = _mark(marked.index(row["note"]) + 1) if row["note"] else ""
    return {
        "cell": " · ".join(
            [row["dataset"], backend_label(row["backend"]), row["pair"], f"test {metric_label(row['metric'])}"]
        ),
        "Method": f"{row['method']} (baseline)" if is_baseline else row["method"],
        "Parameters": NOTHING if pd.isna(row["params"]) else f"{row['params']:,}",
        "Seeds ok": f"{row['n_ok']} / {row['n']}",
        MEAN: _mean(row["mean"], row["std"]),
        "Difference, pp": signed(row["diff"]),
        "95% interval": NOTHING
        if math.isnan(row["ci_low"])
        else f"[{signed(row['ci_low'])}, {signed(row['ci_high'])}]",
        "p Holm": _p(row["p_holm"]),
        "p t Holm": _p(row["p_ttest_holm"]),
        "p resplit": _p(row["p_resplit_holm"]),
        "Effect r": NOTHING if math.isnan(row["effect"]) else signed(row["effect"] / 100),
        "P(improve)": NOTHING if math.isnan(row["p_improve"]) else f"{row['p_improve']:.2f}",
        "Gap closed": NOTHING
        if math.isnan(row["gap_closed"])
        else f"{round(100 * row['gap_closed'])}%".replace("-", "−"),
        "Detectable, pp": NOTHING if math.isnan(row["detectable"]) else f"{100 * row['detectable']:.2f}",
        "Seeds needed": _seeds_needed(row),
        "Verdict": row["verdict"] + mark,
    }


def _seeds_needed(row: dict[str, Any]) -> str:
    if not pd.isna(row["seeds_needed"]):
        return f"{row['seeds_needed']}"
    return NOTHING if math.isnan(row["detectable"]) or row["diff"] == 0 else "> 1,000"


def _without_skipped_cells(comparison: pd.DataFrame) -> pd.DataFrame:
    """A cell of which everything was skipped for one reason becomes one row instead of a block of dashes."""
    parts = []
    for _, cell in comparison.groupby(CELL, sort=False):
        if len(cell) > 1 and (cell["verdict"] == "skipped").all() and cell["note"].nunique() == 1:
            cell = cell.head(1).assign(method=f"all {len(cell)} methods", params=None, n=cell["n"].sum())
        parts.append(cell)
    return pd.concat(parts) if parts else comparison


def _mean(mean: float, std: float) -> str:
    if math.isnan(mean):
        return NOTHING
    return f"{100 * mean:.1f}" if math.isnan(std) else f"{100 * mean:.1f} ± {100 * std:.1f}"


def _interval(low: float, high: float) -> str:
    return NOTHING if math.isnan(low) else f"[{signed(low)}, {signed(high)}]"


def _percent(share: float) -> str:
    return NOTHING if math.isnan(share) else f"{round(100 * share)}%".replace("-", "−")


def _p(p: float) -> str:
    if math.isnan(p):
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _mark(number: int) -> str:
    return str(number).translate(SUPERSCRIPTS)


def _explanations(comparison: pd.DataFrame, alpha: float, delta: float, family: str, min_seeds: int) -> list[str]:
    baseline = next(iter(comparison["baseline"]), "the baseline")
    used = [TEST_NAMES[name] for name in pd.unique(comparison["test"].dropna())] or [TEST_NAMES["wilcoxon"]]
    over = "methods of the cell" if family == "cell" else "methods of all cells of this table together"
    whole = _over_the_whole_table(comparison, alpha) if family == "cell" else ""
    notes = [
        "Parameters: of the model that is used, without projectors. Seeds ok: runs that finished, of those planned. "
        "Mean ± sample standard deviation of the test metric over them.",
        f"Difference: method minus {baseline} with the same seed (split, teacher, initial weights), in percentage "
        f"points, mean over pairs; 95% BCa bootstrap interval, not adjusted for the number of methods, somewhat narrow "
        f"with few seeds, and none below {min_seeds}.",
        f"p Holm: {'; '.join(used)}, adjusted over the {over}; teacher and {baseline} are controls. “better”, "
        f"“worse”: p Holm ≤ {alpha:g}. “equivalent within δ”: two one-sided t tests (Holm-adjusted) show the "
        f"difference to be within ±{100 * delta:g} points. “no difference shown” does not mean equal. Below "
        f"{min_seeds} pairs there is no verdict. p t Holm: the same with paired t tests, for comparison; it decides "
        f"nothing.{whole}",
        "Effect r: matched-pairs rank-biserial correlation, −1 to +1. P(improve): share of seeds improved, ties half. "
        "Gap closed: the difference as a share of the teacher's, where the test shows the teacher to be ahead.",
        f"Detectable: the smallest true difference that the signed-rank test would have shown of these seeds with 80% "
        f"power at Holm's first step ({alpha:g} over the number of methods), for normal differences that vary as those "
        f"seen; smaller ones may well be there and not show. Seeds needed: for a true difference as large as the one "
        f"seen.",
    ]
    if (comparison["best"] != "").any():
        notes.append(
            f"Bold: the highest mean of the cell's students over the seeds that all of them finished, and all that "
            f"are not shown to be worse than it (largest t of all pairs under joint flips of the seeds' signs, "
            f"Westfall and Young, level {alpha:g}) nor, by their verdict, than {baseline}, which itself goes by "
            f"the best one's verdict. Where splits change with the seed, it is about these splits."
        )
    resplit = list(pd.unique(comparison.loc[comparison["resplit"].astype(bool), "dataset"]))
    if resplit:
        notes.append(
            f"The split changes with the seed of {', '.join(resplit)}. There, p resplit is the corrected t test of "
            f"Nadeau and Bengio (Holm-adjusted), which speaks of new data from the same source; “better”, “worse” or "
            f"“equivalent” alone needs both tests, and “on these splits” marks what holds over splits of this data "
            f"set, no more. Detectable and Seeds needed are about these splits."
        )
    return notes


def _over_the_whole_table(comparison: pd.DataFrame, alpha: float) -> str:
    """What a correction over cells would leave of the verdicts: every cell is a family of its own."""
    if comparison.drop_duplicates(CELL).shape[0] < 2:
        return ""
    tested = comparison[comparison["p_holm_table"].notna()]
    if tested.empty:
        return ""
    shown = comparison["verdict"].str.startswith(("better", "worse"))
    left = int((shown & (comparison["p_holm_table"] <= alpha)).sum())
    said = f"{left} of the {shown.sum()} “better” and “worse” also hold" if shown.any() else "none is shown"
    smallest = len(tested) * 2.0 ** (1 - int(tested["n_pairs"].max()))
    if smallest > alpha and (tested["test"] != MIXED).all():
        said += f"; with so few seeds none can, the smallest p that there is being {smallest:.2f}"
    return (
        f" Every cell (heading) is a family of its own; adjusted over all {len(tested)} comparisons of this table "
        f"(p_holm_table in the CSV), {said}."
    )


def _html(shown: _Shown) -> str:
    title = "Comparison over paired seeds"
    texts = shown.texts
    table = gt.GT(texts, id="comparison", groupname_col="cell" if len(texts) else None)
    right = [name for name in texts.columns if name not in (*LEFT, "cell")]
    table = table.tab_header(title).cols_align("right", right).cols_align("left", [c for c in LEFT if c in texts])
    if shown.failed:
        table = table.tab_style(gt.style.text(color="#b00020"), gt.loc.body(columns="Seeds ok", rows=shown.failed))
    if shown.differs:
        places = gt.loc.body(columns=["Method", "Verdict"], rows=shown.differs)
        table = table.tab_style(gt.style.text(weight="bold"), places)
    if shown.bold.any():
        best = [place for place, bold in enumerate(shown.bold) if bold]
        table = table.tab_style(gt.style.text(weight="bold"), gt.loc.body(columns=MEAN, rows=best))
    for note in shown.notes:
        table = table.tab_source_note(gt.html(markup.escape(note)))
    table = table.tab_options(
        table_font_size="14px", row_group_font_weight="bold", row_group_background_color="#f4f4f4",
        source_notes_font_size="12px", data_row_padding="5px", heading_align="left", table_margin_left="0",
        table_body_hlines_color="#eeeeee",
    )  # fmt: skip
    style = (
        "<style>body{margin:1.5rem}#comparison td,#comparison th{white-space:nowrap;font-variant-numeric:tabular-nums}"
        "#comparison .gt_sourcenote{white-space:normal;max-width:0;line-height:1.45}</style>"
    )
    page: str = table.as_raw_html(make_page=True)
    return page.replace("</head>", f"<title>{title}</title>\n{style}\n</head>", 1)


def _latex(shown: _Shown) -> str:
    left_out = [name for name in shown.texts.columns if name in NOT_IN_LATEX]
    texts = shown.texts.drop(columns=left_out)
    notes = [*shown.notes, f"Left out here and found in the CSV: {', '.join(left_out)}."]
    if len(texts):
        texts = texts.assign(group=texts["cell"].str.split(" · ").str[0])
    return latex_tables(
        texts,
        caption="Comparison over paired seeds",
        notes=notes,
        left=LEFT,
        wrapped={"Verdict": "1.9cm"},
        bold=shown.bold,
        bold_column=MEAN,
    )


def _markdown(shown: _Shown) -> str:
    columns = [name for name in shown.texts.columns if name != "cell"]
    lines = []
    for cell, rows in shown.texts.groupby("cell", sort=False) if len(shown.texts) else ():
        lines += [f"**{markdown_text(str(cell))}**", "", table_row(columns)]
        lines.append("|" + "|".join(":---" if name in LEFT else "---:" for name in columns) + "|")
        for row, bold in zip(rows[columns].to_dict("records"), shown.bold[rows.index], strict=True):
            texts = {str(name): markdown_text(str(text)) for name, text in row.items()}
            if bold:
                texts[MEAN] = f"**{texts[MEAN]}**"
            lines.append(table_row(texts.values()))
        lines.append("")
    return "\n".join([*lines, *(f"- {markdown_text(note)}" for note in shown.notes)]) + "\n"
