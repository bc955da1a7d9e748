"""GSP, G-CRD, RKD, SP, CKA and GLNN on 5 nodes, worked out in plain Python from the equations of their papers."""

import math
from itertools import combinations
from pathlib import Path

import pytest
import torch

from distillbench.data.tasks import TASKS
from distillbench.distillation.method import Context, Dims
from distillbench.models.gnn import Output
from distillbench.plugins import load

METHODS = Path(__file__).parents[2] / "methods"

# two hidden layers of a student and of a teacher; in the last of the teacher node 4 is far from the others
STUDENT = [
    [[0.5, -1.0], [1.5, 0.25], [-0.75, 2.0], [1.0, 1.0], [0.25, -0.5]],
    [[0.1, 0.2, -0.3], [1.0, -1.0, 0.5], [0.0, 2.0, 1.0], [-0.5, 0.4, 0.3], [0.6, 0.9, -1.1]],
]
TEACHER = [
    [[1.0, 0.0, 0.5], [0.5, -1.5, 2.0], [0.0, 1.0, 1.0], [2.0, 1.0, -1.0], [-1.0, 0.5, 0.25]],
    [[0.3, -0.6], [1.2, 0.8], [-1.0, 0.5], [0.7, 0.9], [9.0, -7.0]],
]
STUDENT_LOGITS = [[2.0, -1.0, 0.5], [0.0, 1.0, -0.5], [1.5, 1.0, 3.0], [-2.0, 0.5, 0.25], [0.0, 0.0, 1.0]]
TEACHER_LOGITS = [[3.0, 0.0, -1.0], [-0.5, 2.0, 0.0], [0.0, 0.5, 2.5], [1.0, 1.5, -2.0], [-1.0, 0.5, 2.0]]
CLASSES, LABELLED = [0, 1, 2, 2, 0], [True, True, False, True, False]
NODES = range(5)

OF_HIDDEN = ["gsp", "gcrd", "rkd", "sp", "cka"]
SMALL = {"gcrd": {"width": 4}}  # parameters that make a golden value short


def outputs(student=STUDENT, teacher=TEACHER, dtype=torch.float64):
    return tuple(
        Output(torch.tensor(logits, dtype=dtype), tuple(torch.tensor(h, dtype=dtype) for h in hidden), ())
        for logits, hidden in ((STUDENT_LOGITS, student), (TEACHER_LOGITS, teacher))
    )


def context(nodes=5, seed=0, labelled=LABELLED):
    classes, edges = torch.tensor(CLASSES), torch.empty(2, 0, dtype=torch.int64)
    random = torch.Generator().manual_seed(seed)
    return Context(TASKS["multiclass"], classes, torch.tensor(labelled), edges, nodes, 1, random)


def make(name, **params):
    plugin = load("method", METHODS / f"{name}.py")
    method = plugin(plugin.Params(**params), Dims((2, 3), 3), Dims((3, 2), 3)).double()
    with torch.no_grad():
        for number, parameter in enumerate(method.parameters(), start=1):
            parameter.copy_((torch.arange(parameter.numel()).view_as(parameter) * 7 % 5 - 1.5) / (4.0 + number))
    return method


def terms(name, student=STUDENT, teacher=TEACHER, seed=0, **params):
    found = make(name, **params).terms(*outputs(student, teacher), context(seed=seed))
    return {term: value.item() for term, value in found.items()}


def close(value):
    return pytest.approx(value, rel=1e-12)


def softmax(values):
    total = sum(math.exp(v) for v in values)
    return [math.exp(v) / total for v in values]


def cross_entropy():
    picked = [-math.log(softmax(z)[y]) for z, y, used in zip(STUDENT_LOGITS, CLASSES, LABELLED, strict=True) if used]
    return sum(picked) / 3


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def minus(a, b):
    return [x - y for x, y in zip(a, b, strict=True)]


def length(a):
    return math.sqrt(dot(a, a))


def unit(a):
    return [x / length(a) for x in a] if length(a) else list(a)


def rows(matrix, picked):
    return [matrix[i] for i in picked]


# gsp


