"""Every form of the comparison, and the report page, say the same of every row."""

import re
from html.parser import HTMLParser

import pandas as pd
import pytest

from distillbench.report.tables import best_tables, comparison_tables, read_table
from distillbench.statistics import compare
from distillbench.tables.comparison import COLUMNS, DIFFERENCE, IMPROVED, MEAN, write_comparison
from tests.statistics.conftest import BASE, UP, runs_of, shifted

CLOSE = [up + (-1) ** n * 0.004 for n, up in enumerate(UP)]  # the mean of UP, from other seeds
DOWN = [-up for up in UP]
# Two cells with the methods in another order of merit. In the second one at has lost a seed: it is not ranked.
RUNS = pd.concat([
    runs_of({"teacher": [0.94] * 10, "supervised": BASE, "kd": shifted(UP), "at": shifted(CLOSE), "lsp": shifted(DOWN)},
            dataset="a"),
    runs_of({"teacher": [0.93] * 10, "supervised": BASE, "kd": shifted(DOWN), "at": [0.99] * 10, "lsp": shifted(UP)},
            dataset="b", broken={("at", 3): ("diverged", "loss is NaN")}),
])  # fmt: skip


class Cells(HTMLParser):
    """The rows of a page: of each its cells, with their style."""

    def __init__(self, page):
        super().__init__()
        self.rows, self.inside = [], False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.inside = tag in ("td", "th")
        if tag == "tr":
            self.rows.append([])
        elif self.inside:
            self.rows[-1].append(["", dict(attrs).get("style") or ""])

    def handle_endtag(self, tag):
        self.inside &= tag not in ("td", "th")

    def handle_data(self, data):
        if self.inside:
            self.rows[-1][-1][0] += data


def of_html(page):
    """By data set and method, the texts by column, and the columns that are bold."""
    found, dataset, columns = {}, "", []
    for row in Cells(page).rows:
        texts = [text.strip() for text, _ in row]
        if "Method" in texts:
            columns = texts
        elif len(row) == 1 and " · " in texts[0]:
            dataset = texts[0].split(" · ")[0]
        elif len(row) == len(columns):
            bold = {name for name, (_, style) in zip(columns, row, strict=True) if "bold" in style}
            found[dataset, texts[0]] = dict(zip(columns, texts, strict=True)), bold
    return found


def of_markdown(text):
    found, dataset, columns = {}, "", []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split(" | ")]
        if heading := re.match(r"\*\*(\w+) · ", line):
            dataset = heading[1]
        elif cells[0] == "Method":
            columns = cells
        elif line.startswith("| "):
            bold = {name for name, cell in zip(columns, cells, strict=True) if cell.startswith("**")}
            texts = [re.sub(r"\\(.)", r"\1", cell.strip("*")).replace("&lt;", "<") for cell in cells]
            found[dataset, texts[0]] = dict(zip(columns, texts, strict=True)), bold
    return found


def of_latex(text):
    for written, meant in ((r"$-$", "−"), (r"$\pm$", "±"), (r"$\cdot$", "·"), (r"\%", "%"), (r"\raggedright ", ""),
                           ("--", "–"), ("$<$", "<"), (r"$\uparrow$", "▲"), (r"$\downarrow$", "▼"), (r"$\approx$", "≈"),
                           (r"\textsuperscript{1}", "¹"), (r"\textsuperscript{2}", "²"),
                           (r"\textsuperscript{3}", "³")):  # fmt: skip
        text = text.replace(written, meant)
    found, dataset, columns = {}, "", []
    for line in text.splitlines():
        cells = line.removesuffix(r" \tabularnewline").split(" & ")
        if heading := re.search(r"\\multicolumn.*\\textbf\{(\w+) · ", line):
            dataset = heading[1]
        elif cells[0] == "Method":
            columns = cells
        elif line.endswith(r"\tabularnewline"):
            bold = {name for name, cell in zip(columns, cells, strict=True) if r"\textbf" in cell}
            texts = [re.sub(r"\\textbf\{(.*)\}", r"\1", cell) for cell in cells]
            found[dataset, texts[0]] = dict(zip(columns, texts, strict=True)), bold
    return found


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("marks")
    paths = {kind: folder / f"comparison.{kind}" for kind in ("csv", "parquet", "html", "tex", "markdown")}
    write_comparison(compare.compare(RUNS), **paths)
    return paths


