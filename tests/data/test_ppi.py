"""PPI and the reading of foreign archives: the real layout's counts, and every damaged or hostile file named."""

import hashlib
import io
import json
import os
import struct
import sys
import urllib.error
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_geometric.data
from pydantic import ValidationError

from distillbench.data import archives
from distillbench.data.archives import Files
from distillbench.data.graph_data import DataError
from distillbench.plugins import declaration, load
from tests.needs import SHARED, needs_file

ROOT = Path(__file__).parents[2]
FILE = ROOT / "datasets" / "ppi.py"
PPI24 = SHARED / "ppi24" / "ppi.zip"
SMALL = {"train": (60, 20), "valid": (6, 2), "test": (6, 2)}  # three nodes a graph
needs_ppi24 = needs_file(PPI24)


@pytest.fixture(scope="module")
def plugin():
    return load("dataset", FILE)


@pytest.fixture(scope="module")
def ppi24(plugin):
    """(data set, data) of the real file, parsed once."""
    dataset = plugin(plugin.Params(path=str(PPI24)))
    return dataset, dataset.load()


@pytest.fixture
def small(plugin, monkeypatch):
    """PPI's layout with three nodes a graph; ``small(path)`` is the data set."""
    monkeypatch.setattr(sys.modules[plugin.__module__], "PARTS", SMALL)

    def make(path=None, **params):
        return plugin(plugin.Params(path=path and str(path), **params))

    return make


def content(part="train"):
    """What the files of one part hold: in every graph, the first two nodes are linked, one way; the third is alone."""
    nodes, graphs = SMALL[part]
    start = {"train": 1, "valid": 21, "test": 23}[part]
    links = [{"source": 3 * graph, "target": 3 * graph + 1} for graph in range(graphs)]
    return {
        "feats": np.arange(nodes * 50, dtype=np.float64).reshape(nodes, 50),
        "labels": (np.arange(nodes * 121).reshape(nodes, 121) % 3 == 0).astype(np.int64),
        "graph_id": np.arange(nodes) // 3 + start,
        "graph": {"directed": False, "nodes": [{"id": n} for n in range(nodes)], "links": links},
    }


def stored(part, changes):
    """File name -> bytes."""
    files = {}
    for what, value in (content(part) | changes).items():
        if isinstance(value, np.ndarray):
            buffer = io.BytesIO()
            np.save(buffer, value, allow_pickle=True)
            files[f"{part}_{what}.npy"] = buffer.getvalue()
        else:
            files[f"{part}_{what}.json"] = value if isinstance(value, bytes) else json.dumps(value).encode()
    return files


@pytest.fixture
def written(tmp_path):
    """``written(valid={"labels": ...})``: an archive with this instead of the part's content."""

    def write(**changes):
        path = tmp_path / "some.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for part in SMALL:
                for name, data in stored(part, changes.get(part, {})).items():
                    archive.writestr(name, data)
        return path

    return write


# The real layout


@needs_ppi24
def test_the_counts_are_those_of_ppi(ppi24):
    dataset, data = ppi24
    assert (data.num_graphs, data.x.shape, data.y.shape) == (24, (56_944, 50), (56_944, 121))
    assert data.edge_index.shape[1] == 1_644_208
    assert dataset.split(data, 0).sizes() == {"train": 20, "val": 2, "test": 2}
    assert data.graph_ptr[[20, 22, 24]].tolist() == [44_906, 51_420, 56_944]
    assert data.y.mean().item() == pytest.approx(0.297, abs=5e-4)


@needs_ppi24
def test_rows_and_links_are_those_of_the_file(ppi24):
    _, data = ppi24
    with zipfile.ZipFile(PPI24) as archive:
        features = np.load(io.BytesIO(archive.read("valid_feats.npy")))
        links = json.loads(archive.read("valid_graph.json"))["links"]
    assert torch.equal(data.x[44_906:51_420], torch.from_numpy(features))
    source, target = torch.tensor([[link["source"], link["target"]] for link in links]).T
    expected = torch.cat([source * 6_514 + target, target * 6_514 + source, torch.arange(6_514) * 6_515]).unique()
    found = data.edge_index[:, data.edge_ptr[20] : data.edge_ptr[22]] - 44_906
    assert torch.equal((found[1] * 6_514 + found[0]).sort().values, expected)


