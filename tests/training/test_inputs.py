"""Batches, and the teacher's outputs cut to them: as if the teacher had been run on every batch."""

from dataclasses import replace
from itertools import chain

import pytest
import torch

from distillbench.config.specs import DGCNNSpec, GATSpec, LayeredSpec
from distillbench.data.neighbours import StaticNeighbours
from distillbench.models.gnn import GNN, initialise
from distillbench.training.inputs import (
    Inputs,
    load_outputs,
    predict,
    ranges,
    save_outputs,
    teacher_outputs,
)

CPU = torch.device("cpu")
TEACHERS = [
    pytest.param(GATSpec(model="gat", hidden=4, layers=3, heads=2), "multiclass", False, id="one graph"),
    pytest.param(GATSpec(model="gat", hidden=4, layers=3, heads=2), "multilabel", False, id="static graphs"),
    pytest.param(LayeredSpec(model="gin", hidden=5, readout="max"), "graph-multiclass", False, id="static, by graph"),
    pytest.param(LayeredSpec(model="mlp", hidden=5), "multilabel", False, id="mlp"),
    pytest.param(
        DGCNNSpec(model="dgcnn", widths=(4, 6), embedding=8, k=3), "graph-multiclass", True, id="dynamic graphs"
    ),
]


@pytest.fixture
def setup(data_of, backend):
    def make(spec, task, clouds, batch_size=2):
        data = data_of(task, clouds=clouds)
        model = GNN(spec, backend, data.x.shape[1], data.num_classes)
        initialise(model, 0, "teacher")
        return data, Inputs(data, backend, CPU, batch_size), model.eval()

    return make


# Ranges and batches


def test_ranges_concatenate_in_the_order_asked_for():
    ptr = torch.tensor([0, 2, 2, 5, 9])
    rows, new_ptr = ranges(ptr, torch.tensor([2, 0, 1, 2]))
    assert rows.tolist() == [2, 3, 4, 0, 1, 2, 3, 4]
    assert new_ptr.tolist() == [0, 3, 5, 5, 8]
    rows, new_ptr = ranges(ptr, torch.tensor([], dtype=torch.int64))
    assert rows.tolist() == []
    assert new_ptr.tolist() == [0]


def epoch(inputs, part, seed=0):
    return [b.graph_ids.tolist() for b in inputs.shuffled(part, torch.Generator().manual_seed(seed))]


def test_an_epoch_shows_every_graph_once_in_an_order_of_its_own(setup):
    _, inputs, _ = setup(*TEACHERS[1].values)
    part, random = torch.tensor([0, 2, 3, 5, 7]), torch.Generator().manual_seed(0)
    first, second = ([b.graph_ids.tolist() for b in inputs.shuffled(part, random)] for _ in range(2))
    assert [len(ids) for ids in first] == [2, 2, 1]
    assert sorted(chain(*first)) == sorted(chain(*second)) == part.tolist()
    assert first != second
    assert epoch(inputs, part) == first


def test_a_graph_left_over_joins_the_batch_before_where_rows_are_graphs(setup):
    _, inputs, _ = setup(*TEACHERS[4].values)
    assert [len(ids) for ids in epoch(inputs, torch.arange(5))] == [2, 3]
    assert [len(ids) for ids in epoch(inputs, torch.arange(6))] == [2, 2, 2]
    assert [len(ids) for ids in epoch(inputs, torch.arange(1))] == [1]
    assert sorted(chain(*epoch(inputs, torch.arange(5)))) == [0, 1, 2, 3, 4]


