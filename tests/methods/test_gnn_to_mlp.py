"""Losses that make an MLP of a GNN, on a 5-node graph, worked out in plain Python from the equations of their papers.

Where a method draws neighbours, the test makes all chances 0 or 1, or knows the numbers that are drawn.
"""

import math
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from distillbench.data.tasks import TASKS
from distillbench.distillation.method import Context, Dims, Setup
from distillbench.models.gnn import Output
from distillbench.plugins import load

METHODS = Path(__file__).parents[2] / "methods"

# (source, destination), symmetric with self-loops, sorted by destination: the path 0 - 1 - 2, 3 linked to 1, 4 alone
EDGES = [(0, 0), (1, 0), (0, 1), (1, 1), (2, 1), (3, 1), (1, 2), (2, 2), (1, 3), (3, 3), (4, 4)]
BETWEEN = [(j, i) for j, i in EDGES if i != j]
STUDENT_LOGITS = [[2.0, -1.0, 0.5], [0.0, 1.0, -0.5], [1.5, 1.0, 3.0], [-2.0, 0.5, 0.25], [0.5, 0.25, -1.0]]
TEACHER_LOGITS = [[3.0, 0.0, -1.0], [-0.5, 2.0, 0.0], [0.0, 0.5, 2.5], [1.0, 1.5, -2.0], [0.5, -0.5, 0.0]]
STUDENT_HIDDEN = [
    [[0.5, -1.0], [1.5, 0.25], [-0.75, 2.0], [1.0, 1.0], [0.25, -0.5]],
    [[0.1, 0.2, -0.3], [1.0, -1.0, 0.5], [0.0, 2.0, 1.0], [-0.5, 0.4, 0.3], [1.5, 0.5, 0.0]],
]
TEACHER_HIDDEN = [
    [[1.0, 0.0, 0.5, 2.0], [0.5, -1.5, 2.0, 0.0], [0.0, 1.0, 1.0, 0.5], [2.0, 1.0, -1.0, 0.1], [0.3, 0.2, 0.1, 0.0]],
    [[0.3, -0.6], [1.2, 0.8], [-1.0, 0.5], [0.7, 0.9], [0.4, -1.1]],
]
CLASSES, LABELLED = [0, 1, 2, 2, 1], [True, True, False, True, False]
FEATURES = [[1.0, 0.5], [-0.5, 0.25], [0.75, -1.0], [0.1, 0.9], [-1.2, 0.3]]
WEIGHTS = [[0.5, -1.0, 0.75], [1.5, 0.25, -0.5]]  # of a student whose logits are a product with its features


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def linear_student(x):
    return Output(x @ tensor(WEIGHTS), (), ())


def outputs():
    edges = torch.tensor(EDGES).T
    none = edges[:, :0]
    student = Output(tensor(STUDENT_LOGITS), tuple(map(tensor, STUDENT_HIDDEN)), (none, none))
    return student, Output(tensor(TEACHER_LOGITS), tuple(map(tensor, TEACHER_HIDDEN)), (edges, edges))


def context(epoch=1, seed=0, edges=EDGES, **given):
    return Context(
        TASKS["multiclass"],
        torch.tensor(CLASSES),
        torch.tensor(LABELLED),
        torch.tensor(edges).T,
        5,
        epoch,
        torch.Generator().manual_seed(seed),
        **{"x": tensor(FEATURES), "nodes": torch.arange(5), "run_student": linear_student, **given},
    )


def setup(run_teacher=None, seed=0, edges=EDGES, nodes=5):
    _, teacher = outputs()
    edge_index = torch.tensor(edges).T
    labels, labelled = torch.zeros(nodes, dtype=torch.int64), torch.ones(nodes, dtype=torch.bool)
    x, random = torch.zeros(nodes, 2, dtype=torch.float64), torch.Generator().manual_seed(seed)
    return Setup(
        TASKS["multiclass"], x, edge_index, labels, labelled, teacher, random, run_teacher=run_teacher or (lambda x: 0)
    )


