"""The graphs of yandex-research/heterophilous-graphs: a file each, one graph with ten published splits.

Platonov, Kuznedelev, Diskin, Babenko, Prokhorenkova: A critical look at the evaluation of GNNs under heterophily: Are
we really making progress? ICLR 2023, arXiv 2302.11640.

PyG's ``HeterophilousGraphDataset`` has the address, but does not offer all of the graphs that lie there; so a file is
fetched by PyG's downloader and read here, and known by its digest (that of commit a431395 of the repository).
"""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from distillbench.data.archives import Files, downloaded, given, sha256
from distillbench.data.graph_data import Dataset, GraphData, symmetric_with_loops

FOLDER = "data/heterophilous"
PARTS = ("train", "val", "test")


class HeterophilousGraph:
    """One of the graphs: how it is loaded, and what is known of its origin.

    ``class Squirrel(HeterophilousGraph, Dataset)`` states the ``file``, its ``size`` in bytes and ``digest`` (SHA-256),
    and the number of ``classes``, and has a parameter ``path``.
    """

    file: ClassVar[str]
    size: ClassVar[int]
    digest: ClassVar[str]
    classes: ClassVar[int]
    params: Any

    def load(self) -> GraphData:
        """The graph with its ten splits. Raises DataError naming the file."""
        assert isinstance(self, Dataset)
        self._path = located(self.params.path, self.file, self.digest, self.size)
        return read_graph(self._path, self, self.classes)

    def provenance(self) -> dict[str, Any]:
        """Canonical by the file's digest."""
        return known_by(self._path, self.file, self.digest)


def located(path: str | None, name: str, digest: str, size: int) -> Path:
    """The file that ``path`` of the config names, or without one the one called ``name``, downloaded once."""
    return given(path) if path else downloaded(Path(FOLDER, name), lambda: _address(name), digest, size)


def read_graph(path: Path, dataset: Dataset, classes: int) -> GraphData:
    """What such a file holds, for ``dataset``. Links are made symmetric, with a self-loop a node.

    The arrays are ``node_features`` [N, F], ``node_labels`` [N], ``edges`` [E, 2] (each link once) and ``train_masks``,
    ``val_masks``, ``test_masks`` [K, N].

    Raises:
        DataError: naming the file and what is wrong with it.
    """
    with Files(path) as files:
        x, y, edges = (_array(files, name) for name in ("node_features", "node_labels", "edges"))
        masks = [_array(files, f"{part}_masks") for part in PARTS]
        if x.ndim != 2 or x.dtype.kind != "f":
            files.fail("node_features.npy", f"finite floats [N, F] expected, {x.dtype} {list(x.shape)} found")
        with np.errstate(over="ignore", invalid="ignore"):
            x = x.astype(np.float32)
        if not np.isfinite(x).all():
            row = np.argwhere(~np.isfinite(x))[0, 0]
            files.fail("node_features.npy", f"finite floats expected, row {row} has one that is not finite in float32")
        nodes = len(x)
        if y.shape != (nodes,) or y.dtype.kind not in "iu" or not ((y >= 0) & (y < classes)).all():
            files.fail("node_labels.npy", f"{nodes} integers from 0 to {classes - 1} expected")
        if edges.ndim != 2 or edges.shape[1] != 2 or edges.dtype.kind not in "iu":
            files.fail("edges.npy", f"integers [E, 2] expected, {edges.dtype} {list(edges.shape)} found")
        if edges.size and not 0 <= edges.min() <= edges.max() < nodes:
            files.fail("edges.npy", f"names nodes from {edges.min()} to {edges.max()}, but nodes are 0 to {nodes - 1}")
        codes = np.full((dataset.splits, nodes), -1, dtype=np.int8)
        for code, (part, mask) in enumerate(zip(PARTS, masks, strict=True)):
            if mask.shape != codes.shape or mask.dtype != bool:
                files.fail(f"{part}_masks.npy", f"bool {list(codes.shape)} expected, {mask.dtype} {list(mask.shape)}")
            if (codes[mask] != -1).any():
                files.fail(f"{part}_masks.npy", "has nodes of another part")
            codes[mask] = code
    source, destination = torch.from_numpy(edges.astype(np.int64)).T
    return GraphData(
        x=torch.from_numpy(x),
        edge_index=symmetric_with_loops(source, destination, nodes),
        y=torch.from_numpy(y.astype(np.int64)),
        graph_ptr=torch.tensor([0, nodes]),
        task_name=dataset.task,
        setting=dataset.setting,
        num_classes=classes,
        splits=torch.from_numpy(codes),
        metric=dataset.metric,
    )


def known_by(path: Path, name: str, digest: str) -> dict[str, Any]:
    """The provenance of a file: canonical by its digest."""
    found = sha256(path)
    remark = "" if found == digest else f"not the {name} of yandex-research/heterophilous-graphs (other SHA-256)"
    return {"canonical": not remark, "remark": remark, "sha256": found}


def _array(files: Files, name: str) -> np.ndarray:
    return files.array(f"{name}.npy")


def _address(name: str) -> str:
    from torch_geometric.datasets import HeterophilousGraphDataset  # seconds to import

    return f"{HeterophilousGraphDataset.url}/{name}"
