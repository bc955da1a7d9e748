"""What a training or evaluation step is fed: batches of graphs, with the frozen teacher's outputs for them.

A transductive data set is one batch; of an inductive one, batches are sets of graphs. The teacher's outputs are
computed once for all the graphs that students train on, and cut to each batch: no step runs a teacher forward.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distillbench.data.graph_data import DataError, GraphData
from distillbench.data.neighbours import StaticNeighbours, StaticPoints
from distillbench.models.backends.base import Backend, Graph
from distillbench.models.gnn import Output
from distillbench.record import write_atomically

Augment = Callable[[Tensor, Tensor, torch.Generator], Tensor]  # see Dataset.augment


@dataclass(frozen=True)
class Batch:
    """One step's input. rows: [M] int64, the rows of the logits that count (all of them for sets of graphs)."""

    graph: Graph
    x: Tensor
    y: Tensor
    rows: Tensor
    graph_ids: Tensor


class Inputs:
    """Batches of a data set for one backend and device, built from per-graph graphs of the library itself.

    augment: what becomes of the features of a batch of graphs for training (see Dataset.augment). neighbours: of the
    data's graphs by their features; what is known of them is not computed again for features that are as in the data.
    """

    def __init__(
        self,
        data: GraphData,
        backend: Backend,
        device: torch.device,
        batch_size: int,
        augment: Augment | None = None,
        neighbours: StaticNeighbours | None = None,
    ) -> None:
        self.data, self.backend, self.device, self.batch_size = data, backend, device, batch_size
        self.augment, self.neighbours = augment, neighbours
        self._whole: Graph | None = None
        self._graphs: dict[int, Graph] = {}
        self._fixed: dict[tuple[int, ...], list[Batch]] = {}

    @property
    def transductive(self) -> bool:
        """Whether the one graph holds all parts of the split."""
        return self.data.setting == "transductive"

    def shuffled(
        self, part: Tensor, random: torch.Generator, augmentation: torch.Generator | None = None
    ) -> Iterator[Batch]:
        """Batches for one epoch of training on ``part``: in random order and augmented, or the whole graph.

        In graph-level tasks a graph left over by itself joins the batch before: a batch norm over graphs has no
        statistics of one.
        """
        if self.transductive:
            yield self._all(part)
            return
        sets = list(part[torch.randperm(len(part), generator=random)].split(self.batch_size))
        if self.data.task.level == "graph" and len(sets) > 1 and len(sets[-1]) == 1:
            sets[-2:] = [torch.cat(sets[-2:])]
        for ids in sets:
            yield self._set_of_graphs(ids, augmentation)

    def ordered(self, part: Tensor) -> list[Batch]:
        """Batches for evaluation, in order; kept, since every epoch asks for them."""
        key = tuple(part.tolist())
        if key not in self._fixed:
            sets = part.split(self.batch_size)
            self._fixed[key] = [self._all(part)] if self.transductive else [self._set_of_graphs(ids) for ids in sets]
        return self._fixed[key]

    def _all(self, rows: Tensor) -> Batch:
        if self._whole is None:
            self._whole = self.backend.graph(self.data, self.device)
            self._x, self._y = self.data.x.to(self.device), self.data.y.to(self.device)
        return Batch(self._whole, self._x, self._y, rows.to(self.device), torch.tensor([0]))

    def _set_of_graphs(self, ids: Tensor, augmentation: torch.Generator | None = None) -> Batch:
        nodes, ptr = ranges(self.data.graph_ptr, ids)
        own = x = self.data.x[nodes]
        version = None if own.is_inference() else own._version
        if augmentation is not None and self.augment is not None:
            x = self.augment(own, ptr, augmentation)
        # a data set that does not augment gives back what it got; what inference mode made is never known
        unchanged = x is own and version is not None and x._version == version
        x = x.to(self.device)
        y = self.data.y[ids if self.data.task.level == "graph" else nodes]
        graph = self.backend.batch([self._graph(i) for i in ids.tolist()])
        if self.neighbours is not None and unchanged:
            graph = replace(graph, points=StaticPoints(x, graph.ptr, ids, nodes, self.neighbours))
        rows = torch.arange(len(y), device=self.device)
        return Batch(graph, x, y.to(self.device), rows, ids)

    def _graph(self, index: int) -> Graph:
        if index not in self._graphs:
            self._graphs[index] = self.backend.graph(self.data.graph(index), self.device)
        return self._graphs[index]


