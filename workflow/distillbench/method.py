"""The base class of a distillation method, and what a method is given to work with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from distillbench.models import Output
from distillbench.params import Parameters, Requirement, TaskName
from distillbench.tasks import Task


class Dims(NamedTuple):
    """Widths of a model: of each hidden layer, and of the logits."""

    hidden: tuple[int, ...]
    logits: int


@dataclass(frozen=True)
class Context:
    """The batch a method sees, besides the two models' outputs. Rows are nodes, or graphs for graph-level tasks.

    labels: [M] or [M, C], one row for each row of the logits, hidden (-1 or NaN) where there is none for training.
    labelled: [M] bool, rows the task loss may use. edge_index: [2, E], the batch's own edges, sorted by destination
    (empty for point clouds). num_nodes: rows of the hidden features. precomputed: what ``Method.precompute`` returned
    for this batch's graphs. random: the only source of random numbers a method may use.
    """

    task: Task
    labels: Tensor
    labelled: Tensor
    edge_index: Tensor
    num_nodes: int
    epoch: int
    random: torch.Generator
    precomputed: Mapping[str, Tensor] = field(default_factory=dict)

    def task_loss(self, logits: Tensor) -> Tensor:
        """Supervised loss of the task, mean over the labelled rows; ``logits`` is [M, C]."""
        return self.task.loss(logits[self.labelled], self.labels[self.labelled])


class Method(nn.Module):
    """One subclass per file in ``methods/``; projectors and other trained parts are submodules of it.

    A subclass states ``paper`` (a key of the reference list in its docstring), the ``tasks`` it applies to, what it
    ``requires`` of the teacher, and its hyper-parameters ``Params``; its ``terms`` are the loss.
    """

    paper: ClassVar[str]
    tasks: ClassVar[frozenset[TaskName]]
    requires: ClassVar[frozenset[Requirement]]

    class Params(Parameters):
        """No hyper-parameters."""

    def __init__(self, params: Any, student_dims: Dims, teacher_dims: Dims) -> None:
        super().__init__()
        self.params = params
        self.student_dims, self.teacher_dims = student_dims, teacher_dims

    def __init_subclass__(cls) -> None:
        for name in ("paper", "tasks", "requires"):
            if not hasattr(cls, name):
                raise TypeError(f"method {cls.__name__} states no {name}")

    def terms(self, student: Output, teacher: Output, ctx: Context) -> dict[str, Tensor]:
        """Named, weighted scalar losses, whose sum is minimised. ``teacher`` carries no gradient."""
        raise NotImplementedError(f"{type(self).__name__}.terms")

    def precompute(self, teacher: Output, edge_index: Tensor) -> dict[str, Tensor]:
        """What depends on the frozen teacher alone, computed once: per-node [N, ...] or per-edge [E, ...] tensors.

        Called before training on all the graphs the method will see, as one; batches get their part of each tensor as
        ``ctx.precomputed``. Only static graphs have per-edge tensors (``edge_index`` is empty for point clouds).
        """
        return {}


class TaskLossOnly(Method):
    """What a teacher is trained with: no distillation."""

    paper, tasks, requires = "", frozenset(), frozenset()

    def terms(self, student: Output, teacher: Output, ctx: Context) -> dict[str, Tensor]:
        """The task loss."""
        return {"task": ctx.task_loss(student.logits)}
