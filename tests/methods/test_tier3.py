"""cpf and vqgraph on a 4-node graph: student, tokenizer and terms, worked out in plain Python from their equations."""

import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from distillbench.data.tasks import TASKS
from distillbench.distillation.method import Context, Dims, Setup
from distillbench.models.gnn import Output
from distillbench.plugins import load

METHODS = Path(__file__).parents[2] / "methods"
pytestmark = pytest.mark.usefixtures("one_thread")

# (source, destination), symmetric with self-loops, sorted by destination: 0 - 1 - 2 and node 3 linked to 1
EDGES = [(0, 0), (1, 0), (0, 1), (1, 1), (2, 1), (3, 1), (1, 2), (2, 2), (1, 3), (3, 3)]
X = [[1.0, 0.5], [-0.5, 1.5], [2.0, -1.0], [0.25, 0.75]]
STUDENT_HIDDEN = [[0.5, -1.0], [1.5, 0.25], [-0.75, 2.0], [1.0, 1.0]]
STUDENT_LOGITS = [[2.0, -1.0, 0.5], [0.0, 1.0, -0.5], [1.5, 1.0, 3.0], [-2.0, 0.5, 0.25]]
TEACHER_LOGITS = [[3.0, 0.0, -1.0], [-0.5, 2.0, 0.0], [0.0, 0.5, 2.5], [1.0, 1.5, -2.0]]
CLASSES, LABELLED = [2, -1, 1, -1], [True, False, True, False]
SCORE = {"nodes": [0.3, -1.2, 0.8, 0.1], "features": [0.7, -0.4]}
BALANCE = [0.2, -0.6, 1.1, 0.4]


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def setup(**more):
    edges, labels, labelled = torch.tensor(EDGES).T, torch.tensor(CLASSES), torch.tensor(LABELLED)
    teacher = Output(tensor(TEACHER_LOGITS), (), ())
    random = torch.Generator().manual_seed(3)
    return Setup(TASKS["multiclass"], tensor(X), edges, labels, labelled, teacher, random, **more)


def context(labelled=LABELLED):
    edges, labels, random = torch.tensor(EDGES).T, torch.tensor(CLASSES), torch.Generator()
    nodes = torch.arange(4)
    return Context(TASKS["multiclass"], labels, torch.tensor(labelled), edges, 4, 1, random, nodes=nodes)


def make(name, **params):
    plugin = load("method", METHODS / f"{name}.py")
    return plugin(plugin.Params(**params), Dims((2,), 3), Dims((2,), 3)).double()


def fill(module):
    """Numbers by which parameters can be told from one another."""
    with torch.no_grad():
        for number, parameter in enumerate(module.parameters(), start=1):
            parameter.copy_((torch.arange(parameter.numel()).view_as(parameter) * 7 % 5 - 2) / (4.0 + number))
    return module


def softmax(values):
    total = sum(math.exp(v) for v in values)
    return [math.exp(v) / total for v in values]


def norm(values):
    return math.sqrt(sum(v * v for v in values))


def distance(a, b):
    return norm([x - y for x, y in zip(a, b, strict=True)])


def divergence(p, q):
    """KL(p || q), mean over rows."""
    rows = [sum(x * math.log(x / y) for x, y in zip(*each, strict=True)) for each in zip(p, q, strict=True)]
    return sum(rows) / len(rows)


def cross_entropy(logits):
    rows = [-math.log(softmax(z)[y]) for z, y, used in zip(logits, CLASSES, LABELLED, strict=True) if used]
    return sum(rows) / len(rows)


def linear(layer, rows):
    weight = layer.weight.tolist()
    bias = [0.0] * len(weight) if layer.bias is None else layer.bias.tolist()
    return [
        [sum(w * x for w, x in zip(of_unit, row, strict=True)) + b for of_unit, b in zip(weight, bias, strict=True)]
        for row in rows
    ]


def close(value):
    return pytest.approx(value, rel=1e-9)


# cpf: the student


