"""Logit matching (LM).

Ba, Caruana: Do Deep Nets Really Need to be Deep? NIPS 2014, arXiv 1312.6184.
    L = task + λ (1/2N) Σ_i ‖z_i^s − z_i^t‖²,   z: logits

A template: copy it under a name of your own (files that begin with an underscore are not methods) and replace what is
here by your method. Docstrings say: title with abbreviation in brackets; citation and, where there is one, the address
of the official code; the equation as the paper writes it.
Reduction: mean over nodes or graphs. Layers: logits. Default: λ = 1 is ours; not tuned. Searched: λ from 0.1 to 10
(ours).
Cost: linear in nodes × classes.
"""

# The class-level statements and Params are read without importing torch, when runs are planned. So they use literals,
# pydantic, typing and what distillbench.params has only; everything else in the file may use whatever it needs.
from typing import Annotated

from pydantic import PositiveFloat
from torch import Tensor

from distillbench.plugin import ALL_TASKS, Context, Method, Output, Parameters, Range


class LogitMatching(Method):
    """Regress the teacher's logits."""

    # paper: first author and year, as in the docstring above.
    # tasks: ALL_TASKS, SINGLE_LABEL_TASKS, NODE_CLASSES or frozenset({"multilabel"}).
    # requires: what is read of the teacher: "logits", "hidden", "edges" (of its layers), "teachers" (further ones),
    #           "model" (the teacher itself, before training); and "labels" beyond the task loss.
    paper, tasks, requires = "ba2014", ALL_TASKS, frozenset({"logits"})

    # Where they hold: mlp_only = True (the student has no graph), transductive_only = True (it cannot predict nodes
    # that it has not seen), samples = True (it sees a random part of any graph), and, for checks that cannot hold,
    # excused = {"equal": "the reason"} (also: "numbering", "derivative").

    class Params(Parameters):
        """weight: λ."""

        # Where it is searched for when methods are tuned: Range or Choice, of one to three hyper-parameters that decide
        # how strongly the method teaches. Where no range is published, from a tenth of the default to ten times it.
        weight: Annotated[PositiveFloat, Range(0.1, 10)] = 1.0
        # layers to match, checked against the models of a pair before anything runs:
        # layers: LayerPairs = (LayerPair(-1, -1),)      # (student, teacher); -1 is the last hidden layer

    # Trained parts, such as projectors, are submodules, made here; state that is not trained is a buffer:
    # def __init__(self, params: Params, student_dims: Dims, teacher_dims: Dims) -> None:
    #     super().__init__(params, student_dims, teacher_dims)
    #     self.projector = nn.Linear(student_dims.hidden[-1], teacher_dims.hidden[-1])

    def terms(self, student: Output, teacher: Output, ctx: Context) -> dict[str, Tensor]:
        """Task loss and distance of the logits."""
        # student, teacher: logits, hidden[l], edge_index[l]. ctx: labels, labelled, edge_index, num_nodes, epoch, x,
        # nodes, and random, from which all random numbers are drawn. Terms are scalars, weighted, and are added up.
        distance = (student.logits - teacher.logits).square().sum(dim=-1).mean() / 2
        return {"task": ctx.task_loss(student.logits), "distance": self.params.weight * distance}

    # Hooks for what a function of two outputs cannot do (see Method in workflow/distillbench/distillation/method.py):
    # precompute, prepare, student_inputs, wrap_student, adversary_loss.
