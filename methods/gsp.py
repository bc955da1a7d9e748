"""Global structure preserving distillation (GSP).

Joshi, Liu, Xun, Lin, Foo: On Representation Knowledge Distillation for Graph Neural Networks. TNNLS 2022,
arXiv 2111.04964; code: github.com/chaitjo/efficient-gnns (``gpw_criterion``).
    L = task + β (1/n²) Σ_ij (cos(z_i^s, z_j^s) − cos(z_i^t, z_j^t))²,   i, j: the n nodes of a sample
With A and B the unit rows of both, the sum is ‖AAᵀ − BBᵀ‖² = ‖AᵀA‖² + ‖BᵀB‖² − 2‖AᵀB‖².

Reduction: mean over all n² pairs, a node with itself included. Layers: last hidden of both, before the activation, and
without projectors, as their PPI code has it (their ogbn-arxiv code projects both to 128 units first).
Defaults: cosine and at most 8,192 nodes are the code's; β = 100 is its run on ogbn-arxiv without soft labels (10 with
them, 1 in the signature); not tuned. Searched: β in its published range, 1 to 100, whose end is the default. Their
other kernels (poly, l2, rbf) have no such Gram form and are left out.
Cost: linear in the sampled nodes, quadratic in the features; no n×n matrix.
"""

from typing import Annotated

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from distillbench.plugin import ALL_TASKS, Context, LayerPair, LayerPairs, Method, Output, Parameters, Range, unit_rows


class GSP(Method):
    """Match the cosine similarity of every pair of nodes."""

    paper, tasks, requires = "joshi2022", ALL_TASKS, frozenset({"hidden"})

    class Params(Parameters):
        """weight: β. layers: (student, teacher). max_nodes: of larger batches, so many nodes are drawn in each step."""

        weight: Annotated[PositiveFloat, Range(1, 100)] = 100.0
        layers: LayerPairs = (LayerPair(-1, -1),)
        max_nodes: PositiveInt = 8192

    def terms(self, student: Output, teacher: Output, ctx: Context) -> dict[str, Tensor]:
        """Task loss and similarity loss."""
        nodes = ctx.sample(self.params.max_nodes)
        losses = []
        for s, t in self.params.layers:
            a, b = (unit_rows(z[nodes].double()) for z in (student.hidden[s], teacher.hidden[t]))
            aa, bb, ab = ((x.T @ y).square().sum() for x, y in ((a, a), (b, b), (a, b)))
            losses.append((aa + bb - 2 * ab) / len(a) ** 2)
        return {"task": ctx.task_loss(student.logits), "similarity": self.params.weight * torch.stack(losses).mean()}
