"""Attention transfer (AT).

Zagoruyko, Komodakis: Paying More Attention to Attention. ICLR 2017, arXiv 1612.03928.
    L = task + β ‖ Q_s/‖Q_s‖ − Q_t/‖Q_t‖ ‖²,   Q_i = Σ_c z_ic²                                    (section 3.1, eq. 2)
A node takes the place of a pixel: Q is a vector over the nodes of the batch, and is normalised over them.

Reduction: mean over the nodes, with β = 1000, as Joshi et al. (TNNLS 2022) have it; ``reduction: sum`` is the sum of
the equation. The square of the norm is what the authors' code has.
Layers: last hidden of both, before the activation. Not tuned. Searched: β from 100 to 10,000 (ours).
Cost: linear in nodes × features.
"""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat
from torch import Tensor

from distillbench.plugin import ALL_TASKS, Context, LayerPair, LayerPairs, Method, Output, Parameters, Range


class AT(Method):
    """Match where in the graph the activations are large."""

    paper, tasks, requires = "zagoruyko2017", ALL_TASKS, frozenset({"hidden"})

    class Params(Parameters):
        """weight: β. layers: (student, teacher). reduction: over the nodes of the batch."""

        weight: Annotated[PositiveFloat, Range(100, 10000)] = 1000.0
        layers: LayerPairs = (LayerPair(-1, -1),)
        reduction: Literal["sum", "mean"] = "mean"

    def terms(self, student: Output, teacher: Output, ctx: Context) -> dict[str, Tensor]:
        """Task loss and attention loss."""
        losses = []
        for s, t in self.params.layers:
            q_s, q_t = (F.normalize(z.square().sum(dim=-1), dim=0) for z in (student.hidden[s], teacher.hidden[t]))
            losses.append(F.mse_loss(q_s, q_t, reduction=self.params.reduction))
        return {"task": ctx.task_loss(student.logits), "attention": self.params.weight * torch.stack(losses).mean()}
