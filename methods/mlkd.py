"""Multi-label knowledge distillation (MLKD, L2D).

Yang, Xie, Zong, Feng, Niu, Sugiyama, Huang: Multi-Label Knowledge Distillation. ICCV 2023, arXiv 2308.06453;
code: github.com/penghui-yang/L2D (``mld.py``, ``cd.py``, ``id.py``, ``huber_dist.py``).
    L = task + λ_MLD Σ_ic KL(σ(z_ic^t) ‖ σ(z_ic^s)) + λ_CD Σ_c H({e_ic: i has c}) + λ_ID Σ_i H({e_ic: i has c})
    H({e_1, ..., e_n}) = (1/n) Σ_{a≠b} l(‖e_a^s − e_b^s‖ / μ^s, ‖e_a^t − e_b^t‖ / μ^t),   l: Huber,   μ: mean distance
KL is that of two Bernoulli distributions. CD compares, for each label, the nodes that have it (class-aware); ID, for
each node, the labels that it has (instance-aware). μ is over the same pairs, as in the code, so that two embeddings
teach nothing: their distance is 1 for both models.

Adapted: the label-wise embeddings e_ic. The paper's networks, teacher's and student's, end in a decoder (ML-Decoder)
in which a query of label c attends to the positions of image i; e_ic is its output and the logit a linear function of
it. A node is a single position, the models here have no such decoder, and a frozen teacher cannot be given one. Instead
    e_ic = h_i ⊙ (μ_c⁺ − μ_c⁻),   μ_c⁺ = Σ_i σ(z_ic) h_i / Σ_i σ(z_ic),   μ_c⁻ the same with 1 − σ(z_ic)
over the nodes of the batch, h the hidden features: the terms of which a linear classifier by the difference of means
sums up its logit. It has no parameters. (σ(z_ic) h_i would be simpler, but then h_i falls out of ID.) Gradients reach h
and the logits. Labels count for the labelled nodes only; MLD is over all nodes.

KL direction: teacher ‖ student. Reduction: means, MLD over nodes and labels, CD and ID over the pairs of a node and a
label that it has. Layers: last hidden of both, before the activation. Defaults: the code's λ = 10, 100 and 1000 stand
beside a BCE summed over 64 images and 80 labels with 2.9 of them true (COCO), and MLD has a mean over images; between
means, as here, that is 10/64 = 0.16, 100·2.9/80 = 3.6 and 36. At most 128 nodes for CD and ID are ours (the code's
batches: 64 images). Not tuned. Searched: each λ from a tenth of its default to ten times it (ours).
Cost: linear in nodes; n²C + nC² distances of n ≤ 128 sampled nodes, in float64, of which those within a few labels (or
of a few nodes) at a time are held (8 MB), and no n·C·D tensor.
"""

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from distillbench.plugin import Context, LayerPair, LayerPairs, Method, Output, Parameters, Range, sum_over_rows


class MLKD(Method):
    """Match each label's probability, and the distances of label-wise embeddings."""

    paper, tasks, requires = "yang2023", frozenset({"multilabel"}), frozenset({"logits", "hidden", "labels"})

    class Params(Parameters):
        """logits_weight: λ_MLD. class_weight: λ_CD. instance_weight: λ_ID. layers: (student, teacher).

        max_nodes: of more labelled nodes, so many are drawn in each step for CD and ID.
        """

        logits_weight: Annotated[NonNegativeFloat, Range(0.016, 1.6)] = 0.16
        class_weight: Annotated[NonNegativeFloat, Range(0.36, 36)] = 3.6
        instance_weight: Annotated[NonNegativeFloat, Range(3.6, 360)] = 36.0
        layers: LayerPairs = (LayerPair(-1, -1),)
        max_nodes: PositiveInt = 128

    def terms(self, student: Output, teacher: Output, ctx: Context) -> dict[str, Tensor]:
        """Task loss, loss of the logits, and the losses of the embeddings by label and by node."""
        nodes = ctx.labelled.nonzero().squeeze(-1)
        if len(nodes) > self.params.max_nodes:
            drawn = torch.randperm(len(nodes), generator=ctx.random)[: self.params.max_nodes]
            nodes = nodes[drawn.to(nodes.device)]
        has = ctx.labels[nodes] > 0.5
        by_class, by_instance = [], []
        for s, t in self.params.layers:
            h_s, c_s = _embeddings(student.hidden[s], student.logits, nodes)
            h_t, c_t = _embeddings(teacher.hidden[t], teacher.logits, nodes)
            by_class.append(_distance_loss((c_s, c_t), (h_s, h_t), has.T))
            by_instance.append(_distance_loss((h_s, h_t), (c_s, c_t), has))
        return {
            "task": ctx.task_loss(student.logits),
            "logits": self.params.logits_weight * _binary_divergence(student.logits, teacher.logits).mean(),
            "class": self.params.class_weight * torch.stack(by_class).mean(),
            "instance": self.params.instance_weight * torch.stack(by_instance).mean(),
        }