@pytest.fixture(scope="module")
def forms(files):
    read = {"html": of_html, "markdown": of_markdown, "tex": of_latex}
    return {kind: parse(files[kind].read_text(encoding="utf-8")) for kind, parse in read.items()}


def test_a_cell_that_shows_something_is_bold_in_html_and_nowhere_else(forms):
    shown = [("a", "kd"), ("a", "at"), ("a", "lsp"), ("b", "kd"), ("b", "at"), ("b", "lsp")]
    bold = {kind: {run: marked for run, (_, marked) in found.items() if marked} for kind, found in forms.items()}
    assert bold == {"html": {key: {"Method", "Verdict"} for key in shown}, "markdown": {}, "tex": {}}
    found = forms["markdown"]
    assert len(found) == 10
    assert found["a", "kd"][0][MEAN] == "80.6 ± 1.2" and found["a", "supervised (baseline)"][0][MEAN] == "79.4 ± 1.0"
    verdicts = [found["a", name][0]["Verdict"] for name in ("kd", "at", "lsp", "supervised (baseline)")]
    assert verdicts == ["▲ better", "▲ better", "▼ worse", "control"]


def test_in_html_lost_seeds_are_coloured(files):
    rows = Cells(files["html"].read_text(encoding="utf-8")).rows
    coloured = [(row[0][0], text) for row in rows for text, style in row if "color: #b00020" in style]
    assert coloured == [("at", "9/10 (1 failed)")]


def test_every_form_says_the_same(forms):
    texts = {kind: {run: texts for run, (texts, _) in found.items()} for kind, found in forms.items()}
    assert list(texts["html"]["a", "kd"]) == list(COLUMNS)
    assert texts["html"] == texts["markdown"] == texts["tex"]


def test_the_report_page_has_the_texts_of_the_table(files, forms):
    compared = 0
    for table in comparison_tables(read_table(files["csv"])):
        for line in table.lines:
            shown = dict(zip(table.columns, line.texts, strict=True))
            row, _ = forms["markdown"][table.caption[0], shown["Method"]]
            assert {n: t for n, t in shown.items() if n != "Verdict"} == {
                n: t for n, t in row.items() if n != "Verdict"
            }
            assert row["Verdict"].rstrip("¹²³") == shown["Verdict"].partition(" [")[0]
            compared += 1
    assert compared == 10


def test_what_the_columns_say_of_a_row(forms):
    row, _ = forms["markdown"]["a", "kd"]
    # 1.18 points of the 14.57 that the teacher is ahead
    assert row[DIFFERENCE].startswith("+1.18 [+0.") and (row[IMPROVED], row["Gap closed"]) == ("10/10", "8%")
    assert forms["markdown"]["a", "lsp"][0]["Gap closed"] == "–", "a share below 0 is no share"
    assert forms["markdown"]["a", "supervised (baseline)"][0][IMPROVED] == "–"


def test_the_page_says_how_far_behind_the_best_each_is(files):
    tables = best_tables(read_table(files["csv"]))
    found = [[line.texts[0] for line in table.lines] for table in tables]
    assert found == [["kd", "at", "supervised (baseline)", "lsp"], ["lsp", "supervised (baseline)", "kd"]], (
        "at lost a seed"
    )
    best, second = (line.texts for line in tables[0].lines[:2])
    assert best[1:] == ["0.00", "[0.00, 0.00]"] and second[2].startswith("[−") and "+" in second[2]
