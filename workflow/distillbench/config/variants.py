"""Method variants: what an entry under ``methods:`` of the config stands for, and where it applies. Imports no torch.

An entry is a method's file with hyper-parameters, or several joined by ``+`` (see distillation/combination.py):

    lsp-cosine: {method: lsp, kernel: cosine}
    lsp+kd: {lsp: {kernel: cosine}, kd: {alpha: 0.3}}     # a part is a file, or another entry: lsp-cosine+kd
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from distillbench.config.config import Pair, Protocol
from distillbench.config.specs import uses_edges
from distillbench.params import Parameters, Requirement, Search, TaskName, search_space, suggestion
from distillbench.plugins import Declaration, PluginError

Declare = Callable[[str], Declaration]  # the declaration of a method's file, by its name


@dataclass(frozen=True)
class Part:
    """One method of a variant and the hyper-parameters that are given for it. place: where they are in the config."""

    name: str
    declared: Declaration
    given: dict[str, Any]
    place: str

    def params(self, pair: Pair | None = None) -> Parameters:
        """All hyper-parameters, with the layers of ``pair`` where it takes layers and none are given.

        Raises pydantic's ValidationError.
        """
        given = dict(self.given)
        if pair and pair.layers and "layers" in self.declared.params.model_fields:
            given = {"layers": pair.layers, **given}
        return self.declared.params(**given)

    def searched(self, pair: Pair) -> dict[str, Search]:
        """The hyper-parameters that tuning chooses, and where from: those that the config gives stay as given."""
        fixed = {*self.given, *(["layers"] if pair.layers else [])}
        return {name: each for name, each in search_space(self.declared.params).items() if name not in fixed}

    def problems(self) -> list[str]:
        """What is wrong with the hyper-parameters, a sentence each."""
        try:
            self.params()
        except ValidationError as error:
            return [explain(self.place, each) for each in error.errors()]
        return []


@dataclass(frozen=True)
class Variant:
    """A method, or several whose distillation terms are added."""

    name: str
    parts: tuple[Part, ...]

    @cached_property
    def tasks(self) -> frozenset[TaskName]:
        """Tasks that every part applies to."""
        return frozenset.intersection(*(part.declared.tasks for part in self.parts))

    @cached_property
    def requires(self) -> frozenset[Requirement]:
        """What any part reads of the teacher."""
        return frozenset.union(*(part.declared.requires for part in self.parts))

    def says(self, what: str) -> bool:
        """Whether any part declares ``mlp_only``, ``transductive_only`` or the like."""
        return any(part.declared.attributes.get(what, False) for part in self.parts)

    def params(self, pair: Pair | None = None) -> dict[str, Any]:
        """Hyper-parameters as plain values; of several parts by part. Raises pydantic's ValidationError."""
        values = {part.name: part.params(pair).model_dump(mode="json") for part in self.parts}
        return values if len(values) > 1 else values[self.parts[0].name]

    def unfit(self, dataset: Declaration, pair: Pair, protocol: Protocol) -> str | None:
        """Why it does not apply to a pair, as the end of a sentence that begins with its name; None where it does."""
        if dataset.task not in self.tasks:
            return f"does not apply to {dataset.task} tasks (it applies to: {', '.join(sorted(self.tasks)) or 'none'})"
        if "edges" in self.requires and not uses_edges(pair.teacher):
            what = "an MLP" if pair.teacher.model == "mlp" else f"{pair.teacher.model!r}, which uses none"
            return f"needs the teacher's edges, and its teacher is {what}"
        if self.says("mlp_only") and uses_edges(pair.student):
            return f"is for students without a graph (mlp), and this one is {pair.student.model!r}"
        if "teachers" in self.requires and not pair.teachers:
            return "needs further teachers, and the pair has no `teachers`"
        if self.says("needs_unlabelled") and protocol.distill_nodes == "train":
            return "distils on nodes without a label, and distill_nodes is train"
        adds = any("student_inputs" in part.declared.defines for part in self.parts)
        if adds and dataset.setting != "transductive":
            return "adds input features to nodes, which only transductive data sets can have"
        if self.says("transductive_only") and (dataset.setting != "transductive" or protocol.setting == "production"):
            return "cannot predict nodes that it has not seen in training"
        return None


def read_variant(name: str, entries: Mapping[str, dict[str, Any]], declare: Declare) -> Variant:
    """The variant of an entry. Raises PluginError: a file that does not exist, a key that is no part."""
    values = entries[name]
    method = _method_of(entries, name)
    given = {key: value for key, value in values.items() if key != "method"}
    if "+" not in method:
        return Variant(name, (Part(name, declare(method), given, f"methods.{name}"),))
    names = method.split("+")
    if len(set(names)) < len(names) or not all(names):
        raise PluginError(f"{method!r}: methods joined by '+', each once")
    for key in given:
        if key not in names:
            raise PluginError(f"unknown key {key!r}{suggestion(key, names)}")
        if not isinstance(given[key], dict | None):
            raise PluginError(f"{key}: {given[key]!r}: must be that method's hyper-parameters")
    parts = []
    for part in names:
        own = {key: value for key, value in entries.get(part, {}).items() if key != "method"} | (given.get(part) or {})
        parts.append(Part(part, declare(_method_of(entries, part)), own, f"methods.{name}.{part}"))
    return Variant(name, tuple(parts))


def _method_of(entries: Mapping[str, dict[str, Any]], name: str) -> str:
    """The name of the file that an entry is of, or several joined by '+'."""
    method = entries.get(name, {}).get("method", name)
    if not isinstance(method, str):
        raise PluginError(f"method: {method!r}: must be a method's name")
    return method


def explain(where: str, error: Any) -> str:
    """One of pydantic's errors as a sentence: the key, the value, what is wrong."""
    place = ".".join([where, *map(str, error["loc"])])
    message = error["msg"].removeprefix("Value error, ")
    given = "" if isinstance(error["input"], dict) else f"{error['input']!r}: "
    return f"{place}: {given}{message}"
