"""Any data file"""

import gzip
import io
import json
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distillbench.data.cards import read_card
from distillbench.data.graph_data import DataError, Dataset, GraphData, read_data, write_data
from distillbench.plugins import load
from tests.data.test_ogb import CONTENT as OGB
from tests.fuzz.conftest import cases

ROOT = Path(__file__).parents[2]
NODES = 30
NUMBERS = st.sampled_from([-(2**63), -2, -1, 0, 1, 2, NODES - 1, NODES, 2**31 - 1, 2**31, 2**63 - 1])
FLOATS = st.sampled_from([0.0, -1.0, 0.5, 1e-320, 1e39, 1e308, float("nan"), float("inf"), float("-inf")])
DTYPES = st.sampled_from(["?", "i1", "u1", "i2", ">i4", "i8", "u8", "f2", "f4", ">f8", "c16", "U3", "S2", "M8[s]"])


def stored(array: np.ndarray) -> bytes:
    """An .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


@cache
def plugin_of(name: str) -> type[Dataset]:
    """A data set's class, loaded once."""
    return load("dataset", ROOT / f"datasets/{name}.py")


@pytest.fixture(scope="module", autouse=True)
def small_ppi():
    """PPI's layout with three nodes a graph."""
    with mock.patch.dict(plugin_of("ppi").load.__globals__, PARTS=PPI_PARTS):
        yield


PPI_PARTS = {"train": (60, 20), "valid": (6, 2), "test": (6, 2)}


@cache
def arrays_of(name: str) -> dict[str, np.ndarray | bytes]:
    """What a small, valid file of each layout holds: array by name, or a member's bytes."""
    random = np.random.default_rng(0)
    ring = np.arange(NODES)
    links = np.stack([ring, (ring + 1) % NODES], axis=1)
    if name == "minesweeper":
        masks = np.arange(NODES)[None].repeat(10, axis=0) % 3
        parts = {f"{part}_masks": masks == code for code, part in enumerate(("train", "val", "test"))}
        features = random.random((NODES, 7), dtype=np.float32)
        return {"node_features": features, "node_labels": ring % 2, "edges": links, **parts}
    if name == "amazon_photo":
        compressed = {"indptr": np.arange(NODES + 1), "shape": np.array([NODES, NODES])}
        adjacency = {"data": np.ones(NODES, np.float32), "indices": (ring + 1) % NODES, **compressed}
        words = {"data": np.ones(NODES, np.float32), "indices": ring % 7, **compressed, "shape": np.array([NODES, 7])}
        content = {f"adj_{key}": value for key, value in adjacency.items()}
        return content | {f"attr_{key}": value for key, value in words.items()} | {"labels": ring % 3}
    if name == "kicad3d":
        points = random.standard_normal((40, 12, 3)).astype(np.float16)
        labels = (np.arange(40) % 4).astype(np.int8)
        return {"points": points, "label": labels, "test": np.arange(40) >= 30, "classes": np.array(list("abcd"))}
    if name in OGB:
        return {member: gzip.compress(text.encode(), mtime=0) for member, text in OGB[name].items()}
    content = {}
    for part, (nodes, graphs) in PPI_PARTS.items():
        content[f"{part}_feats"] = random.random((nodes, 50))
        content[f"{part}_labels"] = random.integers(0, 2, (nodes, 121))
        content[f"{part}_graph_id"] = np.arange(nodes) // 3
        ends = [{"source": 3 * graph, "target": 3 * graph + 1} for graph in range(graphs)]
        graph = {"directed": False, "nodes": [{"id": node} for node in range(nodes)], "links": ends}
        content[f"{part}_graph.json"] = json.dumps(graph).encode()
    return content


def members(content: dict[str, np.ndarray | bytes]) -> dict[str, bytes]:
    """File name -> bytes."""
    return {
        name if isinstance(value, bytes) else f"{name}.npy": value if isinstance(value, bytes) else stored(value)
        for name, value in content.items()
    }


@st.composite
def changed_arrays(draw: st.DrawFn, array: np.ndarray) -> np.ndarray:
    """An array with values replaced, of another type or shape."""
    array = array.copy()
    match draw(st.sampled_from(["value", "value", "type", "shape", "cut", "empty", "repeat"])):
        case "value":
            place = draw(st.integers(0, array.size - 1))
            with np.errstate(all="ignore"):
                wanted = draw(FLOATS if array.dtype.kind == "f" else NUMBERS)
                array.flat[place] = np.array(wanted).astype(array.dtype)
        case "type":
            with np.errstate(all="ignore"):
                numbers = np.arange(array.size) if array.dtype.kind == "U" else array  # names are no numbers
                array = numbers.astype(draw(DTYPES))
        case "shape":
            array = array.reshape(draw(st.sampled_from([(-1,), (1, *array.shape), (*array.shape, 1)])))
        case "cut":
            array = array[draw(st.integers(0, len(array) - 1)) :]
        case "empty":
            array = np.empty(draw(st.sampled_from([(), (0,), (0, 2), (NODES, 0)])), array.dtype)
        case _:
            array = np.concatenate([array, array])
    return array