def _binary_divergence(z_s: Tensor, z_t: Tensor) -> Tensor:
    """KL(σ(z_t) ‖ σ(z_s)) of each logit."""
    positive = z_t.sigmoid() * (F.logsigmoid(z_t) - F.logsigmoid(z_s))
    return positive + (-z_t).sigmoid() * (F.logsigmoid(-z_t) - F.logsigmoid(-z_s))


def _embeddings(h: Tensor, logits: Tensor, nodes: Tensor) -> tuple[Tensor, Tensor]:
    """The factors of e_ic: h_i of ``nodes``, [n, D], and μ_c⁺ − μ_c⁻, [C, D]; h [N, D], logits [N, C]: of all."""
    h, logits = h.double(), logits.double()
    # a softmax over the nodes of log σ: weights σ / Σ σ that cannot overflow or vanish
    with_label, without = (F.logsigmoid(z).softmax(dim=0).T @ h for z in (logits, -logits))
    return h[nodes], with_label - without


def _distance_loss(groups: tuple[Tensor, Tensor], members: tuple[Tensor, Tensor], has: Tensor) -> Tensor:
    """Σ H over the groups, over the number of embeddings.

    groups, members: [groups, D] and [n, D], of the student and of the teacher; the embeddings of a group are its row
    times those of the members, and count where it ``has`` [groups, n] them.
    """
    # equal embeddings have no direction to move in: a distance that is rounding gets no gradient
    smallest = [
        1e-12 * (g.detach().square() @ m.detach().square().T).mean() + torch.finfo(g.dtype).tiny
        for g, m in zip(groups, members, strict=True)
    ]
    width = len(members[0]) * max(len(members[0]), members[0].shape[1], members[1].shape[1])
    total = sum_over_rows(_distance_losses, (*groups, has), (*members, *smallest), width=width)
    return total / has.sum().clamp_min(1)


def _distance_losses(
    g_s: Tensor, g_t: Tensor, has: Tensor, m_s: Tensor, m_t: Tensor, smallest_s: Tensor, smallest_t: Tensor
) -> Tensor:
    """Σ H of some groups."""
    itself = torch.eye(has.shape[1], dtype=torch.bool, device=has.device)
    pairs = has[:, :, None] & has[:, None, :] & ~itself
    d_s, d_t = _distances(g_s[:, None] * m_s, pairs, smallest_s), _distances(g_t[:, None] * m_t, pairs, smallest_t)
    huber = F.smooth_l1_loss(d_s, d_t, reduction="none") * pairs
    return (huber.sum(dim=(1, 2)) / has.sum(dim=1).clamp_min(1)).sum()


def _distances(e: Tensor, pairs: Tensor, smallest: Tensor) -> Tensor:
    """Distances within each group, over their mean over ``pairs``: [groups, n, n]."""
    inner = e @ e.mT
    squared = inner.diagonal(dim1=1, dim2=2)
    distances = (squared[:, :, None] + squared[:, None, :] - 2 * inner).clamp(min=smallest).sqrt()
    count = pairs.sum(dim=(1, 2), keepdim=True)
    mean = (distances * pairs).sum(dim=(1, 2), keepdim=True) / count.clamp_min(1)
    return distances / torch.where(count > 0, mean, 1.0)
