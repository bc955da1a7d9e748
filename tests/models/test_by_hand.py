"""Every architecture on every backend against a calculation by hand, on small graphs, mostly of two to five nodes.

The backends are compared with one another elsewhere; they share models.py, so what is wrong there is wrong in all of
them. Here nothing is taken from it but the common names of weights: sums over neighbours are loops over edges, written
from the papers' equations, and where they are short enough to follow, results are numbers.
"""

import itertools
import math
import zlib
from dataclasses import replace

import pytest
import torch

from distillbench.config.specs import DGCNNSpec, GATSpec, LayeredSpec
from distillbench.data.graph_data import GraphData
from distillbench.data.neighbours import StaticNeighbours, StaticPoints
from distillbench.models.backends import get_backend, missing_reason
from distillbench.models.backends.base import Graph
from distillbench.models.gnn import GNN, canonical_state, initialise, load_canonical
from distillbench.seeds import generator

BACKENDS = [
    pytest.param(name, marks=pytest.mark.skipif(missing_reason(name) is not None, reason=f"{name} is not installed"))
    for name in ("pyg", "dgl", "csr")
]


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request, one_thread):
    """Each library in turn, then none."""
    return get_backend(request.param)


# Graphs: (source, destination) of each edge


def symmetric(nodes, *links):
    """As data are: both directions, a self-loop at every node, sorted by destination."""
    edges = {*links, *((j, i) for i, j in links), *((i, i) for i in range(nodes))}
    return sorted(edges, key=lambda edge: edge[::-1])


STAR = symmetric(5, (0, 1), (0, 2), (0, 3), (3, 4))  # of 4, 2, 2, 3 and 2 edges
# nodes have 3, 1, 1, 2 and 3 incoming edges, 2, 3, 2, 2 and 1 outgoing ones
DIRECTED = [(0, 0), (1, 0), (2, 0), (1, 1), (2, 2), (0, 3), (3, 3), (1, 4), (3, 4), (4, 4)]


def graph_of(backend, edges, nodes=5):
    empty = Graph(None, torch.empty(2, 0, dtype=torch.int64), torch.tensor([0, nodes]))
    return backend.with_edges(empty, torch.tensor(edges).T) if edges else empty


def into(node, edges):
    """The sources of a node's incoming edges."""
    return [source for source, destination in edges if destination == node]


# Weights, by their common names


def drawn(name, *shape):
    """Numbers that go with a name, so that no two weights are equal; float64, as everything here."""
    random = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    values = torch.randn(shape, generator=random, dtype=torch.float64)
    return values.square() + 0.5 if name.endswith("running_var") else values


def model_of(spec, backend, d_in=2, d_out=2):
    """A model in evaluation mode and its weights by name, none of them 0 or 1 as at the start."""
    model = GNN(spec, backend, d_in, d_out).double().eval()
    weights = {name: drawn(name, *value.shape) for name, value in canonical_state(model).items()}
    load_canonical(model, weights)
    return model, part(weights, "body")


def part(weights, prefix):
    """The weights whose names begin so, by the rest of their names."""
    return {name.removeprefix(f"{prefix}."): w for name, w in weights.items() if name.startswith(f"{prefix}.")}


def assert_close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def assert_output(out, logits, *hidden):
    assert_close(out.logits, logits)
    assert len(out.hidden) == len(out.edge_index) == len(hidden)
    for found, expected in zip(out.hidden, hidden, strict=True):
        assert_close(found, expected)


def used(out):
    """The edges that were used in each hidden layer, as pairs."""
    return [list(map(tuple, each.T.tolist())) for each in out.edge_index]


# The equations


def linear(w, x, edges=()):
    """W x_i + b for every node i."""
    return torch.stack([w["weight"] @ x_i + w.get("bias", 0.0) for x_i in x])


def gcn(w, x, edges):
    """Kipf, Welling (2017), eq. 2: Σ_j W x_j / √(d_i d_j) + b. The self-loop is one of the edges, d counts them."""
    degree = [len(into(i, edges)) for i in range(len(x))]
    sums = [sum(w["weight"] @ x[j] / math.sqrt(degree[i] * degree[j]) for j in into(i, edges)) for i in range(len(x))]
    return torch.stack(sums) + w["bias"]


