"""Knowledge distillation by soft labels (KD).

Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network. NIPS workshop 2014, arXiv 1503.02531.
    L = (1 - α) task + α T² KL(p_t ‖ p_s),   p = softmax(z / T),   mean over rows                   (section 2)
Several labels: BCE(z_s / T, σ(z_t / T)) instead of KL, mean over both (Joshi et al. 2022: α = ½, T = 1).

KL direction: teacher ‖ student. Reduction: mean over nodes or graphs (torch's "mean" would also divide by the classes).
Layers: logits. Defaults: α = 0.5 (Joshi et al. on PPI); T = 2 is ours, within the range of Hinton et al.; not tuned.
Searched: α from 0.1 to 0.9, T from 1 to 10 (ours).
Cost: linear in rows × classes.
"""

from typing import Annotated

import torch.nn.functional as F
from pydantic import Field, PositiveFloat
from torch import Tensor

from distillbench.plugin import ALL_TASKS, Context, Method, Output, Parameters, Range


class KD(Method):
    """Soft labels at a temperature."""

    paper, tasks, requires = "hinton2015", ALL_TASKS, frozenset({"logits"})

    class Params(Parameters):
        """alpha: α, weight of the soft labels. temperature: T."""

        alpha: Annotated[float, Field(ge=0, le=1), Range(0.1, 0.9, log=False)] = 0.5
        temperature: Annotated[PositiveFloat, Range(1, 10)] = 2.0

    def terms(self, student: Output, teacher: Output, ctx: Context) -> dict[str, Tensor]:
        """Task loss and soft-label loss."""
        alpha, temperature = self.params.alpha, self.params.temperature
        z_s, z_t = student.logits / temperature, teacher.logits / temperature
        if ctx.task.multilabel:
            soft = F.binary_cross_entropy_with_logits(z_s, z_t.sigmoid())
        else:
            soft = F.kl_div(z_s.log_softmax(-1), z_t.log_softmax(-1), reduction="batchmean", log_target=True)
        return {"task": (1 - alpha) * ctx.task_loss(student.logits), "soft": alpha * temperature**2 * soft}
