"""What people open: the table of runs, and the comparison as CSV, HTML, LaTeX and Markdown."""

import re
import shutil
import subprocess
import warnings
from html.parser import HTMLParser

import pandas as pd
import pytest

from distillbench.record import Record, RecordError
from distillbench.runs import RUN_COLUMNS, read_runs, runs_of_csv, runs_table, write_profiles, write_runs
from distillbench.statistics import compare
from distillbench.tables.comparison import write_comparison
from distillbench.wording import signed

BASE = [0.780, 0.795, 0.801, 0.787, 0.810, 0.792, 0.799, 0.782]
UP = [0.011, 0.004, 0.017, 0.008, 0.023, 0.015, 0.002, 0.019]
KINDS = ("csv", "parquet", "html", "tex", "markdown")
HOSTILE = "<script>alert('x')</script> a|b & 50% _x_ $y$ {z} ~ ^ \\ # λ漢"


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def record(method, seed, test, *, backend="pyg", dataset="digits", pair="gat", status="ok", reason="", resplit=False):
    return Record(
        key=f"{method}{seed}", dataset=dataset, backend=backend, pair=pair, method=method, seed=seed, status=status,
        role="teacher" if method == "teacher" else "student", reason=reason, task="multiclass", metric="accuracy",
        resplit=resplit, split_sizes={"train": 50, "val": 300, "test": 1447}, val=test, test=test, epochs=120,
        best_epoch=80, params=3640748 if method == "teacher" else 185172, train_seconds=3.5,
        environment={"device": "cpu"},
    )  # fmt: skip


def records(*, kd="kd", resplit=False, dgl_reason="dgl is not installed"):
    for seed, (base, up) in enumerate(zip(BASE, UP, strict=True)):
        yield record("supervised", seed, base, resplit=resplit)
        broken = {"status": "diverged", "reason": "loss is NaN"} if seed == 3 else {}
        yield record(kd, seed, base + up, resplit=resplit, **broken)
        yield record("teacher", seed, 0.94, resplit=resplit)
        for method in ("teacher", "supervised", kd):
            yield record(method, seed, None, backend="dgl", status="skipped", reason=dgl_reason, resplit=resplit)


@pytest.fixture
def written(tmp_path):
    def write(**options):
        comparison = compare.compare(runs_table(records(**options)))
        paths = {kind: tmp_path / f"comparison.{kind}" for kind in KINDS}
        write_comparison(comparison, **paths)
        return comparison, {kind: path.read_text(encoding="utf-8") for kind, path in paths.items() if kind != "parquet"}

    return write


