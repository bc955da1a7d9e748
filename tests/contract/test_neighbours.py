"""A plug-in may import files of its own folder, and they decide what is run again."""

import importlib
import sys
from pathlib import Path

import pytest
import yaml

from distillbench.paths import Cell
from distillbench.plan.plan import make_plan
from distillbench.plugins import load, neighbours

ROOT = Path(__file__).parents[2]
METHOD = """
from distillbench.plugin import ALL_TASKS, Method
{imported}

class Mine(Method):
    paper, tasks, requires = "mine2026", ALL_TASKS, frozenset()

    @staticmethod
    def factor():
        return FACTOR

    def terms(self, student, teacher, ctx):
        return {{"task": ctx.task_loss(student.logits)}}
"""
DATASET = (
    (ROOT / "datasets/digits.py").read_text().replace("class Digits", "from ._shared import FACTOR\n\nclass Digits")
)


def written(folder, imported, factor=2):
    folder.mkdir(exist_ok=True)
    (folder / "mine.py").write_text(METHOD.format(imported=imported))
    (folder / "mydigits.py").write_text(DATASET)
    (folder / "_shared.py").write_text("from ._deeper import DEEPER\n\nFACTOR = DEEPER\n")
    (folder / "_deeper.py").write_text(f"import math\n\nDEEPER = {factor}\n")
    return folder / "mine.py"


BY_A_DOT = pytest.mark.parametrize(
    "imported", ["from ._shared import FACTOR", "from . import _shared\nFACTOR = _shared.FACTOR"]
)


@BY_A_DOT
def test_a_neighbour_is_imported_by_a_dot(tmp_path, imported):
    path = written(tmp_path / "mine", imported)
    assert load("method", path).factor() == 2
    assert neighbours(path) == [tmp_path / "mine/_deeper.py", tmp_path / "mine/_shared.py"]


def test_or_without_one(tmp_path):
    path = written(tmp_path / "mine", "from _plain import FACTOR")
    (tmp_path / "mine/_plain.py").write_text("FACTOR = 3\n")
    assert load("method", path).factor() == 3
    assert neighbours(path) == [tmp_path / "mine/_plain.py"]


@BY_A_DOT
def test_an_edited_neighbour_is_read_again_and_two_folders_have_their_own(tmp_path, imported):
    first, second = (written(tmp_path / name, imported, n) for name, n in (("a", 2), ("b", 5)))
    assert (load("method", first).factor(), load("method", second).factor()) == (2, 5)
    (tmp_path / "a/_deeper.py").write_text("DEEPER = 70\n")
    assert (load("method", first).factor(), load("method", second).factor()) == (70, 5)


def test_a_plug_in_of_one_folder_finds_its_own_neighbours_later(tmp_path):
    """An import inside a function is made when the method runs, after others were loaded."""
    late = "def late():\n    from ._shared import FACTOR\n    return FACTOR\n\nFACTOR = None"
    first, second = (load("method", written(tmp_path / name, late, n)) for name, n in (("a", 2), ("b", 5)))
    assert [sys.modules[each.__module__].late() for each in (first, second)] == [2, 5]


def test_without_a_dot_too_and_what_the_process_has_imported_before_stays_its_own(tmp_path, monkeypatch):
    for folder, factor in (("a", 2), ("b", 5)):
        written(tmp_path / folder, "from _plain import FACTOR")
        (tmp_path / folder / "_plain.py").write_text(f"FACTOR = {factor}\n")
        (tmp_path / folder / "_of_the_process.py").write_text("")
    with monkeypatch.context() as started_there:
        started_there.syspath_prepend(tmp_path / "a")
        own = importlib.import_module("_of_the_process")
    assert [load("method", tmp_path / folder / "mine.py").factor() for folder in ("a", "b", "a")] == [2, 5, 2]
    assert sys.modules["_of_the_process"] is own and "_plain" not in sys.modules


def test_a_plug_ins_neighbours_are_sources_of_its_runs(tmp_path):
    written(tmp_path / "mine", "from ._shared import FACTOR")  # the data set, too
    (tmp_path / "mine/mine.py").write_text(METHOD.format(imported="from ._of_method import FACTOR"))
    (tmp_path / "mine/_of_method.py").write_text("FACTOR = 3\n")
    values = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    digits = {"dataset": "mydigits", **values["datasets"]["digits"]}
    config = {**values, "plugins": [str(tmp_path / "mine")], "datasets": {"mydigits": digits},
              "methods": {"supervised": None, "mine": None, "kd": None}}  # fmt: skip

    def sources(method):
        plan = make_plan(config, [], ROOT)
        cell = Cell("mydigits", "csr", next(iter(digits["pairs"])))
        named = {Path(file).name for file in plan.run_sources(cell, method)}
        own = {"mine.py", "_of_method.py", "mydigits.py", "_shared.py", "_deeper.py"}
        return named & own, plan.code_digest(cell, method)

    of_data = {"mydigits.py", "_shared.py", "_deeper.py"}
    assert sources("mine")[0] == of_data | {"mine.py", "_of_method.py"}
    assert sources("kd")[0] == sources("teacher")[0] == of_data
    before = {method: sources(method)[1] for method in ("mine", "kd", "teacher")}
    (tmp_path / "mine/_of_method.py").write_text("FACTOR = 4\n")
    assert {method for method in before if sources(method)[1] != before[method]} == {"mine"}
    (tmp_path / "mine/_deeper.py").write_text("DEEPER = 3\n")
    assert all(sources(method)[1] != before[method] for method in before)
    assert "_shared.py" in {Path(file).name for file in make_plan(config, [], ROOT).data_sources("mydigits")}
