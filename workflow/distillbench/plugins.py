"""Methods, data sets and models as plug-ins: one file each, found by folder and loaded by path.

By path, because a root package called ``datasets`` would shadow Hugging Face's, which mlflow imports lazily.

A plug-in is read in two ways. ``load`` imports the file (and torch) and is what a training process does.
``declaration`` reads what the file declares (tasks, needs, parameters, source) without importing torch, and is what
the DAG is built from: of the file's one plug-in class it runs the class-level assignments and the nested ``Params``,
nothing else.
"""

import ast
import hashlib
import importlib.util
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from distillbench import params as vocabulary
from distillbench.params import ALL_TASKS, Parameters, suggestion

Kind = Literal["method", "dataset", "model"]

_BASES: dict[Kind, tuple[str, str]] = {
    "method": ("distillbench.distillation.method", "Method"),
    "dataset": ("distillbench.data.graph_data", "Dataset"),
    "model": ("distillbench.models.gnn", "Model"),
}
STATED: dict[Kind, tuple[str, ...]] = {
    "method": ("paper", "tasks", "requires"),
    "dataset": ("task", "setting", "source", "licence"),
    "model": ("paper", "tasks"),
}
LIBRARIES = frozenset({"pyg", "dgl", "csr"})
EDGES = ("graph", "none", "drawn")
_NAME = r"[A-Za-z0-9][A-Za-z0-9._+-]{0,59}"
_TORCH_FREE = {"distillbench.plugin", "pydantic", "typing", "enum", "annotated_types", "collections.abc"}


class PluginError(ValueError):
    """A plug-in that does not exist or breaks the contract; the message names the file."""


@dataclass(frozen=True)
class Declaration:
    """What a plug-in says of itself: its file, class-level attributes and parameter model."""

    path: Path
    name: str
    attributes: dict[str, Any]
    params: type[Parameters]
    defines: frozenset[str]  # methods the class defines itself

    def __getattr__(self, name: str) -> Any:
        try:
            return self.attributes[name]
        except KeyError:
            raise AttributeError(f"{self.path}: declares no {name!r}") from None


def find(kind: Kind, name: str, folders: Sequence[Path]) -> Path:
    """The file of a plug-in, ``name.py`` in one of the folders; a hyphen may be an underscore there.

    A name is of one file in these folders, so that no config leads to code elsewhere; a file there may be a link, which
    is the choice of whoever owns the folder.

    Raises PluginError where there is none, naming the nearest that exists, or more than one, naming them.
    """
    if not re.fullmatch(_NAME, name):
        raise PluginError(f"{kind} {name!r}: not a plug-in's name, which is that of a file in a plug-in folder")
    stems = dict.fromkeys((name, name.replace("-", "_")))
    found = [path for folder in folders for stem in stems if (path := folder / f"{stem}.py").is_file()]
    if len(found) > 1:
        raise PluginError(f"{kind} {name!r} is ambiguous: {', '.join(map(str, found))}; rename one")
    if found:
        return found[0]
    known = available(folders)
    searched = ", ".join(str(folder) for folder in folders)
    raise PluginError(f"unknown {kind} {name!r}{suggestion(name, known)} (searched: {searched})")


def available(folders: Sequence[Path]) -> list[str]:
    """Names of all plug-ins in some folders; files starting with ``_`` are not plug-ins."""
    return sorted({path.stem for folder in folders for path in folder.glob("*.py") if path.stem[0] not in "_."})


def load(kind: Kind, path: Path) -> type[Any]:
    """Import a plug-in's file and return its class. Raises PluginError where it has not exactly one.

    It may import its neighbours, files of the same folder: ``from ._shared import project``, or without the dot.
    """
    module_name, base_name = _BASES[kind]
    base = getattr(importlib.import_module(module_name), base_name)
    folder = path.absolute().parent
    package = _package_of(folder)
    name = f"{package}.{kind}_{re.sub(r'[^A-Za-z0-9_]', '_', path.stem)}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PluginError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    before = set(sys.modules)
    sys.path.append(str(folder))  # last: a plug-in called as a library hides nothing
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(folder))
        for new in set(sys.modules) - before:  # neighbours without a dot: another folder may have one of that name
            if Path(getattr(sys.modules[new], "__file__", None) or "").parent == folder and "." not in new:
                del sys.modules[new]
    found = [v for v in vars(module).values() if isinstance(v, type) and issubclass(v, base) and v.__module__ == name]
    if len(found) != 1:
        raise PluginError(f"{path}: defines {len(found)} subclasses of {base_name}, must be one")
    plugin: type[Any] = found[0]
    plugin.name = path.stem
    return plugin


def _package_of(folder: Path) -> str:
    """The name of a new package that stands for a folder of plug-ins: its neighbours are read again, edited or not."""
    name = f"distillbench_plugins_{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"
    for old in [each for each in sys.modules if each.startswith(f"{name}.")]:
        # what pydantic looks up by a class's module stays
        if not old.removeprefix(f"{name}.").startswith(tuple(f"{kind}_" for kind in _BASES)):
            del sys.modules[old]
    package = ModuleType(name)
    package.__path__ = [str(folder)]
    sys.modules[name] = package
    return name


def neighbours(path: Path) -> list[Path]:
    """The files of its own folder that a plug-in imports, and those that they import. Imports nothing."""
    found: list[Path] = []
    todo = [path]
    while todo:
        try:
            tree = ast.parse(todo.pop().read_text(encoding="utf-8"))
        except SyntaxError:
            continue  # named where the file is loaded
        for name in _imported(tree):
            for file in (path.parent / f"{name}.py", *(path.parent / name).rglob("*.py")):
                if file.is_file() and file not in (path, *found):
                    found.append(file)
                    todo.append(file)
    return sorted(found)