class Text(HTMLParser):
    """The tags and the text of a page, as a browser would see them."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data + "\n"


# Runs


def test_runs_are_sorted_teacher_first_and_methods_as_asked():
    shuffled = sorted(records(), key=lambda r: (-r.seed, r.method))
    runs = runs_table(shuffled, ["supervised", "kd"])
    assert list(runs.columns) == list(RUN_COLUMNS)
    assert list(pd.unique(runs["backend"])) == ["dgl", "pyg"]
    pyg = runs[runs["backend"] == "pyg"]
    assert list(pd.unique(pyg["method"])) == ["teacher", "supervised", "kd"]
    assert list(pyg["seed"]) == [*range(8)] * 3
    assert list(pd.unique(runs_table(shuffled)["method"])) == ["teacher", "kd", "supervised"]


def test_a_run_that_is_not_ok_has_no_score():
    runs = runs_table([record("kd", 3, 0.9, status="diverged", reason="loss is NaN")])
    assert runs["test"].isna().all() and runs["val"].isna().all()
    assert (runs["n_train"].iloc[0], runs["n_test"].iloc[0], runs["device"].iloc[0]) == (50, 1447, "cpu")


def test_runs_survive_being_stored(tmp_path):
    runs = runs_table(records())
    write_runs(runs, tmp_path / "runs.csv", tmp_path / "runs.parquet")
    pd.testing.assert_frame_equal(read_runs(tmp_path / "runs.parquet"), runs)
    by_hand = pd.read_csv(tmp_path / "runs.csv")
    assert list(by_hand["test"].dropna()) == list(runs["test"].dropna()), "full precision"
    assert runs_table([]).empty


@pytest.mark.parametrize("reason", ["=HYPERLINK(1)", "+1", "-1+1", "@SUM(1)", "\t=1", "a=1"])
def test_a_reason_is_no_formula_of_a_spreadsheet(tmp_path, reason):
    """Fault: why a run failed reads like a formula of a spreadsheet.

    Provoked: records whose reasons begin with =, +, - and the like are written to the table of runs.
    Promised: in CSV files such a text begins with an apostrophe, and all else is as it was.
    """
    runs = runs_table([record("kd", 3, None, status="oom", reason=reason), *records()])
    write_runs(runs, tmp_path / "runs.csv", tmp_path / "runs.parquet")
    found = runs_of_csv(tmp_path / "runs.csv")
    shown = runs["reason"].where(runs["reason"] != reason, reason if reason == "a=1" else f"'{reason}")
    pd.testing.assert_frame_equal(found, runs.assign(reason=shown))
    pd.testing.assert_frame_equal(read_runs(tmp_path / "runs.parquet"), runs)


@pytest.mark.parametrize("damage", [b"", b"PAR1 nonsense", "truncated", "columns"])
def test_a_corrupt_table_is_named(tmp_path, damage):
    path, runs = tmp_path / "runs.parquet", runs_table(records())
    write_runs(runs.drop(columns="seed") if damage == "columns" else runs, tmp_path / "runs.csv", path)
    if damage == "truncated":
        damage = path.read_bytes()[:-100]
    if damage != "columns":
        path.write_bytes(damage)
    with pytest.raises(RecordError, match=r"runs\.parquet: corrupt table: .*snakemake"):
        read_runs(path)


def test_no_flipped_bit_of_a_table_goes_unnoticed(tmp_path):
    """Fault: a bit is flipped in the stored table of runs.

    Provoked: 300 bits all over the file are flipped, one at a time.
    Promised: what is read is what was written, or the file is refused by name with what to do.
    """
    path, runs = tmp_path / "runs.parquet", runs_table(records())
    write_runs(runs, tmp_path / "runs.csv", path)
    content, refused = path.read_bytes(), 0
    for place in range(0, len(content), max(1, len(content) // 300)):
        path.write_bytes(content[:place] + bytes([content[place] ^ (1 << place % 8)]) + content[place + 1 :])
        try:
            pd.testing.assert_frame_equal(read_runs(path), runs)
        except RecordError as error:
            assert "runs.parquet: corrupt table: " in str(error)  # noqa: PT017
            refused += 1
    assert refused > 100


def test_a_missing_table_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="runs"):
        read_runs(tmp_path / "runs.parquet")


# The comparison


def test_csv_has_full_precision(written, tmp_path):
    comparison, _ = written()
    stored = pd.read_csv(tmp_path / "comparison.csv", keep_default_na=True)
    assert list(stored.columns) == compare.COMPARISON_COLUMNS
    assert list(stored["diff"].dropna()) == list(comparison["diff"].dropna())
    assert list(stored["verdict"]) == list(comparison["verdict"])


@pytest.mark.parametrize("kind", ["html", "markdown", "tex"])
def test_every_form_says_what_happened_and_how_it_was_tested(written, kind):
    _, files = written()
    text = Text(files["html"]).text if kind == "html" else files[kind]
    plain = text.replace(r"$\cdot$", "·").replace("$-$", "−").replace(r"$\pm$", "±").replace("\\", "")
    plain = plain.replace("$|$", "|").replace("%", "")
    assert "79.3 ± 1.0" in plain  # the student alone
    assert "7/8 (1 failed)" in plain and "seed 3 diverged (loss is NaN); compared over 7 of 8 seeds" in plain
    assert "+1.30 [" in plain  # the mean of UP without seed 3, in points
    assert "skipped (dgl is not installed)" in plain and "all 3 methods, DGL" in plain
    assert "digits · gat · test accuracy · PyG" in plain
    for words in ("max-|t|", "Westfall and Young", "new seeds alone", "One split for all seeds", "up to 35 may"):
        assert words in plain, words


def test_what_is_about_one_split_is_said_only_where_it_is(written):
    _, files = written(resplit=True)
    assert "One split" not in files["markdown"]


def test_html_needs_no_network_and_escapes_names(written):
    _, files = written(kd=HOSTILE, dgl_reason=f"reason \x1b[31m{HOSTILE}")  # red, to a terminal
    page = Text(files["html"])
    assert "script" not in [tag for tag, _ in page.tags] and "link" not in [tag for tag, _ in page.tags]
    assert not re.search(r"https?://|@import|url\(", files["html"])
    assert HOSTILE in page.text and f"skipped (reason [U+001B][31m{HOSTILE})" in page.text
    assert not [attrs for _, attrs in page.tags if "src" in attrs or "href" in attrs]


def test_html_is_the_same_each_time(written):
    assert written()[1] == written()[1]


def test_markdown_rows_keep_their_cells(written):
    _, files = written(kd=HOSTILE)
    rows = [line for line in files["markdown"].splitlines() if line.startswith("|")]
    counts = {len(re.findall(r"(?<!\\)\|", row)) for row in rows}
    assert counts == {8}  # 7 columns
    assert "a\\|b" in files["markdown"] and "<script>" not in files["markdown"]


def test_latex_is_balanced_and_escaped(written):
    _, files = written(kd=HOSTILE, resplit=True)
    tex = files["tex"]
    assert r"\textless" not in tex and r"a$|$b \& 50\% \_x\_ \$y\$ \{z\}" in tex and r"$\lambda$[U+6F22]" in tex
    assert tex.isascii()
    body = "\n".join(line for line in tex.splitlines() if not line.startswith("%"))
    bare = re.sub(r"\\.", "", body.replace("\\\\", ""))
    assert bare.count("{") == bare.count("}") and bare.count("$") % 2 == 0
    assert not re.search(r"[%#_~^]", bare), "a special character that is not escaped"
    floats = re.findall(r"\\(begin|end)\{([a-z*]+)\}", body)
    assert floats == [("begin", "table*"), ("begin", "tabular"), ("end", "tabular"), ("end", "table*")]
    columns = len(re.search(r"\\begin\{tabular\}\{((?:[lr]|p\{[^}]+\})+)\}", body)[1].replace("p{2.9cm}", "l"))
    rows = [line for line in body.splitlines() if line.endswith(r"\tabularnewline") and "multicolumn" not in line]
    assert len(rows) == 1 + 3 + 1 and {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {columns - 1}


def test_two_methods_only_and_nothing_at_all(tmp_path):
    paths = {kind: tmp_path / kind for kind in KINDS}
    runs = runs_table(r for r in records() if r.method != "teacher" and r.backend == "pyg")
    write_comparison(compare.compare(runs), **paths)
    assert "teacher |" not in paths["markdown"].read_text(encoding="utf-8")
    write_comparison(compare.compare(runs.head(0)), **paths)
    assert paths["csv"].read_text(encoding="utf-8").startswith("dataset,backend,pair,method")


def test_all_failed_is_shown(tmp_path):
    paths = {kind: tmp_path / kind for kind in KINDS}
    broken = [record("kd", s, None, status="oom", reason="out of memory") for s in range(8)]
    alone = [record("supervised", s, base) for s, base in enumerate(BASE)]
    write_comparison(compare.compare(runs_table(alone + broken)), **paths)
    text = paths["markdown"].read_text(encoding="utf-8")
    assert (
        "| – (8 failed) |" in text
        and "all failed¹" in text
        and "seeds 0, 1, 2, 3, 4, 5, 6, 7 oom (out of memory)" in text
    )


def test_small_differences_are_signed_in_points():
    assert [signed(x) for x in (0.0231, -0.004, 0.0, -1e-9)] == ["+2.31", "−0.40", "0.00", "0.00"]
    assert signed(float("nan")) == "–"


# The others


def test_profiles(tmp_path):
    write_profiles([{"role": "teacher", "params": 3640748}, {"role": "student", "flops": 1.5}], tmp_path / "p.csv")
    assert (tmp_path / "p.csv").read_text(encoding="utf-8").splitlines()[0] == "role,params,flops"
    write_profiles([], tmp_path / "p.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.csv"], "no drafts are left behind"


# LaTeX for real

PAPER = r"\documentclass[twocolumn]{article}\usepackage{booktabs}\begin{document}\input{comparison.tex}\end{document}"
needs_latex = pytest.mark.skipif(
    shutil.which("pdflatex") is None, reason="needs pdflatex (Debian: texlive-latex-recommended)"
)


def compiled(folder, comparison):
    """What pdflatex says of a paper in which the table is pasted, and how many pages that has."""
    paths = {kind: folder / f"comparison.{kind}" for kind in KINDS}
    write_comparison(comparison, **paths)
    (folder / "paper.tex").write_text(PAPER)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    return done.stdout


@needs_latex
def test_latex_compiles_as_pasted_and_fits_its_page(tmp_path):
    comparison = compare.compare(runs_table(records(resplit=True)))
    log = compiled(tmp_path, comparison)
    assert "Overfull" not in log and "too large" not in log
    compiled(tmp_path, comparison.assign(method=HOSTILE, note=f"{HOSTILE} \x1b[31m \x07"))


@needs_latex
def test_a_long_table_is_divided_into_floats_that_fit(tmp_path):
    methods = [f"method-{number}" for number in range(22)]
    runs = [
        record(method, seed, base + number / 1000, pair=pair)
        for pair in ("gat", "gcn")
        for number, method in enumerate(["supervised", *methods])
        for seed, base in enumerate(BASE)
    ]
    log = compiled(tmp_path, compare.compare(runs_table(runs)))
    assert "Overfull" not in log and "too large" not in log
    assert (tmp_path / "comparison.tex").read_text().count(r"\begin{table*}") == 2
