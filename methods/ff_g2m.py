"""Full-frequency GNN-to-MLP distillation (FF-G2M).

Wu, Lin, Huang, Fan, Li: Extracting Low-/High-Frequency Knowledge from Graph Neural Networks and Injecting it into MLPs:
An Effective GNN-to-MLP Distillation Framework. AAAI 2023, arXiv 2305.10758; code: github.com/LirongWu/FF-G2M.
    L = λ task + (1 − λ) (L_low + L_high)
    L_low  = 1/|E|  Σ_i Σ_{j ∈ N(i) ∪ {i}} KL(softmax(z_i) ‖ softmax(t_j))
    L_high = 1/|E'| Σ_i Σ_{j ∈ N(i)} KL(softmax(|z_i − z_j| / τ) ‖ softmax(|t_i − t_j| / τ))
z, t: logits of student and teacher; |·| by element, so that the softmax is over classes. Without neighbours L_low is
the soft-label loss of GLNN.

KL direction: student ‖ teacher, in the order of the paper's equations. The authors' code computes teacher ‖ student in
both terms: ``direction: teacher||student``. Reduction, as in the code: mean over edges, with self-loops in L_low,
without in L_high. Layers: logits. L_low has no temperature in the code, nor here.
Defaults: λ = 0.4, τ = 1.5, the authors' setting for Cora with a GCN teacher; they tune λ (0 to 0.5) and τ (1 to 1.5)
for each data set and teacher. Not tuned here. Searched: λ and τ in these published ranges; Cora has the end of τ's.
Cost: linear in edges times classes.
"""

from typing import Annotated

from pydantic import Field, PositiveFloat
from torch import Tensor

from distillbench.plugin import NODE_CLASSES, Context, Direction, Method, Output, Parameters, Range


class FFG2M(Method):
    """Match the teacher's prediction of neighbours, and how predictions differ along edges."""

    paper, tasks, requires = "wu2023", NODE_CLASSES, frozenset({"logits"})
    mlp_only = True
    excused = {"equal": "neighbours of a node do not predict what it predicts"}

    class Params(Parameters):
        """label_weight: λ. temperature: τ, of the differences. direction: of both KL divergences."""

        label_weight: Annotated[float, Field(ge=0, le=1), Range(0, 0.5, log=False)] = 0.4
        temperature: Annotated[PositiveFloat, Range(1, 1.5, log=False)] = 1.5
        direction: Direction = "student||teacher"

    def terms(self, student: Output, teacher: Output, ctx: Context) -> dict[str, Tensor]:
        """Task loss, low-frequency and high-frequency loss."""
        label_weight = self.params.label_weight
        source, destination = ctx.edge_index
        log_s, log_t = student.logits.log_softmax(-1), teacher.logits.log_softmax(-1)
        between = ctx.edge_index[:, source != destination]
        change_s, change_t = self._differences(student.logits, between), self._differences(teacher.logits, between)
        return {
            "task": label_weight * ctx.task_loss(student.logits),
            "low_frequency": (1 - label_weight) * self._divergence(log_s[destination], log_t[source]),
            "high_frequency": (1 - label_weight) * self._divergence(change_s, change_t),
        }

    def _differences(self, z: Tensor, edges: Tensor) -> Tensor:
        return ((z[edges[1]] - z[edges[0]]).abs() / self.params.temperature).log_softmax(-1)

    def _divergence(self, log_s: Tensor, log_t: Tensor) -> Tensor:
        p, q = (log_s, log_t) if self.params.direction == "student||teacher" else (log_t, log_s)
        return (p.exp() * (p - q)).sum() / max(len(p), 1)
