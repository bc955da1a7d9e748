"""What MLflow shows of a data set as a whole: a run with tables, figures, report and conclusions, and views."""

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd

from distillbench.statistics.compare import COMPARISON_COLUMNS
from distillbench.tracking.sync import sync
from distillbench.tracking.views import view_tags
from tests.report.conftest import compared, controls

from .conftest import client, put, record, runs


def test_a_summary_holds_its_data_sets_figures_those_over_all_and_the_report(results: Path) -> None:
    put(results, record(dataset="mnist5k"))
    here = ["digits.png", "pareto-digits.svg", "libraries.png", "across.svg", "curves/digits-pyg-gat.png"]
    there = ["mnist5k.png", "pareto-mnist5k.svg", "curves/mnist5k-pyg-gat.png", "curves/digits2-pyg-gat.png"]
    for name in [f"figures/{name}" for name in here + there] + ["report/index.html", "tables/comparison.html"]:
        (results / name).parent.mkdir(parents=True, exist_ok=True)
        (results / name).write_text(name)
    assert sync(results).problems == ()
    mlflow, summary = client(results), runs(results)["digits/summary"].info.run_id
    shown = {
        item.path for folder in mlflow.list_artifacts(summary) for item in mlflow.list_artifacts(summary, folder.path)
    }
    figures = {f"figures/{name}" for name in here if "/" not in name}
    assert shown == figures | {"curves/digits-pyg-gat.png", "report/index.html", "tables/comparison.html"}
    (results / "report/index.html").write_text("new")
    assert sync(results).replaced == 2


def test_a_summary_holds_only_what_the_report_says_belongs_to_it(results: Path) -> None:
    put(results, record(dataset="cora"))
    names = ["figures/digits.png", "figures/across.png", "figures/cora.png", "report/index.html"]
    names += ["tables/runs.csv", "tables/tuning.csv", "tables/profiles.csv", "figures/curves/digits-pyg-old.png"]
    for name in names:
        (results / name).parent.mkdir(parents=True, exist_ok=True)
        (results / name).write_text(name)
    belong = ["figures/digits.png", "report/index.html", "tables/runs.csv", "tables/not-there.csv"]
    (results / "report/shown.json").write_text(json.dumps(belong))
    assert sync(results).problems == ()
    mlflow, summary = client(results), runs(results)["digits/summary"].info.run_id
    shown = [
        item.path for folder in mlflow.list_artifacts(summary) for item in mlflow.list_artifacts(summary, folder.path)
    ]
    assert sorted(shown) == belong[:3]
    assert "cora/summary" not in runs(results, "cora")  # a data set of an earlier config


def test_a_damaged_list_of_what_belongs_to_the_report_is_named(results: Path) -> None:
    for name, text in (("figures/digits.png", "a figure"), ("report/shown.json", '["figures/dig')):
        (results / name).parent.mkdir()
        (results / name).write_text(text)
    (problem,) = sync(results).problems
    assert "report/shown.json: not a list of files" in problem and "run snakemake again" in problem
    assert "digits/summary" in runs(results)


def comparison_of(*rows) -> pd.DataFrame:
    """A table with all its columns."""
    return pd.DataFrame(rows).reindex(columns=COMPARISON_COLUMNS).astype({"n_rows": float, "note": str})


def gain(method: str, **changes: Any) -> dict[str, Any]:
    return compared(method, "better", "pyg+dgl", **changes)


def test_the_description_of_a_summary_is_what_was_concluded_on_its_data_set(results: Path) -> None:
    (results / "tables").mkdir()
    other = compared("lsp", "no difference shown", dataset="mnist5k")
    rows = comparison_of(*controls("pyg+dgl"), gain("k_d|<b>"), other)
    rows.to_csv(results / "tables/comparison.csv", index=False)
    sync(results)
    text = runs(results)["digits/summary"].data.tags["mlflow.note.content"]
    assert text.startswith("**On digits (gat), k_d\\|&lt;b&gt; is +4.8 points \\[+1.4, +7.6\\] (9 of 10 seeds) above")
    assert "mnist5k" not in text
    assert "mlflow.note.content" not in runs(results)["digits/pyg/gat/lsp/0"].data.tags


def test_a_long_description_ends_with_a_whole_sentence_and_says_that_there_is_more(results: Path) -> None:
    (results / "tables").mkdir()
    rows = comparison_of(*(gain("m" * 60, pair=f"pair{n}") for n in range(200)))
    rows.to_csv(results / "tables/comparison.csv", index=False)
    sync(results)
    text = runs(results)["digits/summary"].data.tags["mlflow.note.content"]
    assert 4500 < len(text) <= 5000
    *_, last, _, ending = text.splitlines()
    assert re.fullmatch(r"- … and \d+ more in the report\.", last)
    assert ending.endswith("under Artifacts.")


def test_views_group_a_librarys_runs_by_method_and_by_pair_where_there_are_several(results: Path) -> None:
    def views() -> dict[str, Any]:
        tags = client(results).get_experiment_by_name("digits").tags
        named = (json.loads(value) for key, value in tags.items() if key.startswith("mlflow.sharedViewState."))
        return {view["name"]: json.loads(view["state"]) for view in named if "name" in view}

    sync(results)
    (view,) = views().values()
    assert view["searchFilter"] == "tags.backend = 'pyg'"
    assert view["groupBy"] == {
        "aggregateFunction": "average",
        "groupByKeys": [{"mode": "tag", "groupByData": "method"}],
    }
    assert (view["orderByKey"], view["orderByAsc"]) == ("metrics.`test`", False)
    assert view["groupsExpanded"] == {f"tag.method.{name}": False for name in ("kd", "lsp", "teacher")}
    put(results, record(pair="gcn", backend="dgl"))
    sync(results)
    assert set(views()) == {"DGL by pair and method", "PyG by pair and method"}
    assert views()["DGL by pair and method"]["groupsExpanded"] == {"tag.pair.gcn,tag.method.lsp": False}


def test_a_view_of_very_many_methods_is_still_a_tag_that_mlflow_takes() -> None:
    many = [record(method=f"method-{n}") for n in range(300)]
    tags = view_tags(many)
    assert max(map(len, tags.values())) <= 5000
    assert json.loads(json.loads(tags["mlflow.sharedViewState.pyg"])["state"])["groupsExpanded"] == {}
