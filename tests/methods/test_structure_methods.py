"""mskd, gnn_sd, gkd and graphakd on a 4-node graph, worked out in plain Python from the equations of their papers."""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from distillbench.data.tasks import TASKS
from distillbench.distillation.method import Context, Dims
from distillbench.models.gnn import Output
from distillbench.plugins import load

METHODS = Path(__file__).parents[2] / "methods"

# (source, destination), symmetric with self-loops: the path 0 - 1 - 2 and node 3 linked to 1
EDGES = [(0, 0), (1, 0), (0, 1), (1, 1), (2, 1), (3, 1), (1, 2), (2, 2), (1, 3), (3, 3)]
STUDENT_HIDDEN = [
    [[0.5, -1.0], [1.5, 0.25], [-0.75, 2.0], [1.0, 1.0]],
    [[0.1, 0.2, -0.3], [1.0, -1.0, 0.5], [0.0, 2.0, 1.0], [-0.5, 0.4, 0.3]],
]
TEACHER_HIDDEN = [
    [[1.0, 0.0, 0.5], [0.5, -1.5, 2.0], [0.0, 1.0, 1.0], [2.0, 1.0, -1.0]],
    [[0.3, -0.6], [1.2, 0.8], [-1.0, 0.5], [0.7, 0.9]],
]
SHALLOW_HIDDEN = [[[0.2, 0.4], [-0.9, 1.1], [0.6, -0.5], [1.3, 0.1]]]
STUDENT_LOGITS = [[2.0, -1.0, 0.5], [0.0, 1.0, -0.5], [1.5, 1.0, 3.0], [-2.0, 0.5, 0.25]]
TEACHER_LOGITS = [[3.0, 0.0, -1.0], [-0.5, 2.0, 0.0], [0.0, 0.5, 2.5], [1.0, 1.5, -2.0]]
SHALLOW_LOGITS = [[0.5, -0.25, 0.75], [1.0, 0.5, -1.5], [0.25, 1.0, 1.0], [-1.0, 0.75, 0.5]]
CLASSES, LABELLED = [0, 1, 2, 2], [True, True, False, True]
LABELS = [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0]]


def output(logits, hidden, edges, dynamic=False):
    tensors = tuple(torch.tensor(h, dtype=torch.float64) for h in hidden)
    return Output(torch.tensor(logits, dtype=torch.float64), tensors, (edges,) * len(tensors), dynamic)


def outputs(student_edges=None, teacher_edges=None):
    static = torch.tensor(EDGES).T
    of_student, of_teacher = (
        static if edges is None else torch.tensor(edges, dtype=torch.int64).view(-1, 2).T
        for edges in (student_edges, teacher_edges)
    )
    student = output(STUDENT_LOGITS, STUDENT_HIDDEN, of_student, of_student is not static)
    return student, output(TEACHER_LOGITS, TEACHER_HIDDEN, of_teacher, of_teacher is not static), static


def context(edge_index, task="multiclass", epoch=1, teachers=()):
    labels = torch.tensor(LABELS, dtype=torch.float64) if task == "multilabel" else torch.tensor(CLASSES)
    labelled, random = torch.tensor(LABELLED), torch.Generator().manual_seed(0)
    return Context(TASKS[task], labels, labelled, edge_index, 4, epoch, random, teachers=teachers)


def make(name, student=((2, 3), 3), teacher=((3, 2), 3), **params):
    plugin = load("method", METHODS / f"{name}.py")
    method = plugin(plugin.Params(**params), Dims(*student), Dims(*teacher)).double()
    with torch.no_grad():
        for number, parameter in enumerate(method.parameters(), start=1):
            parameter.copy_((torch.arange(parameter.numel()).view_as(parameter) * 7 % 5 - 1.5) / (4.0 + number))
    return method


def terms(name, task="multiclass", student_edges=None, teacher_edges=None, epoch=1, teachers=(), **params):
    student, teacher, edge_index = outputs(student_edges, teacher_edges)
    found = make(name, **params).terms(student, teacher, context(edge_index, task, epoch, teachers))
    return {term: value.item() for term, value in found.items()}


