"""What a method sees: the setup before training, and in each step the two models' outputs with their context.

The teachers are frozen; their outputs come from files and are cut to each batch. In a transductive task with
``distill_nodes: train`` a method sees the subgraph induced by the training nodes, nothing else.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from distillbench.data.graph_data import GraphData, Split
from distillbench.distillation.method import Context, Method, Setup
from distillbench.models.gnn import Output
from distillbench.training.inputs import Batch, Inputs, TeacherOutputs, cut_edges, ranges

NO_TEACHER = Output(torch.empty(0), (), ())


@dataclass(frozen=True)
class Teaching:
    """The frozen teachers of a run, as its method may use them.

    outputs: of the pair's teacher; further: of the pair's further teachers. model: the teacher itself, and new_model an
    untrained one like it; both run on the CPU, before training only, and get the graph of ``Inputs`` on the CPU.
    """

    outputs: TeacherOutputs | None = None
    further: tuple[TeacherOutputs, ...] = ()
    model: nn.Module | None = None
    new_model: Callable[[], nn.Module] | None = None


class Guidance:
    """One method's view of a run. Makes the setup, prepares the method, and makes each step's context."""

    def __init__(
        self,
        inputs: Inputs,
        method: Method,
        split: Split,
        teaching: Teaching,
        distill_nodes: Literal["all", "train"],
        random: torch.Generator,
    ) -> None:
        self.inputs = inputs
        self.nodes = split.train.sort().values if inputs.transductive and distill_nodes == "train" else None
        self._constant: tuple[Output, Context] | None = None
        setup = setup_of(inputs, split, teaching, random, self.nodes)
        self.ids = torch.tensor([0]) if inputs.transductive else split.train.sort().values
        self.ptr = ranges(inputs.data.graph_ptr, self.ids)[1]
        self.teacher, self.further = teaching.outputs, teaching.further
        if self.teacher is not None:
            with torch.no_grad():
                stored = method.precompute(setup.teacher, setup.edge_index)
            self.teacher = replace(self.teacher, precomputed=stored)
        method.prepare(setup)
        self._setup = setup if inputs.transductive else None  # else a copy of the data that nobody needs

    def step(
        self, model: nn.Module, batch: Batch, epoch: int, random: torch.Generator
    ) -> tuple[Output, Output, Context]:
        """The student's output for a batch, the teacher's, and the context."""
        student: Output = model(batch.graph, batch.x)
        if self.inputs.transductive:
            if self._constant is None:
                self._constant = self._whole_graph(batch, random)
            teacher, ctx = self._constant
            if self.nodes is None:
                run = _runner(model, batch)
            else:
                nodes, edges = self.nodes.to(batch.x.device), ctx.edge_index
                student = _restricted(student, nodes, edges)

                def run(x: Tensor) -> Output:
                    whole = batch.x.index_copy(0, nodes, x)
                    return _restricted(model(batch.graph, whole), nodes, edges)

            return student, teacher, replace(ctx, epoch=epoch, run_student=run)
        teacher, precomputed = self.teacher.of(batch) if self.teacher else (NO_TEACHER, {})
        ctx = Context(
            task=self.inputs.data.task,
            labels=batch.y,
            labelled=torch.ones(len(batch.y), dtype=torch.bool, device=batch.x.device),
            edge_index=batch.graph.edge_index,
            num_nodes=len(batch.x),
            epoch=epoch,
            random=random,
            precomputed=precomputed,
            x=batch.x,
            nodes=ranges(self.ptr, torch.searchsorted(self.ids, batch.graph_ids))[0].to(batch.x.device),
            teachers=tuple(each.of(batch)[0] for each in self.further),
            run_student=_runner(model, batch),
        )
        return student, teacher, ctx

    def _whole_graph(self, batch: Batch, random: torch.Generator) -> tuple[Output, Context]:
        """The teacher's output and the context, which are the same in every step but for the epoch."""
        setup, device = self._setup, batch.x.device
        assert setup is not None
        x, edge_index = batch.x, batch.graph.edge_index
        if self.nodes is not None:
            x, edge_index = x[self.nodes.to(device)], setup.edge_index.to(device)
        precomputed: Mapping[str, Tensor] = {}
        if self.teacher is not None:
            precomputed = {name: value.to(device) for name, value in self.teacher.precomputed.items()}
        context = Context(
            task=setup.task,
            labels=setup.labels.to(device),
            labelled=setup.labelled.to(device),
            edge_index=edge_index,
            num_nodes=len(x),
            epoch=0,
            random=random,
            precomputed=precomputed,
            x=x,
            nodes=torch.arange(len(x), device=device),
            teachers=tuple(_moved(each, edge_index) for each in setup.teachers),
        )
        return _moved(setup.teacher, edge_index), context


