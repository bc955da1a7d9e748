"""Hardness-aware GNN-to-MLP distillation (HGMD).

Wu, Liu, Lin, Huang, Li: Teach Harder, Learn Poorer: Rethinking Hard Sample Distillation for GNN-to-MLP Knowledge
Distillation. CIKM 2024, arXiv 2407.14768; code: github.com/LirongWu/HGMD.
    p_ij = 1 − exp(−α cos(p_i^t, p_j^t) √(H(p_i^t) H(p_i^s)) / H(p_j^t)),   H: entropy over its largest value
    S: all (i, i), with p_ii = 1, and each edge (i, j) with probability p_ij, drawn anew in every step
    mixup:  L_hard = mean over S of KL((1 − u_ij) q_i^t + u_ij q_j^t ‖ q_i^s),   u_ij = p_ij · Beta(β, β)
    weight: L_hard = mean over S of w_ij KL(q_j^t ‖ q_i^s), w_ij = |S_i| c_ij / Σ_k c_ik, c_ij = p_ij cos(p_i^t, p_j^t)
    L = λ task + (1 − λ) L_hard
p: softmax(logits); q: softmax(logits / τ); S_i: the pairs of i. The harder a node is (for the teacher, and by now for
the student), the more neighbours it learns from, and of these rather the easy ones. α falls from its first value to a
hundredth of it over ``epochs`` epochs, then stays. p_ij carries no gradient.

``samples``: the neighbours are drawn, so the terms depend on the numbering of nodes.
KL direction: teacher ‖ student. Reduction: mean over S, of all nodes together. Layers: logits. All as in the authors'
code, which also has no factor τ². Two differences: the student's hardness is that of the step, with dropout, not of an
evaluation after the last one, so that the first epoch is no exception (the code takes all edges); and the mixture needs
no 1e-6 to be kept from 0.
Defaults: mixup (the variant the paper puts first), λ = 0.1, τ = 0.9, α = 5, β = 0.3, 500 epochs, the authors' setting
for Cora with a GCN teacher; λ (0 to 0.2), τ (0.8 to 1.2), α (1 to 10) and β (0.3 to 0.5) are tuned for each data set.
Not tuned here. Searched: λ, τ and α, where they do.
Cost: linear in edges times classes.
"""

from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from distillbench.plugin import NODE_CLASSES, Context, Method, Output, Parameters, Range


class HGMD(Method):
    """Soft labels of a sampled neighbourhood that is larger where the node is harder."""

    paper, tasks, requires = "wu2024", NODE_CLASSES, frozenset({"logits"})
    mlp_only, samples = True, True
    excused = {
        "equal": "neighbours of a node do not predict what it predicts",
        "derivative": "how hard a node is for the student is held constant",
    }

    class Params(Parameters):
        """label_weight: λ. temperature: τ. alpha: α at first. epochs: over which α falls. beta: β of the mixup."""

        variant: Literal["weight", "mixup"] = "mixup"
        label_weight: Annotated[float, Field(ge=0, le=1), Range(0, 0.2, log=False)] = 0.1
        temperature: Annotated[PositiveFloat, Range(0.8, 1.2, log=False)] = 0.9
        alpha: Annotated[PositiveFloat, Range(1, 10)] = 5.0
        epochs: PositiveInt = 500
        beta: PositiveFloat = 0.3

    def terms(self, student: Output, teacher: Output, ctx: Context) -> dict[str, Tensor]:
        """Task loss and soft labels of the sampled neighbourhoods."""
        label_weight, temperature = self.params.label_weight, self.params.temperature
        cosine, chosen = self._hardness(student.logits.detach(), teacher.logits, ctx)
        own = ctx.edge_index[0] == ctx.edge_index[1]
        drawn = own | (torch.rand(len(own), generator=ctx.random).to(own.device) < chosen)
        (j, i), cosine, chosen = ctx.edge_index[:, drawn], cosine[drawn], chosen.masked_fill(own, 1)[drawn]
        log_s, q_t = (student.logits / temperature).log_softmax(-1), (teacher.logits / temperature).softmax(-1)
        if self.params.variant == "mixup":
            u = (chosen * self._beta(chosen, ctx.random)).unsqueeze(-1)
            hard = F.kl_div(log_s[i], (1 - u) * q_t[i] + u * q_t[j], reduction="batchmean")
        else:
            c = cosine * chosen
            of_node = c.new_zeros(2, ctx.num_nodes).index_add(1, i, torch.stack([c, torch.ones_like(c)]))
            w = c * (of_node[1] / of_node[0])[i]
            hard = (w * F.kl_div(log_s[i], q_t[j], reduction="none").sum(-1)).mean()
        return {"task": label_weight * ctx.task_loss(student.logits), "hard": (1 - label_weight) * hard}

    def _hardness(self, z_s: Tensor, z_t: Tensor, ctx: Context) -> tuple[Tensor, Tensor]:
        """cos(p_i^t, p_j^t) and the probability p_ij, of every edge (j, i)."""
        alpha = self.params.alpha / 100 ** min((ctx.epoch - 1) / max(self.params.epochs - 1, 1), 1)
        j, i = ctx.edge_index
        h_s, h_t, direction = entropy(z_s), entropy(z_t), F.normalize(z_t.softmax(-1), dim=-1)
        cosine = (direction[i] * direction[j]).sum(-1)
        return cosine, -torch.expm1(-alpha * cosine * (h_t[i] * h_s[i]).sqrt() / h_t[j])

    def _beta(self, like: Tensor, random: torch.Generator) -> Tensor:
        """Beta(β, β) for each element; by NumPy, since torch's distributions take no generator."""
        seed = torch.randint(2**62, (), generator=random).item()
        drawn = np.random.default_rng(seed).beta(self.params.beta, self.params.beta, size=like.shape)
        return torch.from_numpy(drawn).to(like)


def entropy(logits: Tensor) -> Tensor:
    """Entropy of softmax(logits) over the largest of all rows, [N, C] -> [N], in [1e-8, 1]."""
    log_p = logits.log_softmax(-1)
    h = -(log_p.exp() * log_p).sum(-1)
    return (h / h.max().clamp(min=1e-8)).clamp(min=1e-8)
