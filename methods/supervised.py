"""The student alone: the control that every method is compared with.

L = task loss                                             (cross-entropy, or binary cross-entropy for several labels)
Cost: linear in rows × classes.
"""

from torch import Tensor

from distillbench.plugin import ALL_TASKS, Context, Method, Output


class Supervised(Method):
    """No teacher."""

    paper, tasks, requires = "control", ALL_TASKS, frozenset()

    def terms(self, student: Output, teacher: Output, ctx: Context) -> dict[str, Tensor]:
        """The task loss alone."""
        return {"task": ctx.task_loss(student.logits)}
