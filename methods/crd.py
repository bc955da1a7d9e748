"""Contrastive representation distillation (CRD).

Tian, Krishnan, Isola: Contrastive Representation Distillation. ICLR 2020, arXiv 1910.10699;
code: github.com/HobbitLong/RepDistiller (``criterion.py``, ``memory.py``).
    L = task − β (1/n) Σ_i [log h(v_i, b_i) + Σ_j log(1 − h(v_i, b_j))],  summed over both directions         (eq. 18)
    h(v, b) = (e^{v·b/τ} / Z) / (e^{v·b/τ} / Z + K/M),   v = r(z) / ‖r(z)‖,   r: trained linear projectors
v: a node of the student, b: a row of a bank of the teacher's v; and the other way round, so that the teacher's
projector is trained, too. b_i: the same node; b_j: K other nodes. M: rows of the bank, one for each node seen in
training. Z is M times the mean of e^{v·b/τ} in the first batch, and kept (the code); ``normalisation: none`` is Z = 1,
as the paper writes h. After a step the bank's rows of the batch become b_i ← μ b_i + (1 − μ) v_i, of length one again.

An image of the paper is a node here, in graph-level tasks, too. What is ours: the paper has batches of 64, and draws
16,384 negatives for each image; on a whole graph these would be N × 16,384 × 128 numbers (Cora: 22 GB). The negatives
of a step are drawn once, for all its nodes, each leaving itself out, and at most 1,024 nodes are compared in a step.
With at most 16,384 nodes in training all the others are negatives, and nothing is drawn. The code's loader leaves out
images of the same class; labels are known for few nodes, so none are left out here (its ``memory.py`` alone does the
same). The bank begins with random rows of about length one, as in the code. In evaluation mode nothing is updated.

Reduction: sum over the negatives, mean over the nodes. Layers: last hidden of both, before the activation; each pair
has a bank. Defaults: β = 0.8, τ = 0.07, K = 16,384, μ = 0.5 and 128 units are the code's; not tuned. Searched: β from
0.08 to 8, τ from 0.02 to 0.2 (ours).
Cost: linear in nodes, and n·K products for n ≤ 1,024 nodes, of whose n×K matrices blocks of rows are held (8 MB each);
the bank holds 256 numbers for each node that is seen in training, and each checkpoint has it (1 GB for a million).
"""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

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
    Setup,
    sum_over_rows,
    unit_rows,
)

_ROWS = 128  # of the scores of the first batch that are held at a time


