"""Sums, attention, extremes and moments over neighbours, with their derivatives, without a tensor of edges × features.

Each is a ``torch.autograd.Function`` on an Adjacency. The forward pass goes along the incoming edges, the backward pass
along the outgoing ones, which are sorted, too, so sums have one order and results are reproducible. One gradient is
scattered, that of extremes: on CUDA, what a node receives from several maxima is added in no fixed order.
First derivatives only: the derivative of a derivative raises RuntimeError.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from distillbench.models.backends.adjacency import Adjacency
from distillbench.models.backends.compressed_rows import Rows, products, reduced, sums


def neighbour_sum(x: Tensor, adjacency: Adjacency, weights: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Σ_j w_ij x_j over the edges j → i: [N, D] from ``x`` [N, D].

    weights: [E] for the incoming and the same for the outgoing edges, constants; without them all are 1.
    """
    out: Tensor = _NeighbourSum.apply(x, adjacency, weights)
    return out


class _NeighbourSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, adjacency: Adjacency, weights: tuple[Tensor, Tensor] | None) -> Tensor:
        ctx.adjacency, ctx.weights = adjacency, weights
        return sums(adjacency.incoming, x, weights and weights[0])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return sums(ctx.adjacency.outgoing, grad, ctx.weights and ctx.weights[1]), None, None


def attention(x: Tensor, att_src: Tensor, att_dst: Tensor, adjacency: Adjacency, negative_slope: float) -> Tensor:
    """Σ_j α_ij x_j with α_ij = softmax_j LeakyReLU(att_src · x_j + att_dst · x_i), for each head: [N, H, D].

    x: [N, H, D], projected features. att_src, att_dst: [1, H, D].

    Velickovic et al.: Graph Attention Networks. ICLR 2018 (eqs. 3 and 4).
    """
    out: Tensor = _Attention.apply(x, att_src, att_dst, adjacency.heads(x.shape[1]), negative_slope)
    return out


