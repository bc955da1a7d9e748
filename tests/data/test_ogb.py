"""ogbn-arxiv and ogbg-molhiv: what is made of OGB's layout, on archives small enough to check by hand."""

import gzip
import importlib.util
import re
import sys
import urllib.error
import zipfile
from pathlib import Path

import pytest
import torch
import torch_geometric.data
from sklearn.metrics import roc_auc_score

from distillbench.data import ogb
from distillbench.data.cards import read_card
from distillbench.data.graph_data import DataError, read_data, write_data
from distillbench.plugins import declaration, load
from tests.needs import excused_in_ci

ROOT = Path(__file__).parents[2]
NAMES = {"ogbn_arxiv": "ogbn-arxiv", "ogbg_molhiv": "ogbg-molhiv"}
URLS = {
    "ogbn_arxiv": "http://snap.stanford.edu/ogb/data/nodeproppred/arxiv.zip",
    "ogbg_molhiv": "http://snap.stanford.edu/ogb/data/graphproppred/csv_mol_download/hiv.zip",
}
# four papers: 0 cites 1, 1 cites 2 and 2 cites 1; 3 is alone
ARXIV = {
    "arxiv/raw/edge.csv.gz": "0,1\n1,2\n2,1\n",
    "arxiv/raw/node-feat.csv.gz": "0.5,-1.25\n0.1,0\n-3e-05,7\n1,2\n",
    "arxiv/raw/node-label.csv.gz": "4\n39\n0\n0\n",
    "arxiv/raw/node_year.csv.gz": "2010\n2011\n2018\n2020\n",
    "arxiv/raw/num-node-list.csv.gz": "4\n",
    "arxiv/raw/num-edge-list.csv.gz": "3\n",
    "arxiv/split/time/train.csv.gz": "1\n0\n",
    "arxiv/split/time/valid.csv.gz": "2\n",
    "arxiv/split/time/test.csv.gz": "3\n",
}
# three molecules: C-N-O, a lone atom, C=C; every bond is there once, atoms are counted anew in every molecule
ATOMS = [
    "5,0,4,5,3,0,2,0,0",
    "6,0,3,5,1,0,2,0,0",
    "7,0,2,5,1,0,2,0,1",
    "118,4,11,11,9,5,5,1,1",
    *["5,1,3,5,2,0,1,0,0"] * 2,
]
MOLHIV = {
    "hiv/raw/edge.csv.gz": "0,1\n1,2\n0,1\n",
    "hiv/raw/edge-feat.csv.gz": "0,0,0\n0,0,0\n1,2,0\n",
    "hiv/raw/node-feat.csv.gz": "\n".join(ATOMS) + "\n",
    "hiv/raw/graph-label.csv.gz": "0\n1\n0\n",
    "hiv/raw/num-node-list.csv.gz": "3\n1\n2\n",
    "hiv/raw/num-edge-list.csv.gz": "2\n0\n1\n",
    "hiv/mapping/mol.csv.gz": "HIV_active,smiles,mol_id\n0,CNO,a\n",
    "hiv/split/scaffold/train.csv.gz": "1\n",
    "hiv/split/scaffold/valid.csv.gz": "2\n",
    "hiv/split/scaffold/test.csv.gz": "0\n",
}
CONTENT = {"ogbn_arxiv": ARXIV, "ogbg_molhiv": MOLHIV}


def plugin(name):
    return load("dataset", ROOT / "datasets" / f"{name}.py")


@pytest.fixture
def written(tmp_path):
    """``written(name, edge="...")``: the data set of a small archive with this text (or bytes) as edge.csv.gz."""

    def write(name, **changes):
        path = tmp_path / "some.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for member, text in CONTENT[name].items():
                text = changes.get(Path(member).name.removesuffix(".csv.gz").replace("-", "_"), text)
                if text is not None:
                    archive.writestr(member, gzip.compress(text.encode()) if isinstance(text, str) else text)
        found = plugin(name)
        return found(found.Params(path=str(path)))

    return write


# What is made of the files


