"""Several methods at once, such as ``lsp+kd``: the distillation terms of all, and one task term.

    L = w · task + Σ_m distillation terms of m,     w: the smallest weight that any of the methods gives to the task

With kd, whose soft labels take a share α of the task's weight, any X+kd is (1 - α) task + α T² KL + X's terms, which is
what Joshi et al. (TNNLS 2022) run as kd+X. Each method keeps its own hyper-parameters.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distillbench.distillation.method import Context, Dims, Method, Setup
from distillbench.models.gnn import Output
from distillbench.plugins import load


def load_method(files: Mapping[str, str], params: Mapping[str, Any], student: Dims, teacher: Dims) -> Method:
    """The method of a file with ``params``, or, of several files, all of them with ``params`` by name."""
    plugins = {name: load("method", Path(file)) for name, file in files.items()}
    if len(plugins) == 1:
        (plugin,) = plugins.values()
        method: Method = plugin(plugin.Params(**params), student, teacher)
        return method
    return Combined({name: each(each.Params(**params[name]), student, teacher) for name, each in plugins.items()})


class Combined(Method):
    """The methods ``parts``, by name. Their trained parts are named after them, so each starts as it would alone."""

    paper, tasks, requires = "", frozenset(), frozenset()

    def __init__(self, parts: Mapping[str, Method]) -> None:
        first = next(iter(parts.values()))
        super().__init__(first.params, first.student_dims, first.teacher_dims)
        self.names = tuple(parts)  # a name may have a dot in it, which a ModuleDict's may not
        self.parts = nn.ModuleList(parts.values())

    def _each(self) -> Iterator[tuple[str, Method]]:
        yield from zip(self.names, self.parts, strict=True)

    def terms(self, student: Output, teacher: Output, ctx: Context) -> dict[str, Tensor]:
        """The task's smallest weighting, and every other term; a name that two methods share is told by the method."""
        found = {name: method.terms(student, teacher, self._context(name, ctx)) for name, method in self._each()}
        names = Counter(term for terms in found.values() for term in terms)
        task = torch.stack([terms["task"] for terms in found.values()]).amin(0)
        others = {
            term if names[term] == 1 else f"{name}.{term}": value
            for name, terms in found.items()
            for term, value in terms.items()
            if term != "task"
        }
        return {"task": task, **others}

    def precompute(self, teacher: Output, edge_index: Tensor) -> dict[str, Tensor]:
        """Of every method."""
        return {
            f"{name}/{key}": value
            for name, method in self._each()
            for key, value in method.precompute(teacher, edge_index).items()
        }

    def student_inputs(self, setup: Setup) -> Tensor | None:
        """Of every method, one beside the other."""
        given = [extra for _, method in self._each() if (extra := method.student_inputs(setup)) is not None]
        return torch.cat(given, dim=1) if given else None

    def wrap_student(self, student: nn.Module, setup: Setup) -> nn.Module:
        """The first method's wrapping inside the next one's."""
        for _, method in self._each():
            student = method.wrap_student(student, setup)
        return student

    def prepare(self, setup: Setup) -> None:
        """Of every method."""
        for _, method in self._each():
            method.prepare(setup)

    def adversary_loss(self, student: Output, teacher: Output, ctx: Context) -> Tensor | None:
        """The sum: the adversaries share no parameters."""
        losses = [m.adversary_loss(student, teacher, self._context(name, ctx)) for name, m in self._each()]
        given = [loss for loss in losses if loss is not None]
        return torch.stack(given).sum() if given else None

    def adversaries(self) -> Iterator[nn.Module]:
        """Of every method."""
        for _, method in self._each():
            yield from method.adversaries()

    @staticmethod
    def _context(name: str, ctx: Context) -> Context:
        own = {key.removeprefix(f"{name}/"): v for key, v in ctx.precomputed.items() if key.startswith(f"{name}/")}
        return replace(ctx, precomputed=own)