def leaves(student):
    """The student's tensors, from which to differentiate, and its output made of them."""
    tensors = [t.clone().requires_grad_() for t in (student.logits, *student.hidden)]
    return tensors, student._replace(logits=tensors[0], hidden=tuple(tensors[1:]))


def distilled(method, student, teacher, ctx):
    return sum(value for term, value in method.terms(student, teacher, ctx).items() if term != "task")


def softmax(values):
    total = sum(math.exp(v) for v in values)
    return [math.exp(v) / total for v in values]


def cross_entropy(logits):
    picked = [-math.log(softmax(z)[y]) for z, y, used in zip(logits, CLASSES, LABELLED, strict=True) if used]
    return sum(picked) / 3


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def squared(a, b):
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def close(value):
    return pytest.approx(value, rel=1e-12)


# mskd


def l1(a, b):
    return math.exp(-sum(abs(x - y) for x, y in zip(a, b, strict=True)) / 2.0)


def structure(hidden, edges, similarity):
    weight = {(j, i): math.exp(similarity(hidden[j], hidden[i])) for j, i in edges}
    return {(j, i): w / sum(v for (_, k), v in weight.items() if k == i) for (j, i), w in weight.items()}


def divergence(h_s, h_t, attention, edges=EDGES, similarity=l1, student_first=False):
    p, q = structure(h_t, edges, similarity), structure(h_s, edges, similarity)
    if student_first:
        p, q = q, p
    return sum(attention[i] * p[j, i] * math.log(p[j, i] / q[j, i]) for j, i in edges) / 4


def further():
    """A teacher of one hidden layer."""
    return (output(SHALLOW_LOGITS, SHALLOW_HIDDEN, torch.tensor(EDGES).T),)


def attention_of_nodes():
    """α of the pair's teacher and of the shallow one, for each node."""
    rows = [
        softmax([dot(s, t), dot(s, u)]) for s, t, u in zip(STUDENT_LOGITS, TEACHER_LOGITS, SHALLOW_LOGITS, strict=True)
    ]
    return list(zip(*rows, strict=True))


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_mskd_weights_each_teachers_structure_by_how_much_the_node_agrees_with_it(task):
    deep, shallow = attention_of_nodes()
    expected = divergence(STUDENT_HIDDEN[1], TEACHER_HIDDEN[1], deep)
    expected += divergence(STUDENT_HIDDEN[1], SHALLOW_HIDDEN[0], shallow)
    found = terms("mskd", task, teachers=further(), weight=3, sigma=2.0)
    assert found["structure"] == close(3 * expected)
    if task == "multiclass":
        assert found["task"] == close(cross_entropy(STUDENT_LOGITS))


def test_mskd_with_the_pairs_teacher_alone_is_the_plain_divergence():
    expected = divergence(STUDENT_HIDDEN[1], TEACHER_HIDDEN[1], [1.0] * 4)
    assert terms("mskd", sigma=2.0)["structure"] == close(7 * expected)
    assert terms("mskd", sigma=2.0, attention="graph")["structure"] == close(7 * expected)


def test_mskd_with_one_attention_for_the_graph_compares_logits_class_by_class():
    def agreement(logits):
        products = [
            sum(STUDENT_LOGITS[i][a] * logits[i][b] for i in range(4)) for a in range(3) for b in range(3)
        ]  # fmt: skip
        return sum(products) / 9

    deep, shallow = agreement(TEACHER_LOGITS), agreement(SHALLOW_LOGITS)
    a, b = softmax([deep / (deep + shallow), shallow / (deep + shallow)])
    expected = divergence(STUDENT_HIDDEN[1], TEACHER_HIDDEN[1], [a] * 4)
    expected += divergence(STUDENT_HIDDEN[1], SHALLOW_HIDDEN[0], [b] * 4)
    found = terms("mskd", teachers=further(), weight=1, sigma=2.0, attention="graph")["structure"]
    assert found == close(expected)