def make(name, **params):
    plugin = load("method", METHODS / f"{name}.py")
    method = plugin(plugin.Params(**params), Dims((2, 3), 3), Dims((4, 2), 3)).double()
    with torch.no_grad():
        for number, parameter in enumerate(method.parameters(), start=1):
            parameter.copy_((torch.arange(parameter.numel()).view_as(parameter) * 7 % 5 - 1.97) / (4.0 + number))
    return method


def values(method, ctx):
    return {term: value.item() for term, value in method.terms(*outputs(), ctx).items()}


def softmax(row, temperature=1.0):
    total = sum(math.exp(v / temperature) for v in row)
    return [math.exp(v / temperature) / total for v in row]


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def entropy(row):
    return -sum(p * math.log(p) for p in softmax(row))


def mean(found):
    found = list(found)
    return sum(found) / len(found)


def cross_entropy():
    return mean(-math.log(softmax(z)[y]) for z, y, used in zip(STUDENT_LOGITS, CLASSES, LABELLED, strict=True) if used)


def soft(pairs, temperature=1.0):
    """Mean of KL(teacher of the source || student of the destination) over edges."""
    return mean(kl(softmax(TEACHER_LOGITS[j], temperature), softmax(STUDENT_LOGITS[i], temperature)) for j, i in pairs)


def close(value, rel=1e-12):
    return pytest.approx(value, rel=rel)


def assert_derivative(method, ctx_of, terms):
    """The gradients with respect to the student's logits and hidden features are those of the terms."""
    student, teacher = outputs()

    def distilled(logits, *hidden):
        found = method.terms(Output(logits, hidden, student.edge_index), teacher, ctx_of())
        return tuple(found[term] for term in terms)

    inputs = [each.requires_grad_() for each in (student.logits, *student.hidden)]
    assert torch.autograd.gradcheck(distilled, inputs)
    assert any(grad is not None and grad.abs().sum() > 0 for grad in _grads(distilled(*inputs), inputs))


def _grads(found, inputs):
    return torch.autograd.grad(sum(found), inputs, allow_unused=True)


# ff-g2m


def along_edge(logits, j, i, temperature):
    return softmax([abs(a - b) / temperature for a, b in zip(logits[i], logits[j], strict=True)])


@pytest.mark.parametrize("direction", ["student||teacher", "teacher||student"])
def test_ff_g2m_is_the_divergence_from_neighbours_and_of_differences_along_edges(direction):
    label_weight, temperature = 0.3, 2.0

    def divergence(of_student, of_teacher):
        return kl(of_student, of_teacher) if direction == "student||teacher" else kl(of_teacher, of_student)

    low = mean(divergence(softmax(STUDENT_LOGITS[i]), softmax(TEACHER_LOGITS[j])) for j, i in EDGES)
    high = mean(
        divergence(*(along_edge(logits, j, i, temperature) for logits in (STUDENT_LOGITS, TEACHER_LOGITS)))
        for j, i in BETWEEN
    )
    method = make("ff_g2m", label_weight=label_weight, temperature=temperature, direction=direction)
    assert values(method, context()) == {
        "task": close(0.3 * cross_entropy()),
        "low_frequency": close(0.7 * low),
        "high_frequency": close(0.7 * high),
    }


def test_ff_g2m_has_the_authors_setting_and_the_direction_of_the_paper():
    params = load("method", METHODS / "ff_g2m.py").Params()
    assert (params.label_weight, params.temperature, params.direction) == (0.4, 1.5, "student||teacher")


def test_ff_g2m_without_neighbours_is_the_soft_label_loss():
    alone = [(i, i) for i in range(5)]
    found = values(make("ff_g2m", label_weight=0, direction="teacher||student"), context(edges=alone))
    assert found == {"task": 0.0, "low_frequency": close(soft(alone)), "high_frequency": 0.0}


