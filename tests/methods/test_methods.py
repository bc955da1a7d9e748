"""The terms of every shipped method on a 4-node graph, worked out in plain Python from the equations of its paper."""

import math
from pathlib import Path

import pytest
import torch

from distillbench.data.tasks import TASKS
from distillbench.distillation.method import Context, Dims
from distillbench.distillation.structure import union_edges
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
STUDENT_LOGITS = [[2.0, -1.0, 0.5], [0.0, 1.0, -0.5], [1.5, 1.0, 3.0], [-2.0, 0.5, 0.25]]
TEACHER_LOGITS = [[3.0, 0.0, -1.0], [-0.5, 2.0, 0.0], [0.0, 0.5, 2.5], [1.0, 1.5, -2.0]]
CLASSES, LABELLED = [0, 1, 2, 2], [True, True, False, True]
LABELS = [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0]]


def outputs(student_edges=EDGES, teacher_edges=EDGES):
    static = torch.tensor(EDGES).T
    of_student = static if student_edges is EDGES else torch.tensor(student_edges).T
    of_teacher = static if teacher_edges is EDGES else torch.tensor(teacher_edges).T
    student, teacher = (
        Output(
            torch.tensor(logits, dtype=torch.float64),
            tuple(torch.tensor(h, dtype=torch.float64) for h in hidden),
            (edges, edges),
            dynamic=edges is not static,
        )
        for logits, hidden, edges in (
            (STUDENT_LOGITS, STUDENT_HIDDEN, of_student),
            (TEACHER_LOGITS, TEACHER_HIDDEN, of_teacher),
        )
    )
    return student, teacher, static


def context(edge_index, task="multiclass", epoch=1, **more):
    labels = torch.tensor(LABELS, dtype=torch.float64) if task == "multilabel" else torch.tensor(CLASSES)
    return Context(TASKS[task], labels, torch.tensor(LABELLED), edge_index, 4, epoch, torch.Generator(), **more)


def make(name, **params):
    plugin = load("method", METHODS / f"{name}.py")
    method = plugin(plugin.Params(**params), Dims((2, 3), 3), Dims((3, 2), 3)).double()
    with torch.no_grad():
        for number, parameter in enumerate(method.parameters(), start=1):
            parameter.copy_((torch.arange(parameter.numel()).view_as(parameter) * 7 % 5 - 2) / (4.0 + number))
    return method


def terms(name, task="multiclass", student_edges=EDGES, teacher_edges=EDGES, epoch=1, **params):
    student, teacher, edge_index = outputs(student_edges, teacher_edges)
    found = make(name, **params).terms(student, teacher, context(edge_index, task, epoch))
    return {term: value.item() for term, value in found.items()}


def softmax(values):
    total = sum(math.exp(v) for v in values)
    return [math.exp(v) / total for v in values]


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def cross_entropy():
    picked = [-math.log(softmax(z)[y]) for z, y, used in zip(STUDENT_LOGITS, CLASSES, LABELLED, strict=True) if used]
    return sum(picked) / 3


def binary_cross_entropy(logits, targets):
    pairs = [(sigmoid(z), y) for row, true in zip(logits, targets, strict=True) for z, y in zip(row, true, strict=True)]
    return -sum(y * math.log(p) + (1 - y) * math.log(1 - p) for p, y in pairs) / len(pairs)


def squared(a, b):
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def close(value):
    return pytest.approx(value, rel=1e-12)


# supervised


def test_supervised_is_the_cross_entropy_of_the_labelled_nodes():
    assert terms("supervised") == {"task": close(cross_entropy())}


def test_supervised_on_several_labels_is_their_binary_cross_entropy():
    rows = [0, 1, 3]
    expected = binary_cross_entropy([STUDENT_LOGITS[i] for i in rows], [LABELS[i] for i in rows])
    assert terms("supervised", "multilabel") == {"task": close(expected)}


# kd


@pytest.mark.parametrize("task", ["multiclass", "graph-multiclass"])
def test_kd_is_the_divergence_at_a_temperature_times_its_square_mean_over_rows(task):
    alpha, temperature = 0.3, 4.0
    divergence = 0.0
    for z_s, z_t in zip(STUDENT_LOGITS, TEACHER_LOGITS, strict=True):
        p_s, p_t = (softmax([z / temperature for z in row]) for row in (z_s, z_t))
        divergence += sum(t * math.log(t / s) for s, t in zip(p_s, p_t, strict=True))
    assert terms("kd", task, alpha=alpha, temperature=temperature) == {
        "task": close(0.7 * cross_entropy()),
        "soft": close(alpha * temperature**2 * divergence / 4),
    }