def test_mskd_takes_other_kernels_directions_and_layers():
    deep, shallow = attention_of_nodes()
    expected = 0.0
    for s in (0, 1):
        for attention, hidden in ((deep, TEACHER_HIDDEN[-1]), (shallow, SHALLOW_HIDDEN[-1])):
            expected += divergence(STUDENT_HIDDEN[s], hidden, attention, EDGES, squared, student_first=True) / 2
    options = {"kernel": "l2", "direction": "student||teacher", "layers": [(0, -1), (1, -1)]}
    assert terms("mskd", teachers=further(), weight=1, **options)["structure"] == close(expected)


def test_mskd_compares_over_the_union_of_edges_and_of_a_student_without_over_the_teachers():
    drawn = [(1, 0), (0, 0), (0, 1), (1, 1), (3, 2), (2, 2), (2, 3), (3, 3)]
    expected = divergence(STUDENT_HIDDEN[1], TEACHER_HIDDEN[1], [1.0] * 4, sorted({*drawn, *EDGES}))
    assert terms("mskd", student_edges=drawn, weight=1, sigma=2.0)["structure"] == close(expected)
    expected = divergence(STUDENT_HIDDEN[1], TEACHER_HIDDEN[1], [1.0] * 4)
    assert terms("mskd", student_edges=[], weight=1, sigma=2.0)["structure"] == close(expected)


def test_mskd_has_the_gradient_of_its_divergences_and_none_through_the_attention():
    student, teacher, edge_index = outputs()
    ctx, method = context(edge_index, teachers=further()), make("mskd", weight=1, sigma=2.0)
    tensors, student = leaves(student)
    grads = torch.autograd.grad(distilled(method, student, teacher, ctx), tensors, allow_unused=True)
    assert grads[0] is None

    def loss(last):
        return distilled(method, student._replace(hidden=(student.hidden[0], last)), teacher, ctx)

    assert torch.autograd.gradcheck(loss, [tensors[-1]])


# gnn-sd


def discrepancy(x, self_loops=True, edges=EDGES):
    rates = []
    for i in range(4):
        near = [x[j] for j, k in edges if k == i and (self_loops or j != i)]
        mean = [sum(column) / len(near) for column in zip(*near, strict=True)]
        rates.append(1 - dot(mean, x[i]) / math.sqrt(dot(mean, mean) * dot(x[i], x[i])))
    return rates


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
@pytest.mark.parametrize("self_loops", [True, False])
def test_gnn_sd_compares_each_layers_discrepancy_with_the_one_below_up_to_the_logits(task, self_loops):
    rates = [discrepancy(x, self_loops) for x in (*STUDENT_HIDDEN, STUDENT_LOGITS)]
    expected = sum(squared(a, b) for a, b in pairwise(rates))
    found = terms("gnn_sd", task, weight=3, reduction="sum", self_loops=self_loops)
    assert found["discrepancy"] == close(3 * expected)
    assert terms("gnn_sd", task, self_loops=self_loops)["discrepancy"] == close(expected / 4)
    if task == "multiclass":
        assert found["task"] == close(cross_entropy(STUDENT_LOGITS))


def test_gnn_sd_for_graphs_leaves_the_logits_out_and_takes_the_edges_that_the_student_drew():
    drawn = [(1, 0), (0, 0), (0, 1), (1, 1), (3, 2), (2, 2), (2, 3), (3, 3)]
    expected = squared(*(discrepancy(x, edges=drawn) for x in STUDENT_HIDDEN)) / 4
    assert terms("gnn_sd", "graph-multiclass", student_edges=drawn)["discrepancy"] == close(expected)


def test_gnn_sd_takes_the_nodes_that_edges_come_from_for_neighbours():
    drawn = [(1, 0), (0, 0), (2, 1), (1, 1), (0, 2), (2, 2), (0, 3), (3, 3)]  # as of nearest neighbours: not symmetric
    expected = squared(*(discrepancy(x, edges=drawn) for x in STUDENT_HIDDEN)) / 4
    turned = squared(*(discrepancy(x, edges=[(i, j) for j, i in drawn]) for x in STUDENT_HIDDEN)) / 4
    assert terms("gnn_sd", "graph-multiclass", student_edges=drawn)["discrepancy"] == close(expected) != turned