def setup_of(
    inputs: Inputs, split: Split, teaching: Teaching, random: torch.Generator, nodes: Tensor | None = None
) -> Setup:
    """All that is seen in training, on the CPU; of a transductive data set only ``nodes``, where they are given.

    Labels outside the training part are hidden: a method is not to see those it is selected by.
    """
    data, new_model = inputs.data, teaching.new_model
    given = [each for each in (teaching.outputs, *teaching.further) if each is not None]
    stored = [each.output for each in given]
    if inputs.transductive:
        x, edge_index = data.x, data.edge_index
        labelled = torch.zeros(len(data.y), dtype=torch.bool).index_fill(0, split.train, True)
        labels = data.task.hide(data.y, ~labelled)
        stored = [_moved(each.output, edge_index) for each in given]
        if nodes is not None:
            edge_index = _induced(edge_index, nodes, len(x))
            x, labels, labelled = x[nodes], labels[nodes], labelled[nodes]
            stored = [_restricted(each, nodes, edge_index) for each in stored]
    else:
        ids = split.train.sort().values
        seen, ptr = ranges(data.graph_ptr, ids)
        x = data.x[seen]
        edge_index = given[0].edge_index if given else cut_edges(data.edge_index, data.graph_ptr, ids, ptr)
        labels = data.y[ids if data.task.level == "graph" else seen]
        labelled = torch.ones(len(labels), dtype=torch.bool)
    return Setup(
        task=data.task,
        x=x,
        edge_index=edge_index,
        labels=labels,
        labelled=labelled,
        teacher=stored[0] if teaching.outputs is not None else NO_TEACHER,
        random=random,
        teachers=tuple(stored[1:]),
        run_teacher=_frozen(_Bound(teaching.model, inputs, split, nodes)) if teaching.model else Setup.run_teacher,
        new_teacher=(lambda: _Bound(new_model(), inputs, split, nodes)) if new_model else None,
    )


def _frozen(model: nn.Module) -> Callable[[Tensor], Output]:
    model.eval()
    return torch.no_grad()(model.__call__)


class _Bound(nn.Module):
    """A teacher on the graph of a setup: x [N, F] -> Output, on the CPU. Features past its own inputs are left out."""

    def __init__(self, model: nn.Module, inputs: Inputs, split: Split, nodes: Tensor | None) -> None:
        super().__init__()
        self.model, self._nodes = model, nodes
        on_cpu = Inputs(inputs.data, inputs.backend, torch.device("cpu"), max(1, len(split.train)))
        (self._batch,) = on_cpu.ordered(split.train.sort().values)

    def forward(self, x: Tensor) -> Output:
        batch, width = self._batch, self.model.d_in
        if self._nodes is None:
            out: Output = self.model(batch.graph, x[:, :width])
            return out
        whole = batch.x[:, :width].index_copy(0, self._nodes, x[:, :width])
        edges = _induced(batch.graph.edge_index, self._nodes, len(whole))
        return _restricted(self.model(batch.graph, whole), self._nodes, edges)


def detached(out: Output) -> Output:
    """The same output without gradient."""
    return out._replace(logits=out.logits.detach(), hidden=tuple(h.detach() for h in out.hidden))


def _runner(model: nn.Module, batch: Batch) -> Callable[[Tensor], Output]:
    return lambda x: model(batch.graph, x)


def _moved(out: Output, edge_index: Tensor) -> Output:
    """On the device of ``edge_index``, which takes the place of the graph's own edges; drawn ones are kept."""
    device = edge_index.device
    edges = tuple(
        edge_index if out.on_own_edges(layer) else used.to(device).long() for layer, used in enumerate(out.edge_index)
    )
    return Output(out.logits.to(device), tuple(h.to(device) for h in out.hidden), edges, out.dynamic)


def _restricted(out: Output, nodes: Tensor, edge_index: Tensor) -> Output:
    """Of ``nodes`` alone; ``edge_index``, the graph's own edges among them, takes the place of those of the graph."""
    edges = tuple(
        edge_index if out.on_own_edges(layer) else _induced(used, nodes, len(out.logits))
        for layer, used in enumerate(out.edge_index)
    )
    return Output(out.logits[nodes], tuple(h[nodes] for h in out.hidden), edges, out.dynamic)


def _induced(edge_index: Tensor, nodes: Tensor, num_nodes: int) -> Tensor:
    """Edges among ``nodes``, renumbered in their order, sorted by destination."""
    place = edge_index.new_full((num_nodes,), -1)
    place[nodes] = torch.arange(len(nodes), device=nodes.device)
    edges = place[edge_index]
    edges = edges[:, (edges >= 0).all(dim=0)]
    return edges[:, torch.argsort(edges[1] * len(nodes) + edges[0])]


def subgraph(data: GraphData, nodes: Tensor) -> GraphData:
    """A transductive data set without its other nodes; ``nodes`` [n] ascending, renumbered from 0; without a split."""
    return replace(
        data,
        x=data.x[nodes],
        y=data.y[nodes],
        edge_index=_induced(data.edge_index, nodes, data.num_nodes),
        graph_ptr=torch.tensor([0, len(nodes)]),
        split=None,
        splits=None,
    )
