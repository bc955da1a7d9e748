"""Deep Graph Library."""

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

os.environ.setdefault("DGLBACKEND", "pytorch")
import dgl
from dgl.nn.pytorch import EdgeConv, GATConv, GINConv, GraphConv, SAGEConv

from distillbench.data.graph_data import GraphData
from distillbench.models.backends.base import ConvKind, Graph, batch_of_clouds, concatenated_ptr


class DGLBackend:
    """Graphs are ``dgl.DGLGraph``, layers from ``dgl.nn``."""

    name = "dgl"

    def device(self) -> torch.device:
        """CUDA where there is one and this build of DGL can use it (the wheels on PyPI cannot)."""
        if torch.cuda.is_available():
            try:
                dgl.graph(([0], [0])).to("cuda")
                return torch.device("cuda")
            except dgl.DGLError:
                pass  # a CPU build: stay on the CPU, and the record says so
        return torch.device("cpu")

    def graph(self, data: GraphData, device: torch.device) -> Graph:
        """See Backend.graph."""
        edge_index = data.edge_index.to(device)
        native = dgl.graph(tuple(edge_index), num_nodes=data.num_nodes) if edge_index.shape[1] else None
        return Graph(native, edge_index, data.graph_ptr)

    def batch(self, graphs: Sequence[Graph]) -> Graph:
        """See Backend.batch."""
        if graphs[0].native is None:
            return batch_of_clouds(graphs)
        native = dgl.batch([graph.native for graph in graphs])
        return Graph(native, torch.stack(native.edges()), concatenated_ptr(graphs))

    def with_edges(self, graph: Graph, edge_index: Tensor) -> Graph:
        """See Backend.with_edges."""
        return Graph(dgl.graph(tuple(edge_index), num_nodes=graph.num_nodes), edge_index, graph.ptr)

    def conv(self, kind: ConvKind, d_in: int, d_out: int, **options: Any) -> nn.Module:
        """See Backend.conv."""
        if kind == "gat":
            heads = options.pop("heads")
            names = {"fc.weight": "weight", "attn_l": "att_src", "attn_r": "att_dst"}
            return _Conv(GATConv(d_in, d_out, heads, bias=False, **options), names)
        if kind == "gcn":
            return _GCN(d_in, d_out)
        if kind == "sage":
            names = {"fc_neigh": "neighbour", "fc_self.weight": "self.weight", "fc_self.bias": "bias"}
            return _Conv(SAGEConv(d_in, d_out, "mean"), names)
        if kind == "gin":
            return _Conv(GINConv(options["nn"], "sum"), {"apply_func": "nn"})
        if kind == "edge":
            layer = EdgeConv(d_in, d_out, batch_norm=True)
            layer.theta.bias = layer.phi.bias = None  # a batch norm follows: DGL's biases are without effect
            return _Conv(layer, {"bn": "norm"})
        raise ValueError(f"conv: {kind!r} is not one of gat, gcn, sage, gin, edge")


class _Conv(nn.Module):
    def __init__(self, layer: nn.Module, canonical: dict[str, str]) -> None:
        super().__init__()
        self.layer, self.canonical = layer, canonical

    def forward(self, graph: Graph, x: Tensor) -> Tensor:
        out: Tensor = self.layer(graph.native, x)
        return out


class _GCN(nn.Module):
    """DGL keeps the weight transposed; given from outside, it has the common orientation [d_out, d_in]."""

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.canonical: dict[str, str] = {}
        self.weight = nn.Parameter(torch.empty(d_out, d_in))
        self.bias = nn.Parameter(torch.zeros(d_out))
        self.layer = GraphConv(d_in, d_out, norm="both", weight=False, bias=False)

    def forward(self, graph: Graph, x: Tensor) -> Tensor:
        out: Tensor = self.layer(graph.native, x, weight=self.weight.T) + self.bias
        return out


BACKEND = DGLBackend()
