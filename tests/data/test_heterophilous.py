"""Actor, Chameleon, Squirrel, Tolokers, Minesweeper: the files' counts and splits, and what is wrong named."""

import io
import re
import urllib.error
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch_geometric.data
from sklearn.metrics import roc_auc_score

from distillbench.data import archives
from distillbench.data.cards import read_card
from distillbench.data.graph_data import DataError, read_data, write_data
from distillbench.plugins import declaration, load
from distillbench.statistics import compare
from tests.needs import SHARED, without

ROOT = Path(__file__).parents[2]
FOLDER = SHARED / "graphs"
# file, nodes, features, links, edges (symmetric, with self-loops), nodes of each class
KNOWN = {
    "actor": ("actor.npz", 7_600, 932, 26_659, 60_918, [853, 1337, 1630, 1815, 1965]),
    "chameleon": ("chameleon_filtered.npz", 890, 2_325, 8_854, 18_598, [242, 134, 209, 164, 141]),
    "squirrel": ("squirrel_filtered.npz", 2_223, 2_089, 46_998, 96_219, [756, 516, 397, 321, 233]),
    "tolokers": ("tolokers.npz", 11_758, 10, 519_000, 1_049_758, [9192, 2566]),
    "minesweeper": ("minesweeper.npz", 10_000, 7, 39_402, 88_804, [8000, 2000]),
}
SIZES = {  # train, val, test of the first split
    "actor": [3648, 2432, 1520], "chameleon": [409, 287, 194], "squirrel": [1053, 718, 452],
    "tolokers": [5879, 2939, 2940], "minesweeper": [5000, 2500, 2500],
}  # fmt: skip


def plugin(name):
    return load("dataset", ROOT / "datasets" / f"{name}.py")


@pytest.fixture(scope="module")
def loaded():
    """``loaded(name)``: (data set, data, the file's arrays) of a real file, read once."""
    known = {}

    def get(name):
        path = FOLDER / KNOWN[name][0]
        if not path.is_file():
            pytest.skip(without(path))
        if name not in known:
            found = plugin(name)
            dataset = found(found.Params(path=str(path)))
            with np.load(path) as arrays:
                known[name] = dataset, dataset.load(), dict(arrays)
        return known[name]

    return get


# The real files


@pytest.mark.parametrize("name", KNOWN)
def test_the_counts_are_those_stated(loaded, name):
    dataset, data, arrays = loaded(name)
    _, nodes, features, links, edges, classes = KNOWN[name]
    assert data.x.shape == (nodes, features)
    assert len(arrays["edges"]) == links
    assert data.edge_index.shape == (2, edges)
    assert edges == 2 * links + nodes  # every link is in the file once, none is a self-loop
    assert data.y.bincount().tolist() == classes
    assert data.num_classes == len(classes)
    assert data.splits.shape == (10, nodes)
    assert list(dataset.split(data, 0).sizes().values()) == SIZES[name]
    text = (ROOT / "datasets" / f"{name}.py").read_text()
    for number in (nodes, links, edges):
        assert f"{number:,}" in text


@pytest.mark.parametrize("name", KNOWN)
def test_rows_and_links_are_those_of_the_file(loaded, name):
    _, data, arrays = loaded(name)
    assert np.array_equal(data.x.numpy(), arrays["node_features"])
    assert np.array_equal(data.y.numpy(), arrays["node_labels"])
    n = data.num_nodes
    found = data.edge_index[:, data.edge_index[0] < data.edge_index[1]]
    assert np.array_equal(
        np.unique(found[0].numpy() * n + found[1].numpy()),
        np.unique(arrays["edges"].min(axis=1) * n + arrays["edges"].max(axis=1)),
    )


@pytest.mark.parametrize("name", KNOWN)
def test_seed_s_has_the_published_split_s_modulo_ten(loaded, name):
    dataset, data, arrays = loaded(name)
    assert dataset.resplit
    for seed in (*range(10), 10, 23):
        for part, rows in dataset.split(data, seed)._asdict().items():
            assert np.array_equal(rows.numpy(), arrays[f"{part}_masks"][seed % 10].nonzero()[0])


@pytest.mark.parametrize("name", KNOWN)
def test_a_file_is_canonical_by_its_digest(loaded, name, tmp_path):
    dataset, _, arrays = loaded(name)
    about = dataset.provenance()
    assert (about["canonical"], about["remark"]) == (True, "")
    dataset.check_name(name)
    path = tmp_path / KNOWN[name][0]
    np.savez(path, **arrays)  # the same content in another file
    found = plugin(name)
    other = found(found.Params(path=str(path)))
    other.load()
    with pytest.raises(DataError, match=rf"datasets\.{name}: not the {KNOWN[name][0]} of .* `my-{name}: "):
        other.check_name(name)


