"""The picture of a feature space shows what the runs had; its SVG carries every text as a comment, read here."""

import io
import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from distillbench.config.config import ConfigError
from distillbench.data.graph_data import GraphData, Split, symmetric_with_loops, write_data
from distillbench.figures.structure import Observed, structure_figure, view_of
from distillbench.figures.structure_panels import (
    Panel,
    View,
    draw_panels,
    ego_network,
    feature_distances,
    lay_out,
    links_among,
    nearness,
    project,
    rank_correlation,
)
from distillbench.jobs.train import train
from distillbench.paths import Cell, Paths
from distillbench.plugins import load
from distillbench.record import RecordError

ROOT = Path(__file__).parents[2]
PAIR = Cell("synthetic", "pyg", "gat")


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# distances and their correlation


def test_distances_are_euclidean_and_from_the_first_row():
    features = np.array([[1, 1], [4, 5], [1, 1], [1, -1]], np.float32)
    assert feature_distances(features).tolist() == [0, 5, 0, 2]
    assert not np.isfinite(feature_distances(np.array([[0.0], [np.nan], [np.inf]]))[1:]).any()


def test_rank_correlation_by_hand():
    a = np.array([0.0, 1, 2, 3, 4])
    assert rank_correlation(a, a) == 1
    assert rank_correlation(a, np.array([0.0, 1, 4, 9, 16])) == 1  # ranks, not values
    assert rank_correlation(a, np.array([0.0, 4, 3, 2, 1])) == -1  # the marked point itself, first in both, is left out
    assert rank_correlation(a, np.array([0.0, 2, 1, 4, 3])) == pytest.approx(1 - 6 * 4 / (4 * 15))


def test_rank_correlation_is_undefined_where_nothing_can_be_ranked():
    assert np.isnan(rank_correlation(np.array([0.0, 1, 2]), np.array([0.0, 1, 2])))
    assert np.isnan(rank_correlation(np.array([0.0, 1, 2, 3]), np.array([0.0, 5, 5, 5])))


def test_colours_are_ranks_without_the_marked_point():
    assert nearness(np.array([0.0, 3, 1, 100])).tolist() == [0.5, 0, 1]
    assert nearness(np.array([0.0, 2, 2, 2])).tolist() == [0.5, 0.5, 0.5]
    assert nearness(np.array([0.0, 7])).tolist() == [0] and not len(nearness(np.zeros(1)))


# what is drawn


def _star_of_stars(arms=10, leaves=30):
    """Node 0, linked to ``arms`` nodes, each linked to ``leaves`` leaves; one more link leads away from a leaf."""
    source = [0] * arms + [1 + arm for arm in range(arms) for _ in range(leaves)]
    destination = list(range(1, 1 + arms)) + list(range(1 + arms, 1 + arms + arms * leaves))
    far = 1 + arms + arms * leaves
    return symmetric_with_loops(
        torch.tensor([*source, far - 1]), torch.tensor([*destination, far]), far + 1
    ).numpy(), far


