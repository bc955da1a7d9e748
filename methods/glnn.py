"""Graph-less neural network (GLNN): an MLP that learns a GNN's soft labels.

Zhang, Liu, Sun, Shah: Graph-less Neural Networks: Teaching Old MLPs New Tricks via Distillation. ICLR 2022,
arXiv 2110.08727; code: github.com/snap-research/graphless-neural-networks.
    L = λ Σ_labelled NLL(p_s, y) + (1 − λ) Σ_all KL(p_t ‖ p_s),   p = softmax(z)

KL direction: teacher ‖ student. Reduction: means over the labelled nodes and over all nodes, as in the authors' code
(the equation has sums); the code takes a step for each of the two in turn, we take one for both.
Layers: logits. Default: λ = 0, the code's: the labels are then seen by the teacher only, and the term ``task`` is zero.
Searched: λ from 0 to 0.9 (ours; with 1 nothing is distilled).
Which nodes are predicted, those of training or unseen ones, is the protocol's matter; the paper has a table for each.
Cost: linear in nodes; reads no edges.
"""

from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from distillbench.plugin import NODE_CLASSES, Context, Method, Output, Parameters, Range


class GLNN(Method):
    """Soft labels for a student without a graph."""

    paper, tasks, requires = "zhang2022", NODE_CLASSES, frozenset({"logits"})
    mlp_only = True

    class Params(Parameters):
        """label_weight: λ, of the true labels."""

        label_weight: Annotated[float, Field(ge=0, le=1), Range(0, 0.9, log=False)] = 0.0

    def terms(self, student: Output, teacher: Output, ctx: Context) -> dict[str, Tensor]:
        """Task loss and soft-label loss."""
        weight = self.params.label_weight
        # without labels there need be no labelled row, over which a mean would be NaN
        task = weight * ctx.task_loss(student.logits) if weight else student.logits.new_zeros(())
        p_s, p_t = student.logits.log_softmax(dim=-1), teacher.logits.log_softmax(dim=-1)
        soft = F.kl_div(p_s, p_t, reduction="batchmean", log_target=True)
        return {"task": task, "soft": (1 - weight) * soft}