def test_a_batch_holds_the_graphs_asked_for_in_that_order(setup):
    data, inputs, _ = setup(*TEACHERS[1].values)
    (batch,) = inputs.ordered(torch.tensor([5, 1]))
    nodes, ptr = ranges(data.graph_ptr, torch.tensor([5, 1]))
    assert torch.equal(batch.x, data.x[nodes])
    assert torch.equal(batch.y, data.y[nodes])
    assert torch.equal(batch.graph.ptr, ptr)
    edges = {(nodes[a].item(), nodes[b].item()) for a, b in batch.graph.edge_index.T.tolist()}
    of_graph = torch.repeat_interleave(torch.arange(data.num_graphs), data.graph_ptr.diff())
    assert edges == {(a, b) for a, b in data.edge_index.T.tolist() if of_graph[a] in (5, 1)}
    assert (batch.graph.edge_index[1].diff() >= 0).all()


def test_graph_level_labels_are_those_of_the_graphs(setup):
    data, inputs, _ = setup(*TEACHERS[4].values)
    (batch,) = inputs.ordered(torch.tensor([5, 1]))
    assert batch.y.tolist() == data.y[[5, 1]].tolist()


def test_a_transductive_batch_is_the_whole_graph_and_says_which_rows_count(setup):
    data, inputs, model = setup(*TEACHERS[0].values)
    part = torch.tensor([7, 3])
    (batch,) = inputs.ordered(part)
    assert torch.equal(batch.graph.edge_index, data.edge_index)
    assert batch.rows.tolist() == [7, 3]
    ((logits, y),) = predict(model, [batch])
    assert torch.equal(logits, model(batch.graph, batch.x).logits[part])
    assert torch.equal(y, data.y[part])


@pytest.mark.parametrize("spec, task, clouds", TEACHERS[:2])
def test_batches_for_evaluation_are_made_once_for_each_part(setup, spec, task, clouds):
    _, inputs, _ = setup(spec, task, clouds)
    parts = [torch.tensor([0, 1]), torch.tensor([2, 3])]
    batches = [inputs.ordered(part) for part in parts]
    for part, (batch,) in zip(parts, batches, strict=True):
        assert torch.equal(batch.rows if inputs.transductive else batch.graph_ids, part)
    assert all(inputs.ordered(part.clone()) is made for part, made in zip(parts, batches, strict=True))


def test_a_part_of_a_data_set_is_the_graph_by_itself(data_of):
    data = data_of("multilabel")
    for index in range(data.num_graphs):
        graph, start = data.graph(index), int(data.graph_ptr[index])
        assert torch.equal(graph.x, data.x[start : start + len(graph.x)])
        assert torch.equal(graph.y, data.y[start : start + len(graph.x)])
        pairs = {(a - start, b - start) for a, b in data.edge_index.T.tolist() if start <= b < start + len(graph.x)}
        assert {tuple(pair) for pair in graph.edge_index.T.tolist()} == pairs
        type(graph)(**{name: getattr(graph, name) for name in graph.__dataclass_fields__})  # passes every check
    assert data.graph(0).digest != data.graph(1).digest != data.digest


# The teacher's outputs

EDGE_ORDER_FREE = "edges of a node may be listed in another order"