class _Attention(torch.autograd.Function):
    """Rows of ``repeated`` are pairs of node and head, so that one head and many are the same."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, att_src: Tensor, att_dst: Tensor, repeated: Adjacency, negative_slope: float
    ) -> Tensor:
        nodes, heads, width = x.shape
        side = repeated.incoming
        # one product for all scores: column h of vectors has head h's part of the attention vector, zeros elsewhere
        vectors = torch.cat([_blocks(att_src), _blocks(att_dst)], dim=1)
        source, destination = (x.reshape(nodes, -1) @ vectors).split(heads, dim=1)
        scores = _at(source.reshape(-1), side.neighbour).add_(_at(destination.reshape(-1), side.row))
        alpha = F.leaky_relu(scores, negative_slope)
        alpha.sub_(_at(reduced(alpha, side, "max"), side.row)).exp_()
        alpha.div_(_at(reduced(alpha, side, "sum"), side.row))
        ctx.save_for_backward(x, vectors, scores, alpha)
        ctx.repeated, ctx.negative_slope = repeated, negative_slope
        return sums(side, x.reshape(-1, width), alpha).view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, vectors, scores, alpha = ctx.saved_tensors
        (nodes, heads, width), side, outgoing = x.shape, ctx.repeated.incoming, ctx.repeated.outgoing
        order = ctx.repeated.order
        flat, grad = x.reshape(-1, width), grad.reshape(-1, width)
        d_scores = products(side, grad, flat)
        d_scores.sub_(_at(reduced(alpha * d_scores, side, "sum"), side.row)).mul_(alpha)
        d_scores = torch.ops.aten.leaky_relu_backward(d_scores, scores, ctx.negative_slope, False)
        d_ends = torch.cat(
            [
                reduced(_at(d_scores, order), outgoing, "sum").view(nodes, heads),
                reduced(d_scores, side, "sum").view(nodes, heads),
            ],
            dim=1,
        )
        d_x = sums(outgoing, grad, _at(alpha, order)).view(nodes, -1).addmm_(d_ends, vectors.T)
        d_vectors = (x.reshape(nodes, -1).T @ d_ends).view(heads, width, 2, heads).diagonal(dim1=0, dim2=3)
        d_src, d_dst = d_vectors.permute(1, 2, 0).unsqueeze(1)
        return d_x.view_as(x), d_src, d_dst, None, None


def neighbour_max(x: Tensor, adjacency: Adjacency) -> Tensor:
    """max_j x_j over the edges j → i, by feature: [N, D] from ``x`` [N, D]; 0 for a node without any.

    Of equal maxima the first has the gradient.
    """
    out: Tensor = _NeighbourMax.apply(x, adjacency)
    return out


class _NeighbourMax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, adjacency: Adjacency) -> Tensor:
        ptr, neighbour, _ = adjacency.incoming
        # _, offset of bags, size of bags, and for each maximum the row of x that has it
        found, _, _, ctx.where = torch.embedding_bag(x.detach(), neighbour, ptr, False, 2, False, None, True, None)
        ctx.isolated = adjacency.incoming.degrees == 0
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad = grad.masked_fill(ctx.isolated[:, None], 0.0)
        where = ctx.where.long().clamp_min(0)  # a node without neighbours has none, and on CUDA that is -1
        return torch.zeros_like(grad).scatter_add_(0, where, grad), None


def edge_moments(a: Tensor, b: Tensor, adjacency: Adjacency) -> tuple[Tensor, Tensor]:
    """Mean and (biased) variance of a_i − b_j over all edges j → i, by feature: [D] each, from ``a`` and ``b`` [N, D].

    From sums over nodes: with ã and b̃ centred over the edges and the degrees d,
        Σ (ã_i − b̃_j)² = Σ_i ã_i (d_i ã_i − 2 Σ_j b̃_j) + Σ_j d_j b̃_j².
    Where neighbours are close, most of that cancels, so it is worked out in float64: the error is about 1e-15 of
    the variance of a and b themselves, far below the eps of a batch norm.
    """
    mean, var = _EdgeMoments.apply(a, b, adjacency)
    return mean, var


class _EdgeMoments(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, adjacency: Adjacency) -> tuple[Tensor, Tensor]:
        mean_a, centred_a, in_degrees = _centred(a, adjacency.incoming)
        mean_b, centred_b, out_degrees = _centred(b, adjacency.outgoing)
        # the sum over a node's edges of ã_i − b̃_j: half of the derivative by a_i, too
        of_a = in_degrees * centred_a - sums(adjacency.incoming, centred_b)
        squares = (centred_a * (2 * of_a - in_degrees * centred_a)).sum(0) + (out_degrees * centred_b.square()).sum(0)
        ctx.save_for_backward(a, b, of_a.to(a.dtype))
        ctx.adjacency = adjacency
        return (mean_a - mean_b).to(a.dtype), (squares / adjacency.num_edges).clamp_min(0.0).to(a.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_mean: Tensor, d_var: Tensor) -> tuple[Tensor | None, ...]:
        adjacency, (a, b, of_a) = ctx.adjacency, ctx.saved_tensors
        _, centred_a, in_degrees = _centred(a, adjacency.incoming)
        _, centred_b, out_degrees = _centred(b, adjacency.outgoing)
        of_b = out_degrees * centred_b - sums(adjacency.outgoing, centred_a)
        d_a = (in_degrees * d_mean + 2 * d_var * of_a) / adjacency.num_edges
        d_b = (2 * d_var * of_b - out_degrees * d_mean) / adjacency.num_edges
        return d_a.to(a.dtype), d_b.to(b.dtype), None


def _centred(x: Tensor, side: Rows) -> tuple[Tensor, Tensor, Tensor]:
    """Mean over the edges [D], x without it [N, D], and degrees [N, 1], in float64."""
    degrees, x = side.degrees[:, None].double(), x.double()
    mean = (degrees * x).sum(0) / len(side.neighbour)
    return mean, x - mean, degrees


def _at(values: Tensor, index: Tensor) -> Tensor:
    return values.index_select(0, index)


def _blocks(vectors: Tensor) -> Tensor:
    """[H·D, H] from [1, H, D]: column h is vector h at its head's place, and zero elsewhere."""
    return torch.block_diag(*vectors[0].unsqueeze(-1))
