"""A method on data small enough to read, in float64, from setup to one training step: what the contract is checked on.

Everything is made as in a run: teachers first, then the method, more input features, the student, its wrapping, what
the method prepares. Two trials from the same arguments are equal bit for bit, unless the method draws from a source of
random numbers that it should not know.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from distillbench.config.specs import DGCNNSpec, GATSpec, LayeredSpec, Spec
from distillbench.contract.cases import Case
from distillbench.data.graph_data import GraphData, Split, symmetric_with_loops
from distillbench.data.tasks import Task
from distillbench.distillation.method import Context, Dims, Method
from distillbench.models.backends.base import Backend
from distillbench.models.gnn import GNN, Output, initialise, initialise_around
from distillbench.params import Requirement, TaskName
from distillbench.seeds import generator, shared_generators
from distillbench.training.inputs import Inputs, TeacherOutputs, teacher_outputs
from distillbench.training.steps import Guidance, Teaching, detached, setup_of

NOTHING: frozenset[Requirement] = frozenset()
SIZES, FEW = (7, 5, 9, 6, 8, 10, 5, 6), (4, 5, 3, 4)  # nodes of the graphs


def data_of(
    task: TaskName,
    *,
    clouds: bool = False,
    transductive: bool | None = None,
    sizes: Sequence[int] = SIZES,
    features: int = 4,
    classes: int = 3,
) -> GraphData:
    """Eight graphs of different sizes, or one graph where the task is multiclass (or ``transductive`` says so).

    Three classes or labels, which the features say something about; random symmetric edges, or none for clouds.
    """
    random = torch.Generator().manual_seed(1)
    transductive = task == "multiclass" if transductive is None else transductive
    if transductive:
        sizes = (sum(sizes),)
    nodes, ptr = sum(sizes), torch.tensor([0, *sizes]).cumsum(0)
    graph_of_node = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    x = torch.randn(nodes, features, generator=random)
    if task == "multilabel":
        y = (x[:, :classes] > 0.3).float()
    elif task == "multiclass":
        y = (torch.arange(nodes) * classes) // nodes
        x[:, 0] += y
    else:
        y = torch.arange(len(sizes)) % classes
        x[:, 0] += y[graph_of_node]
    linked = torch.rand(nodes, nodes, generator=random) < 0.2
    linked &= graph_of_node[:, None] == graph_of_node
    source, destination = linked.nonzero().T
    edges = symmetric_with_loops(source, destination, nodes)
    order = torch.randperm(nodes if transductive else len(sizes), generator=random)
    if transductive:
        first, second = (12, 24) if nodes > 24 else (nodes // 3, 2 * nodes // 3)
    else:
        first, second = 4, 6
    return GraphData(
        x=x,
        edge_index=edges[:, :0] if clouds else edges,
        y=y,
        graph_ptr=ptr,
        task_name=task,
        setting="transductive" if transductive else "inductive",
        num_classes=classes,
        split=Split(order[:first], order[first:second], order[second:]),
    )


def data_for(case: Case, sizes: Sequence[int] = SIZES) -> GraphData:
    """The data of a case."""
    return data_of(case.task, clouds=case.clouds, transductive=case.transductive, sizes=sizes)


def renumbered(data: GraphData, random: torch.Generator) -> GraphData:
    """The same graphs in another order, their nodes in another order, their edges sorted anew."""
    graphs = torch.randperm(data.num_graphs, generator=random)
    sizes = data.graph_ptr.diff()
    shuffled = [data.graph_ptr[g] + torch.randperm(int(sizes[g]), generator=random) for g in graphs]
    old = torch.cat(shuffled)  # of each new node
    new = torch.empty_like(old).index_put((old,), torch.arange(len(old)))
    source, destination = new[data.edge_index]
    order = (destination * len(old) + source).argsort()
    place = torch.empty_like(graphs).index_put((graphs,), torch.arange(len(graphs)))
    of_part = new if data.setting == "transductive" else place
    assert data.split is not None
    return replace(
        data,
        x=data.x[old],
        edge_index=torch.stack([source, destination])[:, order],
        y=data.y[graphs if data.task.level == "graph" else old],
        graph_ptr=torch.cat([sizes.new_zeros(1), sizes[graphs].cumsum(0)]),
        split=Split(*(of_part[part] for part in data.split)),
    )


def relabelled(data: GraphData) -> GraphData:
    """The same data with every label another one."""
    return replace(data, y=_another(data.y, data.num_classes))


def revealing(data: GraphData) -> GraphData:
    """The same data, but labels that should be hidden from a method are replaced by wrong ones that look real."""
    return _of_kind(_Revealing, data)


def _another(y: Tensor, classes: int) -> Tensor:
    return 1 - y if y.ndim == 2 else (y + 1) % classes


class _Revealing(GraphData):
    @property
    def task(self) -> Task:
        shown = super().task
        return _RevealingTask(**{f.name: getattr(shown, f.name) for f in fields(shown)})


class _RevealingTask(Task):
    def hide(self, y: Tensor, rows: Tensor) -> Tensor:
        return torch.where(rows.view(-1, *[1] * (y.ndim - 1)), _another(y, int(y.max()) + 1), y)


def _of_kind(kind: type[GraphData], data: GraphData, **changed: Any) -> GraphData:
    """As ``dataclasses.replace``, without checking: GraphData refuses float64."""
    made = object.__new__(kind)
    vars(made).update({f.name: getattr(data, f.name) for f in fields(data)} | changed)
    return made


def in_double(data: GraphData) -> GraphData:
    """The same data in float64."""
    y = data.y.double() if data.task.multilabel else data.y
    return _of_kind(type(data), data, x=data.x.double(), y=y)


def models_of(case: Case) -> tuple[Spec, Spec, list[Spec]]:
    """A student, its teacher, which differs from it in width, and two further teachers of other depth."""
    of_graphs = case.task == "graph-multiclass"
    specs: list[Spec]
    if case.clouds:
        widths = ((4, 8), (6, 12), (6,), (6, 8, 12))
        specs = [DGCNNSpec(model="dgcnn", widths=each, embedding=8, head=(6,), k=3) for each in widths]
    elif of_graphs:
        sizes = ((4, 2), (6, 2), (6, 3), (6, 4))
        specs = [LayeredSpec(model="gin", hidden=width, layers=layers, readout="mean") for width, layers in sizes]
    else:
        heads = ((2, 2, 2), (2, 2, 3), (2, 2), (2, 2, 2, 2))
        widths_of_heads = zip((3, 4, 4, 4), heads, strict=True)
        specs = [GATSpec(model="gat", hidden=width, layers=len(each), heads=each) for width, each in widths_of_heads]
    student, teacher, *further = specs
    if case.student == "mlp":
        layers = 2 if of_graphs else 3
        student = LayeredSpec(model="mlp", hidden=6, layers=layers, readout="mean" if of_graphs else None)
    return student, teacher, further


class Step(NamedTuple):
    """The student's output, the teacher's, the context and the terms of one training step."""

    student: Output
    teacher: Output
    ctx: Context
    terms: dict[str, Tensor]


class Trial:
    """A student, its teachers and a method, set up on small data for a backend, in float64.

    All graphs are for training and are one batch, in an order that is not that of the setup; of one graph with a label
    a node, 12 nodes are. The method is given further teachers and the teacher itself whether it requires them or not.

    data: other data than the case's. equal: the student's output is its teacher's, and its weights where it can have
    them. precompute: whether ``Method.precompute`` is called. withheld: what of the teacher is replaced: numbers by
    NaN, edges by other ones, and all of it by nothing for a method that requires nothing. seed: of what a method may
    not draw from (torch's, numpy's and Python's own generators), so that one that does is told from others.
    """

    def __init__(
        self,
        plugin: type[Method],
        case: Case,
        backend: Backend,
        *,
        data: GraphData | None = None,
        equal: bool = False,
        precompute: bool = True,
        withheld: frozenset[Requirement] = NOTHING,
        seed: int = 0,
    ) -> None:
        self.case, self.equal, self.precompute, self.seed = case, equal, precompute, seed
        data = data or data_for(case)
        data = in_double(data)
        with _sealed(seed):
            self._set_up(plugin, data, backend, withheld)

    def _set_up(
        self, plugin: type[Method], data: GraphData, backend: Backend, withheld: frozenset[Requirement]
    ) -> None:
        graphs = torch.arange(data.num_graphs)
        assert data.split is not None
        split = data.split if self.case.transductive else Split(graphs, graphs[:0], graphs[:0])
        inputs = _inputs(data, backend)
        student, teacher, _ = models_of(self.case)
        if self.equal and self.case.student != "mlp":
            student = teacher
        self.teachers, (outputs, *others) = _taught(self.case, data, backend, self.equal)
        features = data.x.shape[1]
        teaching = Teaching(
            _without(withheld, outputs),
            tuple(_poisoned(each) if "teachers" in withheld else each for each in others),
            _Poisoned(self.teachers[0]) if "model" in withheld else self.teachers[0],
            lambda: GNN(teacher, backend, features, data.num_classes),
        )
        if not plugin.requires and withheld:
            teaching = Teaching()
        dims = [Dims(spec.hidden_dims, data.num_classes) for spec in (teacher if self.equal else student, teacher)]
        self.method = plugin(plugin.Params(**plugin.tried_with), *dims)
        initialise(self.method, 0, "projector")
        setup = setup_of(inputs, split, teaching, generator(0, "student"))
        extra = self.method.student_inputs(setup)
        if extra is not None:
            data = _of_kind(type(data), data, x=torch.cat([data.x, extra], dim=1))
            inputs = _inputs(data, backend)
            setup = setup_of(inputs, split, teaching, generator(0, "student"))
        self.inner = _model(student, backend, data, "student")
        self.student = self.method.wrap_student(self.inner, setup)
        initialise_around(self.inner, self.student, 0, "student")
        self.student.eval()
        self.guidance = Guidance(inputs, self.method, split, teaching, "all", generator(0, "prepare"))
        (self.batch,) = inputs.ordered(split.train if self.case.transductive else graphs.flip(0))
        self.method.train()

    def step(self, epoch: int = 1, random: torch.Generator | None = None) -> Step:
        """One training step but for the optimiser's. ``random`` is the method's."""
        random = random or torch.Generator().manual_seed(5)
        with _sealed(self.seed):
            student, teacher, ctx = self.guidance.step(self.student, self.batch, epoch, random)
            ctx = replace(ctx, random=random, precomputed=ctx.precomputed if self.precompute else {})
            if self.equal:
                student = self._equal_to(teacher, student)
            return Step(student, teacher, ctx, self.method.terms(student, teacher, ctx))

    def terms(self, student: Output, step: Step) -> dict[str, Tensor]:
        """The terms of a step for another output of the student, with the same random numbers."""
        with _sealed(self.seed):
            ctx = replace(step.ctx, random=torch.Generator().manual_seed(5))
            return self.method.terms(student, step.teacher, ctx)

    def adversary_loss(self, step: Step) -> Tensor | None:
        """Of a step's outputs."""
        with _sealed(self.seed):
            return self.method.adversary_loss(detached(step.student), step.teacher, step.ctx)

    def _equal_to(self, teacher: Output, student: Output) -> Output:
        hidden = tuple(h.clone().requires_grad_() for h in teacher.hidden)
        edges = teacher.edge_index if self.case.student != "mlp" else student.edge_index[:1] * len(hidden)
        return Output(teacher.logits.clone().requires_grad_(), hidden, edges, student.dynamic)


_TAUGHT: dict[Any, tuple[list[GNN], list[TeacherOutputs]]] = {}


def _taught(case: Case, data: GraphData, backend: Backend, equal: bool) -> tuple[list[GNN], Iterator[TeacherOutputs]]:
    """The frozen teachers and their outputs for all graphs: made once, as they depend on no method."""
    key = (case, data.digest, backend.name, equal)
    if key not in _TAUGHT:
        _, teacher, further = models_of(case)
        models = [_model(teacher, backend, data, "student" if equal else "teacher")]
        models += [_model(spec, backend, data, f"teacher{number}") for number, spec in enumerate(further)]
        inputs, graphs = _inputs(data, backend), torch.arange(data.num_graphs)
        _TAUGHT[key] = models, [teacher_outputs(model, inputs, graphs) for model in models]
    models, outputs = _TAUGHT[key]
    copies = (replace(o, logits=o.logits.clone(), hidden=tuple(h.clone() for h in o.hidden)) for o in outputs)
    return models, copies  # a bad method might change what it is given


def _model(spec: Spec, backend: Backend, data: GraphData, scope: str) -> GNN:
    with _sealed(0):  # a library draws initial weights, which are not kept
        model = GNN(spec, backend, data.x.shape[1], data.num_classes)
    initialise(model, 0, scope)
    return model.eval()  # batch norms are then the same function for a student and a teacher that are equal


def _inputs(data: GraphData, backend: Backend) -> Inputs:
    return Inputs(data, backend, torch.device("cpu"), batch_size=data.num_graphs)


def _without(withheld: frozenset[Requirement], outputs: TeacherOutputs) -> TeacherOutputs:
    bad = _poisoned(outputs)
    return replace(
        outputs,
        logits=bad.logits if "logits" in withheld else outputs.logits,
        hidden=bad.hidden if "hidden" in withheld else outputs.hidden,
        edges=bad.edges if "edges" in withheld else outputs.edges,
        dynamic=bad.dynamic if "edges" in withheld else outputs.dynamic,
    )


def _poisoned(outputs: TeacherOutputs) -> TeacherOutputs:
    """NaN for numbers; every node's one edge is from the next node of its graph."""
    nan, nodes = float("nan"), torch.arange(len(outputs.hidden[0]))
    ends = outputs.ptr[1:].repeat_interleave(outputs.ptr.diff())
    starts = outputs.ptr[:-1].repeat_interleave(outputs.ptr.diff())
    edges = torch.stack([torch.where(nodes + 1 < ends, nodes + 1, starts), nodes])
    hidden = tuple(h * nan for h in outputs.hidden)
    return replace(outputs, logits=outputs.logits * nan, hidden=hidden, edges=(edges,) * len(hidden), dynamic=True)


class _Poisoned(nn.Module):
    """A model whose outputs are NaN."""

    def __init__(self, model: GNN) -> None:
        super().__init__()
        self.model, self.d_in = model, model.d_in

    def forward(self, graph: Any, x: Tensor) -> Output:
        out: Output = self.model(graph, x)
        nan = float("nan")
        return out._replace(logits=out.logits * nan, hidden=tuple(h * nan for h in out.hidden))


@contextmanager
def _sealed(seed: int) -> Iterator[None]:
    """Float64 by default, and the generators that everybody shares seeded, for a while."""
    default = torch.get_default_dtype()
    with shared_generators(seed):
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(default)
