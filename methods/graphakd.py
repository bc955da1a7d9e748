"""Adversarial knowledge distillation of graph neural networks (GraphAKD).

He, Wang, Zhang, Wu: Compressing Deep Graph Neural Networks via Adversarial Knowledge Distillation. KDD 2022,
arXiv 2205.11678; code: github.com/MIRALab-USTC/GraphAKD. Losses as released, BCE(x, y) of σ(x):
    student: task + ½ (BCE(D_l(z_s), 1) + task of D_c(z_s)) + (1/M) ‖z_s − z_t‖₁ + BCE(D_e(h_s), 1)
             + BCE(D_g(h_s, m_t), 1) + BCE(D_g(h_t, m_s), 1) + BCE(D_g(h_s, m_s), 0)
    judges:  ½ (BCE(D_l(z_t), 1) + BCE(D_l(z_s), 0) + task of D_c(z_t) + task of D_c(z_s)) + BCE(D_e(h_t), 1)
             + BCE(D_e(h_s), 0) + BCE(D_g(h_t, m_t), 1) + BCE(D_g(h_s, m_t), 0) + BCE(D_g(h_s, m_s), 1)
             + BCE(D_g(h_t, m_s), 0)
    z: logits; (D_c, D_l)(z) = V relu(z + U z + b), C classes and one unit: teacher or student
    h: features; D_e = a Σ_c d_c u_ic u_jc for every edge (i,j), D_g = a Σ_c d_c u_ic m_c for every node, u = h / ‖h‖
    m = σ(mean of h over the nodes): what a graph is like as a whole
D_e is the local view, D_g the global one. The student plays against judges that are trained one step before it.

Layers: last hidden of both, before the activation (released: after it). The released code needs equal widths; a
student of another width is projected to the teacher's by a linear layer that is trained with it. m is over the batch,
as released for nodes; for graph-level tasks the released code has one m a graph. Edges of point clouds: those of the
student and of the teacher. Reduction: mean over edges, nodes, rows. All weights are 1, a = ½ and d = 1 at first, as
released; the judges have an Adam of their own at the student's first learning rate, without weight decay (released:
with the run's). They step in every ``every``-th epoch (released: 1 to 30 by data set, 1 where none is given). Not
tuned. Searched: ``every`` from 1 to 30, the only thing that the released code sets by data set; there are no weights.
Cost: linear in edges and nodes; no N×N matrix, features of a chunk of edges at a time.
"""

from collections.abc import Iterator
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from distillbench.plugin import (
    ALL_TASKS,
    Context,
    Dims,
    LayerPair,
    LayerPairs,
    Method,
    Output,
    Parameters,
    Range,
    union_edges,
    unit_rows,
)

_CHUNK = 1 << 16  # edges


