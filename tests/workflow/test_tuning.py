"""Equal tuning in the DAG, on a small config run for real."""

import json

import pandas as pd
import pytest

from distillbench.record import read_record
from distillbench.tuning import read_tuning

from .conftest import CONFIG, checkout

TARGETS = ("results/tables/runs.csv", "results/tables/tuning.csv")
DIGITS = json.loads(json.dumps(CONFIG["datasets"]["digits"]))
DIGITS["pairs"]["gat"]["training"] = {"epochs": 2}
SMALL = {
    "datasets": {"digits": DIGITS},
    "methods": {"supervised": {}, "kd": {}},
    "seeds": 2,
    "tune": {"trials": 3, "seeds": 1},
}


def jobs(project):
    """What a run would do now, by rule, of all that is there at the end."""
    return {rule: n for rule, n in project.jobs().items() if rule in ("tuning_teacher", "tune", "teacher", "distill")}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    project = checkout(tmp_path_factory.mktemp("tuning") / "project")
    project.configure(**SMALL)
    project.planned = jobs(project)  # type: ignore[attr-defined]
    project.output = project.run(*TARGETS)  # type: ignore[attr-defined]
    return project


def test_a_dry_run_shows_every_job_before_any_file_is_there(tuned):
    assert tuned.planned == {"tuning_teacher": 1, "tune": 2, "teacher": 2, "distill": 4}


def test_the_chosen_values_are_those_of_both_libraries_and_no_tuning_seed_is_in_the_table(tuned):
    results = tuned.folder / "results"
    runs = pd.read_csv(results / "tables/runs.csv")
    assert sorted(set(runs["seed"])) == [0, 1] and len(runs) == 2 * 3 * 2 and set(runs["status"]) == {"ok"}
    for method in ("supervised", "kd"):
        tuning = read_tuning(results / f"tuning/digits/gat/{method}.json")
        assert (tuning.backend, tuning.seeds, len(tuning.trials)) == ("pyg", [1_000_000], 3)
        for backend in ("pyg", "dgl"):
            record = read_record(results / f"runs/digits/{backend}/gat/{method}/seed-1.json")
            assert record.hyperparameters["training"].items() >= tuning.chosen["training"].items()
            assert record.hyperparameters["method"].items() >= tuning.chosen["method"].items()
            assert record.tuning == tuning.facts()
    table = pd.read_csv(results / "tables/tuning.csv")
    assert list(table.groupby("method").size()) == [3, 3] and list(table["chosen"]).count("yes") == 2


def test_the_output_says_what_was_chosen(tuned):
    assert "digits/gat/kd: " in tuned.output and "3 of 3 trials run in" in tuned.output
    log = (tuned.folder / "results/logs/tuning/digits/gat/kd.log").read_text()
    assert "digits/gat/kd: trial 2 (3 of 3), alpha" in log and "about 0 s left" in log


def test_a_second_run_has_nothing_to_do_and_what_is_changed_is_tuned_again(tuned):
    assert jobs(tuned) == {}
    tuned.configure(**{**SMALL, "methods": {"supervised": {}, "kd": {"temperature": 3}}})
    assert jobs(tuned) == {"tune": 1, "distill": 2}
    tuned.configure(**SMALL)
    file = tuned.folder / "methods/kd.py"
    file.write_text(file.read_text() + "\n")
    assert jobs(tuned) == {"tune": 1, "distill": 2}
