"""Profiles: counts by hand, and figures that mean what they say."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from distillbench.backends import get_backend, missing_reason
from distillbench.config import Training
from distillbench.data import GraphData, Split, symmetric_with_loops
from distillbench.inputs import Inputs
from distillbench.models import GNN, initialise
from distillbench.profiling import measure, profile_pair
from distillbench.record import RecordError
from distillbench.reports import collect_profiles
from distillbench.specs import GATSpec, LayeredSpec

ROOT = Path(__file__).parents[2]
NODES, FEATURES, CLASSES = 50, 6, 3


@pytest.fixture(params=["pyg", "dgl"])
def backend(request):
    if missing_reason(request.param):
        pytest.skip(f"{request.param} is not installed")
    return get_backend(request.param)


def ring() -> GraphData:
    nodes = torch.arange(NODES)
    return GraphData(
        x=torch.randn(NODES, FEATURES, generator=torch.Generator().manual_seed(0)),
        edge_index=symmetric_with_loops(nodes, (nodes + 1) % NODES, NODES),
        y=nodes % CLASSES,
        graph_ptr=torch.tensor([0, NODES]),
        task_name="multiclass",
        setting="transductive",
        num_classes=CLASSES,
    )


def measured(spec, backend):
    model = GNN(spec, backend, FEATURES, CLASSES)
    initialise(model, 0, "student")
    inputs = Inputs(ring(), backend, torch.device("cpu"), 1)
    order = torch.arange(NODES)
    return measure(model, inputs, Split(order[:10], order[10:20], order[20:]), Training())


def test_a_student_without_a_graph_is_measured_without_one(backend, monkeypatch):
    figures = measured(LayeredSpec(model="mlp", hidden=4), backend)
    assert figures["reads_graph"] is False and figures["batch_edges"] == 0
    assert measured(LayeredSpec(model="gcn", hidden=4), backend)["reads_graph"] is True
    forward = GNN.forward
    monkeypatch.setattr(GNN, "forward", lambda self, graph, x: (graph.edge_index, forward(self, graph, x))[1])
    with pytest.raises(AttributeError, match="edge_index"):  # it would have been seen
        measured(LayeredSpec(model="mlp", hidden=4), backend)


def test_counts_of_a_gat_by_hand(backend):
    heads, width = 2, 4
    figures = measured(GATSpec(model="gat", hidden=width, heads=heads, layers=2, residual=True), backend)
    edges = 3 * NODES
    hidden, out = heads * width, heads * CLASSES
    assert figures["batch_edges"] == edges
    assert figures["edge_flops"] == 2 * edges * (hidden + out)
    assert figures["dense_flops"] == 2 * NODES * (FEATURES * hidden + hidden * out + hidden * out)  # and the residual
    assert figures["parameters"] == FEATURES * hidden + 2 * hidden + 2 * hidden * out + 2 * out
    assert figures["weights_bytes"] == 4 * figures["parameters"]


def test_an_mlp_touches_no_edge(backend):
    figures = measured(LayeredSpec(model="mlp", hidden=8), backend)
    assert figures["edge_flops"] == figures["batch_edges"] == 0
    assert figures["dense_flops"] == 2 * NODES * (FEATURES * 8 + 8 * CLASSES)


def test_times_are_ordered_and_throughput_agrees_with_them(backend):
    figures = measured(LayeredSpec(model="gcn", hidden=8), backend)
    assert 0 < figures["latency_q25_ms"] <= figures["latency_ms"] <= figures["latency_q75_ms"]
    assert figures["throughput_per_second"] == pytest.approx(NODES / figures["latency_ms"] * 1000)
    assert figures["train_seconds_per_epoch"] > 0


def test_a_pairs_profile_names_device_and_threads_and_reaches_the_table(tmp_path, backend):
    from distillbench.data import write_data
    from distillbench.plugins import load

    plugin = load("dataset", ROOT / "datasets/synthetic.py")
    dataset = plugin(plugin.Params(nodes=20))
    write_data(tmp_path / "data/synthetic", "synthetic", dataset, dataset.load())
    outputs = {role: str(tmp_path / f"{role}.json") for role in ("teacher", "student")}
    params = {
        "dataset": "synthetic", "backend": backend.name, "pair": "gat", "training": {"batch_size": 2},
        "dataset_file": str(ROOT / "datasets/synthetic.py"), "dataset_params": {"nodes": 20},
        "models": {"teacher": {"model": "gat", "hidden": 256, "heads": 4}, "student": {"model": "gcn", "hidden": 2}},
    }  # fmt: skip
    threads = torch.get_num_threads()
    try:
        profile_pair(str(tmp_path), params, 1, outputs)
    finally:
        torch.set_num_threads(threads)
    collect_profiles(list(outputs.values()), str(tmp_path / "profiles.csv"))
    table = pd.read_csv(tmp_path / "profiles.csv").set_index("role")
    assert list(table["threads"]) == [1, 1]
    assert set(table["device"]) == {str(backend.device())}
    assert table.loc["teacher", "parameters"] > 100 * table.loc["student", "parameters"]
    assert table.loc["teacher", "peak_memory_mb"] > 0


def test_a_corrupt_profile_is_named(tmp_path):
    path = tmp_path / "teacher.json"
    path.write_text(json.dumps({"dataset": "digits"})[:-3])
    with pytest.raises(RecordError, match=r"teacher\.json: corrupt profile"):
        collect_profiles([str(path)], str(tmp_path / "profiles.csv"))