class GraphAKD(Method):
    """Fool judges of logits, of edges and of nodes in their graph."""

    paper, tasks, requires = "he2022", ALL_TASKS, frozenset({"logits", "hidden", "edges", "labels"})

    class Params(Parameters):
        """layers: (student, teacher). every: epochs from one training of the judges to the next."""

        layers: LayerPairs = (LayerPair(-1, -1),)
        every: Annotated[PositiveInt, Range(1, 30)] = 1

    def __init__(self, params: Params, student_dims: Dims, teacher_dims: Dims) -> None:
        super().__init__(params, student_dims, teacher_dims)
        widths = [(student_dims.hidden[s], teacher_dims.hidden[t]) for s, t in params.layers]
        self.projectors = nn.ModuleList(nn.Linear(s, t) if s != t else nn.Identity() for s, t in widths)
        self.adversary = nn.ModuleDict(
            {
                "logits": _OfLogits(student_dims.logits),
                "local": nn.ModuleList(_OfEdges(t) for _, t in widths),
                "global": nn.ModuleList(_OfNodes(t) for _, t in widths),
            }
        )

    def terms(self, student: Output, teacher: Output, ctx: Context) -> dict[str, Tensor]:
        """Task loss, the judges' opinions of the student, and the distance of the logits."""
        classes, source = self.adversary["logits"](student.logits)
        of_edges, of_nodes = [], []
        for d_e, d_g, h_s, h_t, edges in self._views(student, teacher, ctx):
            m_s, m_t = _summary(h_s), _summary(h_t)
            of_edges.append(_real(d_e(h_s, edges)))
            of_nodes.append(_real(d_g(h_s, m_t)) + _real(d_g(h_t, m_s)) + _fake(d_g(h_s, m_s)))
        return {
            "task": ctx.task_loss(student.logits),
            "logits": (_real(source) + ctx.task_loss(classes)) / 2,
            "distance": (student.logits - teacher.logits).abs().sum(dim=-1).mean(),
            "local": torch.stack(of_edges).mean(),
            "global": torch.stack(of_nodes).mean(),
        }

    def adversary_loss(self, student: Output, teacher: Output, ctx: Context) -> Tensor | None:
        """What the judges are trained to minimise, in every ``every``-th epoch from the first."""
        if (ctx.epoch - 1) % self.params.every:
            return None
        (classes_s, source_s), (classes_t, source_t) = map(self.adversary["logits"], (student.logits, teacher.logits))
        of_logits = _real(source_t) + _fake(source_s) + ctx.task_loss(classes_t) + ctx.task_loss(classes_s)
        of_features = []
        with torch.no_grad():  # the projectors are the student's
            views = list(self._views(student, teacher, ctx))
        for d_e, d_g, h_s, h_t, edges in views:
            m_s, m_t = _summary(h_s), _summary(h_t)
            local = _real(d_e(h_t, edges)) + _fake(d_e(h_s, edges))
            of_teacher = _real(d_g(h_t, m_t)) + _fake(d_g(h_s, m_t))
            of_features.append(local + of_teacher + _real(d_g(h_s, m_s)) + _fake(d_g(h_t, m_s)))
        return of_logits / 2 + torch.stack(of_features).mean()

    def _views(
        self, student: Output, teacher: Output, ctx: Context
    ) -> Iterator[tuple[nn.Module, nn.Module, Tensor, Tensor, Tensor]]:
        """D_e, D_g, h_s, h_t and edges, for every pair of layers."""
        parts = (self.params.layers, self.projectors, self.adversary["local"], self.adversary["global"])
        for (s, t), project, d_e, d_g in zip(*parts, strict=True):
            edges = union_edges(student, s, teacher, t, ctx.num_nodes)
            yield d_e, d_g, project(student.hidden[s]), teacher.hidden[t], edges


class _OfLogits(nn.Module):
    """D_c and D_l: what class, and whether of the teacher."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.u, self.v = nn.Linear(classes, classes), nn.Linear(classes, classes + 1, bias=False)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        judged = self.v(F.relu(z + self.u(z)))
        return judged[:, :-1], judged[:, -1]


class _OfPairs(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.d, self.a = nn.Parameter(torch.ones(width)), nn.Parameter(torch.tensor(0.5))


class _OfEdges(_OfPairs):
    """D_e: whether the two ends of an edge are as the teacher has them."""

    def forward(self, h: Tensor, edges: Tensor) -> Tensor:
        u = unit_rows(h)
        parts = [
            checkpoint(_products, u * self.d, u, part, use_reentrant=False, preserve_rng_state=False)
            for part in edges.split(_CHUNK, dim=1)
        ]
        return self.a * torch.cat(parts)


def _products(a: Tensor, b: Tensor, edges: Tensor) -> Tensor:
    source, destination = edges
    return (a[source] * b[destination]).sum(dim=-1)


class _OfNodes(_OfPairs):
    """D_g: whether a node belongs to the graph that ``summary`` is of."""

    def forward(self, h: Tensor, summary: Tensor) -> Tensor:
        return self.a * (unit_rows(h) @ (self.d * summary))


def _summary(h: Tensor) -> Tensor:
    return h.mean(dim=0).sigmoid()


def _real(judged: Tensor) -> Tensor:
    """BCE(judged, 1)."""
    return F.softplus(-judged).mean()


def _fake(judged: Tensor) -> Tensor:
    """BCE(judged, 0)."""
    return F.softplus(judged).mean()