def test_gnn_sd_of_a_student_without_edges_is_over_those_of_the_data_set():
    assert terms("gnn_sd", student_edges=[])["discrepancy"] == close(terms("gnn_sd")["discrepancy"])


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0), (0, 2, 1), (2, 0, 1)])
def test_gnn_sd_adaptive_starts_at_the_largest_discrepancy_and_acts_only_where_it_falls(order):
    layers = [(*STUDENT_HIDDEN, TEACHER_HIDDEN[0])[k] for k in order]
    rates = [discrepancy(x) for x in layers]
    norms = [math.sqrt(dot(s, s)) for s in rates]
    assert len({round(norm, 6) for norm in norms}) == 3
    first = norms.index(max(norms[:2]))
    expected = sum(squared(rates[k], rates[k + 1]) for k in range(first, 2) if norms[k] > norms[k + 1])
    student, teacher, edge_index = outputs()
    student = output(STUDENT_LOGITS, layers, edge_index)
    method = make("gnn_sd", weight=1, reduction="sum", adaptive=True)
    found = method.terms(student, teacher, context(edge_index, "graph-multiclass"))["discrepancy"]
    assert found.item() == close(expected)
    everything = make("gnn_sd", weight=1, reduction="sum")
    found = everything.terms(student, teacher, context(edge_index, "graph-multiclass"))["discrepancy"]
    assert found.item() == close(squared(rates[0], rates[1]) + squared(rates[1], rates[2]))


def test_gnn_sd_moves_a_layer_towards_the_one_below_and_not_the_other_way():
    student, teacher, edge_index = outputs()
    ctx, method = context(edge_index), make("gnn_sd", weight=1)
    tensors, student = leaves(student)
    grads = torch.autograd.grad(distilled(method, student, teacher, ctx), tensors, allow_unused=True)
    assert grads[1] is None
    assert grads[2].abs().sum() > 0

    def of_logits(logits):
        return distilled(method, student._replace(logits=logits), teacher, ctx)

    def of_last_hidden(last):
        changed = student._replace(hidden=(student.hidden[0], last))
        return distilled(method, changed, teacher, context(edge_index, "graph-multiclass"))

    assert torch.autograd.gradcheck(of_logits, [tensors[0]])
    assert torch.autograd.gradcheck(of_last_hidden, [tensors[2]])


def test_gnn_sd_is_finite_at_zero_features():
    student, teacher, edge_index = outputs()
    tensors, student = leaves(student._replace(hidden=tuple(torch.zeros_like(h) for h in student.hidden)))
    loss = distilled(make("gnn_sd"), student, teacher, context(edge_index))
    grads = torch.autograd.grad(loss, tensors, allow_unused=True)
    assert loss.isfinite()
    assert all(grad.isfinite().all() for grad in grads if grad is not None)


def test_gnn_sd_of_a_single_layer_is_refused():
    student, teacher, edge_index = outputs()
    single = student._replace(hidden=student.hidden[:1], edge_index=student.edge_index[:1])
    with pytest.raises(ValueError, match="only one"):
        make("gnn_sd").terms(single, teacher, context(edge_index, "graph-multiclass"))
    assert make("gnn_sd").terms(single, teacher, context(edge_index))["discrepancy"] > 0


# gkd


def standardised(x):
    columns = []
    for column in zip(*x, strict=True):
        mean = sum(column) / 4
        variance = sum((v - mean) ** 2 for v in column) / 4
        columns.append([(v - mean) / math.sqrt(variance + 1e-5) for v in column])
    return [list(row) for row in zip(*columns, strict=True)]


KERNELS = {
    "sigmoid": lambda a, b: math.tanh(dot(a, b)),
    "gaussian": lambda a, b: math.exp(-squared(a, b) / (4 * 1.5)),
    "exp-l2": lambda a, b: math.exp(-math.sqrt(squared(a, b)) / 1.5),
}


def kernel_loss(h_s, h_t, kernel, delta, nodes=range(4)):
    x_s, x_t = standardised(h_s), standardised(h_t)
    return sum(
        (((i, j) in EDGES or delta) * (kernel(x_t[i], x_t[j]) - kernel(x_s[i], x_s[j]))) ** 2
        for i in nodes
        for j in nodes
    )


