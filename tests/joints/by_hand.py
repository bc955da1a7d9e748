"""The two networks of these tests and their metrics, written out."""

import torch


def mlp(weights, x):
    """ReLU between two linear layers, without dropout."""
    return propagated(weights, torch.eye(len(x)), x)


def gcn(weights, x, edges):
    """Kipf and Welling's: D^-1/2 A D^-1/2 before each linear map. edges: [2, E], self-loops among them."""
    adjacency = torch.zeros(len(x), len(x))
    adjacency[edges[1], edges[0]] = 1
    scale = adjacency.sum(dim=1).rsqrt()
    return propagated(weights, scale[:, None] * adjacency * scale, x)


def propagated(weights, matrix, x):
    (w1, b1), (w2, b2) = ((weights[f"body.convs.{i}.weight"], weights[f"body.convs.{i}.bias"]) for i in range(2))
    return matrix @ (matrix @ x @ w1.T + b1).relu() @ w2.T + b2


def accuracy(logits, y):
    return sum(int(row.argmax() == label) for row, label in zip(logits, y, strict=True)) / len(y)


def micro_f1(logits, y):
    hits = sum(a > 0 and b == 1 for a, b in zip(logits.flatten().tolist(), y.flatten().tolist(), strict=True))
    return 2 * hits / ((logits > 0).sum().item() + (y == 1).sum().item())