def sage(w, x, edges):
    """Hamilton et al. (2017), algorithm 1 with the mean: W_self x_i + W_neighbour mean_j x_j + b."""
    means = [sum(x[j] for j in into(i, edges)) / len(into(i, edges)) for i in range(len(x))]
    rows = [w["self.weight"] @ x_i + w["neighbour.weight"] @ mean for x_i, mean in zip(x, means, strict=True)]
    return torch.stack(rows) + w["bias"]


def gin(w, x, edges, training=False):
    """Xu et al. (2019), eq. 4.1 with ε = 0: MLP(x_i + Σ_j x_j), the MLP with a batch norm between its layers."""
    sums = torch.stack([x[i] + sum(x[j] for j in into(i, edges)) for i in range(len(x))])
    inner = normalised(part(w, "nn.1"), linear(part(w, "nn.0"), sums), training)
    return linear(part(w, "nn.3"), inner.clamp_min(0.0))


def gat(w, x, edges, slope=0.2):
    """Velickovic et al. (2018), eqs. 1 to 4, for each node and head: [N, H, D]."""
    _, heads, width = w["att_src"].shape
    out = torch.zeros(len(x), heads, width, dtype=torch.float64)
    for head in range(heads):
        z = [w["weight"][head * width : (head + 1) * width] @ x_i for x_i in x]
        for i in range(len(x)):
            of_source, of_destination = w["att_src"][0, head], w["att_dst"][0, head]
            scores = {j: leaky(of_source @ z[j] + of_destination @ z[i], slope).exp() for j in into(i, edges)}
            out[i, head] = sum(score / sum(scores.values()) * z[j] for j, score in scores.items())
    return out


def messages(w, x, edges):
    """Wang et al. (2019), eq. 8: θ (x_i - x_j) + φ x_i for every edge, θ with the sign turned round."""
    return torch.stack([w["theta.weight"] @ (x[i] - x[j]) + w["phi.weight"] @ x[i] for j, i in edges])


def edge_conv(w, x, edges, training):
    """Wang et al. (2019), section 3.1: by node, the largest of the normalised messages; the norm's batch is all."""
    rows = normalised(part(w, "norm"), messages(w, x, edges), training)
    return torch.stack([rows[[to == i for _, to in edges]].amax(0) for i in range(len(x))])


def normalised(w, rows, training):
    """Ioffe, Szegedy (2015): by the rows' own mean and variance in training, by the running ones otherwise."""
    mean, var = (rows.mean(0), rows.var(0, unbiased=False)) if training else (w["running_mean"], w["running_var"])
    return (rows - mean) / (var + 1e-5).sqrt() * w["weight"] + w["bias"]


def nearest(x, sizes, k):
    """(neighbour, node) for the k nearest nodes of the same cloud, the node itself one of them."""
    edges, start = [], 0
    for size in sizes:
        cloud = range(start, start + size)
        for i in cloud:
            edges += [(j, i) for j in sorted(sorted(cloud, key=lambda j: math.dist(x[i], x[j]))[:k])]
        start += size
    return edges


def leaky(x, slope=0.01):
    return torch.where(x > 0, x, slope * x)


def elu(x):
    return torch.where(x > 0, x, x.exp() - 1)


def relu(x):
    return x.clamp_min(0.0)


ACTIVATIONS = {"relu": relu, "elu": elu, "leaky_relu": leaky}
LAYERS = {"gcn": gcn, "sage": sage, "gin": gin, "mlp": linear}
X = drawn("features", 5, 2)


# One layer, in numbers: nodes of features 1, 2 and 4; the edges into node 0 are from 0, 1 and 2, into 1 from 0 and 1

