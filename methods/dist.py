"""Distillation from a stronger teacher (DIST).

Huang, You, Wang, Qian, Xu: Knowledge Distillation from A Stronger Teacher. NeurIPS 2022, arXiv 2205.10536;
code: github.com/hunto/DIST_KD, hunto/image_classification_sota (``dist_kd.py``).
    L = task + β τ² (1/B) Σ_i [1 − ρ(Y_i·^s, Y_i·^t)] + γ τ² (1/C) Σ_c [1 − ρ(Y_·c^s, Y_·c^t)]            (section 3)
    ρ: Pearson's correlation,   Y = softmax(z / τ), one row for each of B nodes or graphs, one column for each class
Rows are compared over the classes (inter-class relation), columns over the batch (intra-class relation).

Reduction: mean over rows, and over columns; the columns have the nodes of the batch, in a transductive task all nodes.
Layers: logits. Defaults: β = γ = 2, which is the code's β = γ = 1 times its weight of 2 in every configuration; τ = 1
is its default and for ImageNet, on CIFAR-100 it is 4; the factor τ² is the code's. Not tuned. Searched: β and γ from
0.2 to 20 (ours), τ from 1, the softmax as it is, to 10, as for kd (ours).
A row or column without spread, such as the output for a node without features, has no correlation: it counts as 0 (the
code adds 1e-8 to the denominator, so its gradient there is about 10⁸ times as large as elsewhere).
Cost: linear in nodes; no N×N matrix.
"""

from typing import Annotated

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from distillbench.plugin import SINGLE_LABEL_TASKS, Context, Method, Output, Parameters, Range

_ROUNDING = 1e-6  # of a row's length: a spread below it is rounding, in float32


class DIST(Method):
    """Correlate the predictions, over the classes and over the nodes."""

    paper, tasks, requires = "huang2022", SINGLE_LABEL_TASKS, frozenset({"logits"})

    class Params(Parameters):
        """beta: β, of the rows. gamma: γ, of the columns. temperature: τ."""

        beta: Annotated[NonNegativeFloat, Range(0.2, 20)] = 2.0
        gamma: Annotated[NonNegativeFloat, Range(0.2, 20)] = 2.0
        temperature: Annotated[PositiveFloat, Range(1, 10)] = 1.0

    def terms(self, student: Output, teacher: Output, ctx: Context) -> dict[str, Tensor]:
        """Task loss, inter-class loss and intra-class loss."""
        p = self.params
        y_s, y_t = ((out.logits / p.temperature).softmax(dim=-1) for out in (student, teacher))
        inter, intra = 1 - _correlation(y_s, y_t).mean(), 1 - _correlation(y_s.T, y_t.T).mean()
        return {
            "task": ctx.task_loss(student.logits),
            "inter": p.beta * p.temperature**2 * inter,
            "intra": p.gamma * p.temperature**2 * intra,
        }


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's correlation of each row of ``a`` with the same row of ``b``, [M, K] each -> [M]."""
    return (_standardised(a) * _standardised(b)).sum(dim=-1)


def _standardised(rows: Tensor) -> Tensor:
    """Rows of mean zero and length one; one without spread stays near zero, with a gradient of its own size."""
    centred = rows - rows.mean(dim=-1, keepdim=True)
    length = centred.norm(dim=-1, keepdim=True)
    spread = length > _ROUNDING * rows.norm(dim=-1, keepdim=True)
    return centred / torch.where(spread, length, 1.0)
