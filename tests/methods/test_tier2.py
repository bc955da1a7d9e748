"""The terms of DKD, DIST, MLKD, PKT and CRD on six nodes, worked out in plain Python from their papers' equations."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from distillbench.data.tasks import TASKS
from distillbench.distillation.method import Context, Dims, Setup
from distillbench.models.gnn import Output
from distillbench.plugins import load

pytestmark = pytest.mark.usefixtures("one_thread")

METHODS = Path(__file__).parents[2] / "methods"
NODES = range(6)

STUDENT_HIDDEN = [
    [[0.5, -1.0], [1.5, 0.25], [-0.75, 2.0], [1.0, 1.0], [-0.2, -0.4], [0.3, 0.9]],
    [[0.1, 0.2, -0.3], [1.0, -1.0, 0.5], [0.0, 2.0, 1.0], [-0.5, 0.4, 0.3], [0.7, 0.6, -1.1], [-1.2, 0.1, 0.8]],
]
TEACHER_HIDDEN = [
    [[1.0, 0.0, 0.5], [0.5, -1.5, 2.0], [0.0, 1.0, 1.0], [2.0, 1.0, -1.0], [0.4, -0.2, 0.3], [-0.6, 0.2, 0.1]],
    [[0.3, -0.6], [1.2, 0.8], [-1.0, 0.5], [0.7, 0.9], [-0.4, -0.5], [0.2, 1.4]],
]
STUDENT_LOGITS = [[2.0, -1.0, 0.5], [0.0, 1.0, -0.5], [1.5, 1.0, 3.0], [-2.0, 0.5, 0.25], [0.3, 0.1, 0.2], [-1, 0.4, 1]]
TEACHER_LOGITS = [[3.0, 0.0, -1.0], [-0.5, 2.0, 0.0], [0.0, 0.5, 2.5], [1.0, 1.5, -2.0], [0.6, -0.3, 1.1], [0.2, 2, 1]]
CLASSES, LABELLED = [0, 1, 2, 2, 0, 1], [True, True, False, True, True, True]
LABELS = [[1, 1, 1], [0, 1, 1], [1, 1, 1], [1, 1, 1], [1, 1, 0], [0, 0, 1]]
USED = [i for i in NODES if LABELLED[i]]


def outputs(dtype=torch.float64):
    return tuple(
        Output(torch.tensor(logits, dtype=dtype), tuple(torch.tensor(h, dtype=dtype) for h in hidden), ())
        for logits, hidden in ((STUDENT_LOGITS, STUDENT_HIDDEN), (TEACHER_LOGITS, TEACHER_HIDDEN))
    )


def context(task="multiclass", epoch=100, seed=0, **changed):
    labels = torch.tensor(LABELS, dtype=torch.float64) if task == "multilabel" else torch.tensor(CLASSES)
    labels = TASKS[task].hide(labels, ~torch.tensor(LABELLED))
    ctx = Context(
        TASKS[task],
        labels,
        torch.tensor(LABELLED),
        torch.empty(2, 0, dtype=torch.int64),
        len(NODES),
        epoch,
        torch.Generator().manual_seed(seed),
        nodes=torch.arange(len(NODES)),
    )
    return replace(ctx, **changed)


def make(name, **params):
    plugin = load("method", METHODS / f"{name}.py")
    method = plugin(plugin.Params(**params), Dims((2, 3), 3), Dims((3, 2), 3)).double()
    with torch.no_grad():
        for number, parameter in enumerate(method.parameters(), start=1):
            parameter.copy_((torch.arange(parameter.numel()).view_as(parameter) * 7 % 5 - 1.5) / (4.0 + number))
    return method


def terms(name, task="multiclass", epoch=100, **params):
    student, teacher = outputs()
    return values(make(name, **params).terms(student, teacher, context(task, epoch)))


def values(found):
    return {term: value.item() for term, value in found.items()}


def distilled(found):
    return sum(value for term, value in found.items() if term != "task")


def close(value, rel=1e-12):
    return pytest.approx(value, rel=rel)


def exp_shares(logits):
    weights = [math.exp(z) for z in logits]
    return [w / sum(weights) for w in weights]


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


def divergence(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def length(a):
    return math.sqrt(dot(a, a))


def distance(a, b):
    return length([x - y for x, y in zip(a, b, strict=True)])


def mean(numbers):
    numbers = list(numbers)
    return sum(numbers) / len(numbers)


def huber(x, y):
    difference = abs(x - y)
    return difference**2 / 2 if difference <= 1 else difference - 0.5


def cross_entropy():
    return mean(-math.log(exp_shares(STUDENT_LOGITS[i])[CLASSES[i]]) for i in USED)


def gradients_agree(name, task="multiclass", method=None, **params):
    """The gradient of the distillation terms, with respect to the student's logits and last hidden features."""
    method = method or make(name, **params)
    student, teacher = outputs()

    def loss(logits, hidden):
        return distilled(method.terms(Output(logits, (student.hidden[0], hidden), ()), teacher, context(task)))

    return torch.autograd.gradcheck(loss, [student.logits.requires_grad_(), student.hidden[1].requires_grad_()])