SMALL = [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 2)]
EXP = math.exp
IN_NUMBERS = {
    "sage": ({"self.weight": 1, "neighbour.weight": 30, "bias": 0.5}, [1 + 70 + 0.5, 2 + 45 + 0.5, 4 + 120 + 0.5]),
    # own feature and sum; the self-loop is a neighbour, too
    "gin": ({"nn.weight": 10}, [10 * (1 + 7), 10 * (2 + 3), 10 * (4 + 4)]),
    # scores x_j - 2 x_i: -1, 0, 2 at node 0, -3 and -2 at node 1, halved below zero
    "gat": (
        {"weight": 1, "att_src": 1, "att_dst": -2},
        [
            (EXP(-0.5) + 2 * EXP(0) + 4 * EXP(2)) / (EXP(-0.5) + EXP(0) + EXP(2)),
            (EXP(-1.5) + 2 * EXP(-1)) / (EXP(-1.5) + EXP(-1)),
            4,
        ],
    ),
    # messages (x_i - x_j) + 10 x_i: 10, 9, 7 at node 0, 21, 20 at node 1, 40 at node 2; the norm takes 1 and halves
    "edge": ({"norm.weight": 1}, [4.5 + 0.1, 10 + 0.1, 19.5 + 0.1]),
    "edge, negative": ({"norm.weight": -1}, [-3 + 0.1, -9.5 + 0.1, -19.5 + 0.1]),  # of the norm's outputs the largest
}
NORM = {"norm.bias": 0.1, "norm.running_mean": 1, "norm.running_var": 4 - 1e-5, "norm.num_batches_tracked": 0}
OF_EDGES = {"theta.weight": 1, "phi.weight": 10, **NORM}


def one_layer(backend, kind, given, edges):
    """A layer of the given weights, from one feature to one, at nodes of features 1, 2 and 4."""
    options = {"gat": {"heads": 1, "negative_slope": 0.5}, "gin": {"nn": torch.nn.Linear(1, 1, bias=False)}}
    layer = torch.nn.ModuleDict({"conv": backend.conv(kind, 1, 1, **options.get(kind, {}))}).double().eval()
    shapes = {name: value.shape for name, value in canonical_state(layer).items()}
    given = {f"conv.{name}": torch.tensor(float(value)) for name, value in given.items()}
    assert shapes.keys() == given.keys()
    load_canonical(layer, {name: value.expand(shapes[name]) for name, value in given.items()})
    return layer["conv"](graph_of(backend, edges, 3), torch.tensor([[1.0], [2.0], [4.0]]).double()).flatten()


@pytest.mark.parametrize("name", IN_NUMBERS)
def test_a_layer_in_numbers(backend, name):
    kind, (given, expected) = name.split(",")[0], IN_NUMBERS[name]
    found = one_layer(backend, kind, given | (OF_EDGES if kind == "edge" else {}), SMALL)
    assert found.tolist() == pytest.approx(expected, rel=1e-6)


def test_a_layer_of_gcn_in_numbers(backend):
    given = {"weight": 10, "bias": 0.5}
    found = one_layer(backend, "gcn", given, symmetric(3, (0, 1), (1, 2)))  # of 2, 3 and 2 edges
    far = 1 / math.sqrt(2 * 3)
    expected = [10 * (1 / 2 + 2 * far) + 0.5, 10 * (far + 2 / 3 + 4 * far) + 0.5, 10 * (2 * far + 4 / 2) + 0.5]
    assert found.tolist() == pytest.approx(expected, rel=1e-6)
    if backend.name != "dgl":  # which counts a source's outgoing edges; data have no directed ones
        found = one_layer(backend, "gcn", given, SMALL)  # 3, 2 and 1 incoming edges
        expected = [10 * (1 / 3 + 2 * far + 4 / math.sqrt(3)) + 0.5, 10 * (far + 2 / 2) + 0.5, 40.5]
        assert found.tolist() == pytest.approx(expected, rel=1e-6)


# Layers one after another


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", LAYERS)
def test_an_activation_stands_between_layers_and_none_after_the_last(backend, kind, activation):
    spec = LayeredSpec(model=kind, hidden=3, layers=3, activation=activation)
    model, w = model_of(spec, backend, d_out=6)
    layer, act, edges = LAYERS[kind], ACTIVATIONS[activation], STAR if kind == "gcn" else DIRECTED
    first = layer(part(w, "convs.0"), X, edges)
    second = layer(part(w, "convs.1"), act(first), edges)
    third = layer(part(w, "convs.2"), act(second), edges)
    assert min(first.min(), second.min()) < -0.5 and third.min() < 0  # or activations would do nothing
    out = model(graph_of(backend, edges), X)
    assert_output(out, third, first, second)
    assert used(out) == [[] if kind == "mlp" else edges] * 2
    assert spec.hidden_dims == (3, 3)


