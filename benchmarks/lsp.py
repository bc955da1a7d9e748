"""The structure loss of LSP, against formulations as released code has them, on a batch of two PPI graphs.

A plain step computes the structure of both models' features, of E × D differences each. Ours takes the teacher's from
what was computed before training. "Once" is the like-for-like comparison: ours computes the teacher's part, too.

The plain forms are written as that code is, but compute our loss, so that results can be compared: efficient-gnns has
σ = 1, l2 without the square, cosine squared for its polynomial, no linear kernel, and both it and the authors' code the
other direction of the KL. None of that changes what a step costs by more than an operation on E numbers.
"""

import functools
from typing import cast

import torch
from torch import Tensor

from benchmarks.pairs import Case, Side, Step, Work
from benchmarks.shapes import PPI_EDGES, PPI_NODES, random_edges
from distillbench.distillation.structure import local_structure, structure_divergence
from distillbench.params import Kernel

STUDENT, TEACHER = 136, 1024  # features of the paper's models
WHAT = {True: "teacher once + student step", False: "student step"}
SIGMA = {"rbf": 100.0, "exp-l1": 100.0}


def inputs(device: torch.device, kernel: Kernel) -> tuple[Tensor, Tensor, Tensor]:
    """Features of the student (which requires gradients) and of the teacher, and the edges."""
    random = torch.Generator().manual_seed(0)
    # small where the plain formulation, log of softmax in float32, would be infinite otherwise
    scale = {"linear": 0.1, "l2": 0.1, "polynomial": 0.05}.get(kernel, 1.0)
    student = (scale * torch.randn(PPI_NODES, STUDENT, generator=random)).to(device).requires_grad_()
    teacher = (scale * torch.randn(PPI_NODES, TEACHER, generator=random)).to(device)
    return student, teacher, random_edges(PPI_NODES, PPI_EDGES).to(device)


def ours(device: torch.device, kernel: Kernel, once: bool) -> Step:
    """LSP as methods/lsp.py has it; ``once``: with the teacher's part, which is otherwise computed before."""
    student, teacher, edges = inputs(device, kernel)
    stored = local_structure(teacher, edges, kernel)

    def step() -> list[Tensor]:
        student.grad = None
        of_teacher = local_structure(teacher, edges, kernel) if once else stored
        value = structure_divergence(local_structure(student, edges, kernel), of_teacher, edges, PPI_NODES)
        value.backward()
        return [value, cast(Tensor, student.grad)]

    return step


def plain_pyg(device: torch.device, kernel: Kernel) -> Step:
    """As in efficient-gnns (Joshi et al.): index both ends, softmax of PyG; the KL is summed over the edges, by N."""
    from torch_geometric.utils import softmax

    student, teacher, (source, destination) = inputs(device, kernel)

    def structure(h: Tensor) -> Tensor:
        a, b = h[source], h[destination]
        if kernel == "rbf":
            similarity = torch.exp(-((a - b) ** 2).sum(dim=-1) / (2 * SIGMA["rbf"]))
        elif kernel == "l2":
            similarity = ((a - b) ** 2).sum(dim=-1)
        elif kernel == "polynomial":
            similarity = (a * b).sum(dim=-1) ** 2
        elif kernel == "cosine":
            similarity = torch.nn.functional.cosine_similarity(a, b, dim=-1)
        else:
            similarity = (a * b).sum(dim=-1)
        return softmax(similarity, destination, num_nodes=PPI_NODES)

    def step() -> list[Tensor]:
        student.grad = None
        with torch.no_grad():
            of_teacher = structure(teacher)
        of_student = structure(student)
        value = (of_student * (of_student.log() - of_teacher.log())).sum() / PPI_NODES
        value.backward()
        return [value, cast(Tensor, student.grad)]

    return step


def plain_dgl(device: torch.device, kernel: Kernel) -> Step:
    """As in the authors' code: differences on the edges by apply_edges, edge_softmax, the KL summed by update_all."""
    import dgl
    import dgl.function as fn
    from dgl.nn.functional import edge_softmax

    assert kernel == "exp-l1"
    student, teacher, edges = inputs(device, kernel)
    graph = dgl.graph(tuple(edges), num_nodes=PPI_NODES)

    def structure(h: Tensor) -> Tensor:
        with graph.local_scope():
            graph.ndata["h"] = h[:, None]
            graph.apply_edges(fn.u_sub_v("h", "h", "difference"))
            distance = torch.sum(torch.abs(graph.edata["difference"]), dim=-1)
            return cast(Tensor, edge_softmax(graph, torch.exp(-distance / SIGMA["exp-l1"])))

    def step() -> list[Tensor]:
        student.grad = None
        with torch.no_grad():
            of_teacher = structure(teacher)
        of_student = structure(student)
        with graph.local_scope():
            graph.edata["kl"] = of_student * (of_student.log() - of_teacher.log())
            graph.update_all(fn.copy_e("kl", "m"), fn.sum("m", "kl"))
            value = graph.ndata["kl"].mean()
        value.backward()
        return [value, cast(Tensor, student.grad)]

    return step


def work(once: bool) -> Work:
    """An operation on every edge and feature forward, two backward, and the features read once for each.

    Multiplied and added, in float64, which takes twice the time of the float32 the machine's rate is measured in.
    """
    columns = 3 * STUDENT + (TEACHER if once else 0)
    return Work(flops=2 * 2 * PPI_EDGES * columns, bytes=4 * PPI_NODES * columns + 8 * PPI_EDGES * 10)


def cases() -> list[Case]:
    """rbf and linear, which the paper has, against both allocators; the other kernels; the authors' loss."""
    found = []
    for kernel in ("rbf", "linear", "l2", "polynomial", "cosine"):
        plain = [
            Side("plain PyG, default malloc", plain_pyg, {"kernel": kernel}, "default", needs="pyg"),
            Side("plain PyG", plain_pyg, {"kernel": kernel}, needs="pyg"),
        ]
        found += [
            Case(
                f"LSP, {kernel}: {WHAT[once]}",
                Side("distillbench", ours, {"kernel": kernel, "once": once}),
                plain,
                (4.0, 1.5),
                functools.partial(work, once),
                # the plain form's own rounding, in float32
                tolerance=1e-4,
                memory_mb=50.0,
            )
            for once in (True, False)
        ]
    authors = [
        Side("authors' DGL, default malloc", plain_dgl, {"kernel": "exp-l1"}, "default", "dgl", cpu_only=True),
        Side("authors' DGL", plain_dgl, {"kernel": "exp-l1"}, needs="dgl", cpu_only=True),
    ]
    found += [
        Case(
            f"LSP-official, exp-l1: {WHAT[once]}",
            Side("distillbench", ours, {"kernel": "exp-l1", "once": once}),
            authors,
            (None, None),
            functools.partial(work, once),
            memory_mb=50.0,
        )
        for once in (True, False)
    ]
    return found
