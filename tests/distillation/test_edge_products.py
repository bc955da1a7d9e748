"""Dot products and distances along edges: to all their digits, in any order of the edges, added in one order."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from distillbench.distillation.edge_products import (
    Edges,
    edge_absolute_distance,
    edge_cosine,
    edge_dot,
    edge_squared_distance,
)


def random_edges(nodes, edges, seed=0):
    return torch.randint(0, nodes, (2, edges), generator=torch.Generator().manual_seed(seed))


def clusters(apart, spread, width, nodes=60, seed=0):
    """Points in three clusters; ``spread`` is the distance within one, relative to the one between them."""
    random = torch.Generator().manual_seed(seed)
    centres = apart * torch.randn(3, width, generator=random)
    return (centres.repeat(nodes // 3, 1) + apart * spread * torch.randn(nodes, width, generator=random)).float()


@pytest.mark.parametrize("width", [1, 3, 63, 64, 65, 300])
@pytest.mark.parametrize("spread", [1.0, 1e-2, 1e-3, 3e-4, 1e-5, 1e-7, 0.0])
def test_distances_of_near_duplicates_in_several_clusters_keep_seven_digits(width, spread):
    # 1e-3: both ways of computing are met, from lengths and from differences; at 1e-7 float32 has a digit left
    h, edge_index = clusters(30.0, spread, width), random_edges(60, 900)
    edges = Edges(*edge_index, 60)
    difference = h.double()[edge_index[0]] - h.double()[edge_index[1]]
    for found, expected in (
        (edge_squared_distance(h, edges), difference.square().sum(-1)),
        (edge_absolute_distance(h, edges), difference.abs().sum(-1)),
    ):
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=0)


@pytest.mark.parametrize("spread", [1.0, 1e-2, 1e-3, 1e-5])
def test_gradients_of_those_distances_do_too(spread):
    h, edge_index = clusters(30.0, spread, 40).requires_grad_(), random_edges(60, 900)
    weight = torch.rand(900, generator=torch.Generator().manual_seed(1)).double()
    double = h.detach().double().requires_grad_()
    expected = (weight * (double[edge_index[0]] - double[edge_index[1]]).square().sum(-1)).sum()
    found = (weight * edge_squared_distance(h, Edges(*edge_index, 60))).sum()
    (grad,), (grad64,) = torch.autograd.grad(found, h), torch.autograd.grad(expected, double)
    torch.testing.assert_close(grad.double(), grad64, rtol=1e-5, atol=1e-6 * grad64.abs().max().item())


@pytest.mark.parametrize("spread", [1.0, 1e-2, 1e-3, 1e-5])
def test_cosines_and_their_gradients_keep_their_digits_between_near_duplicates(spread):
    h, edge_index = clusters(30.0, spread, 150).requires_grad_(), random_edges(60, 900)
    weight = torch.rand(900, generator=torch.Generator().manual_seed(1)).double()
    double = h.detach().double().requires_grad_()
    a, b = double[edge_index[0]], double[edge_index[1]]
    # 1 - cos is half of the squared distance of unit vectors: a formulation in which nothing cancels
    apart = a / a.norm(dim=-1, keepdim=True) - b / b.norm(dim=-1, keepdim=True)
    cosine = edge_cosine(h, Edges(*edge_index, 60))
    torch.testing.assert_close(cosine, 1 - apart.square().sum(-1) / 2, rtol=0, atol=1e-14)
    (grad,) = torch.autograd.grad((weight * cosine).sum(), h)
    (grad64,) = torch.autograd.grad(-(weight * apart.square().sum(-1) / 2).sum(), double)
    torch.testing.assert_close(grad.double(), grad64, rtol=1e-5, atol=1e-6 * grad64.abs().max().item())


@pytest.mark.parametrize("of", [edge_dot, edge_squared_distance, edge_absolute_distance, edge_cosine])
def test_a_gradient_that_is_differentiated_again_is_the_gradient(of):
    h, edge_index = torch.randn(10, 4, generator=torch.Generator().manual_seed(0)).double(), random_edges(10, 60)
    h, weight = h.requires_grad_(), torch.rand(60, generator=torch.Generator().manual_seed(1)).double()
    found, plain = (
        torch.autograd.grad((weight * of(h, Edges(*edge_index, 10))).sum(), h, create_graph=again)[0]
        for again in (True, False)
    )
    torch.testing.assert_close(found, plain, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("of", [edge_dot, edge_squared_distance, edge_absolute_distance, edge_cosine])
def test_products_do_not_depend_on_the_order_of_the_edges(of):
    h, edge_index = torch.randn(40, 150, generator=torch.Generator().manual_seed(0)), random_edges(40, 300)
    order = edge_index[1].argsort(stable=True)
    found = of(h, Edges(*edge_index, 40))
    torch.testing.assert_close(found[order], of(h, Edges(*edge_index[:, order], 40)), rtol=1e-12, atol=1e-12)


class Names(TorchDispatchMode):
    """What operations are called."""

    def __init__(self):
        super().__init__()
        self.called = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.called.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def scattered(of):
    """The operations of a value and its gradient that add in no fixed order on CUDA."""
    h = torch.randn(40, 20, generator=torch.Generator().manual_seed(0)).requires_grad_()
    with Names() as names:
        of(h, Edges(*random_edges(40, 300), 40)).sum().backward()
    return {name for name in names.called if ("add_" in name and "index" in name) or "scatter" in name}


@pytest.mark.parametrize("of", [edge_dot, edge_squared_distance, edge_cosine])
def test_products_and_their_gradients_are_added_in_one_order(of):
    assert not scattered(of)
    assert scattered(edge_absolute_distance)  # by blocks of differences: the recorder does see such operations


def test_nodes_without_features_and_without_edges():
    none = torch.empty(2, 0, dtype=torch.int64)
    for of in (edge_dot, edge_squared_distance, edge_absolute_distance, edge_cosine):
        h = torch.randn(3, 4).requires_grad_()
        found = of(h, Edges(*none, 3))
        assert found.shape == (0,)
        (first,) = torch.autograd.grad(found.sum(), h, create_graph=True)
        assert torch.equal(first, torch.zeros(3, 4))
        assert of(torch.randn(0, 4), Edges(*none, 0)).shape == (0,)
        assert of(torch.empty(3, 0), Edges(*torch.tensor([[0, 1], [2, 2]]), 3)).tolist() == [0, 0]
