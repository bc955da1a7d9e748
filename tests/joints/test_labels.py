"""Which labels a run learns from, is selected by and is scored on, in real jobs."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from distillbench.data.graph_data import write_data
from distillbench.plugins import load
from distillbench.training import experiment

from .by_hand import accuracy, gcn, micro_f1, mlp
from .conftest import drawn

METHODS = ("teacher", "supervised", "kd", "spy")
SETTINGS = [("one_graph", "transductive"), ("one_graph", "production"), ("many_graphs", "transductive")]
of_each = pytest.mark.parametrize("dataset, setting", SETTINGS)


def parts(runs, dataset):
    """Rows of the labels that are for training, validation and test in seed 0's split."""
    if dataset == "one_graph":
        return torch.randperm(60, generator=drawn(0, "split")).split([12, 18, 30])
    ptr = runs.data(dataset).graph_ptr.tolist()
    graphs = torch.randperm(11, generator=drawn(0, "split")).split([6, 2, 3])
    return [torch.cat([torch.arange(ptr[i], ptr[i + 1]) for i in part.tolist()]) for part in graphs]


def finished(runs_in, dataset, name, *, poisoned=None, **changes):
    """Seed 0's runs; the labels of one part are changed on disk before anything trains."""
    runs = runs_in(name, seeds=1, only=dataset, **changes)
    runs.prepare(dataset)
    if poisoned is not None:
        data = runs.data(dataset)
        rows, y = parts(runs, dataset)[poisoned], data.y.clone()
        y[rows] = (y[rows] + 1) % 3 if dataset == "one_graph" else 1 - y[rows]
        plugin = load("dataset", Path(runs.plan.dataset_file(dataset)))
        write_data(runs.plan.paths.data(dataset), dataset, plugin(plugin.Params()), replace(data, y=y))
    runs.train(dataset, "supervised", "kd", "spy")
    return runs


def weights_equal(runs, others, dataset, method):
    one, other = (each.weights(dataset, method, 0) for each in (runs, others))
    assert one.keys() == other.keys() and len(one) == 4
    return all(torch.equal(value, other[name]) for name, value in one.items())


@of_each
def test_other_test_labels_change_the_test_score_and_nothing_else(runs_in, dataset, setting):
    changes = {"protocol": {"setting": setting}, "training": {"epochs": 15}}
    right = finished(runs_in, dataset, "right", **changes)
    poisoned = finished(runs_in, dataset, "poisoned", poisoned=2, **changes)
    for method in METHODS:
        assert weights_equal(right, poisoned, dataset, method)
        (a,), (b,) = (runs.records(dataset, method) for runs in (right, poisoned))
        assert (a.status, a.val, a.best_epoch) == ("ok", b.val, b.best_epoch)
        assert a.test != b.test
    for ending in ("pt", "outputs.pt"):
        files = [runs.file(dataset, "teacher", 0, ending).read_bytes() for runs in (right, poisoned)]
        assert files[0] == files[1]


@of_each
def test_other_validation_labels_change_nothing_where_nothing_is_selected_by_them(runs_in, dataset, setting):
    last = {"setting": setting, "selection": "last", "teacher_selection": "last"}
    right = finished(runs_in, dataset, "right", protocol=last)
    poisoned = finished(runs_in, dataset, "poisoned", protocol=last, poisoned=1)
    for method in METHODS:
        assert weights_equal(right, poisoned, dataset, method)
        (a,), (b,) = (runs.records(dataset, method) for runs in (right, poisoned))
        assert a.test == b.test and a.val != b.val


@of_each
def test_other_training_labels_change_the_weights(runs_in, dataset, setting):
    """Else the two tests above would show nothing."""
    right = finished(runs_in, dataset, "right", protocol={"setting": setting})
    poisoned = finished(runs_in, dataset, "poisoned", protocol={"setting": setting}, poisoned=0)
    for method in METHODS:
        assert not weights_equal(right, poisoned, dataset, method)


@of_each
def test_the_training_loop_and_the_methods_are_given_no_label_of_another_part(runs_in, monkeypatch, dataset, setting):
    given = []

    def fit(model, method, inputs, split, *arguments, **options):
        given.append((inputs.data, split))
        return trained(model, method, inputs, split, *arguments, **options)

    trained = experiment.fit
    monkeypatch.setattr(experiment, "fit", fit)
    runs = finished(runs_in, dataset, "project", protocol={"setting": setting})
    train, val, test = parts(runs, dataset)
    assert len(given) == 5  # two teachers, three students
    for data, split in given:
        labels = data.y.nan_to_num(nan=-1.0)
        assert len(split.test) == 0
        if setting == "production":  # a fifth of the test nodes is not there at all
            assert len(labels) == 60 - 6 and int((labels < 0).sum()) == 24
        else:
            assert (labels[test] == -1).all() and (labels[torch.cat([train, val])] >= 0).all()
    seen = runs.seen(0)
    for labels, labelled in [(each["labels"], each["labelled"]) for each in (seen["setup"], *seen["steps"])]:
        hidden = (labels.nan_to_num(nan=-1.0) < 0).view(len(labels), -1).all(dim=1)
        assert torch.equal(hidden, ~labelled)
        if dataset == "one_graph":
            assert labelled.sum() == 12


@of_each
def test_scores_are_those_of_the_stored_weights_on_their_parts(runs_in, dataset, setting):
    """By hand. A seen test node of the production setting is predicted without the nodes that were not there."""
    runs = finished(runs_in, dataset, "project", protocol={"setting": setting}, training={"epochs": 15})
    data, (_, val, test) = runs.data(dataset), parts(runs, dataset)
    metric = accuracy if dataset == "one_graph" else micro_f1
    found = []
    for method in METHODS:
        (record,) = runs.records(dataset, method)
        weights = runs.weights(dataset, method, 0)
        if setting == "production":
            known, logits = in_production(data, test, weights, method)
        elif dataset == "one_graph" and method != "teacher":
            known = logits = gcn(weights, data.x, data.edge_index)
        else:
            known = logits = mlp(weights, data.x)
        assert record.val == pytest.approx(metric(known[val], data.y[val]), abs=1e-9)
        assert record.test == pytest.approx(metric(logits[test], data.y[test]), abs=1e-9)
        found.append((record.val, record.test))
    assert all(val != test for val, test in found)


def in_production(data, test, weights, method):
    """Logits on the graph that is there in training, and those of the test: by node, as the data number them."""
    there = torch.ones(60, dtype=torch.bool)
    order = torch.randperm(30, generator=drawn(0, "unseen"))
    there[test.sort().values[order[:6]]] = False
    edges = data.edge_index[:, there[data.edge_index].all(dim=0)]
    if method == "teacher":
        return (mlp(weights, data.x),) * 2
    edges = torch.cat([edges, (~there).nonzero().T.expand(2, -1)], dim=1)  # a node by itself changes no other
    known, whole = gcn(weights, data.x, edges), gcn(weights, data.x, data.edge_index)
    assert not torch.allclose(known[there], whole[there])
    return known, torch.where(there[:, None], known, whole)
