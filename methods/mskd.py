"""Multi-scale knowledge distillation from several teachers (MSKD).

Zhang, Liu, Dang, Zhang: Multi-Scale Distillation from Multiple Graph Neural Networks. AAAI 2022; code:
github.com/NKU-IIPLab/MSKD.
    L = task + λ (1/N) Σ_i Σ_k α_ik KL(LS_i^k ‖ LS_i^s),   LS_ij = softmax over (j,i) ∈ E of SIM(z_i, z_j)
    α_ik = softmax over the teachers k of ⟨logits_i^s, logits_i^k⟩, a constant for the gradient
(written from the abstract, which has the student select teachers by attention, structure by structure, and the code).
The teachers are the pair's and its further ones, in the paper of 1, 2 and 3 hidden layers: shallow ones for nodes of
few neighbours, deep ones for hubs. With the pair's teacher alone, α = 1 and this is LSP.

``attention: graph`` is the released code's similarity: one α_k for all nodes, the softmax over k of m_k / Σ m, where
m_k is the mean of the matrix (logits^s)ᵀ logits^k; there it is computed in the first step and kept. The released code
also takes one teacher after the other, each for 80 of its 500 epochs; here, as in the equation, all at once.

KL direction: teacher ‖ student. Reduction: sum over edges / N. Layers: last hidden of all, before the activation; an
index of the teacher is taken in each of them (released code: the student's second hidden layer). Defaults, all from
the released code: λ = 7, exp-l1 with σ = 100 (see lsp_official: nearly uniform structures). Not tuned. Searched: λ from
0.7 to 70, and the kernel among exp-l1, linear and cosine (ours; lsp has three, too).
Cost: linear in edges and in teachers; no N×N matrix.
"""

from typing import Annotated, Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor

from distillbench.plugin import (
    Choice,
    Context,
    Direction,
    Kernel,
    LayerPair,
    LayerPairs,
    Method,
    Output,
    Parameters,
    Range,
    local_structure,
    union_edges,
)


class MSKD(Method):
    """Match each node's local structure to those of several teachers, most to the teacher it agrees with."""

    paper, tasks = "zhang2022", frozenset({"multiclass", "multilabel"})
    requires = frozenset({"logits", "hidden", "edges", "teachers"})
    excused = {"equal": "it learns from teachers of other depths, too"}

    class Params(Parameters):
        """weight: λ. kernel: SIM; sigma: of rbf and exp-l1. direction: of the KL divergence.

        layers: (student, every teacher). attention: α per node, or one for the graph.
        """

        weight: Annotated[PositiveFloat, Range(0.7, 70)] = 7.0
        kernel: Annotated[Kernel, Choice("exp-l1", "linear", "cosine")] = "exp-l1"
        sigma: PositiveFloat = 100.0
        direction: Direction = "teacher||student"
        layers: LayerPairs = (LayerPair(-1, -1),)
        attention: Literal["node", "graph"] = "node"

    def terms(self, student: Output, teacher: Output, ctx: Context) -> dict[str, Tensor]:
        """Task loss and the teachers' structure losses."""
        teachers = (teacher, *ctx.teachers)
        attention = self._attention(student, teachers)
        losses = [
            torch.stack([self._divergence(student, each, s, t, attention[k], ctx) for k, each in enumerate(teachers)])
            for s, t in self.params.layers
        ]
        structure = torch.stack(losses).sum(dim=1).mean()
        return {"task": ctx.task_loss(student.logits), "structure": self.params.weight * structure}

    @torch.no_grad()
    def _attention(self, student: Output, teachers: tuple[Output, ...]) -> Tensor:
        """α, [teachers, N]."""
        if self.params.attention == "node":
            return torch.stack([(student.logits * each.logits).sum(dim=-1) for each in teachers]).softmax(dim=0)
        agreement = torch.stack([(student.logits.T @ each.logits).mean() for each in teachers])
        return (agreement / agreement.sum()).softmax(dim=0)[:, None].expand(-1, len(student.logits))

    def _divergence(self, student: Output, teacher: Output, s: int, t: int, attention: Tensor, ctx: Context) -> Tensor:
        edges = union_edges(student, s, teacher, t, ctx.num_nodes)
        p, q = self._structure(teacher.hidden[t], edges), self._structure(student.hidden[s], edges)
        if self.params.direction == "student||teacher":
            p, q = q, p
        return (attention[edges[1]] * p.exp() * (p - q)).sum() / ctx.num_nodes

    def _structure(self, h: Tensor, edges: Tensor) -> Tensor:
        return local_structure(h, edges, self.params.kernel, sigma=self.params.sigma)
