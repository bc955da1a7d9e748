"""Writes down what a method is given, a file a run, in the order of the runs; its loss is the task's."""

from pathlib import Path

import torch
from torch import nn

from distillbench.plugin import ALL_TASKS, Method, Parameters


class Spy(Method):
    """Made here."""

    paper, tasks = "none", ALL_TASKS
    requires = frozenset({"logits", "hidden", "labels", "model", "teachers"})

    class Params(Parameters):
        """folder: of the files. decayed: projector and adversary have a gradient, of zero."""

        folder: str
        decayed: bool = False

    def __init__(self, params, student_dims, teacher_dims):
        super().__init__(params, student_dims, teacher_dims)
        self.projector = nn.Linear(student_dims.hidden[-1], teacher_dims.hidden[-1])
        self.adversary = nn.Linear(2, 2) if params.decayed else None

    def prepare(self, setup):
        folder = Path(self.params.folder)
        self.file = folder / f"{len(list(folder.iterdir()))}.pt"
        self.seen = {
            "projector": self._weights(),
            "setup": {
                "x": setup.x,
                "labels": setup.labels,
                "labelled": setup.labelled,
                "teacher": setup.teacher.logits,
            },
            "run_teacher": setup.run_teacher(setup.x).logits,
            "prepare": torch.rand(3, generator=setup.random),
            "steps": [],
        }

    def terms(self, student, teacher, ctx):
        step = {
            "nodes": ctx.nodes, "x": ctx.x, "labels": ctx.labels, "labelled": ctx.labelled, "teacher": teacher.logits,
            "further": ctx.teachers[0].logits, "student": student.logits.detach(), "projector": self._weights(),
            "method": torch.rand(3, generator=ctx.random), "dropout": torch.initial_seed(),
        }  # fmt: skip
        self.seen["steps"].append(step)
        torch.save(self.seen, self.file)
        terms = {"task": ctx.task_loss(student.logits)}
        return terms | ({"none": 0.0 * self.projector.weight.sum()} if self.params.decayed else {})

    def adversary_loss(self, student, teacher, ctx):
        return 0.0 * self.adversary.weight.sum()

    def _weights(self):
        return {name: value.detach().clone() for name, value in self.named_parameters()}
