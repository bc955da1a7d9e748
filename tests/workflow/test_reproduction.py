"""Pairs that name published results end in a table beside them; data that are not canonical are never compared."""

import copy

import pandas as pd

from .conftest import CONFIG

ORIGIN = """
    def provenance(self):
        return {"canonical": False, "remark": "generated, not PPI", "name": "generated"}

    def load("""


def test_runs_are_set_beside_published_results_and_compared_only_on_canonical_data(project):
    synthetic = (project.folder / "datasets/synthetic.py").read_text()
    (project.folder / "datasets/ppi.py").write_text(synthetic.replace("\n    def load(", ORIGIN))
    entry = {"dataset": "ppi", **copy.deepcopy(CONFIG["datasets"]["synthetic"])}
    entry["pairs"]["gat"]["published"] = {"teacher": "gat-3l", "student": "gat-5l", "sources": ["yang2020"]}
    project.configure(datasets={"ppi": entry}, backends=["pyg"], seeds=1)
    refused = project.run("reproduce", succeeds=False)
    assert "datasets.ppi: generated, not PPI: it must not be shown as 'ppi'" in refused
    assert "generated: {dataset: ppi" in refused
    project.configure(datasets={"generated": entry}, backends=["pyg"], seeds=1)
    project.run("reproduce")
    tables = project.folder / "results/tables"
    rows = pd.read_csv(tables / "reproduction.csv")
    assert set(rows["dataset"]) == {"generated"}
    assert set(rows["verdict"]) == {"not comparable"}
    assert {"teacher", "supervised", "at", "lsp", "fitnet"} == set(rows["method"])
    assert "generated, not PPI" in (tables / "reproduction.html").read_text()
    assert "Nothing to be done" in project.run("reproduce")
