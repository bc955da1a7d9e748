"""Local structure preserving distillation (LSP).

Yang, Qiu, Song, Tao, Wang: Distilling Knowledge from Graph Convolutional Networks. CVPR 2020, arXiv 2003.10477.
    L = task + λ (1/N) Σ_i KL(LS_i^s ‖ LS_i^t),   LS_ij = softmax over (j,i) ∈ E of SIM(z_i, z_j)            (eqs. 1-4)
On dynamic graphs E is the union of the student's and the teacher's edges at the matched layers (section 3.3).

KL direction: student ‖ teacher. Reduction: sum over edges / N (Joshi et al. 2022: teacher ‖ student, mean over edges).
Layers: last hidden of both, before the activation. The authors' code is another loss (see lsp_official); each of its
differences is a parameter here, too. Defaults: λ = 100 and rbf with σ = 100, as re-implementations of the paper have
them; not tuned. Searched: λ from 1 to 1000 (ours; the losses of the kernels differ in size), the kernel among rbf and
linear, which the paper has, and cosine, which Joshi et al. have, and σ, of rbf alone, from 1 to 1000 (ours). With
σ = 100, features whose distances are far below 14 give an almost uniform structure, and hence an almost empty loss:
look at the curve `structure` of a run.
Cost: linear in edges × features; no [E, D] tensor is held.
"""

from typing import Annotated

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from distillbench.plugin import (
    ALL_TASKS,
    Choice,
    Context,
    Direction,
    Kernel,
    LayerPair,
    LayerPairs,
    Method,
    Output,
    Parameters,
    Range,
    Reduction,
    local_structure,
    structure_divergence,
    union_edges,
)


class LSP(Method):
    """Match each node's distribution of similarities to its neighbours."""

    paper, tasks, requires = "yang2020", ALL_TASKS, frozenset({"hidden", "edges"})

    class Params(Parameters):
        """weight: λ. kernel: SIM. layers: (student, teacher). sigma: rbf, exp-l1. c, degree: polynomial.

        direction, reduction: of the KL divergence. until_epoch: the last epoch with the structure loss (None: all).
        self_loops: whether a node is among its own neighbours.
        """

        weight: Annotated[PositiveFloat, Range(1, 1000)] = 100.0
        kernel: Annotated[Kernel, Choice("rbf", "linear", "cosine")] = "rbf"
        layers: LayerPairs = (LayerPair(-1, -1),)
        sigma: Annotated[PositiveFloat, Range(1, 1000)] = 100.0
        c: float = 0.0
        degree: PositiveInt = 2
        direction: Direction = "student||teacher"
        reduction: Reduction = "nodes"
        until_epoch: PositiveInt | None = None
        self_loops: bool = True

    def terms(self, student: Output, teacher: Output, ctx: Context) -> dict[str, Tensor]:
        """Task loss and structure loss."""
        if self.params.until_epoch and ctx.epoch > self.params.until_epoch:
            return {"task": ctx.task_loss(student.logits), "structure": student.logits.new_zeros(())}
        structure = [self._divergence(student, teacher, s, t, ctx) for s, t in self.params.layers]
        return {"task": ctx.task_loss(student.logits), "structure": self.params.weight * torch.stack(structure).mean()}

    def _divergence(self, student: Output, teacher: Output, s: int, t: int, ctx: Context) -> Tensor:
        edges = union_edges(student, s, teacher, t, ctx.num_nodes)
        stored = None if student.dynamic else ctx.precomputed.get(f"structure{t}")
        if not self.params.self_loops:
            keep = edges[0] != edges[1]
            edges, stored = edges[:, keep], None if stored is None else stored[keep]
        of_teacher = self._structure(teacher.hidden[t], edges) if stored is None else stored
        of_student = self._structure(student.hidden[s], edges)
        p = self.params
        return structure_divergence(
            of_student, of_teacher, edges, ctx.num_nodes, direction=p.direction, reduction=p.reduction
        )

    def _structure(self, h: Tensor, edges: Tensor) -> Tensor:
        p = self.params
        return local_structure(h, edges, p.kernel, sigma=p.sigma, c=p.c, degree=p.degree)

    def precompute(self, teacher: Output, edge_index: Tensor) -> dict[str, Tensor]:
        """The teacher's structure, where it is over the graph's own edges; zero at self-loops that are left out."""
        keep = slice(None) if self.params.self_loops else edge_index[0] != edge_index[1]
        stored = {}
        for t in {t for _, t in self.params.layers if teacher.on_own_edges(t)}:
            of_kept = self._structure(teacher.hidden[t], edge_index[:, keep])
            stored[f"structure{t}"] = of_kept.new_zeros(edge_index.shape[1])
            stored[f"structure{t}"][keep] = of_kept
        return stored
