"""Imports go down, and none goes round; the drawing of the house is of these imports."""

import shutil
from pathlib import Path

from distillbench.contract.architecture import LAYERS, cycles, imports, upward, write_drawing

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "workflow/distillbench"


def test_no_module_imports_upwards_and_none_around_others():
    graph = imports(PACKAGE)
    assert len(graph) > 100 and "training.fit" in graph["training.experiment"]
    assert upward(graph) == []
    assert cycles(graph) == []
    assert {folder.parent.name for folder in PACKAGE.glob("*/__init__.py")} == {*LAYERS} - {"ground"}


def test_an_import_upwards_or_around_is_named(tmp_path):
    copy = shutil.copytree(PACKAGE, tmp_path / "distillbench")
    with (copy / "data/tasks.py").open("a") as file:
        file.write("\n\ndef late():\n    from distillbench.training.fit import fit\n")
    with (copy / "statistics/power.py").open("a") as file:
        file.write("\nfrom distillbench.statistics import compare\n")
    with (copy / "data/cards.py").open("a") as file:
        file.write("\nfrom ..models.gnn import Output\nfrom .tasks import Task\n")
    with (copy / "record.py").open("a") as file:
        file.write("\nimport distillbench.paths\nimport distillbench.plugin\n")
    graph = imports(copy)
    assert upward(graph) == [
        ("data.cards", "models.gnn"), ("data.tasks", "training.fit"), ("record", "plugin"),
    ]  # fmt: skip
    assert "data.tasks" in graph["data.cards"]
    assert {"statistics.compare", "statistics.power", "data.tasks", "training.fit"} <= set(cycles(graph))


def test_rules_and_scripts_ask_jobs_and_what_is_above_them():
    called = {
        line.split("distillbench.")[1].split(".")[0]
        for file in (ROOT / "workflow/scripts").glob("*.py")
        for line in file.read_text().splitlines()
        if '"distillbench.' in line
    }
    assert called <= {"jobs", "tracking", "report", "tables", "figures", "profiling"} and "jobs" in called


def test_plug_ins_import_one_module():
    files = [*(ROOT / "methods").glob("*.py"), *(ROOT / "datasets").glob("*.py"), *(ROOT / "models").glob("*.py")]
    assert len(files) > 45
    for file in files:
        lines = [
            line for line in file.read_text().splitlines() if line.startswith(("from distillbench", "import disti"))
        ]
        assert lines and all(line.startswith("from distillbench.plugin import") for line in lines), file


def test_the_drawing_is_in_step_with_the_imports():
    assert write_drawing(ROOT, PACKAGE, checking=True) == 0, "run distillbench docs"


def test_every_package_has_its_folder_of_tests():
    assert set(LAYERS) - {"ground"} <= {folder.name for folder in (ROOT / "tests").iterdir() if folder.is_dir()}
