"""The list of figures: what each is drawn from is what its ``draw`` takes, and which a run has."""

import importlib
import inspect
import subprocess
import sys
from dataclasses import replace

import pytest

from distillbench.config.config import Compare
from distillbench.params import MIN_CELLS
from distillbench.paths import PACKAGE, Cell
from distillbench.plan.figures import FIGURES, STRUCTURE, figure_files, pictures_of, taken_twice
from distillbench.plan.plan import make_plan

ROOT = PACKAGE.parents[1]
CELL = Cell("digits", "pyg", "gat")


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.module)
def test_a_figure_is_drawn_from_what_it_names(figure):
    (place,) = figure.places([CELL])
    draw = importlib.import_module(f"distillbench.figures.{figure.module}").draw
    assert {*inspect.signature(draw).parameters} == {*figure.inputs, *place, *figure.options, "png", "svg"}
    assert all((PACKAGE / source).is_file() for source in figure.sources)
    assert set(figure.options) <= set(Compare.model_fields)


def test_every_module_that_draws_is_in_the_list():
    drawing = {
        file.stem for file in (PACKAGE / "figures").glob("*.py") if "\ndef draw(" in file.read_text(encoding="utf-8")
    }
    assert drawing == {figure.module for figure in FIGURES} and STRUCTURE.module not in drawing


def test_two_figures_of_a_cell_are_two_files_and_say_what_of():
    names = [figure.name(CELL._asdict()) for figure in (*FIGURES, STRUCTURE)]
    assert len(set(names)) == len(names)
    for figure in (*FIGURES, STRUCTURE):
        (place,) = figure.places([CELL])
        assert all(value in figure.about.format(**place) for key, value in place.items() if key != "backend")


def test_a_picture_for_each_data_set_for_each_cell_or_for_the_run():
    cells = [Cell(d, b, p) for d in ("digits", "cora") for b in ("pyg", "csr") for p in ("gat", "gcn")]
    of = {"": 1, "{dataset}": 2, "{dataset}-{backend}": 4, "{dataset}-{backend}-{pair}": 8}
    for file, number in of.items():
        assert len(replace(FIGURES[0], file=f"a-{file}").places(cells)) == number
    assert FIGURES[0].places(cells) == [{"dataset": "digits"}, {"dataset": "cora"}]


@pytest.mark.parametrize("backends, drawn", [(["pyg", "dgl", "csr"], True), (["pyg", "csr"], False), (["dgl"], False)])
def test_pyg_is_drawn_against_dgl_only_where_both_are_asked_for(backends, drawn):
    modules = {figure.module for figure, _ in pictures_of([CELL._replace(backend=name) for name in backends])}
    assert ("libraries" in modules) == drawn and {"scores", "pareto", "curves"} <= modules


def test_ranks_are_drawn_where_there_are_data_sets_enough():
    cells = [
        CELL._replace(dataset=f"d{number}", backend=name) for number in range(MIN_CELLS) for name in ("pyg", "csr")
    ]
    assert "across" in {figure.module for figure, _ in pictures_of(cells)}
    assert "across" not in {figure.module for figure, _ in pictures_of(cells[:-2])}


def test_the_files_of_a_plan_are_below_its_results():
    pair = {"teacher": {"model": "gat", "hidden": 4}, "student": {"model": "gat", "hidden": 2}}
    values = {"results": "mine", "seeds": 2, "methods": {"supervised": {}}, "backends": ["csr"]}
    values |= {"datasets": {"digits": {"pairs": {"gat": pair}}}}
    expected = ["digits", "pareto-digits", "curves/digits-csr-gat"]
    files = {f"mine/figures/{name}.{ending}" for name in expected for ending in ("png", "svg")}
    found = figure_files(make_plan(values, [], ROOT))
    assert files <= set(found) and len(found) == len(set(found))
    assert all(file.startswith("mine/figures/") for file in found)


def test_a_data_set_is_not_called_as_a_figure_of_another():
    cells = [CELL._replace(dataset=name) for name in ("cora", "pareto-cora", "libraries", "digits")]
    assert set(taken_twice(cells)) == {"pareto-cora", "libraries"}


def test_the_list_is_read_without_matplotlib_or_torch():
    code = "import sys, distillbench.plan.figures; print({'torch', 'matplotlib', 'pandas'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
