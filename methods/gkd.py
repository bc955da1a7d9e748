"""Geometric knowledge distillation (GKD).

Yang, Wu, Yan: Geometric Knowledge Distillation: Topology Compression for Graph Neural Networks. NeurIPS 2022,
arXiv 2210.13014; code: github.com/chr26195/GKD.
    L = task + (α/L) Σ_l ‖(K_t^l − K_s^l) ⊙ W‖_F²,   W_ij = 1 if (i,j) ∈ E, else δ                    (eqs. 12, 17)
    K_ij = tanh(⟨h_i, h_j⟩)                 "sigmoid"; eq. 14 with a = 1, b = 0, as released
         = exp(−‖h_i − h_j‖² / 4T)          "gaussian"; eq. 13
         = exp(−‖h_i − h_j‖ / T)            "exp-l2"; the released code's Gaussian
         = ⟨tanh(W' h_i), tanh(W' h_j)⟩     "random"; eq. 16 with one W' ~ N(0, 1), s·D of it, without its factor e^−λT
In the released code δ is the weight of the squared difference, here it is squared with it, so that code's 0.1 is √0.1;
and the task is weighted with 1 − α. The paper's "GKD+KD" is the variant gkd+kd. Its parametric kernel is not here.

Features are those after the batch norm of the paper's models (no affine part, statistics of all the batch's nodes).
Ours have none between layers, so hidden features before the activation are standardised so here, of both models.
W' is one for both models and drawn anew in each step, as released; the narrower model takes its first columns.

Layers: all hidden ones, each with its like, where the models are equally deep; else the last ones. Reduction: sum over
pairs of nodes, mean over layers (``mean``: over the pairs, too). Defaults from the released code: α = 0.5, T = 1,
s = 2, sigmoid, and its 2,048 nodes a step where it samples at all (by default it takes all nodes, as ``max_nodes: N``
does); δ = 0.1 is read as the paper's. Not tuned, and worth it: the sum grows with n² and can drown the task loss, and
with T = 1 and more than a few units the Gaussian kernel is almost the identity. Look at the curve `kernel` of a run.
Searched: α from 0.01 to 1, rather below the default because of that sum, and δ from 0 to 1 (ours).
Cost: of n = min(N, max_nodes) nodes, n² D products a layer; W, an n×n matrix (17 MB for 2,048 nodes in float32), and
blocks of rows of the kernels (4 MB each) are held.
"""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from distillbench.plugin import NODE_CLASSES, Context, LayerPair, Method, Output, Parameters, Range, sum_over_rows


class GKD(Method):
    """Match kernel matrices of the features, edges first."""

    paper, tasks, requires = "yang2022", NODE_CLASSES, frozenset({"hidden"})

    class Params(Parameters):
        """weight: α. kernel: K. delta: δ. temperature: T. features: s. layers: (student, teacher); none: see above.

        reduction: over pairs of nodes. max_nodes: how many are compared.
        """

        weight: Annotated[PositiveFloat, Range(0.01, 1)] = 0.5
        kernel: Literal["sigmoid", "gaussian", "exp-l2", "random"] = "sigmoid"
        delta: Annotated[float, Field(ge=0, le=1), Range(0, 1, log=False)] = 0.1
        temperature: PositiveFloat = 1.0
        features: PositiveInt = 2
        layers: tuple[LayerPair, ...] = ()
        reduction: Literal["sum", "mean"] = "sum"
        max_nodes: PositiveInt = 2048

    def terms(self, student: Output, teacher: Output, ctx: Context) -> dict[str, Tensor]:
        """Task loss and kernel loss."""
        nodes = ctx.sample(self.params.max_nodes)
        weight = self._weight(nodes, student.logits, ctx)
        losses = []
        for s, t in self.params.layers or self._layers():
            h_s, h_t = (_standardised(h)[nodes] for h in (student.hidden[s], teacher.hidden[t]))
            of_kernels = self._mapped(h_s, h_t, ctx.random)
            total = sum_over_rows(self._squares, (weight, *of_kernels), of_kernels, width=len(nodes))
            losses.append(total / len(nodes) ** 2 if self.params.reduction == "mean" else total)
        return {"task": ctx.task_loss(student.logits), "kernel": self.params.weight * torch.stack(losses).mean()}

    def _layers(self) -> list[LayerPair]:
        depth = len(self.student_dims.hidden)
        equal = depth == len(self.teacher_dims.hidden)
        return [LayerPair(i, i) for i in range(depth)] if equal else [LayerPair(-1, -1)]

    def _weight(self, nodes: Tensor, like: Tensor, ctx: Context) -> Tensor:
        """W of the nodes, [n, n], of the type of ``like``."""
        place = torch.full((ctx.num_nodes,), -1, device=nodes.device)
        place[nodes] = torch.arange(len(nodes), device=nodes.device)
        i, j = place[ctx.edge_index]
        inside = (i >= 0) & (j >= 0)
        weight = like.new_full((len(nodes), len(nodes)), self.params.delta)
        weight[i[inside], j[inside]] = 1.0
        return weight

    def _mapped(self, h_s: Tensor, h_t: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """What the kernels are of, [n, ...]: the student's and the teacher's features, or their random ones."""
        if self.params.kernel != "random":
            return h_s, h_t
        width = max(h_s.shape[1], h_t.shape[1])
        w = torch.randn(self.params.features * width, width, generator=random).to(h_s)
        return (h_s @ w[:, : h_s.shape[1]].T).tanh(), (h_t @ w[:, : h_t.shape[1]].T).tanh()

    def _squares(self, weight: Tensor, rows_s: Tensor, rows_t: Tensor, h_s: Tensor, h_t: Tensor) -> Tensor:
        """‖(K_t − K_s) ⊙ W‖² of some rows, a scalar."""
        return F.mse_loss(weight * self._kernel(rows_s, h_s), weight * self._kernel(rows_t, h_t), reduction="sum")

    def _kernel(self, rows: Tensor, h: Tensor) -> Tensor:
        """K of some rows with all, [b, n]."""
        if self.params.kernel in ("sigmoid", "random"):
            inner = rows @ h.T
            return inner.tanh() if self.params.kernel == "sigmoid" else inner
        distance = torch.cdist(rows, h)
        if self.params.kernel == "gaussian":
            return (distance.square() / (-4 * self.params.temperature)).exp()
        return (distance / -self.params.temperature).exp()


def _standardised(h: Tensor) -> Tensor:
    """What a batch norm without affine part makes of features."""
    return (h - h.mean(dim=0)) / (h.var(dim=0, correction=0) + 1e-5).sqrt()