def gradient_of(name, task, change, dtype=torch.float32, method=None):
    """Gradients at the student's logits and last hidden features after ``change(student)``, in single precision."""
    student, teacher = outputs(dtype)
    student = change(student)
    leaves = [student.logits.requires_grad_(), student.hidden[-1].requires_grad_()]
    method = method or make(name).to(dtype)
    loss = distilled(method.terms(student, teacher, context(task)))
    assert loss.isfinite()
    return torch.autograd.grad(loss, leaves, materialize_grads=True)


GRADIENTS = [
    ("dkd", "multiclass", {}),
    ("dist", "multiclass", {"temperature": 2.0}),
    ("mlkd", "multilabel", {}),
    ("pkt", "multiclass", {}),
    ("pkt", "multiclass", {"self_pairs": True, "reduction": "pairs"}),
]


@pytest.mark.parametrize("name, task, params", GRADIENTS)
def test_the_gradient_is_that_of_the_value(name, task, params):
    assert gradients_agree(name, task, **params)


@pytest.mark.parametrize("name, task", [("dkd", "multiclass"), ("dist", "multiclass"), ("pkt", "multiclass")])
def test_a_student_equal_to_its_teacher_has_no_loss_and_no_gradient(name, task):
    _, teacher = outputs()
    student = Output(teacher.logits.clone().requires_grad_(), (teacher.hidden[0], teacher.hidden[1].clone()), ())
    student.hidden[1].requires_grad_()
    loss = distilled(make(name).terms(student, teacher, context(task)))
    assert abs(loss.item()) < 1e-12
    for grad in torch.autograd.grad(loss, [student.logits, student.hidden[1]], materialize_grads=True):
        assert grad.abs().max() < 1e-12


# dkd


def decoupled(logits, target):
    """(p_y, 1 - p_y) and the shares of the other classes among themselves."""
    shares = exp_shares(logits)
    others = [p for c, p in enumerate(shares) if c != target]
    return [shares[target], sum(others)], [p / sum(others) for p in others]


def dkd_losses(temperature):
    target, others = [], []
    for i in USED:
        s, t = (decoupled([z / temperature for z in row[i]], CLASSES[i]) for row in (STUDENT_LOGITS, TEACHER_LOGITS))
        target.append(divergence(t[0], s[0]))
        others.append(divergence(t[1], s[1]))
    return mean(target), mean(others)


@pytest.mark.parametrize("task", ["multiclass", "graph-multiclass"])
def test_dkd_is_the_divergence_of_the_target_and_of_the_others_on_labelled_rows(task):
    target, others = dkd_losses(4.0)
    assert terms("dkd", task) == {
        "task": close(cross_entropy()),
        "target": close(1 * 16 * target),
        "non_target": close(8 * 16 * others),
    }
    target, others = dkd_losses(2.0)
    found = terms("dkd", task, alpha=0.5, beta=3.0, temperature=2.0)
    assert found["target"] == close(0.5 * 4 * target)
    assert found["non_target"] == close(3 * 4 * others)


