"""Centred kernel alignment as a loss (CKA).

Kornblith, Norouzi, Lee, Hinton: Similarity of Neural Network Representations Revisited. ICML 2019, arXiv 1905.00414.
    L = task + β (1 − CKA(Z_s, Z_t)),   CKA(X, Y) = ‖YᵀX‖²_F / (‖XᵀX‖_F ‖YᵀY‖_F)                (linear CKA, section 3)
with the columns of X and Y centred over the nodes of the batch. The paper measures with it; as a loss for distillation
it is used by, among others, Zhou et al. (IJCAI 2024, arXiv 2401.11824).

Reduction: none, CKA is one number in [0, 1] for a batch. Layers: last hidden of both, before the activation.
Default β = 1 is ours: there is none in the paper; not tuned. Searched: β from 0.1 to 10 (ours).
Cost: linear in nodes, quadratic in the features; no N×N matrix.
"""

from typing import Annotated

import torch
from pydantic import PositiveFloat
from torch import Tensor

from distillbench.plugin import ALL_TASKS, Context, LayerPair, LayerPairs, Method, Output, Parameters, Range


class CKA(Method):
    """Match features up to rotation and scale."""

    paper, tasks, requires = "kornblith2019", ALL_TASKS, frozenset({"hidden"})

    class Params(Parameters):
        """weight: β. layers: (student, teacher)."""

        weight: Annotated[PositiveFloat, Range(0.1, 10)] = 1.0
        layers: LayerPairs = (LayerPair(-1, -1),)

    def terms(self, student: Output, teacher: Output, ctx: Context) -> dict[str, Tensor]:
        """Task loss and alignment loss."""
        losses = []
        for s, t in self.params.layers:
            x, y = (z.double() - z.double().mean(dim=0) for z in (student.hidden[s], teacher.hidden[t]))
            scale = (x.T @ x).norm() * (y.T @ y).norm()
            losses.append(1 - (y.T @ x).square().sum() / torch.where(scale > 0, scale, 1.0))
        return {"task": ctx.task_loss(student.logits), "alignment": self.params.weight * torch.stack(losses).mean()}
