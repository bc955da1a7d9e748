"""One model on two backends, all pairs of them: same seed, same weights, same logits, same gradients.

The largest differences found are printed (``pytest -s``) and recorded as properties of the tests.
"""

import itertools

import pytest
import torch

from distillbench.config.specs import DGCNNSpec, GATSpec, LayeredSpec
from distillbench.data.graph_data import GraphData, symmetric_with_loops
from distillbench.models.backends import get_backend, missing_reason
from distillbench.models.gnn import (
    GNN,
    canonical_state,
    count_parameters,
    initialise,
    load_canonical,
)
from distillbench.training.inputs import Inputs

TOLERANCE = 1e-5
NODE_MODELS = {
    "gat": GATSpec(model="gat", hidden=8, layers=3, heads=(2, 3, 2), residual=False),
    "gat, residual": GATSpec(model="gat", hidden=8, layers=3, heads=(2, 3, 2), activation="leaky_relu"),
    "gat, one head": GATSpec(model="gat", hidden=8, layers=2, heads=1, negative_slope=0.1),
    "gat, biases": GATSpec(model="gat", hidden=8, layers=3, heads=(2, 3, 2), biases=True),
    "gat, features after the activation": GATSpec(model="gat", hidden=8, layers=2, heads=2, tap="after"),
    "gcn": LayeredSpec(model="gcn", hidden=16, layers=3),
    "gcn, residual": LayeredSpec(model="gcn", hidden=16, layers=3, residual=True, activation="elu"),
    "sage": LayeredSpec(model="sage", hidden=16, layers=3),
    "gin": LayeredSpec(model="gin", hidden=16, layers=3),
    "mlp": LayeredSpec(model="mlp", hidden=16, layers=3),
}
STATIC_GRAPH_MODELS = {
    f"{name}, {readout}": spec.model_copy(update={"readout": readout})
    for (name, spec), readout in zip(NODE_MODELS.items(), ["mean", "max"] * 5, strict=True)
}
CLOUD_MODELS = {
    "dgcnn": DGCNNSpec(model="dgcnn", widths=(8, 8, 16), embedding=32, head=(16, 8), k=4),
    "dgcnn, no head": DGCNNSpec(model="dgcnn", widths=(8,), embedding=16, k=3, negative_slope=0.1),
    "mlp on clouds, max": LayeredSpec(model="mlp", hidden=16, layers=2, readout="max"),
}
MODELS = (
    [pytest.param(spec, "multilabel", False, id=name) for name, spec in NODE_MODELS.items()]
    + [pytest.param(spec, "multiclass", False, id=f"{name}, one graph") for name, spec in NODE_MODELS.items()]
    + [pytest.param(spec, "graph-multiclass", False, id=name) for name, spec in STATIC_GRAPH_MODELS.items()]
    + [pytest.param(spec, "graph-multiclass", True, id=name) for name, spec in CLOUD_MODELS.items()]
)


def _available(name):
    if reason := missing_reason(name):
        pytest.skip(reason)
    return get_backend(name)


@pytest.fixture(params=["pyg", "dgl", "csr"])
def backend(request, one_thread):
    """Each backend in turn."""
    return _available(request.param)


@pytest.fixture(params=itertools.combinations(["pyg", "dgl", "csr"], 2), ids=" and ".join)
def backends(request, one_thread):
    """Each pair of backends."""
    return tuple(map(_available, request.param))


def built(spec, data, backends, seed=0):
    """The model on each library with its initial weights, and a batch of all graphs."""
    models, batches = [], []
    for backend in backends:
        model = GNN(spec, backend, data.x.shape[1], data.num_classes)
        initialise(model, seed, "student")
        inputs = Inputs(data, backend, torch.device("cpu"), batch_size=data.num_graphs)
        (batch,) = inputs.ordered(torch.arange(data.num_graphs))
        models.append(model)
        batches.append(batch)
    return models, batches


def gradients(model):
    """Gradients under common names."""
    weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.grad)
    found = canonical_state(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])
    trained = {name for name in found if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))}
    return {name: found[name] for name in trained}


def largest_error(ours, theirs):
    """Largest difference between two lists of tensors, relative to the largest entry."""
    pairs = [(a.detach().double(), b.detach().double()) for a, b in zip(ours, theirs, strict=True)]
    largest = max((b.abs().max().item() for _, b in pairs), default=1.0)
    return max(((a - b).abs().max().item() for a, b in pairs), default=0.0) / largest


