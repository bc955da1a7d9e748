"""What must hold of what a method's file says: the checks of the contract that run nothing of it but its declaration.

See contract.py for those of what a method does. A check takes the file's path, and raises AssertionError with a
sentence that names the attribute or hyper-parameter and its value.
"""

import ast
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from distillbench.params import ALL_TASKS, Parameters, Range, Requirement, Search, search_space
from distillbench.plugins import declaration, load

REQUIREMENTS: frozenset[Requirement] = frozenset(get_args(Requirement))
EXCUSABLE = frozenset({"equal", "numbering", "derivative"})  # checks


def listed(names: Iterable[object]) -> str:
    """Names in a sentence."""
    return ", ".join(sorted(map(str, names))) or "none"


def is_declared(path: Path) -> None:
    """What is read of it without torch is what the class says."""
    declared, loaded = declaration("method", path), load("method", path)
    for name in ("paper", "tasks", "requires"):
        assert name in declared.attributes, f"{name} is not stated in the class"
    for name, read in declared.attributes.items():
        assert read == getattr(loaded, name), f"{name} is {read!r} without torch and {getattr(loaded, name)!r} with it"
    without, with_torch = _accepted(declared.params), _accepted(loaded.Params)
    assert without == with_torch, f"Params without torch: {without}; with it: {with_torch}"
    declared.params(**declared.attributes.get("tried_with", {}))
    assert isinstance(declared.paper, str) and declared.paper, f"paper is {declared.paper!r}, not a key like hinton2015"
    assert declared.tasks, "tasks is empty"
    for name, allowed in (("tasks", ALL_TASKS), ("requires", REQUIREMENTS), ("excused", EXCUSABLE)):
        unknown = set(declared.attributes.get(name, ())) - allowed
        assert not unknown, f"{name}: {listed(unknown)}: choose from {listed(allowed)}"
    for name, reason in declared.attributes.get("excused", {}).items():
        assert isinstance(reason, str) and reason.strip(), f"excused from {name} without a reason"


def _accepted(params: type[Parameters]) -> dict[str, Any]:
    schema = params.model_json_schema()
    shapes = {"fields": schema.get("properties"), "types": schema.get("$defs")}
    return {**shapes, "defaults": params().model_dump(), "searched": search_space(params)}


def is_documented(path: Path) -> None:
    """The docstring has a title, a citation with its year, and a line on cost."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert text, "there is no docstring at the top of the file"
    if declaration("method", path).paper == "control":
        return
    title, _, rest = text.partition("\n")
    assert re.search(r"\S \([^()]+\)[.:]", title), f"its first line is {title!r}, not a title: Name (ABBR)."
    assert re.search(r"\b(19|20)\d\d\b", rest), "no line has a year: give the citation"
    assert re.search(r"^Cost: \S", rest, re.MULTILINE), "no line begins with 'Cost: ': say how a step grows"


def search_space_is_valid(path: Path) -> None:
    """What tuning searches is declared, valid at its ends and values, and has the defaults in it."""
    declared = declaration("method", path)
    space = search_space(declared.params)
    if declared.paper != "control":
        of_one = "weight: Annotated[PositiveFloat, Range(0.1, 10)] = 1.0"
        assert space, f"no hyper-parameter says where it is searched for, such as {of_one}"
    for name, search in space.items():
        _assert_valid(name, search, declared.params)


def _assert_valid(name: str, search: Search, params: type[Parameters]) -> None:
    default = getattr(params(), name)
    if isinstance(search, Range):
        assert search.low < search.high, f"{name}: {search} does not end above its beginning"
        assert search.low > 0 or not search.log, f"{name}: {search} has no logarithm at its beginning: set log=False"
        values: tuple[Any, ...] = (search.low, search.high)
        inside = isinstance(default, int | float) and search.low <= default <= search.high
    else:
        values, inside = search.values, default in search.values
        assert len(values) > 1, f"{name}: {search} leaves no choice"
    for value in values:
        try:
            params(**{name: value})
        except ValidationError as error:
            raise AssertionError(f"{name}: {value!r} of {search} is not valid: {error.errors()[0]['msg']}") from None
    assert inside, f"{name}: its default, {default!r}, is not in {search}"
