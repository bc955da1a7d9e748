"""Records that nobody trained are such that the tables and MLflow are made of them as of real ones."""

import pandas as pd
import pytest
import yaml

from benchmarks import dag
from benchmarks.synthetic_records import EPOCHS, grid_of, write_results
from distillbench.record import read_record


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic")
    config = grid_of(folder / "results", datasets=1, pairs=2, methods=("supervised", "lsp"))
    return write_results(config, folder / "config.yaml")


def test_the_grid_is_as_large_as_asked_for(plan):
    assert len(plan.cells) == 1 * 2 * 2
    assert plan.runs == len(plan.cells) * 3 * 10
    assert len(plan.paths.records()) == plan.runs


def test_a_record_is_complete_and_has_a_history_of_its_epochs(plan):
    path = plan.paths.runs(plan.cells[0], "lsp") / "seed-3.json"
    record = read_record(path)
    history = pd.read_csv(path.with_name("seed-3.history.csv"))
    assert len(history) == record.epochs
    assert EPOCHS[0] <= record.epochs <= EPOCHS[1]
    assert history["val"].max() == record.val == history["val"][record.best_epoch - 1]
    assert record.environment["device"] == "cpu" and record.hyperparameters["method"]["kernel"] == "rbf"


def test_the_tables_are_made_of_them(plan):
    file = str(plan.files[0])
    dag.collect(file)
    dag.compare(file)
    runs = pd.read_parquet(plan.paths.root / "tables/runs.parquet")
    comparison = pd.read_csv(plan.paths.root / "tables/comparison.csv")
    assert len(runs) == plan.runs and set(runs["status"]) == {"ok"}
    rows = comparison[["dataset", "backend", "pair", "method"]].itertuples(index=False)
    told = {(data, name, pair, method) for data, joined, pair, method in rows for name in joined.split("+")}
    assert len(told) == len(plan.cells) * 3, "each library of each method is in one row"


def test_a_command_that_fails_says_what_it_printed(tmp_path):
    with pytest.raises(SystemExit, match="exit status 3\nas asked"):
        dag.measured(["sh", "-c", "echo as asked; exit 3"], tmp_path)


def test_a_process_is_measured_with_its_children(tmp_path):
    block = "x = bytearray(200_000_000); print(len(x))"
    found = dag.measured(["sh", "-c", f"python -c '{block}'; true"], tmp_path)
    assert found.output == "200000000\n"
    assert 200 < found.megabytes < 300


def test_the_config_is_the_default_one_made_larger(tmp_path):
    config = grid_of(tmp_path, datasets=2, pairs=3, methods=("supervised", "kd"))
    default = yaml.safe_load((dag.ROOT / "config/config.yaml").read_text())
    assert [len(entry["pairs"]) for entry in config["datasets"].values()] == [3, 3]
    assert config["compare"] == default["compare"] and config["seeds"] == default["seeds"] == 10