def test_dkd_with_the_weight_one_minus_p_of_the_target_is_kd():
    """Equation of the paper: KD = TCKD + (1 - p_y^t) NCKD, on a single row."""
    student, teacher = outputs()
    only_first = torch.arange(6) == 0
    weight = 1 - exp_shares([z / 4 for z in TEACHER_LOGITS[0]])[CLASSES[0]]
    found = values(make("dkd", beta=weight).terms(student, teacher, context(labelled=only_first)))
    p_s, p_t = (exp_shares([z / 4 for z in row[0]]) for row in (STUDENT_LOGITS, TEACHER_LOGITS))
    assert found["target"] + found["non_target"] == close(16 * divergence(p_t, p_s))


@pytest.mark.parametrize("epoch, share", [(1, 1 / 20), (10, 1 / 2), (20, 1), (21, 1), (500, 1)])
def test_dkd_warms_up_over_twenty_epochs(epoch, share):
    full, found = terms("dkd", warm_up=1, epoch=1), terms("dkd", epoch=epoch)
    assert found["task"] == full["task"]
    assert found["target"] == close(share * full["target"])
    assert found["non_target"] == close(share * full["non_target"])


def test_dkd_gives_a_node_without_label_no_gradient():
    of_logits, _ = gradient_of("dkd", "multiclass", lambda student: student)
    assert (of_logits.abs().sum(dim=1) > 0).tolist() == LABELLED


def test_dkd_is_finite_where_a_model_is_sure():
    of_logits, _ = gradient_of("dkd", "multiclass", lambda student: student._replace(logits=student.logits * 200))
    assert of_logits.isfinite().all()
    assert of_logits.abs().sum() > 0


# dist


def pearson(a, b):
    a, b = ([x - mean(row) for x in row] for row in (a, b))
    return dot(a, b) / (length(a) * length(b))


def softened(logits, temperature):
    return [exp_shares([z / temperature for z in row]) for row in logits]


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_dist_is_one_minus_the_correlation_of_rows_and_of_columns(temperature):
    y_s, y_t = softened(STUDENT_LOGITS, temperature), softened(TEACHER_LOGITS, temperature)
    rows = mean(1 - pearson(a, b) for a, b in zip(y_s, y_t, strict=True))
    columns = mean(1 - pearson(a, b) for a, b in zip(zip(*y_s, strict=True), zip(*y_t, strict=True), strict=True))
    found = terms("dist", temperature=temperature)
    assert found == {
        "task": close(cross_entropy()),
        "inter": close(2 * temperature**2 * rows),
        "intra": close(2 * temperature**2 * columns),
    }
    weighted = terms("dist", temperature=temperature, beta=0.5, gamma=3)
    assert weighted["inter"] == close(found["inter"] / 4)
    assert weighted["intra"] == close(found["intra"] * 1.5)


@pytest.mark.parametrize("which", ["one row", "all rows"])
def test_dist_counts_a_constant_output_as_uncorrelated_with_an_ordinary_gradient(which):
    """As a student without biases gives it for a node without features."""

    def level(student):
        logits = student.logits.clone()
        logits[0 if which == "one row" else slice(None)] = 0.7
        return student._replace(logits=logits)

    of_logits, _ = gradient_of("dist", "multiclass", level)
    assert 0 < of_logits[0].abs().max() < 10
    student, teacher = outputs(torch.float32)
    found = values(make("dist").terms(level(student), teacher, context()))
    if which == "all rows":
        assert found["inter"] == found["intra"] == pytest.approx(2, abs=1e-5)


# mlkd


def label_embeddings(hidden, logits):
    """e_ic = h_i * (mean of h weighted by the probability of c, minus that weighted by its complement)."""
    embeddings = [[[] for _ in range(3)] for _ in NODES]
    for c in range(3):
        p = [sigmoid(row[c]) for row in logits]
        for column in zip(*hidden, strict=True):
            with_label = dot(p, column) / sum(p)
            without = sum((1 - a) * x for a, x in zip(p, column, strict=True)) / (len(p) - sum(p))
            for i in NODES:
                embeddings[i][c].append(column[i] * (with_label - without))
    return embeddings


