"""The field's standard graphs as published: Planetoid's files (2016), gnn-benchmark's (2018) and the split drawn there.

Planetoid's files are pickles, which can execute anything: only the known ones are read, by digest, and nothing but
arrays, sparse matrices and lists is made of them. The others are arrays in a zip archive and are never unpickled; they
may hold any content, and the published one is known by its digest.
"""

import hashlib
import io
import pickle  # read by _Arrays, which makes nothing but arrays  # nosec B403
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from distillbench.data.archives import Files, downloaded, fingerprint, git_id, given
from distillbench.data.graph_data import DataError, GraphData, Split, symmetric_with_loops

_DENSE_LIMIT = 2**34  # bytes of the features; of Coauthor Physics, the largest, they are 2**30
_VALIDATION = 500  # nodes that follow the labelled ones, in all three graphs


def planetoid(name: str, path: str | None, digests: Mapping[str, str], *, row_normalised: bool) -> GraphData:
    """One of Planetoid's graphs with its public split, from a folder with ``ind.<name>.*`` (default: downloaded).

    Training: the nodes of ``y``, 20 a class. Validation: the 500 nodes after them. Test: the 1,000 of ``test.index``.
    A node in none of the files (CiteSeer has 15, among the test nodes' numbers) has no features and no label (-1).

    Args:
        digests: what each file (``x``, ``tx``, ... ``test.index``) must be: see archives.fingerprint.
        row_normalised: divide each node's features by their sum, as Kipf and Welling do; see normalised.

    Raises:
        DataError: a file is missing or is not the published one.
    """
    folder = given(path) if path else _fetched(name, digests)
    with Files(folder) as files:
        content = {part: _known(files, f"ind.{name}.{part}", digest) for part, digest in digests.items()}
    test = np.array(content.pop("test.index").split(), dtype=np.int64)
    part = {key: _Arrays(io.BytesIO(value), encoding="latin1").load() for key, value in content.items()}
    nodes, first = len(part["graph"]), part["allx"].shape[0]
    x = np.zeros((nodes, part["allx"].shape[1]), dtype=np.float32)
    x[:first], x[test] = part["allx"].toarray(), part["tx"].toarray()
    y = np.full(nodes, -1, dtype=np.int64)
    y[:first], y[test] = part["ally"].argmax(axis=1), part["ty"].argmax(axis=1)
    links = np.array([(node, other) for node, others in part["graph"].items() for other in others], dtype=np.int64)
    source, destination = torch.from_numpy(links).T
    labelled = len(part["y"])
    return GraphData(
        x=torch.from_numpy(normalised(x) if row_normalised else x),
        edge_index=symmetric_with_loops(source, destination, nodes),
        y=torch.from_numpy(y),
        graph_ptr=torch.tensor([0, nodes]),
        task_name="multiclass",
        setting="transductive",
        num_classes=part["ally"].shape[1],
        split=Split(
            torch.arange(labelled),
            torch.arange(labelled, labelled + _VALIDATION),
            torch.from_numpy(np.sort(test)),
        ),
    )


def _fetched(name: str, digests: Mapping[str, str]) -> Path:
    folder = Path("data", name)
    for part, digest in digests.items():
        file = f"ind.{name}.{part}"
        others = ", ".join(f"ind.{name}.{other}" for other in digests if other != part)
        downloaded(folder / file, partial(_planetoid_address, file), digest, others=others)
    return folder


def _planetoid_address(file: str) -> str:
    return f"{_pyg().Planetoid.url}/{file}"


def _known(files: Files, base: str, digest: str) -> bytes:
    name = files.find(base)
    content = files.read(name)
    if (found := fingerprint(content, digest)) != digest:
        files.fail(
            name,
            f"refused: not the published file ({found}, expected {digest}), and a pickle that nobody knows could "
            "execute anything. Leave datasets.<name>.params.path out to have the files downloaded",
        )
    return content