@pytest.mark.parametrize("direction", ["student||teacher", "teacher||student"])
def test_ff_g2m_has_the_derivative_of_its_value(direction):
    assert_derivative(make("ff_g2m", direction=direction), context, ("low_frequency", "high_frequency"))


def test_ff_g2m_has_a_finite_gradient_where_neighbours_agree():
    student, teacher = outputs()
    logits = torch.zeros_like(student.logits, requires_grad=True)
    found = make("ff_g2m").terms(student._replace(logits=logits), teacher, context())
    (grad,) = torch.autograd.grad(sum(found.values()), logits)
    assert grad.isfinite().all()


# krd


def prepared(changes=(0.0, 0.0, 0.0, 0.0, 0.0), **params):
    """The method, with these changes of entropy under noise."""
    method = make("krd", **params)
    method.change = tensor(changes)
    return method


def test_krd_measures_how_noise_changes_the_entropy_of_the_teacher():
    noisy = [[[v * (1 + k + i) for v in row] for i, row in enumerate(TEACHER_LOGITS)] for k in range(3)]
    seen = []

    def run_teacher(x):
        seen.append(x)
        return Output(tensor(noisy[len(seen) - 1]), (), ())

    method = make("krd", draws=3, noise=0.5)
    method.prepare(setup(run_teacher, seed=7))
    draws = torch.Generator().manual_seed(7)
    for x in seen:
        assert torch.equal(x, 0.5 * torch.randn(5, 2, generator=draws, dtype=torch.float64))
    changes = [
        mean(abs(entropy(rows[i]) - entropy(TEACHER_LOGITS[i])) for rows in noisy) for i in range(len(TEACHER_LOGITS))
    ]
    assert len(set(changes)) == 5
    assert method.change.tolist() == [close(change / max(changes)) for change in changes]
    assert "change" in method.state_dict()


def test_krd_trusts_a_teacher_that_noise_does_not_change():
    method = make("krd", warm_up=0)
    method.prepare(setup(lambda x: outputs()[1]))
    assert method.change.tolist() == [0.0] * 5
    assert values(method, context())["reliable"] == close(0.5 * soft(EDGES, 0.8))


@pytest.mark.parametrize("epoch", [1, 50])
def test_krd_learns_from_all_neighbours_until_it_is_warm(epoch):
    method = prepared([1.0] * 5, label_weight=0.3, temperature=2.0)
    assert values(method, context(epoch)) == {
        "task": close(0.3 * cross_entropy()),
        "reliable": close(0.7 * soft(EDGES, 2.0)),
    }
    assert method.power == 1.0


def test_krd_learns_from_reliable_neighbours_and_from_the_node_itself():
    changes = [1.0, 0.0, 1.0, 0.0, 1.0]
    kept = [(j, i) for j, i in EDGES if changes[j] == 0 or i == j]
    assert len(kept) == 9
    found = values(prepared(changes, temperature=1.5), context(epoch=51))["reliable"]
    assert found == close(0.5 * soft(kept, 1.5))


def test_krd_finds_the_reliability_of_a_node_by_its_number_in_the_setup():
    nodes = torch.tensor([3, 4, 0, 1, 2])
    changes = [1.0, 1.0, 0.0, 0.0, 1.0]  # by number
    kept = [(j, i) for j, i in EDGES if changes[nodes[j]] == 0 or i == j]
    found = values(prepared(changes), context(epoch=51, nodes=nodes))["reliable"]
    assert found == close(0.5 * soft(kept, 0.8))


def test_krd_draws_an_edge_with_the_chance_of_its_source():
    changes, power = [0.2, 0.7, 0.5, 0.9, 0.4], 2.0
    method = prepared(changes, power=power, momentum=1.0)
    seen = set()
    for seed in range(20):
        uniform = torch.rand(len(EDGES), generator=torch.Generator().manual_seed(seed)).tolist()
        kept = [(j, i) for (j, i), u in zip(EDGES, uniform, strict=True) if i == j or u < 1 - changes[j] ** power]
        seen.add(len(kept))
        assert values(method, context(epoch=51, seed=seed))["reliable"] == close(0.5 * soft(kept, 0.8))
    assert len(seen) > 2