def gsp(h_s, h_t):
    a, b = [unit(z) for z in h_s], [unit(z) for z in h_t]
    n = len(a)
    return sum((dot(a[i], a[j]) - dot(b[i], b[j])) ** 2 for i in range(n) for j in range(n)) / n**2


def test_gsp_is_the_mean_squared_difference_of_cosines_over_all_pairs():
    expected = {"task": close(cross_entropy()), "similarity": close(100 * gsp(STUDENT[-1], TEACHER[-1]))}
    assert terms("gsp") == expected


# sp


def sp(h_s, h_t):
    g_s, g_t = ([unit([dot(z, other) for other in h]) for z in h] for h in (h_s, h_t))
    n = len(g_s)
    return sum((g_s[i][j] - g_t[i][j]) ** 2 for i in range(n) for j in range(n)) / n**2


def test_sp_compares_gram_matrices_whose_rows_have_length_one():
    expected = {"task": close(cross_entropy()), "similarity": close(3000 * sp(STUDENT[-1], TEACHER[-1]))}
    assert terms("sp") == expected


# cka


def hsic(k, m):
    """Trace of K H L H, with H the centring matrix."""
    n = len(k)
    centred = []
    for gram in (k, m):
        means = [sum(row) / n for row in gram]
        centred.append([[gram[i][j] - means[i] - means[j] + sum(means) / n for j in range(n)] for i in range(n)])
    return sum(centred[0][i][j] * centred[1][i][j] for i in range(n) for j in range(n))


def cka(h_s, h_t):
    k, m = ([[dot(a, b) for b in h] for a in h] for h in (h_s, h_t))
    return 1 - hsic(k, m) / math.sqrt(hsic(k, k) * hsic(m, m))


def test_cka_is_one_minus_the_aligned_part_of_centred_gram_matrices():
    expected = {"task": close(cross_entropy()), "alignment": close(cka(STUDENT[-1], TEACHER[-1]))}
    assert terms("cka") == expected
    assert terms("cka", weight=7)["alignment"] == close(7 * cka(STUDENT[-1], TEACHER[-1]))


def test_cka_does_not_see_a_rotation_a_scale_or_a_shift():
    turned = [[3 * y + 1, -3 * x + 5] for x, y in STUDENT[0]]
    assert terms("cka", student=[turned, STUDENT[1]], layers=[(0, 1)])["alignment"] == close(
        terms("cka", layers=[(0, 1)])["alignment"]
    )


# rkd


def huber(x, y):
    return (x - y) ** 2 / 2 if abs(x - y) <= 1 else abs(x - y) - 0.5