class _Arrays(pickle.Unpickler):
    """What Planetoid's files, written by Python 2, are made of; whatever else a pickle names is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("scipy.sparse.csr", "csr_matrix"):
            return sp.csr_matrix  # SciPy gives up the old name of the module
        if (module, name) not in _PICKLED:
            raise DataError(f"a pickle of arrays was expected, this one names {module}.{name}")
        return super().find_class(module, name)


_PICKLED = {
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("collections", "defaultdict"),
    ("__builtin__", "list"),
}


class WordGraph(NamedTuple):
    """A graph whose nodes have bags of words.

    edge_index: [2, E] as in GraphData. words: [N, F] in CSR, all 1. y: [N] int64. git_id: of the file it was read from,
    empty where that is a folder.
    """

    edge_index: Tensor
    words: sp.csr_matrix
    y: np.ndarray
    git_id: str

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the content, the same for both layouts of the file."""
        total, words = hashlib.sha256(), self.words
        shape = np.array(words.shape)
        for array in (self.edge_index.numpy(), shape, words.indptr, words.indices, self.y):
            total.update(np.ascontiguousarray(array, dtype="<i8").tobytes())
        return total.hexdigest()

    def largest_component(self) -> "WordGraph":
        """Only the largest connected component, its nodes in the same order."""
        nodes = len(self.y)
        links = sp.coo_matrix((np.ones(self.edge_index.shape[1]), self.edge_index.numpy()), (nodes, nodes))
        component = connected_components(links, directed=False)[1]
        kept = component == np.bincount(component).argmax()
        number = torch.from_numpy(np.cumsum(kept) - 1)
        inside = torch.from_numpy(kept)[self.edge_index[0]]
        return WordGraph(number[self.edge_index[:, inside]], self.words[kept], self.y[kept], self.git_id)

    def data(self, *, row_normalised: bool) -> GraphData:
        """With dense features: 4 N F bytes."""
        x = self.words.toarray()
        return GraphData(
            x=torch.from_numpy(normalised(x) if row_normalised else x),
            edge_index=self.edge_index,
            y=torch.from_numpy(self.y),
            graph_ptr=torch.tensor([0, len(self.y)]),
            task_name="multiclass",
            setting="transductive",
            num_classes=int(self.y.max()) + 1,
        )


class ShchurGraph:
    """One of the graphs of Shchur et al.: how it is loaded, and what is known of its origin.

    ``class AmazonPhoto(ShchurGraph, Dataset)`` states its ``title``, where the file is downloaded to (``download``),
    git's id of the ``published`` file (that of commit 1e72912) and the digest of its ``content``, and has the
    parameters ``path``, ``row_normalised`` and perhaps ``largest_component``.
    """

    title: ClassVar[str]
    download: ClassVar[str]
    published: ClassVar[str]
    content: ClassVar[str]
    params: Any

    def load(self) -> GraphData:
        """The whole graph, or its largest component. Raises DataError naming the file and what is wrong with it."""
        graph = gnn_benchmark(self.params.path, self.download, self.published)
        self._provenance = recognised(self.title, graph, self.published, self.content)
        if getattr(self.params, "largest_component", False):
            graph = graph.largest_component()
        return graph.data(row_normalised=self.params.row_normalised)

    def provenance(self) -> dict[str, Any]:
        """Canonical is the published file, and any file with its content."""
        return self._provenance


def gnn_benchmark(path: str | None, target: str, published: str) -> WordGraph:
    """A graph of Shchur et al. from its .npz file (default: downloaded to ``target``), features made binary.

    Two layouts are read: the published one (``adj_*`` and ``attr_*`` in CSR, ``labels``) and a compact one (``row``,
    ``col``, ``x_*`` in CSR, ``y``). Links are made symmetric, with a self-loop a node. Features count words; as in
    Shchur et al. and in PyG (not in DGL), all counts become 1.

    Args:
        path: the file, or None.
        target: where the published file is downloaded to; its name is that in the repository.
        published: git's id of the published file.

    Raises:
        DataError: naming the file and what is wrong with it.
    """
    file = Path(target)
    where = given(path) if path else downloaded(file, lambda: _pyg().Amazon.url + file.name, published)
    with Files(where) as files:
        compact = "row.npy" in files.names
        prefix = "x" if compact else "attr"
        words = _matrix(files, prefix)
        nodes = words.shape[0]
        if (size := 4 * nodes * words.shape[1]) > _DENSE_LIMIT:
            files.fail(f"{prefix}_shape.npy", f"{list(words.shape)}: {size:,} bytes when dense, over {_DENSE_LIMIT:,}")
        if compact:
            source = _numbers(files, "row.npy", below=nodes)
            destination = _numbers(files, "col.npy", below=nodes, length=len(source))
        else:
            links = _matrix(files, "adj")
            if links.shape != (nodes, nodes):
                files.fail("adj_shape.npy", f"{list(links.shape)}, but there are features of {nodes} nodes")
            source, destination = (ends.astype(np.int64) for ends in links.nonzero())
        y = _numbers(files, "y.npy" if compact else "labels.npy", below=nodes, length=nodes)
    edges = symmetric_with_loops(torch.from_numpy(source), torch.from_numpy(destination), nodes)
    return WordGraph(edges, words, y, "" if where.is_dir() else git_id(where))


