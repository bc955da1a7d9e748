"""Probabilistic knowledge transfer (PKT).

Passalis, Tefas: Learning Deep Representations with Probabilistic Knowledge Transfer. ECCV 2018, arXiv 1803.10837;
code: github.com/passalis/probabilistic_kt (``pkt.py``).
    L = task + λ Σ_j Σ_{i≠j} p_{i|j}^t log(p_{i|j}^t / p_{i|j}^s),   p_{i|j} = K(z_i, z_j) / Σ_{k≠j} K(z_k, z_j)
    K(a, b) = ½ (aᵀb / (‖a‖‖b‖) + 1)                                                                    (section 3)
The authors' code keeps the pairs of a node with itself (``self_pairs``) and takes the mean over all n² pairs
(``reduction: pairs``); the paper sums (``reduction: sum``).

KL direction: teacher ‖ student. Reduction: mean over the n nodes of their KL, which is ours: it does not change with n,
as the sum and the mean over pairs do. Layers: last hidden of both, before the activation.
Defaults: the paper gives no weight, it trains on this loss alone; RepDistiller has 30,000 on the mean over pairs of 64
images, 30,000 / 64 ≈ 470 on the mean over nodes; at most 2,048 nodes are ours. Not tuned. Searched: λ from 47 to 4700
(ours).
10⁻⁶ is added to each cosine, so that opposite features have a logarithm. A node without features has cosine 0. A single
node has no others, and no divergence.
Cost: quadratic in time in the n ≤ 2,048 sampled nodes, but blocks of rows of the n×n matrices are held, not all of them
(8 MB each in float64, however wide the features); linear in nodes besides.
"""

from typing import Annotated, Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from distillbench.plugin import (
    ALL_TASKS,
    Context,
    LayerPair,
    LayerPairs,
    Method,
    Output,
    Parameters,
    Range,
    sum_over_rows,
    unit_rows,
)

_EPSILON = 1e-6


class PKT(Method):
    """Match each node's distribution of similarities to all the others."""

    paper, tasks, requires = "passalis2018", ALL_TASKS, frozenset({"hidden"})

    class Params(Parameters):
        """weight: λ. layers: (student, teacher). self_pairs: whether a node is compared with itself, too.

        reduction: mean over nodes, mean over pairs, or sum. max_nodes: of larger batches, so many nodes are drawn in
        each step.
        """

        weight: Annotated[PositiveFloat, Range(47, 4700)] = 470.0
        layers: LayerPairs = (LayerPair(-1, -1),)
        self_pairs: bool = False
        reduction: Literal["nodes", "pairs", "sum"] = "nodes"
        max_nodes: PositiveInt = 2048

    def terms(self, student: Output, teacher: Output, ctx: Context) -> dict[str, Tensor]:
        """Task loss and divergence of the similarities."""
        nodes = ctx.sample(self.params.max_nodes)
        divergences = []
        for s, t in self.params.layers:
            # close distributions: their difference cancels, hence float64
            unit = [unit_rows(z[nodes].double()) for z in (student.hidden[s], teacher.hidden[t])]
            itself = torch.arange(len(nodes), device=nodes.device)
            total = sum_over_rows(self._divergence, (*unit, itself), unit, width=len(nodes))
            divergences.append(total / self._count(len(nodes)))
        return {
            "task": ctx.task_loss(student.logits),
            "divergence": self.params.weight * torch.stack(divergences).mean(),
        }

    def _count(self, n: int) -> int:
        """What the sum over pairs of n nodes is divided by."""
        pairs = n * (n if self.params.self_pairs else n - 1)
        return max(1, {"nodes": n, "pairs": pairs, "sum": 1}[self.params.reduction])

    def _divergence(self, rows_s: Tensor, rows_t: Tensor, itself: Tensor, unit_s: Tensor, unit_t: Tensor) -> Tensor:
        """Σ_j Σ_i p_{i|j}^t log(p_{i|j}^t / p_{i|j}^s) over some nodes j, the rows ``itself`` of all unit features."""
        left_out = itself[:, None] == torch.arange(len(unit_s), device=itself.device)
        if self.params.self_pairs:
            left_out = torch.zeros_like(left_out)
        # a number, not -inf: a row of nothing else has a softmax, and is masked below
        nothing = torch.finfo(rows_s.dtype).min
        log_p_s, log_p_t = (
            ((rows @ unit.T + 1 + _EPSILON) / 2).log().masked_fill(left_out, nothing).log_softmax(dim=-1)
            for rows, unit in ((rows_s, unit_s), (rows_t, unit_t))
        )
        return (log_p_t.exp() * (log_p_t - log_p_s).masked_fill(left_out, 0)).sum()
