"""What is published is what the statistics of today say of the published runs."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from distillbench.config.config import Compare
from distillbench.predictions import RowScores, write_rows
from distillbench.report import publish
from distillbench.report.tables import read_table
from distillbench.runs import RUN_COLUMNS, read_runs, runs_of_csv, write_runs
from distillbench.statistics import compare

ROOT = Path(__file__).parents[2]
PUBLISHED = sorted(path.parent for path in (ROOT / "results/reference").glob("*/comparison.csv"))


def test_there_are_published_runs():
    assert {path.name for path in PUBLISHED} >= {"default", "paper-small", "standard-cora"}


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda folder: folder.name)
def test_published_tables_follow_from_the_published_runs(folder):
    """Where this fails after a change of the statistics: distillbench publish --again."""
    facts = pd.read_json(folder / "provenance.json", typ="series")
    settings = Compare(**yaml.safe_load((ROOT / facts["config"]["file"]).read_text()).get("compare", {}))
    found = compare.compare(runs_of_csv(folder / "runs.csv"), **settings.model_dump())
    published = read_table(folder / "comparison.csv")
    assert list(published.columns) == list(found.columns)
    for name in ("method", "backend", "verdict", "n_ok", "n_pairs", "improved", "collapsed", "n_rows"):
        assert list(published[name]) == list(found[name]), name
    for name in ("mean", "diff", "se", "ci_low", "ci_high", "p", "p_table", "p_equivalent", "gap_closed", "best_low"):
        assert list(published[name]) == pytest.approx(list(found[name]), rel=1e-9, nan_ok=True), name


def test_a_table_of_runs_of_an_older_version_is_read(tmp_path):
    runs = runs_of_csv(ROOT / "results/reference/default/runs.csv")
    assert list(runs.columns) == list(RUN_COLUMNS)
    write_runs(runs, tmp_path / "runs.csv", tmp_path / "runs.parquet")
    pd.testing.assert_frame_equal(runs_of_csv(tmp_path / "runs.csv"), read_runs(tmp_path / "runs.parquet"))


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda folder: folder.name)
def test_the_document_of_a_published_run_says_what_is_published(folder, monkeypatch):
    """Where this fails: distillbench publish --again."""
    monkeypatch.chdir(ROOT)
    published, every = folder.relative_to(ROOT), [Path("README.md"), *Path("docs").glob("*.md")]
    config = Path(json.loads((folder / "provenance.json").read_text())["config"]["file"])
    documents = [each for each in every if f"`{published}/provenance" in each.read_text()]
    assert documents
    for document in documents:
        _, part, _ = document.read_text().split(publish.MARK)
        assert part.strip() == publish.in_words(published, config, document.parent).strip(), document


def test_the_structure_of_a_feature_space_is_published_where_it_was_drawn(tmp_path):
    folder = tmp_path / "default"
    shutil.copytree(ROOT / "results/reference/default", folder)
    shutil.copy(folder / "digits.png", folder / "structure-digits-pyg-gat.png")
    shutil.copy(folder / "digits.png", folder / "structure-cora-pyg-gat.png")  # of no run that is published
    said = publish.in_words(folder, ROOT / "config/config.yaml", tmp_path)
    assert "(default/structure-digits-pyg-gat.png)" in said and "structure-cora" not in said


def test_the_rows_of_a_run_are_published_with_its_tables(tmp_path):
    tables = tmp_path / "results/tables"
    tables.mkdir(parents=True)
    for name in publish.PUBLISHED:
        shutil.copy(ROOT / "results/reference/default" / name, tables)
    publish._copy(tmp_path / "results", tmp_path / "before")
    assert not (tmp_path / "before/rows.npz").exists()
    write_rows(tables / "rows.npz", {("digits", "pyg", "gat", "kd", 0): RowScores(np.arange(3), np.ones(3, "f4"))})
    publish._copy(tmp_path / "results", tmp_path / "now")
    assert (tmp_path / "now/rows.npz").read_bytes() == (tables / "rows.npz").read_bytes()


@pytest.mark.parametrize("there", [False, True])
def test_what_is_drawn_again_is_drawn_with_the_published_rows_where_there_are_any(tmp_path, monkeypatch, there):
    given = []

    class Enough(Exception):  # noqa: N818
        """What follows is drawn as ever."""

    def compare(*_, rows, **__):
        given.append(rows)
        raise Enough

    shutil.copytree(ROOT / "results/reference/default", tmp_path / "default")
    (tmp_path / "default/rows.npz").unlink(missing_ok=True)
    if there:
        write_rows(tmp_path / "default/rows.npz", {})
    monkeypatch.setattr(publish, "REFERENCE", tmp_path)
    monkeypatch.setattr(publish.reports, "compare", compare)
    with pytest.raises(Enough):
        publish.again(ROOT / "config/config.yaml", "default", tmp_path / "README.md")
    assert given == [str(tmp_path / "default/rows.npz") if there else None]
