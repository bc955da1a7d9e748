"""Cora, CiteSeer, PubMed: counts, split and features of the real files, and that no unknown pickle is ever opened."""

import hashlib
import os
import pickle
import shutil
import sys
import urllib.error
from collections import defaultdict
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch
import torch_geometric.data
from torch_geometric.io import read_planetoid_data

from distillbench.data import archives, readers
from distillbench.data.cards import read_card, split_in_words
from distillbench.data.graph_data import DataError, write_data
from distillbench.data.promises import load_checked
from distillbench.data.readers import normalised
from distillbench.plugins import declaration, load
from tests.needs import SHARED, needs_file

ROOT = Path(__file__).parents[2]
REAL = SHARED / "planetoid"
NAMES = ("cora", "citeseer", "pubmed")
PARTS = ("x", "y", "tx", "ty", "allx", "ally", "graph", "test.index")
ADDRESS = "https://github.com/kimiyoung/planetoid/raw/master/data"
needs_real = needs_file(REAL)


@cache
def plugin_of(name):
    return load("dataset", ROOT / "datasets" / f"{name}.py")


def make(name, path=None, **params):
    plugin = plugin_of(name)
    return plugin(plugin.Params(path=path and str(path), **params))


@pytest.fixture(scope="module")
def real():
    """``real(name)``: (data set, data) of the real files, read once."""
    known = {}

    def get(name):
        if name not in known:
            dataset = make(name, REAL)
            known[name] = dataset, dataset.load()
        return known[name]

    return get


def links(data):
    """Undirected edges without self-loops, as a set of (smaller, larger)."""
    source, destination = data.edge_index
    return set(zip(source[source < destination].tolist(), destination[source < destination].tolist(), strict=True))


# The real files


@needs_real
@pytest.mark.parametrize(
    "name, nodes, edges, isolated, features, classes",
    [("cora", 2708, 5278, 0, 1433, 7), ("citeseer", 3327, 4552, 48, 3703, 6)],
)
def test_counts(real, name, nodes, edges, isolated, features, classes):
    dataset, data = real(name)
    assert (data.x.shape, data.num_classes) == ((nodes, features), classes)
    assert data.edge_index.shape[1] == 2 * edges + nodes
    assert len(links(data)) == edges
    assert int((data.edge_index[1].bincount() == 1).sum()) == isolated
    assert dataset.split(data, 0).sizes() == {"train": 20 * classes, "val": 500, "test": 1000}
    assert (data.task_name, data.setting, dataset.resplit) == ("multiclass", "transductive", False)


@needs_real
@pytest.mark.parametrize("name, train", [("cora", 140), ("citeseer", 120)])
def test_the_split_is_the_public_one(real, name, train):
    dataset, data = real(name)
    split = dataset.split(data, 0)
    assert data.y[split.train].bincount().tolist() == [20] * data.num_classes
    assert split.train.tolist() == list(range(train))
    assert split.val.tolist() == list(range(train, train + 500))
    assert split.test.tolist() == sorted(map(int, (REAL / f"ind.{name}.test.index").read_text().split()))
    assert [torch.equal(a, b) for a, b in zip(split, dataset.split(data, 1), strict=True)] == [True] * 3


@needs_real
def test_labels_per_class(real):
    assert real("cora")[1].y.bincount().tolist() == [351, 217, 418, 818, 426, 298, 180]
    assert (real("citeseer")[1].y + 1).bincount().tolist() == [15, 249, 590, 668, 701, 596, 508]


@needs_real
@pytest.mark.parametrize("name", ["cora", "citeseer"])
def test_it_is_what_pyg_reads(real, name):
    _, data = real(name)
    theirs = read_planetoid_data(str(REAL), name)
    labelled = data.y >= 0
    assert torch.equal(make(name, REAL, row_normalised=False).load().x, theirs.x)
    assert torch.equal(data.y[labelled], theirs.y[labelled])
    assert links(data) == {(a, b) for a, b in theirs.edge_index.T.tolist() if a < b}
    masks = (theirs.train_mask, theirs.val_mask, theirs.test_mask)
    assert [part.tolist() for part in data.split] == [mask.nonzero().flatten().tolist() for mask in masks]


@needs_real
def test_nodes_of_citeseer_that_the_files_leave_out_are_kept_without_features_and_label(real):
    _, data = real("citeseer")
    without = (data.y == -1).nonzero().flatten()
    assert len(without) == 15
    assert without.tolist() == (data.x.sum(dim=1) == 0).nonzero().flatten().tolist()
    assert not torch.isin(without, torch.cat(data.split)).any()
    assert (data.edge_index[1].bincount()[without] > 1).all()
    assert 2312 < int(without.min()) <= int(without.max()) < 3326


