"""What jobs ask of a batch system, from the config's estimates."""

import copy
import importlib.metadata
from pathlib import Path

import pytest
import yaml

from distillbench.config.config import ConfigError
from distillbench.paths import Cell
from distillbench.plan.plan import make_plan
from distillbench.plan.resources import Demand

ROOT = Path(__file__).parents[2]
VALUES = yaml.safe_load((ROOT / "config/config.yaml").read_text())
DIGITS, CLOUDS = Cell("digits", "pyg", "gat"), Cell("mnist5k", "pyg", "dgcnn")


def planned(of_dataset=None, of_pair=None, **changes):
    values = copy.deepcopy(VALUES)
    if of_dataset:
        values["datasets"]["digits"]["resources"] = of_dataset
    if of_pair:
        values["datasets"]["digits"]["pairs"]["gat"]["resources"] = of_pair
    return make_plan({**values, **changes}, ["config.yaml"], ROOT)


def test_time_grows_with_the_runs_of_a_job_and_no_run_is_longer_than_its_budget():
    plan = planned()
    assert plan.demand(DIGITS, 1) == Demand(3000, 5 + 10, 0)
    assert plan.demand(DIGITS, 5) == Demand(3000, 5 + 50, 0)
    assert planned(execution={"run_seconds": 120}).demand(DIGITS, 5) == Demand(3000, 5 + 10, 0)


def test_data_are_prepared_with_the_memory_of_their_data_set_and_without_a_gpu():
    plan = planned({"memory_mb": 8000}, {"memory_mb": 16000}, resources={"memory_mb": 4000, "gpus": 1})
    assert plan.data_demand("digits") == Demand(8000, 30, 0)
    assert plan.data_demand("mnist5k") == Demand(4000, 30, 0)


@pytest.mark.parametrize("version, of_dgl", [("1.1.3", 0), ("1.1.3+cu118", 1)])
def test_a_gpu_is_asked_for_only_where_the_backend_can_use_one(monkeypatch, version, of_dgl):
    monkeypatch.setattr(importlib.metadata, "version", {"dgl": version}.__getitem__)
    plan = planned(resources={"gpus": 1})
    asked = {backend: plan.demand(DIGITS._replace(backend=backend), 1).gpus for backend in ("pyg", "csr", "dgl")}
    assert asked == {"pyg": 1, "csr": 1, "dgl": of_dgl}
    assert planned(backends=["dgl"], resources={"gpus": 1}).asks_for_gpus == bool(of_dgl)


def test_the_pair_is_asked_first_then_the_data_set_then_the_config():
    plan = planned(
        {"memory_mb": 8000, "run_minutes": 30}, {"memory_mb": 16000}, resources={"run_minutes": 2, "gpus": 1}
    )
    assert plan.demand(DIGITS, 2) == Demand(16000, 5 + 60, 1)
    assert plan.demand(CLOUDS, 2) == Demand(3000, 5 + 4, 1)
    assert plan.asks_for_gpus and not planned().asks_for_gpus


def test_a_further_teacher_asks_for_what_its_pair_asks():
    plan = planned({}, {"memory_mb": 5000})
    assert plan.demand(DIGITS._replace(pair="gat@deep"), 1) == plan.demand(DIGITS, 1)


def test_a_retry_asks_for_more():
    assert Demand(3000, 15, 1).at(1) == Demand(3000, 15, 1)
    assert Demand(3000, 15, 1).at(3) == Demand(9000, 45, 1)


def test_estimates_decide_no_result():
    few, many = planned(), planned({"memory_mb": 9000}, resources={"run_minutes": 99})
    for method in few.methods:
        assert few.student_params(DIGITS, method, 0) == many.student_params(DIGITS, method, 0)
    assert few.teacher_params(DIGITS, 0) == many.teacher_params(DIGITS, 0)
    assert few.profile_params(DIGITS) == many.profile_params(DIGITS)


@pytest.mark.parametrize("given", [{"memory_mb": 10}, {"run_minutes": 0}, {"gpus": 8}, {"memory": 4000}])
def test_a_senseless_estimate_is_refused_by_name(given):
    (name,) = given
    with pytest.raises(ConfigError, match=rf"config.yaml:\n  datasets.digits.resources.*{name}"):
        planned(given)
