"""Decoupled knowledge distillation (DKD).

Zhao, Cui, Song, Qiu, Liang: Decoupled Knowledge Distillation. CVPR 2022, arXiv 2203.08679;
code: github.com/megvii-research/mdistiller (``DKD.py``).
    L = task + w T² [α KL(b_t ‖ b_s) + β KL(p̂_t ‖ p̂_s)],   p = softmax(z / T)                            (section 3)
    b = (p_y, 1 − p_y), y: the target class;   p̂: the other classes among themselves, softmax of z_c / T over c ≠ y
KD is the same with α = 1 and β = 1 − p_y of the teacher, which is small where the teacher is sure.

The target class is known for labelled rows only, so both terms see these rows and no others, whatever ``distill_nodes``
says: with few labels DKD gets less of the teacher than KD does. With two classes the second term is zero.
KL direction: teacher ‖ student. Reduction: mean over the labelled nodes or graphs. Layers: logits.
Warm-up of the code: w = min(1, epoch / 20), the first epoch being 1. Defaults: α = 1, β = 8, T = 4 of the code, which
sets β to 2 and 6 for some pairs on CIFAR-100, and on ImageNet β = 0.5, T = 1 and no warm-up; not tuned. Searched: β
from 0.5 to 10, a little more than these values; α from 0.1 to 10, T from 1 to 10 (ours).
Cost: linear in the labelled rows.
"""

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from distillbench.plugin import SINGLE_LABEL_TASKS, Context, Method, Output, Parameters, Range


class DKD(Method):
    """Soft labels, with the target class and the other classes apart."""

    paper, tasks, requires = "zhao2022", SINGLE_LABEL_TASKS, frozenset({"logits", "labels"})

    class Params(Parameters):
        """alpha: α. beta: β. temperature: T. warm_up: epochs in which both weights rise to their values (1: none)."""

        alpha: Annotated[NonNegativeFloat, Range(0.1, 10)] = 1.0
        beta: Annotated[NonNegativeFloat, Range(0.5, 10)] = 8.0
        temperature: Annotated[PositiveFloat, Range(1, 10)] = 4.0
        warm_up: PositiveInt = 20

    def terms(self, student: Output, teacher: Output, ctx: Context) -> dict[str, Tensor]:
        """Task loss, and the losses of the target class and of the other classes."""
        p = self.params
        y = ctx.labels[ctx.labelled]
        b_s, others_s = _decoupled(student.logits[ctx.labelled] / p.temperature, y)
        b_t, others_t = _decoupled(teacher.logits[ctx.labelled] / p.temperature, y)
        scale = min(1.0, ctx.epoch / p.warm_up) * p.temperature**2
        return {
            "task": ctx.task_loss(student.logits),
            "target": scale * p.alpha * F.kl_div(b_s, b_t, reduction="batchmean", log_target=True),
            "non_target": scale * p.beta * F.kl_div(others_s, others_t, reduction="batchmean", log_target=True),
        }


def _decoupled(z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """log b [M, 2] and log p̂ [M, C - 1] of logits [M, C] and classes [M]."""
    of_target = F.one_hot(y, z.shape[-1]).bool()
    target, others = z[of_target].view(-1, 1), z[~of_target].view(len(z), -1)
    # log(1 - p_y) from the other logits: p_y itself rounds to 1 where the model is sure
    b = torch.cat([target, others.logsumexp(dim=-1, keepdim=True)], dim=-1)
    return b.log_softmax(-1), others.log_softmax(-1)
