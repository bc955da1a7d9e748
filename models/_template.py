"""GCN with jumping knowledge (JK-Net).

Xu et al.: Representation Learning on Graphs with Jumping Knowledge Networks, ICML 2018, arXiv 1806.03536.
    h_i^(l) = ReLU(GCN(h^(l-1)))_i,   z_i = W [h_i^(1) ‖ … ‖ h_i^(L)] + b

A template: copy it under a name of your own (files that begin with an underscore are no models) and replace what is
here by your model. In a config: {model: NAME, hidden: 16}, as a teacher or a student.
"""

import itertools

# The class-level statements and Params are read without importing torch, when runs are planned. So they use literals,
# pydantic, typing and what distillbench.params has only; everything else in the file may use whatever it needs.
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from distillbench.plugin import Backend, Graph, Model, Output, Parameters


class JumpingKnowledge(Model):
    """GCN layers whose features are all seen by the classifier."""

    # paper: first author and year. tasks: ALL_TASKS, SINGLE_LABEL_TASKS, or these. tried_with: for its checks.
    paper, tasks, tried_with = "xu2018", frozenset({"multiclass", "multilabel"}), {"hidden": 4}
    # Where they hold: libraries = frozenset({"pyg"}) (it uses layers of one library alone, on graph.native),
    # edges = "none" (it does not touch the graph) or "drawn" (it draws edges of its own, as on point clouds).

    class Params(Parameters):
        """hidden: units of each layer. tap: whether methods see hidden features before or after the activation."""

        hidden: PositiveInt
        layers: PositiveInt = 2
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
        tap: Literal["before", "after"] = "before"

        @property
        def hidden_dims(self) -> tuple[int, ...]:
            """Width of each hidden layer in Output.hidden."""
            return (self.hidden,) * self.layers

    def __init__(self, params: Params, backend: Backend, d_in: int, d_out: int) -> None:
        super().__init__(params, backend, d_in, d_out)
        widths = itertools.pairwise((d_in, *params.hidden_dims))
        # "gat", "gcn", "sage", "gin" and "edge" are equal on all libraries (see Backend.conv)
        self.convs = nn.ModuleList(backend.conv("gcn", before, after) for before, after in widths)
        self.classifier = nn.Linear(sum(params.hidden_dims), d_out)

    def forward(self, graph: Graph, x: Tensor) -> Output:
        """Logits [N, C], or [G, C] of graphs, and hidden features [N, D_l] with the edges that each layer used."""
        hidden, activated = [], []
        for conv in self.convs:
            out = conv(graph, F.dropout(x, self.params.dropout, self.training))
            x = F.relu(out)
            hidden.append(x if self.params.tap == "after" else out)
            activated.append(x)
        logits = self.classifier(torch.cat(activated, dim=1))
        return Output(logits, tuple(hidden), (graph.edge_index,) * len(hidden))
