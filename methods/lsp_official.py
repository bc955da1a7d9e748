"""LSP as its authors released it (LSP-official).

Yang, Qiu, Song, Tao, Wang: Distilling Knowledge from Graph Convolutional Networks. CVPR 2020, arXiv 2003.10477;
code: github.com/ihollywhy/DistillGCN.PyTorch (main.py, auxilary_loss.py, local_structure.py).
    L = task + λ (1/N) Σ_i KL(LS_i^t ‖ LS_i^s) in epochs 1-30, L = task after them
    LS_ij = softmax over (j,i) ∈ E of exp(−‖z_i − z_j‖₁ / 100)
It differs from the paper (see lsp) in the kernel, in the direction of the KL, in λ = 1 and in the schedule. The softmax
is of numbers between 0 and 1, so within a neighbourhood the largest probability is at most e times the smallest.

KL direction: teacher ‖ student. Reduction: sum over edges / N. Layers: the released code matches the student's third
hidden layer with the teacher's second, before the activation; here last with last unless the config says so. How it
evaluates is not part of the method: see ``protocol: official``. Searched: λ from 1, as released, to the 100 of lsp.
Cost: linear in edges × features, in the first 30 epochs.
"""

from typing import Annotated

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
    local_structure,
    structure_divergence,
    union_edges,
)


class LSPOfficial(Method):
    """Match each node's distribution of similarities to its neighbours, early in training."""

    paper, tasks, requires = "yang2020", ALL_TASKS, frozenset({"hidden", "edges"})

    class Params(Parameters):
        """weight: λ. sigma: the kernel's 100. until_epoch: last with the structure loss. layers: (student, teacher)."""

        weight: Annotated[PositiveFloat, Range(1, 100)] = 1.0
        sigma: PositiveFloat = 100.0
        until_epoch: PositiveInt = 30
        layers: LayerPairs = (LayerPair(-1, -1),)

    def terms(self, student: Output, teacher: Output, ctx: Context) -> dict[str, Tensor]:
        """Task loss and, early, structure loss."""
        task = ctx.task_loss(student.logits)
        if ctx.epoch > self.params.until_epoch:
            return {"task": task, "structure": task.new_zeros(())}
        divergences = []
        for s, t in self.params.layers:
            edges = union_edges(student, s, teacher, t, ctx.num_nodes)
            stored = None if student.dynamic else ctx.precomputed.get(f"structure{t}")
            of_teacher = self._structure(teacher.hidden[t], edges) if stored is None else stored
            of_student = self._structure(student.hidden[s], edges)
            divergences.append(
                structure_divergence(of_student, of_teacher, edges, ctx.num_nodes, direction="teacher||student")
            )
        return {"task": task, "structure": self.params.weight * torch.stack(divergences).mean()}

    def _structure(self, h: Tensor, edges: Tensor) -> Tensor:
        return local_structure(h, edges, "exp-l1", sigma=self.params.sigma)

    def precompute(self, teacher: Output, edge_index: Tensor) -> dict[str, Tensor]:
        """The teacher's structure, where it is over the graph's own edges."""
        static = {t for _, t in self.params.layers if teacher.on_own_edges(t)}
        return {f"structure{t}": self._structure(teacher.hidden[t], edge_index) for t in static}