@needs_real
@pytest.mark.parametrize("name", ["cora", "citeseer"])
def test_features_sum_to_one_or_are_as_published(real, name):
    _, data = real(name)
    raw = make(name, REAL, row_normalised=False).load()
    assert raw.x.unique().tolist() == [0, 1]
    kept = data.y >= 0
    assert (data.x[kept].sum(dim=1) - 1).abs().max() < 1e-5
    assert torch.equal(data.x > 0, raw.x > 0)
    assert torch.equal(data.edge_index, raw.edge_index)


@needs_real
@pytest.mark.parametrize("name", ["cora", "citeseer"])
def test_only_the_published_files_are_read_so_they_are_canonical(real, name):
    dataset, _ = real(name)
    assert dataset.provenance()["canonical"]
    dataset.check_name(name)


@needs_real
@pytest.mark.parametrize("part", PARTS)
def test_a_file_with_one_byte_changed_is_refused(tmp_path, part, monkeypatch):
    monkeypatch.setattr(readers._Arrays, "load", lambda self: pytest.fail("unpickled"))
    for file in REAL.glob("ind.cora.*"):
        shutil.copyfile(file, tmp_path / file.name)
    damaged = tmp_path / f"ind.cora.{part}"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(DataError, match=rf"{tmp_path}: ind\.cora\.{part}: refused: not the published file"):
        make("cora", tmp_path).load()


@needs_real
def test_files_of_another_graph_are_refused(tmp_path):
    for part in PARTS:
        shutil.copyfile(REAL / f"ind.cora.{part}", tmp_path / f"ind.citeseer.{part}")
    with pytest.raises(DataError, match=r"ind\.citeseer\.x: refused"):
        make("citeseer", tmp_path).load()


@needs_real
def test_the_folder_that_pyg_keeps_them_in_may_be_named(real, tmp_path):
    shutil.copytree(REAL, tmp_path / "raw")
    assert make("cora", tmp_path).load().digest == real("cora")[1].digest


# The same layout with twelve nodes: what is made of the files


def dumped(content):
    """A pickle with the names that Python 2 and the NumPy and SciPy of its time wrote."""
    names = {
        b"scipy.sparse._csr\ncsr_matrix": b"scipy.sparse.csr\ncsr_matrix",
        b"numpy._core.multiarray\n": b"numpy.core.multiarray\n",
        b"builtins\nlist": b"__builtin__\nlist",
    }
    data = pickle.dumps(content, protocol=3)
    for new, old in names.items():
        data = data.replace(new, old)
    assert data.startswith(b"\x80\x03")
    return b"\x80\x02" + data[2:]


def content():
    """Nodes 0 to 7 in ``allx``, of which 0 to 2 are labelled; 11, 9, 8 are for the test; 10 is in no file."""
    features = np.arange(12 * 4, dtype=np.float32).reshape(12, 4)
    features[4] = 0
    classes = np.eye(3, dtype=np.int32)[np.arange(12) % 3]
    graph = defaultdict(list, {node: [] for node in range(12)})
    graph |= {0: [1, 1, 0], 1: [0], 5: [6], 10: [7]}
    test = [11, 9, 8]
    return {
        "x": dumped(sp.csr_matrix(features[:3])),
        "y": dumped(classes[:3]),
        "tx": dumped(sp.csr_matrix(features[test])),
        "ty": dumped(classes[test]),
        "allx": dumped(sp.csr_matrix(features[:8])),
        "ally": dumped(classes[:8]),
        "graph": dumped(graph),
        "test.index": "".join(f"{node}\n" for node in test).encode(),
    }


@pytest.fixture
def small(tmp_path, monkeypatch):
    """``small(name, **files)``: a folder with them instead of those of content(), which count as the published ones."""
    monkeypatch.setattr(readers, "_VALIDATION", 2)

    def write(name, **files):
        module = sys.modules[plugin_of(name).__module__]
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        for part, data in (content() | files).items():
            (folder / f"ind.{name}.{part}").write_bytes(data)
            known = hashlib.sha256(data).hexdigest() if part != "allx" else archives.git_id(data)
            monkeypatch.setitem(module.DIGESTS, part, known)
        return folder

    return write


@pytest.mark.parametrize("name", NAMES)
def test_what_is_read_from_the_files(small, name):
    data = make(name, small(name), row_normalised=False).load()
    expected = torch.arange(48.0).view(12, 4)
    expected[[4, 10]] = 0
    assert torch.equal(data.x, expected)
    assert data.y.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, -1, 2]
    assert [part.tolist() for part in data.split] == [[0, 1, 2], [3, 4], [8, 9, 11]]
    assert links(data) == {(0, 1), (5, 6), (7, 10)}
    assert data.edge_index.shape[1] == 2 * 3 + 12
    assert data.num_classes == 3