def distances(h):
    n = len(h)
    d = [[length(minus(a, b)) for b in h] for a in h]
    mean = sum(d[i][j] for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    return [value / mean for row in d for value in row]


def angles(h):
    """Cosine of the angle at j between the directions to i and to k, zero where it has no two sides."""
    n = len(h)
    return [
        dot(unit(minus(h[i], h[j])), unit(minus(h[k], h[j]))) if j not in (i, k) else 0.0
        for j in range(n)
        for i in range(n)
        for k in range(n)
    ]


def mean_huber(relation, h_s, h_t):
    pairs = list(zip(relation(h_s), relation(h_t), strict=True))
    return sum(huber(x, y) for x, y in pairs) / len(pairs)


def test_rkd_is_the_huber_loss_of_relative_distances_and_of_angles():
    for relation in (distances, angles):
        differences = [abs(x - y) for x, y in zip(relation(STUDENT[-1]), relation(TEACHER[-1]), strict=True)]
        assert min(differences) < 1 < max(differences), "the data must reach both branches of the Huber loss"
    assert terms("rkd") == {
        "task": close(cross_entropy()),
        "distance": close(25 * mean_huber(distances, STUDENT[-1], TEACHER[-1])),
        "angle": close(50 * mean_huber(angles, STUDENT[-1], TEACHER[-1])),
    }


def test_rkd_weighs_its_two_parts_and_can_leave_one_out():
    found = terms("rkd", distance_weight=1, angle_weight=0)
    assert found["distance"] == close(mean_huber(distances, STUDENT[-1], TEACHER[-1]))
    assert found["angle"] == 0


def test_rkd_of_features_of_unit_length_is_the_reading_of_its_classification_code():
    h_s, h_t = ([unit(z) for z in h[-1]] for h in (STUDENT, TEACHER))
    found = terms("rkd", normalise=True)
    assert found["distance"] == close(25 * mean_huber(distances, h_s, h_t))
    assert found["angle"] == close(50 * mean_huber(angles, h_s, h_t))
    assert found["distance"] != close(terms("rkd")["distance"])


def test_rkd_between_equal_nodes_there_is_no_direction():
    twins = [*STUDENT[-1][:4], STUDENT[-1][0]]
    found = terms("rkd", student=[STUDENT[0], twins])
    assert found["distance"] == close(25 * mean_huber(distances, twins, TEACHER[-1]))
    assert found["angle"] == close(50 * mean_huber(angles, twins, TEACHER[-1]))


@pytest.mark.parametrize("apart", [0.0, 1e-12, 1e-6])
def test_rkd_pushes_nearly_equal_nodes_apart_with_a_bounded_force(apart):
    student, teacher = outputs([STUDENT[0], [*STUDENT[-1][:4], [STUDENT[-1][0][0] + apart, *STUDENT[-1][0][1:]]]])
    h = student.hidden[-1].requires_grad_()
    angle = make("rkd").terms(student, teacher, context())["angle"]
    (gradient,) = torch.autograd.grad(angle, [h])
    assert 0 < gradient.abs().max() < 1e6


# gcrd


def projected(parameters, h):
    """Linear, batch norm with this batch's statistics, ReLU, unit length."""
    weight, scale, shift = (parameter.tolist() for parameter in parameters)
    z = [[dot(row, x) for row in weight] for x in h]
    columns = []
    for column, gain, offset in zip(zip(*z, strict=True), scale, shift, strict=True):
        mean = sum(column) / len(column)
        variance = sum((v - mean) ** 2 for v in column) / len(column)
        columns.append([max(0.0, gain * (v - mean) / math.sqrt(variance + 1e-5) + offset) for v in column])
    return [unit(row) for row in zip(*columns, strict=True)]


def gcrd(method, pair, s, t, temperature, picked=NODES):
    of_student, of_teacher = method.projectors[pair]
    h_s = rows(projected(of_student.parameters(), STUDENT[s]), picked)
    h_t = rows(projected(of_teacher.parameters(), TEACHER[t]), picked)
    losses = [-math.log(softmax([dot(z, other) / temperature for other in h_t])[i]) for i, z in enumerate(h_s)]
    return sum(losses) / len(losses)


def test_gcrd_asks_each_node_of_the_student_for_the_same_node_of_the_teacher():
    expected = gcrd(make("gcrd", width=4), 0, -1, -1, 0.075)
    assert expected > 0
    assert terms("gcrd", width=4) == {"task": close(cross_entropy()), "contrast": close(0.1 * expected)}


def test_gcrd_temperature_and_weight():
    expected = 3 * gcrd(make("gcrd", width=4), 0, -1, -1, 0.5)
    assert terms("gcrd", width=4, temperature=0.5, weight=3)["contrast"] == close(expected)


def test_gcrd_has_two_projectors_to_256_units_for_each_pair_and_all_are_trained():
    method = load("method", METHODS / "gcrd.py")
    method = method(method.Params(layers=[(0, 1), (-1, 0)]), Dims((2, 3), 3), Dims((3, 2), 3)).double()
    widths = [[(side[0].in_features, side[0].out_features) for side in pair] for pair in method.projectors]
    assert widths == [[(2, 256), (2, 256)], [(3, 256), (3, 256)]]
    method.terms(*outputs(), context())["contrast"].backward()
    for name, parameter in method.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


# What holds for all that compare hidden layers

PAIRS = [(0, 1), (-1, -2)]


@pytest.mark.parametrize("name, term, weight, loss", [
    ("gsp", "similarity", 100, gsp),
    ("sp", "similarity", 3000, sp),
    ("cka", "alignment", 1, cka),
    ("rkd", "distance", 25, lambda h_s, h_t: mean_huber(distances, h_s, h_t)),
    ("rkd", "angle", 50, lambda h_s, h_t: mean_huber(angles, h_s, h_t)),
])  # fmt: skip
def test_the_loss_is_the_mean_over_layer_pairs(name, term, weight, loss):
    expected = weight * sum(loss(STUDENT[s], TEACHER[t]) for s, t in PAIRS) / 2
    assert terms(name, layers=PAIRS)[term] == close(expected)


def test_gcrd_is_the_mean_over_layer_pairs():
    method = make("gcrd", width=4, layers=PAIRS)
    expected = 0.1 * sum(gcrd(method, pair, s, t, 0.075) for pair, (s, t) in enumerate(PAIRS)) / 2
    assert terms("gcrd", width=4, layers=PAIRS)["contrast"] == close(expected)


@pytest.mark.parametrize("name", OF_HIDDEN)
@pytest.mark.parametrize("layers", [[(-1, -1)], PAIRS])
def test_gradients_of_hidden_features(name, layers):
    method = make(name, layers=layers, **SMALL.get(name, {}))
    student, teacher = outputs()

    def distilled(*hidden):
        found = method.terms(student._replace(hidden=hidden), teacher, context())
        return tuple(value for term, value in found.items() if term != "task")

    assert torch.autograd.gradcheck(distilled, [h.clone().requires_grad_() for h in student.hidden])


@pytest.mark.parametrize("name", ["gsp", "rkd", "sp", "cka"])
def test_a_student_equal_to_its_teacher_has_nothing_to_learn(name):
    student, teacher = outputs(TEACHER, TEACHER)
    hidden = student.hidden[-1].requires_grad_()
    found = make(name).terms(student, teacher, context())
    distilled = sum(value for term, value in found.items() if term != "task")
    (gradient,) = torch.autograd.grad(distilled, [hidden])
    assert distilled.item() == pytest.approx(0, abs=1e-11)
    assert gradient.abs().max() < 1e-11


@pytest.mark.parametrize("name", OF_HIDDEN)
@pytest.mark.parametrize("dead", [[1], [0, 3], NODES])
def test_nodes_without_features_give_a_value_and_a_gradient_of_ordinary_size(name, dead):
    """An MLP has them where a node's input is empty; dividing by max(length, 1e-12) gives gradients of 1e12."""
    last = [[0.0] * 3 if i in dead else z for i, z in enumerate(STUDENT[-1])]
    student, teacher = outputs([STUDENT[0], last])
    hidden = student.hidden[-1].requires_grad_()
    found = make(name, **SMALL.get(name, {})).terms(student, teacher, context())
    distilled = sum(value for term, value in found.items() if term != "task")
    (gradient,) = torch.autograd.grad(distilled, [hidden])
    assert distilled.isfinite()
    assert gradient.isfinite().all()
    assert gradient.abs().max() < 1e5
    if name in ("gsp", "sp"):
        weight, loss = {"gsp": (100, gsp), "sp": (3000, sp)}[name]
        assert distilled.item() == close(weight * loss(last, TEACHER[-1]))


@pytest.mark.parametrize("name, times", [("gsp", 1), ("sp", 20_000), ("cka", 1)])
def test_many_nodes_need_no_matrix_of_all_pairs(name, times):
    """The five nodes 20,000 times over: an N x N matrix would take 80 GB. SP falls as 1/N, the others do not."""
    few = terms(name)
    student, teacher = outputs()
    student, teacher = (o._replace(hidden=tuple(h.repeat(20_000, 1) for h in o.hidden)) for o in (student, teacher))
    params = {"max_nodes": 100_000} if name == "gsp" else {}
    found = make(name, **params).terms(student, teacher, context(nodes=100_000))
    for term in few.keys() - {"task"}:
        assert found[term].item() == pytest.approx(few[term] / times, rel=1e-9)


@pytest.mark.parametrize("name", ["gsp", "sp", "cka", "rkd"])
def test_small_differences_of_float32_features_are_not_lost(name):
    """Value for a student that is its teacher but for a part in 10,000: a loss of about 1e-8 of its scale."""
    near = [[[x * (1 + 1e-4 * ((3 * i + 5 * c) % 7 - 3)) for c, x in enumerate(z)] for i, z in enumerate(TEACHER[-1])]]
    exact, single = (
        make(name, layers=[(0, 0)]).terms(*outputs(*features), context())
        for features in ((near, [TEACHER[-1]]), (near, [TEACHER[-1]], torch.float32))
    )
    for term in exact.keys() - {"task"}:
        assert exact[term] > 0
        assert single[term].item() == pytest.approx(exact[term].item(), rel=1e-2), term


# Samples of nodes

SAMPLED = ["gsp", "rkd", "gcrd"]


@pytest.mark.parametrize("name", SAMPLED)
def test_where_all_nodes_fit_none_are_drawn(name):
    for limit in ({}, {"max_nodes": 5}):
        ctx = context()
        before = ctx.random.get_state()
        found = make(name, **limit, **SMALL.get(name, {})).terms(*outputs(), ctx)
        assert torch.equal(ctx.random.get_state(), before)
        assert {k: v.item() for k, v in found.items()} == terms(name, **SMALL.get(name, {}))


@pytest.mark.parametrize(
    "name, term", [("gsp", "similarity"), ("rkd", "distance"), ("rkd", "angle"), ("gcrd", "contrast")]
)
def test_of_a_larger_graph_the_same_nodes_of_both_are_drawn_anew_in_each_step(name, term):
    method = make("gcrd", width=4)
    loss = {
        "similarity": lambda nodes: 100 * gsp(rows(STUDENT[-1], nodes), rows(TEACHER[-1], nodes)),
        "distance": lambda nodes: 25 * mean_huber(distances, rows(STUDENT[-1], nodes), rows(TEACHER[-1], nodes)),
        "angle": lambda nodes: 50 * mean_huber(angles, rows(STUDENT[-1], nodes), rows(TEACHER[-1], nodes)),
        "contrast": lambda nodes: 0.1 * gcrd(method, 0, -1, -1, 0.075, nodes),
    }[term]
    possible = [loss(nodes) for nodes in combinations(NODES, 3)]
    seen = set()
    for seed in range(12):
        found = terms(name, seed=seed, max_nodes=3, **SMALL.get(name, {}))[term]
        (which,) = [i for i, value in enumerate(possible) if found == close(value)]
        seen.add(which)
    assert len(seen) > 3


# glnn


def soft_labels():
    loss = 0.0
    for z_s, z_t in zip(STUDENT_LOGITS, TEACHER_LOGITS, strict=True):
        p_s, p_t = softmax(z_s), softmax(z_t)
        loss += sum(t * math.log(t / s) for s, t in zip(p_s, p_t, strict=True))
    return loss / 5


def test_glnn_is_the_divergence_from_the_soft_labels_and_sees_no_label():
    assert terms("glnn") == {"task": 0.0, "soft": close(soft_labels())}
    found = make("glnn").terms(*outputs(), context(labelled=[False] * 5))
    assert found["task"].item() == 0.0


def test_glnn_mixes_in_the_labels():
    expected = {"task": close(0.3 * cross_entropy()), "soft": close(0.7 * soft_labels())}
    assert terms("glnn", label_weight=0.3) == expected


def test_glnn_is_for_a_student_without_a_graph_and_one_class_a_node():
    method = load("method", METHODS / "glnn.py")
    assert method.mlp_only
    assert method.tasks == {"multiclass"}


@pytest.mark.parametrize("label_weight", [0.0, 0.4])
def test_gradients_of_logits(label_weight):
    method = make("glnn", label_weight=label_weight)
    student, teacher = outputs()

    def both(logits):
        return sum(method.terms(student._replace(logits=logits), teacher, context()).values())

    assert torch.autograd.gradcheck(both, [student.logits.clone().requires_grad_()])
    softest = make("glnn", label_weight=label_weight).terms(student._replace(logits=teacher.logits), teacher, context())
    assert softest["soft"].item() == pytest.approx(0, abs=1e-15)
