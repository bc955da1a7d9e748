"""What a seed fixes, in real jobs: recomputed by hand for two seeds, at a learning rate that changes nothing."""

import pytest
import torch

from .by_hand import mlp
from .conftest import DATASETS, drawn

VANISHING = {"learning_rate": 1e-30, "epochs": 2}
SEEDS = (0, 1)


@pytest.fixture
def runs(runs_in, request):
    """Teachers and students of one data set."""
    runs = runs_in(training=VANISHING)
    runs.run(request.param, "supervised", "kd", "spy")
    return runs


of_each = pytest.mark.parametrize("dataset, runs", [(name, name) for name in DATASETS], indirect=["runs"])


def initial(shapes, seed, scope):
    """Matrices uniform within ±√(6 / (rows + columns)), a stream for each name; biases zero."""
    for name, shape in shapes.items():
        if len(shape) == 2:
            bound = (6 / sum(shape)) ** 0.5
            yield name, (2 * torch.rand(shape, generator=drawn(seed, scope, name)) - 1) * bound
        else:
            yield name, torch.zeros(shape)


def assert_initial(weights, seed, scope):
    assert len(weights) >= 2
    for name, value in initial({name: value.shape for name, value in weights.items()}, seed, scope):
        torch.testing.assert_close(weights[name], value, rtol=1e-6, atol=1e-7)


@of_each
def test_initial_weights_are_of_the_seed_and_the_role_and_of_no_method(runs, dataset):
    for seed in SEEDS:
        for method in ("supervised", "kd", "spy"):
            assert_initial(runs.weights(dataset, method, seed), seed, "student")
        for pair in ("pair", "pair@other"):
            assert_initial(runs.weights(dataset, "teacher", seed, pair), seed, "teacher")
        assert_initial(runs.seen(seed)["projector"], seed, "projector")
    assert [record.seed for record in runs.records(dataset, "kd")] == list(SEEDS)


@of_each
def test_a_student_has_the_teachers_of_its_seed(runs, dataset):
    """Their outputs are those of evaluation, without dropout, also where a method runs the teacher itself."""
    for seed in SEEDS:
        seen = runs.seen(seed)
        for step in seen["steps"]:
            x = seen["setup"]["x"][step["nodes"]]
            for name, pair in (("teacher", "pair"), ("further", "pair@other")):
                by_hand = mlp(runs.weights(dataset, "teacher", seed, pair), x)
                torch.testing.assert_close(step[name], by_hand, rtol=1e-5, atol=1e-6)
        by_hand = mlp(runs.weights(dataset, "teacher", seed), seen["setup"]["x"])
        torch.testing.assert_close(seen["setup"]["teacher"], by_hand, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(seen["run_teacher"], by_hand, rtol=1e-5, atol=1e-6)


@of_each
def test_what_is_drawn_in_a_run_is_of_its_seed(runs, dataset):
    for seed in SEEDS:
        seen = runs.seen(seed)
        assert torch.equal(seen["prepare"], torch.rand(3, generator=drawn(seed, "prepare")))
        stream = drawn(seed, "method")
        for step in seen["steps"]:
            assert torch.equal(step["method"], torch.rand(3, generator=stream))
            assert step["dropout"] == drawn(seed, "dropout").initial_seed()


@pytest.mark.parametrize("runs", ["one_graph"], indirect=True)
def test_the_split_of_nodes_is_of_the_seed(runs):
    for seed in SEEDS:
        train = torch.randperm(60, generator=drawn(seed, "split"))[:12]
        for step in runs.seen(seed)["steps"]:
            assert step["labelled"].nonzero().flatten().tolist() == sorted(train.tolist())


@pytest.mark.parametrize("runs", ["many_graphs"], indirect=True)
def test_split_order_and_augmentation_of_graphs_are_of_the_seed(runs):
    """Six training graphs, four a batch, two epochs; then the random numbers go on where they were."""
    data, orders = runs.data("many_graphs"), []
    for seed in SEEDS:
        train = torch.randperm(11, generator=drawn(seed, "split"))[:6]
        order, noise = drawn(seed, "batches"), drawn(seed, "augment")
        batches = [ids for _ in range(2) for ids in train[torch.randperm(6, generator=order)].split(4)]
        steps = runs.seen(seed)["steps"]
        assert len(steps) == len(batches) == 4
        for step, ids in zip(steps, batches, strict=True):
            x = torch.cat([data.x[data.graph_ptr[i] : data.graph_ptr[i + 1]] for i in ids.tolist()])
            assert torch.equal(step["x"], x + torch.randn(x.shape, generator=noise))
            assert torch.equal(runs.seen(seed)["setup"]["x"][step["nodes"]], x)
        orders.append([ids.tolist() for ids in batches])
    assert orders[0] != orders[1]


@pytest.mark.parametrize("decay, step", [(0.0, 0.0), (0.1, 0.01)])
def test_weight_decay_is_of_projectors_too_and_not_of_adversaries(runs_in, decay, step):
    """As Training says. There is no gradient but the decay's, so each of Adam's steps is the learning rate."""
    runs = runs_in(training={"weight_decay": decay}, methods={"supervised": {}, "spy": {"decayed": True}})
    runs.run("one_graph", "spy")
    for seed in SEEDS:
        first, last = (each["projector"] for each in runs.seen(seed)["steps"])
        weight = first["projector.weight"]
        torch.testing.assert_close(last["projector.weight"], weight - step * weight.sign(), rtol=1e-4, atol=1e-6)
        assert torch.equal(last["adversary.weight"], first["adversary.weight"]) and first["adversary.weight"].any()
