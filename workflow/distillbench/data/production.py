"""The production setting: some test nodes, and their edges, are not there until the test.

Zhang, Liu, Sun, Shah: Graph-less Neural Networks: Teaching Old MLPs New Tricks Via Distillation. ICLR 2022. A fifth of
the test nodes is unseen by teacher and student; the metric is of all test nodes, so the unseen ones count 20%. As in
the authors' code, nodes that were seen are predicted on the graph that was seen, the unseen ones on the whole graph.
"""

from dataclasses import replace

import torch
from torch import Tensor

from distillbench.data.graph_data import GraphData, Split
from distillbench.seeds import generator

UNSEEN = 0.2  # of the test part


def observed(split: Split, num_nodes: int, seed: int) -> Tensor:
    """The nodes that are there in training, ascending: all but a fifth of the test part, drawn by the seed."""
    test = split.test.sort().values
    drawn = torch.randperm(len(test), generator=generator(seed, "unseen"))[: max(1, round(UNSEEN * len(test)))]
    there = torch.ones(num_nodes, dtype=torch.bool)
    there[test[drawn]] = False
    return there.nonzero().flatten()


def place(split: Split, nodes: Tensor) -> Split:
    """A split by the numbers that nodes have among ``nodes`` [n], ascending; all of its nodes are among them."""
    return Split(*(torch.searchsorted(nodes, part) for part in split))


def divided(test: Tensor, nodes: Tensor) -> dict[str, Tensor]:
    """The test part by whether its nodes are among the observed ``nodes``."""
    known = torch.isin(test, nodes)
    return {"seen": test[known], "unseen": test[~known]}


def with_labels(part: GraphData, data: GraphData, nodes: Tensor) -> GraphData:
    """The observed part of the data with its true labels again."""
    return replace(part, y=data.y[nodes])


def with_features(data: GraphData, extra: Tensor) -> GraphData:
    """The data with more features [N, P] beside its own."""
    return replace(data, x=torch.cat([data.x, extra.to(data.x)], dim=1))


def extended(extra: Tensor, nodes: Tensor, data: GraphData) -> Tensor:
    """[N, P] from the rows [n, P] of the observed ``nodes``: an unseen one has the mean of its observed neighbours'."""
    known = torch.zeros(data.num_nodes, dtype=torch.bool).index_fill(0, nodes, True)
    values = extra.new_zeros(data.num_nodes, extra.shape[1])
    values[nodes] = extra
    source, destination = data.edge_index
    counts = known[source] & ~known[destination]
    source, destination = source[counts], destination[counts]
    sums = torch.zeros_like(values).index_add(0, destination, values[source])
    numbers = extra.new_zeros(data.num_nodes).index_add(0, destination, extra.new_ones(len(destination)))
    return torch.where(known[:, None], values, sums / numbers.clamp(min=1)[:, None])