@pytest.mark.parametrize("name", NAMES)
def test_features_of_the_files_are_divided_by_their_sum_unless_the_config_says_no(small, name):
    folder = small(name)
    raw, data = make(name, folder, row_normalised=False).load(), make(name, folder).load()
    assert data.x[1].tolist() == pytest.approx([4 / 22, 5 / 22, 6 / 22, 7 / 22])
    total = raw.x.sum(dim=1)
    assert torch.allclose(data.x.sum(dim=1), (total > 0).float())
    assert torch.allclose(data.x * total[:, None], raw.x)


def test_features_are_divided_by_their_sum_where_there_are_any():
    x = np.array([[0.1, 0.3], [0, 0], [2, 6]], dtype=np.float32)
    assert normalised(x).tolist() == [[0.25, 0.75], [0, 0], [0.25, 0.75]]


# Random splits of the same sizes


@pytest.mark.parametrize("name", NAMES)
def test_random_splits_have_the_sizes_of_the_public_one_a_class_and_only_labelled_nodes(small, name):
    dataset = make(name, small(name), splits="random")
    data = dataset.load()  # three classes of 4, 4 and 3 nodes; node 10 has no label
    seen = set()
    for seed in range(40):
        split = dataset.split(data, seed)
        assert split.sizes() == {"train": 3, "val": 2, "test": 3}
        assert data.y[split.train].sort().values.tolist() == [0, 1, 2]
        assert 10 not in torch.cat(split)
        seen |= {(part, node) for part, nodes in split._asdict().items() for node in nodes.tolist()}
    assert len(seen) == 3 * 11  # any labelled node can be in any part


@pytest.mark.parametrize("name", NAMES)
def test_the_parameter_decides_which_splits_a_citation_graph_has_and_the_card_says_it(small, name, tmp_path):
    digests = set()
    for splits, words, resplit in (("published", "its public split", False), ("random", "random splits", True)):
        dataset, data = load_checked(lambda splits=splits: make(name, small(name), splits=splits))
        write_data(tmp_path, "toy", dataset, data)
        card = read_card(tmp_path / "data.json")
        assert (split_in_words(card), card.resplit) == (words, resplit)
        digests.add(card.digest)
    assert len(digests) == 1  # the split of a seed is no part of the data


def test_sizes_that_cannot_be_had_or_no_published_split_are_named(small):
    dataset = make("cora", small("cora"), splits="random")
    data = dataset.load()
    larger = replace(data, split=data.split._replace(val=torch.tensor([3, 4, 5, 6, 7, 10])))
    with pytest.raises(DataError, match="6 \\+ 3 nodes for validation and test asked for, 8 are left"):
        dataset.draw_split(larger, torch.Generator())
    with pytest.raises(DataError, match="no published split"):
        dataset.draw_split(replace(data, split=None), torch.Generator())


@needs_real
@pytest.mark.parametrize("name", ["cora", "citeseer"])
def test_random_splits_of_the_real_graphs(real, name):
    _, data = real(name)
    dataset = make(name, REAL, splits="random")
    one, other, public = dataset.split(data, 0), dataset.split(data, 1), data.split
    assert one.sizes() == other.sizes() == public.sizes()
    assert data.y[one.train].bincount().tolist() == [20] * data.num_classes
    assert len({one.digest, other.digest, public.digest}) == 3
    assert one.digest == dataset.split(data, 0).digest


# Pickles that nobody should open


class Evil:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_a_pickle_that_executes_something_is_refused_before_it_is_opened(small, tmp_path):
    """Fault: a raw file that is a pickle holds code.

    Provoked: one of Planetoid's files is replaced by a pickle that would run something.
    Promised: it is refused by its digest before it is opened.
    """
    mark, folder = tmp_path / "executed", small("cora")
    for part in ("graph", "allx", "ty"):
        kept = (folder / f"ind.cora.{part}").read_bytes()
        (folder / f"ind.cora.{part}").write_bytes(pickle.dumps(Evil(mark)))
        with pytest.raises(DataError, match=rf"ind\.cora\.{part}: refused: not the published file .*execute anything"):
            make("cora", folder).load()
        (folder / f"ind.cora.{part}").write_bytes(kept)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Evil(mark)))
    assert mark.exists()