def _imported(tree: ast.Module) -> set[str]:
    """First names of all modules that are imported."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
    return names


def kind_of(path: Path) -> Kind | None:
    """What a file is a plug-in of, by the base of its class; None where that cannot be told."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    except (SyntaxError, UnicodeDecodeError):
        return None
    bases = {base for node in tree.body if isinstance(node, ast.ClassDef) for base in _bases(node)}
    return next((kind for kind, (_, name) in _BASES.items() if name in bases), None)


def _bases(node: ast.ClassDef) -> set[str]:
    """Names of its bases: ``Model`` of ``plugin.Model``, too."""
    return {ast.unparse(base).rpartition(".")[2] for base in node.bases}


def declaration(kind: Kind, path: Path) -> Declaration:
    """Read what a plug-in declares, without importing torch.

    Raises:
        PluginError: not exactly one plug-in class, a syntax error, a declaration that uses more than pydantic, typing
            and the words of distillbench.params, or one that lacks what every plug-in of its kind states.
    """
    base_name = _BASES[kind][1]
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    except (SyntaxError, UnicodeDecodeError) as error:
        raise PluginError(f"{path}: {error}") from error
    found = [node for node in tree.body if isinstance(node, ast.ClassDef) and base_name in _bases(node)]
    if len(found) != 1:
        raise PluginError(f"{path}: defines {len(found)} subclasses of {base_name}, must be one")
    plugin = found[0]
    declared = [node for node in plugin.body if _declares(node)]
    reduced = ast.ClassDef(plugin.name, bases=[], keywords=[], body=declared or [ast.Pass()], decorator_list=[])
    if sys.version_info >= (3, 12):
        reduced.type_params = []
    kept = [_declaring(node) for node in tree.body if _torch_free(node)]
    module = ast.Module([*kept, reduced], type_ignores=[])
    namespace: dict[str, Any] = {"__name__": f"distillbench_declaration_{path.stem}"}
    try:
        # a plug-in is code, of a folder that the config names
        exec(compile(ast.fix_missing_locations(module), str(path), "exec"), namespace)  # nosec B102
    except Exception as error:
        raise PluginError(
            f"{path}: its declaration cannot be read ({type(error).__name__}: {error}); class attributes and Params "
            f"may use only literals, {', '.join(sorted(_TORCH_FREE))}"
        ) from error
    attributes = {k: v for k, v in vars(namespace[plugin.name]).items() if not k.startswith("__")}
    if missing := [name for name in STATED[kind] if name not in attributes]:
        raise PluginError(f"{path}: class {plugin.name} does not state {', '.join(missing)}")
    params = attributes.pop("Params", Parameters)
    if kind == "model" and (problem := _wrong_in_model(attributes, params)):
        raise PluginError(f"{path}: class {plugin.name}: {problem}")
    defines = frozenset(node.name for node in plugin.body if isinstance(node, ast.FunctionDef))
    return Declaration(path, plugin.name, attributes, params, defines)


def _wrong_in_model(attributes: dict[str, Any], params: type[Parameters]) -> str | None:
    """What a model's class states and may not."""
    tasks, libraries = attributes["tasks"], attributes.get("libraries", LIBRARIES)
    for key, value, known in (("tasks", tasks, ALL_TASKS), ("libraries", libraries, LIBRARIES)):
        if not isinstance(value, frozenset | set) or not value:
            return f"{key} = {value!r}: must be a set, such as {key} = frozenset({set(sorted(known)[:1])!r})"
        if unknown := sorted(each for each in map(str, value) if each not in known):
            return f"{key}: there is no {unknown[0]!r}{suggestion(unknown[0], sorted(known))}"
    if (edges := attributes.get("edges", "graph")) not in EDGES:
        return f"edges = {edges!r}{suggestion(edges, EDGES)}"
    if not isinstance(attributes.get("tried_with", {}), dict):
        return f"tried_with = {attributes['tried_with']!r}: must be a dict of options, such as {{'hidden': 4}}"
    if "model" in params.model_fields:
        return "Params has an option called model, which is the model's name in a config"
    if not (hasattr(params, "hidden_dims") or "hidden_dims" in params.model_fields):
        return "Params has no property hidden_dims, the widths of the hidden layers"
    return None


def _declares(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign | ast.AnnAssign) or (isinstance(node, ast.ClassDef) and node.name == "Params")


def _declaring(node: ast.stmt) -> ast.stmt:
    """Of what is imported from distillbench.plugin the names that a declaration may use: the others import torch."""
    if isinstance(node, ast.ImportFrom) and node.module == "distillbench.plugin":
        names = [alias for alias in node.names if hasattr(vocabulary, alias.name)]
        return ast.ImportFrom(vocabulary.__name__, names, 0) if names else ast.Pass()
    return node


def _torch_free(node: ast.stmt) -> bool:
    """Whether a top-level statement may be run: an import of the short list, or the assignment of a literal."""
    if isinstance(node, ast.ImportFrom):
        return node.module in _TORCH_FREE
    if isinstance(node, ast.Import):
        return all(alias.name in _TORCH_FREE for alias in node.names)
    if isinstance(node, ast.Assign):
        try:
            ast.literal_eval(node.value)
        except ValueError:
            return False
        return True
    return False
