"""What every plug-in file must be, and what is said of one that is not."""

import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError

from distillbench.params import ALL_TASKS, Requirement
from distillbench.plugins import PluginError, available, declaration, find, load

ROOT = Path(__file__).parents[2]
FOLDERS = {"method": ROOT / "methods", "dataset": ROOT / "datasets"}
PLUGINS = [(kind, name) for kind, folder in FOLDERS.items() for name in available([folder])]

METHOD = """
import torch
from distillbench.plugin import ALL_TASKS, Method, Parameters, Requirement

LIMIT = 3
NOISE = torch.zeros(1)

class Mine(Method):
    paper, tasks, requires = "me2026", ALL_TASKS, frozenset({"logits"})

    class Params(Parameters):
        weight: float = 1.0
        layers: int = LIMIT

    def terms(self, student, teacher, ctx):
        return {"task": ctx.task_loss(student.logits)}
"""


def path_of(kind, name):
    return find(kind, name, [FOLDERS[kind]])


@pytest.fixture
def written(tmp_path):
    """A plug-in file with this text."""

    def write(text, name="mine"):
        path = tmp_path / f"{name}.py"
        path.write_text(text)
        return path

    return write


# Every plug-in there is


@pytest.mark.parametrize("kind, name", PLUGINS)
def test_what_is_read_without_torch_is_what_the_class_says(kind, name):
    declared, loaded = declaration(kind, path_of(kind, name)), load(kind, path_of(kind, name))
    stated = {"method": ("paper", "tasks", "requires"), "dataset": ("task", "setting", "source", "licence")}[kind]
    for attribute in stated:
        assert getattr(declared, attribute) == getattr(loaded, attribute), attribute
    assert declared.name == loaded.__name__
    read, actual = declared.params.model_json_schema(), loaded.Params.model_json_schema()
    assert read.get("properties") == actual.get("properties")
    assert read.get("$defs") == actual.get("$defs")
    assert declared.params().model_dump() == loaded.Params().model_dump()
    assert declared.defines == {k for k, v in vars(loaded).items() if callable(v) and k != "Params"} | {
        k for k, v in vars(loaded).items() if isinstance(v, staticmethod)
    }


@pytest.mark.parametrize("kind, name", PLUGINS)
def test_a_misspelt_parameter_is_refused_with_the_nearest_one(kind, name):
    params = load(kind, path_of(kind, name)).Params
    for known in params.model_fields:
        with pytest.raises(ValidationError, match=rf"unknown key '{known}x': did you mean '{known}'\?"):
            params(**{f"{known}x": 1})
    with pytest.raises(ValidationError, match=r"unknown key 'qqqqqq': choose from"):
        params(qqqqqq=1)


@pytest.mark.parametrize("kind, name", PLUGINS)
def test_parameters_cannot_be_changed_afterwards(kind, name):
    params = load(kind, path_of(kind, name)).Params()
    for known in type(params).model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(params, known, 1)


@pytest.mark.parametrize("name", available([FOLDERS["method"]]))
def test_a_method_states_its_paper_and_names_it_in_its_docstring(name):
    method = load("method", path_of("method", name))
    text = path_of("method", name).read_text().split('"""')[1]
    year = method.paper[-4:]
    assert (method.paper == "control") or (year.isdigit() and method.paper[: -len(year)] in text.lower())
    assert method.tasks
    assert method.tasks <= ALL_TASKS
    assert method.requires <= set(get_args(Requirement))


def test_reading_all_declarations_imports_neither_torch_nor_a_graph_library():
    code = f"""
import sys
from pathlib import Path
from distillbench.plugins import declaration
for kind, name in {PLUGINS!r}:
    read = declaration(kind, Path({str(ROOT)!r}) / f"{{kind}}s" / f"{{name}}.py")
    read.params()
print(sorted({{"torch", "torch_geometric", "dgl", "numpy", "sklearn", "mlxtend", "h5py"}} & set(sys.modules)))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT / "workflow")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "[]"


# Files that are not as they should be


def test_an_unknown_plugin_is_refused_with_the_nearest_name_and_the_folders():
    with pytest.raises(PluginError, match=r"unknown method 'fitnett': did you mean 'fitnet'\? \(searched: .*methods\)"):
        find("method", "fitnett", [FOLDERS["method"]])
    known = ", ".join(available([FOLDERS["dataset"]]))
    with pytest.raises(PluginError, match=f"unknown dataset 'xyz': choose from {known} "):
        find("dataset", "xyz", [FOLDERS["dataset"]])


def test_a_name_in_two_folders_is_refused_and_hidden_files_are_no_plugins(written, tmp_path):
    mine = written(METHOD, "kd")
    written("", "_private")
    assert find("method", "kd", [tmp_path]) == mine
    with pytest.raises(PluginError, match=r"method 'kd' is ambiguous: .*kd\.py, .*kd\.py"):
        find("method", "kd", [tmp_path, FOLDERS["method"]])
    assert available([tmp_path]) == ["kd"]
    assert available([tmp_path / "missing"]) == []


def test_a_plugin_from_anywhere_is_read_though_its_module_uses_torch(written):
    declared, loaded = declaration("method", written(METHOD)), load("method", written(METHOD))
    assert declared.paper == loaded.paper == "me2026"
    assert declared.params().layers == loaded.Params().layers == 3


def test_a_declaration_does_not_have_what_is_not_declared(written):
    with pytest.raises(AttributeError, match=r"mine\.py: declares no 'licence'"):
        _ = declaration("method", written(METHOD)).licence


def test_no_class_or_two_are_refused(written):
    for text, count in (("", 0), (METHOD + METHOD.split("\n\n", 1)[1].replace("Mine", "Other"), 2)):
        path = written(text, f"has{count}")
        for read in (declaration, load):
            with pytest.raises(
                PluginError, match=rf"has{count}\.py: defines {count} subclasses of Method, must be one"
            ):
                read("method", path)


def test_a_syntax_error_names_the_file_and_line(written):
    with pytest.raises(PluginError, match=r"mine\.py.*line 2"):
        declaration("method", written("import torch\nclass Mine(Method"))


def test_a_declaration_that_needs_torch_is_refused_and_says_what_may_be_used(written):
    path = written(METHOD.replace("layers: int = LIMIT", "layers: int = int(NOISE)"))
    with pytest.raises(PluginError, match=r"mine\.py: its declaration cannot be read .*NOISE.*distillbench\.plugin"):
        declaration("method", path)


@pytest.mark.parametrize("missing", ["paper", "tasks", "requires"])
def test_a_method_that_does_not_state_something_is_refused(written, missing):
    names = [name for name in ("paper", "tasks", "requires") if name != missing]
    values = {"paper": '"p"', "tasks": "ALL_TASKS", "requires": "frozenset()"}
    line = f"{', '.join(names)} = {', '.join(values[name] for name in names)}"
    path = written(METHOD.replace('paper, tasks, requires = "me2026", ALL_TASKS, frozenset({"logits"})', line))
    with pytest.raises(TypeError, match=f"method Mine states no {missing}"):
        load("method", path)
    with pytest.raises(PluginError, match=rf"mine\.py: class Mine does not state {missing}"):
        declaration("method", path)
