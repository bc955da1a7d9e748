"""Packages that change between two halves of a run"""

import pandas as pd

from distillbench.jobs.tables import collect, compare
from distillbench.record import read_record, write_record, write_shard
from tests.faults.conftest import CELL, plan_of, run_job


def notes_of(plan, folder):
    expected, methods = plan.expected(), plan.methods
    collect(expected, [], methods, *(str(folder / name) for name in ("runs.csv", "runs.parquet", "rows.npz")))
    names = ("csv", "parquet", "html", "tex", "markdown", "equivalence", "times", "across")
    outputs = {name: str(folder / f"comparison.{name}") for name in names}
    cards = [str(plan.paths.data("digits") / "data.json")]
    compare(str(folder / "runs.parquet"), outputs, cards, [], [], **plan.config.compare.model_dump())
    return (folder / "comparison.markdown").read_text(), (folder / "comparison.html").read_text()


def test_a_package_changes_between_two_halves_of_a_run(plan, tmp_path):
    """Fault: a package is upgraded between two halves of a run.

    Provoked: records of one seed say that they were made with an older torch.
    Promised: the table's notes say which package and version made how many runs; where all are the same, nothing.
    """
    plan = plan_of(tmp_path / "results", methods={"supervised": {}})
    for method in ("teacher", "supervised"):
        run_job(plan, method)
    said = "Not all runs were made with the same versions"
    assert not any(said in text for text in notes_of(plan, tmp_path))

    for method in ("teacher", "supervised"):
        path = plan.paths.runs(CELL, method) / "seed-1.json"
        record = read_record(path)
        old = record.model_copy(update={"environment": {**record.environment, "torch": "2.11.0"}})
        write_record(path, old)
        others = [read_record(path.with_name(f"seed-{seed}.json")) for seed in (0, 2)]
        write_shard(plan.paths.shard(CELL, method, 0), [others[0], old, others[1]])
    new = others[0].environment["torch"]
    for text in notes_of(plan, tmp_path):
        assert said in text and f"torch 2.11.0 (2 runs), {new} (4 runs)" in text.replace("\\", "")
    runs = pd.read_csv(tmp_path / "runs.csv")
    assert set(runs.loc[runs["versions"].str.contains("torch 2.11.0"), "seed"]) == {1}
