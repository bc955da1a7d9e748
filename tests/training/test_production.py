"""The production setting: what is unseen is not there in training, and is in the test; and students without a graph."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from distillbench.config.specs import LayeredSpec
from distillbench.data.graph_data import Split, write_data
from distillbench.data.production import UNSEEN, extended, observed, place
from distillbench.models.gnn import GNN
from distillbench.plugins import load
from distillbench.training.experiment import Experiment
from distillbench.training.inputs import Inputs
from distillbench.training.steps import subgraph

ROOT = Path(__file__).parents[2]


def test_a_fifth_of_the_test_part_is_unseen_and_the_seed_says_which():
    split = Split(torch.arange(10), torch.arange(10, 20), torch.arange(20, 70))
    seen = [observed(split, 80, seed) for seed in (0, 0, 1)]
    missing = [sorted(set(range(80)) - set(nodes.tolist())) for nodes in seen]
    assert len(missing[0]) == 10
    assert set(missing[0]) <= set(split.test.tolist())
    assert missing[0] == missing[1] != missing[2]


def test_a_split_is_renumbered_with_its_nodes():
    nodes = torch.tensor([0, 2, 3, 7])
    split = place(Split(torch.tensor([7, 0]), torch.tensor([3]), torch.tensor([2])), nodes)
    assert [part.tolist() for part in split] == [[3, 0], [2], [1]]


def test_the_observed_graph_has_the_edges_among_its_nodes_and_no_others(data_of):
    data = data_of("multiclass")
    nodes = torch.arange(0, data.num_nodes, 2)
    part = subgraph(data, nodes)  # checks itself: symmetric, with self-loops, sorted
    kept = set(nodes.tolist())
    found = {(nodes[a].item(), nodes[b].item()) for a, b in part.edge_index.T.tolist()}
    assert found == {(a, b) for a, b in data.edge_index.T.tolist() if a in kept and b in kept}
    assert torch.equal(part.x, data.x[nodes]) and torch.equal(part.y, data.y[nodes])


def test_an_unseen_nodes_inputs_are_the_mean_of_its_observed_neighbours(data_of):
    data = data_of("multiclass")
    nodes = torch.arange(5, data.num_nodes)
    extra = torch.randn(len(nodes), 3, generator=torch.Generator().manual_seed(0))
    found = extended(extra, nodes, data)
    assert torch.equal(found[nodes], extra)
    for node in range(5):
        around = [a for a, b in data.edge_index.T.tolist() if b == node and a >= 5]
        expected = extra[torch.tensor(around) - 5].mean(dim=0) if around else torch.zeros(3)
        assert torch.allclose(found[node], expected, atol=1e-6)


def test_the_observed_part_of_data_with_published_splits_has_none_of_them(data_of):
    data = data_of("multiclass")
    several = replace(data, split=None, splits=torch.zeros(3, data.num_nodes, dtype=torch.int8))
    assert subgraph(several, torch.arange(5)).splits is None


def experiment(folder, backend, setting, method=None, student="mlp"):
    file = ROOT / "datasets/digits.py"
    params = {
        "backend": backend.name,
        "dataset_file": str(file),
        "dataset_params": {},
        "model": {"model": student, "hidden": 8},
        "training": {"epochs": 3},
        "protocol": {"setting": setting},
    }
    if method:
        params["teacher_model"] = {"model": "gcn", "hidden": 8}
        params["method"] = {"files": {method: str(ROOT / f"methods/{method}.py")}, "params": {}, "requires": ["logits"]}
    return Experiment(params, folder)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    plugin = load("dataset", ROOT / "datasets/digits.py")
    dataset = plugin(plugin.Params())
    write_data(folder, "digits", dataset, dataset.load())
    return folder


def test_in_production_training_has_neither_the_unseen_nodes_nor_their_edges(digits, backend, monkeypatch):
    sizes = []
    original = Inputs.shuffled

    def spy(self, *arguments):
        sizes.append((self.data.num_nodes, self.data.edge_index.shape[1]))
        return original(self, *arguments)

    monkeypatch.setattr(Inputs, "shuffled", spy)
    outcomes = {}
    for setting in ("transductive", "production"):
        teacher = experiment(digits, backend, setting, student="gcn")
        outcomes[setting] = teacher.run(0)
    usual, production = outcomes["transductive"], outcomes["production"]
    test = usual.split_sizes["test"]
    assert sizes[0][0] - sizes[-1][0] == round(UNSEEN * test)
    assert sizes[-1][1] < sizes[0][1]
    assert len(production.outputs.logits) == sizes[-1][0]
    metrics = production.test_metrics
    unseen = round(UNSEEN * test) / test
    assert production.test == pytest.approx(
        unseen * metrics["accuracy_unseen"] + (1 - unseen) * metrics["accuracy_seen"], abs=1e-12
    )
    assert "accuracy_unseen" not in usual.test_metrics


def test_a_student_of_the_production_setting_learns_from_the_teacher_of_that_setting(digits, backend, tmp_path):
    from distillbench.training.inputs import save_outputs

    teacher = experiment(digits, backend, "production", student="gcn").run(0)
    save_outputs(tmp_path / "outputs.pt", teacher.outputs)
    outcome = experiment(digits, backend, "production", "glnn").run(0, teacher_outputs=[tmp_path / "outputs.pt"])
    assert outcome.status == "ok"
    assert {"accuracy_seen", "accuracy_unseen"} <= set(outcome.test_metrics)
    other = experiment(digits, backend, "transductive", "glnn")
    outcome = other.run(0, teacher_outputs=[tmp_path / "outputs.pt"])  # whose graph has fewer nodes
    assert outcome.status == "error" and "size of tensor" in outcome.reason


class Untouchable:
    """A graph that cannot be read."""

    def __getattribute__(self, name):
        raise AssertionError(f"the graph was touched: {name}")


def test_a_student_without_a_graph_touches_none_at_run_time(backend):
    model = GNN(LayeredSpec(model="mlp", hidden=8, layers=3, residual=True), backend, 4, 3).eval()
    out = model(Untouchable(), torch.randn(5, 4))
    assert out.logits.shape == (5, 3) and all(not edges.numel() for edges in out.edge_index)
    with pytest.raises(AssertionError, match="the graph was touched"):
        GNN(LayeredSpec(model="gcn", hidden=8), backend, 4, 3).eval()(Untouchable(), torch.randn(5, 4))
