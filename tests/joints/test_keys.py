"""What decides whether a finished run is used again: keys and digests of real jobs, beside the plan and the imports."""

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from distillbench.data.cards import read_card, write_card
from distillbench.jobs.train import Job
from distillbench.record import file_digest, write_record, write_shard

from .conftest import ROOT

PACKAGE = ROOT / "workflow/distillbench"
# What a run imports and no result depends on: editing one of these must not train anything anew.
DECIDES_NOTHING = {
    "__init__.py": "the version",
    "training/allocator.py": "how memory is kept, not what is in it",
    "data/archives.py": "reads raw data: a source of data sets, whose digest is in the key",
    "models/backends/__init__.py": "finds the library's module",
    "data/cards.py": "describes data sets",
    "plan/checks.py": "refuses configs",
    "plan/figures.py": "which figures there are",
    "plan/published.py": "reads published results",
    "config/config.py": "checks values, which are in the key themselves",
    "config/yaml_files.py": "reads YAML",
    "plan/resources.py": "what a batch system is asked for",
    "plan/grid.py": "makes the job's parameters, which are in the key",
    "jobs/data.py": "writes what was loaded",
    "jobs/train.py": "keys, files and records",
    "locks.py": "who may write",
    "params.py": "checks values, which are in the key themselves",
    "paths.py": "where files are",
    "plan/plan.py": "makes the job's parameters, which are in the key",
    "plugin.py": "names of what is elsewhere",
    "plugins.py": "loads files, which are sources themselves",
    "record.py": "writes files",
    "plan/sources.py": "the lists under test",
    "predictions.py": "how what was predicted is kept in a file",
    "durations.py": "what took how long",
    "plan/tuning.py": "puts chosen values among the job's parameters, which are in the key",
    "config/variants.py": "makes the job's parameters, which are in the key",
}
FRESH = """
import json, sys
sys.path[:0] = {path!r}
from distillbench.jobs.{module} import {function}
{function}(**json.loads(sys.stdin.read()))
print(json.dumps([m.__file__ for m in list(sys.modules.values()) if getattr(m, "__file__", None)]))
"""


def imported(function: str, arguments: dict[str, Any]) -> set[Path]:
    """The project's own files that a process which runs a job imports."""
    module = {"train": "train", "prepare_data": "data"}[function]
    code = FRESH.format(path=[str(ROOT / "workflow"), str(ROOT)], module=module, function=function)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, input=json.dumps(arguments), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    files = (Path(file).resolve() for file in json.loads(done.stdout.splitlines()[-1]))
    # torch has modules of its own with files that are not there
    return {file for file in files if file.is_relative_to(ROOT) and ".venv" not in file.parts and file.is_file()}


def undecided(files: set[Path], sources: set[Path], *besides: str) -> set[str]:
    """Those that are no source and not known to decide nothing."""
    nothing = {PACKAGE / name for name in (*DECIDES_NOTHING, *besides)} | set(PACKAGE.glob("*/__init__.py"))
    assert all(len(ast.parse(file.read_text()).body) == 1 for file in files & set(PACKAGE.glob("*/__init__.py")))
    assert all(file.is_file() for file in nothing)
    return {str(file) for file in files - sources - nothing}


@pytest.fixture
def runs(runs_in):
    """One seed of every model on one graph."""
    runs = runs_in(seeds=1, only="one_graph", training={"epochs": 1})
    runs.run("one_graph", "supervised", "kd", "spy")
    return runs


@pytest.mark.parametrize("method", ["teacher", "spy"])
def test_every_module_that_a_fresh_run_imports_is_a_source_or_is_known_to_decide_nothing(runs_in, method):
    runs = runs_in(seeds=1, only="one_graph", training={"epochs": 1})
    runs.prepare("one_graph")
    if method == "spy":
        runs.train("one_graph")
    job = runs.arguments("one_graph", method)
    files, sources = imported("train", job), {Path(file).resolve() for file in job["sources"]}
    assert len(files & sources) > 15 and PACKAGE / "training/experiment.py" in files
    loads_methods = ["distillation/combination.py"] if method == "teacher" else []  # and a teacher has none
    assert undecided(files, sources, *loads_methods) == set()


def test_every_module_that_a_data_job_imports_is_a_source_or_is_known_to_decide_nothing(runs_in):
    runs = runs_in(seeds=1, only="one_graph")
    arguments = {
        "results": str(runs.plan.paths.root), "file": runs.plan.dataset_file("one_graph"),
        **runs.plan.data_params("one_graph"),
    }  # fmt: skip
    files = imported("prepare_data", arguments)
    sources = {Path(file).resolve() for file in (*runs.plan.data_sources("one_graph"), arguments["file"])}
    assert PACKAGE / "data/graph_data.py" in files
    assert undecided(files, sources, "seeds.py", "config/specs.py") == set()  # of splits and models


