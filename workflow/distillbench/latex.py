"""A table of texts as LaTeX that compiles as pasted: booktabs, everything escaped. Imports no torch."""

import unicodedata
from collections.abc import Collection, Sequence
from typing import Any

import pandas as pd

_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$", "|": "$|$", '"': "''",
    "±": r"$\pm$", "−": "$-$", "–": "--", "—": "---", "·": r"$\cdot$", "×": r"$\times$", "≤": r"$\leq$",
    "…": r"\dots{}", "→": r"$\to$",
    "“": "``", "”": "''", "’": "'", "δ": r"$\delta$", "χ": r"$\chi$", "σ": r"$\sigma$", "λ": r"$\lambda$",
}  # fmt: skip


def escape(text: str) -> str:
    """Escape for LaTeX; a character that pdfTeX's default fonts may lack becomes its code point, never an error."""
    return "".join(_character(char) for char in " ".join(text.split()))


def latex_table(
    shown: pd.DataFrame,
    *,
    caption: str,
    notes: Sequence[str],
    left: Collection[str],
    bold: "pd.Series[Any]",
    bold_column: str,
) -> str:
    """A ``table*`` of texts, one group of rows for each value of the column "cell", with ``notes`` below it.

    left: columns that are flush left. bold [rows]: where the text of ``bold_column`` is bold.
    """
    columns = [name for name in shown.columns if name != "cell"]
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table*}[t]",
        "\\centering\\footnotesize\\setlength{\\tabcolsep}{3pt}",
        f"\\caption{{{escape(caption)}}}",
        f"\\begin{{tabular}}{{{''.join('l' if name in left else 'r' for name in columns)}}}",
        "\\toprule",
        " & ".join(escape(name) for name in columns) + r" \\",
    ]
    for cell, rows in shown.groupby("cell", sort=False) if len(shown) else ():
        lines += ["\\midrule", rf"\multicolumn{{{len(columns)}}}{{l}}{{\textbf{{{escape(str(cell))}}}}} \\"]
        for row, is_bold in zip(rows[columns].to_dict("records"), bold[rows.index], strict=True):
            texts = {str(name): escape(str(text)) for name, text in row.items()}
            if is_bold:
                texts[bold_column] = rf"\textbf{{{texts[bold_column]}}}"
            # An empty group first: \\ reads a following "[" as its optional argument.
            lines.append("{}" + " & ".join(texts.values()) + r" \\")
    lines += [
        "\\bottomrule",
        "\\end{tabular}",
        "\\par\\medskip\\begin{minipage}{\\linewidth}\\footnotesize",
        *(f"{escape(note)}\\par" for note in notes),
        "\\end{minipage}",
        "\\end{table*}",
    ]
    return "\n".join(lines) + "\n"


def _character(char: str) -> str:
    if char in _SPECIAL:
        return _SPECIAL[char]
    if char in "⁰¹²³⁴⁵⁶⁷⁸⁹":
        return f"\\textsuperscript{{{unicodedata.digit(char)}}}"
    if char.isascii():
        return char
    return char if "À" <= char <= "ÿ" else f"[U+{ord(char):04X}]"