def embedding_loss(group_s, group_t):
    """(1/n) sum over ordered pairs of the Huber loss of distances over their mean."""
    pairs = [(a, b) for a in range(len(group_s)) for b in range(len(group_s)) if a != b]
    if not pairs:
        return 0.0
    d_s, d_t = ([distance(group[a], group[b]) for a, b in pairs] for group in (group_s, group_t))
    return sum(huber(x / mean(d_s), y / mean(d_t)) for x, y in zip(d_s, d_t, strict=True)) / len(group_s)


def by_class_and_by_instance(s=-1, t=-1, nodes=USED):
    e_s, e_t = label_embeddings(STUDENT_HIDDEN[s], STUDENT_LOGITS), label_embeddings(TEACHER_HIDDEN[t], TEACHER_LOGITS)
    count = sum(LABELS[i][c] for i in nodes for c in range(3))
    classes = [[i for i in nodes if LABELS[i][c]] for c in range(3)]
    by_class = sum(embedding_loss([e_s[i][c] for i in g], [e_t[i][c] for i in g]) for c, g in enumerate(classes))
    labels = {i: [c for c in range(3) if LABELS[i][c]] for i in nodes}
    by_node = sum(embedding_loss([e_s[i][c] for c in g], [e_t[i][c] for c in g]) for i, g in labels.items())
    return by_class / count, by_node / count


def test_mlkd_is_a_divergence_for_each_label_and_the_distances_of_embeddings_by_label_and_by_node():
    pairs = [
        (sigmoid(a), sigmoid(b))
        for s, t in zip(STUDENT_LOGITS, TEACHER_LOGITS, strict=True)
        for a, b in zip(s, t, strict=True)
    ]
    logits = mean(divergence([t, 1 - t], [s, 1 - s]) for s, t in pairs)
    by_class, by_instance = by_class_and_by_instance()
    assert by_class > 0 and by_instance > 0
    rows = [(z, y) for i in USED for z, y in zip(STUDENT_LOGITS[i], LABELS[i], strict=True)]
    bce = -mean(math.log(sigmoid(z) if y else 1 - sigmoid(z)) for z, y in rows)
    assert terms("mlkd", "multilabel") == {
        "task": close(bce),
        "logits": close(0.16 * logits),
        "class": close(3.6 * by_class),
        "instance": close(36 * by_instance),
    }
    found = terms("mlkd", "multilabel", logits_weight=10, class_weight=1, instance_weight=2)
    assert found["logits"] == close(10 * logits)
    assert found["class"] == close(by_class)
    assert found["instance"] == close(2 * by_instance)


def test_mlkd_averages_over_layer_pairs():
    losses = [by_class_and_by_instance(s, t) for s, t in ((0, 1), (1, 0))]
    found = terms("mlkd", "multilabel", class_weight=1, instance_weight=1, layers=[(0, 1), (1, 0)])
    assert found["class"] == close(mean(by_class for by_class, _ in losses))
    assert found["instance"] == close(mean(by_instance for _, by_instance in losses))


def test_mlkd_draws_labelled_nodes_where_there_are_more_than_it_takes():
    student, teacher = outputs()
    method = make("mlkd", max_nodes=4, class_weight=1, instance_weight=1)
    seen = set()
    for seed in range(20):
        found = values(method.terms(student, teacher, context("multilabel", seed=seed)))
        assert found == values(method.terms(student, teacher, context("multilabel", seed=seed)))
        seen.add(round(found["class"], 12))
    subsets = [[i for i in USED if i != left_out] for left_out in USED]
    possible = {round(by_class_and_by_instance(nodes=subset)[0], 12) for subset in subsets}
    assert 1 < len(seen) <= len(possible)
    assert seen <= possible
    everything = values(make("mlkd", max_nodes=5).terms(student, teacher, context("multilabel", seed=3)))
    assert everything == terms("mlkd", "multilabel")