def test_even_a_known_file_makes_nothing_but_arrays(small, tmp_path):
    mark = tmp_path / "executed"
    with pytest.raises(DataError, match=r"this one names (posix|nt)\.mkdir"):
        make("cora", small("cora", graph=pickle.dumps(Evil(mark)))).load()
    assert not mark.exists()


def test_a_missing_folder_or_file_is_named(small, tmp_path):
    with pytest.raises(DataError, match=rf"{tmp_path}/nowhere: no such file or folder.*params"):
        make("cora", tmp_path / "nowhere").load()
    folder = small("cora")
    (folder / "ind.cora.ally").unlink()
    with pytest.raises(DataError, match=rf"{folder}: has no ind\.cora\.ally"):
        make("cora", folder).load()


@pytest.mark.parametrize("name", NAMES)
def test_the_declaration_is_read_without_torch(name):
    declared = declaration("dataset", ROOT / "datasets" / f"{name}.py")
    assert (declared.task, declared.setting) == ("multiclass", "transductive")
    assert declared.params().model_dump() == {"path": None, "row_normalised": True, "splits": "published"}


@pytest.mark.parametrize("name", NAMES)
def test_all_eight_files_have_a_known_digest(name):
    digests = sys.modules[plugin_of(name).__module__].DIGESTS
    assert set(digests) == set(PARTS)
    assert {part: len(digest) for part, digest in digests.items() if len(digest) != 64} == (
        {"allx": 40} if name == "pubmed" else {}
    )
    assert all(not set(digest) - set("0123456789abcdef") for digest in digests.values())


# The download


@pytest.fixture
def offered(small, monkeypatch, tmp_path):
    """``offered(changes)``: the address answers with the files of content(), or with what ``changes`` has instead."""
    monkeypatch.chdir(tmp_path)
    folder, calls = small("pubmed"), []

    def offer(changes=None):
        def download_url(url, target, log=True, filename=None):
            calls.append(url)
            part = url.rpartition("/ind.pubmed.")[2]
            answer = (changes or {}).get(part, (folder / f"ind.pubmed.{part}").read_bytes())
            if isinstance(answer, Exception):
                raise answer
            Path(target, filename).write_bytes(answer)

        monkeypatch.setattr(torch_geometric.data, "download_url", download_url)
        return calls

    return offer


def test_the_files_are_downloaded_once(offered, small):
    calls = offered()
    data = make("pubmed").load()
    assert sorted(calls) == sorted(f"{ADDRESS}/ind.pubmed.{part}" for part in PARTS)
    assert sorted(file.name for file in Path("data/pubmed").iterdir()) == sorted(f"ind.pubmed.{part}" for part in PARTS)
    assert make("pubmed").load().digest == data.digest == make("pubmed", small("pubmed")).load().digest
    assert len(calls) == 8


@pytest.mark.parametrize("part", ["x", "allx", "test.index"])
def test_a_download_that_is_not_the_published_file_is_not_kept(offered, part):
    offered({part: b"<html>not found</html>"})
    with pytest.raises(DataError, match=rf"{ADDRESS}/ind\.pubmed\.{part}: 22 bytes with .* came, instead of .*deleted"):
        make("pubmed").load()
    assert not Path("data/pubmed", f"ind.pubmed.{part}").exists()
    offered()
    make("pubmed").load()


def test_another_file_in_its_place_is_refused(offered):
    offered()
    make("pubmed").load()
    file = Path("data/pubmed/ind.pubmed.graph")
    file.write_bytes(b"other")
    with pytest.raises(
        DataError, match=rf"{file.absolute()}: not the file expected: 5 bytes with .*Delete it"
    ) as error:
        make("pubmed").load()
    assert "all the same" not in str(error.value)


@pytest.mark.parametrize("reason", [urllib.error.URLError("no network"), TimeoutError("timed out")])
def test_without_a_network_it_says_what_to_fetch_and_where_to_put_it(offered, tmp_path, reason):
    offered({"graph": reason})
    with pytest.raises(DataError) as error:
        make("pubmed").load()
    message = str(error.value)
    for told in (f"{ADDRESS}/ind.pubmed.graph", f"{tmp_path}/data/pubmed/ind.pubmed.graph", str(reason.args[0])):
        assert told in message
    assert all(f"ind.pubmed.{part}" in message for part in PARTS)
    assert "name the folder they are in as datasets.<name>.params.path" in message


def test_ids_are_those_of_git(tmp_path):
    assert archives.git_id(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    (tmp_path / "hello").write_bytes(b"hello world\n")
    assert archives.git_id(tmp_path / "hello") == "3b18e512dba79e4c8300dd08aeb37f8e728b8dad"
    assert archives.sha256(tmp_path / "hello") == archives.sha256(b"hello world\n")