def test_what_is_not_said_is_relu_without_residuals_before_the_activation(backend):
    model, w = model_of(LayeredSpec(model="gcn", hidden=3), backend)
    first = gcn(part(w, "convs.0"), X, STAR)
    assert_output(model(graph_of(backend, STAR), X), gcn(part(w, "convs.1"), relu(first), STAR), first)


def test_in_training_gin_is_normalised_by_the_nodes_of_the_batch(backend):
    model, w = model_of(LayeredSpec(model="gin", hidden=3), backend)
    first = gin(part(w, "convs.0"), X, DIRECTED, training=True)
    out = model.train()(graph_of(backend, DIRECTED), X)
    assert_output(out, gin(part(w, "convs.1"), relu(first), DIRECTED, training=True), first)


def test_a_residual_is_linear_without_bias_and_begins_at_the_second_layer(backend):
    model, w = model_of(LayeredSpec(model="gcn", hidden=3, layers=3, residual=True), backend)
    assert {name for name in w if name.startswith("residuals")} == {"residuals.1.weight", "residuals.2.weight"}
    first = gcn(part(w, "convs.0"), X, STAR)
    second = gcn(part(w, "convs.1"), relu(first), STAR) + linear(part(w, "residuals.1"), relu(first))
    third = gcn(part(w, "convs.2"), relu(second), STAR) + linear(part(w, "residuals.2"), relu(second))
    assert_output(model(graph_of(backend, STAR), X), third, first, second)


SPECS = {
    "gcn": LayeredSpec(model="gcn", hidden=3, layers=3),
    "gat": GATSpec(model="gat", hidden=3, layers=3, heads=2),
    "mlp": LayeredSpec(model="mlp", hidden=3, activation="leaky_relu", readout="mean"),
    "dgcnn": DGCNNSpec(model="dgcnn", widths=(3, 4), embedding=3, k=3),
}


@pytest.mark.parametrize("name, act", [("gcn", relu), ("gat", elu), ("mlp", leaky), ("dgcnn", lambda x: leaky(x, 0.2))])
def test_a_tap_moves_what_methods_see_and_nothing_else(backend, name, act):
    before, after = (
        model_of(SPECS[name].model_copy(update={"tap": tap}), backend)[0](graph_of(backend, STAR), X)
        for tap in ("before", "after")
    )
    assert torch.equal(before.logits, after.logits)
    assert_output(after, before.logits, *map(act, before.hidden))
    assert all(hidden.min() < 0 for hidden in before.hidden)


def test_the_sources_of_a_node_may_come_in_any_order(backend):
    # sorted by destination, as a Graph has them
    edges = sorted(DIRECTED, key=lambda edge: (edge[1], -edge[0]))
    assert edges != DIRECTED
    for spec in (SPECS["gat"], LayeredSpec(model="sage", hidden=3), LayeredSpec(model="gin", hidden=3)):
        model, _ = model_of(spec, backend)
        found, expected = (model(graph_of(backend, each), X) for each in (edges, DIRECTED))
        assert_output(found, expected.logits, *expected.hidden)


# GAT


@pytest.mark.parametrize("slope", [0.2, 0.6, 0.0])
def test_gat_concatenates_heads_and_averages_those_of_the_last_layer(backend, slope):
    spec = GATSpec(model="gat", hidden=3, layers=3, heads=(2, 4, 3), residual=False, negative_slope=slope)
    model, w = model_of(spec, backend)
    first = gat(part(w, "convs.0"), X, DIRECTED, slope).flatten(1)
    second = gat(part(w, "convs.1"), elu(first), DIRECTED, slope).flatten(1)
    third = gat(part(w, "convs.2"), elu(second), DIRECTED, slope)
    assert_output(model(graph_of(backend, DIRECTED), X), third.mean(1), first, second)
    assert not [name for name in w if "residual" in name or "bias" in name]
    assert spec.hidden_dims == (first.shape[1], second.shape[1]) == (6, 12)


