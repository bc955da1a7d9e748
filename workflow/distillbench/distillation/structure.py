"""Local structure of a graph's features, and the divergence between two of them: the numerical core of LSP.

Yang et al., Distilling Knowledge from Graph Convolutional Networks, CVPR 2020, equations 1-4. Pure torch, used by both
libraries. Similarities are computed in float64 and without an [E, D] tensor (see edge_products), so nothing over- or
underflows, and near-duplicates keep their digits.
"""

import torch
from torch import Tensor

from distillbench.distillation.edge_products import (
    Edges,
    edge_absolute_distance,
    edge_cosine,
    edge_dot,
    edge_squared_distance,
)
from distillbench.models.gnn import Output
from distillbench.params import Direction, Kernel, Reduction


def local_structure(
    h: Tensor,
    edge_index: Tensor,
    kernel: Kernel = "rbf",
    *,
    sigma: float = 100.0,
    c: float = 0.0,
    degree: int = 2,
) -> Tensor:
    """Log of the local structure LS (eqs. 1-2): how similar a node is to each of its neighbours.

    Args:
        h: features, [N, D], floating.
        edge_index: [2, E] int64, rows (source, destination), in any order; an edge may be there several times.
        kernel: SIM(x, y) = "l2" |x-y|^2, "linear" x·y, "polynomial" (x·y + c)^degree, "rbf" exp(-|x-y|^2 / 2 sigma),
            "cosine" x·y / (|x| |y|), "exp-l1" exp(-|x-y|_1 / sigma) (the authors' released code).

    Returns:
        log LS, [E] float64, in the order of the edges: log-softmax, over the edges into one destination, of
        SIM(h[source], h[destination]). Differentiable in ``h``, with gradients of the type of ``h``. Float64, because a
        divergence is a small difference of such numbers: float32 leaves no digits of it between nearly uniform
        structures (rbf with a large sigma), and is infinite for distances past 1e19.

    Raises:
        ValueError: unknown kernel; an edge has an end that is not a node, not in 0 … N - 1.
    """
    source, destination = edge_index
    edges = Edges(source, destination, len(h))
    if kernel == "l2":
        similarity = edge_squared_distance(h, edges)
    elif kernel == "rbf":
        similarity = torch.exp(edge_squared_distance(h, edges) / (-2 * sigma))
    elif kernel == "exp-l1":
        similarity = torch.exp(edge_absolute_distance(h, edges) / -sigma)
    elif kernel == "linear":
        similarity = edge_dot(h, edges)
    elif kernel == "polynomial":
        similarity = (edge_dot(h, edges) + c) ** degree
    elif kernel == "cosine":
        similarity = edge_cosine(h, edges)
    else:
        raise ValueError(f"kernel: {kernel!r} is not one of l2, linear, polynomial, rbf, cosine, exp-l1")
    return _log_softmax_by(similarity, destination, len(h))


def structure_divergence(
    log_ls_student: Tensor,
    log_ls_teacher: Tensor,
    edge_index: Tensor,
    num_nodes: int,
    *,
    direction: Direction = "student||teacher",
    reduction: Reduction = "nodes",
) -> Tensor:
    """Kullback-Leibler divergence between two local structures over the same edges (eqs. 3-4), a scalar.

    Args:
        log_ls_student, log_ls_teacher: [E], from ``local_structure`` on the same ``edge_index``.
        edge_index: [2, E]; num_nodes: N.
        direction: "student||teacher" is the paper's, "teacher||student" the released code's.
        reduction: "nodes" sums over edges and divides by N (the paper); "edges" is the mean over edges (Joshi et al.).

    Raises:
        ValueError: the structures are not over these edges.
    """
    if not log_ls_student.shape == log_ls_teacher.shape == edge_index.shape[1:]:
        raise ValueError(
            f"structures over {tuple(log_ls_student.shape)} and {tuple(log_ls_teacher.shape)} edges do not match "
            f"edge_index {tuple(edge_index.shape)}"
        )
    p, q = log_ls_student, log_ls_teacher
    if direction == "teacher||student":
        p, q = q, p
    total = (p.exp() * (p - q)).sum()
    return total / (num_nodes if reduction == "nodes" else max(edge_index.shape[1], 1))


def union_edges(student: Output, s: int, teacher: Output, t: int, num_nodes: int) -> Tensor:
    """The union of the edges of two layers, E_u = E_s ∪ E_t (Yang et al. 2020, section 3.3: dynamic graphs).

    Returns [2, E_u] int64, sorted by destination, then source, without duplicates: the graph's own edges where neither
    model draws any (a static graph), and those of the other layer where one used none (an MLP), as they are.
    """
    of_student, of_teacher = student.edge_index[s], teacher.edge_index[t]
    if not of_student.shape[1]:
        return of_teacher
    if not of_teacher.shape[1] or (student.on_own_edges(s) and teacher.on_own_edges(t)):
        return of_student
    source, destination = torch.cat([of_student, of_teacher], dim=1)
    code = torch.unique(destination * num_nodes + source)
    return torch.stack([code % num_nodes, code // num_nodes])


def _log_softmax_by(value: Tensor, group: Tensor, num_groups: int) -> Tensor:
    """Log-softmax of ``value`` [E] within each group; stable, since each group's maximum is subtracted first."""
    peak = value.new_full((num_groups,), -torch.inf)
    peak = peak.scatter_reduce(0, group, value.detach(), "amax")
    shifted = value - peak[group]
    total = value.new_zeros(num_groups).index_add(0, group, shifted.exp())
    return shifted - total.log()[group]