@needs_ppi24
def test_ppi24_is_known_by_its_digest_and_never_shown_as_ppi(ppi24):
    dataset, _ = ppi24
    about = dataset.provenance()
    assert (about["canonical"], about["name"]) == (False, "ppi24")
    assert about["remark"] == "PPI-24: the graphs and split of PPI with rebuilt features and labels"
    assert about["sha256"].startswith("c29a2853")
    for name in ("ppi", "PPI", "ppi-big", "ppi_2"):
        with pytest.raises(DataError, match=rf"datasets\.{name}: PPI-24: .*`ppi24: "):
            dataset.check_name(name)
    dataset.check_name("ppi24")


@needs_ppi24
def test_an_unpacked_folder_holds_the_same_data_but_cannot_be_verified(plugin, ppi24, tmp_path):
    with zipfile.ZipFile(PPI24) as archive:
        archive.extractall(tmp_path)
    dataset = plugin(plugin.Params(path=str(tmp_path)))
    assert dataset.load().digest == ppi24[1].digest
    about = dataset.provenance()
    assert not about["canonical"]
    assert "unpacked folder" in about["remark"] and "ppi.zip" in about["remark"]
    assert "sha256" not in about


# What is made of the files


def test_an_isolated_node_keeps_its_self_loop(small, written):
    data = small(written()).load()
    assert data.edge_index[:, data.edge_ptr[5] : data.edge_ptr[6]].sub(15).T.tolist() == [
        [0, 0],
        [1, 0],
        [0, 1],
        [1, 1],
        [2, 2],
    ]
    assert data.edge_index.shape[1] == 24 * 5
    assert data.x[15].tolist() == list(range(750, 800))
    assert data.y[:3].sum(dim=1).tolist() == [41, 40, 40]


def test_fewer_training_graphs_are_the_first_ones_and_are_not_ppi(small, written):
    path = written()
    whole, dataset = small(path).load(), small(path, train_graphs=3)
    data = dataset.load()
    assert dataset.split(data, 0).sizes() == {"train": 3, "val": 2, "test": 2}
    for index, same in enumerate([0, 1, 2, 20, 21, 22, 23]):
        assert data.graph(index).digest == whole.graph(same).digest
    about = dataset.provenance()
    assert not about["canonical"]
    assert about["remark"].endswith("reduced PPI: 3 of 20 training graphs")
    assert about["name"].startswith("small-")


@pytest.mark.parametrize("params", [{"train_graphs": 0}, {"train_graphs": 21}, {"pathh": "x"}, {"path": 3}])
def test_parameters_that_make_no_sense_are_refused_without_torch(params):
    declared = declaration("dataset", FILE)
    assert (declared.task, declared.setting) == ("multilabel", "inductive")
    with pytest.raises(ValidationError):
        declared.params(**params)


NAN = np.full((6, 121), np.nan)
ONES = np.ones((6, 121))
ODD = ONES.copy()
ODD[4, 7] = 2
NODES = [{"id": n} for n in range(6)]


def graph(**changes):
    return {"graph": {"nodes": NODES, "links": []} | changes}