def test_mlkd_of_equal_outputs_has_no_distance_loss_and_no_gradient():
    student, _ = outputs()
    teacher = student._replace(logits=student.logits.clone(), hidden=tuple(h.clone() for h in student.hidden))
    leaves = [student.logits.requires_grad_(), student.hidden[1].requires_grad_()]
    found = make("mlkd").terms(student, teacher, context("multilabel"))
    assert [found[term].item() for term in ("logits", "class", "instance")] == [0, 0, 0]
    for grad in torch.autograd.grad(distilled(found), leaves):
        assert grad.abs().max() < 1e-12


@pytest.mark.parametrize("scale, shift", [(0.0, 0.0), (0.0, 1.0), (1e-3, 0.0), (1e4, 0.0)])
def test_mlkd_has_a_finite_gradient_for_equal_small_and_large_features(scale, shift):
    def scaled(student):
        return student._replace(hidden=(student.hidden[0], student.hidden[1] * scale + shift))

    for grad in gradient_of("mlkd", "multilabel", scaled):
        assert grad.isfinite().all()


def test_mlkd_does_not_see_the_scale_of_the_features():
    student, teacher = outputs()
    larger = student._replace(hidden=tuple(3 * h for h in student.hidden))
    found = [values(make("mlkd").terms(each, teacher, context("multilabel"))) for each in (student, larger)]
    assert found[1] == {term: close(value) for term, value in found[0].items()}


# pkt


def conditional(hidden, self_pairs, epsilon=1e-6):
    rows = []
    for j, a in enumerate(hidden):
        kernel = [
            (dot(a, b) / (length(a) * length(b)) + 1 + epsilon) / 2
            for i, b in enumerate(hidden)
            if self_pairs or i != j
        ]
        rows.append([k / sum(kernel) for k in kernel])
    return rows


def pkt_sum(self_pairs, s=-1, t=-1, epsilon=1e-6):
    p_s, p_t = (conditional(h, self_pairs, epsilon) for h in (STUDENT_HIDDEN[s], TEACHER_HIDDEN[t]))
    return sum(divergence(a, b) for a, b in zip(p_t, p_s, strict=True))


def test_pkt_is_the_mean_over_nodes_of_the_divergence_of_their_similarities_to_the_others():
    assert terms("pkt") == {"task": close(cross_entropy()), "divergence": close(470 * pkt_sum(False) / 6)}


@pytest.mark.parametrize("reduction, pairs, count", [("nodes", 36, 6), ("pairs", 36, 36), ("sum", 36, 1)])
def test_pkt_as_released_has_the_pairs_of_a_node_with_itself(reduction, pairs, count):
    found = terms("pkt", self_pairs=True, reduction=reduction, weight=3)["divergence"]
    assert found == close(3 * pkt_sum(True) / count)
    # the code's constant is another: 1e-7 beside each probability
    assert found == close(3 * pkt_sum(True, epsilon=0) / count, rel=1e-4)


@pytest.mark.parametrize("reduction, count", [("pairs", 30), ("sum", 1)])
def test_pkt_reductions_without_self_pairs(reduction, count):
    assert terms("pkt", reduction=reduction, weight=1)["divergence"] == close(pkt_sum(False) / count)


def test_pkt_averages_over_layer_pairs():
    found = terms("pkt", weight=1, reduction="sum", layers=[(0, 1), (1, 0)])["divergence"]
    assert found == close((pkt_sum(False, 0, 1) + pkt_sum(False, 1, 0)) / 2)


def test_pkt_does_not_see_the_length_of_features():
    student, teacher = outputs()
    longer = student._replace(hidden=tuple(h * torch.arange(1, 7)[:, None] for h in student.hidden))
    found = [values(make("pkt").terms(each, teacher, context())) for each in (student, longer)]
    assert found[1] == {term: close(value) for term, value in found[0].items()}