# keys


def keys(runs, method="spy", **changes):
    arguments = runs.arguments("one_graph", method)
    for name, value in changes.items():
        place, (*steps, last) = arguments, name.split("__")
        for step in steps:
            place = place[step]
        place[last] = value
    return Job(**arguments).keys()


def test_the_code_of_a_record_is_that_of_the_plan_and_changes_with_every_source(runs, tmp_path):
    """The plan says what a record must have, and the tables refuse another."""
    for method in ("teacher", "supervised", "kd", "spy"):
        (record,) = runs.records("one_graph", method)
        file = str(runs.plan.paths.shard(runs.cell("one_graph"), method, 0))
        assert record.digests["code"] == runs.plan.expected()[file]["code"]
    arguments = runs.arguments("one_graph", "spy")
    before = Job(**arguments)
    assert before.digests["code"] == runs.records("one_graph", "spy")[0].digests["code"]
    assert len(arguments["sources"]) > 20
    for number, source in enumerate(arguments["sources"]):
        edited = tmp_path / Path(source).name
        edited.write_text(Path(source).read_text() + "# edited\n")
        sources = [*arguments["sources"][:number], str(edited), *arguments["sources"][number + 1 :]]
        after = Job(**{**arguments, "sources": sources})
        assert after.digests["code"] != before.digests["code"], source
        assert set(after.keys()).isdisjoint(before.keys()), source


@pytest.mark.parametrize(
    "changes",
    [
        {"params__model__hidden": 5},
        {"params__training__epochs": 9},
        {"params__training__weight_decay": 0.1},
        {"params__teacher_model__dropout": 0.1},
        {"params__protocol__selection": "last"},
        {"params__dataset_params": {"noise": 2}},
        {"params__method__params": {"folder": "elsewhere"}},
        {"params__method__files": {"spy": str(ROOT / "methods/kd.py")}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_decides_a_result_is_in_its_key(runs_in, changes):
    runs = runs_in(seeds=1, only="one_graph", training={"epochs": 1})
    runs.run("one_graph")
    assert set(keys(runs, **changes)).isdisjoint(keys(runs))


def test_seeds_have_keys_of_their_own(runs_in):
    """Also those of methods without a teacher, whose keys differ by seed anyway."""
    runs = runs_in(seeds=3, only="one_graph")
    runs.prepare("one_graph")
    for method in ("teacher", "supervised"):
        assert len(set(keys(runs, method))) == 3


def test_other_data_have_other_keys(runs):
    before = keys(runs)
    card = read_card(runs.plan.paths.data("one_graph") / "data.json")
    write_card(runs.plan.paths.data("one_graph") / "data.json", card.model_copy(update={"digest": "0" * 64}))
    assert set(keys(runs)).isdisjoint(before)


def test_what_decides_nothing_is_in_no_key(runs):
    changes = {"params__run_seconds": 1.0, "execution__checkpoint_seconds": 1.0, "planned_runs": 1}
    for name, value in changes.items():
        assert keys(runs, **{name: value}) == keys(runs)
    assert keys(runs, "supervised", params__teacher_model={"model": "mlp", "hidden": 9}) == keys(runs, "supervised")


def test_a_student_of_other_weights_of_its_teacher_is_trained_again(runs):
    """The teacher's own key is as it was: another machine's last bits, or a seed that was trained anew."""
    before = {method: runs.file("one_graph", method, 0, "json").stat().st_mtime_ns for method in ("supervised", "kd")}
    (record,) = runs.records("one_graph", "teacher")
    outputs = runs.file("one_graph", "teacher", 0, "outputs.pt")
    content = torch.load(outputs, weights_only=True)
    torch.save({**content, "logits": content["logits"] + 1}, outputs)
    record = record.model_copy(update={"digests": {**record.digests, "outputs": file_digest(outputs)}})
    write_record(runs.file("one_graph", "teacher", 0, "json"), record)
    write_shard(runs.plan.paths.shard(runs.cell("one_graph"), "teacher", 0), [record])
    for method in before:
        runs.job("one_graph", method).run()
    after = {method: runs.file("one_graph", method, 0, "json").stat().st_mtime_ns for method in before}
    assert after["supervised"] == before["supervised"]
    assert after["kd"] != before["kd"]
