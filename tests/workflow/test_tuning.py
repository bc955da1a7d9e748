"""Equal tuning in the DAG, on a small config run for real."""

import json

import pandas as pd
import pytest

from distillbench.plan.tuning import read_tuning
from distillbench.record import read_record

from .conftest import CONFIG, checkout

TARGETS = ("results/tables/runs.csv", "results/tables/tuning.csv")
RULES = ("tuning_teacher", "tune", "teacher", "distill", "tuning_table")
DIGITS = json.loads(json.dumps(CONFIG["datasets"]["digits"]))
DIGITS["pairs"]["gat"]["training"] = {"epochs": 2}
SMALL = {
    "datasets": {"digits": DIGITS},
    "methods": {"supervised": {}, "kd": {}},
    "seeds": 1,
    "tune": {"trials": 2, "seeds": 1},
}


def jobs(project):
    """What a run would do now, by rule, of all that is there at the end."""
    return {rule: n for rule, n in project.jobs().items() if rule in RULES}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    project = checkout(tmp_path_factory.mktemp("tuning") / "project")
    project.configure(**SMALL)
    project.output = project.run(*TARGETS)  # type: ignore[attr-defined]
    return project


def test_every_job_is_planned_before_any_file_is_there(tuned):
    stats = tuned.output.partition("Job stats:")[2].partition("\n\n")[0]
    planned = {
        words[0]: int(words[1]) for line in stats.splitlines() if len(words := line.split()) == 2 and words[1].isdigit()
    }
    assert {name: planned[name] for name in RULES if name in planned} == {
        "tuning_teacher": 1,
        "tune": 2,
        "teacher": 2,
        "distill": 4,
        "tuning_table": 1,
    }


def test_the_chosen_values_are_those_of_both_libraries_and_no_tuning_seed_is_in_the_table(tuned):
    results = tuned.folder / "results"
    runs = pd.read_csv(results / "tables/runs.csv")
    assert set(runs["seed"]) == {0} and len(runs) == 2 * 3 and set(runs["status"]) == {"ok"}
    for method in ("supervised", "kd"):
        tuning = read_tuning(results / f"tuning/digits/gat/{method}.json")
        assert (tuning.backend, tuning.seeds, len(tuning.trials)) == ("pyg", [1_000_000], 2)
        for backend in ("pyg", "dgl"):
            record = read_record(results / f"runs/digits/{backend}/gat/{method}/seed-0.json")
            assert record.hyperparameters["training"].items() >= tuning.chosen["training"].items()
            assert record.hyperparameters["method"].items() >= tuning.chosen["method"].items()
            assert record.tuning == tuning.facts()
    table = pd.read_csv(results / "tables/tuning.csv")
    assert list(table.groupby("method").size()) == [2, 2] and list(table["chosen"]).count("yes") == 2


def test_the_output_says_what_was_chosen(tuned):
    assert "digits/gat/kd: " in tuned.output and "2 of 2 trials run in" in tuned.output
    log = (tuned.folder / "results/logs/tuning/digits/gat/kd.log").read_text()
    assert "digits/gat/kd: trial 1 (2 of 2), alpha" in log and "about 0 s left" in log


def edit(file):
    file.write_text(file.read_text() + "\n")


def test_a_second_run_has_only_to_do_what_depends_on_what_was_changed(tuned):
    edit(tuned.folder / "workflow/distillbench/tables/tuning.py")
    assert jobs(tuned) == {"tuning_table": 1}
    edit(tuned.folder / "methods/kd.py")
    assert jobs(tuned) == {"tune": 1, "distill": 2, "tuning_table": 1}
