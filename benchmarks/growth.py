"""How time and memory of an LSP student's epoch grow with the nodes and with the edges of a graph.

The paper's student on generated graphs of two decades of sizes, trained as in a run: the whole graph in a step, the
validation part scored after it; and the structure loss alone, up to ten million edges. Each size is measured in a
process of its own.
"""

import functools
import itertools
import math
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.ticker import EngFormatter
from pydantic import TypeAdapter

from benchmarks.shapes import random_edges
from benchmarks.steps import exponent, markdown, shown
from benchmarks.student_step import MODELS
from distillbench.config.config import Training
from distillbench.config.specs import ModelSpec
from distillbench.data.graph_data import GraphData, Split
from distillbench.distillation.combination import load_method
from distillbench.distillation.method import Dims
from distillbench.distillation.structure import local_structure, structure_divergence
from distillbench.figures.style import FAINT, library_look, new_figure, save, styled
from distillbench.models.backends import get_backend
from distillbench.models.gnn import GNN, initialise
from distillbench.plugins import find
from distillbench.profiling.peak_memory import peak_memory_mb
from distillbench.training.allocator import keep_freed_memory
from distillbench.training.fit import fit
from distillbench.training.inputs import Inputs, TeacherOutputs
from distillbench.training.steps import Teaching
from distillbench.wording import BACKENDS

METHODS = Path(__file__).parents[1] / "methods"
FEATURES, CLASSES, TEACHER_HIDDEN = 50, 16, 256
NODES = (1_000, 3_162, 10_000, 31_623, 100_000)  # with DEGREE edges each
DEGREE = 16
EDGES = (30_000, 94_868, 300_000, 948_683, 3_000_000)  # of FIXED_NODES
FIXED_NODES = 10_000
LOSS_EDGES = (100_000, 316_228, 1_000_000, 3_162_278, 10_000_000)  # of LOSS_NODES
LOSS_NODES, LOSS_FEATURES = 50_000, 136
EPOCHS = 4  # measured; one more before, to warm up
LIMIT_MB = 12_000  # a size that would take more is left out
# of a point: its name, label and unit in the figure, and the factor to that unit
MEASURED = (("seconds", "time", "s", 1.0), ("memory_mb", "peak memory", "B", 1e6))
NAMES = BACKENDS | {"loss": "forward and backward"}


class Point(NamedTuple):
    """One size, measured: seconds of an epoch, and its peak of memory in MB beyond what is held before training."""

    nodes: int
    edges: int
    seconds: float
    memory_mb: float


def measure(backend: str, device: str, nodes: int, edges: int) -> Point:
    """Train the student for a few epochs. Runs in a process that has done nothing before."""
    torch.set_num_threads(1)
    keep_freed_memory()
    library = get_backend(backend)
    random = torch.Generator().manual_seed(0)
    edge_index = random_edges(nodes, edges)
    data = GraphData(
        x=torch.randn(nodes, FEATURES, generator=random),
        edge_index=edge_index,
        y=torch.randint(CLASSES, (nodes,), generator=random),
        graph_ptr=torch.tensor([0, nodes]),
        task_name="multiclass",
        setting="transductive",
        num_classes=CLASSES,
    )
    train, val, _ = torch.randperm(nodes, generator=random).tensor_split(3)
    spec = TypeAdapter(ModelSpec).validate_python(MODELS["student"])
    model = GNN(spec, library, FEATURES, CLASSES)
    initialise(model, 0, "student")
    outputs = TeacherOutputs(
        ids=torch.tensor([0]),
        ptr=data.graph_ptr,
        logits=torch.randn(nodes, CLASSES, generator=random),
        hidden=(torch.randn(nodes, TEACHER_HIDDEN, generator=random),),
        edge_index=edge_index,
        dynamic=False,
    )
    files = {"lsp": str(find("method", "lsp", [METHODS]))}
    method = load_method(files, {}, Dims(spec.hidden_dims, CLASSES), Dims((TEACHER_HIDDEN,), CLASSES))
    where = torch.device(device)
    inputs = Inputs(data, library, where, batch_size=1)
    split, student = Split(train, val, torch.empty(0, dtype=torch.int64)), model.to(where)

    def run(epochs: int) -> list[float]:
        training = Training(epochs=epochs)
        history = fit(student, method, inputs, split, training, seed=0, teaching=Teaching(outputs)).history
        return [row["seconds"] for row in history]

    run(1)  # what the first optimiser imports is not the student's memory
    ends: list[float] = []
    memory = peak_memory_mb(lambda: ends.extend(run(1 + EPOCHS)), where)
    gaps = [after - before for before, after in itertools.pairwise(ends)]
    return Point(nodes, edge_index.shape[1], statistics.median(gaps), memory)


def measure_loss(device: str, nodes: int, edges: int) -> Point:
    """The student's part of the structure loss, forward and backward, in a process that has done nothing before."""
    torch.set_num_threads(1)
    keep_freed_memory()
    random, where = torch.Generator().manual_seed(0), torch.device(device)
    edge_index = random_edges(nodes, edges).to(where)
    student, teacher = torch.randn(2, nodes, LOSS_FEATURES, generator=random).to(where)
    of_teacher = local_structure(teacher, edge_index)
    student.requires_grad_()

    def step() -> float:
        student.grad = None
        begun = time.perf_counter()
        structure_divergence(local_structure(student, edge_index), of_teacher, edge_index, nodes).backward()
        if where.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begun

    step()
    memory = peak_memory_mb(step, where)
    return Point(nodes, edge_index.shape[1], statistics.median(step() for _ in range(EPOCHS)), memory)