def test_arxiv_is_one_graph_without_direction_and_split_as_published(written):
    dataset = written("ogbn_arxiv")
    data = dataset.load()
    assert data.x.tolist() == torch.tensor([[0.5, -1.25], [0.1, 0], [-3e-05, 7], [1, 2]]).tolist()
    assert data.y.tolist() == [4, 39, 0, 0]
    assert data.edge_index.T.tolist() == [[0, 0], [1, 0], [0, 1], [1, 1], [2, 1], [1, 2], [2, 2], [3, 3]]
    assert (data.num_classes, data.task.metric_name, dataset.resplit) == (40, "accuracy", False)
    assert [part.tolist() for part in dataset.split(data, 5)] == [[0, 1], [2], [3]]


def test_molecules_are_graphs_of_one_hot_atoms(written):
    dataset = written("ogbg_molhiv")
    data = dataset.load()
    assert data.graph_ptr.tolist() == [0, 3, 4, 6]
    linked = [(0, 1), (1, 2), (4, 5)]
    expected = {*linked, *((b, a) for a, b in linked), *((n, n) for n in range(6))}
    assert set(zip(*data.edge_index.tolist(), strict=True)) == expected
    assert data.edge_index.shape == (2, 12)
    assert data.y.tolist() == [0, 1, 0]
    assert data.x.shape == (6, 174)
    first = [0, 119, 124, 136, 148, 158, 164, 170, 172]  # 119 5 12 12 10 6 6 2 2
    for row, text in zip(data.x, ATOMS, strict=True):
        atom = [int(value) for value in text.split(",")]
        assert row.nonzero().flatten().tolist() == [start + value for start, value in zip(first, atom, strict=True)]
        assert row.sum() == 9
    assert [part.tolist() for part in dataset.split(data, 5)] == [[1], [2], [0]]


def test_molecules_are_scored_by_roc_auc(written, tmp_path):
    dataset = written("ogbg_molhiv")
    data = dataset.load()
    logits = torch.tensor([[0.0, 1], [0, 2], [0, 1.5]])
    assert data.task.metrics(logits, data.y)["roc_auc"] == roc_auc_score(data.y, logits[:, 1]) == 1.0
    write_data(tmp_path / "written", "my-ogbg-molhiv", dataset, data)
    card = read_card(tmp_path / "written" / "data.json")
    assert (card.task, card.metric, card.resplit) == ("graph-multiclass", "roc_auc", False)
    assert read_data(tmp_path / "written").task is data.task
    assert declaration("dataset", ROOT / "datasets" / "ogbg_molhiv.py").metric == "roc_auc"


@pytest.mark.parametrize("name", NAMES)
def test_an_unpacked_folder_holds_the_same_data(written, tmp_path, name):
    dataset = written(name)
    expected = dataset.load().digest
    with zipfile.ZipFile(tmp_path / "some.zip") as archive:
        archive.extractall(tmp_path / "unpacked")
    for folder in (tmp_path / "unpacked", *(tmp_path / "unpacked").iterdir()):
        other = type(dataset)(dataset.Params(path=str(folder)))
        assert other.load().digest == expected
        about = other.provenance()
        assert not about["canonical"] and "cannot be verified" in about["remark"] and "sha256" not in about


@pytest.mark.parametrize("name", NAMES)
def test_an_archive_is_canonical_by_its_digest_alone(written, monkeypatch, name):
    dataset = written(name)
    dataset.load()
    about = dataset.provenance()
    assert (about["canonical"], about["name"]) == (False, f"my-{NAMES[name]}")
    for shown in (name, NAMES[name], f"{NAMES[name]}-gat"):
        with pytest.raises(DataError, match=rf"datasets\.{shown}: not the \w+\.zip that .* `my-{NAMES[name]}: "):
            dataset.check_name(shown)
    monkeypatch.setattr(sys.modules[type(dataset).__module__], "DIGEST", about["sha256"])
    assert dataset.provenance() == {"canonical": True, "remark": "", "name": NAMES[name], "sha256": about["sha256"]}
    dataset.check_name(NAMES[name])


# Files that are not as they should be

