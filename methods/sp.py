"""Similarity-preserving distillation (SP).

Tung, Mori: Similarity-Preserving Knowledge Distillation. ICCV 2019, arXiv 1907.09682.
    L = task + γ (1/b²) ‖G_s − G_t‖²_F,   G = Z Zᵀ with each row divided by its length                   (section 3)
No b×b matrix is needed: ⟨A Xᵀ, B Yᵀ⟩ = ⟨AᵀB, XᵀY⟩, and the length of a row of Z Zᵀ is √(z_iᵀ (ZᵀZ) z_i).

Reduction: sum over rows and columns over b², b the nodes of the batch; mean over layer pairs (the paper sums them).
Layers: last hidden of both, before the activation. Default: γ = 3000 of the paper, which RepDistiller (its version is
verified by the paper's author) has too, for batches of 64 images; not tuned. Searched: γ from 300 to 30,000 (ours).
Rows have length one, so the term falls as 1/b: on a graph of N nodes γ·N/64 weighs as much.
Cost: linear in nodes, quadratic in the features; no N×N matrix.
"""

from typing import Annotated, NamedTuple

import torch
from pydantic import PositiveFloat
from torch import Tensor

from distillbench.plugin import ALL_TASKS, Context, LayerPair, LayerPairs, Method, Output, Parameters, Range


class SP(Method):
    """Match which nodes activate alike."""

    paper, tasks, requires = "tung2019", ALL_TASKS, frozenset({"hidden"})

    class Params(Parameters):
        """weight: γ. layers: (student, teacher)."""

        weight: Annotated[PositiveFloat, Range(300, 30000)] = 3000.0
        layers: LayerPairs = (LayerPair(-1, -1),)

    def terms(self, student: Output, teacher: Output, ctx: Context) -> dict[str, Tensor]:
        """Task loss and similarity loss."""
        losses = []
        for s, t in self.params.layers:
            g_s, g_t = (_factors(z.double()) for z in (student.hidden[s], teacher.hidden[t]))
            losses.append((_inner(g_s, g_s) + _inner(g_t, g_t) - 2 * _inner(g_s, g_t)) / ctx.num_nodes**2)
        return {"task": ctx.task_loss(student.logits), "similarity": self.params.weight * torch.stack(losses).mean()}


class _Factors(NamedTuple):
    """Of G = A Zᵀ: A and Z, both [N, D], and ZᵀZ."""

    a: Tensor
    z: Tensor
    gram: Tensor


def _factors(z: Tensor) -> _Factors:
    """Of the features [N, D] of all nodes; a node without any keeps a row of zeros."""
    gram = z.T @ z
    squared_length = ((z @ gram) * z).sum(dim=-1, keepdim=True)
    return _Factors(z / torch.where(squared_length > 0, squared_length, 1.0).sqrt(), z, gram)


def _inner(g: _Factors, other: _Factors) -> Tensor:
    """Σ_ij G_ij H_ij of two matrices given by their factors."""
    of_z = g.gram if g is other else g.z.T @ other.z
    return ((g.a.T @ other.a) * of_z).sum()
