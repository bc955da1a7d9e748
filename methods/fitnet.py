"""Hints from intermediate layers (FitNet).

Romero, Ballas, Kahou, Chassang, Gatta, Bengio: FitNets: Hints for Thin Deep Nets. ICLR 2015, arXiv 1412.6550.
    L = task + β (1/N) Σ_i ½ ‖z_i^t − r(z_i^s)‖²,   r: a trained linear regressor                          (eq. 3)

The paper trains the hint before the task, in two stages; like the other GNN benchmarks, we add it to the task loss.
Reading of Joshi et al. (TNNLS 2022), ``projection: both``: student and teacher are each projected (linear, batch norm,
ReLU) to ``width`` and normalised, MSE over nodes and features, β = 1000.

Layers: last hidden of both, before the activation. Default β = 0.01 is ours: it keeps the hint, a sum over the
teacher's units, below the task loss; not tuned. Searched: β from 0.001 to 0.1 (ours). With ``projection: both`` set
``weight: 1000``, far outside that range.
Cost: linear in nodes, with the projectors' matrix products.
"""

from typing import Annotated, Literal

import torch.nn.functional as F
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from distillbench.plugin import ALL_TASKS, Context, Dims, LayerPair, LayerPairs, Method, Output, Parameters, Range


class FitNet(Method):
    """Regress the teacher's hidden features."""

    paper, tasks, requires = "romero2015", ALL_TASKS, frozenset({"hidden"})

    class Params(Parameters):
        """weight: β. layers: (student, teacher). projection: "student" (the paper) or "both" to ``width`` units."""

        weight: Annotated[PositiveFloat, Range(0.001, 0.1)] = 0.01
        layers: LayerPairs = (LayerPair(-1, -1),)
        projection: Literal["student", "both"] = "student"
        width: PositiveInt = 256

    def __init__(self, params: Params, student_dims: Dims, teacher_dims: Dims) -> None:
        super().__init__(params, student_dims, teacher_dims)
        self.projectors = nn.ModuleList()
        for s, t in params.layers:
            d_s, d_t = student_dims.hidden[s], teacher_dims.hidden[t]
            if params.projection == "student":
                self.projectors.append(nn.ModuleList([nn.Linear(d_s, d_t), nn.Identity()]))
            else:
                self.projectors.append(nn.ModuleList([self._normalised(d, params.width) for d in (d_s, d_t)]))

    @staticmethod
    def _normalised(d_in: int, width: int) -> nn.Module:
        return nn.Sequential(nn.Linear(d_in, width), nn.BatchNorm1d(width), nn.ReLU())

    def terms(self, student: Output, teacher: Output, ctx: Context) -> dict[str, Tensor]:
        """Task loss and hint."""
        hints = []
        for (s, t), (of_student, of_teacher) in zip(self.params.layers, self.projectors, strict=True):
            z_s, z_t = of_student(student.hidden[s]), of_teacher(teacher.hidden[t])
            if self.params.projection == "student":
                hints.append((z_t - z_s).square().sum(dim=-1).mean() / 2)
            else:
                hints.append(F.mse_loss(F.normalize(z_s, dim=-1), F.normalize(z_t, dim=-1)))
        return {"task": ctx.task_loss(student.logits), "hint": self.params.weight * sum(hints) / len(hints)}
