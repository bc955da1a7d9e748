"""Noise-robust and structure-aware MLPs on graphs (NOSMOG).

Tian, Zhang, Guo, Zhang, Chawla: Learning MLPs on Graphs: A Unified View of Effectiveness, Robustness, and Efficiency.
ICLR 2023, arXiv 2208.10010; code: github.com/meettyj/NOSMOG.
    L = λ task + (1 − λ) KL(p_t ‖ p_s(x)) + μ mean((G_t − G_s)²) + η max_{|δ| ≤ ε} KL(p_t ‖ p_s(x + δ))
    G_t = H_t H_tᵀ,   G_s = H' H'ᵀ,   H' = ReLU(W H_s + b), trained with the student;   x: the features and the position
The first two terms are GLNN. The position of a node is its DeepWalk embedding (Perozzi, Al-Rfou, Skiena: DeepWalk. KDD
2014, arXiv 1403.6652): skip-gram over random walks, on the graph without self-loops; it is appended to the student's
input. δ is found by projected gradient ascent: from uniform noise in [−ε, ε], five steps of ε/4 in the sign of the
gradient, on all of x, with the student in training mode.

``samples``: walks and δ are random, so the terms depend on the numbering of nodes.
KL direction: teacher ‖ student, at T = 1. Reduction: mean over nodes, and over pairs of nodes. Layers: logits, and the
last hidden of both, before the activation; neither cosine nor norm, so that what is compared grows with the fourth
power of the features: the authors' settings have μ from 0.9 to 1e-9. All as in their code, but that the code takes
batches of 512 nodes (we take all nodes, by the Gram form ‖H_tᵀH_t‖² + ‖H'ᵀH'‖² − 2‖H_tᵀH'‖², never N×N), has dropout on
H', and for λ > 0 adds the last two terms a second time for the labelled nodes, with labels for p_t.
The code's DeepWalk is gensim's, by hierarchical softmax and 5 negatives. Ours is by 5 negatives, in expectation over
256 noise nodes that a batch of up to 64 walks shares, from the walks' node frequencies to the power ¾; Adam, 0.025
falling to 0 (ours).
Defaults: λ = 0, η = 0.1 and the authors' setting for Cora, transductive: μ = 0.1, ε = 0.04, 64 dimensions, 5 walks of
50 nodes from each node, window 5, one epoch; all tuned by them for each data set. Not tuned here. Searched: μ from 1e-9
to 1, as their settings have it; λ from 0 to 0.9, as for glnn, and η from 0.01 to 1 (ours).
Cost: linear in nodes, with five more passes of the student and its gradient a step, N·D² for the similarities, and a
random number for each feature of each node. Once before: walks · length · (window + noise nodes) · dimensions for each
node, a few seconds for Cora.
"""

from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from distillbench.plugin import (
    NODE_CLASSES,
    Context,
    Dims,
    LayerPair,
    LayerPairs,
    Method,
    Output,
    Parameters,
    Range,
    Setup,
)

NEGATIVES, NOISE_NODES = 5, 256
BATCHES, LARGEST_BATCH = 200, 64  # walks a batch: so few that there are enough steps, and no more than are needed


class NOSMOG(Method):
    """Soft labels with positions as input, similarities of nodes to match, and features turned against the student."""

    paper, tasks, requires = "tian2023", NODE_CLASSES, frozenset({"logits", "hidden"})
    mlp_only, samples = True, True
    tried_with = {"walks": 1, "walk_length": 10, "dimensions": 4}

    class Params(Parameters):
        """label_weight: λ. similarity_weight: μ. adversarial_weight: η. epsilon: ε. layers: (student, teacher).

        walks, from each node, of walk_length nodes; window: contexts to each side; dimensions: of the position;
        learning_rate: of the embedding. ascent_steps: to find δ.
        """

        label_weight: Annotated[float, Field(ge=0, le=1), Range(0, 0.9, log=False)] = 0.0
        similarity_weight: Annotated[NonNegativeFloat, Range(1e-9, 1)] = 0.1
        adversarial_weight: Annotated[NonNegativeFloat, Range(0.01, 1)] = 0.1
        epsilon: PositiveFloat = 0.04
        ascent_steps: PositiveInt = 5
        layers: LayerPairs = (LayerPair(-1, -1),)
        dimensions: PositiveInt = 64
        walks: PositiveInt = 5
        walk_length: PositiveInt = Field(default=50, ge=2)
        window: PositiveInt = 5
        learning_rate: PositiveFloat = 0.025

    def __init__(self, params: Any, student_dims: Dims, teacher_dims: Dims) -> None:
        super().__init__(params, student_dims, teacher_dims)
        widths = [student_dims.hidden[s] for s, _ in params.layers]
        self.projectors = nn.ModuleList(nn.Linear(width, width) for width in widths)

    def student_inputs(self, setup: Setup) -> Tensor:
        """Positions of the nodes in the graph, [N, dimensions]."""
        p = self.params
        walks = random_walks(setup.edge_index, setup.num_nodes, p.walks, p.walk_length, setup.random)
        return skip_gram(walks, setup.num_nodes, p.dimensions, p.window, p.learning_rate, setup.random).to(setup.x)

    def terms(self, student: Output, teacher: Output, ctx: Context) -> dict[str, Tensor]:
        """Task loss, soft labels, similarities, and soft labels under the worst features nearby."""
        p, log_t = self.params, teacher.logits.log_softmax(-1)
        projected = zip(p.layers, self.projectors, strict=True)
        unlike = [gram_distance(w(student.hidden[s]).relu(), teacher.hidden[t]) for (s, t), w in projected]
        against = ctx.run_student(ctx.x + self._worst(log_t, ctx))
        # without labels there need be no labelled row, over which a mean would be NaN
        task = p.label_weight * ctx.task_loss(student.logits) if p.label_weight else student.logits.new_zeros(())
        return {
            "task": task,
            "soft": (1 - p.label_weight) * divergence(student.logits, log_t),
            "similarity": p.similarity_weight * torch.stack(unlike).mean(),
            "adversarial": p.adversarial_weight * divergence(against.logits, log_t),
        }

    def _worst(self, log_t: Tensor, ctx: Context) -> Tensor:
        """The change δ of the features that leads the student away from the teacher."""
        epsilon = self.params.epsilon
        delta = torch.rand(ctx.x.shape, generator=ctx.random, dtype=ctx.x.dtype).to(ctx.x.device)
        delta = epsilon * (2 * delta - 1)
        for _ in range(self.params.ascent_steps):
            delta.requires_grad_()
            (uphill,) = torch.autograd.grad(divergence(ctx.run_student(ctx.x + delta).logits, log_t), delta)
            delta = (delta.detach() + epsilon / 4 * uphill.sign()).clamp(-epsilon, epsilon)
        return delta