def least_squares_power(x, share):
    """The power a for which 1 - x^a is nearest to the shares: of many, then of many near the best of those."""

    def best(powers):
        return min(powers, key=lambda a: sum((1 - v**a - s) ** 2 for v, s in zip(x, share, strict=True)))

    coarse = best([math.exp(step / 500) for step in range(-1500, 1500)])
    return best([coarse * (1 + step / 200_000) for step in range(-1000, 1000)])


def disagreeing_on_3():
    student, teacher = outputs()
    assert torch.equal(student.logits.argmax(-1), teacher.logits.argmax(-1))
    student.logits[3] = tensor([2.0, 0.0, 0.0])
    return student, teacher


def test_krd_fits_the_power_to_where_the_student_agrees_once_an_epoch():
    student, teacher = disagreeing_on_3()
    changes = [0.1, 0.2, 0.4, 0.45, 1.0]
    # four classes: [0, ¼) has 0 and 1, [¼, ½) has 2 and 3 of which one agrees, [½, ¾) none, [¾, 1] has 4
    fitted = least_squares_power([0.125, 0.375, 0.625, 0.875], [1.0, 0.5, 0.0, 1.0])
    method = prepared(changes, bins=4, momentum=0.75, power=3.0)
    method.terms(student, teacher, context(epoch=51))
    once = 0.75 * 3.0 + 0.25 * fitted
    assert method.power.item() == close(once, rel=1e-4)
    assert abs(once - 3.0) > 0.1
    method.terms(student, teacher, context(epoch=51))
    assert method.power.item() == close(once, rel=1e-4)
    method.terms(student, teacher, context(epoch=52))
    assert method.power.item() == close(0.75 * once + 0.25 * fitted, rel=1e-4)


def test_krd_scales_the_shares_to_the_unit_interval_before_the_fit():
    student, teacher = disagreeing_on_3()
    # two classes: all agree below ½, and one of two above: 1 and ½, scaled to 1 and 0
    method = prepared([0.1, 0.2, 0.4, 0.6, 0.9], bins=2, momentum=0.0)
    method.terms(student, teacher, context(epoch=60))
    assert method.power.item() == close(least_squares_power([0.25, 0.75], [1.0, 0.0]), rel=1e-4)


def test_krd_keeps_its_power_where_the_student_agrees_everywhere():
    method = prepared([0.1, 0.2, 0.4, 0.6, 0.9], bins=2, power=1.7)
    values(method, context(epoch=60))
    assert method.power == 1.7


def test_krd_has_the_derivative_of_its_value():
    method = prepared([1.0, 0.0, 1.0, 0.0, 1.0], momentum=1.0)
    assert_derivative(method, lambda: context(epoch=51), ("reliable",))


# hgmd


def relative(entropies):
    return [h / max(entropies) for h in entropies]


def cosine(i, j):
    p, q = softmax(TEACHER_LOGITS[i]), softmax(TEACHER_LOGITS[j])
    lengths = [math.sqrt(sum(v * v for v in row)) for row in (p, q)]
    return sum(a * b for a, b in zip(p, q, strict=True)) / (lengths[0] * lengths[1])


def chances(alpha):
    h_s, h_t = (relative([entropy(row) for row in logits]) for logits in (STUDENT_LOGITS, TEACHER_LOGITS))
    return {
        (j, i): 1.0 if i == j else 1 - math.exp(-alpha * cosine(i, j) * math.sqrt(h_t[i] * h_s[i]) / h_t[j])
        for j, i in EDGES
    }


