"""The structure of a 4-node graph, worked out in plain Python from equations 1-4 of Yang et al. (CVPR 2020)."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from distillbench.distillation.structure import local_structure, structure_divergence, union_edges
from distillbench.models.gnn import Output

KERNELS = ("l2", "linear", "polynomial", "rbf", "cosine", "exp-l1")
OPTIONS = {"sigma": 2.0, "c": 0.5, "degree": 3}

# (source, destination); node 1 has three neighbours, node 2 two, node 3 itself only, node 0 none
EDGES = [(0, 1), (2, 1), (3, 1), (1, 2), (3, 2), (3, 3)]
STUDENT = [[0.0, 1.0], [1.0, 1.0], [-1.0, 0.5], [2.0, -0.5]]
TEACHER = [[1.0, 0.0, 2.0], [0.5, 0.5, -1.0], [0.0, 1.0, 0.0], [-1.0, 0.5, 1.0]]


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def similarity(kernel, a, b, sigma, c, degree):
    squared = sum((x - y) ** 2 for x, y in zip(a, b, strict=True))
    absolute = sum(abs(x - y) for x, y in zip(a, b, strict=True))
    return {
        "l2": squared,
        "linear": dot(a, b),
        "polynomial": (dot(a, b) + c) ** degree,
        "rbf": math.exp(-squared / (2 * sigma)),
        "cosine": dot(a, b) / math.sqrt(dot(a, a) * dot(b, b)),
        "exp-l1": math.exp(-absolute / sigma),
    }[kernel]


def structure_by_hand(h, edges, kernel):
    """LS of every edge: e^SIM over the sum of e^SIM of the edges into the same destination."""
    weights = [math.exp(similarity(kernel, h[j], h[i], **OPTIONS)) for j, i in edges]
    totals = {i: sum(w for w, (_, k) in zip(weights, edges, strict=True) if k == i) for _, i in edges}
    return [w / totals[i] for w, (_, i) in zip(weights, edges, strict=True)]


def kl_by_hand(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def tensors(h, edges=EDGES):
    return torch.tensor(h, dtype=torch.float64), torch.tensor(edges).T


def log_ls(h, kernel, edges=EDGES):
    return local_structure(*tensors(h, edges), kernel, **OPTIONS)


def in_float64(h, edge_index, kernel, **options):
    """Log LS from dense float64 tensors, one destination after another."""
    options = {"sigma": 100.0, "c": 0.0, "degree": 2} | options
    a, b = h.double()[edge_index]
    squared = (a - b).square().sum(-1)
    value = {
        "l2": lambda: squared,
        "linear": lambda: (a * b).sum(-1),
        "polynomial": lambda: ((a * b).sum(-1) + options["c"]) ** options["degree"],
        "rbf": lambda: (-squared / (2 * options["sigma"])).exp(),
        "cosine": lambda: (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1)),
        "exp-l1": lambda: (-(a - b).abs().sum(-1) / options["sigma"]).exp(),
    }[kernel]()
    out = torch.zeros_like(value)
    for node in edge_index[1].unique():
        into = edge_index[1] == node
        out = out.masked_scatter(into, value[into].log_softmax(0))
    return out


def random_edges(nodes, edges, seed=0):
    return torch.randint(0, nodes, (2, edges), generator=torch.Generator().manual_seed(seed))


# Values


def test_two_neighbours_at_distance_one_and_two():
    # squared distances 1 and 4 from node 1: LS = (1, e^3) / (1 + e^3)
    h, edge_index = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([[0, 2], [1, 1]])
    expected = [-3.0485873516, -0.0485873516]
    assert local_structure(h, edge_index, "l2").tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("h", [STUDENT, TEACHER], ids=["student", "teacher"])
def test_local_structure_is_the_softmax_of_similarities(kernel, h):
    assert log_ls(h, kernel).exp().tolist() == pytest.approx(structure_by_hand(h, EDGES, kernel), abs=1e-12)


def test_defaults_are_rbf_with_sigma_100_and_a_squared_dot_product():
    h, edge_index = tensors(STUDENT)
    assert torch.equal(local_structure(h, edge_index), local_structure(h, edge_index, "rbf", sigma=100.0))
    squared = local_structure(h, edge_index, "polynomial", c=0.0, degree=2)
    assert torch.equal(local_structure(h, edge_index, "polynomial"), squared)


@pytest.mark.parametrize("end", ["source", "destination"])
@pytest.mark.parametrize("node", [4, 1_000_000, -1])
@pytest.mark.parametrize("kernel", KERNELS)
def test_an_edge_without_a_node_at_its_end_is_refused_by_number(kernel, node, end):
    h, edge_index = tensors(STUDENT)
    edge_index[0 if end == "source" else 1, 2] = node
    with pytest.raises(ValueError, match=f"{end} is node {node}, but num_nodes is 4"):
        local_structure(h, edge_index, kernel)


def test_unknown_kernel_is_refused_by_name():
    with pytest.raises(ValueError, match=r"'rfb' is not one of l2, linear, polynomial, rbf, cosine"):
        local_structure(*tensors(STUDENT), "rfb")


@pytest.mark.parametrize("kernel", KERNELS)
def test_divergence_in_both_directions_and_reductions(kernel):
    p, q = (structure_by_hand(h, EDGES, kernel) for h in (STUDENT, TEACHER))
    of_student, of_teacher, edge_index = log_ls(STUDENT, kernel), log_ls(TEACHER, kernel), tensors(STUDENT)[1]
    expected = {
        ("student||teacher", "nodes"): kl_by_hand(p, q) / 4,
        ("teacher||student", "nodes"): kl_by_hand(q, p) / 4,
        ("student||teacher", "edges"): kl_by_hand(p, q) / 6,
        ("teacher||student", "edges"): kl_by_hand(q, p) / 6,
    }
    for (direction, reduction), value in expected.items():
        found = structure_divergence(of_student, of_teacher, edge_index, 4, direction=direction, reduction=reduction)
        assert found.item() == pytest.approx(value, rel=1e-10), (direction, reduction)
    assert structure_divergence(of_student, of_teacher, edge_index, 4).item() == pytest.approx(kl_by_hand(p, q) / 4)


def test_divergence_over_other_edges_is_refused():
    with pytest.raises(ValueError, match="do not match"):
        structure_divergence(torch.zeros(6), torch.zeros(6), torch.zeros(2, 5, dtype=torch.int64), 4)
    with pytest.raises(ValueError, match="do not match"):
        structure_divergence(torch.zeros(6), torch.zeros(1), torch.zeros(2, 6, dtype=torch.int64), 4)


@pytest.mark.parametrize("kernel", KERNELS)
def test_edges_come_in_any_order(kernel):
    order = [4, 0, 5, 2, 3, 1]
    shuffled = log_ls(STUDENT, kernel, [EDGES[e] for e in order])
    assert shuffled.tolist() == pytest.approx(log_ls(STUDENT, kernel)[order].tolist(), abs=1e-14)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("nodes, edges", [(1, 1), (1, 2), (2, 4), (2, 5), (3, 400)])
def test_an_edge_may_be_there_several_times_also_more_edges_than_pairs_of_nodes(nodes, edges, kernel):
    h, edge_index = torch.randn(nodes, 3, generator=torch.Generator().manual_seed(0)), random_edges(nodes, edges)
    single, double = h.clone().requires_grad_(), h.double().requires_grad_()
    weight = torch.arange(1.0, edges + 1)
    found, expected = (
        local_structure(single, edge_index, kernel, **OPTIONS),
        in_float64(double, edge_index, kernel, **OPTIONS),
    )
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    (grad,), (grad64,) = (
        torch.autograd.grad((weight * of).sum(), z) for of, z in ((found, single), (expected, double))
    )
    torch.testing.assert_close(grad.double(), grad64, rtol=1e-5, atol=1e-5 * max(1, grad64.abs().max().item()))


def test_no_edges_give_an_empty_structure_and_no_divergence():
    empty = torch.empty(2, 0, dtype=torch.int64)
    structure = local_structure(torch.randn(3, 2), empty)
    assert structure.shape == (0,)
    for reduction in ("nodes", "edges"):
        assert structure_divergence(structure, structure, empty, 3, reduction=reduction).item() == 0


# Edges


def union(a, b, num_nodes, dynamic=True):
    student, teacher = (Output(torch.empty(num_nodes, 2), (), (edges,), dynamic) for edges in (a, b))
    return union_edges(student, 0, teacher, 0, num_nodes)


def test_union_has_every_edge_once_sorted_by_destination_then_source():
    a, b = torch.tensor([[3, 0, 2], [1, 1, 0]]), torch.tensor([[0, 3, 1], [1, 3, 0]])
    assert union(a, b, 4).T.tolist() == [[1, 0], [2, 0], [0, 1], [3, 1], [3, 3]]
    assert torch.equal(union(a, b, 4), union(b, a, 4))


def test_of_the_graphs_own_edges_or_of_none_there_is_nothing_to_unite():
    a, empty = torch.tensor([[1, 0], [0, 0]]), torch.empty(2, 0, dtype=torch.int64)  # not in the union's order
    assert union(a, a.clone(), 2, dynamic=False) is a  # own edges, in whatever tensor: no look at what is in it
    for dynamic in (False, True):
        assert union(a, empty, 2, dynamic) is a
        assert union(empty, a, 2, dynamic) is a
    assert union(a, a, 2).tolist() == [[0, 1], [0, 0]]  # drawn ones may be any, even in one tensor


def test_union_of_node_numbers_that_overflow_32_bits():
    edge = torch.tensor([[99_999], [99_998]])
    assert union(edge, edge.flip(0), 100_000).T.tolist() == [[99_999, 99_998], [99_998, 99_999]]


# Numerics

FEATURES = {
    "normal": lambda r: torch.randn(40, 16, generator=r),
    "near duplicates": lambda r: torch.randn(1, 16, generator=r) + 1e-4 * torch.randn(40, 16, generator=r),
    "near duplicates far from the origin": lambda r: 300 + 1e-3 * torch.randn(40, 16, generator=r),
    "far clusters": lambda r: (
        30 * torch.randn(4, 16, generator=r).repeat(10, 1) + 1e-3 * torch.randn(40, 16, generator=r)
    ),
}


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("kernel", KERNELS)
def test_value_and_gradient_in_float32_are_those_of_float64(kernel, features):
    random, edge_index = torch.Generator().manual_seed(3), random_edges(40, 300)
    h, teacher = FEATURES[features](random), FEATURES[features](random)
    single, double = h.clone().requires_grad_(), h.double().requires_grad_()
    p, q = local_structure(single, edge_index, kernel), local_structure(teacher, edge_index, kernel)
    p64, q64 = (in_float64(each, edge_index, kernel) for each in (double, teacher))
    torch.testing.assert_close(p.double(), p64, rtol=1e-5, atol=1e-5)
    value, value64 = structure_divergence(p, q, edge_index, 40), (p64.exp() * (p64 - q64)).sum() / 40
    torch.testing.assert_close(value.double(), value64, rtol=1e-5, atol=1e-5)
    (grad,), (grad64,) = torch.autograd.grad(value, single), torch.autograd.grad(value64, double)
    torch.testing.assert_close(grad.double(), grad64, rtol=1e-5, atol=1e-5)
    assert value.dtype == torch.float64
    assert grad.dtype == torch.float32


@pytest.mark.parametrize("kernel", KERNELS)
def test_gradients_are_exact_in_float64(kernel):
    h, edge_index = tensors(STUDENT)
    h += torch.linspace(0, 0.1, h.numel()).view_as(h)  # at equal entries |a - b| has no second derivative
    h.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: local_structure(z, edge_index, kernel, **OPTIONS), (h,))
    assert torch.autograd.gradgradcheck(lambda z: local_structure(z, edge_index, kernel, **OPTIONS), (h,))


@pytest.mark.parametrize("scale", [1e3, 1e10, 1e20, 1e30])
@pytest.mark.parametrize("kernel", KERNELS)
def test_finite_where_the_log_of_a_softmax_is_not(kernel, scale):
    random, edge_index = torch.Generator().manual_seed(0), random_edges(10, 60)
    h = (scale * torch.randn(10, 4, generator=random)).requires_grad_()
    student = local_structure(h, edge_index, kernel)
    teacher = local_structure(torch.randn(10, 4, generator=random), edge_index, kernel)
    value = structure_divergence(student, teacher, edge_index, 10)
    value.backward()
    assert student.isfinite().all()
    assert value.isfinite()
    assert h.grad.isfinite().all()


def test_the_naive_log_of_a_softmax_is_indeed_not_finite_there():
    distances = torch.tensor([0.0, 1e6])
    assert not distances.softmax(0).log().isfinite().all()


@pytest.mark.parametrize("kernel", KERNELS)
def test_equal_features_and_zero_features_give_a_uniform_structure(kernel):
    edge_index = torch.tensor([[0, 1, 2], [3, 3, 3]])
    for h in (torch.zeros(4, 2), torch.ones(4, 2)):
        assert local_structure(h, edge_index, kernel).tolist() == pytest.approx([-math.log(3)] * 3, abs=1e-7)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_gradient_of_a_row_of_zeros_is_of_the_size_of_the_others(kernel):
    # node 0 has no features; a length clamped to 1e-12 would multiply its gradient by 1e12
    random, edge_index = torch.Generator().manual_seed(0), random_edges(10, 60)
    h = torch.randn(10, 4, generator=random)
    h[0] = 0
    h.requires_grad_()
    teacher = local_structure(torch.randn(10, 4, generator=random), edge_index, kernel)
    structure_divergence(local_structure(h, edge_index, kernel), teacher, edge_index, 10).backward()
    sizes = h.grad.norm(dim=-1)
    assert sizes[0] <= 3 * sizes[1:].max()


@pytest.mark.parametrize("scale", [1e-30, 1e-14, 1e-12, 1.0, 1e14])
@pytest.mark.parametrize("gradient", [False, True])
def test_cosine_does_not_depend_on_lengths_and_leaves_the_features_alone(scale, gradient):
    h, edge_index = torch.randn(10, 4, generator=torch.Generator().manual_seed(0)).double(), random_edges(10, 60)
    scaled = (scale * h).requires_grad_(gradient)
    before = scaled.detach().clone()
    found = local_structure(scaled, edge_index, "cosine")
    torch.testing.assert_close(found, in_float64(h, edge_index, "cosine"), rtol=1e-12, atol=1e-12)
    assert torch.equal(scaled, before)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_structure_of_a_graph_is_the_same_to_the_bit_in_every_batch(kernel):
    random = torch.Generator().manual_seed(0)
    h, edge_index = torch.randn(40, 150, generator=random), random_edges(40, 300)
    more, edges_of_more = 5 + 3 * torch.randn(30, 150, generator=random), random_edges(30, 200)
    alone = local_structure(h, edge_index, kernel)
    together = local_structure(torch.cat([more, h]), torch.cat([edges_of_more, edge_index + 30], dim=1), kernel)
    assert torch.equal(together[200:], alone)


# Memory


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that any operation returns, forward or backward."""

    elements = elements_of_float64 = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for each in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(each, torch.Tensor):
                self.elements = max(self.elements, each.numel())
                if each.dtype == torch.float64 and each.layout == torch.strided:  # a sparse one counts its zeros
                    self.elements_of_float64 = max(self.elements_of_float64, each.numel())
        return out