@pytest.mark.parametrize("kernel", KERNELS)
def test_gkd_compares_kernels_of_standardised_features_with_a_weight_off_the_edges(kernel):
    losses = [kernel_loss(s, t, KERNELS[kernel], 0.3) for s, t in zip(STUDENT_HIDDEN, TEACHER_HIDDEN, strict=True)]
    options = {"kernel": kernel, "temperature": 1.5, "delta": 0.3}
    assert terms("gkd", weight=3, **options) == {
        "task": close(cross_entropy(STUDENT_LOGITS)),
        "kernel": pytest.approx(3 * sum(losses) / 2, rel=1e-9),
    }
    found = terms("gkd", weight=3, reduction="mean", **options)["kernel"]
    assert found == pytest.approx(3 * sum(losses) / 2 / 16, rel=1e-9)


def test_gkd_by_default_sums_half_of_the_sigmoid_kernels_with_a_tenth_off_the_edges():
    losses = [
        kernel_loss(s, t, KERNELS["sigmoid"], 0.1) for s, t in zip(STUDENT_HIDDEN, TEACHER_HIDDEN, strict=True)
    ]  # fmt: skip
    assert terms("gkd")["kernel"] == close(0.5 * sum(losses) / 2)


def test_gkd_between_models_of_other_depths_matches_the_last_layers_or_those_given():
    student, teacher, edge_index = outputs()
    shallow = student._replace(hidden=student.hidden[1:], edge_index=student.edge_index[1:])
    method = make("gkd", student=((3,), 3), weight=1, delta=1.0)
    found = method.terms(shallow, teacher, context(edge_index))["kernel"].item()
    assert found == close(kernel_loss(STUDENT_HIDDEN[1], TEACHER_HIDDEN[1], KERNELS["sigmoid"], 1.0))
    found = terms("gkd", layers=[(0, 1)], weight=1, delta=0.0)["kernel"]
    assert found == close(kernel_loss(STUDENT_HIDDEN[0], TEACHER_HIDDEN[1], KERNELS["sigmoid"], 0.0))


def test_gkd_of_random_features_takes_the_same_ones_for_both_models():
    w = torch.randn(2 * 3, 3, generator=torch.Generator().manual_seed(0)).tolist()

    def phi(h):
        return [math.tanh(dot(row[: len(h)], h)) for row in w]

    expected = kernel_loss(STUDENT_HIDDEN[1], TEACHER_HIDDEN[1], lambda a, b: dot(phi(a), phi(b)), 0.1)
    found = terms("gkd", kernel="random", layers=[(1, 1)], weight=1)["kernel"]
    assert found == close(expected)


@pytest.mark.parametrize("seed", range(6))
def test_gkd_of_more_nodes_than_max_nodes_compares_a_sample_that_is_standardised_with_all(seed):
    student, teacher, edge_index = outputs()
    ctx = replace(context(edge_index), random=torch.Generator().manual_seed(seed))
    nodes = torch.randperm(4, generator=torch.Generator().manual_seed(seed))[:3].tolist()
    found = make("gkd", max_nodes=3, layers=[(1, 1)], weight=1, delta=0.3).terms(student, teacher, ctx)["kernel"]
    expected = kernel_loss(STUDENT_HIDDEN[1], TEACHER_HIDDEN[1], KERNELS["sigmoid"], 0.3, nodes)
    assert found.item() == close(expected)
    assert expected != pytest.approx(kernel_loss(STUDENT_HIDDEN[1], TEACHER_HIDDEN[1], KERNELS["sigmoid"], 0.3))


@pytest.mark.parametrize("kernel", [*KERNELS, "random"])
def test_gkd_has_the_gradient_of_its_loss(kernel):
    student, teacher, edge_index = outputs()
    tensors, student = leaves(student)
    method = make("gkd", kernel=kernel, weight=1)

    def loss(*hidden):
        return distilled(method, student._replace(hidden=hidden), teacher, context(edge_index))

    assert torch.autograd.gradcheck(loss, tensors[1:])