def test_gat_has_elu_a_slope_of_a_fifth_and_residuals_from_the_second_layer_on_unless_said_otherwise(backend):
    """Yang et al. (2020): the residual of the last layer has heads, and is averaged with them."""
    model, w = model_of(GATSpec(model="gat", hidden=3, layers=3, heads=(2, 4, 3)), backend)
    assert {name for name in w if "convs" not in name} == {"residuals.1.weight", "residuals.2.weight"}
    first = gat(part(w, "convs.0"), X, DIRECTED).flatten(1)
    second = gat(part(w, "convs.1"), elu(first), DIRECTED).flatten(1) + linear(part(w, "residuals.1"), elu(first))
    third = gat(part(w, "convs.2"), elu(second), DIRECTED)
    third = third + linear(part(w, "residuals.2"), elu(second)).view(5, 3, 2)
    assert_output(model(graph_of(backend, DIRECTED), X), third.mean(1), first, second)


def test_the_network_of_joshi_et_al_has_biases_and_a_residual_with_bias_at_every_layer(backend):
    """In the last one both are added after the heads are averaged."""
    model, w = model_of(GATSpec(model="gat", hidden=3, layers=3, heads=(2, 2, 3), biases=True), backend)
    r = [part(w, f"residuals.{layer}") for layer in range(3)]
    assert [each.keys() for each in r] == [{"weight", "bias"}] * 3
    first = gat(part(w, "convs.0"), X, DIRECTED).flatten(1) + w["biases.0"] + linear(r[0], X)
    second = gat(part(w, "convs.1"), elu(first), DIRECTED).flatten(1) + w["biases.1"] + linear(r[1], elu(first))
    third = gat(part(w, "convs.2"), elu(second), DIRECTED).mean(1) + w["biases.2"] + linear(r[2], elu(second))
    assert_output(model(graph_of(backend, DIRECTED), X), third, first, second)


def test_biases_without_residuals(backend):
    model, w = model_of(GATSpec(model="gat", hidden=3, heads=2, biases=True, residual=False), backend)
    first = gat(part(w, "convs.0"), X, DIRECTED).flatten(1) + w["biases.0"]
    second = gat(part(w, "convs.1"), elu(first), DIRECTED).mean(1) + w["biases.1"]
    assert_output(model(graph_of(backend, DIRECTED), X), second, first)


# One output per graph

OF_SIZE = {2: symmetric(2, (0, 1)), 5: STAR}
# the unequal ones could be taken for equal by their first and last, or by their number of nodes
SIZES = pytest.mark.parametrize("sizes", [(2, 2), (2, 5, 2)], ids=["equal sizes", "unequal sizes"])


def several(backend, sizes):
    """The nodes of graphs of these sizes, their edges as those of one graph, and the batch."""
    starts = itertools.accumulate((0, *sizes[:-1]))
    edges = [(j + start, i + start) for size, start in zip(sizes, starts, strict=True) for j, i in OF_SIZE[size]]
    graphs = [graph_of(backend, OF_SIZE[size], size) for size in sizes]
    return drawn("nodes", sum(sizes), 2), edges, backend.batch(graphs)


def pooled(x, sizes, how):
    """The feature-wise mean or maximum over the nodes of each graph."""
    return torch.stack([each.mean(0) if how == "mean" else each.max(0).values for each in x.split(sizes)])


@pytest.mark.parametrize("readout", ["mean", "max"])
@SIZES
@pytest.mark.parametrize("kind", LAYERS)
def test_a_readout_is_of_each_graphs_activated_nodes_and_a_classifier_follows(backend, kind, sizes, readout):
    x, edges, batch = several(backend, sizes)
    spec = LayeredSpec(model=kind, hidden=3, activation="leaky_relu", readout=readout)
    model, w = model_of(spec, backend)
    first = LAYERS[kind](part(w, "convs.0"), x, edges)
    second = LAYERS[kind](part(w, "convs.1"), leaky(first), edges)
    of_graphs = pooled(leaky(second), sizes, readout)
    assert of_graphs.min() < 0  # a maximum with zero would be seen
    out = model(batch, x)
    assert_output(out, linear(part(w, "classifier"), of_graphs), first, second)
    assert used(out) == [[] if kind == "mlp" else edges] * 2
    assert spec.hidden_dims == (3, 3)


