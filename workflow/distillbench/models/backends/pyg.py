"""PyTorch Geometric."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import EdgeConv, GATConv, GCNConv, GINConv, SAGEConv

from distillbench.data.graph_data import GraphData
from distillbench.models.backends.base import ConvKind, Graph, batch_of_clouds, concatenated_ptr


class PyGBackend:
    """Graphs are ``torch_geometric.data.Data``, batches ``Batch``, layers from ``torch_geometric.nn``."""

    name = "pyg"

    def device(self) -> torch.device:
        """CUDA where there is one."""
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def graph(self, data: GraphData, device: torch.device) -> Graph:
        """See Backend.graph."""
        edge_index = data.edge_index.to(device)
        native = Data(edge_index=edge_index, num_nodes=data.num_nodes) if edge_index.shape[1] else None
        return Graph(native, edge_index, data.graph_ptr)

    def batch(self, graphs: Sequence[Graph]) -> Graph:
        """See Backend.batch."""
        if graphs[0].native is None:
            return batch_of_clouds(graphs)
        native = Batch.from_data_list([graph.native for graph in graphs])
        return Graph(native, native.edge_index, concatenated_ptr(graphs))

    def with_edges(self, graph: Graph, edge_index: Tensor) -> Graph:
        """See Backend.with_edges."""
        return Graph(Data(edge_index=edge_index, num_nodes=graph.num_nodes), edge_index, graph.ptr)

    def conv(self, kind: ConvKind, d_in: int, d_out: int, **options: Any) -> nn.Module:
        """See Backend.conv."""
        if kind == "gat":
            layer: nn.Module = GATConv(d_in, d_out, add_self_loops=False, bias=False, **options)
            return _Conv(layer, {"lin.weight": "weight"}, heads=options["heads"])
        if kind == "gcn":
            return _Conv(GCNConv(d_in, d_out, add_self_loops=False), {"lin.weight": "weight"})
        if kind == "sage":
            names = {"lin_l.weight": "neighbour.weight", "lin_l.bias": "bias", "lin_r": "self"}
            return _Conv(SAGEConv(d_in, d_out), names)
        if kind == "gin":
            return _Conv(GINConv(options["nn"]), {})
        if kind == "edge":
            names = {f"nn.{part}": part for part in ("theta", "phi", "norm")}
            return _Conv(EdgeConv(_EdgeFunction(d_in, d_out), aggr="max"), names)
        raise ValueError(f"conv: {kind!r} is not one of gat, gcn, sage, gin, edge")


class _Conv(nn.Module):
    def __init__(self, layer: nn.Module, canonical: dict[str, str], heads: int | None = None) -> None:
        super().__init__()
        self.layer, self.heads, self.canonical = layer, heads, canonical

    def forward(self, graph: Graph, x: Tensor) -> Tensor:
        out = self.layer(x, graph.native.edge_index)
        # not len(x), which an exported program takes for a constant
        return out.view(x.shape[0], self.heads, -1) if self.heads else out


class _EdgeFunction(nn.Module):
    """BatchNorm(theta (x_i - x_j) + phi x_i) from PyG's message input [x_i, x_j - x_i]."""

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.theta = nn.Linear(d_in, d_out, bias=False)
        self.phi = nn.Linear(d_in, d_out, bias=False)
        self.norm = nn.BatchNorm1d(d_out)

    def forward(self, message: Tensor) -> Tensor:
        x, difference = message.chunk(2, dim=-1)
        return self.norm(self.phi(x) - self.theta(difference))


BACKEND = PyGBackend()
