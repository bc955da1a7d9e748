"""Relational knowledge distillation (RKD).

Park, Kim, Lu, Cho: Relational Knowledge Distillation. CVPR 2019, arXiv 1904.05068; code: github.com/lenscloth/RKD.
    L = task + λ_D Σ_ij l(ψ_D(z_i^t, z_j^t), ψ_D(z_i^s, z_j^s)) + λ_A Σ_ijk l(ψ_A(z_i^t, z_j^t, z_k^t), ψ_A(z^s ...))
    ψ_D(z_i, z_j) = ‖z_i − z_j‖ / μ,   μ: mean distance of two different nodes                           (section 3.2.1)
    ψ_A(z_i, z_j, z_k) = cos ∠ z_i z_j z_k = ⟨e_ij, e_kj⟩,   e_ij = (z_i − z_j) / ‖z_i − z_j‖            (section 3.2.2)
    l(x, y): Huber, ½(x − y)² where |x − y| ≤ 1, else |x − y| − ½

Reduction: means over all n² pairs and n³ triples of the sampled nodes, those with a node twice (zero) included, as in
the authors' code; the equations have sums, to which the weights do not belong. ``normalise``: features of unit length
first, as their code has it for classification (not for metric learning, and not in the equations).
Layers: last hidden of both, before the activation. Defaults: λ_D = 25, λ_A = 50 are the authors' for classification; 64
nodes (their batches: 128) is ours, because angles cost n³; not tuned. Searched: λ_D from 2.5 to 250, λ_A from 5 to 500
(ours).
Nodes nearer to each other than μ/10,000 have a direction shorter than one, down to none between equal nodes.
The n³ angles are taken from the n² products of centred features, ⟨z_i − z_j, z_k − z_j⟩ = g_ik − g_ij − g_jk + g_jj; in
float64 that loses about 10⁻⁸ of an angle, even between directions of nodes as near as that.
Cost: n²·D + n³ time in the n ≤ 64 sampled nodes, however large the batch; n×n matrices and a block of the n³ angles
(8 MB) are held, with more nodes, too.
"""

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from distillbench.plugin import (
    ALL_TASKS,
    Context,
    LayerPair,
    LayerPairs,
    Method,
    Output,
    Parameters,
    Range,
    sum_over_rows,
    unit_rows,
)

_NEAR = 1e-4  # of the mean distance: bounds the gradient of a direction, and is above what float32 features resolve


class RKD(Method):
    """Match distances of pairs and angles of triples of nodes."""

    paper, tasks, requires = "park2019", ALL_TASKS, frozenset({"hidden"})

    class Params(Parameters):
        """distance_weight: λ_D. angle_weight: λ_A. layers: (student, teacher). normalise: features to unit length.

        max_nodes: of larger batches, so many nodes are drawn in each step.
        """

        distance_weight: Annotated[NonNegativeFloat, Range(2.5, 250)] = 25.0
        angle_weight: Annotated[NonNegativeFloat, Range(5, 500)] = 50.0
        layers: LayerPairs = (LayerPair(-1, -1),)
        normalise: bool = False
        max_nodes: PositiveInt = 64

    def terms(self, student: Output, teacher: Output, ctx: Context) -> dict[str, Tensor]:
        """Task loss, distance loss and angle loss."""
        nodes = ctx.sample(self.params.max_nodes)
        distances, angles = [], []
        for s, t in self.params.layers:
            z_s, z_t = (
                unit_rows(z[nodes].double()) if self.params.normalise else z[nodes].double()
                for z in (student.hidden[s], teacher.hidden[t])
            )
            (d_s, mean_s), (d_t, mean_t) = _distances(z_s), _distances(z_t)
            distances.append(F.smooth_l1_loss(d_s / mean_s, d_t / mean_t))
            (of_s, g_s), (of_t, g_t) = _sides(z_s, d_s, mean_s), _sides(z_t, d_t, mean_t)
            total = sum_over_rows(_angle_loss, (*of_s, *of_t), (g_s, g_t), width=len(nodes) ** 2)
            angles.append(total / len(nodes) ** 3)
        return {
            "task": ctx.task_loss(student.logits),
            "distance": self.params.distance_weight * torch.stack(distances).mean(),
            "angle": self.params.angle_weight * torch.stack(angles).mean(),
        }


def _distances(z: Tensor) -> tuple[Tensor, Tensor]:
    """‖z_i − z_j‖ [n, n] of features [n, D], and their mean μ over different nodes (1 where all are equal)."""
    # direct differences: the expansion of the square loses the digits of near ones
    distances = torch.cdist(z, z, compute_mode="donot_use_mm_for_euclid_dist")
    mean = distances.sum() / max(1, len(z) * (len(z) - 1))
    return distances, torch.where(mean > 0, mean, 1.0)


def _sides(z: Tensor, distances: Tensor, mean: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    """What the angles at each vertex are made of, and the products g [n, n] of centred features.

    Of a vertex: its row of g, its own product, and 1 over the lengths that the directions to all nodes are divided by.
    """
    centred = z - z.mean(dim=0)
    products = centred @ centred.T
    return (products, products.diagonal(), 1 / torch.maximum(distances, _NEAR * mean)), products


def _angle_loss(
    g_js: Tensor, own_s: Tensor, scale_s: Tensor, g_jt: Tensor, own_t: Tensor, scale_t: Tensor, g_s: Tensor, g_t: Tensor
) -> Tensor:
    """Σ_jik l(ψ_A^t, ψ_A^s) over some vertices j, see ``_sides``."""
    return F.smooth_l1_loss(_angles(g_js, own_s, scale_s, g_s), _angles(g_jt, own_t, scale_t, g_t), reduction="sum")


def _angles(g_j: Tensor, own: Tensor, scale: Tensor, g: Tensor) -> Tensor:
    """ψ_A [b (j, the vertex), n (i), n (k)]."""
    half = g_j - own[:, None] / 2
    return (g - half[:, :, None] - half[:, None, :]) * (scale[:, :, None] * scale[:, None, :])
