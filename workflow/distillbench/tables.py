"""The tables of a benchmark: one row per run, one row per compared method, and the same for people to read.

The CSV files hold full-precision fractions; HTML, LaTeX and Markdown show percent. Every file is written atomically.
Importing this module imports no torch.
"""

import html as markup
import math
import unicodedata
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import great_tables as gt
import pandas as pd

from distillbench.frames import CELL
from distillbench.paired import ALPHA, MIN_SEEDS
from distillbench.record import Record, RecordError, write_atomically

RUN_COLUMNS = {
    "dataset": "str", "backend": "str", "pair": "str", "method": "str", "role": "str", "seed": "int64",
    "status": "str", "reason": "str", "task": "str", "metric": "str", "val": "float64", "test": "float64",
    "epochs": "Int64", "best_epoch": "Int64", "params": "Int64", "train_seconds": "float64", "device": "str",
    "resplit": "bool", "n_train": "Int64", "n_val": "Int64", "n_test": "Int64",
    "mean_class_accuracy": "float64", "test_seen": "float64", "test_unseen": "float64",
    "started": "str", "ended": "str", "key": "str",
}  # fmt: skip
SPLITS = {"n_train": "train", "n_val": "val", "n_test": "test"}  # column of runs: key of Record.split_sizes
BACKENDS = {"pyg": "PyG", "dgl": "DGL"}
METRICS = {
    "accuracy": "accuracy", "micro_f1": "micro-F1", "mean_class_accuracy": "mean class accuracy", "roc_auc": "ROC AUC",
}  # fmt: skip
SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
NOTHING = "–"
LEFT = ("Method", "Verdict")
NOT_IN_LATEX = ("Parameters", "p Wilcoxon", "p resplit", "P(improve)")  # a page is no wider; the CSV has them


def runs_table(records: Iterable[Record], methods: Sequence[str] | None = None) -> pd.DataFrame:
    """One row per record with RUN_COLUMNS, sorted by data set, backend, pair, role (teacher first), method and seed.

    ``val`` and ``test`` are fractions in [0, 1], NaN unless the run finished; ``train_seconds`` are seconds. Methods
    are sorted as in ``methods``, those it does not name after them; without it, by name.
    """
    rows = []
    for record in records:
        row = {name: getattr(record, name) for name in RUN_COLUMNS if name in Record.model_fields}
        row |= {column: record.split_sizes.get(split) for column, split in SPLITS.items()}
        if record.status != "ok":
            row |= {"val": None, "test": None}
        else:
            row["mean_class_accuracy"] = record.test_metrics.get("mean_class_accuracy")
            for part in ("seen", "unseen"):  # of the production setting
                row[f"test_{part}"] = record.test_metrics.get(f"{record.metric}_{part}")
        rows.append(row | {"device": str(record.environment.get("device", ""))})
    frame = pd.DataFrame(rows, columns=list(RUN_COLUMNS)).astype(RUN_COLUMNS)
    rank = {name: place for place, name in enumerate(methods or [])}
    places = frame["method"].map(lambda name: rank.get(name, len(rank)))
    order = frame.assign(_teacher=frame["role"] != "teacher", _place=places)
    by = ["dataset", "backend", "pair", "_teacher", "_place", "method", "seed"]
    return order.sort_values(by, kind="stable")[list(RUN_COLUMNS)].reset_index(drop=True)


def write_runs(runs: pd.DataFrame, csv: Path, parquet: Path) -> None:
    """Write the table of runs as CSV (for people) and Parquet (for ``read_runs``)."""
    buffer = BytesIO()
    runs.to_parquet(buffer, index=False)
    _write_csv(runs, csv)
    write_atomically(parquet, buffer.getvalue())


def read_runs(parquet: Path) -> pd.DataFrame:
    """Read what ``write_runs`` wrote. Raises RecordError naming the file where it is not a complete table of runs."""
    content = parquet.read_bytes()
    try:
        runs = pd.read_parquet(BytesIO(content))
    except (OSError, ValueError) as error:  # pyarrow's errors are among these
        raise _corrupt(parquet, (str(error).splitlines() or [type(error).__name__])[0]) from error
    if missing := [name for name in RUN_COLUMNS if name not in runs.columns]:
        raise _corrupt(parquet, f"no column {', '.join(missing)}")
    try:
        return runs.astype(RUN_COLUMNS)
    except (TypeError, ValueError) as error:
        raise _corrupt(parquet, str(error)) from error


def _corrupt(path: Path, reason: str) -> RecordError:
    return RecordError(
        f"{path}: corrupt table of runs: {reason}. Delete it and run snakemake again: it is built from the records, "
        "which stay."
    )


