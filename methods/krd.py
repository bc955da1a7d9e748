"""Knowledge-inspired reliable distillation (KRD).

Wu, Lin, Huang, Li: Quantifying the Knowledge in GNNs for Reliable Distillation into MLPs. ICML 2023, arXiv 2306.05628;
code: github.com/LirongWu/RKD.
    L = λ task + (1 − λ) mean over (i, j) ∈ S of KL(softmax(t_j / τ) ‖ softmax(z_i / τ))
    S: all (i, i), and each edge (i, j) with probability p_j = 1 − (ΔH_j / max ΔH)^α, drawn anew in every step
    ΔH_j = E |H(softmax(t_j(X + δ·noise))) − H(softmax(t_j(X)))|,   noise standard normal, H: entropy
z, t: logits of student and teacher. α follows the student: once an epoch, 1 − x^α is fitted to the share of nodes with
a change of entropy of about x (in ``bins`` classes, scaled to [0, 1]; one without nodes counts as 0, as released) on
which student and teacher predict the same class, and α ← η α + (1 − η) α_fitted. For the first ``warm_up`` epochs S is
all edges.

``samples``: the neighbours are drawn, so the terms depend on the numbering of nodes (after the warm-up).
KL direction: teacher ‖ student. Reduction: mean over S. Layers: logits. Both as in the authors' code, which also has no
factor τ² and one draw of the noise (ΔH is an expectation in the paper: ``draws``, 10, is ours). Three details differ:
the fit is at the middle of each class (the code adds 0.05 to its lower edge, the middle of 10 classes, and uses 50);
it is by a search over α in [e⁻⁵, e⁵], not from the last α on; and the student's predictions are those of the step, with
dropout, not of an evaluation before it.
Defaults: λ = 0.5, τ = 0.8, δ = 1, 50 classes, α = 1 at first, η = 0.99, warm-up 50, the authors' setting for Cora with
a GCN teacher; λ (0 to 0.5) and τ (0.8 to 1.2) are tuned for each data set and teacher. Not tuned here. Searched: λ and
τ in these published ranges, of which Cora has an end of each.
Cost: linear in edges times classes; the teacher runs ``draws`` times, before training.
"""

import math
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from scipy.optimize import minimize_scalar
from torch import Tensor

from distillbench.plugin import NODE_CLASSES, Context, Dims, Method, Output, Parameters, Range, Setup


class KRD(Method):
    """Soft labels of neighbours whose teacher output stands noise."""

    paper, tasks, requires = "wu2023", NODE_CLASSES, frozenset({"logits", "model"})
    mlp_only, samples = True, True
    excused = {"equal": "neighbours of a node do not predict what it predicts"}

    class Params(Parameters):
        """label_weight: λ. temperature: τ. noise: δ. draws: of the noise. power: α at first. momentum: η."""

        label_weight: Annotated[float, Field(ge=0, le=1), Range(0, 0.5, log=False)] = 0.5
        temperature: Annotated[PositiveFloat, Range(0.8, 1.2, log=False)] = 0.8
        noise: PositiveFloat = 1.0
        draws: PositiveInt = 10
        bins: PositiveInt = 50
        power: PositiveFloat = 1.0
        momentum: float = Field(default=0.99, ge=0, le=1)
        warm_up: NonNegativeInt = 50

    def __init__(self, params: Any, student_dims: Dims, teacher_dims: Dims) -> None:
        super().__init__(params, student_dims, teacher_dims)
        self.register_buffer("change", torch.empty(0))  # of each node's entropy under noise, over the largest
        self.register_buffer("power", torch.tensor(params.power, dtype=torch.float64))
        self.register_buffer("fitted_epoch", torch.tensor(0))

    def prepare(self, setup: Setup) -> None:
        """Measure how much noise on the features changes the entropy of the teacher's predictions."""
        clean, change = entropy(setup.teacher.logits), 0.0
        for _ in range(self.params.draws):
            noise = torch.randn(setup.x.shape, generator=setup.random, dtype=setup.x.dtype)
            noisy = setup.run_teacher(setup.x + self.params.noise * noise)
            change = change + (entropy(noisy.logits) - clean).abs()
        self.change = change / change.max().clamp(min=torch.finfo(change.dtype).tiny)

    def terms(self, student: Output, teacher: Output, ctx: Context) -> dict[str, Tensor]:
        """Task loss and soft labels of the node itself and of reliable neighbours."""
        label_weight, temperature = self.params.label_weight, self.params.temperature
        change, (source, destination) = self.change[ctx.nodes], ctx.edge_index
        if ctx.epoch > self.params.warm_up:
            if ctx.epoch != self.fitted_epoch:
                self._fit(change, student.logits.argmax(-1) == teacher.logits.argmax(-1))
                self.fitted_epoch.fill_(ctx.epoch)
            reliable = 1 - change ** self.power.item()
            drawn = torch.rand(len(source), generator=ctx.random).to(change.device) < reliable[source]
            source, destination = ctx.edge_index[:, drawn | (source == destination)]
        log_s, log_t = ((each.logits / temperature).log_softmax(-1) for each in (student, teacher))
        soft = F.kl_div(log_s[destination], log_t[source], reduction="batchmean", log_target=True)
        return {"task": label_weight * ctx.task_loss(student.logits), "reliable": (1 - label_weight) * soft}

    def _fit(self, change: Tensor, agreed: Tensor) -> None:
        """Move α towards the one that fits the student's agreement with the teacher."""
        bins = self.params.bins
        place = (change.detach().cpu() * bins).long().clamp(max=bins - 1)
        seen = torch.bincount(place, minlength=bins)
        share = torch.bincount(place, agreed.cpu().double(), minlength=bins) / seen.clamp(min=1)
        if share.max() == share.min():
            return  # agreement says nothing about the change of entropy
        share = (share - share.min()) / (share.max() - share.min())
        x = (torch.arange(bins) + 0.5) / bins

        def error(log_power: float) -> float:
            return (1 - x ** math.exp(log_power) - share).square().sum().item()

        fitted = math.exp(minimize_scalar(error, bounds=(-5, 5), method="bounded").x)
        self.power.mul_(self.params.momentum).add_((1 - self.params.momentum) * fitted)


def entropy(logits: Tensor) -> Tensor:
    """Entropy of softmax(logits) in nats, [N, C] -> [N]."""
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)