@pytest.mark.parametrize("spec, task, clouds", MODELS)
def test_one_seed_gives_equal_initial_weights_by_name(data_of, backends, spec, task, clouds):
    models, _ = built(spec, data_of(task, clouds=clouds), backends)
    first, second = map(canonical_state, models)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    assert count_parameters(models[0]) == count_parameters(models[1]) > 0
    (other, _), _ = built(spec, data_of(task, clouds=clouds), backends, seed=1)
    assert any(not torch.equal(value, canonical_state(other)[name]) for name, value in first.items())


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("spec, task, clouds", MODELS)
def test_logits_hidden_features_gradients_and_buffers_are_equal(
    data_of, backends, record_property, request, spec, task, clouds, training
):
    data = data_of(task, clouds=clouds)
    models, batches = built(spec, data, backends)
    outputs, of_features = [], []
    for model, batch in zip(models, batches, strict=True):
        model.train()
        model(batch.graph, batch.x)  # so that batch norms have statistics of their own
        model.train(training)
        out = model(batch.graph, x := batch.x.clone().requires_grad_())
        (data.task.loss(out.logits, batch.y) + sum(h.square().mean() for h in out.hidden)).backward()
        outputs.append(out)
        of_features.append(x.grad)
    first, second = outputs
    assert len(first.logits) == (data.num_graphs if data.task.level == "graph" else data.num_nodes)
    assert [h.shape[1] for h in first.hidden] == list(spec.hidden_dims)
    assert len(first.hidden) == len(first.edge_index) == len(second.hidden) == len(second.edge_index)
    for a, b in zip(first.edge_index, second.edge_index, strict=True):
        assert torch.equal(a, b)
    grads = [gradients(model) for model in models]
    states = [canonical_state(model) for model in models]
    assert grads[0].keys() == grads[1].keys()
    assert all(value.abs().sum() > 0 for value in grads[0].values() if value.ndim > 1)
    errors = {
        "logits": largest_error([first.logits], [second.logits]),
        "hidden": largest_error(first.hidden, second.hidden),
        "gradients": largest_error(*([grad[name] for name in grads[0]] for grad in grads)),
        "gradients of features": largest_error(of_features[:1], of_features[1:]),
        "buffers": largest_error(*([state[name] for name in states[0].keys() - grads[0].keys()] for state in states)),
    }
    for what, error in errors.items():
        record_property(what, error)
    print(f"\nparity {request.node.callspec.id}: " + ", ".join(f"{k} {v:.1e}" for k, v in errors.items()))
    assert max(errors.values()) < TOLERANCE, errors


DEGENERATE = {
    "graphs of one node": ((1, 3, 1), []),
    "a graph of one node alone": ((1,), []),
    "no links": ((2, 3), []),
    "one link": ((2, 3), [(0, 1)]),
}


@pytest.mark.parametrize("sizes, links", DEGENERATE.values(), ids=DEGENERATE)
@pytest.mark.parametrize("spec", [pytest.param(s, id=n) for n, s in (NODE_MODELS | STATIC_GRAPH_MODELS).items()])
def test_degenerate_graphs_have_the_same_answer_everywhere(backends, spec, sizes, links):
    nodes, ptr = sum(sizes), torch.tensor([0, *sizes]).cumsum(0)
    source, destination = torch.tensor(links, dtype=torch.int64).view(-1, 2).T
    graphs = len(sizes)
    data = GraphData(
        x=torch.randn(nodes, 4, generator=torch.Generator().manual_seed(0)),
        edge_index=symmetric_with_loops(source, destination, nodes),
        y=torch.zeros(graphs if spec.readout else nodes, dtype=torch.int64) if spec.readout else torch.zeros(nodes, 3),
        graph_ptr=ptr,
        task_name="graph-multiclass" if spec.readout else "multilabel",
        setting="inductive",
        num_classes=3,
    )
    models, batches = built(spec, data, backends)
    first, second = (model.eval()(batch.graph, batch.x) for model, batch in zip(models, batches, strict=True))
    assert first.logits.isfinite().all()
    assert largest_error([first.logits, *first.hidden], [second.logits, *second.hidden]) < TOLERANCE