def write_comparison(
    comparison: pd.DataFrame,
    *,
    csv: Path,
    html: Path,
    tex: Path,
    markdown: Path,
    alpha: float = ALPHA,
    min_seeds: int = MIN_SEEDS,
    remarks: Sequence[str] = (),
) -> None:
    """Write what ``stats.compare`` returned in four forms; ``alpha`` and ``min_seeds`` as given to it.

    ``remarks`` are sentences for the notes, about all cells together.

    The CSV has full precision, in fractions. The others show percent and percentage points and end in notes that say
    what was tested, what the intervals are, and which seeds failed or cells were skipped, and why. The HTML needs no
    network; the LaTeX needs ``booktabs`` and compiles as pasted.
    """
    shown, marked = _shown(comparison)
    notes = [*_explanations(comparison, alpha, min_seeds), *remarks]
    _write_csv(comparison, csv)
    write_atomically(html, _html(shown, notes, marked))
    write_atomically(tex, _latex(shown, notes, marked))
    write_atomically(markdown, _markdown(shown, notes, marked))


def write_equivalence(equivalence: pd.DataFrame, csv: Path) -> None:
    """Write what ``stats.equivalence`` returned, full precision, in fractions."""
    _write_csv(equivalence, csv)


def write_profiles(rows: list[dict[str, Any]], csv: Path) -> None:
    """Write one row per profile; the columns are the keys, in order of appearance."""
    _write_csv(pd.DataFrame(rows), csv)


def backend_label(backend: str) -> str:
    """How people write the library's name: PyG, DGL."""
    return BACKENDS.get(backend, backend)


def metric_label(metric: str) -> str:
    """How people write the metric's name."""
    return METRICS.get(metric, metric)


def signed(fraction: float, digits: int = 2) -> str:
    """A difference of fractions as percentage points with its sign: ``+2.31``, ``−0.40``, ``0.00``; – where NaN."""
    if math.isnan(fraction):
        return NOTHING
    text = f"{100 * fraction:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def _write_csv(frame: pd.DataFrame, path: Path) -> None:
    write_atomically(path, frame.to_csv(index=False, lineterminator="\n"))


