"""The page that is opened first, and Snakemake's own report, of a run for real."""

import html
import json
import re
import zipfile

from .conftest import CONFIG

PAGE = "results/report/index.html"


def test_the_run_ends_in_a_page_with_its_conclusions(finished):
    page = (finished.folder / PAGE).read_text()
    for dataset in CONFIG["datasets"]:
        assert re.search(rf"On {dataset} \(gat[^)]*\), nothing was decided: 3 paired seeds are too few\.", page)
    assert "None: all 48 runs finished." in page
    assert "snakemake --cores all --configfile config/test.yaml" in page
    shown = json.loads((finished.folder / "results/report/shown.json").read_text())
    there = {str(file.relative_to(finished.folder / "results")) for file in (finished.folder / "results").rglob("*.*")}
    assert {file for file in there if file.startswith(("tables/", "figures/"))} <= set(shown)
    assert {file for file in shown if "structure" not in file} <= there
    assert "no record was found" not in page


def test_the_page_is_written_anew_where_a_table_has_changed_and_not_for_how_it_runs(project):
    project.configure(execution={**CONFIG["execution"], "checkpoint_seconds": 30})
    assert "report" not in project.jobs()
    project.configure(compare={"alpha": 0.01})
    assert {"compare", "report"} <= set(project.jobs())


def test_what_an_earlier_config_made_is_on_no_page(project):
    figure = project.folder / "results/figures/synthetic.png"
    assert "synthetic" in (project.folder / PAGE).read_text()
    project.configure(datasets={"digits": CONFIG["datasets"]["digits"]}, backends=["pyg"])
    project.run(PAGE)
    page = (project.folder / PAGE).read_text()
    assert figure.exists() and "synthetic" not in page and "libraries.svg" not in page


def test_the_config_of_the_page_finds_everything_done(finished, tmp_path):
    """On the page's word alone, nothing is trained again."""
    project = finished.copy(tmp_path / "project")
    page = (project.folder / PAGE).read_text()
    text = html.unescape(re.search(r'<code id="repro">(.*?)</code>', page, re.DOTALL)[1])
    (project.folder / "config/test.yaml").write_text(text)
    assert not set(project.jobs()) & {"dataset", "teacher", "distill", "collect", "compare"}


def test_snakemakes_report_is_made_and_has_its_categories(finished, tmp_path):
    archive = tmp_path / "report.zip"
    finished.run("--report", str(archive))
    with zipfile.ZipFile(archive) as content:
        names = content.namelist()
        page = content.read("report/report.html").decode()
    for file in ("index.html", "comparison.html", "comparison.csv", "digits.png", "synthetic.png"):
        assert [name for name in names if name.endswith(f"/{file}")], names
    categories = json.loads(re.search(r"var categories = (\{.*?\});?\n", page)[1])
    assert {"Start here", "Tables", "Figures"} <= set(categories)
