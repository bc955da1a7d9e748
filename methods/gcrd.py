"""Graph contrastive representation distillation (G-CRD).

Joshi, Liu, Xun, Lin, Foo: On Representation Knowledge Distillation for Graph Neural Networks. TNNLS 2022,
arXiv 2111.04964; code: github.com/chaitjo/efficient-gnns (``nce_criterion``).
    L = task − β (1/n) Σ_i log [exp(h_i^s·h_i^t / τ) / Σ_j exp(h_i^s·h_j^t / τ)],   i, j: the n nodes of a sample
    h = r(z) / ‖r(z)‖,   r: a trained projector of the student's features, another one of the teacher's
A row is a student's node, the positive the same node of the teacher, the negatives the teacher's other sampled nodes.

Projectors: linear, batch norm, ReLU, to 256 units, as in the code (its variant with a graph convolution is left out);
applied to all nodes before the sample is drawn. Reduction: mean over the sampled nodes.
Layers: last hidden of both, before the activation. Defaults: τ = 0.075, at most 16,384 nodes and β = 0.1 are the code's
on PPI and on ogbn-arxiv without soft labels (0.01 with them, 0.5 in the signature); not tuned. Searched: β from 0.01 to
0.5 and τ from 0.05 to 0.1, the values they use.
Cost: linear in nodes; quadratic in time in the n ≤ 16,384 sampled nodes, but blocks of 256 rows of the n×n matrix are
held, not all of it (17 MB each, four of them, at 16,384 nodes).
"""

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from distillbench.plugin import (
    ALL_TASKS,
    Context,
    Dims,
    LayerPair,
    LayerPairs,
    Method,
    Output,
    Parameters,
    Range,
    sum_over_rows,
)


class GCRD(Method):
    """Tell the teacher's same node from its other nodes."""

    paper, tasks, requires = "joshi2022", ALL_TASKS, frozenset({"hidden"})

    class Params(Parameters):
        """weight: β. layers: (student, teacher). temperature: τ. width: units of both projectors.

        max_nodes: of larger batches, so many nodes are drawn in each step.
        """

        weight: Annotated[PositiveFloat, Range(0.01, 0.5)] = 0.1
        layers: LayerPairs = (LayerPair(-1, -1),)
        temperature: Annotated[PositiveFloat, Range(0.05, 0.1)] = 0.075
        width: PositiveInt = 256
        max_nodes: PositiveInt = 16384

    def __init__(self, params: Params, student_dims: Dims, teacher_dims: Dims) -> None:
        super().__init__(params, student_dims, teacher_dims)
        self.projectors = nn.ModuleList()
        for s, t in params.layers:
            widths = (student_dims.hidden[s], teacher_dims.hidden[t])
            self.projectors.append(nn.ModuleList([self._projector(d, params.width) for d in widths]))

    @staticmethod
    def _projector(d_in: int, width: int) -> nn.Module:
        # no bias: the batch norm would take it away again
        return nn.Sequential(nn.Linear(d_in, width, bias=False), nn.BatchNorm1d(width), nn.ReLU())

    def terms(self, student: Output, teacher: Output, ctx: Context) -> dict[str, Tensor]:
        """Task loss and contrastive loss."""
        nodes = ctx.sample(self.params.max_nodes)
        losses = []
        for (s, t), (of_student, of_teacher) in zip(self.params.layers, self.projectors, strict=True):
            h_s = F.normalize(of_student(student.hidden[s])[nodes], dim=-1)
            h_t = F.normalize(of_teacher(teacher.hidden[t])[nodes], dim=-1)
            same = torch.arange(len(h_s), device=h_s.device)
            losses.append(sum_over_rows(self._contrast, (h_s, same), (h_t,), width=len(h_t)) / len(h_s))
        return {"task": ctx.task_loss(student.logits), "contrast": self.params.weight * torch.stack(losses).mean()}

    def _contrast(self, h_s: Tensor, same: Tensor, h_t: Tensor) -> Tensor:
        """−Σ log [...] over some rows of the student's [b, width], whose nodes are the rows ``same`` of ``h_t``."""
        return F.cross_entropy(h_s / self.params.temperature @ h_t.T, same, reduction="sum")