def test_kd_on_several_labels_is_the_binary_cross_entropy_with_soft_targets():
    softened = [[z / 2 for z in row] for row in STUDENT_LOGITS]
    targets = [[sigmoid(z / 2) for z in row] for row in TEACHER_LOGITS]
    expected = 0.5 * 2**2 * binary_cross_entropy(softened, targets)
    assert terms("kd", "multilabel", alpha=0.5, temperature=2.0)["soft"] == close(expected)


# fitnet


def linear(weight, bias, h):
    return [
        [sum(w * x for w, x in zip(row, z, strict=True)) + b for row, b in zip(weight, bias, strict=True)] for z in h
    ]


def numbers(parameters):
    return [parameter.tolist() for parameter in parameters]


def test_fitnet_regresses_the_teacher_from_the_student():
    weight, bias = numbers(make("fitnet").projectors[0][0].parameters())
    projected = linear(weight, bias, STUDENT_HIDDEN[-1])
    hint = sum(squared(r, z) for r, z in zip(projected, TEACHER_HIDDEN[-1], strict=True)) / 4 / 2
    assert terms("fitnet", weight=0.25) == {"task": close(cross_entropy()), "hint": close(0.25 * hint)}


def normalised_projection(parameters, h):
    """Linear, batch norm with this batch's statistics, ReLU, unit length."""
    weight, bias, scale, shift = numbers(parameters)
    z = linear(weight, bias, h)
    columns = []
    for column, gain, offset in zip(zip(*z, strict=True), scale, shift, strict=True):
        mean = sum(column) / 4
        variance = sum((v - mean) ** 2 for v in column) / 4
        columns.append([max(0.0, gain * (v - mean) / math.sqrt(variance + 1e-5) + offset) for v in column])
    rows = list(zip(*columns, strict=True))
    return [[v / max(math.sqrt(sum(w * w for w in row)), 1e-12) for v in row] for row in rows]


def test_fitnet_with_both_sides_projected_compares_directions():
    of_student, of_teacher = make("fitnet", projection="both", width=5).projectors[0]
    z_s = normalised_projection(of_student.parameters(), STUDENT_HIDDEN[-1])
    z_t = normalised_projection(of_teacher.parameters(), TEACHER_HIDDEN[-1])
    expected = 1000 * sum(squared(a, b) for a, b in zip(z_s, z_t, strict=True)) / (4 * 5)
    assert expected > 0
    assert terms("fitnet", projection="both", width=5, weight=1000)["hint"] == close(expected)


def test_fitnet_averages_over_layer_pairs():
    both = terms("fitnet", layers=[(0, 0), (1, 1)], weight=1)["hint"]
    hints = []
    for (of_student, _), h_s, h_t in zip(
        make("fitnet", layers=[(0, 0), (1, 1)]).projectors, STUDENT_HIDDEN, TEACHER_HIDDEN, strict=True
    ):
        projected = linear(*numbers(of_student.parameters()), h_s)
        hints.append(sum(squared(r, z) for r, z in zip(projected, h_t, strict=True)) / 4 / 2)
    assert both == close(sum(hints) / 2)


# at


def attention(hidden):
    q = [sum(x * x for x in row) for row in hidden]
    length = math.sqrt(sum(x * x for x in q))
    return [x / length for x in q]


def test_at_compares_unit_vectors_of_squared_activations_over_the_nodes():
    distance = squared(attention(STUDENT_HIDDEN[-1]), attention(TEACHER_HIDDEN[-1]))
    assert terms("at")["attention"] == close(1000 * distance / 4)
    assert terms("at", weight=10, reduction="sum") == {
        "task": close(cross_entropy()),
        "attention": close(10 * distance),
    }


def test_at_averages_over_layer_pairs():
    pairs = [(0, 1), (1, 0)]
    distances = [squared(attention(STUDENT_HIDDEN[s]), attention(TEACHER_HIDDEN[t])) for s, t in pairs]
    assert terms("at", weight=1, reduction="sum", layers=pairs)["attention"] == close(sum(distances) / 2)


