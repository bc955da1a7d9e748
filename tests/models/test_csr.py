"""The layers on compressed rows: what parity on the small data of test_models.py does not show.

Derivatives in float64, graphs that the data sets do not have (directed, nodes without neighbours), no tensor of edges ×
features in either pass, and numbers at which the shorter algebra could lose digits.
"""

import gc
import itertools
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from distillbench.config.specs import GATSpec
from distillbench.models.backends import get_backend, missing_reason
from distillbench.models.backends.adjacency import Batched, adjacency
from distillbench.models.backends.base import Graph
from distillbench.models.backends.csr_functions import attention, edge_moments, neighbour_max, neighbour_sum
from distillbench.models.gnn import GNN, initialise
from tests.needs import excused_in_ci

# sorted by destination, sources of a node in no order; nodes 2 and 4 have no incoming edge, node 6 no outgoing one,
# node 5 a self-loop
EDGES = torch.tensor([[3, 0, 5, 1, 2, 5, 0, 4, 1], [0, 0, 1, 1, 3, 5, 5, 5, 6]])
NODES = 7
CSR = get_backend("csr")


@pytest.fixture(autouse=True)
def _one_thread(one_thread):
    pass


def random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def graph_of(edges=EDGES, nodes=NODES, backend=CSR):
    empty = Graph(None, edges[:, :0], torch.tensor([0, nodes]))
    return backend.with_edges(empty, edges)


def clusters(nodes, neighbours, seed=0):
    """A symmetric graph with self-loops in which every node has about so many neighbours."""
    linked = random(nodes, nodes, seed=seed) > torch.tensor(1 - neighbours / nodes).erfinv().item()
    linked = (linked | linked.T).fill_diagonal_(True)
    destination, source = linked.nonzero().T
    return torch.stack([source, destination])


# Derivatives


HEADS = [1, 2, 3, 4, 6]  # the teacher for PPI has 4, 4 and 6


def of_attention(nodes, heads, width=4):
    """x, att_src and att_dst, no two of them equal."""
    of_nodes = ((nodes, 1), (1, 2), (1, 3))
    return [random(n, heads, width, seed=seed, dtype=torch.float64).requires_grad_() for n, seed in of_nodes]


def dense_attention(x, att_src, att_dst, edges, slope):
    """Velickovic et al. (2018), eqs. 3 and 4, by a matrix [destination, source] for each head."""
    scores = (x * att_dst).sum(-1)[:, None] + (x * att_src).sum(-1)[None]  # [N, N, H]
    linked = torch.zeros(len(x), len(x), 1, dtype=x.dtype)
    linked[edges[1], edges[0]] = 1.0
    weights = torch.where(scores > 0, scores, slope * scores).exp() * linked
    alpha = weights / weights.sum(1, keepdim=True).clamp_min(1e-300)  # of nodes without neighbours: all zero
    return torch.einsum("ijh,jhd->ihd", alpha, x)


@pytest.mark.parametrize("heads", HEADS)
def test_derivative_of_attention_is_that_of_differences(heads):
    edges = adjacency(EDGES, NODES)
    assert torch.autograd.gradcheck(lambda *inputs: attention(*inputs, edges, 0.2), of_attention(NODES, heads))


