"""Losses over pairs and triples, block by block: value and gradient of the plain formulation, and no such matrix.

The plain formulations are written here, in float64, with all pairs at once.
"""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from distillbench.data.tasks import TASKS
from distillbench.distillation import blocks
from distillbench.distillation.blocks import sum_over_rows
from distillbench.distillation.method import Context, Dims
from distillbench.models.gnn import Output
from distillbench.plugins import load

METHODS = Path(__file__).parents[2] / "methods"
pytestmark = pytest.mark.usefixtures("one_thread")
NONE = torch.empty(2, 0, dtype=torch.int64)


class Sizes(TorchDispatchMode):
    """Elements of all tensors that operations make; views and what is written into are not made."""

    def __init__(self):
        super().__init__()
        self.made = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = {each.untyped_storage().data_ptr() for each in tree_leaves((args, kwargs)) if torch.is_tensor(each)}
        out = func(*args, **(kwargs or {}))
        for each in filter(torch.is_tensor, tree_leaves(out)):
            if each.untyped_storage().data_ptr() not in given:
                self.made.append(each.untyped_storage().size() // each.element_size())
        return out


@pytest.fixture
def in_small_blocks(monkeypatch):
    """Blocks of a few rows, so that small data have several, the last of them smaller."""
    monkeypatch.setattr(blocks, "_ELEMENTS", 35)


def pairs(a, a_all, b_all):
    """Not linear in anything: Σ over some rows, and all columns."""
    return (a @ a_all.T * (a @ b_all).sum(dim=1, keepdim=True)).tanh().sum()


def drawn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# The sum itself


@pytest.mark.parametrize("width", [1, 3, 100], ids=["all at once", "blocks", "row by row"])
def test_a_sum_over_blocks_of_rows_has_the_value_and_the_gradients_of_the_whole(in_small_blocks, width):
    a, b = drawn(9, 4).requires_grad_(), drawn(4, 2, seed=1).requires_grad_()
    expected = pairs(a, a, b)
    seen = []

    def term(rows, *others):
        seen.append(len(rows))
        return pairs(rows, *others)

    found = sum_over_rows(term, (a,), (a, b), width=width * (a.numel() + b.numel()) // 9)
    assert sum(seen) == 9
    assert max(seen) == {1: 9, 3: 3, 100: 1}[width]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    for ours, plain in zip(
        torch.autograd.grad(3 * found, [a, b]), torch.autograd.grad(3 * expected, [a, b]), strict=True
    ):
        torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-14)


# rows, width, elements of ``whole``, and rows of a block
BLOCKS = [
    (3000, 1024, 0, 1024),
    (2048, 2048, 2048 * 512, 512),
    (2048, 2048, 2048 * 2048, 512),  # wide features: 512 rows make up for reading them
    (8192, 8192, 8192 * 8, 128),
    (8192, 8192, 8192 * 1024, 256),
    (16384, 16384, 16384 * 256, 256),
    (65536, 65536, 65536 * 256, 64),
    (9, 1 << 23, 0, 1),
]


@pytest.mark.parametrize("n, width, elements, rows", BLOCKS)
def test_a_block_has_a_million_elements_and_four_where_it_would_have_few_rows(n, width, elements, rows):
    seen = []

    def term(part, whole):
        seen.append(len(part))
        return part.sum()

    sum_over_rows(term, (torch.zeros(n),), (torch.zeros(1).expand(elements),), width=width)
    assert seen == [rows] * (n // rows) + [n % rows] * (n % rows > 0)
    assert rows == 1 or rows * width <= 4 << 20


def test_tensors_without_a_gradient_get_none_and_numbers_may_be_among_them(in_small_blocks):
    a, b, number = drawn(5, 3).requires_grad_(), drawn(5, 3, seed=1), torch.arange(5)

    def term(rows, numbers, others):
        return (rows * others[numbers]).sum()

    found = sum_over_rows(term, (a, number), (b,), width=15)
    found.backward()
    torch.testing.assert_close(a.grad, b)
    assert b.grad is None
    assert not sum_over_rows(term, (b, number), (b,), width=15).requires_grad
    with torch.no_grad():
        assert not sum_over_rows(term, (a, number), (b,), width=15).requires_grad


def test_an_argument_that_is_not_read_has_no_gradient_and_no_rows_have_a_sum_of_zero():
    a, b = drawn(5, 3).requires_grad_(), drawn(2, seed=1).requires_grad_()
    sum_over_rows(lambda rows, _: rows.sum(), (a,), (b,), width=3).backward()
    assert torch.equal(a.grad, torch.ones(5, 3, dtype=torch.float64))
    assert torch.equal(b.grad, torch.zeros(2, dtype=torch.float64))
    empty = sum_over_rows(lambda rows, _: rows.sum(), (a[:0],), (b,), width=3)
    assert empty.item() == 0
    empty.backward()


def test_it_is_differentiated_once(in_small_blocks):
    a, b = drawn(5, 4).requires_grad_(), drawn(4, 2, seed=1)
    squared = sum_over_rows(pairs, (a,), (a, b), width=9).square()
    (gradient,) = torch.autograd.grad(squared, [a], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


# The methods


def made(name, d_s, d_t, **params):
    plugin = load("method", METHODS / f"{name}.py")
    torch.manual_seed(0)
    return plugin(plugin.Params(**params), Dims((d_s,), 5), Dims((d_t,), 5))


def context(n, task="multiclass", labels=None, nodes=None):
    labels = torch.arange(n) % 5 if labels is None else labels
    labelled, random = torch.ones(n, dtype=torch.bool), torch.Generator().manual_seed(3)
    nodes = torch.arange(n) if nodes is None else nodes
    return Context(TASKS[task], labels, labelled, NONE, n, 1, random, nodes=nodes)


def plain_gsp(h_s, h_t, method):
    a, b = F.normalize(h_s, dim=1), F.normalize(h_t, dim=1)
    return 100 * (a @ a.T - b @ b.T).square().mean()


def plain_sp(h_s, h_t, method):
    a, b = F.normalize(h_s @ h_s.T, dim=1), F.normalize(h_t @ h_t.T, dim=1)
    return 3000 * (a - b).square().mean()


def plain_gcrd(h_s, h_t, method):
    of_student, of_teacher = method.projectors[0]
    a, b = F.normalize(of_student(h_s), dim=1), F.normalize(of_teacher(h_t), dim=1)
    return 0.1 * F.cross_entropy(a @ b.T / 0.075, torch.arange(len(a)))


def plain_rkd(h_s, h_t, method):
    relations = []
    for h in (h_s, h_t):
        n, difference = len(h), h[None] - h[:, None]
        distance = difference.norm(dim=-1)
        mean = distance.sum() / (n * (n - 1))
        direction = difference / torch.maximum(distance, 1e-4 * mean)[..., None]
        relations.append((distance / mean, torch.einsum("jid,jkd->jik", direction, direction)))
    (d_s, a_s), (d_t, a_t) = relations
    return 25 * F.smooth_l1_loss(d_s, d_t) + 50 * F.smooth_l1_loss(a_s, a_t)


def plain_pkt(h_s, h_t, method):
    p = []
    for h in (h_s, h_t):
        unit = F.normalize(h, dim=1)
        others = ~torch.eye(len(h), dtype=torch.bool)
        k = ((unit @ unit.T + 1 + 1e-6) / 2)[others].view(len(h), -1)
        p.append(k / k.sum(dim=1, keepdim=True))
    return 470 * (p[1] * (p[1] / p[0]).log()).sum() / len(h_s)


PLAIN = {"gsp": plain_gsp, "sp": plain_sp, "gcrd": plain_gcrd, "rkd": plain_rkd, "pkt": plain_pkt}


def random_features(n):
    return drawn(n, 12, dtype=torch.float32), drawn(n, 20, seed=1, dtype=torch.float32)


def near_duplicates(n):
    """Three clusters far apart, whose nodes are a hundredth of a thousandth of that distance from each other."""
    centres, near = drawn(3, 12, seed=2, dtype=torch.float32), drawn(n, 12, seed=3, dtype=torch.float32)
    h_s = 10 * centres[torch.arange(n) % 3] + 1e-4 * near
    return h_s, torch.cat([h_s + 1e-4 * drawn(n, 12, seed=4, dtype=torch.float32), near[:, :8]], dim=1)


def far_twins(n):
    """Two nearly equal nodes, a thousand times as far from all the others as these from each other."""
    h_s, h_t = random_features(n)
    h_s[0] += 1000
    h_s[1] = h_s[0] + 1e-3
    return h_s, h_t


@pytest.mark.parametrize("features", [random_features, near_duplicates, far_twins])
@pytest.mark.parametrize("name", PLAIN)
def test_value_and_gradient_are_those_of_all_pairs_in_float64(in_small_blocks, name, features):
    n = 24
    h_s, h_t = features(n)
    method = made(name, h_s.shape[1], h_t.shape[1]).train()
    exact = h_s.double().requires_grad_()
    expected = PLAIN[name](exact, h_t.double(), method.double())
    (gradient,) = torch.autograd.grad(expected, [exact])
    method.float()
    h_s = h_s.requires_grad_()
    logits = torch.zeros(n, 5)
    found = method.terms(Output(logits, (h_s,), (NONE,)), Output(logits, (h_t,), (NONE,)), context(n))
    distilled = sum(value for term, value in found.items() if term != "task")
    (ours,) = torch.autograd.grad(distilled, [h_s])
    assert distilled.item() == pytest.approx(expected.item(), rel=1e-5)
    assert (ours - gradient).norm() <= 1e-5 * gradient.norm()


OTHERS = [
    ("crd", "multiclass", {"width": 6, "max_nodes": 20}),
    ("crd", "multiclass", {"width": 6, "normalisation": "none"}),
    *(("gkd", "multiclass", {"kernel": kernel}) for kernel in ("sigmoid", "gaussian", "exp-l2", "random")),
    ("gkd", "multiclass", {"reduction": "mean", "max_nodes": 20}),
    ("mlkd", "multilabel", {}),
    ("mlkd", "multilabel", {"max_nodes": 20}),
    ("pkt", "multiclass", {"self_pairs": True, "max_nodes": 20}),
    ("rkd", "multiclass", {"normalise": True, "max_nodes": 20}),
    ("gcrd", "multiclass", {"max_nodes": 20}),
]


@pytest.mark.parametrize("name, task, params", OTHERS, ids=str)
def test_blocks_do_not_matter(monkeypatch, name, task, params):
    n, results = 24, []
    labels = (drawn(n, 5, seed=5) > 0).double() if task == "multilabel" else torch.arange(n) % 5
    for elements in (1 << 20, 35):
        monkeypatch.setattr(blocks, "_ELEMENTS", elements)
        method = made(name, 12, 20, **params).double()
        if name == "crd":
            method.bank = F.normalize(drawn(1, 2, 40, 6, seed=6), dim=-1)
            monkeypatch.setitem(type(method).terms.__globals__, "_ROWS", 128 if elements > 35 else 7)
        h_s, logits = drawn(n, 12).requires_grad_(), drawn(n, 5, seed=2).requires_grad_()
        student = Output(logits, (h_s,), (NONE,))
        teacher = Output(drawn(n, 5, seed=7), (drawn(n, 20, seed=1),), (NONE,))
        terms = method.terms(student, teacher, context(n, task, labels, nodes=torch.arange(n) + 3))
        loss = sum(terms.values())
        grads = torch.autograd.grad(loss, [h_s, logits, *method.parameters()])
        results.append((*terms.values(), *grads, *method.buffers()))
    for whole, in_blocks in zip(*results, strict=True):
        torch.testing.assert_close(in_blocks, whole, rtol=1e-11, atol=1e-13, equal_nan=True)


@pytest.mark.parametrize("self_pairs", [False, True])
@pytest.mark.parametrize("reduction", ["nodes", "pairs", "sum"])
@pytest.mark.parametrize("n", [0, 1])
def test_pkt_of_fewer_nodes_than_a_pair_is_zero_and_can_be_differentiated(n, reduction, self_pairs):
    h_s, logits = drawn(n, 12).requires_grad_(), torch.zeros(n, 5, dtype=torch.float64)
    student, teacher = Output(logits, (h_s,), (NONE,)), Output(logits, (drawn(n, 20, seed=1),), (NONE,))
    method = made("pkt", 12, 20, reduction=reduction, self_pairs=self_pairs)
    divergence = method.terms(student, teacher, context(n))["divergence"]
    divergence.backward()
    assert divergence.item() == 0
    assert torch.equal(h_s.grad, torch.zeros_like(h_s))


BLOCK = 1 << 20
# name, nodes, widths of the features, parameters, the elements that a tensor may have, and how many may have more
LARGE = [
    ("gsp", 4096, (16, 24), {}, 4096 * 24, 0),
    ("sp", 4096, (16, 24), {}, 4096 * 24, 0),
    ("gcrd", 2048, (16, 24), {}, BLOCK, 0),
    ("pkt", 2048, (16, 24), {}, BLOCK, 0),
    ("pkt", 2048, (1024, 1024), {}, 2048 * 1024, 0),
    ("rkd", 128, (16, 100), {"max_nodes": 128}, BLOCK, 0),
    ("rkd", 140, (200, 100), {"max_nodes": 140}, BLOCK, 0),
    ("crd", 1024, (16, 24), {"negatives": 4096}, BLOCK, 0),
    ("gkd", 1500, (16, 24), {}, BLOCK, 1),  # W
    ("mlkd", 128, (200, 100), {}, BLOCK, 0),
]


@pytest.mark.parametrize("name, n, widths, params, elements, larger", LARGE, ids=lambda value: str(value))
def test_no_tensor_is_as_large_as_all_pairs_or_triples(name, n, widths, params, elements, larger):
    task, classes = ("multilabel", 100) if name == "mlkd" else ("multiclass", 5)
    labels = (drawn(n, classes, seed=5) > 1.5).float() if name == "mlkd" else torch.arange(n) % classes
    h_s, h_t = (drawn(n, width, dtype=torch.float32) for width in widths)
    logits = drawn(n, classes, dtype=torch.float32).requires_grad_()
    method = made(name, *widths, **params)
    if name == "crd":
        method.bank = F.normalize(drawn(1, 2, 4096, 128, dtype=torch.float32), dim=-1)
    h_s.requires_grad_()
    with Sizes() as sizes:
        terms = method.terms(
            Output(logits, (h_s,), (NONE,)), Output(logits.detach(), (h_t,), (NONE,)), context(n, task, labels)
        )
        sum(terms.values()).backward()
    assert h_s.grad.abs().sum() > 0
    assert [made for made in sizes.made if made > elements] == [n**2] * larger
