"""The list of figures: what each is drawn from is what its ``draw`` takes, and which a run has."""

import importlib
import inspect
import subprocess
import sys

import pytest

from distillbench.figures.registry import FIGURES, STRUCTURE, figure_files, pictures_of
from distillbench.params import MIN_CELLS
from distillbench.paths import PACKAGE, Cell
from distillbench.plan.plan import make_plan

ROOT = PACKAGE.parents[1]
CELL = Cell("digits", "pyg", "gat")


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.module)
def test_a_figure_is_drawn_from_what_it_names(figure):
    (place,) = figure.places([CELL])
    draw = importlib.import_module(f"distillbench.figures.{figure.module}").draw
    assert {*inspect.signature(draw).parameters} == {*figure.inputs, *place, *figure.options, "png", "svg"}
    assert all((PACKAGE / source).is_file() for source in figure.sources)


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
    counts = {figure.module: len(figure.places(cells)) for figure in FIGURES}
    assert counts == {"scores": 2, "pareto": 2, "libraries": 1, "across": 1, "curves": 8}
    assert FIGURES[0].places(cells) == [{"dataset": "digits"}, {"dataset": "cora"}]


@pytest.mark.parametrize("backends, drawn", [(["pyg", "dgl", "csr"], True), (["pyg", "csr"], False), (["dgl"], False)])
def test_pyg_is_drawn_against_dgl_only_where_both_are_asked_for(backends, drawn):
    modules = {figure.module for figure, _ in pictures_of([CELL._replace(backend=name) for name in backends])}
    assert modules == {"scores", "pareto", "curves"} | ({"libraries"} if drawn else set())


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
    files = [f"mine/figures/{name}.{ending}" for name in expected for ending in ("png", "svg")]
    assert figure_files(make_plan(values, [], ROOT)) == files


def test_the_list_is_read_without_matplotlib_or_torch():
    code = "import sys, distillbench.figures.registry; print({'torch', 'matplotlib', 'pandas'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