def divergence(logits: Tensor, log_t: Tensor) -> Tensor:
    """KL(teacher ‖ student), mean over nodes."""
    return F.kl_div(logits.log_softmax(-1), log_t, reduction="batchmean", log_target=True)


def gram_distance(a: Tensor, b: Tensor) -> Tensor:
    """mean((A Aᵀ − B Bᵀ)²) of [N, D] features; in float64, as it is a small difference of large sums."""
    x, y = a.double(), b.double()
    total = (x.T @ x).square().sum() + (y.T @ y).square().sum() - 2 * (x.T @ y).square().sum()
    return (total / len(a) ** 2).to(a.dtype)


def random_walks(edge_index: Tensor, num_nodes: int, walks: int, length: int, random: torch.Generator) -> Tensor:
    """Walks along the edges, [walks · nodes that have a neighbour, length]; edges sorted by destination, symmetric."""
    source, destination = edge_index[:, edge_index[0] != edge_index[1]]
    degree = torch.bincount(destination, minlength=num_nodes)
    first = degree.cumsum(0) - degree
    visited = [degree.nonzero().squeeze(-1).repeat(walks)]
    for _ in range(length - 1):
        here = visited[-1]
        draw = torch.rand(len(here), generator=random, dtype=torch.float64)
        visited.append(source[first[here] + (draw * degree[here]).long()])
    return torch.stack(visited, dim=1)


def skip_gram(
    walks: Tensor, num_nodes: int, dimensions: int, window: int, learning_rate: float, random: torch.Generator
) -> Tensor:
    """Embedding of the nodes, [num_nodes, dimensions] float32, that predicts a node's neighbours in the walks.

    −Σ over pairs (u, v) at most ``window`` steps apart of log σ(c_u·o_v) + NEGATIVES · E_n log σ(−c_u·o_n). Nodes that
    no walk visits keep their small random start.
    """
    centre = ((torch.rand(num_nodes, dimensions, generator=random) - 0.5) / dimensions).requires_grad_()
    context = torch.zeros(num_nodes, dimensions).requires_grad_()
    if not len(walks):
        return centre.detach()
    noise = torch.bincount(walks.flatten(), minlength=num_nodes).double() ** 0.75
    length = walks.shape[1]
    place = torch.arange(length)
    pairs = place.clamp(max=window) + place.flip(0).clamp(max=window)  # of each place in a walk
    optimiser = torch.optim.Adam([centre, context], lr=learning_rate)
    size = max(1, min(LARGEST_BATCH, len(walks) // BATCHES))
    batches = torch.randperm(len(walks), generator=random).split(size)
    for number, rows in enumerate(batches):
        optimiser.param_groups[0]["lr"] = learning_rate * (1 - number / len(batches))
        c, o = F.embedding(walks[rows], centre), F.embedding(walks[rows], context)
        near = [
            F.softplus(-(x[:, apart:] * y[:, :-apart]).sum(-1)).sum()
            for apart in range(1, min(window, length - 1) + 1)
            for x, y in ((c, o), (o, c))
        ]
        others = torch.multinomial(noise, NOISE_NODES, replacement=True, generator=random)
        far = NEGATIVES * (pairs * F.softplus(c @ context[others].T).mean(-1)).sum()
        optimiser.zero_grad()
        ((torch.stack(near).sum() + far) / (len(rows) * pairs.sum())).backward()
        optimiser.step()
    return centre.detach()