def _shown(comparison: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The comparison as text, one column per column people read and "cell" for its group; and its numbered notes."""
    marked = list(dict.fromkeys(note for note in comparison["note"] if note))
    rows = []
    for row in _without_skipped_cells(comparison).to_dict("records"):
        mark = str(marked.index(row["note"]) + 1).translate(SUPERSCRIPTS) if row["note"] else ""
        is_baseline = row["method"] == row["baseline"]
        rows.append({
            "cell": " · ".join(
                [row["dataset"], backend_label(row["backend"]), row["pair"], f"test {metric_label(row['metric'])}"]
            ),
            "Method": f"{row['method']} (baseline)" if is_baseline else row["method"],
            "Parameters": NOTHING if pd.isna(row["params"]) else f"{row['params']:,}",
            "Seeds ok": f"{row['n_ok']} / {row['n']}",
            "Mean ± std, %": _mean(row["mean"], row["std"]),
            "Difference, pp": signed(row["diff"]),
            "95% interval": _interval(row["ci_low"], row["ci_high"]),
            "p Wilcoxon": _p(row["p_wilcoxon"]),
            "p Holm": _p(row["p_holm"]),
            "p resplit": _p(row["p_resplit_holm"]),
            "Effect r": NOTHING if math.isnan(row["effect"]) else signed(row["effect"] / 100),
            "P(improve)": NOTHING if math.isnan(row["p_improve"]) else f"{row['p_improve']:.2f}",
            "Verdict": row["verdict"] + mark,
        })  # fmt: skip
    shown = pd.DataFrame(rows)
    return (shown if comparison["resplit"].any() else shown.drop(columns="p resplit", errors="ignore")), marked


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


def _p(p: float) -> str:
    if math.isnan(p):
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _explanations(comparison: pd.DataFrame, alpha: float, min_seeds: int) -> list[str]:
    baseline = next(iter(comparison["baseline"]), "the baseline")
    notes = [
        f"Mean ± sample standard deviation of the test metric over the finished seeds. Difference: method minus "
        f"{baseline} with the same seed (split, teacher, initial weights), in percentage points, mean over pairs; 95% "
        f"BCa bootstrap interval, not adjusted for the number of methods.",
        f"p Wilcoxon: exact two-sided signed-rank test over the pairs. p Holm: adjusted over the methods of the cell; "
        f"teacher and {baseline} are controls. “better”, “worse”: p Holm ≤ {alpha:g}. “no difference shown” does not "
        f"mean equal. Below {min_seeds} pairs there is no verdict.",
        "Effect r: matched-pairs rank-biserial correlation, −1 to +1. P(improve): share of seeds improved, ties half.",
    ]
    resplit = list(pd.unique(comparison.loc[comparison["resplit"].astype(bool), "dataset"]))
    if resplit:
        notes.append(
            f"The split changes with the seed of {', '.join(resplit)}. There, p resplit is the corrected t test "
            f"of Nadeau and Bengio (Holm-adjusted), which speaks of new data from the same source; “better” or “worse” "
            f"alone needs both tests, and “on these splits” marks what holds over splits of this data set, no more."
        )
    return notes


def _html(shown: pd.DataFrame, notes: list[str], marked: list[str]) -> str:
    title = "Comparison over paired seeds"
    table = gt.GT(shown, id="comparison", groupname_col="cell" if len(shown) else None)
    right = [name for name in shown.columns if name not in (*LEFT, "cell")]
    differs = [place for place, text in enumerate(shown.get("Verdict", [])) if text.startswith(("better", "worse"))]
    table = table.tab_header(title).cols_align("right", right).cols_align("left", [c for c in LEFT if c in shown])
    failed = [place for place, text in enumerate(shown.get("Seeds ok", [])) if len(set(text.split(" / "))) > 1]
    if failed:
        table = table.tab_style(gt.style.text(color="#b00020"), gt.loc.body(columns="Seeds ok", rows=failed))
    if differs:
        table = table.tab_style(gt.style.text(weight="bold"), gt.loc.body(columns=["Method", "Verdict"], rows=differs))
    for note in [*notes, *(f"{_mark(n)} {note}" for n, note in enumerate(marked, 1))]:
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


def _latex(shown: pd.DataFrame, notes: list[str], marked: list[str]) -> str:
    columns = [name for name in shown.columns if name not in ("cell", *NOT_IN_LATEX)]
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table*}[t]",
        "\\centering\\footnotesize\\setlength{\\tabcolsep}{3.5pt}",
        "\\caption{Comparison over paired seeds.}",
        f"\\begin{{tabular}}{{{''.join('l' if name in LEFT else 'r' for name in columns)}}}",
        "\\toprule",
        " & ".join(_tex(name) for name in columns) + r" \\",
    ]
    for cell, rows in shown.groupby("cell", sort=False) if len(shown) else ():
        lines += ["\\midrule", rf"\multicolumn{{{len(columns)}}}{{l}}{{\textbf{{{_tex(str(cell))}}}}} \\"]
        # An empty group first: \\ reads a following "[" as its optional argument.
        lines += ["{}" + " & ".join(_tex(str(text)) for text in row) + r" \\" for row in rows[columns].to_numpy()]
    left_out = [name for name in shown.columns if name in NOT_IN_LATEX]
    notes = [*notes, f"Left out here and found in the CSV: {', '.join(left_out)}."]
    below = [*notes, *(f"{_mark(n)} {note}" for n, note in enumerate(marked, 1))]
    lines += [
        "\\bottomrule",
        "\\end{tabular}",
        "\\par\\medskip\\begin{minipage}{\\linewidth}\\footnotesize",
        *(f"{_tex(note)}\\par" for note in below),
        "\\end{minipage}",
        "\\end{table*}",
    ]
    return "\n".join(lines) + "\n"


def _markdown(shown: pd.DataFrame, notes: list[str], marked: list[str]) -> str:
    columns = [name for name in shown.columns if name != "cell"]
    lines = []
    for cell, rows in shown.groupby("cell", sort=False) if len(shown) else ():
        lines += [f"**{markdown_text(str(cell))}**", "", table_row(columns)]
        lines.append("|" + "|".join(":---" if name in LEFT else "---:" for name in columns) + "|")
        lines += [*(table_row([markdown_text(str(text)) for text in row]) for row in rows[columns].to_numpy()), ""]
    below = [*notes, *(f"{_mark(n)} {note}" for n, note in enumerate(marked, 1))]
    return "\n".join([*lines, *(f"- {markdown_text(note)}" for note in below)]) + "\n"


def _mark(number: int) -> str:
    return str(number).translate(SUPERSCRIPTS)


def table_row(texts: Iterable[str]) -> str:
    """One row of a Markdown table, of texts that are escaped already."""
    return f"| {' | '.join(texts)} |"


def markdown_text(text: str) -> str:
    """Escape what Markdown would read as markup; pipes would end a table cell."""
    escaped = "".join(f"\\{char}" if char in "\\|*`[]~" else char for char in " ".join(text.split()))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


_TEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$", "|": "$|$", '"': "''",
    "±": r"$\pm$", "−": "$-$", "–": "--", "—": "---", "·": r"$\cdot$", "×": r"$\times$", "≤": r"$\leq$",
    "…": r"\dots{}",
    "“": "``", "”": "''", "’": "'", "δ": r"$\delta$", "χ": r"$\chi$", "σ": r"$\sigma$", "λ": r"$\lambda$",
}  # fmt: skip


def _tex(text: str) -> str:
    """Escape for LaTeX; a character that pdfTeX's default fonts may lack becomes its code point, never an error."""
    return "".join(_tex_character(char) for char in " ".join(text.split()))


def _tex_character(char: str) -> str:
    if char in _TEX:
        return _TEX[char]
    if char in "⁰¹²³⁴⁵⁶⁷⁸⁹":
        return f"\\textsuperscript{{{unicodedata.digit(char)}}}"
    if char.isascii():
        return char
    return char if "À" <= char <= "ÿ" else f"[U+{ord(char):04X}]"
