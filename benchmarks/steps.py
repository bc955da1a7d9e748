"""What one training step of every method costs, and how that grows with nodes, edges and sampled nodes.

    python benchmarks/steps.py [--methods kd lsp ...] [--nodes 1000 2000 ...] [--degrees 4 8 ...] [--repeats 5]

No model is run: the outputs of student and teacher are random numbers that require gradients, over a random symmetric
graph with self-loops, so what is timed is a method's own part of a step: terms, their backward pass, the step of its
adversary, and what it puts around the student. Preparation and precomputation are not in it. Float32, one thread.
"""

import argparse
import math
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from distillbench.data.graph_data import symmetric_with_loops
from distillbench.data.tasks import TASKS
from distillbench.distillation.method import Context, Dims, Method, Setup
from distillbench.models.backends.base import Graph
from distillbench.models.gnn import Output, initialise
from distillbench.plugins import available, declaration, find, load
from distillbench.training.steps import detached

ROOT = Path(__file__).parents[1]
METHODS = ROOT / "methods"

FEATURES, CLASSES = 64, 16
STUDENT, TEACHER = Dims((64, 64), CLASSES), Dims((128, 128), CLASSES)
FURTHER_TEACHERS = 2
NODES, DEGREE = 2000, 8  # where the other of the two grows
SAMPLED_OF = 4000  # nodes, where the number of sampled ones grows
SAMPLED = ("max_nodes", "codes")  # the parameters that say how many
UNTIMED = {"vqgraph": {"epochs": 1}}  # preparation that would take longer than the measurement


class Case(NamedTuple):
    """One method on one graph, with one set of parameters."""

    method: str
    nodes: int
    degree: int
    params: tuple[tuple[str, Any], ...] = ()


class MLP(nn.Module):
    """A small model, where a method wants to run one: x -> Output."""

    def __init__(self, dims: Dims) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        width = FEATURES
        for units in (*dims.hidden, dims.logits):
            self.layers.append(nn.Linear(width, units))
            width = units
        initialise(self, 0, "mlp")

    def forward(self, x: Tensor) -> Output:
        """See the class."""
        hidden = []
        for layer in self.layers[:-1]:
            hidden.append(layer(x))
            x = hidden[-1].relu()
        return Output(self.layers[-1](x), tuple(hidden), (torch.empty(2, 0, dtype=torch.int64),) * len(hidden))


class Given(nn.Module):
    """A student whose output is a parameter."""

    def __init__(self, nodes: int, edges: Tensor, random: torch.Generator) -> None:
        super().__init__()
        widths = (STUDENT.logits, *STUDENT.hidden)
        self.values = nn.ParameterList(torch.randn(nodes, width, generator=random) for width in widths)
        self.edges = edges

    def forward(self, graph: Graph, x: Tensor) -> Output:  # noqa: ARG002
        """See the class."""
        logits, *hidden = self.values
        return Output(logits, tuple(hidden), (self.edges,) * len(hidden))


@dataclass(frozen=True)
class Data:
    """A random graph with what a method sees of it."""

    graph: Graph
    setup: Setup
    context: Context


