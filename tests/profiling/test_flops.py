"""What is counted: dense matrix products as each library runs them, message passing by formula."""

from functools import partial

import pytest
import torch
from torch_geometric.nn import MessagePassing

from distillbench.config.specs import MODELS
from distillbench.models.backends import get_backend
from distillbench.profiling.flops import COUNTED, dense_flops, edge_flops

NODES, FEATURES, CLASSES = 50, 6, 3  # of the small data


def counted(small, spec, backend, data):
    model = small.model_of(spec, backend)
    inputs, split = small.inputs_of(data, backend)
    batch = inputs.ordered(split.train)[0]
    with torch.inference_mode():
        run = partial(model, batch.graph, batch.x)
        return dense_flops(run), edge_flops(model, run(), backend.name)


def test_every_kind_of_dense_product_counts_multiply_and_add():
    a, b, bias = torch.ones(4, 5), torch.ones(5, 3), torch.ones(3)
    assert dense_flops(lambda: a @ b) == dense_flops(lambda: torch.addmm(bias, a, b)) == 2 * 4 * 5 * 3
    assert dense_flops(lambda: torch.nn.functional.linear(a, b.T, bias)) == 2 * 4 * 5 * 3
    assert dense_flops(lambda: torch.bmm(a.expand(7, 4, 5), b.expand(7, 5, 3))) == 7 * 2 * 4 * 5 * 3
    assert dense_flops(lambda: a + a) == 0


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
def test_a_product_with_a_sparse_matrix_is_message_passing_and_not_a_dense_product():
    sparse, dense = torch.eye(4).to_sparse_csr(), torch.ones(4, 3)
    products = [
        lambda: sparse @ dense,
        lambda: torch.sparse.mm(sparse, dense),
        lambda: torch.addmm(torch.zeros(4, 3), sparse, dense),
        lambda: torch.eye(4).to_sparse() @ dense,
        lambda: torch.sparse.sampled_addmm(sparse, torch.ones(4, 5), torch.ones(5, 4)),
    ]
    assert [dense_flops(product) for product in products] == [0] * len(products)


def test_a_gat_by_hand(small, backend):
    heads, width = 2, 4
    spec = {"model": "gat", "hidden": width, "heads": heads, "residual": False}
    hidden, out, edges = heads * width, heads * CLASSES, 3 * NODES
    dense = 2 * NODES * (FEATURES * hidden + hidden * out)
    assert counted(small, spec, backend, small.ring()) == (dense, 2 * edges * (hidden + out))


@pytest.mark.parametrize("kind", ["gcn", "sage", "gin"])
def test_dense_products_of_other_layers_by_hand(small, backend, kind):
    width = 8
    dense = 2 * NODES * (FEATURES * width + width * CLASSES)
    if kind == "sage":  # the neighbours' mean and the node itself
        dense *= 2
    if kind == "gin":  # two linear layers each
        dense += 2 * NODES * (width * width + CLASSES * CLASSES)
    assert counted(small, {"model": kind, "hidden": width}, backend, small.ring())[0] == dense


def weighs(given):
    """Whether a message is made with a weight, an attention's or a normalisation's."""
    return any(given.get(name) is not None for name in ("alpha", "edge_weight"))


def messages_of_pyg(model, monkeypatch):
    seen = []
    for module in model.modules():
        if isinstance(module, MessagePassing):
            module.register_message_forward_hook(lambda _, given, out: seen.append([weighs(given[-1]), out[0].numel()]))
    return seen


def messages_of_dgl(model, monkeypatch):
    import dgl

    seen, update_all = [], dgl.DGLGraph.update_all

    def watched(graph, message, *rest, **options):
        weighted = isinstance(message, dgl.function.message.BinaryMessageFunction)
        field = message.lhs_field if weighted else message.in_field
        seen.append([weighted, graph.srcdata[field][0].numel()])
        return update_all(graph, message, *rest, **options)

    monkeypatch.setattr(dgl.DGLGraph, "update_all", watched)
    return seen


def messages_of_csr(model, monkeypatch):
    from distillbench.models.backends import csr

    seen, neighbour_sum, attention = [], csr.neighbour_sum, csr.attention

    def summed(x, adjacency, weights=None):
        seen.append([weights is not None, x[0].numel()])
        return neighbour_sum(x, adjacency, weights)

    def attended(x, *rest):
        seen.append([True, x[0].numel()])
        return attention(x, *rest)

    monkeypatch.setattr(csr, "neighbour_sum", summed)
    monkeypatch.setattr(csr, "attention", attended)
    return seen


@pytest.mark.parametrize("width", [2, 8, 20])  # the layers' inputs are 6 and this wide, their outputs this and 3
@pytest.mark.parametrize("kind", ["gat", "gcn", "sage", "gin"])
@pytest.mark.parametrize("name", ["pyg", "dgl", "csr"])
def test_message_passing_costs_what_the_library_passes(small, monkeypatch, name, kind, width):
    """Messages as they are seen on their way: how wide, and whether the library multiplies each by a weight."""
    backend = get_backend(name)
    model = small.model_of({"model": kind, "hidden": width}, backend)
    inputs, split = small.inputs_of(small.ring(), backend)
    batch = inputs.ordered(split.train)[0]
    seen = {"pyg": messages_of_pyg, "dgl": messages_of_dgl, "csr": messages_of_csr}[name](model, monkeypatch)
    with torch.inference_mode():
        out = model(batch.graph, batch.x)
    assert len(seen) == 2
    assert edge_flops(model, out, name) == 3 * NODES * sum((1 + weighted) * wide for weighted, wide in seen)


def test_an_edge_convolution_costs_what_its_library_makes_of_it(small, backend):
    graphs, points, k, width, embedding = 4, 8, 3, 5, 7
    nodes = graphs * points
    spec = {"model": "dgcnn", "widths": [width], "embedding": embedding, "k": k}
    search = 2 * nodes * points * FEATURES
    # theta is applied to every edge; phi by PyG to every edge, by DGL to every node
    rows = nodes * k + (nodes * k if backend.name == "pyg" else nodes)
    layers = 2 * (rows * FEATURES * width + nodes * width * embedding + graphs * 2 * embedding * CLASSES)
    assert counted(small, spec, backend, small.clouds()) == (search + layers, nodes * k * width)


def test_layers_on_compressed_rows_count_as_the_libraries_do(small):
    """PyTorch's own counter would take the sparse product of each layer for a dense one, N² instead of E."""
    spec = {"model": "gcn", "hidden": 8}
    dense = 2 * NODES * (FEATURES * 8 + 8 * CLASSES)
    # the first layer sums its input, which is narrower than its output, the second its output
    assert counted(small, spec, get_backend("csr"), small.ring()) == (dense, 2 * 3 * NODES * (FEATURES + CLASSES))


def test_a_model_that_the_formulas_do_not_know_has_no_figure(small):
    assert {(model, library) for model in MODELS for library in ("pyg", "dgl", "csr")} == COUNTED
    backend = get_backend("csr")
    model = small.model_of({"model": "gcn", "hidden": 4}, backend)
    inputs, split = small.inputs_of(small.ring(), backend)
    batch = inputs.ordered(split.train)[0]
    with pytest.raises(NotImplementedError, match="no formula for the messages of 'gcn' with 'other'"):
        edge_flops(model, model(batch.graph, batch.x), "other")