def weighted(chance, temperature):
    """The weighted loss over the edges of ``chance``."""
    size = Counter(i for _, i in chance)
    score = {(j, i): cosine(i, j) * p for (j, i), p in chance.items()}
    of_node = {i: sum(c for (_, k), c in score.items() if k == i) for i in size}
    return mean(size[i] * score[j, i] / of_node[i] * soft([(j, i)], temperature) for j, i in chance)


def test_hgmd_weighs_sampled_neighbours_by_likeness_and_chance():
    method = make("hgmd", variant="weight", alpha=0.8, temperature=1.5, label_weight=0.3)
    seen = set()
    for seed in range(10):
        uniform = torch.rand(len(EDGES), generator=torch.Generator().manual_seed(seed)).tolist()
        kept = {e: p for (e, p), u in zip(chances(0.8).items(), uniform, strict=True) if u < p}
        seen.add(len(kept))
        assert values(method, context(seed=seed)) == {
            "task": close(0.3 * cross_entropy()),
            "hard": close(0.7 * weighted(kept, 1.5)),
        }
    assert len(seen) > 1


def test_hgmd_takes_fewer_neighbours_the_longer_it_runs():
    method = make("hgmd", variant="weight", alpha=50.0, epochs=101)
    for epoch, alpha in ((1, 50.0), (51, 5.0), (101, 0.5), (300, 0.5)):
        uniform = torch.rand(len(EDGES), generator=torch.Generator().manual_seed(3)).tolist()
        kept = {e: p for (e, p), u in zip(chances(alpha).items(), uniform, strict=True) if u < p}
        assert values(method, context(epoch, seed=3))["hard"] == close(0.9 * weighted(kept, 0.9))


@pytest.mark.parametrize("variant", ["weight", "mixup"])
def test_hgmd_without_neighbours_is_the_soft_label_loss(variant):
    found = values(make("hgmd", variant=variant, alpha=1e-30, label_weight=0), context())
    assert found == {"task": 0.0, "hard": close(soft([(i, i) for i in range(5)], 0.9))}


def mixed(share, temperature):
    """Mean over all edges of KL(mixture of node and neighbour || student)."""

    def target(j, i):
        own, other = (softmax(TEACHER_LOGITS[node], temperature) for node in (i, j))
        return [(1 - share) * a + share * b for a, b in zip(own, other, strict=True)]

    return mean(kl(target(j, i), softmax(STUDENT_LOGITS[i], temperature)) for j, i in EDGES)


def test_hgmd_mixes_the_teacher_of_a_neighbour_into_that_of_the_node():
    # of a Beta(β, β) with a very large β, every draw is ½; with a large α, every chance is 1
    found = values(make("hgmd", alpha=1e6, beta=1e12, temperature=1.5, label_weight=0), context())
    assert found["hard"] == close(mixed(0.5, 1.5), rel=1e-5)
    assert mixed(0.5, 1.5) != close(mixed(0.4, 1.5), rel=1e-3)


def test_hgmd_mixes_less_of_a_neighbour_that_is_less_likely_to_be_taken():
    method = make("hgmd", alpha=0.8, beta=1e12, temperature=1.5, label_weight=0)
    uniform = torch.rand(len(EDGES), generator=torch.Generator().manual_seed(1)).tolist()
    kept = {e: p for (e, p), u in zip(chances(0.8).items(), uniform, strict=True) if u < p}
    assert any(0 < p < 1 for p in kept.values())
    losses = []
    for (j, i), p in kept.items():
        own, other = (softmax(TEACHER_LOGITS[node], 1.5) for node in (i, j))
        target = [(1 - p / 2) * a + p / 2 * b for a, b in zip(own, other, strict=True)]
        losses.append(kl(target, softmax(STUDENT_LOGITS[i], 1.5)))
    assert values(method, context(seed=1))["hard"] == close(mean(losses), rel=1e-5)


