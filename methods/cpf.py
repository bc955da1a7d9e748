"""Combination of parameterised label propagation and feature transformation (CPF).

Yang, Liu, Shi: Extract the Knowledge of Graph Neural Networks and Go Beyond it: An Effective Knowledge Distillation
Framework. WWW 2021, arXiv 2103.02885; code: github.com/BUPT-GAMMA/CPF.
    L = Σ_{v unlabelled} ‖ f_T(v) − f_K(v) ‖₂
    f_{k+1}(v) = α_v Σ_{u ∈ N(v) ∪ {v}} w_uv f_k(u) + (1 − α_v) softmax(MLP(x_v))
    w_uv = exp(c_u) / Σ_{u' ∈ N(v) ∪ {v}} exp(c_u')
The MLP is the pair's student; α_v (a sigmoid) and the scores c_v are trained for each node. f_0 is one-hot on labelled
nodes and uniform on the others; labelled nodes keep their label in every step. So labels enter by propagation only: the
term `task` is a constant near 0, there for the curves, and has no gradient. ``scores: features`` is c_v = z·x_v with a
trained z (what the paper calls inductive; α_v stays one number a node).

At run time the graph IS touched: a prediction takes K steps of propagation over all edges, and there is no α_v for a
node that was not there in training. The logits of the student are log f_K, with f_K no less than 1e-6.

A distance of probabilities, no KL divergence. Reduction: sum over the unlabelled nodes; ``reduction: norm`` is the
released code's, one norm over all entries of the difference. ``mixture: scores``: the released code mixes the MLP's
logits, not their softmax, into each step, applies ReLU to it, and reads the result as logits. Layers: logits; no
temperature.
Defaults: K = 7 and dropout 0.2 on w, as the released code has them for a GCN teacher on Cora (it searches K from 5 to
10 and the dropout among 0.2, 0.5, 0.8 for each data set). Dropout scales what is kept of w, so in training f_k is a
distribution only in expectation; as released. Not tuned here. Searched: K and the dropout, where the released code
searches them; the loss has no weight.
Cost: a step is linear in nodes and classes; the student's own forward is linear in K · edges · classes besides.
"""

from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from distillbench.plugin import NODE_CLASSES, Choice, Context, Method, Output, Parameters, Range, Setup


class CPF(Method):
    """Distil into label propagation whose weights are learned, mixed with an MLP."""

    paper, tasks, requires = "yang2021", NODE_CLASSES, frozenset({"logits", "labels"})
    mlp_only, transductive_only, needs_unlabelled = True, True, True

    class Params(Parameters):
        """steps: K. scores: c_v, one a node or from its features. dropout: on the edges' weights, in training.

        reduction, mixture: "sum" and "probabilities" (the paper), or "norm" and "scores" (the released code).
        """

        steps: Annotated[PositiveInt, Range(5, 10, log=False)] = 7
        scores: Literal["nodes", "features"] = "nodes"
        dropout: Annotated[float, Field(ge=0, lt=1), Choice(0.2, 0.5, 0.8)] = 0.2
        reduction: Literal["sum", "norm"] = "sum"
        mixture: Literal["probabilities", "scores"] = "probabilities"

    def wrap_student(self, student: nn.Module, setup: Setup) -> nn.Module:
        """Label propagation around the MLP."""
        return LabelPropagation(self.params, student, setup, self.student_dims.logits)

    def terms(self, student: Output, teacher: Output, ctx: Context) -> dict[str, Tensor]:
        """Task loss, a constant, and distance to the teacher on the nodes without a label.

        Raises:
            ValueError: there is no such node.
        """
        unlabelled = ~ctx.labelled
        if not unlabelled.any():
            raise ValueError("cpf distils on nodes without a label, and there is none: set distill_nodes to all")
        difference = teacher.logits[unlabelled].softmax(-1) - student.logits[unlabelled].softmax(-1)
        if self.params.reduction == "sum":
            distance = torch.linalg.vector_norm(difference, dim=-1).sum()
        else:
            distance = torch.linalg.vector_norm(difference)
        return {"task": ctx.task_loss(student.logits), "distance": distance}


class LabelPropagation(nn.Module):
    """f_K, from training labels, an MLP and what is learned for each node; ``(graph, x) -> Output``."""

    def __init__(self, params: Any, student: nn.Module, setup: Setup, classes: int) -> None:
        super().__init__()
        self.params, self.student = params, student
        self.balance = nn.Parameter(setup.x.new_zeros(setup.num_nodes))  # α before the sigmoid
        width = setup.num_nodes if params.scores == "nodes" else setup.x.shape[1]
        self.score = nn.Parameter(setup.x.new_zeros(width))
        given = setup.x.new_full((setup.num_nodes, classes), 1 / classes)
        given[setup.labelled] = F.one_hot(setup.labels[setup.labelled], classes).to(given)
        self.register_buffer("given", given)
        self.register_buffer("labelled", setup.labelled[:, None].clone())
        self.train(student.training)

    def forward(self, graph: Any, x: Tensor) -> Output:
        """The student's output with log f_K for its logits.

        Raises:
            ValueError: the nodes are not those of the training.
        """
        if len(x) != len(self.given):
            raise ValueError(f"cpf was trained on {len(self.given)} nodes and cannot predict {len(x)}")
        source, destination = graph.edge_index
        out = self.student(graph, x)
        probabilities = self.params.mixture == "probabilities"
        transformed = out.logits.softmax(-1) if probabilities else out.logits
        weights = self._weights(source, destination, x)
        alpha = self.balance.sigmoid()[:, None]
        f = self.given
        for _ in range(self.params.steps):
            kept = F.dropout(weights, self.params.dropout, self.training)
            propagated = torch.zeros_like(f).index_add(0, destination, kept[:, None] * f[source])
            mixed = alpha * propagated + (1 - alpha) * transformed
            f = torch.where(self.labelled, self.given, mixed if probabilities else mixed.relu())
        return out._replace(logits=f.clamp_min(1e-6).log() if probabilities else f)

    def _weights(self, source: Tensor, destination: Tensor, x: Tensor) -> Tensor:
        score = (self.score if self.params.scores == "nodes" else x @ self.score)[source]
        largest = score.new_zeros(len(x)).scatter_reduce(0, destination, score.detach(), "amax", include_self=False)
        exp = (score - largest[destination]).exp()
        return exp / exp.new_zeros(len(x)).index_add(0, destination, exp)[destination]
