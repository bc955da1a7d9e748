"""Graphs to measure on, generated: random, with skewed degrees, symmetric, with self-loops."""

import torch
from torch import Tensor

from distillbench.data.graph_data import symmetric_with_loops

# two graphs of PPI, which is what the paper's students see in a step
PPI_NODES, PPI_EDGES, PPI_FEATURES, PPI_CLASSES = 4520, 127_914, 50, 121


def random_edges(nodes: int, edges: int, seed: int = 0) -> Tensor:
    """``edges`` edges (or one less, since they come in pairs) among ``nodes`` nodes, [2, E], sorted by destination.

    How often a node is drawn is log-normal; degrees are as skewed as those of PPI.

    Raises:
        ValueError: more than half of all pairs are asked for; drawing them would take long, or never end.
    """
    if edges - nodes > nodes * (nodes - 1) // 2:
        raise ValueError(f"edges: {edges} are too many among {nodes} nodes")
    random = torch.Generator().manual_seed(seed)
    cumulative = torch.randn(nodes, generator=random).double().exp().cumsum(0)
    wanted = (edges - nodes) // 2
    codes = torch.empty(0, dtype=torch.int64)
    while len(codes) < wanted:
        drawn = torch.rand(2, wanted - len(codes) + 64, generator=random, dtype=torch.float64) * cumulative[-1]
        ends = torch.searchsorted(cumulative, drawn).clamp_(max=nodes - 1).sort(dim=0).values
        ends = ends[:, ends[0] != ends[1]]
        codes = torch.unique(torch.cat([codes, ends[0] * nodes + ends[1]]))
    codes = codes[torch.randperm(len(codes), generator=random)[:wanted]]
    return symmetric_with_loops(codes // nodes, codes % nodes, nodes)
