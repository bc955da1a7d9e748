"""The page that is opened first: all that was run and found is on it, and nothing that a name could smuggle in."""

import html as html_texts
import json
import re
import shlex
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest
import yaml

from distillbench.plan.figures import figure_files
from distillbench.plan.plan import make_plan
from distillbench.report.data import environment, pictures, spec_in_words
from distillbench.report.facts import facts_of
from distillbench.report.page import write_report
from distillbench.report.tables import comparison_tables, read_table
from distillbench.runs import read_runs

from .conftest import CONFIG, HOSTILE, REASON, ROOT, UPS, records_of, write_results

SECTIONS = ["conclusions", "run", "tables", "figures", "curves", "failures", "environment", "reproduce", "cite"]


class Page(HTMLParser):
    """Text, tags and attributes of a page."""

    def __init__(self, html):
        super().__init__()
        self.texts, self.tags, self.attributes = [], [], []
        self.feed(html)
        self.text = re.sub(r"\s+", " ", " ".join(self.texts))

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *each) for each in attrs]

    def handle_data(self, data):
        self.texts.append(data)


def page_of(results, facts, folder):
    output = folder / "report/index.html"
    write_report(results, facts, output)
    return output.read_text()


@pytest.fixture(scope="module")
def html(finished_run, facts, tmp_path_factory):
    return page_of(finished_run, facts, tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_every_section_is_there_and_in_the_contents(page):
    ids = [value for tag, name, value in page.attributes if name == "id"]
    links = [value for tag, name, value in page.attributes if (tag, name) == ("a", "href")]
    assert [each for each in ids if each in SECTIONS] == SECTIONS
    assert {f"#{section}" for section in SECTIONS} <= set(links)
    assert {link.removeprefix("#") for link in links} <= set(ids)
    assert len(ids) == len(set(ids))


def test_it_says_what_was_run(page):
    for text in ("128 runs, 126 finished", "8 seeds", "PyG and DGL", "2026-01-02 03:04 to 2026-01-02 03:05 UTC"):
        assert text in page.text
    for text in (
        "1,797 nodes, 20,000 edges, 1 graph, 64 features",
        "50 train, 300 val, 1,447 test",
        "made here",
        "a remark; 3 of 64 features are the same at every node",
    ):
        assert text in page.text
    assert "gat, tap before, hidden 8, layers 2, heads 2" in page.text
    assert "Local structure preserving distillation (LSP); Knowledge distillation by soft labels (KD)" in page.text
    assert '"kernel": "cosine"' in page.text  # of the combination


def test_conclusions_and_tables_are_those_of_the_verdicts(page, finished_run):
    comparison = read_table(finished_run / "tables/comparison.csv")
    better = comparison[comparison["verdict"] == "better"]
    assert set(better["method"]) == {"kd"}, "the other is better by less than a point"
    shown = comparison["verdict"].str.startswith("better")
    assert set(comparison.loc[shown, "method"]) == {"kd", HOSTILE}
    assert f"Of {shown.sum()} comparisons, tested together, {shown.sum()} show a method better" in page.text
    assert "On digits (gat, its one split), kd is +5.0 points" in page.text
    assert page.text.count("digits · gat · test accuracy · PyG, DGL") == 2  # against the baseline, behind the best
    assert page.text.count("▲ better") == shown.sum()
    for heading in ("PyG against DGL", "What the models cost", "Published results beside ours"):
        assert heading in page.text


def test_a_failed_run_is_listed_with_its_reason(page):
    assert "2 of 128 runs did not finish" in page.text  # one per data set, with PyG
    assert "digits · PyG · gat" in page.text
    assert page.text.count(" ".join(REASON.split())) >= 2  # among the failures, and in the footnote of its table
    assert "7/8 (1 failed)" in page.text


def test_without_failures_it_says_none(tmp_path, facts):
    results = write_results(tmp_path / "results", records_of("digits", broken=False))
    assert "None: all 64 runs finished." in Page(page_of(results, facts, tmp_path)).text


def test_names_and_reasons_cannot_become_markup(html, page):
    assert HOSTILE in page.text and REASON in page.text
    assert page.tags.count("script") == 1
    assert not [each for each in page.attributes if each[1].startswith("on") or each[2] == "x"]


def test_it_refers_to_nothing_outside_itself(page):
    links = [each for each in page.attributes if each[0] == "link"]
    assert links == [("link", "rel", "icon"), ("link", "href", "data:,")]
    assert {value[:11] for tag, name, value in page.attributes if name == "src"} == {"data:image/"}
    assert {value[:1] for tag, name, value in page.attributes if (tag, name) == ("a", "href")} == {"#"}
    assert "default-src 'none'" in str(page.attributes)


def test_figures_come_in_order_and_a_heavy_svg_gives_way_to_its_png(finished_run, facts):
    runs = read_runs(finished_run / "tables/runs.parquet")
    shown = pictures(finished_run, runs, facts["shown"])["figures"]
    files = [picture.file.removeprefix("figures/") for picture in shown]
    assert files == ["digits.svg", "synthetic.png", "pareto-digits.svg", "libraries.svg", "across.svg"]
    assert all(picture.alt for picture in shown)


def test_what_an_earlier_config_left_is_not_shown(finished_run, plan, tmp_path):
    """Published results, ranks across cells and tuning, of which the files of the last are not even there any more."""
    results = shutil.copytree(finished_run, tmp_path / "results")
    (results / "tables/tuning.csv").write_text(
        "dataset,pair,method,trial,values,val,chosen\ndigits,gat,kd,0,{},1,yes\n"
    )
    for left in ("structure/cora-pyg-gat", "structure/digits-pyg-gat", "curves/cora-pyg-gat"):
        (results / "figures" / left).parent.mkdir(exist_ok=True)
        shutil.copy(results / "figures/digits.png", results / "figures" / f"{left}.png")
    output = results / "report/index.html"
    write_report(results, facts_of(plan), output)
    page = Page(output.read_text())
    for heading in ("Tuning", "Published results beside ours"):
        assert heading not in page.texts
    files = [text.removeprefix("figures/") for text in page.texts if text.startswith("figures/")]
    assert files == ["digits.svg", "synthetic.png", "pareto-digits.svg", "libraries.svg", "curves/digits-pyg-gat.svg"]
    other = make_plan(CONFIG | {"methods": CONFIG["methods"] | {"lsp": {}}, "profile": False}, [], ROOT)
    write_report(results, facts_of(other), output)
    page = Page(output.read_text())
    assert "figures/structure/digits-pyg-gat.png" in page.texts  # of its target, and of methods of this config
    assert "figures/structure/cora-pyg-gat.png" not in page.texts
    assert "What the models cost, with all cores" not in page.texts


def test_beside_the_page_is_what_belongs_to_it(finished_run, plan, tmp_path):
    write_report(finished_run, facts_of(plan), tmp_path / "index.html")
    shown = json.loads((tmp_path / "shown.json").read_text())
    assert {"report/index.html", "tables/comparison.csv", "tables/profiles.csv", "figures/digits.png"} <= set(shown)
    assert not {"tables/tuning.csv", "tables/reproduction.html", "figures/across.png"} & set(shown)
    tuned = facts_of(make_plan(CONFIG | {"tune": {"trials": 2}}, [], ROOT))
    assert set(tuned["shown"]) - set(shown) == {"tables/tuning.csv"}


def test_equal_results_give_an_equal_page(finished_run, facts, tmp_path, html):
    assert page_of(finished_run, facts, tmp_path) == html


def test_without_figures_and_further_tables_the_page_is_whole(tmp_path, facts):
    results = write_results(tmp_path / "results", records_of("digits"))
    (results / "tables/equivalence.csv").unlink()
    shutil.rmtree(results / "data")
    page = Page(page_of(results, facts, tmp_path))
    ids = [value for tag, name, value in page.attributes if name == "id"]
    assert "figures" not in ids and "curves" not in ids and "table-libraries" not in ids
    assert {"conclusions", "failures", "cite"} <= set(ids)


def test_without_a_comparison_it_is_named(tmp_path, facts):
    results = write_results(tmp_path / "results", records_of("digits"))
    (results / "tables/comparison.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"comparison\.csv does not exist: snakemake makes it"):
        page_of(results, facts, tmp_path)


def test_mixed_versions_are_pointed_out_and_what_libraries_have_apart_is_not(tmp_path):
    records = [*records_of("digits"), *records_of("synthetic", torch="2.12.0")]
    changed = [
        record.model_copy(update={"environment": record.environment | {"device": f"{record.backend}-device"}})
        for record in records
    ]
    results = write_results(tmp_path / "results", changed)
    facts, without = environment(results, read_runs(results / "tables/runs.parquet"))
    found = {fact.name: fact for fact in facts}
    assert without == 0
    assert found["torch"].mixed
    values = [f"{version} ({library}, 32 runs)" for version in ("2.12.0", "2.13.0") for library in ("DGL", "PyG")]
    assert sorted(found["torch"].value.split("; ")) == values
    assert not found["device"].mixed
    assert sorted(found["device"].value.split("; ")) == ["dgl-device (DGL)", "pyg-device (PyG)"]
    assert (found["python"].value, found["python"].mixed) == ("3.11.7", False)


def test_runs_without_a_record_are_counted(tmp_path, facts):
    results = write_results(tmp_path / "results", records_of("digits"))
    shutil.rmtree(results / "teachers")
    _, without = environment(results, read_runs(results / "tables/runs.parquet"))
    assert without == 16
    assert "16 runs of the table: no record was found here." in Page(page_of(results, facts, tmp_path)).text


def test_names_that_look_like_numbers_or_nothing_stay_names(tmp_path):
    (tmp_path / "table.csv").write_text(
        "method,verdict,diff,resplit\nnan,better,0.5,True\n1e3,worse,,False\nNA,,1,True\n"
    )
    frame = read_table(tmp_path / "table.csv")
    assert list(frame["method"]) == ["nan", "1e3", "NA"]
    assert frame["diff"].isna().tolist() == [False, True, False]
    assert list(frame["resplit"]) == [True, False, True]
    assert read_table(tmp_path / "no.csv") is None


def test_pyg_stands_before_dgl_and_notes_are_numbered(finished_run):
    tables = comparison_tables(read_table(finished_run / "tables/comparison.csv"))
    assert [table.caption for table in tables] == [
        f"{name} · gat · test accuracy · PyG, DGL" for name in ("digits", "synthetic")
    ]
    names = ["teacher", "supervised (baseline)", "kd", f"{HOSTILE}, PyG", f"{HOSTILE}, DGL"]
    assert [line.texts[0] for line in tables[0].lines] == names
    assert tables[0].notes[0].startswith("[1] seed 3 diverged")
    assert tables[0].lines[-2].texts[-1].endswith("[1]")


def test_a_models_specification_reads_as_words():
    spec = {"model": "gat", "hidden": 4, "residual": True, "dropout": 0.0, "head": [], "negative_slope": 0.2}
    assert spec_in_words(spec) == "gat, hidden 4, residual, negative slope 0.2"
    assert spec_in_words({"model": "dgcnn", "widths": [8, 16]}) == "dgcnn, widths 8-16"


COMBINED = {
    "lsp": {"weight": 7},
    "lsp-cosine+kd": {"kd": {"alpha": 0.3}},
    "lsp-cosine": {"method": "lsp", "kernel": "cosine"},
}
GIVEN = {
    "the default": ("config.yaml", {}),
    "tuned": ("config.yaml", {"tune": {"trials": 20}, "seeds": 30, "results": "results/tuned"}),
    "tuned, with combinations": ("config.yaml", {"tune": {"trials": 3}, "methods": {"supervised": None, **COMBINED}}),
    "with less time": ("config.yaml", {"execution": {"run_seconds": 10, "seeds_per_job": 3, "warm_start": False}}),
    "the released code": ("ablations/official.yaml", {}),
    "layers of the pairs": ("paper.yaml", {}),
    "layers of the pairs, tuned": ("ablations/kernels.yaml", {"tune": {"trials": 3}}),
    "every kind of method": ("standard.yaml", {}),
}


@pytest.mark.parametrize("given", GIVEN)
def test_the_config_of_the_page_plans_the_same_jobs(given, facts, finished_run, tmp_path):
    file, changes = GIVEN[given]
    values = yaml.safe_load((ROOT / "config" / file).read_text()) | changes
    plan = make_plan(values, [file], ROOT)
    html = page_of(finished_run, facts | {"config": facts_of(plan)["config"]}, tmp_path)
    text = html_texts.unescape(re.search(r'<code id="repro">(.*?)</code>', html, re.DOTALL)[1])
    again = make_plan(yaml.safe_load(text), ["repro.yaml"], ROOT)
    assert again.expected(further=True) == plan.expected(further=True)
    for cell in plan.cells:  # as text: a job is run again for 1.0 instead of 1
        assert str(again.teacher_params(cell, 0)) == str(plan.teacher_params(cell, 0))
        assert again.data_params(cell.dataset) == plan.data_params(cell.dataset)
        for method in plan.methods_of(cell):
            assert str(again.student_params(cell, method, 0)) == str(plan.student_params(cell, method, 0))
    for cell in plan.tuned_cells:
        for method in plan.methods_of(cell):
            assert str(again.tuning_params(cell, method)) == str(plan.tuning_params(cell, method))
    assert (again.methods, again.config.compare) == (plan.methods, plan.config.compare)
    assert (again.table_files(), figure_files(again)) == (plan.table_files(), figure_files(plan))


def test_the_config_of_the_page_depends_on_no_default_and_on_no_machine(plan):
    config = facts_of(plan)["config"]
    assert config["methods"]["kd"] == plan.variant("kd").params() and config["methods"]["kd"]
    assert config["methods"]["lsp+kd"]["lsp"]["kernel"] == "cosine"
    assert config["methods"]["lsp+kd"]["lsp"]["layers"] == [[-1, -1]]
    assert config["datasets"]["digits"]["params"]["neighbours"] == 10
    assert config["execution"] == {"seeds_per_job": None, "run_seconds": 3600}
    assert config["results"] == "results"
    tuned = facts_of(make_plan(CONFIG | {"tune": {"trials": 2}, "results": "/tmp/results"}, [], ROOT))["config"]
    assert "results" not in tuned
    assert "weight" not in tuned["methods"]["lsp+kd"]["lsp"] and "direction" in tuned["methods"]["lsp+kd"]["lsp"]


def test_the_command_is_shown_as_a_shell_takes_it_and_not_as_all_that_is_known(page, html):
    named = ["config/own.yaml", "my config.yaml", "a;rm.yaml"]
    command = facts_of(make_plan(CONFIG, named, ROOT))["command"]
    assert shlex.split(command) == ["snakemake", "--cores", "all", "--configfile", *named]
    section = page.text[page.text.index("Save the config below as repro.yaml") :]
    assert section.index("snakemake --cores all --configfile repro.yaml") < section.index("config/own.yaml")
    assert "where no value was given beside it ( --config ), which is not known here" in section


def test_settings_are_said_in_words(facts, finished_run, tmp_path):
    config = facts["config"] | {"tune": {"trials": 20, "seeds": 2, "learning_rate": 4.0}}
    page = Page(page_of(finished_run, facts | {"config": config}, tmp_path))
    for name, text in (("train projectors", "yes"), ("validate every", "1"), ("baseline", "supervised")):
        assert f"{name} {text} " in page.text
    assert "tuning 20 trials for every method of every pair, the student alone too" in page.text
    assert "over 2 seeds, which are not reported; the learning rate is searched within a factor of 4" in page.text
    assert not re.search(r"\b(True|False|None)\b|\{'", page.text.partition("How to reproduce")[0])


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.02, "1.3 seconds"), (0.5, "32 seconds"), (2.5, "3 minutes"), (200, "3.6 hours")]
)
def test_time_of_training_is_never_said_to_be_nothing(seconds, words, tmp_path, facts):
    records = [r.model_copy(update={"train_seconds": seconds}) for r in records_of("digits", broken=False)]
    results = write_results(tmp_path / "results", records)
    assert f"{words} of training" in Page(page_of(results, facts, tmp_path)).text


def test_only_comparisons_are_said_to_be_verdicts(page):
    assert "Every comparison is a verdict of the tables in words; means are means" in page.text
    assert "Every sentence is a verdict" not in page.text


def test_papers_of_the_methods_that_were_run_are_cited_once(page, plan):
    assert page.text.count("Distilling the Knowledge in a Neural Network") == 1
    assert page.text.count("CVPR 2020") == 1
    assert facts_of(plan)["cite"]["message"] in page.text
    assert "Attention transfer" not in page.text


def test_facts_need_neither_torch_nor_pandas_and_the_page_no_torch():
    code = (
        "import sys; from pathlib import Path; from distillbench.plan.plan import make_plan;"
        "from distillbench.report.facts import facts_of;"
        f"facts_of(make_plan({CONFIG!r}, [], Path({str(ROOT)!r})));"
        "print('torch' in sys.modules, 'pandas' in sys.modules);"
        "import distillbench.report.page; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["False", "False", "False"]


def test_all_methods_of_the_runs_are_in_the_page(page):
    assert all(method in page.text for method in UPS)
