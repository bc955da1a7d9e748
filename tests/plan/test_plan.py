"""What the plan promises the DAG."""

import copy
import subprocess
import sys
from pathlib import Path

import yaml

from distillbench import plan as plan_module
from distillbench.plan import Cell, make_plan

ROOT = Path(__file__).parents[2]
VALUES = yaml.safe_load((ROOT / "config/config.yaml").read_text())


def planned(**changes):
    return make_plan({**copy.deepcopy(VALUES), **changes}, ["config.yaml"], ROOT)


def test_planning_imports_no_torch():
    code = (
        "import sys, yaml; from pathlib import Path; from distillbench.plan import make_plan;"
        f"root = Path({str(ROOT)!r}); values = yaml.safe_load((root / 'config/config.yaml').read_text());"
        "make_plan(values, [], root).shard_files(); print('torch' in sys.modules, 'mlflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_shards_cover_the_seeds_and_keep_theirs_when_more_are_asked_for():
    few, more = planned(seeds=7), planned(seeds=12)
    for plan in (few, more):
        assert [s for shard in plan.shards for s in plan.seeds(shard)] == list(range(plan.config.seeds))
    assert few.seeds(0) == more.seeds(0)
    assert set(few.seeds(1)) < set(more.seeds(1))


def test_a_changed_hyperparameter_changes_the_params_of_that_variant_only():
    cell = Cell("digits", "pyg", "gat")
    before = planned()
    after = planned(methods={**VALUES["methods"], "kd": {"temperature": 7}})
    for method in before.methods:
        same = before.student_params(cell, method, 0) == after.student_params(cell, method, 0)
        assert same == (method != "kd")
    assert before.teacher_params(cell, 0) == after.teacher_params(cell, 0)


def test_a_methods_own_file_is_an_input_of_its_runs_only():
    plan = planned()
    sources = {method: set(plan.student_sources("digits", "pyg", method)) for method in plan.methods}
    for method, files in sources.items():
        assert {Path(file).stem for file in files if Path(file).parent.name == "methods"} == {method}
    assert any(file.endswith("backends/pyg.py") for file in sources["at"])
    assert not any(file.endswith("backends/dgl.py") for file in sources["at"])
    assert all(Path(file).is_file() for files in sources.values() for file in files)


def test_two_variants_of_one_method_have_their_own_folders_and_params():
    plan = planned(methods={"supervised": None, "lsp": None, "lsp-cosine": {"method": "lsp", "kernel": "cosine"}})
    cell = Cell("digits", "pyg", "gat")
    assert plan.method_file("lsp-cosine") == plan.method_file("lsp")
    assert plan.student_params(cell, "lsp-cosine", 0)["method"]["params"]["kernel"] == "cosine"
    assert plan.paths.shard(cell, "lsp-cosine", 0) != plan.paths.shard(cell, "lsp", 0)


def test_a_missing_library_leaves_its_cells_out_and_says_why(monkeypatch):
    monkeypatch.setattr(plan_module, "missing_reason", lambda name: "dgl is not installed" if name == "dgl" else None)
    plan = planned()
    assert {cell.backend for cell in plan.cells} == {"pyg"}
    skipped = plan.skipped()
    assert len(skipped) == 2 * (1 + len(plan.methods)) * plan.config.seeds
    assert {row["reason"] for row in skipped} == {"dgl is not installed"}
    assert {(row["dataset"], row["metric"]) for row in skipped} == {("digits", "accuracy"), ("mnist5k", "accuracy")}


def test_the_control_does_not_wait_for_a_teacher():
    plan = planned()
    assert not plan.needs_teacher("supervised")
    assert all(plan.needs_teacher(method) for method in ("kd", "fitnet", "at", "lsp"))