@pytest.mark.parametrize("biases", [False, True], ids=["without biases", "biases"])
def test_with_a_readout_heads_are_concatenated_in_every_layer(backend, biases):
    sizes = (2, 5, 2)
    x, edges, batch = several(backend, sizes)
    spec = GATSpec(model="gat", hidden=3, heads=(2, 4), biases=biases, readout="max")
    model, w = model_of(spec, backend)
    first = gat(part(w, "convs.0"), x, edges).flatten(1)
    if biases:
        first = first + w["biases.0"] + linear(part(w, "residuals.0"), x)
    second = gat(part(w, "convs.1"), elu(first), edges).flatten(1) + linear(part(w, "residuals.1"), elu(first))
    second = second + w.get("biases.1", 0.0)
    logits = linear(part(w, "classifier"), pooled(elu(second), sizes, "max"))
    assert_output(model(batch, x), logits, first, second)
    assert spec.hidden_dims == (6, 12)


# Dropout: at 0.5 what is kept is doubled; a little below 1 nothing is kept

NEARLY_ALL = 1 - 1e-12


def test_dropout_scales_the_input_of_every_layer_in_training_only(backend):
    """Of an MLP that adds 1 to ones in each of its layers."""
    model, w = model_of(LayeredSpec(model="mlp", hidden=20, dropout=0.5), backend, 20, 20)
    plus_one = {f"body.{name}": torch.eye(20) if value.ndim == 2 else torch.ones(20) for name, value in w.items()}
    load_canonical(model, plus_one)
    x, graph = torch.ones(5, 20).double(), graph_of(backend, STAR)
    torch.manual_seed(0)
    out = model.train()(graph, x)
    seen = zip(out.hidden[0].flatten().tolist(), out.logits.flatten().tolist(), strict=True)
    assert set(seen) == {(0 + 1, 0 + 1), (0 + 1, 2 + 1), (2 + 1, 0 + 1), (2 + 1, 6 + 1)}
    assert_output(model.eval()(graph, x), x + 2, x + 1)


def test_of_a_layer_whose_input_is_dropped_the_biases_remain(backend):
    spec = GATSpec(model="gat", hidden=3, heads=(2, 3), biases=True, dropout=NEARLY_ALL)
    model, w = model_of(spec, backend)
    first, second = (w[f"biases.{layer}"] + w[f"residuals.{layer}.bias"] for layer in range(2))
    out = model.train()(graph_of(backend, DIRECTED), X)
    assert_output(out, second.expand(5, -1), first.expand(5, -1))


def test_what_a_classifier_is_given_is_not_dropped(backend):
    spec = LayeredSpec(model="gcn", hidden=3, activation="elu", readout="mean", dropout=NEARLY_ALL)
    model, w = model_of(spec, backend)
    first, second = w["convs.0.bias"].expand(5, -1), w["convs.1.bias"].expand(5, -1)
    logits = linear(part(w, "classifier"), elu(second[:1]))
    assert_output(model.train()(graph_of(backend, STAR), X), logits, first, second)


def test_dropout_of_dgcnn_is_in_the_head_after_each_hidden_layer(backend):
    spec = DGCNNSpec(model="dgcnn", widths=(3,), embedding=3, head=(4, 3), k=2, dropout=NEARLY_ALL)
    model, w = model_of(spec, backend)
    out = model.train()(clouds(backend, (2, 3)), X)
    first = edge_conv(part(w, "convs.0"), X, nearest(X, (2, 3), 2), training=True)
    assert_output(out, w["head.classifier.bias"].expand(2, -1), first)
    expected = model_of(spec.model_copy(update={"dropout": 0.0}), backend)[0](clouds(backend, (2, 3)), X)
    assert_output(model_of(spec, backend)[0](clouds(backend, (2, 3)), X), expected.logits, *expected.hidden)


