"""A small graph and small clouds, and models on them."""

from types import SimpleNamespace

import pytest
import torch
from pydantic import TypeAdapter

from distillbench.config.specs import ModelSpec
from distillbench.data.graph_data import GraphData, Split, symmetric_with_loops
from distillbench.models.gnn import GNN, initialise
from distillbench.training.inputs import Inputs

NODES, FEATURES, CLASSES = 50, 6, 3
CLOUDS, POINTS = 6, 8


def ring(nodes: int = NODES) -> GraphData:
    places = torch.arange(nodes)
    return GraphData(
        x=torch.randn(nodes, FEATURES, generator=torch.Generator().manual_seed(0)),
        edge_index=symmetric_with_loops(places, (places + 1) % nodes, nodes),
        y=places % CLASSES,
        graph_ptr=torch.tensor([0, nodes]),
        task_name="multiclass",
        setting="transductive",
        num_classes=CLASSES,
    )


def clouds() -> GraphData:
    return GraphData(
        x=torch.randn(CLOUDS * POINTS, FEATURES, generator=torch.Generator().manual_seed(0)),
        edge_index=torch.empty(2, 0, dtype=torch.int64),
        y=torch.arange(CLOUDS) % CLASSES,
        graph_ptr=torch.arange(CLOUDS + 1) * POINTS,
        task_name="graph-multiclass",
        setting="inductive",
        num_classes=CLASSES,
    )


def model_of(spec, backend) -> GNN:
    """A model as the dictionary says, in evaluation mode."""
    model = GNN(TypeAdapter(ModelSpec).validate_python(spec), backend, FEATURES, CLASSES)
    initialise(model, 0, "student")
    return model.eval()


def inputs_of(data, backend, batch_size=4):
    """Its inputs, and a split with most in the training part."""
    units = CLOUDS if data.num_graphs > 1 else data.num_nodes
    order = torch.arange(units)
    return Inputs(data, backend, torch.device("cpu"), batch_size), Split(order[:-2], order[-2:-1], order[-1:])


@pytest.fixture(scope="session")
def small(one_thread):
    """Data: ring(), clouds(); model_of(spec, backend), inputs_of(data, backend)."""
    return SimpleNamespace(ring=ring, clouds=clouds, model_of=model_of, inputs_of=inputs_of)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Timing as short as it can be: what is tested is not how fast this machine is."""
    from distillbench.profiling import measure

    for name in ("WARM_UP_SECONDS", "MIN_SECONDS", "MAX_SECONDS"):
        monkeypatch.setattr(measure, name, 0.02)