class MLP(nn.Module):
    """A student whose output is given, so that what is put around it can be seen."""

    def __init__(self):
        super().__init__()
        self.logits = nn.Parameter(tensor(STUDENT_LOGITS))

    def forward(self, graph, x):
        return Output(self.logits, (x,), (graph.edge_index[:, :0],))


def propagated(steps, scores, mixture):
    """f_K by the definition, node by node."""
    c = SCORE["nodes"]
    if scores == "features":
        c = [sum(z * v for z, v in zip(SCORE["features"], x, strict=True)) for x in X]
    transformed = [softmax(z) for z in STUDENT_LOGITS] if mixture == "probabilities" else STUDENT_LOGITS
    one_hot = {0: [0.0, 0.0, 1.0], 2: [0.0, 1.0, 0.0]}
    f = [one_hot.get(v, [1 / 3] * 3) for v in range(4)]
    for _ in range(steps):
        following = []
        for v in range(4):
            if v in one_hot:
                following.append(one_hot[v])
                continue
            neighbours = [u for u, i in EDGES if i == v]
            total = sum(math.exp(c[u]) for u in neighbours)
            alpha = 1 / (1 + math.exp(-BALANCE[v]))
            mixed = [
                alpha * sum(math.exp(c[u]) / total * f[u][k] for u in neighbours) + (1 - alpha) * transformed[v][k]
                for k in range(3)
            ]
            following.append(mixed if mixture == "probabilities" else [max(0.0, value) for value in mixed])
        f = following
    return f


def wrapped(**params):
    student = make("cpf", **params).wrap_student(MLP(), setup())
    with torch.no_grad():
        student.score.copy_(tensor(SCORE[params.get("scores", "nodes")]))
        student.balance.copy_(tensor(BALANCE))
    return student


GRAPH = SimpleNamespace(edge_index=torch.tensor(EDGES).T)


@pytest.mark.parametrize("scores", ["nodes", "features"])
@pytest.mark.parametrize("steps", [1, 4])
def test_cpf_propagates_labels_over_learned_weights_and_mixes_in_the_mlp(scores, steps):
    expected = propagated(steps, scores, "probabilities")
    out = wrapped(steps=steps, scores=scores).eval()(GRAPH, tensor(X))
    for v in (1, 3):
        assert out.logits[v].exp().tolist() == [close(value) for value in expected[v]]
    labelled = [[close(value) for value in row] for row in ([1e-6, 1e-6, 1.0], [1e-6, 1.0, 1e-6])]
    assert out.logits[[0, 2]].exp().tolist() == labelled
    assert torch.equal(out.hidden[0], tensor(X)) and out.edge_index[0].shape == (2, 0)


def test_cpf_as_released_mixes_logits_and_reads_the_result_as_logits():
    expected = propagated(3, "nodes", "scores")
    out = wrapped(steps=3, mixture="scores").eval()(GRAPH, tensor(X))
    assert min(min(row) for row in expected) == 0.0  # the ReLU is seen
    for v in range(4):
        assert out.logits[v].tolist() == [close(value) for value in expected[v]]


def test_the_weights_of_cpf_do_not_overflow_and_sum_to_one():
    student = wrapped(steps=1)
    with torch.no_grad():
        student.score.mul_(5000)
    source, destination = GRAPH.edge_index
    weights = student._weights(source, destination, tensor(X))
    assert torch.zeros(4, dtype=torch.float64).index_add(0, destination, weights).tolist() == [close(1.0)] * 4


def test_dropout_on_the_weights_is_in_training_only_and_zero_turns_it_off():
    def spread(training, **params):
        torch.manual_seed(0)
        student = wrapped(**params).train(training)
        return len({tuple(student(GRAPH, tensor(X)).logits[1].tolist()) for _ in range(5)})

    assert spread(True, dropout=0.5) > 1
    assert spread(False, dropout=0.5) == spread(True, dropout=0.0) == 1


def test_the_student_of_cpf_knows_training_labels_only_and_its_own_nodes_only():
    student = wrapped()
    assert student.given.tolist() == [[0, 0, 1], [close(1 / 3)] * 3, [0, 1, 0], [close(1 / 3)] * 3]
    with pytest.raises(ValueError, match="trained on 4 nodes and cannot predict 3"):
        student(GRAPH, tensor(X[:3]))