def test_pkt_draws_nodes_where_there_are_more_than_it_takes():
    student, teacher = outputs()
    seen = {
        round(
            make("pkt", max_nodes=2, self_pairs=True).terms(student, teacher, context(seed=s))["divergence"].item(), 9
        )
        for s in range(15)
    }
    possible = set()
    for i in NODES:
        for j in range(i):
            p_s, p_t = (conditional([h[-1][i], h[-1][j]], True) for h in (STUDENT_HIDDEN, TEACHER_HIDDEN))
            possible.add(round(470 * sum(divergence(a, b) for a, b in zip(p_t, p_s, strict=True)) / 2, 9))
    assert len(seen) > 5
    assert seen <= possible


def test_pkt_has_a_gradient_of_ordinary_size_for_features_that_are_zero_or_opposite():
    def changed(student):
        hidden = student.hidden[1].clone()
        hidden[0] = 0
        hidden[1] = -hidden[2]
        return student._replace(hidden=(student.hidden[0], hidden))

    _, of_hidden = gradient_of("pkt", "multiclass", changed)
    assert of_hidden.isfinite().all()
    assert 0 < of_hidden[0].abs().max() < 1e4


# crd


def prepared(seed=7, x=None, rows=6, **params):
    """CRD with its bank filled for as many nodes; they are told apart by ``x``."""
    _, teacher = outputs()
    x = torch.arange(rows, dtype=torch.float64)[:, None] if x is None else x
    method = make("crd", width=4, **params)
    ctx = context()
    setup = Setup(ctx.task, x, ctx.edge_index, ctx.labels, ctx.labelled, teacher, torch.Generator().manual_seed(seed))
    method.prepare(setup)
    return method


def projected(linear, hidden):
    weight, bias = linear.weight.tolist(), linear.bias.tolist()
    rows = [[dot(row, z) + b for row, b in zip(weight, bias, strict=True)] for z in hidden]
    return [[x / length(v) for x in v] for v in rows]


def both_sides(method, layer=0, s=-1, t=-1):
    """v of the student and of the teacher, and their banks, as lists."""
    v = [projected(p, h) for p, h in zip(method.projectors[layer], (STUDENT_HIDDEN[s], TEACHER_HIDDEN[t]), strict=True)]
    return v, method.bank[layer].tolist()


def one_direction(v, bank, anchors, others, temperature=0.07, mean_score=None, rows=None):
    """As ``memory.py`` and ``criterion.py`` have it: P = e^{v·b/τ} / Z, noise of probability 1/M, K negatives."""
    m = len(bank)
    rows = rows or {i: i for i in anchors}
    scores = {
        i: [math.exp(dot(v[i], bank[j]) / temperature) for j in (rows[i], *(o for o in others if o != rows[i]))]
        for i in anchors
    }
    mean_score = mean_score or mean(score for row in scores.values() for score in row)
    loss = 0.0
    for row in scores.values():
        k = len(row) - 1
        positive, *negatives = (score / (mean_score * m) for score in row)
        loss -= math.log(positive / (positive + k / m))
        loss -= sum(math.log((k / m) / (negative + k / m)) for negative in negatives)
    return loss / len(anchors), mean_score


def test_crd_tells_each_node_from_the_others_in_both_directions():
    method = prepared()
    (v_s, v_t), (bank_s, bank_t) = both_sides(method)
    to_teacher, _ = one_direction(v_s, bank_t, NODES, NODES)
    to_student, _ = one_direction(v_t, bank_s, NODES, NODES)
    student, teacher = outputs()
    found = values(method.terms(student, teacher, context()))
    assert found == {"task": close(cross_entropy()), "contrast": close(0.8 * (to_teacher + to_student))}


def test_crd_with_other_parameters():
    method = prepared(weight=2, temperature=0.5)
    (v_s, v_t), (bank_s, bank_t) = both_sides(method)
    losses = [one_direction(v, bank, NODES, NODES, 0.5)[0] for v, bank in ((v_s, bank_t), (v_t, bank_s))]
    assert values(method.terms(*outputs(), context()))["contrast"] == close(2 * sum(losses))