def ranges(ptr: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of the concatenated ranges ptr[i]:ptr[i+1] for i in ``ids``, and the ptr of the result."""
    sizes = ptr.diff()[ids]
    new_ptr = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    offset = (ptr[ids] - new_ptr[:-1]).repeat_interleave(sizes)
    return torch.arange(int(new_ptr[-1])) + offset, new_ptr


@torch.no_grad()
def predict(model: nn.Module, batches: list[Batch]) -> list[tuple[Tensor, Tensor]]:
    """Logits and labels of the rows that count, batch by batch, in evaluation mode: [M, C] and [M] or [M, C]."""
    model.eval()
    return [(model(batch.graph, batch.x).logits[batch.rows], batch.y[batch.rows]) for batch in batches]


@dataclass(frozen=True)
class TeacherOutputs:
    """The frozen teacher's outputs for the graphs that students train on, as if they were one graph.

    ids: [G] those graphs, ascending; ptr: [G + 1] first node of each. logits: [N, C] or [G, C]; hidden: [N, D_l] per
    layer. edge_index: [2, E], the graphs' own edges. edges: [2, E_l] per layer where those are not what the model used:
    ``dynamic``, where it drew its own, else none at all (MLP); int32 where they come from a file. precomputed: per-node
    or per-edge tensors of a method.
    """

    ids: Tensor
    ptr: Tensor
    logits: Tensor
    hidden: tuple[Tensor, ...]
    edge_index: Tensor
    dynamic: bool
    edges: tuple[Tensor, ...] | None = None
    precomputed: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def output(self) -> Output:
        """All of it."""
        edges = self.edges or (self.edge_index,) * len(self.hidden)
        return Output(self.logits, self.hidden, edges, self.dynamic)

    def of(self, batch: Batch) -> tuple[Output, dict[str, Tensor]]:
        """The part for one batch of graphs, and its part of what was precomputed, on the batch's device.

        Raises:
            ValueError: the teacher has no outputs for some of these graphs (it was trained on another split).
        """
        device = batch.x.device
        if not torch.isin(batch.graph_ids, self.ids).all():
            raise ValueError(f"no teacher outputs for some of the graphs {batch.graph_ids.tolist()}: another split?")
        places = torch.searchsorted(self.ids, batch.graph_ids)
        nodes, ptr = ranges(self.ptr, places)
        per_node = len(self.logits) == int(self.ptr[-1])
        logits = self.logits[nodes if per_node else places].to(device)
        hidden = tuple(h[nodes].to(device) for h in self.hidden)
        if self.edges is None:
            edges = (batch.graph.edge_index,) * len(hidden)
        else:
            edges = tuple(cut_edges(drawn, self.ptr, places, ptr).to(device) for drawn in self.edges)
        if self.precomputed:
            edge_rows, _ = ranges(_edge_ptr(self.edge_index, self.ptr), places)
        # where there are as many edges as nodes each node has just its self-loop, and both kinds of rows are the same
        precomputed = {
            name: value[nodes if len(value) == int(self.ptr[-1]) else edge_rows].to(device)
            for name, value in self.precomputed.items()
        }
        return Output(logits, hidden, edges, self.dynamic), precomputed


def teacher_outputs(model: nn.Module, inputs: Inputs, part: Tensor) -> TeacherOutputs:
    """Run the frozen teacher once over the graphs of ``part`` (transductive: over the whole graph)."""
    model.eval()
    data, cpu = inputs.data, torch.device("cpu")
    ids = torch.tensor([0]) if inputs.transductive else part.sort().values
    with torch.no_grad():
        outputs = []
        for batch in inputs.ordered(ids):
            out = model(batch.graph, batch.x)
            other = not all(map(out.on_own_edges, range(len(out.hidden))))
            # off the device at once: of many clouds they are more than it holds
            edges = tuple(_by_graph(each).to(cpu, torch.int32) for each in out.edge_index) if other else ()
            outputs.append((batch.graph.num_nodes, out.logits.to(cpu), tuple(h.to(cpu) for h in out.hidden), edges))
    _, ptr = ranges(data.graph_ptr, ids)
    sizes, logits, hidden, edges_drawn = zip(*outputs, strict=True)
    starts = [0, *itertools.accumulate(sizes)]
    return TeacherOutputs(
        ids=ids,
        ptr=ptr,
        logits=torch.cat(logits),
        hidden=tuple(torch.cat(layer) for layer in zip(*hidden, strict=True)),
        edge_index=cut_edges(data.edge_index, data.graph_ptr, ids, ptr),
        dynamic=out.dynamic,
        edges=tuple(
            torch.cat([edges + start for edges, start in zip(layer, starts, strict=False)], dim=1)
            for layer in zip(*edges_drawn, strict=True)
        )
        or None,
    )


def _by_graph(edges: Tensor) -> Tensor:
    """Edges sorted by destination, as they are cut by graphs; those that are stay in their order."""
    if bool((edges[1].diff() >= 0).all()):
        return edges
    return edges[:, edges[1].argsort(stable=True)]


def save_outputs(path: Path, outputs: TeacherOutputs) -> None:
    """Write teacher outputs atomically."""
    content = {f.name: getattr(outputs, f.name) for f in fields(outputs) if f.name != "precomputed"}
    write_atomically(path, lambda file: torch.save(content, file))


def load_outputs(path: Path) -> TeacherOutputs:
    """Read what ``save_outputs`` wrote, as far as it is used: the file is mapped. Raises DataError naming the file."""
    try:
        return TeacherOutputs(**load_tensors(path, mmap=True))
    except TypeError as error:
        raise DataError(f"{path}: not the outputs of a teacher ({error})") from error


def load_tensors(path: Path, *, mmap: bool = False) -> dict[str, Any]:
    """What ``torch.save`` wrote: names and tensors. Never unpickles code. Raises DataError naming the file."""
    try:
        content: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu", mmap=mmap)
    except Exception as error:  # torch, zipfile and pickle name a damaged file in a dozen ways
        reason = (str(error).splitlines() or [""])[0]
        raise DataError(
            f"{path}: refused: cannot be read as tensors ({type(error).__name__}: {reason}); delete it and run "
            "snakemake again"
        ) from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: refused: holds a {type(content).__name__}, not tensors by name")
    return content


def _edge_ptr(edge_index: Tensor, ptr: Tensor) -> Tensor:
    return torch.searchsorted(edge_index[1].contiguous(), ptr.to(edge_index.dtype))


def cut_edges(edge_index: Tensor, ptr: Tensor, places: Tensor, new_ptr: Tensor) -> Tensor:
    """The edges of the graphs at ``places``, renumbered as those graphs' nodes are in ``new_ptr``."""
    edge_ptr = _edge_ptr(edge_index, ptr)
    rows, _ = ranges(edge_ptr, places)
    shift = (new_ptr[:-1] - ptr[places]).repeat_interleave(edge_ptr.diff()[places])
    return edge_index[:, rows] + shift