def test_every_parameter_of_the_student_of_cpf_is_trained_by_the_distance():
    method = make("cpf", dropout=0.0)
    student = method.wrap_student(MLP(), setup())
    terms = method.terms(student(GRAPH, tensor(X)), setup().teacher, context())
    gradients = torch.autograd.grad(terms["distance"], list(student.parameters()), retain_graph=True)
    assert all(each.isfinite().all() and each.abs().sum() > 0 for each in gradients)
    gradients = torch.autograd.grad(terms["task"], list(student.parameters()), allow_unused=True)
    assert all(each is None or each.abs().sum() == 0 for each in gradients)
    assert 0 < terms["task"].item() < 1e-5


@pytest.mark.parametrize("scores", ["nodes", "features"])
def test_gradients_of_the_student_of_cpf(scores):
    student = wrapped(steps=2, scores=scores, dropout=0.0)
    names = [name for name, _ in student.named_parameters()]
    values = [parameter.detach().clone().requires_grad_() for parameter in student.parameters()]

    def logits(*parameters):
        given = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(student, given, (GRAPH, tensor(X))).logits[[1, 3]]

    assert torch.autograd.gradcheck(logits, values)


# cpf: the terms


def test_cpf_is_the_distance_to_the_teacher_on_nodes_without_a_label():
    distances = [distance(softmax(TEACHER_LOGITS[v]), softmax(STUDENT_LOGITS[v])) for v in (1, 3)]
    student = Output(tensor(STUDENT_LOGITS), (), ())
    found = {
        reduction: make("cpf", reduction=reduction).terms(student, setup().teacher, context())
        for reduction in ("sum", "norm")
    }
    assert found["sum"]["distance"].item() == close(sum(distances))
    assert found["norm"]["distance"].item() == close(norm(distances))
    assert found["sum"]["task"].item() == found["norm"]["task"].item() == close(cross_entropy(STUDENT_LOGITS))


def test_cpf_has_no_gradient_at_its_teacher_and_refuses_a_graph_without_unlabelled_nodes():
    logits = tensor(TEACHER_LOGITS).requires_grad_()
    terms = make("cpf").terms(Output(logits, (), ()), setup().teacher, context())
    (gradient,) = torch.autograd.grad(terms["distance"], logits)
    assert terms["distance"].item() == 0.0 and gradient.abs().max() == 0.0
    with pytest.raises(ValueError, match="distill_nodes to all"):
        make("cpf").terms(Output(logits, (), ()), setup().teacher, context([True] * 4))


@pytest.mark.parametrize("reduction", ["sum", "norm"])
def test_gradient_of_cpf(reduction):
    method, ctx = make("cpf", reduction=reduction), context()
    student = tensor(STUDENT_LOGITS).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: method.terms(Output(z, (), ()), setup().teacher, ctx)["distance"], student
    )


# vqgraph: the tokenizer


