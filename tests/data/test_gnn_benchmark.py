"""Amazon Photo and Computers, Coauthor CS and Physics: counts of the real graphs, both layouts, and splits by seed."""

import io
import os
import urllib.error
import zipfile
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
import torch
import torch_geometric.data
from pydantic import ValidationError
from torch_geometric.io import read_npz

from distillbench.data import archives
from distillbench.data.graph_data import DataError
from distillbench.data.readers import gnn_benchmark, split_per_class
from distillbench.plugins import declaration, load
from distillbench.seeds import generator
from tests.needs import SHARED, needs_file

ROOT = Path(__file__).parents[2]
REAL = SHARED / "graphs"
FILES = {
    "amazon_photo": "amazon_photo",
    "amazon_computers": "amazon_cs",
    "coauthor_cs": "coauthor_cs",
    "coauthor_physics": "coauthor_phy",
}
PUBLISHED = {
    "amazon_photo": "amazon_electronics_photo.npz",
    "amazon_computers": "amazon_electronics_computers.npz",
    "coauthor_cs": "ms_academic_cs.npz",
    "coauthor_physics": "ms_academic_phy.npz",
}
ADDRESS = "https://github.com/shchur/gnn-benchmark/raw/master/data/npz"
COUNTS = {  # nodes, undirected edges, isolated nodes, features, nodes of each class
    "amazon_photo": (7650, 119_081, 115, 745, [369, 1686, 703, 915, 882, 823, 1941, 331]),
    "amazon_computers": (13_752, 245_861, 281, 767, [436, 2142, 1414, 542, 5158, 308, 487, 818, 2156, 291]),
    "coauthor_cs": (
        18_333,
        81_894,
        0,
        6805,
        [708, 462, 2050, 429, 1394, 2193, 371, 924, 775, 118, 1444, 2033, 420, 4136, 876],
    ),
    "coauthor_physics": (34_493, 247_962, 0, 8415, [5750, 5045, 17_426, 2753, 3519]),
}
needs_real = needs_file(REAL)


def real(name):
    return REAL / f"{FILES[name]}.compact.npz"


@cache
def plugin_of(name):
    return load("dataset", ROOT / "datasets" / f"{name}.py")


def make(name, path=None, **params):
    plugin = plugin_of(name)
    return plugin(plugin.Params(path=path and str(path), **params))


@cache
def graph_of(name):
    """The real content with sparse features: dense ones of Physics are 1.2 GB."""
    return gnn_benchmark(str(real(name)), "", "")


@pytest.fixture(scope="module")
def photo():
    """(data set, data) of Amazon Photo."""
    dataset = make("amazon_photo", real("amazon_photo"))
    return dataset, dataset.load()


# The real graphs


@needs_real
@pytest.mark.parametrize("name", FILES)
def test_counts(name):
    graph, (nodes, edges, isolated, features, classes) = graph_of(name), COUNTS[name]
    assert graph.words.shape == (nodes, features)
    assert graph.edge_index.shape[1] == 2 * edges + nodes
    assert int((graph.edge_index[1].bincount() == 1).sum()) == isolated
    assert np.bincount(graph.y).tolist() == classes
    assert (graph.words.data == 1).all()


@needs_real
@pytest.mark.parametrize("name", FILES)
def test_the_real_content_is_known_by_its_digest(name):
    assert graph_of(name).digest == plugin_of(name).content


@needs_real
@pytest.mark.parametrize("name, nodes, edges", [("amazon_photo", 7487, 119_043), ("amazon_computers", 13_381, 245_778)])
def test_the_largest_component_is_that_of_shchur(name, nodes, edges):
    largest = graph_of(name).largest_component()
    assert (len(largest.y), largest.words.shape[0]) == (nodes, nodes)
    assert largest.edge_index.shape[1] == 2 * edges + nodes
    assert len(np.unique(largest.y)) == len(COUNTS[name][4])


@needs_real
@pytest.mark.parametrize("name", FILES)
def test_a_seed_draws_twenty_and_thirty_of_every_class(name):
    y, classes = torch.from_numpy(graph_of(name).y), len(COUNTS[name][4])
    data, dataset = SimpleNamespace(y=y), make(name)
    split = dataset.draw_split(data, generator(0, "split"))
    assert y[split.train].bincount().tolist() == [20] * classes
    assert y[split.val].bincount().tolist() == [30] * classes
    assert len(split.test) == len(y) - 50 * classes
    assert torch.cat(split).sort().values.tolist() == list(range(len(y)))
    again, other = (dataset.draw_split(data, generator(seed, "split")) for seed in (0, 1))
    for part, same, different in zip(split, again, other, strict=True):
        assert torch.equal(part, same)
        assert set(part.tolist()) != set(different.tolist())