@pytest.mark.parametrize("spec, task, clouds", MODELS)
@pytest.mark.parametrize("first", [0, 1], ids=["first to second", "second to first"])
def test_weights_saved_by_one_library_give_the_same_logits_in_the_other(
    data_of, backends, tmp_path, spec, task, clouds, first
):
    models, batches = built(spec, data_of(task, clouds=clouds), backends)
    giver, receiver = models[first], models[1 - first]
    with torch.no_grad():
        for number, parameter in enumerate(giver.parameters()):
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
    giver(batches[first].graph, batches[first].x)  # moves the statistics of batch norms
    torch.save(canonical_state(giver), tmp_path / "weights.pt")
    load_canonical(receiver, torch.load(tmp_path / "weights.pt", weights_only=True))
    of_giver, of_receiver = (
        model.eval()(batch.graph, batch.x).logits for model, batch in zip(models, batches, strict=True)
    )
    assert largest_error([of_giver], [of_receiver]) < TOLERANCE


@pytest.mark.parametrize(
    "broken, error",
    [
        (lambda state, last: state.pop(last), KeyError),
        (lambda state, last: state.update(other=state[last]), KeyError),
        (lambda state, last: state.update({last: state[last].flatten()[:1]}), RuntimeError),
    ],
    ids=["a name is missing", "a name too many", "another shape"],
)
def test_weights_of_another_model_are_refused_and_nothing_is_loaded(data_of, backends, broken, error):
    (model, _), _ = built(NODE_MODELS["sage"], data_of("multilabel"), backends)
    before = canonical_state(model)
    state = {name: value + 1 for name, value in before.items()}
    broken(state, list(state)[-1])
    with pytest.raises(error):
        load_canonical(model, state)
    assert all(torch.equal(value, before[name]) for name, value in canonical_state(model).items())


@pytest.mark.parametrize("spec, task, clouds", MODELS)
def test_a_graph_in_a_batch_is_what_it_is_alone(data_of, backend, spec, task, clouds):
    data = data_of(task, clouds=clouds)
    (model,), (batch,) = built(spec, data, [backend])
    model.eval()
    together = model(batch.graph, batch.x)
    inputs = Inputs(data, backend, torch.device("cpu"), batch_size=1)
    alone = [model(each.graph, each.x) for each in inputs.ordered(torch.arange(data.num_graphs))]
    assert len(alone) == data.num_graphs
    assert largest_error([torch.cat([out.logits for out in alone])], [together.logits]) < TOLERANCE


# Parameters, published and counted by hand


@pytest.mark.parametrize(
    "spec, d_in, d_out, count",
    [
        (GATSpec(model="gat", hidden=256, layers=3, heads=(4, 4, 6)), 50, 121, 3_640_748),
        (GATSpec(model="gat", hidden=68, layers=5, heads=2), 50, 121, 185_172),
        (GATSpec(model="gat", hidden=64, layers=2, heads=4, biases=True), 50, 121, 182_714),
        # per layer: weight and attention of the convolution, its bias, the linear skip with bias
        (
            GATSpec(model="gat", hidden=68, layers=5, heads=2, biases=True),
            50,
            121,
            (50 * 136 + 2 * 136 + 136 + 50 * 136 + 136)
            + 3 * (136 * 136 + 2 * 136 + 136 + 136 * 136 + 136)
            + (136 * 242 + 2 * 242 + 121 + 136 * 121 + 121),
        ),
        (DGCNNSpec(model="dgcnn", widths=(32, 32, 64, 128), embedding=128, head=(128,), k=10), 3, 40, 94_440),
        (DGCNNSpec(model="dgcnn", widths=(64, 64, 128, 256), embedding=1024, head=(512, 256)), 3, 40, 1_809_576),
        (LayeredSpec(model="mlp", hidden=7, layers=2), 3, 2, 3 * 7 + 7 + 7 * 2 + 2),
        (LayeredSpec(model="gcn", hidden=7, layers=2), 3, 2, 3 * 7 + 7 + 7 * 2 + 2),
        (LayeredSpec(model="sage", hidden=7, layers=2), 3, 2, 2 * 3 * 7 + 7 + 2 * 7 * 2 + 2),
    ],
    ids=[
        "PPI teacher",
        "PPI student",
        "PPI student of Joshi et al.",
        "the same with five layers",
        "ModelNet40 student",
        "ModelNet40 teacher",
        "mlp",
        "gcn",
        "sage",
    ],
)
def test_number_of_parameters(backend, spec, d_in, d_out, count):
    assert count_parameters(GNN(spec, backend, d_in, d_out)) == count