@pytest.mark.parametrize("name", ["actor", "minesweeper"])
def test_what_is_written_is_read_with_splits_metric_and_correction(loaded, name, tmp_path):
    dataset, data, _ = loaded(name)
    write_data(tmp_path, name, dataset, data)
    found = read_data(tmp_path)
    assert found.digest == data.digest
    assert torch.equal(found.splits, data.splits)
    card = read_card(tmp_path / "data.json")
    assert card.resplit is True
    assert card.metric == {"actor": "accuracy", "minesweeper": "roc_auc"}[name]
    assert (found.task.metric_name, found.task.name) == (card.metric, "multiclass")


def test_runs_on_ten_splits_know_what_their_training_parts_share(loaded, tmp_path):
    dataset, data, _ = loaded("chameleon")
    write_data(tmp_path, "chameleon", dataset, data)
    card = read_card(tmp_path / "data.json")
    up = np.linspace(0.01, 0.03, 10)
    rows = []
    for seed in range(10):
        sizes = dataset.split(data, seed).sizes()
        for method, test in (("supervised", 0.4), ("kd", 0.4 + up[seed])):
            rows.append({
                "dataset": "chameleon", "backend": "pyg", "pair": "gat", "method": method, "role": "student",
                "seed": seed, "status": "ok", "reason": "", "metric": card.metric, "test": test, "params": 1,
                "resplit": card.resplit, "n_train": sizes["train"], "n_val": sizes["val"], "n_test": sizes["test"],
            })  # fmt: skip
    found = compare.compare(pd.DataFrame(rows)).set_index("method").loc["kd"]
    share = np.mean([row["n_train"] / (row["n_train"] + row["n_val"] + row["n_test"]) for row in rows])
    error = np.std(up, ddof=1) * np.sqrt(1 / 10 + share / (1 - share))
    assert found["se"] == pytest.approx(error, rel=1e-3) and found["se"] > 2 * np.std(up, ddof=1) / np.sqrt(10)


@pytest.mark.parametrize("name", ["tolokers", "minesweeper"])
def test_two_classes_are_scored_by_roc_auc_and_classified_all_the_same(loaded, name):
    _, data, _ = loaded(name)
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(data.num_nodes, 2, generator=random)
    found = data.task.metrics(logits, data.y)
    assert list(found) == ["roc_auc", "accuracy", "mean_class_accuracy"]
    score = (logits[:, 1].double() - logits[:, 0].double()).numpy()
    assert found["roc_auc"] == pytest.approx(roc_auc_score(data.y, score), abs=1e-12)
    assert data.graph(0).task is data.task


@pytest.mark.parametrize("name", KNOWN)
def test_what_is_declared_is_read_without_the_file(name):
    declared = declaration("dataset", ROOT / "datasets" / f"{name}.py")
    assert (declared.task, declared.setting, declared.splits) == ("multiclass", "transductive", 10)
    assert declared.attributes.get("metric", "") == ("roc_auc" if name in ("tolokers", "minesweeper") else "")
    assert declared.licence.startswith("MIT")


# Files that are not as they should be

CONTENT = {
    "node_features": np.eye(4, 3, dtype=np.float32), "node_labels": np.array([0, 1, 1, 0]),
    "edges": np.array([[0, 1], [1, 2]]),
    "train_masks": np.array([[True, True, False, False]] * 10),
    "val_masks": np.array([[False, False, True, False]] * 10),
    "test_masks": np.array([[False, False, False, True]] * 10),
}  # fmt: skip


@pytest.fixture
def written(tmp_path):
    """``written(edges=...)``: a small file as Tolokers' with this in place of an array; None leaves it out."""

    def write(**changes):
        path = tmp_path / "small.npz"
        np.savez(path, **{name: value for name, value in (CONTENT | changes).items() if value is not None})
        found = plugin("tolokers")
        return found(found.Params(path=str(path)))

    return write


def test_links_are_made_symmetric_with_loops_and_a_node_of_no_part_stays_out(written):
    dataset = written(test_masks=np.zeros((10, 4), dtype=bool), val_masks=np.array([[False, False, True, True]] * 10))
    data = dataset.load()
    assert data.edge_index.T.tolist() == [[0, 0], [1, 0], [0, 1], [1, 1], [2, 1], [1, 2], [2, 2], [3, 3]]
    with pytest.raises(DataError, match="tolokers, split of seed 0: nothing is left for test"):
        dataset.split(data, 0)
    masks = CONTENT["train_masks"].copy()
    masks[3] = [True, False, False, False]
    dataset = written(train_masks=masks)
    split = dataset.split(dataset.load(), 13)
    assert [part.tolist() for part in split] == [[0], [2], [3]]