def assert_equal_outputs(found, expected):
    assert torch.allclose(found.logits, expected.logits, atol=1e-6)
    assert len(found.hidden) == len(expected.hidden) > 0
    for a, b in zip(found.hidden, expected.hidden, strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    for a, b in zip(found.edge_index, expected.edge_index, strict=True):
        assert a.dtype == torch.int64
        assert sorted(a.T.tolist()) == sorted(b.T.tolist()), EDGE_ORDER_FREE
        assert torch.equal(a[1], b[1])


@pytest.mark.parametrize("ids", [[0], [2, 0], [0, 2, 4, 6], [6, 2, 4], [4, 2]], ids=str)
@pytest.mark.parametrize("spec, task, clouds", TEACHERS)
def test_outputs_cut_to_a_batch_are_those_of_the_teacher_run_on_it(setup, tmp_path, spec, task, clouds, ids):
    data, inputs, model = setup(spec, task, clouds, batch_size=3)
    part = torch.tensor([6, 0, 4, 2])  # in any order
    stored = teacher_outputs(model, inputs, part)
    save_outputs(tmp_path / "outputs.pt", stored)
    everything = Inputs(data, inputs.backend, CPU, batch_size=len(ids))
    (batch,) = everything.ordered(torch.tensor(ids))
    with torch.no_grad():
        expected = model(batch.graph, batch.x)
    for outputs in (stored, load_outputs(tmp_path / "outputs.pt")):
        found, precomputed = outputs.of(batch)
        assert precomputed == {}
        assert_equal_outputs(found, expected)
        assert not found.logits.requires_grad


@pytest.mark.parametrize("spec, task, clouds", TEACHERS)
def test_saved_outputs_come_back_bit_for_bit(setup, tmp_path, spec, task, clouds):
    _, inputs, model = setup(spec, task, clouds)
    stored = teacher_outputs(model, inputs, torch.tensor([3, 1, 2]))
    save_outputs(tmp_path / "outputs.pt", stored)
    loaded = load_outputs(tmp_path / "outputs.pt")
    for name in ("ids", "ptr", "logits", "edge_index"):
        assert torch.equal(getattr(stored, name), getattr(loaded, name)), name
    for name in ("hidden", "edges"):
        ours, theirs = getattr(stored, name), getattr(loaded, name)
        assert (ours is None) == (theirs is None)
        assert all(torch.equal(a, b) for a, b in zip(ours or (), theirs or (), strict=True)), name
    assert (loaded.edges is None) == (spec.model in ("gat", "gin"))
    assert loaded.dynamic == stored.dynamic == (spec.model == "dgcnn")


@pytest.mark.parametrize("spec, task, clouds", [TEACHERS[1], TEACHERS[4]])
def test_outputs_of_a_graph_that_the_teacher_has_not_seen_are_refused(setup, spec, task, clouds):
    _, inputs, model = setup(spec, task, clouds)
    stored = teacher_outputs(model, inputs, torch.tensor([0, 2]))
    for unseen in ([1, 2], [7, 0]):
        (batch,) = inputs.ordered(torch.tensor(unseen))
        with pytest.raises(ValueError, match="no teacher outputs for some of the graphs"):
            stored.of(batch)


def test_precomputed_tensors_are_cut_by_node_or_by_edge(setup):
    _, inputs, model = setup(*TEACHERS[1].values)
    stored = teacher_outputs(model, inputs, torch.tensor([1, 4, 6]))
    values = {"node": stored.hidden[0][:, 0], "edge": stored.hidden[0][stored.edge_index[0], 0]}
    outputs = replace(stored, precomputed=values)
    (batch,) = inputs.ordered(torch.tensor([6, 1]))
    found, precomputed = outputs.of(batch)
    assert torch.equal(precomputed["node"], found.hidden[0][:, 0])
    assert torch.equal(precomputed["edge"], found.hidden[0][batch.graph.edge_index[0], 0])


def test_the_teacher_is_run_without_dropout_and_without_gradients(data_of, backend):
    data = data_of("multilabel")
    model = GNN(GATSpec(model="gat", hidden=4, dropout=0.5), backend, data.x.shape[1], data.num_classes)
    initialise(model, 0, "teacher")
    inputs = Inputs(data, backend, CPU, batch_size=2)
    model.train()
    first, second = (teacher_outputs(model, inputs, torch.arange(4)) for _ in range(2))
    assert torch.equal(first.logits, second.logits)
    assert not first.logits.requires_grad
    assert not any(h.requires_grad for h in first.hidden)


@pytest.mark.parametrize("augment, known", [(lambda x, *_: x, True), (lambda x, *_: x.add_(1), False)])
def test_points_that_a_data_set_gives_back_unchanged_are_known_by_their_neighbours(data_of, backend, augment, known):
    data = data_of("graph-multiclass", clouds=True)
    inputs = Inputs(data, backend, CPU, 3, augment, StaticNeighbours(data))
    batches = inputs.shuffled(torch.arange(6), torch.Generator(), torch.Generator())
    assert [batch.graph.points is not None for batch in batches] == [known, known]