# DGCNN


def clouds(backend, sizes):
    return backend.batch([graph_of(backend, [], size) for size in sizes])


def test_a_point_is_one_of_its_k_neighbours(backend):
    x = torch.tensor([[0.0], [1.0], [3.0], [7.0]]).double()
    for k, expected in {
        1: [[0], [1], [2], [3]],
        2: [[0, 1], [0, 1], [1, 2], [2, 3]],
        3: [[0, 1, 2], [0, 1, 2], [0, 1, 2], [1, 2, 3]],
    }.items():
        model, _ = model_of(DGCNNSpec(model="dgcnn", widths=(2,), embedding=2, k=k), backend, d_in=1)
        assert used(model(clouds(backend, (4,)), x)) == [[(j, i) for i in range(4) for j in expected[i]]]


def looked_up(graph, x):
    """The same clouds, known to be points of a data set, whose neighbours are found once."""
    labels = torch.zeros(graph.num_graphs, dtype=torch.int64)
    data = GraphData(x.float(), graph.edge_index, labels, graph.ptr, "graph-multiclass", "inductive", 2)
    ids, nodes = torch.arange(graph.num_graphs), torch.arange(len(x))
    return replace(graph, points=StaticPoints(x, graph.ptr, ids, nodes, StaticNeighbours(data)))