def series(name: str, measured: Callable[[int, int], Point], sizes: Sequence[tuple[int, int]]) -> list[Point]:
    """All sizes of a series, smallest first, until one would not fit: memory is taken to grow as the edges do."""
    points: list[Point] = []
    for nodes, edges in sizes:
        if points and not points[-1].memory_mb * edges / points[-1].edges <= LIMIT_MB:
            print(f"{name}: {nodes:,} nodes, {edges:,} edges: would take too much memory", file=sys.stderr)
            break
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as fresh:
            points.append(fresh.submit(measured, nodes, edges).result())
        print(f"{name}: {nodes:,} nodes, {edges:,} edges: {points[-1].seconds:.3f} s", file=sys.stderr)
    return points


class Panel(NamedTuple):
    """A series of sizes: what grows, and what it did to each of the things measured, by name."""

    grows: str
    title: str
    label: str
    sizes: Sequence[tuple[int, int]]
    found: dict[str, list[Point]]


def section(figure: Path, backends: Sequence[str], device: str, shrink: int = 1) -> str:
    """Measure all series; draw them into ``figure`` (PNG, with an SVG beside it); the tables as Markdown.

    shrink: numbers of edges are divided by it, and of nodes, as far as the edges still find their places.
    """
    fixed, loss_nodes = (round(n / shrink**0.5) for n in (FIXED_NODES, LOSS_NODES))
    of_nodes = [(n // shrink, n * DEGREE // shrink) for n in NODES]
    of_edges = [(fixed, e // shrink) for e in EDGES]
    of_loss = [(loss_nodes, e // shrink) for e in LOSS_EDGES]
    epochs = {backend: functools.partial(measure, backend, device) for backend in backends}
    panels = [
        Panel(
            "nodes",
            f"An epoch: nodes, with {DEGREE} edges each",
            f"nodes, {DEGREE} edges each",
            of_nodes,
            {name: series(name, each, of_nodes) for name, each in epochs.items()},
        ),
        Panel(
            "edges",
            f"An epoch: edges, of {fixed:,} nodes",
            f"edges, of {fixed:,} nodes",
            of_edges,
            {name: series(name, each, of_edges) for name, each in epochs.items()},
        ),
        Panel(
            "edges",
            f"The structure loss alone: edges, of {loss_nodes:,} nodes",
            f"edges, of {loss_nodes:,} nodes",
            of_loss,
            {"loss": series("loss", functools.partial(measure_loss, device), of_loss)},
        ),
    ]
    draw(panels, figure)
    head = f"![Growth of an LSP student's epoch with nodes and edges]({figure.name})"
    parts = [head]
    for panel in panels:
        counts = [size[panel.grows == "edges"] for size in panel.sizes]
        rows = []
        for name, points in panel.found.items():
            for what, unit, digits in (("seconds", "s", 3), ("memory_mb", "MB", 0)):
                values = [getattr(point, what) for point in points] + [None] * (len(counts) - len(points))
                known = [value for value in values if value is not None]
                slopes = [shown(exponent(counts, values), 2), shown(over_all(counts, known), 2)]
                rows.append([f"{NAMES.get(name, name)}, {unit}", *(shown(v, digits) for v in values), *slopes])
        header = [panel.title, *(f"{count:,}" for count in counts), "upper half", "all"]
        parts.append(markdown(header, rows))
    return "\n\n".join(parts)


def over_all(sizes: Sequence[int], values: Sequence[float]) -> float | None:
    """Slope of log value over log size, over all sizes that were measured."""
    if len(values) < 2:
        return None
    points = [(math.log(size), math.log(value)) for size, value in zip(sizes, values, strict=False)]
    return statistics.linear_regression(*zip(*points, strict=True)).slope


def draw(panels: Sequence[Panel], figure: Path) -> None:
    """Seconds and memory against sizes, all axes logarithmic, with a line of slope one to compare with."""
    with styled():
        page = new_figure(3.4 * len(panels), 5.4)
        axes = page.subplots(2, len(panels))
        for column, panel in enumerate(panels):
            for row, (what, label, unit, scale) in enumerate(MEASURED):
                ax = axes[row][column]
                for name, points in panel.found.items():
                    x = [getattr(point, panel.grows) for point in points]
                    y = [scale * getattr(point, what) for point in points]
                    look = library_look(name)
                    ax.plot(x, y, marker=look.marker, color=look.colour, label=NAMES.get(name, name))
                first, last = (panel.sizes[end][panel.grows == "edges"] for end in (0, -1))
                lowest = scale * min(getattr(points[0], what) for points in panel.found.values()) / 2
                ax.plot([first, last], [lowest, lowest * last / first], color=FAINT, linestyle=":", label="slope 1")
                ax.set(xscale="log", yscale="log", ylabel=label if column == 0 else "")
                ax.xaxis.set_major_formatter(EngFormatter(sep=""))
                ax.yaxis.set_major_formatter(EngFormatter(unit))
                ax.set_xlabel(panel.label if row == 1 else "")
                if row == 0:
                    ax.set_title("Structure loss alone" if "loss" in panel.found else "Epoch of an LSP student")
                    ax.legend(frameon=False, fontsize=8)
        page.tight_layout()
        save(page, png=figure, svg=figure.with_suffix(".svg"))