@pytest.mark.parametrize(
    "changes, file, problem",
    [
        ({"labels": ONES[:, :100]}, "valid_labels.npy", r"\[6, 121\] numbers expected, float64 \[6, 100\] found"),
        ({"feats": ONES}, "valid_feats.npy", r"\[6, 50\] numbers expected, float64 \[6, 121\] found"),
        ({"graph_id": np.arange(5)}, "valid_graph_id.npy", r"\[6\] numbers expected, int64 \[5\] found"),
        ({"graph_id": np.ones(6)}, "valid_graph_id.npy", "numbers expected, float64"),
        ({"labels": ONES.astype(str)}, "valid_labels.npy", "numbers expected, <U"),
        ({"labels": ODD}, "valid_labels.npy", r"row 4 has label 2\.0 in column 7, must be 0 or 1"),
        ({"labels": NAN}, "valid_labels.npy", "row 0 has label nan in column 0"),
        ({"feats": NAN[:, :50]}, "valid_feats.npy", "row 0 has a feature that is not finite"),
        ({"feats": 1e300 * ONES[:, :50]}, "valid_feats.npy", "row 0 has a feature that is not finite"),
        ({"labels": np.array([{}], dtype=object)}, "valid_labels.npy", "not an array .*allow_pickle"),
        ({"graph_id": np.arange(6)}, "valid_graph_id.npy", "2 graphs expected.* 6 found, in 6 pieces"),
        ({"graph_id": np.array([1, 2, 1, 2, 1, 2])}, "valid_graph_id.npy", "2 graphs expected.* 2 found, in 6 pieces"),
        ({"graph": b'{"nodes": [{"id"'}, "valid_graph.json", "not a graph in node-link JSON"),
        ({"graph": b"[" * 100_000}, "valid_graph.json", "not a graph in node-link JSON"),
        ({"graph": b"\xff\xfe\xfd"}, "valid_graph.json", "not a graph in node-link JSON"),
        ({"graph": [1]}, "valid_graph.json", "not a graph in node-link JSON"),
        (graph(links=[{"source": 0}]), "valid_graph.json", "not a graph in node-link JSON .*target"),
        (graph(nodes=NODES[:5]), "valid_graph.json", "nodes 0 to 5 expected, 5 found"),
        (graph(nodes=[*NODES[:5], {"id": 9}]), "valid_graph.json", "nodes 0 to 5 expected, 6 found, or with other ids"),
        (graph(links=[{"source": 0, "target": 6}]), "valid_graph.json", r"link 0 is \[0, 6\], but nodes are 0 to 5"),
        (graph(links=[{"source": -1, "target": 1}]), "valid_graph.json", r"link 0 is \[-1, 1\], but nodes are 0 to 5"),
        (graph(links=[{"source": 2, "target": 3}]), "valid_graph.json", r"link 0 is \[2, 3\], nodes of two graphs"),
        (graph(links=[{"source": 0.5, "target": 1}]), "valid_graph.json", "integers expected as source and target"),
        (graph(links=[{"source": "0", "target": "1"}]), "valid_graph.json", "integers expected as source and target"),
        (graph(links=[{"source": 2**70, "target": 1}]), "valid_graph.json", "integers expected as source and target"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(small, written, changes, file, problem):
    path = written(valid=changes)
    with pytest.raises(DataError, match=rf"{path}: {file}: .*{problem}"):
        small(path).load()


def test_the_whole_counts_are_expected_even_where_fewer_graphs_are_asked_for(plugin, written):
    with pytest.raises(DataError, match=r"train_feats\.npy: \[44906, 50\] numbers expected, float64 \[60, 50\] found"):
        plugin(plugin.Params(path=str(written()), train_graphs=1)).load()


def test_a_missing_file_is_named(small, written, tmp_path):
    with pytest.raises(DataError, match=rf"{tmp_path}/nowhere\.zip: no such file or folder.*params"):
        small(tmp_path / "nowhere.zip").load()
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=r"folder: has no train_feats\.npy"):
        small(tmp_path / "folder").load()


def test_the_home_folder_is_understood(small, written, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    written()
    assert small("~/some.zip").load().num_graphs == 24


# The download


@pytest.fixture
def offered(small, written, monkeypatch, tmp_path, plugin):
    """``offered(data)``: what the address answers (bytes, or an error); the canonical archive is ``written()``."""
    module, whole = sys.modules[plugin.__module__], written().read_bytes()
    digest = hashlib.sha256(whole).hexdigest()
    monkeypatch.setattr(module, "CANONICAL", digest)
    monkeypatch.setattr(module, "SIZE", len(whole))
    monkeypatch.setitem(module._KNOWN, digest, ("ppi", ""))
    monkeypatch.chdir(tmp_path)
    calls = []

    def offer(answer=whole):
        def download_url(url, folder, log=True, filename=None):
            calls.append(url)
            if isinstance(answer, Exception):
                raise answer
            Path(folder, filename).write_bytes(answer)

        monkeypatch.setattr(torch_geometric.data, "download_url", download_url)
        return calls

    offer.whole, offer.digest = whole, digest
    return offer


def test_the_archive_is_downloaded_once_and_is_canonical(small, offered):
    calls, dataset = offered(), small()
    first = dataset.load()
    assert dataset.provenance() == {"canonical": True, "remark": "", "name": "ppi", "sha256": offered.digest}
    dataset.check_name("ppi")
    assert small().load().digest == first.digest
    assert calls == ["https://data.dgl.ai/dataset/ppi.zip"]
    assert os.listdir("data/ppi") == ["ppi.zip"]  # noqa: PTH208
    reduced = small(train_graphs=2)
    reduced.load()
    assert reduced.provenance()["remark"] == "reduced PPI: 2 of 20 training graphs"
    with pytest.raises(DataError, match="small-ppi"):
        reduced.check_name("ppi")


@pytest.mark.parametrize("cut", [lambda whole: whole[:-100], lambda whole: b"<html>not found</html>"])
def test_a_download_that_is_not_the_archive_is_not_kept(small, offered, cut):
    answer = cut(offered.whole)
    offered(answer)
    with pytest.raises(DataError) as error:
        small().load()
    for told in (offered.digest, hashlib.sha256(answer).hexdigest(), f"{len(answer):,} bytes", "deleted again"):
        assert told in str(error.value)
    assert not os.listdir("data/ppi")  # noqa: PTH208
    offered()
    small().load()


def test_another_file_in_the_archives_place_is_refused(small, offered):
    calls = offered()
    target = Path("data/ppi/ppi.zip")
    target.parent.mkdir(parents=True)
    target.write_bytes(offered.whole[:1000])
    with pytest.raises(DataError) as error:
        small().load()
    for told in (str(target.absolute()), offered.digest, "1,000 bytes", f"{len(offered.whole):,} bytes", "Delete it"):
        assert told in str(error.value)
    assert not calls


@pytest.mark.parametrize("reason", [urllib.error.URLError("no network"), TimeoutError("timed out")])
def test_without_a_network_it_says_what_to_fetch_and_where_to_put_it(small, offered, tmp_path, reason):
    offered(reason)
    with pytest.raises(DataError) as error:
        small().load()
    where = f"{tmp_path}/data/ppi/ppi.zip"
    for told in ("https://data.dgl.ai/dataset/ppi.zip", where, "datasets.<name>.params.path", str(reason.args[0])):
        assert told in str(error.value)


def test_an_archive_of_the_same_layout_is_accepted_but_is_not_ppi(small, written):
    dataset = small(written())
    dataset.load()
    about = dataset.provenance()
    assert not about["canonical"]
    assert "not the canonical ppi.zip" in about["remark"]
    with pytest.raises(DataError, match="must not be shown as 'ppi'"):
        dataset.check_name("ppi")


# Archives that nobody should trust


def zipped(path, *members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for info, data in members:
            archive.writestr(info, data)
    return path


def patched(path, offset, form, value):
    """The archive with one field of its (only) member's header in the central directory set."""
    data = bytearray(path.read_bytes())
    struct.pack_into(form, data, data.index(b"PK\x01\x02") + offset, value)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", ["../a", "a/../../b", "/etc/passwd", "C:/a", "c:a", "a\\b", "..\\a"])
def test_paths_that_lead_elsewhere_are_refused(tmp_path, name):
    """Fault: an archive holds a path that leads out of it.

    Provoked: members are called "../a", "/etc/passwd", "C:/a" and the like.
    Promised: the archive is refused with its name and the member's, and nothing is unpacked.
    """
    path = zipped(tmp_path / "a.zip", (name, b"x"))
    with pytest.raises(DataError, match=rf"{path}: refused: member .* leads out of the archive"):
        Files(path)


def test_links_encrypted_and_oddly_packed_members_are_refused(tmp_path):
    """Fault: an archive holds a link, an encrypted member, or one that is packed unusually.

    Provoked: an archive of each kind is opened.
    Promised: it is refused with its name and the member's.
    """
    link = zipfile.ZipInfo("a")
    link.external_attr = 0o120777 << 16
    with pytest.raises(DataError, match=r"refused: member 'a' is a link"):
        Files(zipped(tmp_path / "a.zip", (link, b"/etc/passwd")))
    with pytest.raises(DataError, match=r"refused: member 'a' is encrypted"):
        Files(patched(zipped(tmp_path / "a.zip", ("a", b"x")), 8, "<H", 1))
    with pytest.raises(DataError, match=r"refused: member 'a' is packed by method 14"):
        Files(zipped(tmp_path / "a.zip", ("a", b"x"), method=zipfile.ZIP_LZMA))


def test_members_of_one_name_are_refused(tmp_path):
    """Fault: an archive holds two members of one name.

    Provoked: such an archive is opened.
    Promised: it is refused with its name and the member's.
    """
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = zipped(tmp_path / "a.zip", ("a", b"x"), ("a", b"y"))
    with pytest.raises(DataError, match=r"refused: member 'a' occurs twice"):
        Files(path)


def test_bombs_are_refused_before_they_are_unpacked(tmp_path):
    """Fault: an archive is a bomb, a few bytes that unpack to gigabytes.

    Provoked: one whose members are too much together is opened, and one with a single member that is too large.
    Promised: it is refused before a byte is unpacked.
    """
    path = zipped(tmp_path / "a.zip", ("a", bytes(6_000_000)), ("b", bytes(6_000_000)))
    assert path.stat().st_size < 20_000
    with pytest.raises(DataError, match=r"refused: 12,000,000 bytes unpacked, more than 10,000,000"):
        Files(path, limit=10_000_000)
    with pytest.raises(DataError, match=r"refused: member 'a' has 4,000,000,000 bytes unpacked"):
        Files(patched(zipped(path, ("a", b"x")), 24, "<I", 4_000_000_000), limit=10**12)


@pytest.mark.parametrize("announced", [10, 5_999_999, 6_000_001])
def test_a_member_that_is_not_as_long_as_announced_is_named(tmp_path, announced):
    path = patched(zipped(tmp_path / "a.zip", ("a", bytes(6_000_000))), 24, "<I", announced)
    with Files(path) as files, pytest.raises(DataError, match=rf"{path}: a: "):
        files.read("a")


def test_an_archive_cut_short_or_damaged_anywhere_is_named(tmp_path):
    """Fault: an archive is cut short, or has a damaged byte.

    Provoked: it is cut at many lengths, and changed at every seventh byte.
    Promised: what is read is what was written, or the archive is refused by name.
    """
    content = bytes(range(256)) * 50
    whole = zipped(tmp_path / "a.zip", ("a", content)).read_bytes()
    path, refused = tmp_path / "b.zip", 0
    for length in range(0, len(whole) - 1, 20):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=rf"{path}: cannot be read as a zip archive"):
            Files(path)
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            with Files(path) as files:
                assert files.read(files.find("a")) == content, place  # dates, and other bytes that nobody reads
        except DataError as error:
            assert str(path) in str(error)  # noqa: PT017
            refused += 1
    assert refused > len(whole) / 7 / 2


def test_the_time_limit_of_a_download_does_not_outlive_it():
    import socket

    with archives._timeout(3):
        assert socket.getdefaulttimeout() == 3
    assert socket.getdefaulttimeout() is None
