"""Structure-aware codebook of a graph (VQGraph).

Yang, Tian, Xu, Liu, Hong, Qu, Zhang, Cui, Zhang, Leskovec: VQGraph: Rethinking Graph Representation Space for Bridging
GNNs and MLPs. ICLR 2024, arXiv 2308.02117; code: github.com/YangLing0818/VQGraph.
    L = λ task + (1 − λ) (1/N) Σ_i KL(p_i^t ‖ p_i^s) + β (1/N) Σ_i T² KL(softmax(r_i^t / T) ‖ softmax(r_i^s / T))
    r_im = −‖ z_i − e_m ‖₂,  e: the codebook, [M, D];  z_i: h_i of the tokenizer, or the student's hidden projected to D
The tokenizer is a second, untrained teacher with a codebook. Before distillation it is trained to minimise
    CE + (1/N) Σ_i (1 − cos(x_i, x̂_i))^γ + ‖ A − σ(X̂ X̂ᵀ) ‖² + (1/N) Σ_i (‖ sg(h_i) − e_i ‖² + η ‖ h_i − sg(e_i) ‖²)
on training labels, features and edges, e_i the code nearest to h_i, both reconstructions a linear map of e_i with the
gradient passed straight to h_i; then it is frozen. As in the paper it also gives the soft labels p^t; ``soft_labels:
teacher`` takes those of the pair's teacher, which all other methods learn from. The paper weighs the terms 1, α and β.

KL direction: teacher ‖ student. Reduction: mean over nodes. Layers: last hidden of both, before the activation.
What is ours: A is compared on at most ``pairs`` edges and as many pairs of nodes, drawn anew every epoch, with the mean
of either weighing half (the released code builds N × N). Codes begin at h of random nodes, M is at most N, and a code
that no node is nearest to is moved to the node farthest from its own code: by the codebook loss alone 11 of 512 were in
use on Cora, with a GCN.
The tokenizer's logits are those of the GNN, not of the codes, and it stops after ``epochs``: the validation part is not
looked at. Codes are moving averages of their nodes, which takes the place of the codebook loss ‖ sg(h_i) − e_i ‖², as
in the released code. It differs from the paper otherwise: h is reconstructed instead of x; distances are of unit
vectors; cosines of the tokenizer are compared with distances of the student (``assignment: released``). It also weighs
codes by 1e-8, but in steps of Adam of their own, and its best epoch is the best on the test part; we do neither.
Defaults: λ = 0, T = 4, η = 0.25, decay 0.8, 100 epochs, learning rate 0.01 and weight decay 5e-4 (released code, for
GraphSAGE); β = 1, γ = 1, M = 512 (released: 5000) and 4096 pairs are ours; not tuned. Searched: λ from 0 to 0.9, as for
glnn, β from 0.1 to 10 and T from 1 to 10 (ours).
Cost: linear in nodes × codes, with an N × M matrix; preparation, once: epochs × (the teacher's cost + nodes × codes).
"""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from distillbench.plugin import (
    NODE_CLASSES,
    Context,
    Dims,
    LayerPair,
    Method,
    Output,
    Parameters,
    Range,
    Setup,
    initialise,
)