@st.composite
def changed_json(draw: st.DrawFn, content: bytes) -> bytes:
    """A graph in node-link JSON with one value replaced or removed, or text that is cut."""
    values = json.loads(content)
    odd = draw(st.sampled_from([None, True, -1, 10**30, 0.5, "1", [], {}, [1], float("nan")]))
    match draw(st.sampled_from(["id", "source", "target", "node", "link", "nodes", "links", "cut", "deep"])):
        case "id" | "node" as what:
            place = draw(st.integers(0, len(values["nodes"]) - 1))
            values["nodes"][place] = odd if what == "node" else {"id": odd}
        case "source" | "target" | "link" as what:
            place = draw(st.integers(0, len(values["links"]) - 1))
            values["links"][place] = odd if what == "link" else {**values["links"][place], what: odd}
        case "nodes" | "links" as what:
            values[what] = odd
        case "cut":
            return content[: draw(st.integers(0, len(content)))]
        case "deep":
            return b"[" * 100_000
    return json.dumps(values).encode()


@st.composite
def changed_table(draw: st.DrawFn, content: bytes) -> bytes:
    """A packed CSV file with a number replaced, a line lost or twice, or bytes changed."""
    lines = gzip.decompress(content).decode().splitlines()
    place = draw(st.integers(0, len(lines) - 1))
    match draw(st.sampled_from(["number", "number", "number", "lose", "twice", "bytes"])):
        case "number":
            numbers = lines[place].split(",")
            odd = st.sampled_from(["", "-1", "3", "2000000", "1e400", "nan", "0.5", "x", "=1", "9" * 30, "1,1", "\0"])
            numbers[draw(st.integers(0, len(numbers) - 1))] = draw(odd)
            lines[place] = ",".join(numbers)
        case "lose":
            del lines[place]
        case "twice":
            lines.insert(place, lines[place])
        case _:
            return gzip.compress(draw(damaged("\n".join(lines).encode())), mtime=0)
    return gzip.compress(("\n".join(lines) + "\n").encode(), mtime=0)


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes replaced, inserted and cut."""
    for _ in range(draw(st.integers(1, 3))):
        begin = draw(st.integers(0, len(content)))
        end = begin + draw(st.sampled_from([0, 1, 2, 30, 10**6]))
        content = content[:begin] + draw(st.binary(max_size=4)) + content[end:]
    return content


@contextmanager
def written(files: dict[str, bytes], damage: bytes | None = None) -> Iterator[Path]:
    """A zip archive of these files, or with bytes of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fuzzed.npz"
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        if damage is not None:
            path.write_bytes(damage)
        yield path


def outcome(name: str, path: Path) -> str:
    """ "read", where the data are valid ones, or the error's text, which names the file."""
    plugin = plugin_of(name)
    few = {"amazon_photo": {"train_per_class": 2, "val_per_class": 2}, "kicad3d": {"points": 6}}.get(name, {})
    dataset: Dataset = plugin(plugin.Params(path=str(path), **few))
    try:
        data = dataset.load()
    except DataError as error:
        message = str(error)
    else:
        message = ""
    if message:
        assert str(path) in message, f"the file is named: {message}"
        return message
    valid(data, plugin.dynamic)
    try:
        split = dataset.split(data, 0)
    except DataError as error:  # too few nodes of a class: says so
        return str(error)
    parts = torch.cat(split)
    assert len(parts.unique()) == len(parts)
    assert int(parts.min()) >= 0 and int(parts.max()) < (data.num_nodes, data.num_graphs)[data.setting == "inductive"]
    assert all(split.sizes().values())
    return "read"


def valid(data: GraphData, clouds: bool) -> None:
    """What every data set is, found without the checks of GraphData."""
    x, (source, destination), nodes = data.x.numpy(), data.edge_index.numpy(), len(data.x)
    assert nodes and x.dtype == np.float32 and np.isfinite(x).all()
    y = data.y.numpy()
    assert len(y) == (data.num_graphs if data.task.level == "graph" else nodes)
    assert set(np.unique(y)) <= set(range(2 if y.ndim == 2 else data.num_classes))
    links = list(zip(source.tolist(), destination.tolist(), strict=True))
    if clouds:
        assert not links
        return
    assert len(set(links)) == len(links) and {(b, a) for a, b in links} == set(links)
    assert all(0 <= node < nodes for link in links for node in link)
    assert destination.tolist() == sorted(destination.tolist())
    assert {(node, node) for node in range(nodes)} <= set(links)