class CRD(Method):
    """Tell a node's features in the other model from those of other nodes, kept in a memory."""

    paper, tasks, requires = "tian2020", ALL_TASKS, frozenset({"hidden"})

    class Params(Parameters):
        """weight: β. layers: (student, teacher). temperature: τ. width: units of the projectors. momentum: μ.

        negatives: K at most. max_nodes: of larger batches, so many nodes are drawn in each step.
        normalisation: Z, of the first batch or none.
        """

        weight: Annotated[PositiveFloat, Range(0.08, 8)] = 0.8
        layers: LayerPairs = (LayerPair(-1, -1),)
        temperature: Annotated[PositiveFloat, Range(0.02, 0.2)] = 0.07
        width: PositiveInt = 128
        momentum: float = Field(default=0.5, ge=0, lt=1)
        negatives: PositiveInt = 16384
        max_nodes: PositiveInt = 1024
        normalisation: Literal["first-batch", "none"] = "first-batch"

    def __init__(self, params: Params, student_dims: Dims, teacher_dims: Dims) -> None:
        super().__init__(params, student_dims, teacher_dims)
        self.projectors = nn.ModuleList()
        for s, t in params.layers:
            widths = (student_dims.hidden[s], teacher_dims.hidden[t])
            self.projectors.append(nn.ModuleList([nn.Linear(d, params.width) for d in widths]))
        # of each layer pair, the student's part and the teacher's
        self.register_buffer("bank", torch.empty(len(params.layers), 2, 0, params.width))
        self.register_buffer("log_z", torch.full((len(params.layers), 2), torch.nan))  # log Z/M; NaN: no batch yet

    def prepare(self, setup: Setup) -> None:
        """Fill the bank with random rows."""
        layers, _, _, width = self.bank.shape
        rows = torch.rand(layers, 2, setup.num_nodes, width, generator=setup.random)
        rows = (2 * rows - 1) * (3 / width) ** 0.5  # variance 1 / width
        # dealt out by the nodes' features, so that their numbers do not matter
        key = setup.x @ torch.randn(setup.x.shape[1], generator=setup.random).to(setup.x)
        self.bank = rows[:, :, key.argsort(stable=True).argsort()].to(self.bank)

    def terms(self, student: Output, teacher: Output, ctx: Context) -> dict[str, Tensor]:
        """Task loss and contrastive loss; in training mode, the bank is brought up to date."""
        anchors = ctx.sample(self.params.max_nodes)
        others = self._negatives(ctx)
        nodes = ctx.nodes[anchors]
        losses = []
        for layer, (s, t) in enumerate(self.params.layers):
            of_student, of_teacher = self.projectors[layer]
            v_s = unit_rows(of_student(student.hidden[s][anchors]))
            v_t = unit_rows(of_teacher(teacher.hidden[t][anchors]))
            losses.append(self._contrast(v_s, nodes, others, layer, 1) + self._contrast(v_t, nodes, others, layer, 0))
            if self.training:
                self._update(layer, 0, nodes, v_s)
                self._update(layer, 1, nodes, v_t)
        return {"task": ctx.task_loss(student.logits), "contrast": self.params.weight * torch.stack(losses).mean()}

    def _contrast(self, v: Tensor, nodes: Tensor, others: Tensor, layer: int, side: int) -> Tensor:
        """−(1/n) Σ_i [...] of ``v`` [n, width], the nodes numbered ``nodes``, against one side of the bank."""
        bank = self.bank[layer, side]
        by_row, whole = (v, nodes, bank[nodes]), (others, bank[others], self._log_z(v, nodes, others, layer, side))
        return sum_over_rows(self._nce, by_row, whole, width=len(others)) / len(v)

    def _nce(self, v: Tensor, nodes: Tensor, own: Tensor, others: Tensor, bank: Tensor, log_z: Tensor) -> Tensor:
        """−Σ_i [...] over some nodes: ``own`` is their rows of the bank, ``bank`` those of all the ``others``."""
        positive = (v * own).sum(dim=-1, keepdim=True) / self.params.temperature
        negative = v @ bank.T / self.params.temperature
        itself = nodes[:, None] == others
        count = (~itself).sum(dim=-1, keepdim=True).to(v)  # K
        # h = 1 / (1 + Z K/M e^{-v·b/τ}), a sigmoid
        shift = log_z + count.log()
        log_h, log_not_h = F.logsigmoid(positive - shift), F.logsigmoid(shift - negative).masked_fill(itself, 0)
        return -(log_h + log_not_h.sum(dim=-1, keepdim=True)).sum()

    @torch.no_grad()
    def _log_z(self, v: Tensor, nodes: Tensor, others: Tensor, layer: int, side: int) -> Tensor:
        """log Z/M, a scalar; of the first batch it is the log of the mean of e^{v·b/τ} over all pairs, b_i included."""
        bank = self.bank[layer, side]
        if self.params.normalisation == "none":
            return -torch.tensor(len(bank)).to(v).log()
        log_z = self.log_z[layer, side]
        if log_z.isnan():
            sums, pairs = [], 0
            for part in torch.arange(len(v), device=v.device).split(_ROWS):
                itself = nodes[part, None] == others
                negative = (v[part] @ bank[others].T).masked_fill(itself, -torch.inf)
                positive = (v[part] * bank[nodes[part]]).sum(dim=-1, keepdim=True)
                sums.append((torch.cat([positive, negative], dim=-1) / self.params.temperature).flatten().logsumexp(0))
                pairs += len(part) * (1 + len(others)) - int(itself.sum())
            log_z = torch.stack(sums).logsumexp(dim=0) - torch.tensor(pairs).to(v).log()
            if self.training:
                self.log_z[layer, side] = log_z
        return log_z

    def _negatives(self, ctx: Context) -> Tensor:
        rows, most = self.bank.shape[2], self.params.negatives
        drawn = torch.arange(rows) if rows <= most else torch.randperm(rows, generator=ctx.random)[:most]
        return drawn.to(ctx.nodes.device)

    @torch.no_grad()
    def _update(self, layer: int, side: int, nodes: Tensor, v: Tensor) -> None:
        bank, momentum = self.bank[layer, side], self.params.momentum
        bank[nodes] = F.normalize(momentum * bank[nodes] + (1 - momentum) * v)