@pytest.mark.parametrize("batched", [False, True], ids=["one graph", "a batch"])
@pytest.mark.parametrize("heads", HEADS)
def test_attention_and_its_derivative_are_those_of_dense_matrices(heads, batched):
    sizes = (NODES, 5, NODES) if batched else (NODES,)
    turned = torch.stack([EDGES[1], EDGES[0]])[:, EDGES[0].argsort(stable=True)]
    small = torch.tensor([[4, 0, 3, 0, 1, 2, 3, 2], [0, 0, 1, 2, 2, 2, 2, 4]])
    parts = [EDGES, small, turned][: len(sizes)]
    graphs = [adjacency(edges, size) for edges, size in zip(parts, sizes, strict=True)]
    starts = itertools.accumulate((0, *sizes[:-1]))
    all_edges = torch.cat([edges + start for edges, start in zip(parts, starts, strict=True)], dim=1)
    native = Batched(graphs) if batched else graphs[0]
    found_from, expected_from = of_attention(sum(sizes), heads, 3), of_attention(sum(sizes), heads, 3)
    found = attention(*found_from, native, 0.3)
    expected = dense_attention(*expected_from, all_edges, 0.3)
    torch.testing.assert_close(found, expected)
    weights = random(*found.shape, seed=4, dtype=torch.float64)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    for ours, theirs in zip(found_from, expected_from, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("weights", [None, "normalisation", "shares"])
def test_derivative_of_a_sum_is_that_of_differences(weights):
    edges = adjacency(EDGES, NODES)
    given = tuple(each.double() for each in getattr(edges, weights)) if weights else None
    x = random(NODES, 3, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: neighbour_sum(x, edges, given), x)


def test_derivative_of_extremes_and_moments_is_that_of_differences():
    edges = adjacency(EDGES, NODES)
    a, b = (random(NODES, 3, seed=seed, dtype=torch.float64).requires_grad_() for seed in (1, 2))
    assert torch.autograd.gradcheck(lambda x: neighbour_max(x, edges), a)
    assert torch.autograd.gradcheck(lambda a, b: edge_moments(a, b, edges), (a, b))


def test_a_derivative_of_a_derivative_is_refused_rather_than_wrong():
    x = random(NODES, 3).requires_grad_()
    (first,) = torch.autograd.grad(neighbour_sum(x, adjacency(EDGES, NODES)).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


# What each is, edge by edge


def by_node(values, combine):
    """[N, ...]: ``combine`` of the rows of ``values`` [E, ...] that come in at each node; zeros where none does."""
    found = torch.zeros(NODES, *values.shape[1:], dtype=values.dtype)
    for node in range(NODES):
        if (rows := values[EDGES[1] == node]).numel():
            found[node] = combine(rows)
    return found


def test_attention_is_a_softmax_of_the_scores_of_a_nodes_edges():
    x, att_src, att_dst = random(NODES, 2, 3), random(1, 2, 3, seed=1), random(1, 2, 3, seed=2)
    source, destination = EDGES
    scores = F.leaky_relu((x[source] * att_src + x[destination] * att_dst).sum(-1), 0.1)
    expected = torch.zeros(NODES, 2, 3)
    for node in set(destination.tolist()):
        rows = destination == node
        expected[node] = (scores[rows].softmax(0)[..., None] * x[source[rows]]).sum(0)
    found = attention(x, att_src, att_dst, adjacency(EDGES, NODES), 0.1)
    torch.testing.assert_close(found, expected)
    assert (found[[2, 4]] == 0).all()


def test_attention_with_large_scores_is_finite():
    x = 1e3 * random(NODES, 2, 3)
    x.requires_grad_()
    found = attention(x, random(1, 2, 3, seed=1), random(1, 2, 3, seed=2), adjacency(EDGES, NODES), 0.2)
    found.sum().backward()
    assert found.isfinite().all() and x.grad.isfinite().all()


def test_sums_and_extremes_are_those_of_the_incoming_edges():
    edges, x = adjacency(EDGES, NODES), random(NODES, 3)
    torch.testing.assert_close(neighbour_sum(x, edges), by_node(x[EDGES[0]], lambda rows: rows.sum(0)))
    torch.testing.assert_close(neighbour_sum(x, edges, edges.shares), by_node(x[EDGES[0]], lambda rows: rows.mean(0)))
    torch.testing.assert_close(neighbour_max(x, edges), by_node(x[EDGES[0]], lambda rows: rows.amax(0)))


def test_of_equal_maxima_one_has_the_gradient():
    x = torch.ones(NODES, 1, requires_grad=True)
    neighbour_max(x, adjacency(EDGES, NODES)).sum().backward()
    # nodes 0, 1, 3, 5, 6 have neighbours: the first of each is 3, 5, 2, 5, 1
    assert x.grad.flatten().tolist() == [0, 1, 1, 1, 0, 2, 0]


@pytest.mark.parametrize("offset, spread", [(0.0, 1.0), (1e3, 1.0), (0.0, 0.1)], ids=["plain", "far away", "closer"])
def test_moments_of_edges_keep_their_digits(offset, spread):
    """Nodes in pairs ten thousand times closer to each other than to the others: most of all squares cancels."""
    centre = random(500, 4)[torch.arange(1000) // 2] + offset
    b = centre + 1e-4 * spread * random(1000, 4, seed=1)
    a = b + 1e-3 * spread
    nodes = torch.arange(1000)
    edges = torch.stack([nodes ^ 1, nodes])
    expected = a.double()[edges[1]] - b.double()[edges[0]]
    mean, var = edge_moments(a, b, adjacency(edges, 1000))
    torch.testing.assert_close(mean, expected.mean(0).float(), rtol=1e-5, atol=0)
    torch.testing.assert_close(var, expected.var(0, unbiased=False).float(), rtol=1e-5, atol=0)


# Layers on graphs that the data sets do not have, against PyG


def layer_and_reference(kind, backend, seed=0, **options):
    """A layer of ours and the library's, with equal weights, also such as are 0 or 1 at the start."""
    layers = []
    for each in (CSR, backend):
        given = dict(options)
        if kind == "gin":
            given["nn"] = torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.ReLU())
        model = torch.nn.ModuleDict({"conv": each.conv(kind, 5, 6, **given)})
        initialise(model, seed, "layer")
        layers.append(model["conv"])
    return layers


KINDS = {"gat": {"heads": 2, "negative_slope": 0.3}, "gcn": {}, "sage": {}, "gin": {}, "edge": {}}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_on_directed_graphs_and_isolated_nodes_a_layer_is_pygs(kind, training):
    if reason := missing_reason("pyg"):
        pytest.skip(reason)
    pyg = get_backend("pyg")
    outputs = []
    for layer, backend in zip(layer_and_reference(kind, pyg, **KINDS[kind]), (CSR, pyg), strict=True):
        layer.train(training)
        x = random(NODES, 5).requires_grad_()
        out = layer(graph_of(backend=backend), x)
        out.square().sum().backward()
        gradients = [x.grad, *(parameter.grad for _, parameter in sorted_by_shape(layer))]
        outputs.append([out.detach(), *gradients])
    for ours, theirs in zip(*outputs, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def sorted_by_shape(layer):
    """Parameters of a layer in an order that does not depend on how the library calls them."""
    return sorted(layer.named_parameters(), key=lambda item: (tuple(item[1].shape), item[1].detach().sum().item()))


@pytest.mark.parametrize("name", ["pyg", "dgl"])
def test_an_edge_convolution_with_negative_weights_of_the_norm_takes_the_smallest(name):
    if reason := missing_reason(name):
        pytest.skip(reason)
    edges, backend = clusters(30, 5), get_backend(name)
    outputs = []
    for layer, each in zip(layer_and_reference("edge", backend), (CSR, backend), strict=True):
        norm = next(module for module in layer.modules() if isinstance(module, torch.nn.BatchNorm1d))
        with torch.no_grad():
            norm.weight.copy_(torch.tensor([-1.0, 2.0, -0.5, 1.0, -3.0, 0.1]))
            norm.bias.fill_(0.3)
        x = random(30, 5).requires_grad_()
        out = layer.train()(graph_of(edges, 30, each), x)
        out.square().sum().backward()
        outputs.append([out.detach(), x.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var])
        assert norm.num_batches_tracked == 1
    for ours, theirs in zip(*outputs, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_frozen_norm_keeps_its_statistics_while_the_layer_is_trained():
    layer, x = CSR.conv("edge", 5, 6), random(NODES, 5).requires_grad_()
    initialise(layer, 0, "layer")
    layer.norm.running_mean.copy_(random(6, seed=1))
    layer.norm.running_var.fill_(2.0)
    expected = layer.eval()(graph_of(), x)
    layer.train().norm.eval()
    before = {name: value.clone() for name, value in layer.norm.state_dict().items()}
    found = layer(graph_of(), x)
    assert torch.equal(found, expected)
    assert all(torch.equal(value, before[name]) for name, value in layer.norm.state_dict().items())
    found.sum().backward()
    assert x.grad.isfinite().all()


def test_a_norm_over_one_edge_is_refused():
    layer = CSR.conv("edge", 5, 6)
    with pytest.raises(ValueError, match="no statistics of 1"):
        layer(graph_of(torch.tensor([[0], [1]]), 2), random(2, 5))


# Structures


def test_places_of_edges_by_source_and_by_head_are_those_of_the_edges():
    edges = adjacency(EDGES, NODES)
    assert edges.incoming.ptr.dtype == torch.int32
    for heads in (1, 2, 3):
        repeated = edges.heads(heads)
        # (source, destination, head) of each edge and head; copies of a node lie side by side
        expected = {(s * heads + h, d * heads + h) for (s, d), h in itertools.product(EDGES.T.tolist(), range(heads))}
        incoming, outgoing, order = repeated.incoming, repeated.outgoing, repeated.order
        assert pairs(incoming.neighbour, incoming.row) == expected
        assert pairs(outgoing.row, outgoing.neighbour) == expected
        assert torch.equal(incoming.neighbour[order], outgoing.row)
        assert torch.equal(incoming.row[order], outgoing.neighbour)
        for side in (incoming, outgoing):
            assert torch.equal(side.row.diff() >= 0, torch.ones(len(side.row) - 1, dtype=torch.bool))
            assert torch.equal(side.degrees.cumsum(0), side.ptr[1:])
            assert torch.equal(side.degrees, torch.bincount(side.row, minlength=NODES * heads))


@pytest.mark.parametrize("heads", [1, 3])
def test_an_adjacency_is_gone_with_its_last_user_without_the_garbage_collector(heads):
    # dynamic graphs make one per layer and step: a cycle of references would keep them until a collection
    graphs = [adjacency(EDGES, NODES)]
    graphs.append(Batched([graphs[0], graphs[0]]))
    for graph in graphs:
        assert graph.heads(heads).num_edges == heads * len(graph.order)
        assert len(graph.normalisation) == len(graph.shares) == 2
    alive = [weakref.ref(graph) for graph in (*graphs, *(graph.heads(heads) for graph in graphs))]
    gc.disable()
    try:
        del graph, graphs
        assert [each() for each in alive] == [None] * 4
    finally:
        gc.enable()


def test_edges_in_any_order_are_the_same_rows():
    order = torch.tensor([5, 3, 0, 8, 1, 7, 2, 6, 4])
    shuffled, edges, x = adjacency(EDGES[:, order], NODES), adjacency(EDGES, NODES), random(NODES, 3)
    assert torch.equal(shuffled.incoming.row, edges.incoming.row)
    torch.testing.assert_close(neighbour_sum(x, shuffled), neighbour_sum(x, edges))


def test_one_head_is_the_graph_itself():
    edges = adjacency(EDGES, NODES)
    assert edges.heads(1) is edges


def pairs(sources, destinations):
    found = list(zip(sources.tolist(), destinations.tolist(), strict=True))
    assert len(set(found)) == len(found)
    return set(found)


@pytest.mark.parametrize("heads", [1, 2])
def test_a_batch_is_the_graph_of_all_and_sorts_nothing(heads, monkeypatch):
    parts = [(clusters(9, 3), 9), (EDGES, NODES), (clusters(12, 4, seed=1), 12)]
    starts = (0, 9, 9 + NODES)
    all_edges = torch.cat([edges + start for (edges, _), start in zip(parts, starts, strict=True)], dim=1)
    expected = adjacency(all_edges, 9 + NODES + 12).heads(heads)
    assert len(expected.order) == heads * all_edges.shape[1]  # worked out before sorting is forbidden
    graphs = [adjacency(edges, nodes) for edges, nodes in parts]
    assert all(graph.heads(heads).num_edges == len(graph.heads(heads).order) for graph in graphs)
    monkeypatch.setattr(torch.Tensor, "sort", None)
    found = Batched(graphs).heads(heads)
    for ours, theirs in ((found.incoming, expected.incoming), (found.outgoing, expected.outgoing)):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert torch.equal(found.order, expected.order)


def test_what_a_profile_works_out_in_inference_mode_serves_training():
    graph, x = graph_of(), random(NODES, 5)
    layers = [CSR.conv(kind, 5, 6, **KINDS[kind]) for kind in ("gat", "gcn", "sage", "edge")]
    for layer in layers:
        initialise(layer, 0, "layer")
        with torch.inference_mode():
            layer(graph, x)
        layer(graph, x).sum().backward()
        assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())


# What is in memory


class Sizes(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation makes."""

    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for each in made if isinstance(made, (tuple, list)) else [made]:
            if isinstance(each, torch.Tensor) and each.layout == torch.strided:
                self.largest = max(self.largest, each.numel())
        return made


def largest_tensor(backend, edges, nodes, model):
    graph, x = graph_of(edges, nodes, backend), random(nodes, 16)
    with Sizes() as sizes:
        model(graph, x).sum().backward()
    return sizes.largest


@pytest.mark.parametrize("kind", KINDS)
def test_no_tensor_of_edges_times_features_is_made_in_either_pass(kind):
    nodes, width = 60, 16
    edges = clusters(nodes, 30)
    assert edges.shape[1] > 20 * nodes

    def layer(backend):
        given = KINDS[kind] if kind != "gin" else {"nn": torch.nn.Linear(16, width)}
        made = backend.conv(kind, 16, width, **given)
        initialise(made, 0, "layer")
        return made

    assert largest_tensor(CSR, edges, nodes, layer(CSR)) < edges.shape[1] * width / 4
    if missing_reason("pyg") is None:  # which the recorder would have seen
        pyg = get_backend("pyg")
        assert largest_tensor(pyg, edges, nodes, layer(pyg)) >= edges.shape[1] * width


def test_the_whole_student_makes_no_such_tensor_either():
    nodes = 100
    edges = clusters(nodes, 60)
    model = GNN(GATSpec(model="gat", hidden=16, layers=5, heads=2), CSR, 16, 12)
    initialise(model, 0, "student")
    sizes = largest_tensor(CSR, edges, nodes, lambda graph, x: model(graph, x).logits)
    assert sizes <= 2 * max(edges.shape[1], nodes * 16)  # scores of two heads, or the features


# Reproducible


@pytest.mark.parametrize("nodes, count", [(1, 2), (2, 5), (3, 40)])
def test_attention_on_more_edges_than_pairs_of_nodes(nodes, count):
    edges = adjacency(EDGES.flatten().repeat(5)[: 2 * count].view(2, count) % nodes, nodes)
    inputs = [random(n, 2, 4, seed=n, dtype=torch.float64).requires_grad_() for n in (nodes, 1, 1)]
    assert torch.autograd.gradcheck(lambda *inputs: attention(*inputs, edges, 0.2), inputs)


def test_two_passes_give_the_same_bits():
    model = GNN(GATSpec(model="gat", hidden=8, layers=3, heads=2), CSR, 16, 5)
    initialise(model, 0, "student")
    found = []
    for _ in range(2):
        model.zero_grad()
        logits = model(graph_of(clusters(50, 12), 50), random(50, 16)).logits
        logits.square().sum().backward()
        found.append([logits, *(parameter.grad.clone() for parameter in model.parameters())])
    assert all(torch.equal(first, second) for first, second in zip(*found, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason=excused_in_ci("needs a CUDA device"))
@pytest.mark.parametrize("kind", KINDS)
def test_on_cuda_a_layer_is_what_it_is_on_the_cpu(kind):
    found = []
    for device in ("cpu", "cuda"):
        layer, _ = layer_and_reference(kind, CSR, **KINDS[kind])
        layer.to(device)
        x = random(NODES, 5).to(device).requires_grad_()
        out = layer(graph_of(EDGES.to(device)), x)
        out.square().sum().backward()
        found.append([each.cpu() for each in (out.detach(), x.grad, *(p.grad for p in layer.parameters()))])
    for on_cpu, on_cuda in zip(*found, strict=True):
        torch.testing.assert_close(on_cuda, on_cpu, rtol=1e-5, atol=1e-5)
