"""Local structure of a graph's features, and the divergence between two of them: the numerical core of LSP.

Yang et al., Distilling Knowledge from Graph Convolutional Networks, CVPR 2020, equations 1-4. Pure torch, used by both
libraries. Similarities are computed chunk by chunk from direct differences (the expansion |x|^2 + |y|^2 - 2xy loses all
digits on near-duplicates) and in float64, so no [E, D] tensor is ever held and nothing over- or underflows.
"""

from typing import Any

import torch
from torch import Tensor

from distillbench.params import Direction, Kernel, Reduction

_CHUNK_ELEMENTS = 1 << 18  # elements of one chunk's differences: 2 MB in float64, stays in cache


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
        edge_index: [2, E] int64, rows (source, destination), in any order.
        kernel: SIM(x, y) = "l2" |x-y|^2, "linear" x·y, "polynomial" (x·y + c)^degree, "rbf" exp(-|x-y|^2 / 2 sigma),
            "cosine" x·y / (|x| |y|), "exp-l1" exp(-|x-y|_1 / sigma) (the authors' released code).

    Returns:
        log LS, [E] float64, in the order of the edges: log-softmax, over the edges into one destination, of
        SIM(h[source], h[destination]). Differentiable in ``h``, with gradients of the type of ``h``. Float64, because a
        divergence is a small difference of such numbers: float32 leaves no digits of it between nearly uniform
        structures (rbf with a large sigma), and is infinite for distances past 1e19.

    Raises:
        ValueError: unknown kernel.
    """
    source, destination = edge_index
    if kernel == "l2":
        similarity = _squared_distance(h, source, destination)
    elif kernel == "rbf":
        similarity = torch.exp(_squared_distance(h, source, destination) / (-2 * sigma))
    elif kernel == "exp-l1":
        similarity = torch.exp(_EdgeSum.apply(h, source, destination, "absolute") / -sigma)  # type: ignore[no-untyped-call]
    elif kernel == "linear":
        similarity = _dot(h, source, destination)
    elif kernel == "polynomial":
        similarity = (_dot(h, source, destination) + c) ** degree
    elif kernel == "cosine":
        similarity = _dot(torch.nn.functional.normalize(h.double(), dim=-1), source, destination)
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


def union_edges(edge_index_a: Tensor, edge_index_b: Tensor, num_nodes: int) -> Tensor:
    """The union of two edge sets, E_u = E_s ∪ E_t (Yang et al. 2020, section 3.3: dynamic graphs).

    Returns [2, E_u] int64, sorted by destination, then source, without duplicates. Where the sets are one and the same
    tensor (a static graph) or one is empty (an MLP), the other is returned as it is.
    """
    if edge_index_a is edge_index_b or not edge_index_b.shape[1]:
        return edge_index_a
    if not edge_index_a.shape[1]:
        return edge_index_b
    source, destination = torch.cat([edge_index_a, edge_index_b], dim=1)
    code = torch.unique(destination * num_nodes + source)
    return torch.stack([code % num_nodes, code // num_nodes])


def unit_rows(z: Tensor) -> Tensor:
    """Rows of length one, of [N, D]. A row of zeros stays, with a gradient of its own size.

    F.normalize would multiply the gradient of such a row by 1e12; they occur where a node has no features.
    """
    length = z.norm(dim=-1, keepdim=True)
    return z / torch.where(length > 0, length, 1.0)


def _log_softmax_by(value: Tensor, group: Tensor, num_groups: int) -> Tensor:
    """Log-softmax of ``value`` [E] within each group; stable, since each group's maximum is subtracted first."""
    peak = value.new_full((num_groups,), -torch.inf)
    peak = peak.scatter_reduce(0, group, value.detach(), "amax")
    shifted = value - peak[group]
    total = value.new_zeros(num_groups).index_add(0, group, shifted.exp())
    return shifted - total.log()[group]


def _squared_distance(h: Tensor, source: Tensor, destination: Tensor) -> Tensor:
    """|h_source - h_destination|^2 for every edge, [E] float64."""
    return _EdgeSum.apply(h, source, destination, "squared")  # type: ignore[no-any-return, no-untyped-call]


def _dot(h: Tensor, source: Tensor, destination: Tensor) -> Tensor:
    """h_source · h_destination for every edge, [E] float64."""
    return _EdgeSum.apply(h, source, destination, "product")  # type: ignore[no-any-return, no-untyped-call]


class _EdgeSum(torch.autograd.Function):
    """Sum over features of what two ends of an edge make, forward and backward in chunks of edges.

    what: "product" a·b, "squared" (a - b)^2, "absolute" |a - b|, whose derivative at a = b is 0.
    """

    @staticmethod
    def forward(ctx: Any, h: Tensor, source: Tensor, destination: Tensor, what: str) -> Tensor:
        ctx.save_for_backward(h, source, destination)
        ctx.what = what
        out = h.new_empty(len(source), dtype=torch.float64)
        for part in _chunks(len(source), h.shape[1]):
            a, b = h[source[part]].double(), h[destination[part]].double()
            terms = a.mul_(b) if what == "product" else a.sub_(b)
            if what != "product":
                terms = terms.square_() if what == "squared" else terms.abs_()
            torch.sum(terms, dim=-1, out=out[part])
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        h, source, destination = ctx.saved_tensors
        out = torch.zeros_like(h, dtype=torch.float64)
        for part in _chunks(len(source), h.shape[1]):
            i, j, g = source[part], destination[part], grad[part, None]
            a, b = h[i].double(), h[j].double()
            if ctx.what != "product":  # d|a-b|^2: +2(a-b) at the source, -2(a-b) at the destination
                difference = a.sub_(b).mul_(2 * g) if ctx.what == "squared" else a.sub_(b).sign_().mul_(g)
                out.index_add_(0, i, difference).index_add_(0, j, difference, alpha=-1)
            else:
                out.index_add_(0, i, b.mul_(g)).index_add_(0, j, a.mul_(g))
        return out.to(h.dtype), None, None, None


def _chunks(num_edges: int, width: int) -> list[slice]:
    step = max(1, _CHUNK_ELEMENTS // max(width, 1))
    return [slice(start, start + step) for start in range(0, num_edges, step)]
