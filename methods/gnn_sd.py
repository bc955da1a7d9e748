"""Self-distillation of a GNN (GNN-SD).

Chen, Bian, Xiao, Rong, Xu, Huang: On Self-Distilling Graph Neural Network. IJCAI 2021, arXiv 2011.02255. We know of no
public code by the authors.
    L = task + β Σ_l ‖S^{l+1} − stop(S^l)‖²
    S_v^l = 1 − cos((A X^l)_v, X_v^l),   the neighbourhood discrepancy rate of node v at layer l
There is no teacher: each layer keeps the discrepancy of the layer below it, against over-smoothing.

``adaptive: true`` is the paper's adaptive regulariser: the sum begins at the layer l* < L with the largest ‖S^l‖, and
has only those l where the discrepancy falls, ‖S^l‖ > ‖S^{l+1}‖ (from memory, not from the paper's full text).
It is off by default because it is zero, and says nothing, wherever discrepancy happens to grow with depth. The paper's
further terms for whole graphs and for the classifiers of single layers are not here.

A: the edges of the layer's graph, with self-loops or not; any scaling of its rows leaves the cosine as it is.
Layers: all hidden ones, before the activation, then, where logits belong to nodes, the logits. A student that uses no
graph is compared over the data set's. Reduction: mean over nodes (``sum``: the equation's squared norm). β = 1 is ours;
not tuned. Searched: β from 0.1 to 10 (ours).
Cost: linear in edges; no N×N matrix.
"""

from itertools import pairwise
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat
from torch import Tensor

from distillbench.plugin import ALL_TASKS, Context, Method, Output, Parameters, Range


class GNNSD(Method):
    """Keep, from layer to layer, how much a node differs from its neighbourhood."""

    paper, tasks, requires = "chen2021", ALL_TASKS, frozenset()
    excused = {"derivative": "the layer below is held constant"}

    class Params(Parameters):
        """weight: β. adaptive: see above. reduction: over the nodes. self_loops: whether A has them."""

        weight: Annotated[PositiveFloat, Range(0.1, 10)] = 1.0
        adaptive: bool = False
        reduction: Literal["mean", "sum"] = "mean"
        self_loops: bool = True

    def terms(self, student: Output, teacher: Output, ctx: Context) -> dict[str, Tensor]:
        """Task loss and discrepancy loss. Raises ValueError for a single layer."""
        layers, edges = list(student.hidden), [e if e.shape[1] else ctx.edge_index for e in student.edge_index]
        if ctx.task.level == "node":
            layers, edges = [*layers, student.logits], [*edges, edges[-1]]
        if len(layers) < 2:
            raise ValueError("gnn-sd compares layers of the student with one another, and it has only one")
        rates = [self._discrepancy(x, e) for x, e in zip(layers, edges, strict=True)]
        reduction = self.params.reduction
        losses = torch.stack([F.mse_loss(s, below.detach(), reduction=reduction) for below, s in pairwise(rates)])
        if self.params.adaptive:
            norms = torch.stack([s.detach().norm() for s in rates])
            first = norms[:-1].argmax()
            from_there = torch.arange(len(losses), device=losses.device) >= first
            losses = losses * (from_there & (norms[:-1] > norms[1:]))
        return {"task": ctx.task_loss(student.logits), "discrepancy": self.params.weight * losses.sum()}

    def _discrepancy(self, x: Tensor, edges: Tensor) -> Tensor:
        """S, [N]."""
        if not self.params.self_loops:
            edges = edges[:, edges[0] != edges[1]]
        ones = x.new_ones(edges.shape[1])
        adjacency = torch.sparse_coo_tensor(edges.flip(0), ones, (len(x), len(x)), check_invariants=False)
        return 1 - F.cosine_similarity(torch.sparse.mm(adjacency, x), x, dim=-1)
