"""The page that is opened first, and Snakemake's own report, of a run for real."""

import json
import re
import zipfile

from .conftest import CONFIG

PAGE = "results/report/index.html"


def test_the_run_ends_in_a_page_with_its_conclusions(finished):
    page = (finished.folder / PAGE).read_text()
    for dataset in CONFIG["datasets"]:
        assert f"On {dataset} (gat), nothing can be concluded about at and lsp with either library: 3 paired" in page
    assert "None: all 48 runs finished." in page
    assert "snakemake --cores all --configfile config/test.yaml" in page
    assert "no record was found" not in page


def test_the_page_is_written_anew_where_a_table_has_changed_and_not_for_how_it_runs(project):
    project.configure(execution={**CONFIG["execution"], "checkpoint_seconds": 30})
    assert "report" not in project.jobs()
    project.configure(compare={"alpha": 0.01})
    assert {"compare", "report"} <= set(project.jobs())


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