@needs_real
def test_photo_is_loaded_whole_and_canonical(photo):
    dataset, data = photo
    graph = graph_of("amazon_photo")
    assert (data.x.shape, data.num_classes, data.split) == ((7650, 745), 8, None)
    assert torch.equal(data.x, torch.from_numpy(graph.words.toarray()))
    assert torch.equal(data.edge_index, graph.edge_index)
    about = dataset.provenance()
    assert (about["canonical"], about["remark"]) == (True, "")
    dataset.check_name("amazon_photo")
    assert dataset.resplit


@needs_real
def test_photo_without_small_components_is_canonical_too(photo):
    dataset = make("amazon_photo", real("amazon_photo"), largest_component=True)
    data = dataset.load()
    assert data.num_nodes == 7487
    assert dataset.provenance() == photo[0].provenance()
    assert dataset.split(data, 0).sizes() == {"train": 160, "val": 240, "test": 7087}


@needs_real
def test_the_published_layout_of_the_same_content_is_known_and_pyg_reads_it_alike(photo, tmp_path):
    with np.load(real("amazon_photo"), allow_pickle=False) as compact:
        content = dict(compact)
    path = tmp_path / "photo.npz"
    np.savez(path, **published(content))
    dataset = make("amazon_photo", path)
    data = dataset.load()
    assert data.digest == photo[1].digest
    assert dataset.provenance()["canonical"]
    theirs = read_npz(str(path))
    assert torch.equal(data.x, theirs.x)
    assert torch.equal(data.y, theirs.y)
    source, destination = data.edge_index[:, data.edge_index[0] != data.edge_index[1]]
    assert torch.equal(
        (destination * 7650 + source), (theirs.edge_index[1] * 7650 + theirs.edge_index[0]).sort().values
    )


# Little graphs in both layouts


def compact():
    """Six nodes: a path 0-1-2, written in one direction and in both, a loop at 3, and a pair 4-5; three words."""
    return {
        "row": np.array([0, 1, 2, 3, 5], dtype=np.int32),
        "col": np.array([1, 2, 1, 3, 4], dtype=np.int32),
        "x_data": np.array([1, 5, 2, 1, 1, 1, 0], dtype=np.float32),
        "x_indices": np.array([2, 0, 1, 0, 2, 1, 2], dtype=np.int32),
        "x_indptr": np.array([0, 2, 3, 3, 4, 5, 7], dtype=np.int32),
        "x_shape": np.array([6, 3]),
        "y": np.array([0, 1, 0, 1, 0, 1], dtype=np.int32),
    }


def published(content):
    """The layout of gnn-benchmark, with what else is in its files."""
    nodes = len(content["y"])
    ends = content["row"], content["col"]
    links = sp.csr_matrix((np.ones(len(ends[0]), dtype=np.float32), ends), (nodes, nodes))
    parts = {"data": links.data, "indices": links.indices, "indptr": links.indptr, "shape": np.array([nodes, nodes])}
    return {
        **{f"adj_{part}": array for part, array in parts.items()},
        **{f"attr_{part}": content[f"x_{part}"] for part in parts},
        "labels": content["y"].astype(np.int64),
        "class_names": np.array(["a", {}], dtype=object),
    }


@pytest.fixture
def written(tmp_path):
    """``written(content)``: an .npz file of it."""

    def write(content):
        path = tmp_path / "some.npz"
        np.savez(path, **content)
        return path

    return write


@pytest.mark.parametrize("layout", [lambda content: content, published])
def test_what_is_read_from_either_layout(written, layout):
    data = make("coauthor_cs", written(layout(compact()))).load()
    assert data.x.tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 0, 0], [0, 0, 1], [0, 1, 0]]
    pairs = [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 1), (2, 2), (3, 3), (4, 4), (4, 5), (5, 4), (5, 5)]
    assert sorted(map(tuple, data.edge_index.T.tolist())) == pairs
    assert data.y.tolist() == [0, 1, 0, 1, 0, 1]
    assert data.num_classes == 2


def test_features_may_be_divided_by_their_sum(written):
    data = make("coauthor_physics", written(compact()), row_normalised=True).load()
    assert data.x.tolist() == [[0.5, 0, 0.5], [0, 1, 0], [0, 0, 0], [1, 0, 0], [0, 0, 1], [0, 1, 0]]