WRONG = [
    ("ogbn_arxiv", {"edge": None}, "has no edge.csv.gz"),
    ("ogbn_arxiv", {"edge": b"not gzip"}, r"arxiv/raw/edge\.csv\.gz: not a gzipped table of numbers \(BadGzipFile"),
    ("ogbn_arxiv", {"edge": gzip.compress(b"0,1\n1,2\n2,1\n")[:-4]}, r".*edge\.csv\.gz: not a gzipped table"),
    ("ogbn_arxiv", {"edge": "0,1\n1,x\n2,1\n"}, r".*edge\.csv\.gz: not a gzipped table of numbers \(ValueError"),
    ("ogbn_arxiv", {"edge": "0,1\n1,\n2,1\n"}, r".*edge\.csv\.gz: not a gzipped table of numbers"),
    ("ogbn_arxiv", {"edge": "0,1\n1,2\n"}, r".*edge\.csv\.gz: \[3, 2\] numbers expected, \[2, 2\] found"),
    ("ogbn_arxiv", {"edge": "0,1\n1,4\n2,1\n"}, r".*edge\.csv\.gz: row 1, column 1 is 4, not an integer from 0 to 3"),
    ("ogbn_arxiv", {"node_feat": "1,2\n3,nan\n5,6\n7,8\n"}, r".*node-feat\.csv\.gz: row 1, column 1 is nan, not a fin"),
    ("ogbn_arxiv", {"node_feat": "1,2\n3,b\n5,6\n7,8\n"}, r".*node-feat\.csv\.gz: not a gzipped table of numbers"),
    ("ogbn_arxiv", {"node_feat": "1,2\n"}, r".*num-node-list\.csv\.gz: one graph of 1 nodes expected"),
    ("ogbn_arxiv", {"num_node_list": "2\n2\n"}, r".*num-node-list\.csv\.gz: one graph of 4 nodes expected"),
    ("ogbn_arxiv", {"num_edge_list": "2\n1\n"}, r".*num-edge-list\.csv\.gz: 1 rows expected, 2 found"),
    ("ogbn_arxiv", {"node_label": "4\n40\n0\n0\n"}, r".*node-label\.csv\.gz: row 1, column 0 is 40, .* 0 to 39"),
    ("ogbn_arxiv", {"test": "2\n"}, r".*train\.csv\.gz: with valid and test it must name each of 4 rows once"),
    ("ogbn_arxiv", {"test": "4\n"}, r".*test\.csv\.gz: row 0, column 0 is 4"),
    ("ogbn_arxiv", {"test": ""}, r".*test\.csv\.gz: not a gzipped table of numbers \(EmptyDataError"),
    ("ogbg_molhiv", {"edge": "0,1\n1,2\n0,2\n"}, r".*edge\.csv\.gz: row 2 is \[0, 2\], not nodes of its graph"),
    ("ogbg_molhiv", {"node_feat": "\n".join([*ATOMS[:5], "5,5,3,5,2,0,1,0,0"])}, r".*: row 5 has a category that OGB"),
    ("ogbg_molhiv", {"node_feat": "\n".join([*ATOMS[:5], "119,0,3,5,2,0,1,0,0"])}, r".*: row 5, column 0 is 119"),
    ("ogbg_molhiv", {"node_feat": "\n".join(ATOMS[:5])}, r".*node-feat\.csv\.gz: \[6, 9\] numbers expected"),
    ("ogbg_molhiv", {"graph_label": "0\n2\n0\n"}, r".*graph-label\.csv\.gz: row 1, column 0 is 2"),
    ("ogbg_molhiv", {"graph_label": "0\n1\n"}, r".*graph-label\.csv\.gz: \[3, 1\] numbers expected, \[2, 1\] found"),
    ("ogbg_molhiv", {"num_node_list": "3\n1\n-2\n"}, r".*num-node-list\.csv\.gz: row 2, column 0 is -2"),
]


@pytest.mark.parametrize("name, changes, message", WRONG)
def test_what_is_wrong_with_a_file_is_named(written, tmp_path, name, changes, message):
    with pytest.raises(DataError, match=rf"{re.escape(str(tmp_path))}/some\.zip: {message}"):
        written(name, **changes).load()