class VQGraph(Method):
    """Match soft assignments of nodes to the codes of a tokenizer."""

    paper, tasks, requires = "yang2024", NODE_CLASSES, frozenset({"logits", "labels"})
    mlp_only = True
    tried_with = {"epochs": 3}

    class Params(Parameters):
        """label_weight: λ. beta: β. temperature: T. layers: (student, tokenizer), one pair. soft_labels: whose.

        Of the tokenizer: codes: M; pairs, of nodes, an epoch; gamma: γ; commitment: η; decay, of the codes' moving
        averages; epochs, learning_rate, weight_decay.
        """

        label_weight: Annotated[float, Field(ge=0, le=1), Range(0, 0.9, log=False)] = 0.0
        beta: Annotated[PositiveFloat, Range(0.1, 10)] = 1.0
        temperature: Annotated[PositiveFloat, Range(1, 10)] = 4.0
        layers: Annotated[tuple[LayerPair, ...], Field(min_length=1, max_length=1)] = (LayerPair(-1, -1),)
        soft_labels: Literal["tokenizer", "teacher"] = "tokenizer"
        assignment: Literal["distance", "released"] = "distance"
        codes: PositiveInt = 512
        pairs: PositiveInt = 4096
        gamma: float = Field(default=1.0, ge=1)
        commitment: PositiveFloat = 0.25
        decay: float = Field(default=0.8, ge=0, lt=1)
        epochs: PositiveInt = 100
        learning_rate: PositiveFloat = 0.01
        weight_decay: NonNegativeFloat = 5e-4

    def __init__(self, params: Params, student_dims: Dims, teacher_dims: Dims) -> None:
        super().__init__(params, student_dims, teacher_dims)
        s, t = params.layers[0]
        self.codebook_width = teacher_dims.hidden[t]
        self.projector = nn.Linear(student_dims.hidden[s], self.codebook_width)
        # what the tokenizer leaves behind; a run that is resumed trains it anew
        for name in ("codebook", "assigned", "soft"):
            self.register_buffer(name, None, persistent=False)

    def prepare(self, setup: Setup) -> None:
        """Train the tokenizer; keep its codebook [M, D], soft assignments [N, M] and soft labels [N, C] (both logs)."""
        p = self.params
        seed = int(torch.randint(2**62, (), generator=setup.random))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # the teacher's dropout draws from torch's own generator
            tokenizer = Tokenizer(p, setup, self.codebook_width, seed)
            optimiser = torch.optim.Adam(tokenizer.parameters(), lr=p.learning_rate, weight_decay=p.weight_decay)
            for _ in range(p.epochs):
                out = tokenizer.teacher(setup.x)
                distance, nearest = tokenizer.nearest(out)
                losses = tokenizer.losses(out, nearest, *tokenizer.sampled())
                optimiser.zero_grad(set_to_none=True)
                torch.stack(list(losses.values())).sum().backward()
                optimiser.step()
                tokenizer.move_codes(out, distance, nearest)
        with torch.no_grad():
            out = tokenizer.eval().teacher(setup.x)
            h, self.codebook = out.hidden[p.layers[0].teacher], tokenizer.codes
            near = -torch.cdist(h, self.codebook)
            if p.assignment == "released":
                near = F.normalize(h, dim=-1) @ F.normalize(self.codebook, dim=-1).T
            self.assigned = (near / p.temperature).log_softmax(-1)
            self.soft = out.logits.log_softmax(-1)

    def terms(self, student: Output, teacher: Output, ctx: Context) -> dict[str, Tensor]:
        """Task loss, soft labels and soft assignments to codes."""
        p = self.params
        r = -torch.cdist(self.projector(student.hidden[p.layers[0].student]), self.codebook)
        code = _divergence(self.assigned[ctx.nodes], (r / p.temperature).log_softmax(-1))
        labels = self.soft[ctx.nodes] if p.soft_labels == "tokenizer" else teacher.logits.log_softmax(-1)
        soft = _divergence(labels, student.logits.log_softmax(-1))
        return {
            "task": p.label_weight * ctx.task_loss(student.logits),
            "soft": (1 - p.label_weight) * soft,
            "code": p.beta * p.temperature**2 * code,
        }