def test_the_neighbourhood_is_two_links_wide_and_limited():
    edges, far = _star_of_stars()
    everything = ego_network(edges, 0, most=1000)
    assert everything.tolist() == list(range(far))  # itself first, then ring by ring; not what is three links away
    some = ego_network(edges, 0, most=150)
    assert len(some) == 150 == len(set(some.tolist())) and some[:11].tolist() == list(range(11))
    arms_of_leaves = np.unique((some[11:] - 11) // 30)
    assert len(arms_of_leaves) == 10  # spread over all arms
    assert ego_network(edges, 0, most=5)[0] == 0 and len(ego_network(edges, 0, most=5)) == 5


def test_links_are_drawn_once_and_among_drawn_nodes_only():
    edges = symmetric_with_loops(torch.tensor([5, 5, 3]), torch.tensor([3, 2, 0]), 6).numpy()
    assert sorted(map(sorted, links_among(np.array([5, 3, 2]), edges).tolist())) == [[0, 1], [0, 2]]


def test_solid_clouds_are_seen_in_parallel_projection():
    x = np.random.default_rng(0).normal(size=(20, 3))
    positions, order = project(x)
    assert positions.shape == (20, 2) and sorted(order) == list(range(20))
    assert np.linalg.norm(positions[0] - positions[1]) <= np.linalg.norm(x[0] - x[1])
    up, _ = project(np.array([[0, 0, 0], [0, 0, 1.0]]))
    assert up[1, 0] == pytest.approx(up[0, 0]) and up[1, 1] > up[0, 1]
    assert (project(x[:, :2])[0] == x[:, :2]).all() and project(x[:, :1])[0].shape == (20, 2)


def test_a_cloud_s_point_furthest_from_the_centre_is_marked(data_of):
    data = data_of("graph-multiclass", clouds=True)
    view = view_of(data, data.split, 0, 1, None)
    x = data.graph(int(data.split.test[1])).x
    assert view.graph == data.split.test[1] and sorted(view.nodes) == list(range(len(x))) and not len(view.links)
    assert view.nodes[0] == (x - x.mean(0)).norm(dim=1).argmax()
    assert view_of(data, data.split, 0, 1, 3).nodes[0] == 3


def test_a_node_of_medium_degree_of_the_test_part_is_marked(data_of):
    data = data_of("multiclass")
    view = view_of(data, data.split, 0, 0, None)
    degrees = data.edge_index[1].bincount()
    assert view.nodes[0] in data.split.test
    of_test = degrees[data.split.test]
    assert (of_test < degrees[view.nodes[0]]).sum() <= len(of_test) / 2 <= (of_test <= degrees[view.nodes[0]]).sum()


def test_no_label_is_looked_at(data_of):
    data = data_of("multilabel")
    hidden = GraphData(**{**vars(data), "y": torch.full_like(data.y, torch.nan)})
    for one, other in zip(view_of(data, data.split, 0, 0, None), view_of(hidden, data.split, 0, 0, None), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize(
    ("task", "graph", "node", "message"),
    [
        ("multilabel", 2, None, r"structure\.graph: 2: the test part of seed 7 has graphs 0 to 1"),
        ("multiclass", 1, None, r"structure\.graph: 1: the test part of seed 7 has graph 0 only"),
        ("multiclass", 0, 56, r"structure\.node: 56: graph 0 of the test part has nodes 0 to 55"),
        ("graph-multiclass", -1, None, r"structure\.graph: -1: the test part of seed 7 has clouds 0 to 1"),
    ],
)
def test_what_there_is_not_is_named(data_of, task, graph, node, message):
    data = data_of(task, clouds=task == "graph-multiclass")
    with pytest.raises(ConfigError, match=message):
        view_of(data, data.split, 7, graph, node)


def test_a_node_without_links_can_be_marked():
    alone = symmetric_with_loops(torch.tensor([1]), torch.tensor([2]), 3)
    x, y, parts = torch.eye(3), torch.tensor([0, 1, 0]), Split(*torch.tensor([[0], [1], [2]]))
    data = GraphData(x, alone, y, torch.tensor([0, 3]), "multiclass", "transductive", 2, parts)
    assert view_of(data, parts, 0, 0, 0).nodes.tolist() == [0]


# whose features


def _params(role="student", *, method="lsp", epochs=6, **training):
    model = {"model": "gat", "hidden": 3, "heads": 2, "dropout": 0.2}
    needs = method != "supervised"
    plugin = ROOT / f"methods/{method}.py"
    params = {
        **PAIR._asdict(),
        "seeds": [0],
        "run_seconds": 60,
        "dataset_file": str(ROOT / "datasets/synthetic.py"),
        "dataset_params": {"nodes": 20, "train": 4},
        "model": model,
        "training": {"epochs": epochs, "batch_size": 2, **training},
        "protocol": {},
    }
    requires = ["hidden", "edges"] if needs else []
    about = {"name": method, "files": {method: str(plugin)}, "params": {}, "requires": requires}
    about["teachers"] = [PAIR.pair] if needs else []
    return params if role == "teacher" else {**params, "teacher_model": model, "method": about}


@pytest.fixture(scope="module")
def results(tmp_path_factory, one_thread):
    """A teacher and two students, trained; one student that diverged."""
    folder = tmp_path_factory.mktemp("results")
    plugin = load("dataset", ROOT / "datasets/synthetic.py")
    dataset = plugin(plugin.Params(**_params()["dataset_params"]))
    write_data(Paths(folder).data("synthetic"), "synthetic", dataset, dataset.load())
    for params in (_params("teacher"), _params(schedule="cosine"), _params(method="supervised", schedule="cosine")):
        _train(folder, params)
    return folder


def _train(folder, params):
    train(
        results=str(folder),
        shard=0,
        params=params,
        sources=[],
        execution={"checkpoint_seconds": 60, "logits": 0},
        planned_runs=1,
    )


def _figure(folder, to, students, **changes):
    params = {"seed": 0, "graph": 0, "node": None, "epochs": [], "layers": [-1, -1], "teacher": _params("teacher")}
    roles = ["teacher", *students]
    structure_figure(
        str(folder),
        [str(Paths(folder).shard(PAIR, role, 0)) for role in roles],
        {**params, "students": students, **changes},
        str(to / "a.png"),
        str(to / "a.svg"),
    )
    assert (to / "a.png").read_bytes().startswith(b"\x89PNG")
    return re.findall(r"<!-- (.*?) -->", (to / "a.svg").read_text(encoding="utf-8"), re.DOTALL)


STUDENTS = {name: _params(method=name, schedule="cosine") for name in ("lsp", "supervised")}


def test_it_reads_without_explanation(results, tmp_path):
    shown = _figure(results, tmp_path, STUDENTS, epochs=[1, 3])
    assert "synthetic, gat, PyG: structure of the feature space" in shown
    expected = {"teacher", "student with lsp", "student alone (supervised)", "after epoch 1", "after epoch 3"}
    assert expected | {"selected epoch", "near", "far"} <= set(shown)
    everything = " ".join(" ".join(shown).split())
    assert "Seed 0, graph 0 of the test part" in everything and "by rank within the panel" in everything
    assert everything.count("ρ =") == 6 and everything.count("of 6") == 3
    assert "not exactly the stored run" not in everything


def test_another_run_than_the_stored_one_is_said_to_be_another(results, tmp_path):
    others = {"supervised": _params(method="supervised", schedule="cosine", learning_rate=0.02)}
    assert "trained anew: not exactly the stored run" in _figure(results, tmp_path, others, epochs=[2])


def test_altered_weights_are_refused(results, tmp_path):
    file = Paths(results).runs(PAIR, "lsp") / "seed-0.pt"
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    try:
        with pytest.raises(RecordError, match=r"seed-0\.pt: does not match its record"):
            _figure(results, tmp_path, STUDENTS)
    finally:
        file.write_bytes(content)


def test_a_failed_run_is_a_panel_that_says_so(results, tmp_path):
    diverging = _params(method="supervised", learning_rate=1e38)
    diverging["method"]["name"] = "broken"
    _train(results, diverging)
    shown = _figure(results, tmp_path, {"lsp": STUDENTS["lsp"], "broken": diverging}, epochs=[1, 6])
    everything = " ".join(" ".join(shown).split())
    assert "no run: diverged: " in everything and "no weights: diverged: " in everything
    assert everything.count("ρ =") >= 3  # of the student that did not fail


def test_without_a_teacher_the_students_are_drawn_all_the_same(results, tmp_path):
    shard = Paths(results).shard(PAIR, "teacher", 0)
    folder = tmp_path / "results"
    for name in ("data", "runs", "teachers"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(results / name)
    (folder / "teachers").unlink()
    (folder / shard.relative_to(results)).parent.mkdir(parents=True)
    params = _params("teacher", learning_rate=1e38)
    _train(folder, params)
    assert json.loads((folder / shard.relative_to(results)).read_text())[0]["status"] == "diverged"
    shown = _figure(folder, tmp_path, {"supervised": STUDENTS["supervised"]}, teacher=params)
    assert any(text.startswith("no run: diverged") for text in shown) and not any("ρ =" in text for text in shown)


def _equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _weights(outcome):
    return torch.load(io.BytesIO(outcome.weights), weights_only=True)


@pytest.mark.parametrize("method", ["supervised", "lsp"])
def test_weights_after_an_epoch_are_those_of_a_run_of_that_many_epochs(results, method):
    data, outputs = Paths(results).data("synthetic"), Paths(results).runs(PAIR, "teacher") / "seed-0.outputs.pt"
    outputs = [outputs] if method == "lsp" else []
    seen = Observed(_params(method=method), data).watch(0, [2, 4, 6], outputs)
    assert list(seen.states) == [2, 4, 6] and seen.reason == ""
    for epochs in (2, 6):
        shorter = {**_params(method=method, epochs=epochs), "protocol": {"selection": "last"}}
        assert _equal(seen.states[epochs], _weights(Observed(shorter, data).run(0, teacher_outputs=outputs)))


def test_a_falling_learning_rate_falls_as_in_the_whole_run(results):
    data = Paths(results).data("synthetic")
    cosine = _params(method="supervised", schedule="cosine") | {"protocol": {"selection": "last"}}
    last = _weights(Observed(cosine, data).run(0))
    watched = Observed(cosine, data).watch(0, [3, 6])
    assert _equal(watched.states[6], last)
    assert _equal(watched.states[3], Observed(cosine, data).watch(0, [3]).states[3])
    planned_shorter = _params(method="supervised", schedule="cosine", epochs=3) | {"protocol": {"selection": "last"}}
    assert not _equal(watched.states[3], _weights(Observed(planned_shorter, data).run(0)))


def test_epochs_after_the_end_of_training_are_said_to_be_missing(results):
    seen = Observed(_params(method="supervised", epochs=3), Paths(results).data("synthetic")).watch(0, [2, 50])
    assert list(seen.states) == [2] and seen.reason == "training ended after epoch 3"


# the figure


def _view(points=12, links=()):
    positions = np.random.default_rng(0).normal(size=(points, 2)) if not len(links) else lay_out(points, links)
    return View(0, np.arange(points), positions, np.arange(points), np.array(links).reshape(-1, 2), "a cloud")


@pytest.mark.parametrize("links", [(), np.array([[0, 1], [1, 2], [2, 3]])], ids=["cloud", "graph"])
def test_equal_input_gives_equal_files(tmp_path, links):
    files = []
    for name in ("a", "b"):
        view, near = _view(links=links), Panel(np.arange(12.0), "epoch 1 of 2")
        png, svg = tmp_path / f"{name}.png", tmp_path / f"{name}.svg"
        draw_panels(view, near, {"student": [near]}, ["selected epoch"], title="a", text="b", png=png, svg=svg)
        files.append((png.read_bytes(), svg.read_bytes()))
    assert files[0] == files[1]


def test_features_that_are_all_the_same_are_drawn_too(tmp_path):
    svg = tmp_path / "a.svg"
    flat, near = Panel(np.zeros(12), ""), Panel(np.arange(12.0), "")
    draw_panels(_view(), near, {"s": [flat]}, ["selected"], title="a", text="b", png=tmp_path / "a.png", svg=svg)
    assert "ρ is not defined here" in svg.read_text()
    draw_panels(
        _view(1), Panel(np.zeros(1), ""), {}, ["selected"], title="a", text="b", png=tmp_path / "a.png", svg=svg
    )