def test_crd_without_normalisation_is_as_the_paper_writes_h():
    """h = e^{v·b/τ} / (e^{v·b/τ} + K/M), that is Z = 1."""
    method = prepared(normalisation="none")
    (v_s, v_t), (bank_s, bank_t) = both_sides(method)
    losses = [one_direction(v, bank, NODES, NODES, mean_score=1 / 6)[0] for v, bank in ((v_s, bank_t), (v_t, bank_s))]
    assert values(method.terms(*outputs(), context()))["contrast"] == close(0.8 * sum(losses))
    assert method.log_z.isnan().all()


def test_crd_keeps_the_normalisation_of_the_first_batch():
    method = prepared()
    (v_s, v_t), (bank_s, bank_t) = both_sides(method)
    z = [one_direction(v, bank, NODES, NODES)[1] for v, bank in ((v_s, bank_t), (v_t, bank_s))]
    method.terms(*outputs(), context())
    assert method.log_z[0].exp().tolist() == [
        close(z[1]),
        close(z[0]),
    ]  # of the student's side of the bank, the teacher's
    (v_s, v_t), (bank_s, bank_t) = both_sides(method)
    second = [
        one_direction(v, bank, NODES, NODES, mean_score=kept)[0]
        for v, bank, kept in ((v_s, bank_t, z[0]), (v_t, bank_s, z[1]))
    ]
    assert values(method.terms(*outputs(), context()))["contrast"] == close(0.8 * sum(second))


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_crd_moves_the_rows_of_the_batch_by_the_momentum(momentum):
    """A batch of nodes 4, 2 and 5 of eight; no other row changes."""
    method = prepared(rows=8, momentum=momentum)
    numbers = [4, 2, 5]
    v, before = both_sides(method)
    student, teacher = (
        Output(out.logits[:3], tuple(h[:3] for h in out.hidden), ()) for out in outputs()
    )  # nodes 0, 1 and 2 of the lists above, under other numbers
    method.terms(student, teacher, batch_of(numbers))
    for side in (0, 1):
        after = method.bank[0, side].tolist()
        for row in range(8):
            expected = before[side][row]
            if row in numbers:
                moved = [
                    momentum * b + (1 - momentum) * x
                    for b, x in zip(expected, v[side][numbers.index(row)], strict=True)
                ]
                expected = [x / length(moved) for x in moved]
            assert after[row] == [close(x) for x in expected]


def batch_of(numbers, seed=0):
    count = len(numbers)
    ctx = context(seed=seed)
    changed = {"labels": ctx.labels[:count], "labelled": torch.ones(count, dtype=torch.bool)}
    changed["labels"] = torch.tensor(CLASSES[:count])
    return replace(ctx, **changed, nodes=torch.tensor(numbers), num_nodes=count)


def test_crd_of_a_batch_has_all_nodes_of_the_bank_as_negatives():
    method = prepared(rows=8)
    (v_s, v_t), (bank_s, bank_t) = both_sides(method)
    rows = {0: 4, 1: 2, 2: 5}
    losses = [one_direction(v, bank, rows, range(8), rows=rows)[0] for v, bank in ((v_s, bank_t), (v_t, bank_s))]
    student, teacher = (Output(out.logits[:3], tuple(h[:3] for h in out.hidden), ()) for out in outputs())
    found = values(method.terms(student, teacher, batch_of([4, 2, 5])))
    assert found["contrast"] == close(0.8 * sum(losses))


def test_crd_draws_negatives_once_for_all_nodes_of_a_step():
    """Two of six rows: a node that is drawn itself has one negative, the others have two."""
    possible = set()
    (v_s, v_t), (bank_s, bank_t) = both_sides(prepared())
    for i in NODES:
        for j in range(i):
            losses = [one_direction(v, bank, NODES, (i, j))[0] for v, bank in ((v_s, bank_t), (v_t, bank_s))]
            possible.add(round(0.8 * sum(losses), 9))
    drawn = {round(prepared(negatives=2).terms(*outputs(), context(seed=s))["contrast"].item(), 9) for s in range(15)}
    assert len(drawn) > 5
    assert drawn <= possible


