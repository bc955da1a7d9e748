"""What a graph library has to offer: graphs, batches and convolutions."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from distillbench.data.graph_data import GraphData
from distillbench.data.neighbours import StaticPoints, nearest_neighbours

ConvKind = str  # "gat", "gcn", "sage", "gin", "edge", or any that every backend has


@dataclass(frozen=True)
class Graph:
    """One graph, or several as one, on a device.

    native: the library's own graph (PyG: a Data; DGL: a DGLGraph; csr: compressed rows); None where there are no edges
    yet (point clouds). edge_index: [2, E] int64, sorted by destination. ptr: [G + 1] int64 on the CPU, first node of
    each graph. points: where these are whole graphs of a data set, the features they have there; their neighbours are
    looked up.
    """

    native: Any
    edge_index: Tensor
    ptr: Tensor
    points: StaticPoints | None = None

    @property
    def num_nodes(self) -> int:
        """Nodes of all graphs together."""
        return int(self.ptr[-1])

    @property
    def num_graphs(self) -> int:
        """Number of graphs."""
        return len(self.ptr) - 1

    @cached_property
    def graph_of_node(self) -> Tensor:
        """[N] int64: the graph each node belongs to."""
        return torch.arange(self.num_graphs).repeat_interleave(self.ptr.diff()).to(self.edge_index.device)

    def neighbours(self, x: Tensor, k: int) -> Tensor:
        """The k nearest nodes of each by ``x`` [N, D], see ``nearest_neighbours``; known ones if x are ``points``."""
        if self.points is not None and self.points.are(x):
            return self.points.edges(k)
        return nearest_neighbours(x, self.ptr, k)


class Backend(Protocol):
    """A graph library, or the layers in torch alone: same layers, same weights, same results to rounding."""

    name: str

    def device(self) -> torch.device:
        """The fastest device this build of the library can use."""

    def graph(self, data: GraphData, device: torch.device) -> Graph:
        """The graph(s) of ``data``."""

    def batch(self, graphs: Sequence[Graph]) -> Graph:
        """Several graphs as one, their nodes renumbered in order."""

    def with_edges(self, graph: Graph, edge_index: Tensor) -> Graph:
        """The same nodes with other edges (dynamic graphs); ``edge_index`` is sorted by destination."""

    def conv(self, kind: ConvKind, d_in: int, d_out: int, **options: Any) -> nn.Module:
        """A layer as ``module(graph, x) -> x``, [N, d_in] to [N, d_out] (gat: [N, heads, d_out]).

        Where it is a library's own, that one is its attribute ``layer``, and ``canonical`` maps prefixes of its
        parameters' names to names common to all backends; other layers have the common names themselves.
        gat: heads, negative_slope; no bias, no residual. gcn, sage: with bias. gin: ``nn`` is applied to the sum.
        edge: max over neighbours of BatchNorm(theta (x_i - x_j) + phi x_i), without activation.
        """


def concatenated_ptr(graphs: Sequence[Graph]) -> Tensor:
    """``ptr`` of several graphs as one."""
    sizes = torch.cat([graph.ptr.diff() for graph in graphs])
    return torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])


def batch_of_clouds(graphs: Sequence[Graph]) -> Graph:
    """Graphs without edges as one: there is nothing for a library to do."""
    return Graph(None, graphs[0].edge_index, concatenated_ptr(graphs))