def _numbers(files: Files, name: str, *, below: int, length: int | None = None) -> np.ndarray:
    """One row of integers from 0, as int64. Raises DataError where it is something else."""
    found = files.array(name)
    if found.dtype.kind not in "iu" or found.ndim != 1 or length not in (None, len(found)):
        wanted = "" if length is None else f"{length:,} "
        files.fail(name, f"{wanted}integers expected, {found.dtype} {list(found.shape)} found")
    if found.size and not 0 <= found.min() <= found.max() < below:
        files.fail(name, f"numbers from 0 to {below - 1:,} expected, {found.min():,} to {found.max():,} found")
    return found.astype(np.int64)


def _matrix(files: Files, prefix: str) -> sp.csr_matrix:
    """A matrix in CSR, all its counts 1. Raises DataError where it is not one, or where something is below 0."""
    counts = files.array(f"{prefix}_data.npy")
    if counts.dtype.kind not in "biuf" or counts.ndim != 1 or not (counts >= 0).all():
        files.fail(f"{prefix}_data.npy", "counts expected: numbers, none below 0")
    shape = tuple(_numbers(files, f"{prefix}_shape.npy", below=2**31, length=2).tolist())
    columns = _numbers(files, f"{prefix}_indices.npy", below=shape[1], length=len(counts))
    starts = _numbers(files, f"{prefix}_indptr.npy", below=len(counts) + 1, length=shape[0] + 1)
    if starts[0] != 0 or starts[-1] != len(counts) or (np.diff(starts) < 0).any():  # SciPy would cut off what is left
        files.fail(f"{prefix}_indptr.npy", f"not where rows start: from 0 to {len(counts):,}")
    matrix = sp.csr_matrix((counts.astype(np.float32), columns, starts), shape=shape)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    matrix.data[:] = 1
    return matrix


def normalised(x: np.ndarray) -> np.ndarray:
    """Each row of ``x`` divided by its sum, in place; a row of zeros stays."""
    total = x.sum(axis=1, keepdims=True, dtype=np.float64)
    np.divide(x, total, out=x, where=total > 0, casting="same_kind")
    return x


def split_per_class(y: Tensor, train: int, val: int, random: torch.Generator) -> Split:
    """``train`` and then ``val`` nodes of every class, drawn; the rest for the test (Shchur et al. 2018).

    Raises DataError where a class has not that many nodes.
    """
    order = torch.randperm(len(y), generator=random)
    classes = [order[y[order] == each] for each in range(int(y.max()) + 1)]
    short = [f"{each} ({len(nodes)} nodes)" for each, nodes in enumerate(classes) if len(nodes) < train + val]
    if short:
        raise DataError(f"{train} + {val} nodes a class asked for, but too few of class {', '.join(short)}")
    parts = zip(*(nodes.tensor_split((train, train + val)) for nodes in classes), strict=True)
    return Split(*map(torch.cat, parts))


def split_as_published(data: GraphData, random: torch.Generator) -> Split:
    """A split of the sizes of the data's published one: of every class as many nodes for training (of the citation
    graphs: 20), of whatever class as many for validation (500) and for the test (1,000); the rest is in no part.

    Drawn of the nodes that have a label, as Shchur et al. (2018) redraw these graphs' splits; there, validation is 30 a
    class and the test all that is left. Raises DataError where there is no published split, or too few have a label.
    """
    if data.split is None:
        raise DataError("there is no published split, whose sizes a random one has")
    train, val, test = data.split
    wanted = data.y[train].bincount(minlength=data.num_classes)
    order = torch.randperm(data.num_nodes, generator=random)
    order = order[data.y[order] >= 0]
    of_class = torch.nn.functional.one_hot(data.y[order], data.num_classes)
    place = (of_class.cumsum(dim=0) * of_class).sum(dim=1)  # among those of its class, from 1
    trained = place <= wanted[data.y[order]]
    rest = order[~trained]
    if len(rest) < len(val) + len(test):
        raise DataError(f"{len(val)} + {len(test)} nodes for validation and test asked for, {len(rest)} are left")
    return Split(order[trained], rest[: len(val)], rest[len(val) : len(val) + len(test)])


def recognised(title: str, graph: WordGraph, published: str, content: str) -> dict[str, Any]:
    """Provenance: canonical is the file that git knows as ``published``, and what has its ``content`` (digest)."""
    found = graph.digest
    known = published == graph.git_id or content == found
    remark = "" if known else f"not {title}: the same layout with other content"
    return {"canonical": known, "remark": remark, "git_id": graph.git_id, "content": found}


def _pyg() -> Any:
    from torch_geometric import datasets  # seconds to import

    return datasets