class Teacher(nn.Module):
    """Two linear layers; its hidden features and logits can be had again from its weights."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(2, 2).double(), nn.Linear(2, 3).double()

    def forward(self, x):
        h = self.first(x)
        return Output(self.last(h), (h,), (torch.empty(2, 0),))


def tokenizer(**params):
    method = make("vqgraph", **params)
    made = fill(sys.modules[type(method).__module__].Tokenizer(method.params, setup(new_teacher=Teacher), 2, seed=5))
    made.codes = tensor([[0.4, -0.3], [-0.2, 0.1], [0.3, 0.9]])
    return made


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


@pytest.mark.parametrize("gamma", [1.0, 2.0])
def test_the_tokenizer_is_trained_with_labels_features_edges_and_codes(gamma):
    made = tokenizer(gamma=gamma, commitment=0.4)
    out = made.teacher(tensor(X))
    h = linear(made.teacher.first, X)
    codes = made.codes.tolist()
    nearest = [min(range(3), key=lambda m: distance(z, codes[m])) for z in h]
    assert len(set(nearest)) > 1
    e = [codes[m] for m in nearest]
    features, decoded = linear(made.to_features, e), linear(made.to_edges, e)

    cosines = [
        sum(a * b for a, b in zip(x, y, strict=True)) / norm(x) / norm(y) for x, y in zip(X, features, strict=True)
    ]
    sigma = {
        (i, j): sigmoid(sum(a * b for a, b in zip(decoded[i], decoded[j], strict=True)))
        for i in range(4)
        for j in range(4)
    }
    links = [edge for edge in EDGES if edge[0] != edge[1]]
    of_edges = sum((1 - sigma[edge]) ** 2 for edge in links) / len(links)
    of_pairs = sum((float(pair in EDGES) - value) ** 2 for pair, value in sigma.items()) / 16
    losses = {
        "task": cross_entropy(linear(made.teacher.last, h)),
        "features": sum((1 - cosine) ** gamma for cosine in cosines) / 4,
        "edges": (of_edges + of_pairs) / 2,
        "commitment": 0.4 * sum(distance(z, code) ** 2 for z, code in zip(h, e, strict=True)) / 4,
    }
    _, found_nearest = made.nearest(out)
    assert found_nearest.tolist() == nearest
    found = made.losses(out, found_nearest, *made.sampled())
    assert {name: value.item() for name, value in found.items()} == {name: close(v) for name, v in losses.items()}
    for name in ("features", "edges", "commitment"):  # the first two past the code, straight to the encoder
        (gradient,) = torch.autograd.grad(found[name], [made.teacher.first.weight], retain_graph=True)
        assert gradient.abs().sum() > 0


def test_codes_follow_their_nodes_and_those_without_go_where_they_are_missed():
    made = tokenizer(decay=0.75)
    h = tensor([[1.0, 0.0], [0.0, 1.0], [4.0, 4.0], [0.2, 0.2]])
    distances, nearest = tensor([0.5, 0.7, 3.0, 0.1]), torch.tensor([0, 2, 2, 0])
    made.move_codes(Output(h, (h,), ()), distances, nearest)
    expected = [
        [0.75 * 0.4 + 0.25 * 0.6, 0.75 * -0.3 + 0.25 * 0.1],
        [4.0, 4.0],
        [0.75 * 0.3 + 0.25 * 2.0, 0.75 * 0.9 + 0.25 * 2.5],
    ]
    assert made.codes.tolist() == [[close(value) for value in row] for row in expected]


def test_a_limit_on_pairs_draws_that_many_real_edges_and_any_pairs():
    made = tokenizer(pairs=5)
    drawn = [made.sampled() for _ in range(30)]
    assert all(edges.shape == pairs.shape == (2, 5) for edges, pairs in drawn)
    edges = {tuple(edge) for some, _ in drawn for edge in some.T.tolist()}
    assert edges == {edge for edge in EDGES if edge[0] != edge[1]}
    assert {tuple(pair) for _, some in drawn for pair in some.T.tolist()} == {
        (i, j) for i in range(4) for j in range(4)
    }


def test_training_the_tokenizer_lowers_its_losses():
    method, made = make("vqgraph", epochs=60), []

    def teacher():
        made.append(Teacher())
        return made[-1]

    method.prepare(setup(new_teacher=teacher))
    assert cross_entropy(linear(made[0].last, linear(made[0].first, X))) < 0.5


def test_the_tokenizer_is_in_training_mode_where_it_is_trained_and_nowhere_else():
    modes = []

    class Watched(Teacher):
        def forward(self, x):
            modes.append(self.training)
            return super().forward(x)

    make("vqgraph", epochs=3).prepare(setup(new_teacher=Watched))
    assert modes == [False, True, True, True, False]  # first codes; three epochs; what students learn from


# vqgraph: the terms


def prepared(**params):
    """A method after its preparation, and the hidden features and logits of its tokenizer."""
    teachers = []

    def teacher():
        teachers.append(Teacher())
        return teachers[-1]

    method = make("vqgraph", epochs=3, **params)
    method.prepare(setup(new_teacher=teacher))
    fill(method.projector)
    h = linear(teachers[0].first, X)
    return method, h, linear(teachers[0].last, h)


def student_output():
    return Output(tensor(STUDENT_LOGITS), (tensor(STUDENT_HIDDEN),), ())


@pytest.mark.parametrize("assignment", ["distance", "released"])
@pytest.mark.parametrize("codes, temperature", [(512, 4.0), (3, 0.7)])
def test_vqgraph_compares_soft_assignments_to_the_codes_and_soft_labels(assignment, codes, temperature):
    method, h, logits = prepared(codes=codes, temperature=temperature, assignment=assignment, label_weight=0.3, beta=7)
    codebook = method.codebook.tolist()
    assert len(codebook) == min(codes, 4)
    cosine = assignment == "released"
    of_teacher = [
        softmax(
            [
                (sum(a * b for a, b in zip(z, e, strict=True)) / norm(z) / norm(e) if cosine else -distance(z, e))
                / temperature
                for e in codebook
            ]
        )
        for z in h
    ]
    projected = linear(method.projector, STUDENT_HIDDEN)
    of_student = [softmax([-distance(z, e) / temperature for e in codebook]) for z in projected]
    found = method.terms(student_output(), setup().teacher, context())
    assert {name: value.item() for name, value in found.items()} == {
        "task": close(0.3 * cross_entropy(STUDENT_LOGITS)),
        "soft": close(0.7 * divergence([softmax(z) for z in logits], [softmax(z) for z in STUDENT_LOGITS])),
        "code": pytest.approx(7 * temperature**2 * divergence(of_teacher, of_student), rel=1e-6),
    }


def test_vqgraph_may_take_the_soft_labels_of_the_teacher():
    method, _, _ = prepared(soft_labels="teacher")
    expected = divergence([softmax(z) for z in TEACHER_LOGITS], [softmax(z) for z in STUDENT_LOGITS])
    assert method.terms(student_output(), setup().teacher, context())["soft"].item() == close(expected)


def test_a_batch_of_vqgraph_gets_the_targets_of_its_own_nodes():
    method, _, _ = prepared()
    rows = torch.tensor([3, 1])
    whole = student_output()
    part = Output(whole.logits[rows], (whole.hidden[0][rows],), ())
    teacher = setup().teacher._replace(logits=tensor(TEACHER_LOGITS)[rows])
    ctx = Context(TASKS["multiclass"], torch.tensor([1, 0]), torch.tensor([True, True]), torch.empty(2, 0), 2, 1,
                  torch.Generator(), nodes=rows)  # fmt: skip
    expected = method.assigned[rows]
    r = -torch.cdist(method.projector(part.hidden[0]), method.codebook) / 4
    kl = divergence(expected.exp().tolist(), r.softmax(-1).tolist())
    assert method.terms(part, teacher, ctx)["code"].item() == pytest.approx(16 * kl, rel=1e-6)


def test_preparing_twice_gives_the_same_and_leaves_the_generator_of_torch_alone():
    class Dropping(Teacher):
        def forward(self, x):
            return super().forward(nn.functional.dropout(x, 0.5, self.training))

    def prepared_codebook(seed):
        method, untrained = make("vqgraph", epochs=3), Dropping()
        torch.manual_seed(seed)
        method.prepare(setup(new_teacher=lambda: untrained))
        assert torch.equal(torch.get_rng_state(), torch.Generator().manual_seed(seed).get_state())
        assert list(method.state_dict()) == ["projector.weight", "projector.bias"]
        return method.codebook

    assert torch.equal(prepared_codebook(1), prepared_codebook(2))


def test_gradient_of_vqgraph():
    method, _, _ = prepared()
    logits, hidden = tensor(STUDENT_LOGITS).requires_grad_(), tensor(STUDENT_HIDDEN).requires_grad_()

    def distilled(z, h):
        terms = method.terms(Output(z, (h,), ()), setup().teacher, context())
        return terms["soft"] + terms["code"]

    assert torch.autograd.gradcheck(distilled, (logits, hidden))