class Tokenizer(nn.Module):
    """An untrained teacher, a codebook for one of its hidden layers, and the two decoders of a code."""

    def __init__(self, params: VQGraph.Params, setup: Setup, width: int, seed: int) -> None:
        super().__init__()
        if setup.new_teacher is None:
            raise ValueError("vqgraph trains a teacher of its own, and this setup has none")
        self.params, self.setup = params, setup
        self.teacher = setup.new_teacher()
        self.to_features = nn.Linear(width, setup.x.shape[1], bias=False).to(setup.x)
        self.to_edges = nn.Linear(width, width).to(setup.x)
        initialise(self, seed, "tokenizer")
        with torch.no_grad():
            h = self.teacher.eval()(setup.x).hidden[params.layers[0].teacher]
        self.codes = h[torch.randperm(len(h), generator=setup.random)[: params.codes].to(h.device)]
        self.train()
        source, destination = setup.edge_index
        self._edges = setup.edge_index[:, source != destination]
        self._adjacent = source * setup.num_nodes + destination  # A has the self-loops of the graph

    def sampled(self) -> tuple[Tensor, Tensor]:
        """Some edges and some pairs of nodes, [2, at most ``pairs``] each; all of them where they are no more."""
        n, limit, random = self.setup.num_nodes, self.params.pairs, self.setup.random
        edges = self._edges
        if edges.shape[1] > limit:
            edges = edges[:, torch.randint(edges.shape[1], (limit,), generator=random).to(edges.device)]
        drawn = torch.randint(n * n, (limit,), generator=random) if n * n > limit else torch.arange(n * n)
        drawn = drawn.to(edges.device)
        return edges, torch.stack([drawn // n, drawn % n])

    @torch.no_grad()
    def nearest(self, out: Output) -> tuple[Tensor, Tensor]:
        """Distance to, and number of, the code nearest to each node, [N] each."""
        return torch.cdist(out.hidden[self.params.layers[0].teacher], self.codes).min(dim=1)

    def losses(self, out: Output, nearest: Tensor, edges: Tensor, pairs: Tensor) -> dict[str, Tensor]:
        """What the tokenizer is trained with, by name; ``edges`` and ``pairs`` are [2, n] nodes."""
        setup, h = self.setup, out.hidden[self.params.layers[0].teacher]
        e = self.codes[nearest]
        passed_on = h + (e - h).detach()
        error = 1 - self._cosine(passed_on)
        decoded = self.to_edges(passed_on)
        adjacent = torch.isin(pairs[0] * setup.num_nodes + pairs[1], self._adjacent).to(h)
        of_edges = (1 - _linked(decoded, edges)).square().sum() / max(edges.shape[1], 1)
        of_pairs = (adjacent - _linked(decoded, pairs)).square().mean()
        return {
            "task": setup.task.loss(out.logits[setup.labelled], setup.labels[setup.labelled]),
            "features": error.clamp_min(0).pow(self.params.gamma).mean(),
            "edges": (of_edges + of_pairs) / 2,
            "commitment": self.params.commitment * (h - e).square().sum(dim=-1).mean(),
        }

    def _cosine(self, codes: Tensor) -> Tensor:
        """cos(x_i, x̂_i) with x̂ = W e, [N], from x W and WᵀW: x̂ itself is as wide as x, and twice as slow."""
        x, w = self.setup.x, self.to_features.weight
        length = ((codes @ (w.T @ w)) * codes).sum(dim=-1).clamp_min(1e-12).sqrt() * x.norm(dim=-1).clamp_min(1e-6)
        return ((x @ w) * codes).sum(dim=-1) / length

    @torch.no_grad()
    def move_codes(self, out: Output, distance: Tensor, nearest: Tensor) -> None:
        """Draw each code towards the mean of its nodes; put those without nodes where nodes are far from any code."""
        h, count = out.hidden[self.params.layers[0].teacher], torch.bincount(nearest, minlength=len(self.codes))
        mean = torch.zeros_like(self.codes).index_add(0, nearest, h) / count.clamp_min(1)[:, None]
        self.codes = self.codes.lerp(mean, 1 - self.params.decay)
        unused = count == 0
        self.codes[unused] = h[distance.topk(int(unused.sum())).indices]


def _linked(decoded: Tensor, pairs: Tensor) -> Tensor:
    """σ(x̂_i · x̂_j) of every pair."""
    return (decoded[pairs[0]] * decoded[pairs[1]]).sum(dim=-1).sigmoid()


def _divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p ‖ q), mean over rows."""
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