def test_a_table_that_unpacks_to_more_than_the_limit_is_refused(written, monkeypatch):
    monkeypatch.setattr(ogb, "TABLE_LIMIT", 100)
    with pytest.raises(DataError, match=r"edge\.csv\.gz: .*more than 100 bytes unpacked"):
        written("ogbn_arxiv", edge="0,1\n" * 30).load()


# Without a path


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """A folder to work in and no network; the addresses that were asked for."""
    monkeypatch.chdir(tmp_path)
    asked = []

    def download(url, *arguments, **options):
        asked.append(url)
        raise urllib.error.URLError("no way out")

    monkeypatch.setattr(torch_geometric.data, "download_url", download)
    return asked


@pytest.mark.parametrize("name", NAMES)
def test_without_ogb_the_error_says_what_to_install_or_to_fetch(offline, monkeypatch, tmp_path, name):
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    found = plugin(name)
    with pytest.raises(DataError) as error:
        found(found.Params()).load()
    file = URLS[name].rpartition("/")[2]
    for text in ("pip install 'distillbench[ogb]'", f"fetch {URLS[name]}", f"put it at {tmp_path}/data/{name}/{file}"):
        assert text in str(error.value)
    assert "datasets.<name>.params.path" in str(error.value)
    assert not offline


@pytest.mark.parametrize("name", NAMES)
def test_the_address_is_taken_from_ogb_which_is_not_imported(offline, monkeypatch, tmp_path, name):
    folder = tmp_path / "site" / "ogb"
    for part in ("nodeproppred", "graphproppred"):
        (folder / part).mkdir(parents=True)
        rows = f",{NAMES[name]},other\nnum tasks,1,1\nurl,http://example.org/{name}.zip,None\n"
        (folder / part / "master.csv").write_text(rows)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delitem(sys.modules, "ogb", raising=False)
    found = plugin(name)
    with pytest.raises(DataError, match=rf"http://example\.org/{name}\.zip: cannot be downloaded .*no way out"):
        found(found.Params()).load()
    assert offline == [f"http://example.org/{name}.zip"]


@pytest.mark.parametrize("name", NAMES)
def test_an_archive_that_lies_there_needs_no_ogb_and_is_checked(offline, written, monkeypatch, tmp_path, name):
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    expected = written(name).load().digest
    found = plugin(name)
    target = tmp_path / "data" / name / URLS[name].rpartition("/")[2]
    target.parent.mkdir(parents=True)
    (tmp_path / "some.zip").replace(target)
    with pytest.raises(DataError, match=rf"{target}: not the file expected"):
        found(found.Params()).load()
    monkeypatch.setattr(sys.modules[found.__module__], "DIGEST", ogb.sha256(target))
    dataset = found(found.Params())
    assert dataset.load().digest == expected
    assert dataset.provenance()["canonical"]


# What ogb itself says


def test_categories_addresses_and_metrics_are_those_of_ogb():
    spec = importlib.util.find_spec("ogb")
    if spec is None:
        pytest.skip(excused_in_ci("needs ogb: pip install 'distillbench[ogb]'"))
    folder = Path(spec.submodule_search_locations[0])
    features = {}
    exec((folder / "utils" / "features.py").read_text(), features)
    molhiv = sys.modules[plugin("ogbg_molhiv").__module__]
    assert list(molhiv.CATEGORIES) == features["get_atom_feature_dims"]()
    for name, table in (("ogbn_arxiv", "nodeproppred/master.csv"), ("ogbg_molhiv", "graphproppred/master.csv")):
        assert ogb._address(NAMES[name], table, "", Path()) == URLS[name]


def test_features_are_rounded_to_the_nearest_float32(written):
    text = "0.1234567,-1.2345678e-3\n0.3,0.7\n1e-8,2\n3,4\n"
    data = written("ogbn_arxiv", node_feat=text).load()
    expected = torch.tensor([[0.1234567, -1.2345678e-3], [0.3, 0.7], [1e-8, 2], [3, 4]], dtype=torch.float64).float()
    assert torch.equal(data.x, expected)