def whole_and_damaged(name: str, data: st.DataObject) -> None:
    """One file of a layout with one thing wrong: in an array, in a member's bytes, or in the archive's."""
    content = dict(arrays_of(name))
    what = data.draw(st.sampled_from(sorted(content)))
    match data.draw(st.sampled_from(["content", "content", "content", "bytes", "missing", "archive"])):
        case "content":
            value = content[what]
            table = changed_json if what.endswith(".json") else changed_table
            change = table(value) if isinstance(value, bytes) else changed_arrays(value)
            files = members(content | {what: data.draw(change)})
        case "bytes":
            files = members(content)
            member = what if what in files else f"{what}.npy"
            files[member] = data.draw(damaged(files[member]))
        case "missing":
            files = members({key: value for key, value in content.items() if key != what})
        case _:
            with written(members(content)) as path:
                archive = path.read_bytes()
            with written({}, data.draw(damaged(archive))) as path:
                outcome(name, path)
            return
    with written(files) as path:
        outcome(name, path)


@pytest.mark.parametrize("name", ["minesweeper", "amazon_photo", "ppi", "kicad3d", *OGB])
def test_the_files_are_valid_ones_before_they_are_changed(name):
    with written(members(arrays_of(name))) as path:
        assert outcome(name, path) == "read"


@cases(200)
@given(data=st.data())
def test_a_changed_heterophilous_graph_is_read_as_a_valid_one_or_named(data):
    """Fault: the raw file of Minesweeper and its like is damaged or holds other content.

    Provoked: a value, a type or a shape of an array, a member's or the archive's bytes are changed, 200 cases.
    Promised: valid graph data, or an error that names the file.
    """
    whole_and_damaged("minesweeper", data)


@cases(200)
@given(data=st.data())
def test_a_changed_gnn_benchmark_graph_is_read_as_a_valid_one_or_named(data):
    """Fault: the raw file of Amazon Photo and its like is damaged or holds other content.

    Provoked: a value, a type or a shape of an array, a member's or the archive's bytes are changed, 200 cases.
    Promised: valid graph data, or an error that names the file.
    """
    whole_and_damaged("amazon_photo", data)


@cases(150)
@given(data=st.data())
def test_a_changed_ppi_archive_is_read_as_valid_data_or_named(data):
    """Fault: the archive of PPI is damaged or holds other content.

    Provoked: a value, a type or a shape of an array, a graph's JSON, a member's or the archive's bytes are changed,
    150 cases.
    Promised: valid graph data, or an error that names the file.
    """
    whole_and_damaged("ppi", data)


@cases(150)
@given(data=st.data())
def test_a_changed_file_of_clouds_is_read_as_valid_data_or_named(data):
    """Fault: the file of KiCad3D's clouds is damaged or holds other content.

    Provoked: a value, a type or a shape of an array, a member's or the archive's bytes are changed, 150 cases.
    Promised: valid graph data, or an error that names the file.
    """
    whole_and_damaged("kicad3d", data)


@pytest.mark.parametrize("name", OGB)
@cases(100)
@given(data=st.data())
def test_a_changed_archive_of_ogb_is_read_as_valid_data_or_named(name, data):
    """Fault: an archive of OGB (arxiv, molhiv) is damaged or holds other content.

    Provoked: a number, a line or bytes of a table, a member's or the archive's bytes are changed, 100 cases each.
    Promised: valid graph data, or an error that names the file.
    """
    whole_and_damaged(name, data)


@cases(150)
@given(data=st.data())
def test_changed_prepared_data_are_the_same_data_or_named(data):
    """Fault: the prepared data of a data set are damaged, the arrays or their description.

    Provoked: bytes of data.npz or data.json are replaced, inserted and cut at random places, 150 cases (hypothesis).
    Promised: the very data that were written, or an error that names the file; never other data.
    """
    plugin = plugin_of("minesweeper")
    with written(members(arrays_of("minesweeper"))) as path:
        dataset = plugin(plugin.Params(path=str(path)))
        whole = dataset.load()
        folder = path.parent / "prepared"
        write_data(folder, "mine", dataset, whole)
        card = read_card(folder / "data.json")
        file = folder / data.draw(st.sampled_from(["data.npz", "data.json"]))
        file.write_bytes(data.draw(damaged(file.read_bytes())))
        try:
            found = read_data(folder)
        except DataError as error:
            found, message = None, str(error)
        if found is None:
            assert str(folder) in message
        else:
            assert torch.equal(found.x, whole.x) and torch.equal(found.edge_index, whole.edge_index)
            assert torch.equal(found.y, whole.y) and torch.equal(found.splits, whole.splits)
            assert (found.task_name, found.num_classes, found.metric) == ("multiclass", 2, "roc_auc")
            assert read_card(folder / "data.json") == card