# graphakd


def linear(weight, bias, x):
    return [dot(row, x) + b for row, b in zip(weight, bias, strict=True)]


def unit(x):
    return [v / math.sqrt(dot(x, x)) for v in x]


def real(values):
    return sum(math.log(1 + math.exp(-v)) for v in values) / len(values)


def fake(values):
    return sum(math.log(1 + math.exp(v)) for v in values) / len(values)


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


class Judges:
    """The judges of a method with its weights, in plain Python, for its pair of layers number ``pair``."""

    def __init__(self, method, pair=0):
        weights = {name: p.tolist() for name, p in method.named_parameters()}
        self.u, self.bias, self.v = (weights[f"adversary.logits.{name}"] for name in ("u.weight", "u.bias", "v.weight"))
        self.local, self.whole = (self._diagonal(weights, f"adversary.{view}.{pair}") for view in ("local", "global"))

    @staticmethod
    def _diagonal(weights, name):
        return [weights[f"{name}.a"] * d for d in weights[f"{name}.d"]]

    def logits(self, z):
        rows = []
        for row in z:
            inside = [max(0.0, x + y) for x, y in zip(row, linear(self.u, self.bias, row), strict=True)]
            rows.append([dot(v, inside) for v in self.v])
        return [row[:-1] for row in rows], [row[-1] for row in rows]

    def of_edges(self, h, edges=EDGES):
        return [sum(d * x * y for d, x, y in zip(self.local, unit(h[j]), unit(h[i]), strict=True)) for j, i in edges]

    def of_nodes(self, h, m):
        return [sum(d * x * y for d, x, y in zip(self.whole, unit(row), m, strict=True)) for row in h]


def summary(h):
    return [sigmoid(sum(column) / 4) for column in zip(*h, strict=True)]


def projected(method, h, pair=0):
    weight, bias = (p.tolist() for p in method.projectors[pair].parameters())
    return [linear(weight, bias, row) for row in h]


def student_views(judges, h_s, h_t, edges=EDGES):
    whole = real(judges.of_nodes(h_s, summary(h_t))) + real(judges.of_nodes(h_t, summary(h_s)))
    return real(judges.of_edges(h_s, edges)), whole + fake(judges.of_nodes(h_s, summary(h_s)))


def test_graphakd_makes_the_student_fool_the_judges_of_logits_edges_and_nodes():
    method = make("graphakd")
    judges, h_s = Judges(method), projected(make("graphakd"), STUDENT_HIDDEN[1])
    classes, source = judges.logits(STUDENT_LOGITS)
    local, whole = student_views(judges, h_s, TEACHER_HIDDEN[1])
    distance = sum(
        abs(a - b) for s, t in zip(STUDENT_LOGITS, TEACHER_LOGITS, strict=True) for a, b in zip(s, t, strict=True)
    )
    assert terms("graphakd") == {
        "task": close(cross_entropy(STUDENT_LOGITS)),
        "logits": close((real(source) + cross_entropy(classes)) / 2),
        "distance": close(distance / 4),
        "local": close(local),
        "global": close(whole),
    }


def test_graphakd_on_several_labels_has_them_judged_by_binary_cross_entropy():
    classes, source = Judges(make("graphakd")).logits(STUDENT_LOGITS)
    rows = [i for i in range(4) if LABELLED[i]]
    entropy = -sum(
        math.log(sigmoid(z) if y else 1 - sigmoid(z)) for i in rows for z, y in zip(classes[i], LABELS[i], strict=True)
    )
    assert terms("graphakd", "multilabel")["logits"] == close((real(source) + entropy / 9) / 2)