@pytest.mark.parametrize("sizes", [(4, 5), (4, 4)], ids=["unequal sizes", "equal sizes"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("slope", [0.2, 0.5])
def test_dgcnn_layer_by_layer(backend, sizes, training, slope):
    spec = DGCNNSpec(model="dgcnn", widths=(3, 4, 3), embedding=4, head=(5, 3), k=3, negative_slope=slope)
    x = points = drawn("points", sum(sizes), 3)
    model, w = model_of(spec, backend, d_in=3)
    hidden, activated, edges = [], [], []
    for layer in range(3):
        edges.append(nearest(x, sizes, 3))
        hidden.append(edge_conv(part(w, f"convs.{layer}"), x, edges[-1], training))
        x = leaky(hidden[-1], slope)
        activated.append(x)
    # the graph of each layer is another, and that of a layer's features another than that of their activation
    assert [nearest(h, sizes, 3) for h in hidden[:2]] != edges[1:]
    assert edges[0] != edges[1] != edges[2]
    x = linear(part(w, "embedding"), torch.cat(activated, dim=1))
    x = leaky(normalised(part(w, "norm"), x, training), slope)
    x = torch.cat([pooled(x, sizes, "max"), pooled(x, sizes, "mean")], dim=1)
    for layer in range(2):
        x = normalised(part(w, f"head.norm{layer}"), linear(part(w, f"head.linear{layer}"), x), training)
        x = leaky(x, slope)
    logits = linear(part(w, "head.classifier"), x)
    assert {name for name in w if name.endswith(".bias") and "norm" not in name} == {
        "head.linear1.bias",
        "head.classifier.bias",
    }
    known = looked_up(clouds(backend, sizes), points)
    for graph in (clouds(backend, sizes), known, known):  # found, found and kept, looked up
        out = model.train(training)(graph, points)
        assert_output(out, logits, *hidden)
        assert used(out) == edges
    assert spec.hidden_dims == (3, 4, 3)


def test_running_statistics_move_a_tenth_of_the_way_to_those_of_all_messages(backend):
    model, w = model_of(DGCNNSpec(model="dgcnn", widths=(3,), embedding=2, k=2), backend)
    model.train()(clouds(backend, (2, 3)), X)
    rows = messages(part(w, "convs.0"), X, nearest(X, (2, 3), 2))
    found, before = (part(each, "convs.0.norm") for each in (part(canonical_state(model), "body"), w))
    assert_close(found["running_mean"], 0.9 * before["running_mean"] + 0.1 * rows.mean(0))
    assert_close(found["running_var"], 0.9 * before["running_var"] + 0.1 * rows.var(0, unbiased=True))


def test_dgcnn_has_a_slope_of_a_fifth_20_neighbours_and_no_head_unless_said_otherwise(backend):
    model, w = model_of(DGCNNSpec(model="dgcnn", widths=(3,), embedding=4), backend)
    x = drawn("points", 21, 2)
    hidden = edge_conv(part(w, "convs.0"), x, nearest(x, (21,), 20), training=False)
    embedded = linear(part(w, "embedding"), leaky(hidden, 0.2))
    embedded = leaky(normalised(part(w, "norm"), embedded, training=False), 0.2)
    of_cloud = torch.cat([pooled(embedded, (21,), "max"), pooled(embedded, (21,), "mean")], dim=1)
    assert_output(model(clouds(backend, (21,)), x), linear(part(w, "head.classifier"), of_cloud), hidden)


# Initial weights


INITIALISED = {
    "gat": GATSpec(model="gat", hidden=20, layers=3, heads=3, biases=True),
    "gcn": LayeredSpec(model="gcn", hidden=60, layers=3, residual=True),
    "sage": LayeredSpec(model="sage", hidden=60, layers=3),
    "gin": LayeredSpec(model="gin", hidden=60, layers=3),
    "mlp": LayeredSpec(model="mlp", hidden=60, layers=3, readout="mean"),
    "dgcnn": DGCNNSpec(model="dgcnn", widths=(60, 60), embedding=60, head=(60, 60)),
}


def initial(spec, backend, seed=0, scope="student"):
    model = GNN(spec, backend, 60, 60)
    initialise(model, seed, scope)
    return canonical_state(model)


@pytest.mark.parametrize("name", INITIALISED)
def test_matrices_are_uniform_within_glorots_bound_and_the_rest_is_neutral(backend, name):
    for common, value in initial(INITIALISED[name], backend).items():
        if value.ndim == 1 or common.endswith("num_batches_tracked"):
            scale = common.endswith(("running_var", ".weight"))  # of batch norms
            assert torch.equal(value, torch.full_like(value, int(scale))), common
            continue
        bound = math.sqrt(6 / (value.shape[-2] + value.shape[-1]))  # Glorot, Bengio (2010), eq. 16
        assert value.abs().max() <= bound, common
        if value.numel() > 1000:
            assert max(-value.min(), value.max()) > 0.99 * bound and min(-value.min(), value.max()) > 0.99 * bound
            assert abs(value.mean()) < 0.05 * bound  # three standard errors of 3600 such numbers are 0.03
            assert value.square().mean() == pytest.approx(bound**2 / 3, rel=0.1)


@pytest.mark.parametrize("name", INITIALISED)
def test_each_matrix_has_a_stream_of_its_own_by_seed_scope_and_name(backend, name):
    spec = INITIALISED[name]
    drawings = [initial(spec, backend), initial(spec, backend, seed=1), initial(spec, backend, scope="teacher")]
    matrices = [(common, value) for each in drawings for common, value in each.items() if value.ndim > 1]
    assert len({tuple(value.flatten()[:5].tolist()) for _, value in matrices}) == len(matrices)
    correlations = [torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1] for a, b in alike(matrices)]
    assert len(correlations) > 3 and max(map(abs, correlations)) < 0.1  # the standard error is 1/√3600
    for common, value in matrices[: len(matrices) // 3]:  # the same for every backend
        bound = math.sqrt(6 / (value.shape[-2] + value.shape[-1]))
        uniform = torch.rand(value.shape, generator=generator(0, "student", common))
        torch.testing.assert_close(value, (2 * uniform - 1) * bound)


def alike(matrices):
    """Pairs of large matrices of one shape."""
    large = [value for _, value in matrices if value.numel() > 3000]
    return [(a, b) for place, a in enumerate(large) for b in large[:place] if a.shape == b.shape]


def test_a_parameter_of_another_name_keeps_its_beginning():
    module = torch.nn.Linear(3, 3)
    module.temperature = torch.nn.Parameter(torch.tensor([4.0]))
    initialise(module, 0, "student")
    assert module.temperature.tolist() == [4.0] and module.bias.tolist() == [0.0] * 3