def largest_tensor(loss, h):
    h = h.clone().requires_grad_()
    with Largest() as largest:
        loss(h).backward()
    return largest.elements


@pytest.mark.parametrize("kernel", KERNELS)
def test_no_tensor_of_edges_by_features_is_ever_held(kernel):
    nodes, edges, width = 500, 40_000, 64
    edge_index, h = random_edges(nodes, edges), torch.randn(nodes, width)
    teacher = local_structure(h, edge_index, kernel)
    ours = largest_tensor(
        lambda z: structure_divergence(local_structure(z, edge_index, kernel), teacher, edge_index, nodes), h
    )
    assert ours <= edges * width // 8
    naive = largest_tensor(lambda z: (z[edge_index[0]] * z[edge_index[1]]).sum(), h)
    assert naive >= edges * width  # what is measured does see such tensors, in the backward pass too


@pytest.mark.parametrize("kernel", ["l2", "rbf", "exp-l1"])
def test_nor_where_all_nodes_are_near_duplicates(kernel):
    # their distances are computed from differences, which are E × D numbers in all
    nodes, edges, width = 500, 40_000, 64
    edge_index, h = random_edges(nodes, edges), 100 + 1e-4 * torch.randn(nodes, width)
    h[::2] += 50  # two clusters
    assert largest_tensor(lambda z: local_structure(z, edge_index, kernel).sum(), h) <= edges * width // 8


@pytest.mark.parametrize("kernel", KERNELS[:-1])  # absolute distances add their gradient up in float64
def test_no_float64_copy_of_wide_features_is_ever_held(kernel):
    nodes, width = 2_000, 1_024
    edge_index, h = random_edges(nodes, 10_000), torch.randn(nodes, width).requires_grad_()
    with Largest() as largest:
        local_structure(h, edge_index, kernel).sum().backward()
    assert 10_000 <= largest.elements_of_float64 <= nodes * width // 4
