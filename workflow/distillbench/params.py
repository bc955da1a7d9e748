"""Vocabulary of a plug-in's declaration: tasks, parameters, layer pairs. Imports no torch.

What a method or data set declares about itself (tasks, needs, parameters) is read when the DAG is built, where torch
must not be imported; so a declaration may use pydantic, typing and this module only (see plugins.declaration).
"""

import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

TaskName = Literal["multiclass", "multilabel", "graph-multiclass"]
Setting = Literal["transductive", "inductive"]
Splits = Literal["published", "random"]  # of a data set that has published splits and can redraw them
# of the teacher: its outputs; "teachers": the pair's further teachers; "model": the teacher itself, before training
Requirement = Literal["logits", "hidden", "edges", "labels", "teachers", "model"]
Kernel = Literal["l2", "linear", "polynomial", "rbf", "cosine", "exp-l1"]

NODE_CLASSES: frozenset[TaskName] = frozenset({"multiclass"})  # one class a node
SINGLE_LABEL_TASKS: frozenset[TaskName] = frozenset({"multiclass", "graph-multiclass"})
ALL_TASKS: frozenset[TaskName] = frozenset({"multiclass", "multilabel", "graph-multiclass"})
Direction = Literal["student||teacher", "teacher||student"]  # of a KL divergence
Reduction = Literal["nodes", "edges"]

MIN_SEEDS = 6  # below which there is no verdict: 2/2^6 = 0.031 is the least p of six pairs (flips of signs)
MIN_CELLS = 6  # data sets × pairs, below which nothing is tested over them (Demšar, JMLR 2006)
TEACHER = "teacher"  # takes a method's place in paths and tables
MORE_METRICS = ("roc_auc",)  # that a data set may ask for
METRICS: dict[TaskName, str] = {"multiclass": "accuracy", "graph-multiclass": "accuracy", "multilabel": "micro_f1"}


class LayerPair(NamedTuple):
    """Hidden layers to match, counted from 0 or, negative, from the last hidden layer."""

    student: int
    teacher: int


LayerPairs = Annotated[tuple[LayerPair, ...], Field(min_length=1)]


@dataclass(frozen=True)
class Range:
    """Where ``tune`` looks for a number, ends included: ``weight: Annotated[PositiveFloat, Range(1, 1000)] = 100.0``.

    log: evenly in the logarithm of the number, as for weights; otherwise in the number. Of an int: whole numbers.
    """

    low: float
    high: float
    log: bool = True


@dataclass(frozen=True)
class Choice:
    """The values that ``tune`` tries: ``kernel: Annotated[Kernel, Choice("rbf", "cosine")] = "rbf"``."""

    values: tuple[Any, ...]

    def __init__(self, *values: Any) -> None:
        object.__setattr__(self, "values", values)


Search = Range | Choice


class Parameters(BaseModel):
    """Base of every plug-in's ``Params`` and of the config: immutable, and a key it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, values: Any) -> Any:
        if isinstance(values, dict):
            for key in values:
                if key not in cls.model_fields:
                    raise ValueError(f"unknown key {key!r}{suggestion(key, cls.model_fields)}")
        return values


def fewest_pairs(alpha: float) -> int:
    """The smallest number of pairs of which flips of signs can reject, however many methods: 2 / 2^n <= alpha."""
    return math.ceil(1 - math.log2(alpha))


def suggestion(name: object, known: Iterable[str]) -> str:
    """``: did you mean 'x'?`` where something is near, else the list of what there is."""
    known = list(known)
    folded = {each.casefold(): each for each in known}
    near = difflib.get_close_matches(str(name).casefold(), folded, n=1, cutoff=0.5)
    return f": did you mean {folded[near[0]]!r}?" if near else f": choose from {', '.join(known) or 'none'}"


def search_space(params: type[Parameters]) -> dict[str, Search]:
    """The hyper-parameters that say where they are to be searched for, and where. Others are never tuned."""
    spaces = {
        name: [each for each in field.metadata if isinstance(each, Range | Choice)]
        for name, field in params.model_fields.items()
    }
    return {name: found[0] for name, found in spaces.items() if found}