def test_crd_compares_and_updates_no_more_nodes_than_it_takes():
    method = prepared(max_nodes=2)
    (v_s, v_t), (bank_s, bank_t) = both_sides(method)
    before = method.bank.clone()
    found = method.terms(*outputs(), context())["contrast"].item()
    changed = (method.bank != before).any(dim=-1)[0]
    assert changed.sum(dim=1).tolist() == [2, 2]
    assert changed[0].equal(changed[1])
    anchors = changed[0].nonzero().squeeze(1).tolist()
    losses = [one_direction(v, bank, anchors, NODES)[0] for v, bank in ((v_s, bank_t), (v_t, bank_s))]
    assert found == close(0.8 * sum(losses))


def test_crd_has_a_bank_for_each_layer_pair():
    pairs = [(0, 1), (1, 0)]
    method = prepared(layers=pairs)
    assert method.bank.shape == (2, 2, 6, 4)
    losses = []
    for layer, (s, t) in enumerate(pairs):
        (v_s, v_t), (bank_s, bank_t) = both_sides(method, layer, s, t)
        losses.append(sum(one_direction(v, bank, NODES, NODES)[0] for v, bank in ((v_s, bank_t), (v_t, bank_s))))
    assert values(method.terms(*outputs(), context()))["contrast"] == close(0.8 * mean(losses))


def test_crd_updates_nothing_in_evaluation_mode():
    method = prepared().eval()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    found = [values(method.terms(*outputs(), context())) for _ in range(2)]
    assert found[0] == found[1] == values(prepared().terms(*outputs(), context()))
    for name, value in method.state_dict().items():
        assert torch.equal(value.nan_to_num(-1), before[name].nan_to_num(-1)), name


def test_crd_goes_on_from_its_state():
    straight, killed = prepared(), prepared()
    for method in (straight, killed):
        method.terms(*outputs(), context())
    resumed = prepared()
    resumed.load_state_dict(killed.state_dict())
    found = [values(method.terms(*outputs(), context())) for method in (straight, resumed)]
    assert found[0] == found[1]
    assert found[0] != values(prepared().terms(*outputs(), context()))


def test_crd_begins_with_random_rows_of_length_one_that_belong_to_nodes_not_to_their_numbers():
    x = torch.randn(2000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    order = torch.randperm(2000, generator=torch.Generator().manual_seed(2))
    bank, renumbered = prepared(x=x).bank, prepared(x=x[order]).bank
    assert torch.equal(renumbered, bank[:, :, order])
    assert torch.equal(bank, prepared(x=x).bank)
    assert not torch.equal(bank, prepared(x=x, seed=8).bank)
    assert not torch.equal(bank[0, 0], bank[0, 1])
    assert bank.square().sum(dim=-1).mean() == pytest.approx(1, abs=0.05)
    assert bank.mean(dim=(0, 1, 2)).abs().max() < 0.05
    assert not bank.requires_grad


def test_the_gradient_of_crd_is_that_of_the_value():
    method = prepared(temperature=0.5)
    method.terms(*outputs(), context())  # Z is a constant from the second batch on
    assert gradients_agree("crd", method=method.eval())


def test_the_gradient_of_crd_reaches_both_projectors_but_not_the_bank():
    method = prepared()
    method.terms(*outputs(), context())["contrast"].backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in method.parameters())
    assert len(list(method.parameters())) == 4
    assert not method.bank.requires_grad


def test_crd_has_a_gradient_of_ordinary_size_where_a_projection_is_zero():
    method = prepared().float()
    with torch.no_grad():
        method.projectors[0][0].bias.zero_()

    def changed(student):
        hidden = student.hidden[1].clone()
        hidden[0] = 0
        return student._replace(hidden=(student.hidden[0], hidden))

    _, of_hidden = gradient_of("crd", "multiclass", changed, method=method)
    assert of_hidden.isfinite().all()
    assert 0 < of_hidden[0].abs().max() < 1e4
    assert method.bank.isfinite().all()


def test_crd_refuses_a_momentum_that_never_updates():
    with pytest.raises(ValidationError, match="momentum"):
        make("crd", momentum=1.0)
