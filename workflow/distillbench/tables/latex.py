"""Tables of texts as LaTeX that compile as pasted: booktabs, everything escaped. Imports no torch."""

import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence

import pandas as pd

ROWS = 36  # in one float: what a page holds, headings of cells and lines that are broken included
# not \\: that would be redefined by a column that is flush left, and read a following "[" as its argument
END = r" \tabularnewline"
_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$", "|": "$|$", '"': "''",
    "±": r"$\pm$", "−": "$-$", "–": "--", "—": "---", "·": r"$\cdot$", "×": r"$\times$", "≤": r"$\leq$",
    "…": r"\dots{}", "▲": r"$\uparrow$", "▼": r"$\downarrow$", "≈": r"$\approx$", "→": r"$\to$",
    "“": "``", "”": "''", "’": "'", "δ": r"$\delta$", "χ": r"$\chi$", "σ": r"$\sigma$", "λ": r"$\lambda$",
}  # fmt: skip


def escape(text: str) -> str:
    """Escape for LaTeX; a character that pdfTeX's default fonts may lack becomes its code point, never an error."""
    return "".join(_character(char) for char in " ".join(text.split()))


def latex_tables(
    shown: pd.DataFrame,
    *,
    caption: str,
    notes: Sequence[str],
    left: Collection[str],
    wrapped: Mapping[str, str],
) -> str:
    """``table*`` floats of texts, a page high at most, and ``notes`` in small print behind the last.

    The column "group" says which rows make a float, "cell" which stand under one heading in it. left: columns that are
    flush left; wrapped: those that are broken at a width.
    """
    columns = [name for name in shown.columns if name not in ("group", "cell")]
    kinds = [f"p{{{wrapped[n]}}}" if n in wrapped else "l" if n in left else "r" for n in columns]
    lines = ["% needs \\usepackage{booktabs}"]
    for title, rows in _floats(shown):
        lines += [
            "\\begin{table*}[t]",
            "\\centering\\footnotesize\\setlength{\\tabcolsep}{2pt}",
            f"\\caption{{{escape(caption + (': ' + title if title else ''))}.}}",
            f"\\begin{{tabular}}{{{''.join(kinds)}}}",
            "\\toprule",
            " & ".join(escape(name) for name in columns) + END,
        ]
        for cell, of_cell in rows.groupby("cell", sort=False) if len(rows) else ():
            lines += ["\\midrule", rf"\multicolumn{{{len(columns)}}}{{l}}{{\textbf{{{escape(str(cell))}}}}}" + END]
            for row in of_cell[columns].to_dict("records"):
                texts = {str(name): escape(str(text)) for name, text in row.items()}
                texts |= {name: rf"\raggedright {texts[name]}" for name in wrapped}
                lines.append(" & ".join(texts.values()) + END)
        lines += ["\\bottomrule", "\\end{tabular}", "\\end{table*}"]
    lines += ["{\\footnotesize", *(f"\\noindent {escape(note)}\\par" for note in notes), "}"]
    return "\n".join(lines) + "\n"


def _floats(shown: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The rows of each float and what its caption adds: whole groups, or, where one is too long, its cells."""
    if shown.empty:
        yield "", shown
        return
    for group, rows in shown.groupby("group", sort=False):
        if len(rows) <= ROWS:
            yield str(group), rows
            continue
        part: list[pd.DataFrame] = []
        for _, cell in rows.groupby("cell", sort=False):
            if part and sum(map(len, part)) + len(cell) > ROWS:
                yield str(group), pd.concat(part)
                part = []
            part.append(cell)
        yield str(group), pd.concat(part)


def _character(char: str) -> str:
    if char in _SPECIAL:
        return _SPECIAL[char]
    if char in "⁰¹²³⁴⁵⁶⁷⁸⁹":
        return f"\\textsuperscript{{{unicodedata.digit(char)}}}"
    if char.isascii() and char.isprintable():
        return char
    return char if "À" <= char <= "ÿ" else f"[U+{ord(char):04X}]"