def test_hgmd_draws_the_mixture_from_the_generator_alone():
    method = make("hgmd", alpha=1e6)
    first, again, other = (values(method, context(seed=seed))["hard"] for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("variant", ["weight", "mixup"])
def test_hgmd_has_the_derivative_of_its_value_where_the_students_hardness_does_not_matter(variant):
    assert_derivative(make("hgmd", variant=variant, alpha=1e6), context, ("hard",))


def test_hgmd_holds_the_students_hardness_constant():
    """The gradient at a node is that of its soft labels alone: (softmax(z_i / τ) − target) / τ, mean over S."""
    uniform = torch.rand(len(EDGES), generator=torch.Generator().manual_seed(1)).tolist()
    kept = {e: p for (e, p), u in zip(chances(0.8).items(), uniform, strict=True) if u < p}
    expected = [[0.0] * 3 for _ in range(5)]
    for (j, i), p in kept.items():
        own, other, of_student = (
            softmax(logits, 1.5) for logits in (TEACHER_LOGITS[i], TEACHER_LOGITS[j], STUDENT_LOGITS[i])
        )
        for c in range(3):
            expected[i][c] += (of_student[c] - (1 - p / 2) * own[c] - p / 2 * other[c]) / 1.5 / len(kept)
    student, teacher = outputs()
    logits = student.logits.requires_grad_()
    method = make("hgmd", alpha=0.8, beta=1e12, temperature=1.5, label_weight=0)
    (found,) = torch.autograd.grad(method.terms(student, teacher, context(seed=1))["hard"], logits)
    assert found.flatten().tolist() == pytest.approx([value for row in expected for value in row], rel=1e-5)


@pytest.mark.parametrize("variant", ["weight", "mixup"])
def test_hgmd_is_finite_for_a_teacher_that_is_certain(variant):
    student, teacher = outputs()
    logits = student.logits.requires_grad_()
    certain = teacher._replace(logits=teacher.logits * 1e4)
    value = make("hgmd", variant=variant).terms(student, certain, context())["hard"]
    (grad,) = torch.autograd.grad(value, logits)
    assert value.isfinite() and grad.isfinite().all()


# nosmog


def projected(number, layer):
    """ReLU(W h + b) with the parameters that ``make`` gives to the projector."""
    weight, bias = (p.tolist() for p in make("nosmog", layers=LAYERS[number]).projectors[layer].parameters())
    hidden = STUDENT_HIDDEN[LAYERS[number][layer][0]]
    return [
        [max(0.0, sum(w * v for w, v in zip(row, h, strict=True)) + b) for row, b in zip(weight, bias, strict=True)]
        for h in hidden
    ]


LAYERS = [[(-1, -1)], [(1, 0), (0, 1)]]


def gram(rows):
    return [[sum(a * b for a, b in zip(p, q, strict=True)) for q in rows] for p in rows]


def unlike(a, b):
    pairs = [(u, v) for p, q in zip(gram(a), gram(b), strict=True) for u, v in zip(p, q, strict=True)]
    return sum((u - v) ** 2 for u, v in pairs) / 25


@pytest.mark.parametrize("number", range(len(LAYERS)))
def test_nosmog_compares_the_similarities_of_all_pairs_of_nodes(number):
    expected = [unlike(projected(number, layer), TEACHER_HIDDEN[t]) for layer, (_, t) in enumerate(LAYERS[number])]
    method = make("nosmog", layers=LAYERS[number], similarity_weight=0.5, label_weight=0.3)
    found = values(method, context())
    assert found["similarity"] == close(0.5 * mean(expected))
    assert found["task"] == close(0.3 * cross_entropy())
    assert found["soft"] == close(0.7 * soft([(i, i) for i in range(5)]))


def test_nosmog_uses_no_label_unless_it_is_told_to():
    nothing = torch.zeros(5, dtype=torch.bool)
    ctx = context()
    found = make("nosmog").terms(*outputs(), Context(**{**vars(ctx), "labelled": nothing}))
    assert found["task"] == 0.0


def test_nosmog_goes_uphill_from_uniform_noise_and_stays_within_epsilon():
    epsilon, seen = 0.2, []

    def run_student(x):
        seen.append(x.detach())
        return linear_student(x)

    found = values(make("nosmog", epsilon=epsilon), context(seed=4, run_student=run_student))["adversarial"]
    uniform = torch.rand(5, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64).tolist()
    worst = []
    for x, u, t in zip(FEATURES, uniform, TEACHER_LOGITS, strict=True):
        delta = [epsilon * (2 * v - 1) for v in u]
        for _ in range(5):
            error = [a - b for a, b in zip(product(x, delta), softmax(t), strict=True)]  # of the logits' gradient
            uphill = [sum(w * e for w, e in zip(row, error, strict=True)) for row in WEIGHTS]
            stepped = [d + math.copysign(epsilon / 4, g) for d, g in zip(delta, uphill, strict=True)]
            delta = [max(-epsilon, min(epsilon, d)) for d in stepped]
        worst.append(kl(softmax(t), product(x, delta)))
    assert found == close(0.1 * mean(worst))
    assert len(seen) == 6
    assert (seen[-1] - tensor(FEATURES)).abs().max() <= epsilon + 1e-12
    undisturbed = [product(x, [0.0, 0.0]) for x in FEATURES]
    assert mean(worst) > mean(kl(softmax(t), p) for t, p in zip(TEACHER_LOGITS, undisturbed, strict=True))


def product(x, delta):
    """What the linear student predicts of x + delta."""
    moved = [a + b for a, b in zip(x, delta, strict=True)]
    return softmax([sum(m * w for m, w in zip(moved, column, strict=True)) for column in zip(*WEIGHTS, strict=True)])


def test_nosmog_trains_the_student_on_the_worst_features_not_the_features_on_it():
    weights = tensor(WEIGHTS).requires_grad_()
    x = tensor(FEATURES)
    ctx = context(x=x, run_student=lambda x: Output(x @ weights, (), ()))
    value = make("nosmog").terms(*outputs(), ctx)["adversarial"]
    assert weights.grad is None
    (grad,) = torch.autograd.grad(value, weights)
    assert grad.abs().sum() > 0
    assert not x.requires_grad and torch.equal(x, tensor(FEATURES))


def test_nosmog_has_the_derivative_of_its_value():
    assert_derivative(make("nosmog", layers=LAYERS[1]), context, ("soft", "similarity"))


def test_nosmog_has_a_finite_gradient_at_features_of_zero():
    student, teacher = outputs()
    hidden = tuple(torch.zeros_like(h, requires_grad=True) for h in student.hidden)
    value = make("nosmog").terms(student._replace(hidden=hidden), teacher, context())["similarity"]
    (grad,) = torch.autograd.grad(value, hidden[-1])
    assert grad.isfinite().all()


# the position that nosmog gives to its student


def cliques(count, size):
    return [
        (size * k + a, size * k + b) for k in range(count) for b in range(size) for a in range(size)
    ]  # sorted by destination, with self-loops


def walks(edges, nodes, **options):
    plugin = load("method", METHODS / "nosmog.py")
    module = sys.modules[plugin.__module__]
    given = {"walks": 3, "length": 12, "random": torch.Generator().manual_seed(0), **options}
    return module.random_walks(torch.tensor(edges).T, nodes, **given)


def test_walks_start_at_every_linked_node_and_go_along_edges_but_not_to_where_they_are():
    found = walks(EDGES, 5).tolist()
    assert Counter(walk[0] for walk in found) == dict.fromkeys(range(4), 3)
    steps = {step for walk in found for step in pairwise(walk)}
    assert steps == set(BETWEEN)  # all of them, and none to itself


def test_a_walk_takes_every_neighbour_equally_often():
    found = walks(EDGES, 5, walks=500, length=20).tolist()
    after_1 = Counter(b for walk in found for a, b in pairwise(walk) if a == 1)
    assert after_1.keys() == {0, 2, 3}
    for number in after_1.values():
        assert number / sum(after_1.values()) == pytest.approx(1 / 3, abs=0.015)  # four standard errors


def positions(edges, nodes, seed=0, **params):
    options = {"dimensions": 8, "walks": 10, "walk_length": 20, "window": 3, **params}
    method, random = make("nosmog", **options), torch.random.get_rng_state()
    found = method.student_inputs(setup(seed=seed, edges=edges, nodes=nodes))
    assert torch.equal(torch.random.get_rng_state(), random)
    return found


def test_positions_of_nodes_of_one_community_are_near_each_other():
    edges = sorted([*cliques(4, 6), (5, 6), (6, 5), (11, 12), (12, 11), (17, 18), (18, 17)], key=lambda e: e[::-1])
    found = positions(edges, 24)
    assert found.shape == (24, 8)
    assert found.dtype == torch.float64  # that of the features
    unit = torch.nn.functional.normalize(found - found.mean(dim=0), dim=-1)
    alike, community = unit @ unit.T, torch.arange(24) // 6
    same = community[:, None] == community
    assert alike[same].mean() > alike[~same].mean() + 0.4
    to_community = alike.fill_diagonal_(0).view(24, 4, 6).mean(dim=2)
    assert torch.equal(to_community.argmax(dim=1), community)


def test_positions_are_trained_on_the_pairs_of_a_window_and_on_noise():
    """A step of Adam a walk, on the pairs (u, v) of its window: −log σ(c_u·o_v), and five times the mean over noise."""
    walks = [[0, 1, 2, 1], [1, 0, 1, 2], [3, 1, 0, 1], [1, 2, 1, 1], [0, 1, 0, 1], [2, 1, 3, 1]]
    frequency = [sum(walk.count(node) for walk in walks) for node in range(4)]
    assert frequency == [5, 13, 4, 2]
    random = torch.Generator().manual_seed(0)
    centre, context = (
        ((torch.rand(4, 2, generator=random) - 0.5) / 2).requires_grad_(),
        torch.zeros(4, 2).requires_grad_(),
    )
    adam = torch.optim.Adam([centre, context], lr=0.3)
    for number, row in enumerate(torch.randperm(6, generator=random).tolist()):
        adam.param_groups[0]["lr"] = 0.3 * (6 - number) / 6
        chance = torch.tensor([times**0.75 for times in frequency], dtype=torch.float64)
        noise = torch.multinomial(chance, 256, replacement=True, generator=random)
        pairs = [(walks[row][a], walks[row][b]) for a in range(4) for b in range(4) if 0 < abs(a - b) <= 2]
        losses = [
            -(centre[u] @ context[v]).sigmoid().log() - 5 * (-centre[u] @ context[noise].T).sigmoid().log().mean()
            for u, v in pairs
        ]
        adam.zero_grad()
        torch.stack(losses).mean().backward()
        adam.step()
    module = sys.modules[load("method", METHODS / "nosmog.py").__module__]
    found = module.skip_gram(torch.tensor(walks), 4, 2, 2, 0.3, torch.Generator().manual_seed(0))
    torch.testing.assert_close(found, centre.detach(), rtol=1e-4, atol=1e-5)


def test_positions_depend_on_the_generator_of_the_setup_alone():
    edges = cliques(2, 4)
    first, again, other = (positions(edges, 8, seed, walks=3) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not first.requires_grad


def test_a_node_without_neighbours_has_a_small_position():
    found = positions(EDGES, 5, walks=40).abs()
    assert 0 < found[4].max() <= 0.5 / 8
    assert found[:4].max() > 0.5 / 8
    assert positions([(i, i) for i in range(3)], 3).isfinite().all()


def test_a_walk_shorter_than_the_window_is_no_error():
    assert positions(cliques(2, 4), 8, walk_length=2, window=5).isfinite().all()
