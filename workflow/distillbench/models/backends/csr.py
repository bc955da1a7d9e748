"""Layers in torch alone, on compressed rows: no graph library.

The reference that shows how far the libraries are from what this machine can do, and what runs where neither is
installed. Same layers, same names of weights, same results as PyG's and DGL's to rounding. The edge convolution takes
its moments in float64, which is slow on GPUs without fast float64 (most but those for data centres).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from distillbench.data.graph_data import GraphData
from distillbench.models.backends.adjacency import Batched, adjacency
from distillbench.models.backends.base import ConvKind, Graph, batch_of_clouds, concatenated_ptr
from distillbench.models.backends.csr_functions import attention, edge_moments, neighbour_max, neighbour_sum


class CSRBackend:
    """Graphs are ``Adjacency``, layers are below."""

    name = "csr"

    def device(self) -> torch.device:
        """CUDA where there is one."""
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def graph(self, data: GraphData, device: torch.device) -> Graph:
        """See Backend.graph."""
        edge_index = data.edge_index.to(device)
        native = adjacency(edge_index, data.num_nodes) if edge_index.shape[1] else None
        return Graph(native, edge_index, data.graph_ptr)

    def batch(self, graphs: Sequence[Graph]) -> Graph:
        """See Backend.batch."""
        if graphs[0].native is None:
            return batch_of_clouds(graphs)
        ptr = concatenated_ptr(graphs)
        starts = [0]
        for graph in graphs[:-1]:
            starts.append(starts[-1] + graph.num_nodes)
        edges = torch.cat([graph.edge_index + start for graph, start in zip(graphs, starts, strict=True)], dim=1)
        return Graph(Batched([graph.native for graph in graphs]), edges, ptr)

    def with_edges(self, graph: Graph, edge_index: Tensor) -> Graph:
        """See Backend.with_edges."""
        return Graph(adjacency(edge_index, graph.num_nodes), edge_index, graph.ptr)

    def conv(self, kind: ConvKind, d_in: int, d_out: int, **options: Any) -> nn.Module:
        """See Backend.conv. Here no library names the weights, so they have the common names themselves."""
        if kind == "gat":
            return _GAT(d_in, d_out, **options)
        if kind == "gcn":
            return _GCN(d_in, d_out)
        if kind == "sage":
            return _SAGE(d_in, d_out)
        if kind == "gin":
            return _GIN(options["nn"])
        if kind == "edge":
            return _EdgeConv(d_in, d_out)
        raise ValueError(f"conv: {kind!r} is not one of gat, gcn, sage, gin, edge")


class _GAT(nn.Module):
    """Velickovic et al.: Graph Attention Networks. ICLR 2018."""

    def __init__(self, d_in: int, d_out: int, heads: int, negative_slope: float = 0.2) -> None:
        super().__init__()
        self.heads, self.negative_slope = heads, negative_slope
        self.weight = nn.Parameter(torch.empty(heads * d_out, d_in))
        self.att_src, self.att_dst = (nn.Parameter(torch.empty(1, heads, d_out)) for _ in range(2))

    def forward(self, graph: Graph, x: Tensor) -> Tensor:
        projected = nn.functional.linear(x, self.weight).view(len(x), self.heads, -1)
        return attention(projected, self.att_src, self.att_dst, graph.native, self.negative_slope)


class _GCN(nn.Module):
    """Kipf, Welling: Semi-Supervised Classification with Graph Convolutional Networks. ICLR 2017."""

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(d_out, d_in))
        self.bias = nn.Parameter(torch.zeros(d_out))

    def forward(self, graph: Graph, x: Tensor) -> Tensor:
        weights = graph.native.normalisation
        # the sum is taken over the narrower of both sides of the product
        if x.shape[1] < len(self.weight):
            return nn.functional.linear(neighbour_sum(x, graph.native, weights), self.weight, self.bias)
        return neighbour_sum(nn.functional.linear(x, self.weight), graph.native, weights) + self.bias


class _SAGE(nn.Module):
    """Hamilton, Ying, Leskovec: Inductive Representation Learning on Large Graphs. NeurIPS 2017 (mean)."""

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.neighbour = nn.Linear(d_in, d_out, bias=False)
        self.add_module("self", nn.Linear(d_in, d_out, bias=False))  # by its name among the weights
        self.bias = nn.Parameter(torch.zeros(d_out))

    def forward(self, graph: Graph, x: Tensor) -> Tensor:
        own = self.get_submodule("self")(x) + self.bias
        if x.shape[1] < len(self.neighbour.weight):
            return own + self.neighbour(neighbour_sum(x, graph.native, graph.native.shares))
        return own + neighbour_sum(self.neighbour(x), graph.native, graph.native.shares)


class _GIN(nn.Module):
    """Xu, Hu, Leskovec, Jegelka: How Powerful are Graph Neural Networks? ICLR 2019 (ε = 0)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.nn = network

    def forward(self, graph: Graph, x: Tensor) -> Tensor:
        out: Tensor = self.nn(x + neighbour_sum(x, graph.native))
        return out


class _EdgeConv(nn.Module):
    """Wang et al.: Dynamic Graph CNN for Learning on Point Clouds. TOG 2019; the batch norm's batch is the edges.

    A message is a_i − b_j with a = (theta + phi) x and b = theta x. A batch norm is monotone in it by feature, so the
    largest normalised message is that of the smallest b_j, or of the largest where the norm's weight is negative.
    """

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.theta = nn.Linear(d_in, d_out, bias=False)
        self.phi = nn.Linear(d_in, d_out, bias=False)
        self.norm = nn.BatchNorm1d(d_out)

    def forward(self, graph: Graph, x: Tensor) -> Tensor:
        edges = graph.native
        # differences do not change with the origin, but their rounding does
        b = self.theta(x - x.detach().mean(dim=0))
        a = self.phi(x) + b
        mean, var = self._moments(a, b, edges)
        sign = torch.where(self.norm.weight.detach() < 0, -1.0, 1.0).to(x.dtype)
        largest = a + sign * neighbour_max(-sign * b, edges)
        out = (largest - mean) * ((var + self.norm.eps).rsqrt() * self.norm.weight) + self.norm.bias
        return out.masked_fill((edges.incoming.degrees == 0)[:, None], 0.0)  # nothing to take the largest of

    def _moments(self, a: Tensor, b: Tensor, edges: Any) -> tuple[Tensor, Tensor]:
        """Mean and variance of the messages, or what the norm knows of them; as nn.BatchNorm1d."""
        count = edges.num_edges
        norm: Any = self.norm  # its statistics are optional to nn.BatchNorm1d, not here
        if not norm.training:  # a frozen norm stays as it is in a layer that is trained
            return norm.running_mean, norm.running_var
        if count < 2:
            raise ValueError(f"a batch norm has no statistics of {count} messages")
        mean, var = edge_moments(a, b, edges)
        with torch.no_grad():
            norm.num_batches_tracked += 1
            norm.running_mean.lerp_(mean, norm.momentum)
            norm.running_var.lerp_(var * (count / (count - 1)), norm.momentum)
        return mean, var


BACKEND = CSRBackend()
