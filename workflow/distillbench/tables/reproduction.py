"""The table of reproductions for people: HTML and Markdown beside the CSV. Imports no torch.

A stranger should be able to read it alone: the notes below it say what each verdict means, the margin, what is grey.
"""

import html as markup
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import great_tables as gt
import pandas as pd

from distillbench.record import write_atomically
from distillbench.runs import write_csv
from distillbench.wording import NOTHING, backend_label, metric_label, signed
from distillbench.wording import markdown_text as md
from distillbench.wording import table_row as pipes

TITLE = "Published results beside ours"
LEFT = ("Method", "Quantity", "Verdict", "Why")
COLOURS = {"reproduced": "#1b6e35", "not reproduced": "#b00020", "inconclusive": "#8a5a00"}
GREY = "#8c8c8c"
STYLE = (
    "<style>body{margin:1.5rem}#reproduction td,#reproduction th{white-space:nowrap;font-variant-numeric:tabular-nums}"
    "#reproduction .gt_row:last-child{white-space:normal;min-width:20rem;font-size:12px}"
    "#reproduction .gt_group_heading,#reproduction .gt_subtitle,#reproduction .gt_sourcenote{white-space:normal;"
    "max-width:0;line-height:1.45}</style>"
)


def write_reproduction(table: pd.DataFrame, *, csv: Path, html: Path, markdown: Path, margin: float) -> None:
    """Write what ``reproduce.reproduction`` returned in three forms; ``margin`` (percentage points) as given to it.

    The CSV has full precision, in percent. The HTML needs no network; results that are not verified are grey in it.
    """
    shown, legend, notes = _shown(table), _legend(table, margin), _notes(table)
    write_csv(table, csv)
    write_atomically(html, _html(shown, legend, notes))
    write_atomically(markdown, _markdown(shown, [*legend, *notes]))


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    """The table as text: one column per column people read, "cell" for its group and "verified"."""
    rows = [_texts({str(name): value for name, value in row.items()}) for row in table.to_dict("records")]
    columns = ["cell", "Method", "Quantity", "Published", "Ours", "95% interval", "Seeds ok", "Difference",
               "its 95% interval", "Verdict", "Why", "verified"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _texts(row: dict[str, Any]) -> dict[str, Any]:
    gain = row["quantity"] == "gain"
    metric = metric_label(row["metric"]).replace("_", " ")
    place = [row["dataset"], backend_label(row["backend"]), row["pair"], f"test {metric}"]
    place += [f"protocol: {row['protocol']}"] if row["protocol"] else []
    models = f"{row['teacher'] or 'no teacher'} → {row['student']}"
    renamed = row["variant"] and row["variant"] != row["method"]
    return {
        "cell": f"{' · '.join(place)} — published: {row['source']}, {models}",
        "Method": f"{row['method']} (ours: {row['variant']})" if renamed else row["method"],
        "Quantity": row["quantity"],
        "Published": _value(row["published"], row["published_std"], gain),
        "Ours": _value(row["ours"], row["ours_std"], gain),
        "95% interval": _interval(row["ours_low"], row["ours_high"], gain),
        "Seeds ok": f"{row['n_ok']} / {row['n']}" if row["n"] else NOTHING,
        "Difference": signed(row["diff"] / 100),
        "its 95% interval": _interval(row["diff_low"], row["diff_high"], True),
        "Verdict": row["verdict"],
        "Why": row["reason"],
        "verified": row["verified"],
    }


def _value(mean: float, std: float | None, is_difference: bool) -> str:
    if math.isnan(mean):
        return NOTHING
    text = signed(mean / 100) if is_difference else f"{mean:.2f}".replace("-", "−")
    return text if std is None or math.isnan(std) else f"{text} ± {std:.2f}"


def _interval(low: float, high: float, is_difference: bool) -> str:
    return NOTHING if math.isnan(low) else f"[{_value(low, None, is_difference)}, {_value(high, None, is_difference)}]"


def _legend(table: pd.DataFrame, margin: float) -> list[str]:
    """What a reader must know before the first row: verdicts, margin, grey."""
    if table.empty:
        return ["No pair of the config names published results to set beside its own."]
    legend = [
        "“reproduced”: the whole 95% interval of the difference is within the margin. “not reproduced”: the whole "
        "interval is beyond the margin, on one side. “inconclusive”: neither can be said from these seeds. “not "
        "comparable”: the data, the metric or the setting of the source differ. “not compared”: the published number "
        "is not verified. “not run”: there are no runs of ours.",
        f"Margin: ±{margin:g} points; for a gain at most half of the published gain, unless its own stds leave that "
        "indistinguishable from zero: no gain at all must not count as reproducing one.",
    ]
    if not table["verified"].all():
        legend.append(
            "Grey: recalled, not read in the source. Shown for orientation, not to be quoted, never compared."
        )
    return legend


def _notes(table: pd.DataFrame) -> list[str]:
    if table.empty:
        return []
    return [
        "Scores in percent, gains and differences in percentage points. Gain: over the student alone of the same "
        "source; ours is the mean over seeds of the difference with the same seed. ±: standard deviation over seeds, "
        "as published; of the sample for ours. Difference: ours minus published.",
        "Intervals: Student’s t with the spread over seeds of both sides (Welch). Where one run was published, its "
        "spread is assumed to be that of our seeds; published runs of a method and of the student alone are taken as "
        "independent. So a single run rarely decides anything. Not adjusted for the number of rows: of twenty "
        "intervals, one is expected to miss.",
    ]


def _html(shown: pd.DataFrame, legend: Sequence[str], notes: Sequence[str]) -> str:
    grey = [place for place, verified in enumerate(shown["verified"]) if not verified]
    text = shown.drop(columns="verified")
    table = gt.GT(text, id="reproduction", groupname_col="cell" if len(text) else None)
    table = table.tab_header(TITLE, gt.html("<br>".join(map(markup.escape, legend))))
    right = [name for name in text.columns if name not in (*LEFT, "cell")]
    table = table.cols_align("right", right).cols_align("left", list(LEFT))
    for verdict, colour in COLOURS.items():
        rows = [place for place, of in enumerate(text["Verdict"]) if of == verdict]
        if rows:
            style = gt.style.text(color=colour, weight="bold")
            table = table.tab_style(style, gt.loc.body(columns="Verdict", rows=rows))
    if grey:
        table = table.tab_style(
            [gt.style.text(color=GREY, style="italic"), gt.style.fill(color="#f6f6f6")], gt.loc.body(rows=grey)
        )
    for note in notes:
        table = table.tab_source_note(gt.html(markup.escape(note)))
    table = table.tab_options(
        table_font_size="14px", row_group_font_weight="bold", row_group_background_color="#eef1f4",
        heading_subtitle_font_size="13px", source_notes_font_size="12px", data_row_padding="5px", heading_align="left",
        table_margin_left="0", table_body_hlines_color="#eeeeee",
    )  # fmt: skip
    page: str = table.as_raw_html(make_page=True)
    return page.replace("</head>", f"<title>{TITLE}</title>\n{STYLE}\n</head>", 1)


def _markdown(shown: pd.DataFrame, notes: Sequence[str]) -> str:
    columns = [name for name in shown.columns if name not in ("cell", "verified")]
    lines = []
    for cell, rows in shown.groupby("cell", sort=False):
        lines += [f"**{md(str(cell))}**", "", pipes(columns)]
        lines.append("|" + "|".join(":---" if name in LEFT else "---:" for name in columns) + "|")
        for row in rows.to_dict("records"):
            texts = [md(str(row[name])) for name in columns]
            lines.append(pipes(texts if row["verified"] else [f"*{text}*" for text in texts]))
        lines.append("")
    notes = [note.replace("Grey:", "In italics:") for note in notes]
    return "\n".join([*lines, *(f"- {md(note)}" for note in notes)]) + "\n"
