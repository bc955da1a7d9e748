"""A training step of the paper's GAT models on a batch of two PPI graphs: forward, loss, backward, Adam.

The libraries' own layers, with malloc as it is by default and as a run sets it, and the reference backend `csr`. The
models around the layers are the same code for all; logits and gradients of the first step have to agree.
"""

import functools
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor

from benchmarks.pairs import Case, Malloc, Side, Step, Work
from benchmarks.shapes import PPI_CLASSES, PPI_EDGES, PPI_FEATURES, PPI_NODES, random_edges
from distillbench.config.specs import ModelSpec
from distillbench.data.graph_data import GraphData
from distillbench.data.tasks import TASKS
from distillbench.models.backends import get_backend
from distillbench.models.backends.base import Graph
from distillbench.models.gnn import GNN, canonical_names, count_parameters, initialise
from distillbench.profiling.flops import dense_flops, edge_flops

MODELS: dict[str, dict[str, Any]] = {  # config/paper.yaml
    "student": {"model": "gat", "hidden": 68, "layers": 5, "heads": 2},
    "teacher": {"model": "gat", "hidden": 256, "layers": 3, "heads": [4, 4, 6]},
}
NAMES = {"pyg": "PyG", "dgl": "DGL", "csr": "csr"}


def ready(backend: str, role: str, device: torch.device) -> tuple[GNN, Graph, Tensor, Tensor]:
    """A model with its initial weights, the batch, its features and labels."""
    random = torch.Generator().manual_seed(0)
    library = get_backend(backend)
    x = torch.randn(PPI_NODES, PPI_FEATURES, generator=random)
    y = (torch.rand(PPI_NODES, PPI_CLASSES, generator=random) < 0.3).float()
    data = GraphData(
        x=x,
        edge_index=random_edges(PPI_NODES, PPI_EDGES),
        y=y,
        graph_ptr=torch.tensor([0, PPI_NODES]),
        task_name="multilabel",
        setting="inductive",
        num_classes=PPI_CLASSES,
    )
    model = GNN(TypeAdapter(ModelSpec).validate_python(MODELS[role]), library, PPI_FEATURES, PPI_CLASSES)
    initialise(model, 0, role)
    return model.to(device).train(), library.graph(data, device), x.to(device), y.to(device)


def train(device: torch.device, backend: str, role: str) -> Step:
    """A step of training. The first one returns its logits and each gradient, by the names common to the libraries."""
    model, graph, x, y = ready(backend, role, device)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.005)
    first = True

    def step() -> list[Tensor] | None:
        nonlocal first
        optimiser.zero_grad(set_to_none=True)
        logits = model(graph, x).logits
        TASKS["multilabel"].loss(logits, y).backward()
        result = None
        if first:
            gradients = {name: each.grad for name, each in model.named_parameters()}
            of = [gradients[own] for _, own in sorted(canonical_names(model).items()) if own in gradients]
            result = [logits.detach().clone(), *(each.clone() for each in of if each is not None)]
        first = False
        optimiser.step()
        return result

    return step


def work(role: str) -> Work:
    """The forward pass's products (dense ones, and those of messages), twice as many backward, less those that only
    the gradient of the input would need; and what Adam and the layers' outputs read and write."""
    model, graph, x, _ = ready("csr", role, torch.device("cpu"))
    with torch.no_grad():
        out = model(graph, x)
        dense = dense_flops(lambda: model(graph, x))
    spec = model.spec
    of_input = 2 * PPI_NODES * PPI_FEATURES * spec.hidden_dims[0]
    activations = sum(h.numel() for h in out.hidden) + out.logits.numel()
    flops = 3 * (dense + edge_flops(model, out, "csr")) - of_input
    return Work(flops=flops, bytes=4 * (7 * count_parameters(model) + 6 * activations))


def side(backend: str, role: str, malloc: Malloc = "kept") -> Side:
    """A library's side."""
    name = NAMES[backend] + (", default malloc" if malloc == "default" else "")
    # DGL's wheels are for CPUs
    return Side(name, train, {"backend": backend, "role": role}, malloc, backend, cpu_only=backend == "dgl")


def cases() -> list[Case]:
    """PyG as a run has it against its default; csr against all."""
    found = []
    for role, of_default, of_dgl, of_pyg in (("student", 2.0, 1.6, 2.0), ("teacher", 1.4, None, None)):
        default, of_role = side("pyg", role, "default"), functools.partial(work, role)
        name = f"GAT {role}, training step"
        found.append(Case(f"{name}, PyG", side("pyg", role), [default], (of_default,), of_role))
        others = [side("dgl", role), side("pyg", role), default]
        found.append(Case(f"{name}, csr", side("csr", role), others, (of_dgl, of_pyg, None), of_role))
    return found