def test_features_and_labels_are_those_of_the_file_and_the_metric_is_the_data_sets(written):
    features = np.array([[1.5, -2, 0], [0, 0.25, 4], [3, 3, 3], [-1, 0, 2]], dtype=np.float32)
    data = written(node_features=features, node_labels=np.array([0, 1, 1, 1])).load()
    assert data.x.tolist() == features.tolist()
    assert data.y.tolist() == [0, 1, 1, 1]
    assert (data.num_classes, data.task.metric_name) == (2, "roc_auc")


WRONG = [
    ({"edges": None}, "has no edges.npy"),
    ({"node_features": np.ones(4, dtype=np.float32)}, r"node_features\.npy: finite floats \[N, F\] expected"),
    ({"node_features": np.full((4, 3), np.nan, np.float32)}, r"node_features\.npy: finite floats"),
    ({"node_features": np.full((4, 3), 1e39)}, r"node_features\.npy: finite floats expected, row 0"),
    ({"node_features": np.float32(1)}, r"node_features\.npy: finite floats \[N, F\] expected, float32 \[\]"),
    ({"node_features": np.ones((4, 3), dtype=np.int64)}, r"node_features\.npy: finite floats .* int64"),
    ({"node_labels": np.array([0, 1, 2, 0])}, r"node_labels\.npy: 4 integers from 0 to 1 expected"),
    ({"node_labels": np.array([0, 1, 1])}, r"node_labels\.npy: 4 integers"),
    ({"node_labels": np.array([0.0, 1, 1, 0])}, r"node_labels\.npy: 4 integers"),
    ({"edges": np.array([[0, 4]])}, r"edges\.npy: names nodes from 0 to 4, but nodes are 0 to 3"),
    ({"edges": np.array([[-1, 3]])}, r"edges\.npy: names nodes from -1 to 3"),
    ({"edges": np.zeros((2, 3), dtype=np.int64)}, r"edges\.npy: integers \[E, 2\] expected"),
    ({"val_masks": np.zeros((10, 4))}, r"val_masks\.npy: bool \[10, 4\] expected, float64 \[10, 4\]"),
    ({"test_masks": np.zeros((9, 4), dtype=bool)}, r"test_masks\.npy: bool \[10, 4\] expected, bool \[9, 4\]"),
    ({"val_masks": np.ones((10, 4), dtype=bool)}, r"val_masks\.npy: has nodes of another part"),
    ({"node_labels": np.array([{}], dtype=object)}, r"node_labels\.npy: not an array"),
]


@pytest.mark.parametrize("changes, message", WRONG)
def test_what_is_wrong_with_a_file_is_named(written, tmp_path, changes, message):
    with pytest.raises(DataError, match=rf"{re.escape(str(tmp_path))}/small\.npz: {message}"):
        written(**changes).load()


def test_a_file_that_is_missing_or_cut_short_is_named(written, tmp_path):
    dataset = written()
    path = tmp_path / "small.npz"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=rf"{path}: cannot be read as a zip archive"):
        dataset.load()
    path.unlink()
    with pytest.raises(DataError, match=rf"{path}: no such file or folder; correct `path`"):
        dataset.load()


# Without a path


@pytest.mark.parametrize("name", KNOWN)
def test_without_a_path_the_file_is_fetched_from_the_repository_once(monkeypatch, tmp_path, name):
    monkeypatch.chdir(tmp_path)
    asked, file, found = [], KNOWN[name][0], plugin(name)

    def offline(url, *arguments, **options):
        asked.append(url)
        raise urllib.error.URLError("no way out")

    monkeypatch.setattr(torch_geometric.data, "download_url", offline)
    where = f"https://github.com/yandex-research/heterophilous-graphs/raw/main/data/{file}"
    with pytest.raises(DataError) as error:
        found(found.Params()).load()
    assert asked == [where]
    assert f"Fetch {where} on any machine and put it at {tmp_path}/data/heterophilous/{file}" in str(error.value)
    assert "datasets.<name>.params.path" in str(error.value)


def test_a_download_is_used_where_it_lies_and_another_file_is_refused(monkeypatch, tmp_path):
    source = FOLDER / KNOWN["chameleon"][0]
    if not source.is_file():
        pytest.skip(without(source))
    monkeypatch.chdir(tmp_path)
    target, found = tmp_path / "data" / "heterophilous" / source.name, plugin("chameleon")
    target.parent.mkdir(parents=True)
    target.write_bytes(source.read_bytes())
    dataset = found(found.Params())
    dataset.load()
    assert dataset.provenance()["sha256"] == archives.sha256(source)
    buffer = io.BytesIO()
    np.savez(buffer, **CONTENT)
    target.write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match=rf"{target}: not the file expected: .* 58,924 bytes"):
        found(found.Params()).load()
