"""The base class of a distillation method, and what a method is given to work with.

Most methods define ``terms`` alone. The other hooks are for what a pure function of two outputs cannot do: state that
is set up once (``prepare``), an adversary with a step of its own, more input features, or another student.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from distillbench.data.tasks import Task
from distillbench.models.gnn import Output
from distillbench.params import Parameters, Requirement, TaskName


class Dims(NamedTuple):
    """Widths of a model: of each hidden layer, and of the logits."""

    hidden: tuple[int, ...]
    logits: int


def _nothing_to_run(x: Tensor) -> Output:
    raise RuntimeError("no model to run here: a teacher is there for methods that have 'model' in `requires`")


@dataclass(frozen=True)
class Setup:
    """All that a method will see in training, as one graph; its own nodes are numbered from 0 to N - 1.

    x: [N, F], the student's input features. edge_index: [2, E], sorted by destination, symmetric, with self-loops
    (empty for point clouds). labels: [M] or [M, C], one row for each row of the logits (-1 or NaN where there is none
    for training). labelled: [M] bool. teacher: the frozen teacher's outputs. teachers: those of the pair's further
    teachers, for methods that require "teachers". random: the only source of random numbers.
    run_teacher: the frozen teacher on other features [N, F], for methods that require "model". new_teacher: an
    untrained model like the teacher, already on the graph (module: x -> Output); its parameters are trained.
    """

    task: Task
    x: Tensor
    edge_index: Tensor
    labels: Tensor
    labelled: Tensor
    teacher: Output
    random: torch.Generator
    teachers: tuple[Output, ...] = ()
    run_teacher: Callable[[Tensor], Output] = _nothing_to_run
    new_teacher: Callable[[], nn.Module] | None = None

    @property
    def num_nodes(self) -> int:
        """Rows of the features."""
        return len(self.x)


@dataclass(frozen=True)
class Context:
    """The batch a method sees, besides the two models' outputs. Rows are nodes, or graphs for graph-level tasks.

    labels: [M] or [M, C], one row for each row of the logits, hidden (-1 or NaN) where there is none for training.
    labelled: [M] bool, rows the task loss may use. edge_index: [2, E], the batch's own edges, sorted by destination
    (empty for point clouds). num_nodes: rows of the hidden features. precomputed: what ``Method.precompute`` returned
    for this batch's graphs. random: the only source of random numbers a method may use.

    x: [num_nodes, F], the student's input features. nodes: [num_nodes] int64, the number of each node in ``Setup``
    (for state kept from step to step). teachers: outputs of the pair's further teachers. run_student: the student, in
    training mode, on other features [num_nodes, F] of the same nodes.
    """

    task: Task
    labels: Tensor
    labelled: Tensor
    edge_index: Tensor
    num_nodes: int
    epoch: int
    random: torch.Generator
    precomputed: Mapping[str, Tensor] = field(default_factory=dict)
    x: Tensor = field(default_factory=lambda: torch.empty(0))
    nodes: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    teachers: tuple[Output, ...] = ()
    run_student: Callable[[Tensor], Output] = _nothing_to_run

    def task_loss(self, logits: Tensor) -> Tensor:
        """Supervised loss of the task, mean over the labelled rows; ``logits`` is [M, C]."""
        return self.task.loss(logits[self.labelled], self.labels[self.labelled])

    def sample(self, most: int) -> Tensor:
        """Nodes to compute with, [n] int64: all of them or, where there are more, ``most`` drawn at random."""
        if self.num_nodes <= most:
            return torch.arange(self.num_nodes, device=self.edge_index.device)
        return torch.randperm(self.num_nodes, generator=self.random)[:most].to(self.edge_index.device)


class Method(nn.Module):
    """One subclass per file in ``methods/``; projectors and other trained parts are submodules of it.

    A subclass states ``paper`` (first author and year; the citation is in the file's docstring), the ``tasks`` it
    applies to, what it ``requires`` of the teacher, and its hyper-parameters ``Params``; its ``terms`` are the loss. It
    may also say ``mlp_only`` (for students that use no graph), ``transductive_only`` (it cannot predict nodes that it
    has not seen in training) or ``needs_unlabelled`` (it distils on nodes without a label, so not with
    ``distill_nodes: train``).

    For the contract tests, it may say ``samples`` (it sees a random part of any graph, so the numbers of nodes matter),
    ``excused`` from a check, with the reason, and ``tried_with``, hyper-parameters that make the checks fast.

    Parameters are initialised by name after construction. State that is not trained belongs into buffers: what a
    ``state_dict`` holds survives a kill.
    """

    paper: ClassVar[str]
    tasks: ClassVar[frozenset[TaskName]]
    requires: ClassVar[frozenset[Requirement]]
    mlp_only: ClassVar[bool] = False
    transductive_only: ClassVar[bool] = False
    needs_unlabelled: ClassVar[bool] = False
    samples: ClassVar[bool] = False
    excused: ClassVar[Mapping[str, str]] = {}
    tried_with: ClassVar[Mapping[str, Any]] = {}

    class Params(Parameters):
        """No hyper-parameters."""

    def __init__(self, params: Any, student_dims: Dims, teacher_dims: Dims) -> None:
        super().__init__()
        self.params = params
        self.student_dims, self.teacher_dims = student_dims, teacher_dims
        self.adversary: nn.Module | None = None  # trained by ``adversary_loss``, in steps of its own

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

    def student_inputs(self, setup: Setup) -> Tensor | None:
        """More input features for the student, [N, P], beside the data set's; computed once, before it is built.

        Transductive tasks only. Nodes that are unseen in training (protocol: production) get the mean over their
        neighbours that were seen.
        """
        return None

    def wrap_student(self, student: nn.Module, setup: Setup) -> nn.Module:
        """What is trained and predicts in the student's place: a module ``(graph, x) -> Output``; it may hold it.

        Its new parameters are initialised by name, as the student's.
        """
        return student

    def prepare(self, setup: Setup) -> None:
        """Once, before the first step: memory banks, reliabilities, another model to be trained first.

        Must depend on ``setup`` alone: a run that is resumed prepares anew, then loads the state that was saved.
        """

    def adversary_loss(self, student: Output, teacher: Output, ctx: Context) -> Tensor | None:
        """Scalar that ``self.adversary`` alone is trained to minimise, by its own Adam, before the student's step.

        The outputs carry no gradient. None: no step of the adversary this time.
        """
        return None

    def adversaries(self) -> Iterator[nn.Module]:
        """The modules that are trained by ``adversary_loss``."""
        if self.adversary is not None:
            yield self.adversary


class TaskLossOnly(Method):
    """What a teacher is trained with: no distillation."""

    paper, tasks, requires = "", frozenset(), frozenset()

    def terms(self, student: Output, teacher: Output, ctx: Context) -> dict[str, Tensor]:
        """The task loss."""
        return {"task": ctx.task_loss(student.logits)}