def test_graphakd_trains_the_judges_to_tell_the_two_models_apart():
    method = make("graphakd")
    judges, h_s, h_t = Judges(method), projected(method, STUDENT_HIDDEN[1]), TEACHER_HIDDEN[1]
    (classes_s, source_s), (classes_t, source_t) = judges.logits(STUDENT_LOGITS), judges.logits(TEACHER_LOGITS)
    expected = (real(source_t) + fake(source_s) + cross_entropy(classes_t) + cross_entropy(classes_s)) / 2
    expected += real(judges.of_edges(h_t)) + fake(judges.of_edges(h_s))
    m_s, m_t = summary(h_s), summary(h_t)
    expected += real(judges.of_nodes(h_t, m_t)) + fake(judges.of_nodes(h_s, m_t))
    expected += real(judges.of_nodes(h_s, m_s)) + fake(judges.of_nodes(h_t, m_s))
    student, teacher, edge_index = outputs()
    loss = method.adversary_loss(student, teacher, context(edge_index))
    assert loss.item() == close(expected)
    loss.backward()
    assert all(p.grad.abs().sum() > 0 for p in method.adversary.parameters())
    assert all(p.grad is None for p in method.projectors.parameters())


def test_graphakd_trains_the_judges_in_every_nth_epoch_from_the_first():
    student, teacher, edge_index = outputs()
    method = make("graphakd", every=3)
    losses = [method.adversary_loss(student, teacher, context(edge_index, epoch=epoch)) for epoch in range(1, 8)]
    assert [loss is not None for loss in losses] == [True, False, False, True, False, False, True]


def test_graphakd_does_not_project_a_student_as_wide_as_its_teacher():
    method = make("graphakd", layers=[(0, 1)])
    assert not list(method.projectors.parameters())
    local, whole = student_views(Judges(method), STUDENT_HIDDEN[0], TEACHER_HIDDEN[1])
    found = terms("graphakd", layers=[(0, 1)])
    assert (found["local"], found["global"]) == (close(local), close(whole))


def test_graphakd_averages_over_layer_pairs_each_with_judges_of_its_own():
    pairs = [(0, 1), (1, 0)]
    method = make("graphakd", layers=pairs)
    views = [student_views(Judges(method, k), STUDENT_HIDDEN[s], TEACHER_HIDDEN[t]) for k, (s, t) in enumerate(pairs)]
    found = terms("graphakd", layers=pairs)
    assert found["local"] == close(sum(local for local, _ in views) / 2)
    assert found["global"] == close(sum(whole for _, whole in views) / 2)


def test_graphakd_judges_the_union_of_both_models_edges():
    drawn = [(1, 0), (0, 0), (0, 1), (1, 1), (3, 2), (2, 2), (2, 3), (3, 3)]
    method = make("graphakd", layers=[(0, 1)])
    union = sorted({*drawn, *EDGES})
    expected = student_views(Judges(method), STUDENT_HIDDEN[0], TEACHER_HIDDEN[1], union)[0]
    assert terms("graphakd", layers=[(0, 1)], student_edges=drawn)["local"] == close(expected)


def test_graphakd_in_chunks_of_edges_is_the_same(monkeypatch):
    student, teacher, edge_index = outputs()
    method, values, grads = make("graphakd"), [], []
    for chunk in (1 << 16, 3):
        monkeypatch.setitem(type(method).terms.__globals__, "_CHUNK", chunk)
        tensors, leaf = leaves(student)
        value = method.terms(leaf, teacher, context(edge_index))["local"]
        values.append(value.item())
        grads.append(torch.autograd.grad(value, tensors[-1])[0])
    assert values[1] == close(values[0])
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-12, atol=1e-15)


def test_graphakd_has_the_gradient_of_its_losses():
    student, teacher, edge_index = outputs()
    tensors, student = leaves(student)
    method, ctx = make("graphakd"), context(edge_index)

    def loss(logits, last):
        return distilled(method, student._replace(logits=logits, hidden=(student.hidden[0], last)), teacher, ctx)

    assert torch.autograd.gradcheck(loss, [tensors[0], tensors[2]])


def test_graphakd_is_finite_at_zero_features():
    student, teacher, edge_index = outputs()
    tensors, student = leaves(student._replace(hidden=tuple(torch.zeros_like(h) for h in student.hidden)))
    loss = distilled(make("graphakd", layers=[(0, 1)]), student, teacher, context(edge_index))
    grads = torch.autograd.grad(loss, tensors, allow_unused=True)
    assert loss.isfinite()
    assert all(grad.isfinite().all() for grad in grads if grad is not None)