def test_the_largest_component_keeps_the_order_of_nodes(written):
    content = compact() | {"row": np.array([5, 3, 1, 4]), "col": np.array([3, 2, 4, 2])}  # 1-4-2-3-5
    data = make("amazon_photo", written(content), largest_component=True).load()
    assert data.x.tolist() == [[0, 1, 0], [0, 0, 0], [1, 0, 0], [0, 0, 1], [0, 1, 0]]
    assert data.y.tolist() == [1, 0, 1, 0, 1]
    links = {(a, b) for a, b in data.edge_index.T.tolist() if a < b}
    assert links == {(0, 3), (1, 3), (1, 2), (2, 4)}


@pytest.mark.parametrize("name", FILES)
def test_other_content_of_the_layout_is_read_but_not_under_the_name(written, name):
    dataset = make(name, written(compact()))
    dataset.load()
    about = dataset.provenance()
    assert not about["canonical"]
    assert about["remark"].endswith(": the same layout with other content")
    with pytest.raises(DataError, match=rf"must not be shown as '{name}'.*my-{name}"):
        dataset.check_name(name)


@pytest.mark.parametrize(
    "key, value", [("y", np.arange(6) % 3), ("row", np.array([0, 1, 2, 3, 0])), ("x_shape", [6, 4])]
)
def test_the_digest_tells_other_content(written, key, value):
    first = gnn_benchmark(str(written(compact())), "", "").digest
    assert gnn_benchmark(str(written(published(compact()))), "", "").digest == first
    assert gnn_benchmark(str(written(compact() | {key: np.array(value)})), "", "").digest != first


class Evil:
    def __reduce__(self):
        return os._exit, (1,)


OBJECTS = np.array([Evil()], dtype=object)


