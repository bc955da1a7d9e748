"""Where tuning stands in the plan: what it is asked for, and that it touches nothing where it is off."""

import copy
from pathlib import Path

import pytest
import yaml

from distillbench.config.config import TUNING_SEEDS_FROM, ConfigError, Tune
from distillbench.plan import grid
from distillbench.plan.plan import make_plan

ROOT = Path(__file__).parents[2]
VALUES = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())


def planned(**changes):
    return make_plan({**copy.deepcopy(VALUES), **changes}, ["config/mine.yaml"], ROOT)


@pytest.mark.parametrize(
    ("tune", "expected"),
    [
        ("nnone", ["tune: 'nnone'", "did you mean 'none'?", "{trials: 20}"]),
        ({"trails": 20}, ["tune: ", "unknown key 'trails': did you mean 'trials'?"]),
        ({"trials": 1}, ["tune.trials: 1", "greater than or equal to 2"]),
        ({"trials": 20, "seeds": 0}, ["tune.seeds: 0"]),
        ({"learning_rate": 0.5}, ["tune.learning_rate: 0.5", "greater than or equal to 1"]),
        (20, ["tune: 20"]),
    ],
)
def test_what_cannot_be_tuned_is_refused(tune, expected):
    with pytest.raises(ConfigError) as error:
        planned(tune=tune)
    assert str(error.value).startswith("config/mine.yaml:")
    assert all(part in str(error.value) for part in expected)


@pytest.mark.parametrize("tune", ["none", None])
def test_without_tuning_nothing_is_different(tune):
    usual, without = planned(), planned(tune=tune)
    assert without.tuning_files() == [] and without.expected() == usual.expected()
    assert without.table_files() == usual.table_files()
    assert not any("tuned" in without.student_params(cell, "kd", 0) for cell in without.cells)


def test_the_config_file_shows_the_defaults():
    text = (ROOT / "config/config.yaml").read_text()
    for key, value in Tune().model_dump().items():
        assert f"#     {key}: {value:g} " in text


def test_every_method_is_tuned_once_on_the_first_library():
    plan = planned(tune={"trials": 5})
    files = plan.tuning_files()
    pairs = {(cell.dataset, cell.pair) for cell in plan.cells}
    assert len(files) == sum(len(plan.methods_of(plan.tuned_cell(*pair))) for pair in pairs) == len(set(files))
    assert {cell.backend for cell in plan.tuned_cells} == {plan.config.backends[0]}
    assert any(file.endswith("tables/tuning.csv") for file in plan.table_files())


def test_the_tuned_cells_are_worked_out_once(monkeypatch):
    """The DAG asks for them for every job."""
    plan = planned(tune={"trials": 5})
    first = plan.tuned_cells
    monkeypatch.setattr(type(plan), "cells", property(lambda _: pytest.fail("worked out again")))
    assert plan.tuned_cells is first


def test_a_library_that_is_not_installed_tunes_nothing(monkeypatch):
    monkeypatch.setattr(grid, "missing_reason", lambda name: "pyg is not installed" if name == "pyg" else None)
    assert {cell.backend for cell in planned(tune={"trials": 5}, backends=["pyg", "dgl"]).tuned_cells} == {"dgl"}


def test_reported_seeds_and_those_of_the_trials_are_disjoint():
    plan = planned(tune={"trials": 5, "seeds": 3}, seeds=1000)
    cell = plan.tuned_cells[0]
    tuning = plan.tuning_params(cell, "kd")["run"]["seeds"]
    assert tuning == [TUNING_SEEDS_FROM, TUNING_SEEDS_FROM + 1, TUNING_SEEDS_FROM + 2]
    assert plan.tuning_teacher_params(cell)["seeds"] == tuning
    reported = {seed for entry in plan.expected(further=True).values() for seed in entry["seeds"]}
    assert reported == set(range(1000))


def test_the_runs_of_tuning_are_where_no_table_is_made_from():
    plan = planned(tune={"trials": 5})
    cell = plan.tuned_cells[0]
    for params in (plan.tuning_params(cell, "kd")["run"], plan.tuning_teacher_params(cell)):
        assert params["runs"] == str(plan.paths.root / "tuning")
    own = plan.paths.tuning_runs.shard(cell, "teacher", 0)
    assert not any(own.match(f"{plan.paths.root}/{pattern}") for pattern in ("teachers/*/*/*/*", "runs/*/*/*/*/*"))


def test_a_students_job_knows_where_its_values_come_from_and_with_what_budget():
    plan = planned(tune={"trials": 5})
    for cell in plan.cells:
        tuned = plan.student_params(cell, "kd", 0)["tuned"]
        assert tuned == {
            "file": f"{plan.paths.root}/tuning/{cell.dataset}/{cell.pair}/kd.json",
            "trials": 5,
            "seeds": 2,
            "learning_rate": 4.0,
        }
        assert tuned["file"] in plan.tuning_files()
        assert "tuned" not in plan.tuning_params(plan.tuned_cells[0], "kd")["run"]


def test_a_method_file_and_a_given_value_concern_their_own_tuning_only():
    before, after = (
        planned(tune={"trials": 5}),
        planned(tune={"trials": 5}, methods={**VALUES["methods"], "kd": {"alpha": 0.3}}),
    )
    cell = before.tuned_cells[0]
    for method in before.methods_of(cell):
        assert (before.tuning_params(cell, method) == after.tuning_params(cell, method)) == (method != "kd")
        sources = before.tuning_sources(cell, method)
        assert {Path(file).stem for file in sources if Path(file).parent.name == "methods"} == {method}
        assert any(file.endswith("jobs/tune.py") for file in sources) and all(Path(file).is_file() for file in sources)
    assert "alpha" not in after.tuning_params(cell, "kd")["space"]["method"]