@cache
def data_of(task: str, nodes: int, degree: int) -> Data:
    """A graph with ``degree`` neighbours a node, on average, besides the node itself; a tenth of the rows labelled."""
    random = torch.Generator().manual_seed(nodes * 1000 + degree)
    edges = symmetric_with_loops(*torch.randint(nodes, (2, nodes * degree // 2), generator=random), nodes)
    x = torch.randn(nodes, FEATURES, generator=random)
    multilabel = TASKS[task].multilabel
    labelled = torch.ones(nodes, dtype=torch.bool) if multilabel else torch.arange(nodes) % 10 == 0
    classes = (nodes, CLASSES) if multilabel else (nodes,)
    labels = torch.randint(2 if multilabel else CLASSES, classes, generator=random)
    labels = labels.float() if multilabel else labels.masked_fill(~labelled, -1)

    def teacher() -> Output:
        logits, *hidden = (torch.randn(nodes, width, generator=random) for width in (CLASSES, *TEACHER.hidden))
        return Output(logits, tuple(hidden), (edges,) * len(hidden))

    first, *further = (teacher() for _ in range(1 + FURTHER_TEACHERS))
    setup = Setup(
        task=TASKS[task],
        x=x,
        edge_index=edges,
        labels=labels,
        labelled=labelled,
        teacher=first,
        random=random,
        teachers=tuple(further),
        run_teacher=torch.no_grad()(MLP(TEACHER)),
        new_teacher=lambda: MLP(TEACHER),
    )
    context = Context(
        task=TASKS[task],
        labels=labels,
        labelled=labelled,
        edge_index=edges,
        num_nodes=nodes,
        epoch=0,
        random=random,
        x=x,
        nodes=torch.arange(nodes),
        teachers=tuple(further),
        run_student=MLP(STUDENT),
    )
    return Data(Graph(None, edges, torch.tensor([0, nodes])), setup, context)


class Step:
    """A case, ready to be timed. Called, it takes one step and returns the seconds it took."""

    def __init__(self, case: Case) -> None:
        path = find("method", case.method, [METHODS])
        plugin = load("method", path)
        self.data = data_of(task_of(case.method), case.nodes, case.degree)
        setup, context = self.data.setup, self.data.context
        params = {**UNTIMED.get(case.method, {}), **dict(case.params)}
        self.method: Method = plugin(plugin.Params(**params), STUDENT, TEACHER)
        initialise(self.method, 0, "projector")
        with torch.no_grad():
            precomputed = self.method.precompute(setup.teacher, setup.edge_index)
        self.method.prepare(setup)
        edges = setup.edge_index[:, :0] if plugin.mlp_only else setup.edge_index
        self.student = self.method.wrap_student(Given(case.nodes, edges, setup.random), setup)
        self.context = replace(context, precomputed=precomputed)
        self.trained = [*self.student.parameters(), *self.method.parameters(), *context.run_student.parameters()]
        self.epoch = 0

    def __call__(self) -> float:
        """See the class."""
        self.epoch += 1
        for parameter in self.trained:
            parameter.grad = None
        teacher, ctx = self.data.setup.teacher, replace(self.context, epoch=self.epoch)
        begun = time.perf_counter()
        student = self.student(self.data.graph, self.data.setup.x)
        against = self.method.adversary_loss(detached(student), teacher, ctx)
        if against is not None:
            against.backward()
        terms = self.method.terms(student, teacher, ctx)
        torch.stack(list(terms.values())).sum().backward()
        return time.perf_counter() - begun


def task_of(method: str) -> str:
    """The task a method is timed on: one class a node, if it can."""
    tasks = declaration("method", find("method", method, [METHODS])).tasks
    return "multiclass" if "multiclass" in tasks else min(tasks)


def cost_of(method: str) -> str:
    """What the docstring says of the cost of a step."""
    text = find("method", method, [METHODS]).read_text(encoding="utf-8").split('"""')[1]
    _, found, cost = text.partition("\nCost: ")
    return " ".join(cost.split("\n\n")[0].split()) if found else "not stated"


def sampled_by(method: str) -> tuple[str, list[int]] | None:
    """The parameter that limits the sampled nodes, with four values, each twice the last, around its default."""
    fields = declaration("method", find("method", method, [METHODS])).params.model_fields
    for name in SAMPLED:
        if name in fields:
            largest = min(2 * fields[name].default, SAMPLED_OF)
            return name, [largest // 8, largest // 4, largest // 2, largest]
    return None


def measured(series: Iterable[Sequence[Case]], repeats: int, limit: float) -> dict[Case, float]:
    """Median seconds of a step, of all cases in turn, again and again.

    A series ends before the case that would take more than ``limit`` seconds, should it grow with the square.
    """
    steps: dict[Case, Step] = {}
    for cases in series:
        for case in cases:
            steps[case] = steps.get(case) or Step(case)
            seconds = min(steps[case]() for _ in range(2))  # the first is for the caches
            print(f"{case.method} {case.nodes} nodes, degree {case.degree} {dict(case.params) or ''}: "
                  f"{1000 * seconds:.1f} ms", file=sys.stderr)  # fmt: skip
            if 4 * seconds > limit:
                break
    seconds = [{case: step() for case, step in steps.items()} for _ in range(repeats)]
    return {case: statistics.median(each[case] for each in seconds) for case in steps}


def exponent(sizes: Sequence[int], seconds: Sequence[float | None]) -> float | None:
    """Slope of log seconds over log size, over the upper half of the sizes (two at least)."""
    known = [(math.log(size), math.log(each)) for size, each in zip(sizes, seconds, strict=True) if each is not None]
    upper = known[min(len(known) // 2, len(known) - 2) :] if len(known) >= 2 else []
    return statistics.linear_regression(*zip(*upper, strict=True)).slope if upper else None


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; all columns but the first and the last are numbers."""
    rule = [":---", *["---:"] * (len(header) - 2), ":---"]
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *rows))


def shown(number: float | None, digits: int, scale: float = 1) -> str:
    """A number, or a dash where there is none."""
    return "–" if number is None else f"{scale * number:.{digits}f}"


def cpu_name() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    return found.group(1) if found else platform.processor()


def growth(
    what: str,
    methods: Sequence[str],
    sizes: Sequence[int],
    case: Callable[[str, int], Case],
    found: dict[Case, float],
    last: tuple[str, Callable[[str], str]],
) -> str:
    """Table of a series that all methods have in common."""
    rows = []
    for method in methods:
        seconds = [found.get(case(method, size)) for size in sizes]
        milliseconds = [shown(each, 1, 1000) for each in seconds]
        rows.append([method, *milliseconds, shown(exponent(sizes, seconds), 2), last[1](method)])
    return markdown(["Method", *(f"{size:,} {what}" for size in sizes), "Exponent", last[0]], rows)


def report(args: argparse.Namespace) -> str:
    """Measure, and write the page."""
    methods = args.methods or available([METHODS])
    of_nodes = {m: [Case(m, size, DEGREE) for size in args.nodes] for m in methods}
    of_edges = {m: [Case(m, args.degree_nodes, size) for size in args.degrees] for m in methods}
    sampling = {m: by for m in methods if (by := sampled_by(m))}
    of_samples = {
        m: [Case(m, SAMPLED_OF, DEGREE, ((name, value),)) for value in values] for m, (name, values) in sampling.items()
    }
    series = [*of_nodes.values(), *of_edges.values(), *of_samples.values()]
    begun = time.monotonic()
    found = measured(series, args.repeats, args.limit)
    nodes = growth("nodes", methods, args.nodes, lambda m, n: Case(m, n, DEGREE), found, ("Docstring", cost_of))
    edges = growth(
        "neighbours",
        methods,
        args.degrees,
        lambda m, d: Case(m, args.degree_nodes, d),
        found,
        ("Docstring speaks of edges", lambda m: "yes" if re.search(r"(?<!no )edges", cost_of(m)) else "no"),
    )
    rows = []
    for method, (name, values) in sampling.items():
        seconds = [found.get(case) for case in of_samples[method]]
        row = [method, *(shown(each, 1, 1000) for each in seconds), shown(exponent(values, seconds), 2)]
        rows.append([*row, f"`{name}` = {values[-1]:,}"])
    samples = markdown(["Method", "⅛", "¼", "½", "1", "Exponent", "of"], rows)
    return PAGE.format(
        command=" ".join(["python", "benchmarks/steps.py", *args.given]),
        date=datetime.now(UTC).date().isoformat(),
        machine=f"{cpu_name()}, {platform.system()}, Python {platform.python_version()}, torch {torch.__version__}",
        seconds=f"{time.monotonic() - begun:.0f}",
        repeats=args.repeats,
        features=FEATURES,
        student=f"{len(STUDENT.hidden)} × {STUDENT.hidden[0]}",
        teacher=f"{len(TEACHER.hidden)} × {TEACHER.hidden[0]}",
        classes=CLASSES,
        degree=DEGREE,
        degree_nodes=f"{args.degree_nodes:,}",
        sampled_of=f"{SAMPLED_OF:,}",
        limit=f"{args.limit:g}",
        nodes=nodes,
        edges=edges,
        samples=samples,
    )


PAGE = """# The cost of one step

Written by `{command}` on {date} in {seconds} s; one thread of {machine}.

Milliseconds of one forward and backward pass of a method's terms (with its adversary's step and what it puts around
the student, where there are any), median of {repeats}, all cases in turn. Random outputs take the place of a student
with {student} hidden units and a teacher with {teacher}; {features} features, {classes} classes.

Exponent: slope of log time over log size over the upper half of the sizes. 1 is linear and 2 quadratic; below 1, a
fixed cost still counts. “–”: left out, because a step would take more than {limit} s if it grew with the square.

## Nodes, with {degree} neighbours each

{nodes}

## Neighbours, of {degree_nodes} nodes

{edges}

## Sampled nodes or codes, of {sampled_of} nodes

Of methods with a limit on the nodes they compare (or on the codes), with that limit at a share of the last column.

{samples}
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="default: all of methods/")
    parser.add_argument("--nodes", nargs="+", type=int, default=[1000, 2000, 4000, 8000, 16000], metavar="N")
    parser.add_argument("--degrees", nargs="+", type=int, default=[4, 8, 16, 32, 64], metavar="D")
    parser.add_argument("--degree-nodes", type=int, default=NODES, metavar="N", help="nodes, where the degree grows")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--limit", type=float, default=2.0, help="seconds that a step may take")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "STEPS.md")
    args = parser.parse_args(arguments)
    args.given = sys.argv[1:] if arguments is None else list(arguments)
    torch.set_num_threads(1)
    page = report(args)
    args.output.write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