# lsp

SIMILARITY = {
    "l2": squared,
    "linear": lambda a, b: sum(x * y for x, y in zip(a, b, strict=True)),
    "polynomial": lambda a, b: (SIMILARITY["linear"](a, b) + 0.5) ** 3,
    "rbf": lambda a, b: math.exp(-squared(a, b) / (2 * 2.0)),
    "exp-l1": lambda a, b: math.exp(-sum(abs(x - y) for x, y in zip(a, b, strict=True)) / 2.0),
    "cosine": lambda a, b: SIMILARITY["linear"](a, b) / math.sqrt(squared(a, [0] * len(a)) * squared(b, [0] * len(b))),
}
OPTIONS = {"sigma": 2.0, "c": 0.5, "degree": 3}


def structure(hidden, edges, kernel):
    weight = {(j, i): math.exp(SIMILARITY[kernel](hidden[j], hidden[i])) for j, i in edges}
    return {(j, i): w / sum(v for (_, k), v in weight.items() if k == i) for (j, i), w in weight.items()}


def structure_loss(s, t, edges, kernel):
    ls_s, ls_t = structure(STUDENT_HIDDEN[s], edges, kernel), structure(TEACHER_HIDDEN[t], edges, kernel)
    return sum(ls_s[e] * math.log(ls_s[e] / ls_t[e]) for e in edges) / 4


@pytest.mark.parametrize("kernel", SIMILARITY)
def test_lsp_is_the_divergence_of_local_structures_over_the_number_of_nodes(kernel):
    expected = 100 * structure_loss(-1, -1, EDGES, kernel)
    assert terms("lsp", kernel=kernel, **OPTIONS) == {"task": close(cross_entropy()), "structure": close(expected)}


def test_lsp_averages_over_layer_pairs():
    losses = [structure_loss(s, t, EDGES, "rbf") for s, t in ((0, 1), (1, 0))]
    found = terms("lsp", weight=7, layers=[(0, 1), (-1, -2)], **OPTIONS)["structure"]
    assert found == close(7 * sum(losses) / 2)


DRAWN_BY_STUDENT = [(1, 0), (0, 0), (0, 1), (1, 1), (3, 2), (2, 2), (2, 3), (3, 3)]
DRAWN_BY_TEACHER = [(2, 0), (0, 0), (0, 1), (1, 1), (1, 2), (2, 2), (2, 3), (3, 3)]


@pytest.mark.parametrize("kernel", SIMILARITY)
def test_lsp_on_dynamic_graphs_is_over_the_union_of_both_edge_sets(kernel):
    union = sorted({*DRAWN_BY_STUDENT, *DRAWN_BY_TEACHER})
    found = terms("lsp", student_edges=DRAWN_BY_STUDENT, teacher_edges=DRAWN_BY_TEACHER, kernel=kernel, **OPTIONS)
    assert found["structure"] == close(100 * structure_loss(-1, -1, union, kernel))


@pytest.mark.parametrize("only", ["student", "teacher"])
def test_a_virtual_edge_of_only_one_of_them_counts(only):
    edges = {"student_edges": list(EDGES), "teacher_edges": list(EDGES)}
    without = terms("lsp", **edges, **OPTIONS)["structure"]
    edges[f"{only}_edges"].append((0, 2))
    with_it = terms("lsp", **edges, **OPTIONS)["structure"]
    assert without == close(100 * structure_loss(-1, -1, EDGES, "rbf"))
    assert with_it == close(100 * structure_loss(-1, -1, [*EDGES, (0, 2)], "rbf"))
    assert with_it != without


def test_lsp_on_equal_dynamic_graphs_is_the_static_loss():
    shuffled = EDGES[::-1]
    dynamic = terms("lsp", student_edges=shuffled, teacher_edges=list(EDGES), **OPTIONS)
    assert dynamic == {term: close(value) for term, value in terms("lsp", **OPTIONS).items()}


@pytest.mark.parametrize("name", ["lsp", "lsp_official"])
@pytest.mark.parametrize("drawn", [[*EDGES, (0, 2)], EDGES[::-1]], ids=["more edges", "the same in another order"])
def test_a_stored_structure_is_not_used_where_the_student_draws_its_edges(name, drawn):
    student, teacher, edge_index = outputs(student_edges=drawn)
    method = make(name)
    stored = method.precompute(teacher, edge_index)
    assert stored
    found = [method.terms(student, teacher, context(edge_index, precomputed=each)) for each in (stored, {})]
    assert found[0]["structure"].item() == found[1]["structure"].item()