@pytest.mark.parametrize(
    "layout, changes, problem",
    [
        (compact, {"y": OBJECTS}, r"y\.npy: not an array .*allow_pickle"),
        (compact, {"y": np.arange(5)}, r"y\.npy: 6 integers expected, int64 \[5\] found"),
        (compact, {"y": np.arange(6) - 1}, r"y\.npy: numbers from 0 to 5 expected, -1 to 4 found"),
        (compact, {"y": np.arange(6) / 2}, r"y\.npy: 6 integers expected, float64"),
        (compact, {"row": np.array([0, 1, 2, 3, 6])}, r"row\.npy: numbers from 0 to 5 expected, 0 to 6 found"),
        (compact, {"col": np.array([0, 1])}, r"col\.npy: 5 integers expected, int64 \[2\] found"),
        (compact, {"x_indices": np.array([2, 0, 1, 0, 2, 1, 3])}, r"x_indices\.npy: numbers from 0 to 2 expected"),
        (compact, {"x_indptr": np.array([0, 2, 3, 3, 4, 5])}, r"x_indptr\.npy: 7 integers expected"),
        (compact, {"x_indptr": np.array([0, 2, 1, 3, 4, 5, 7])}, r"x_indptr\.npy: not where rows start"),
        (
            compact,
            {"x_indptr": np.array([0, 2, 3, 3, 4, 5, 6])},
            r"x_indptr\.npy: not where rows start: from 0 to 7",
        ),
        (
            compact,
            {"x_indptr": np.array([0, 2, 3, 3, 4, 5, 0])},
            r"x_indptr\.npy: not where rows start: from 0 to 7",
        ),
        (compact, {"x_shape": np.array([6, 2**31 - 1])}, r"x_shape\.npy: \[6, 2147483647\]: .* bytes when dense"),
        (compact, {"x_indptr": np.array([0, 2, 3, 3, 4, 5, 9])}, r"x_indptr\.npy: numbers from 0 to 7 expected"),
        (compact, {"x_data": np.array([1, 1, 1, np.nan, 1, 1, 1])}, r"x_data\.npy: counts expected"),
        (compact, {"x_data": np.array([1, 1, 1, -1, 1, 1, 1])}, r"x_data\.npy: counts expected"),
        (compact, {"x_data": OBJECTS}, r"x_data\.npy: not an array .*allow_pickle"),
        (published, {"labels": OBJECTS}, r"labels\.npy: not an array .*allow_pickle"),
        (published, {"adj_shape": np.array([6, 7])}, r"adj_shape\.npy: \[6, 7\], but there are features of 6 nodes"),
        (published, {"adj_indices": np.array([0, 1, 2, 3, 9])}, r"adj_indices\.npy: numbers from 0 to 5 expected"),
        (
            published,
            {"attr_shape": np.array([6, -1])},
            r"attr_shape\.npy: numbers from 0 to .* expected, -1 to 6 found",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_named(written, layout, changes, problem):
    content = compact() if layout is compact else published(compact())
    path = written(content | changes)
    with pytest.raises(DataError, match=rf"{path}: {problem}"):
        make("amazon_photo", path).load()


def test_files_that_are_missing_or_something_else_are_named(written, tmp_path):
    with pytest.raises(DataError, match=rf"{tmp_path}/nowhere\.npz: no such file or folder.*params"):
        make("coauthor_cs", tmp_path / "nowhere.npz").load()
    content = published(compact())
    del content["attr_indptr"]
    path = written(content)
    with pytest.raises(DataError, match=rf"{path}: has no attr_indptr\.npy"):
        make("coauthor_cs", path).load()
    path.write_bytes(b"<html>")
    with pytest.raises(DataError, match=rf"{path}: cannot be read as a zip archive"):
        make("coauthor_cs", path).load()


# The split


def test_a_class_that_is_too_small_is_named():
    y = torch.tensor([0] * 60 + [1] * 9 + [2] * 60)
    with pytest.raises(DataError, match=r"4 \+ 6 nodes a class asked for, but too few of class 1 \(9 nodes\)"):
        split_per_class(y, 4, 6, generator(0, "split"))
    split = split_per_class(y, 4, 5, generator(0, "split"))
    assert [y[part].bincount(minlength=3).tolist() for part in split] == [[4, 4, 4], [5, 5, 5], [51, 0, 51]]


def test_every_node_is_drawn_alike():
    y = torch.arange(30) % 3
    drawn = torch.cat([split_per_class(y, 2, 2, generator(seed, "split")).train for seed in range(500)]).bincount()
    assert drawn.sum() == 3000
    assert drawn.min() > 65 and drawn.max() < 140  # 100 expected, with a standard deviation of 9


@pytest.mark.parametrize("name", FILES)
def test_the_declaration_is_read_without_torch(name):
    declared = declaration("dataset", ROOT / "datasets" / f"{name}.py")
    assert (declared.task, declared.setting) == ("multiclass", "transductive")
    defaults = declared.params()
    assert (defaults.path, defaults.train_per_class, defaults.val_per_class) == (None, 20, 30)
    with pytest.raises(ValidationError):
        declared.params(train_per_class=0)


# The download


@pytest.fixture
def offered(written, monkeypatch, tmp_path):
    """``offered(name, answer)``: what the address of a data set answers; the published file is ``offered.whole``."""
    whole = written(published(compact())).read_bytes()
    monkeypatch.chdir(tmp_path)
    calls = []

    def offer(name, answer=whole):
        monkeypatch.setattr(plugin_of(name), "published", archives.git_id(whole))

        def download_url(url, folder, log=True, filename=None):
            calls.append(url)
            if isinstance(answer, Exception):
                raise answer
            Path(folder, filename).write_bytes(answer)

        monkeypatch.setattr(torch_geometric.data, "download_url", download_url)
        return calls

    offer.whole = whole
    return offer


@pytest.mark.parametrize("name", FILES)
def test_the_file_is_downloaded_once_and_canonical_whatever_it_holds(offered, name):
    calls, dataset = offered(name), make(name)
    first = dataset.load()
    assert dataset.provenance()["canonical"]
    assert dataset.provenance()["git_id"] == archives.git_id(offered.whole)
    dataset.check_name(name)
    assert make(name).load().digest == first.digest
    assert calls == [f"{ADDRESS}/{PUBLISHED[name]}"]
    assert [file.name for file in Path("data", name).iterdir()] == [PUBLISHED[name]]


def test_a_download_that_is_not_the_published_file_is_not_kept(offered):
    offered("coauthor_cs", offered.whole[:-10])
    with pytest.raises(DataError, match=r"came, instead of git id [0-9a-f]{40}; deleted again"):
        make("coauthor_cs").load()
    assert not list(Path("data/coauthor_cs").iterdir())


def test_another_file_in_its_place_is_refused(offered):
    calls = offered("coauthor_cs")
    Path("data/coauthor_cs").mkdir(parents=True)
    file = Path("data/coauthor_cs/ms_academic_cs.npz").absolute()
    with zipfile.ZipFile(io.BytesIO(offered.whole)) as whole, zipfile.ZipFile(file, "w") as other:
        for name in whole.namelist():
            other.writestr(name, whole.read(name))
    with pytest.raises(DataError, match=rf"{file}: not the file expected: .*Delete it .*move it elsewhere and name it"):
        make("coauthor_cs").load()
    assert not calls


def test_without_a_network_it_says_what_to_fetch_and_where_to_put_it(offered, tmp_path):
    offered("amazon_photo", urllib.error.URLError("no network"))
    with pytest.raises(DataError) as error:
        make("amazon_photo").load()
    file = PUBLISHED["amazon_photo"]
    where = f"{tmp_path}/data/amazon_photo/{file}"
    for told in (f"{ADDRESS}/{file}", where, "no network", "datasets.<name>.params.path"):
        assert told in str(error.value)