def test_a_student_without_edges_is_compared_over_those_of_the_teacher():
    student, teacher, edge_index = outputs()
    without = student._replace(edge_index=(edge_index[:, :0],) * 2)
    assert union_edges(without, 0, teacher, 0, 4) is edge_index
    found = make("lsp", **OPTIONS).terms(without, teacher, context(edge_index))["structure"].item()
    assert found == close(100 * structure_loss(-1, -1, EDGES, "rbf"))


# LSP as released: exp(-L1 / 100), KL(teacher || student), mean over nodes, weight 1, epochs 1 to 30


def released_structure(hidden):
    weight = {
        (j, i): math.exp(math.exp(-sum(abs(a - b) for a, b in zip(hidden[j], hidden[i], strict=True)) / 100))
        for j, i in EDGES
    }
    return {(j, i): w / sum(v for (_, k), v in weight.items() if k == i) for (j, i), w in weight.items()}


def released_loss(s, t):
    ls_s, ls_t = released_structure(STUDENT_HIDDEN[s]), released_structure(TEACHER_HIDDEN[t])
    return sum(ls_t[e] * math.log(ls_t[e] / ls_s[e]) for e in EDGES) / 4


def test_lsp_official_is_the_released_loss():
    expected = released_loss(-1, -1)
    assert expected > 0
    found = terms("lsp_official")
    assert found == {"task": close(cross_entropy()), "structure": pytest.approx(expected, rel=1e-6)}
    assert terms("lsp_official", layers=[(0, 1)], weight=3)["structure"] == pytest.approx(
        3 * released_loss(0, 1), rel=1e-6
    )


def test_lsp_official_on_dynamic_graphs_is_over_the_union_of_both_edge_sets():
    drawn = {"student_edges": DRAWN_BY_STUDENT, "teacher_edges": DRAWN_BY_TEACHER}
    lsp = terms("lsp", **drawn, kernel="exp-l1", direction="teacher||student", weight=1.0)
    assert terms("lsp_official", **drawn)["structure"] == close(lsp["structure"])
    assert lsp["structure"] != close(terms("lsp_official")["structure"])


def test_a_structure_as_released_is_nearly_uniform():
    structure = released_structure([[1000.0 * value for value in row] for row in TEACHER_HIDDEN[0]])
    into_1 = [value for (_, i), value in structure.items() if i == 1]
    assert max(into_1) / min(into_1) <= math.e


@pytest.mark.parametrize("name, params", [("lsp_official", {}), ("lsp", {"until_epoch": 30})])
def test_the_structure_term_is_there_up_to_epoch_30_and_not_after(name, params):
    assert terms(name, epoch=30, **params)["structure"] > 0
    assert terms(name, epoch=31, **params) == {"task": close(cross_entropy()), "structure": 0.0}


def test_lsp_never_stops_by_itself():
    assert terms("lsp", epoch=10_000)["structure"] == close(terms("lsp", epoch=1)["structure"])


def test_the_switches_of_lsp_turned_on_one_by_one_end_at_the_released_loss():
    switches = {
        "kernel": "exp-l1", "direction": "teacher||student", "weight": 1.0, "until_epoch": 30
    }  # fmt: skip
    seen = [terms("lsp")["structure"]]
    for last in range(3):  # the schedule changes nothing in epoch 1
        seen.append(terms("lsp", **dict(list(switches.items())[: last + 1]))["structure"])
    assert len(set(seen)) == 4
    assert terms("lsp", **switches) == {name: close(value) for name, value in terms("lsp_official").items()}


def test_without_self_loops_a_node_is_not_its_own_neighbour():
    """Joshi et al. run on PyG's PPI, from which self-loops are removed."""
    edges = [(j, i) for j, i in EDGES if j != i]
    found = terms("lsp", self_loops=False, reduction="edges", direction="teacher||student", **OPTIONS)["structure"]
    ls_s, ls_t = (structure(hidden[-1], edges, "rbf") for hidden in (STUDENT_HIDDEN, TEACHER_HIDDEN))
    assert found == close(100 * sum(ls_t[e] * math.log(ls_t[e] / ls_s[e]) for e in edges) / len(edges))
