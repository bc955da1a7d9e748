"""PPI: protein-protein interaction in 24 human tissues, 121 labels a protein; inductive, split by tissue 20/2/2.

Zitnik, Leskovec: Predicting multicellular function through multi-layer tissue networks. Bioinformatics 2017 (the
tissue graphs, OhmNet). Hamilton, Ying, Leskovec: Inductive Representation Learning on Large Graphs. NeurIPS 2017
(GraphSAGE: features, labels, split).

A caveat that every conclusion on PPI should carry: labels belong to genes, and tissues share genes. A third-party
reconstruction (agitter/GraphSagePPIAnalysis) reports that 99.4% of the test rows have a gene that also occurs in
training, and that a look-up by gene reaches 0.997 micro-F1. The test tissues are new, their proteins are not.

The archive is fetched from the address of PyG's ``PPI`` by PyG's downloader, and read here: the class unpacks and then
deletes it, and only the archive has a known digest.

Licence: the graphs are OhmNet's, published by SNAP; features and labels are gene sets of MSigDB, whose terms forbid
redistribution. So the archive is downloaded by whoever uses it, from its usual address, and is no part of this project.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field

from distillbench.plugin import (
    DataError,
    Dataset,
    Files,
    GraphData,
    Parameters,
    Split,
    downloaded,
    given,
    sha256,
    symmetric_with_loops,
)

DOWNLOAD = "data/ppi/ppi.zip"
CANONICAL, SIZE = "1f5b2b09ac0f897fa6aa1338c64ab75a5473674cbba89380120bede8cddb2a6a", 7_088_822
PPI24 = "c29a285323309b34863d15879b3f95f4c5fa696dd78c7dbc0be0c40090d632bd"
PARTS = {"train": (44_906, 20), "valid": (6_514, 2), "test": (5_524, 2)}  # nodes and graphs in each part's files
FEATURES, LABELS = 50, 121


class PPI(Dataset):
    """24 graphs of 56,944 nodes; the split is by graph and fixed.

    Features are used as they are in the file: the canonical ones are standardised already. Links are made symmetric,
    with a self-loop a node; an isolated node keeps just its self-loop, so that attention over its neighbours is
    defined and both libraries treat it alike.
    """

    task, setting = "multilabel", "inductive"
    source = "https://data.dgl.ai/dataset/ppi.zip (Zitnik and Leskovec 2017; Hamilton, Ying and Leskovec 2017)"
    licence = (
        "graphs: OhmNet/SNAP, no licence stated, cite the papers; features and labels: MSigDB, not redistributable"
    )

    class Params(Parameters):
        """path: ppi.zip or its unpacked folder (default: downloaded). train_graphs: only the first so many."""

        path: str | None = None
        train_graphs: int | None = Field(default=None, ge=1, le=20)

    def load(self) -> GraphData:
        """All graphs, one after another: training, validation, test. Raises DataError naming the file."""
        path = given(self.params.path) if self.params.path else downloaded(Path(DOWNLOAD), _address, CANONICAL, SIZE)
        self._digest = None if path.is_dir() else sha256(path)
        with Files(path) as files:
            parts = [_part(files, part) for part in PARTS]
        kept = [self.params.train_graphs or 20, 2, 2]
        x, y, links, sizes, nodes = [], [], [], [], 0
        for (features, labels, ends, ptr), graphs in zip(parts, kept, strict=True):
            last = ptr[graphs]
            x.append(features[:last])
            y.append(labels[:last])
            links.append(ends[:, ends[0] < last] + nodes)
            sizes.append(np.diff(ptr[: graphs + 1]))
            nodes += last
        graph = torch.arange(sum(kept))
        source, destination = torch.from_numpy(np.concatenate(links, axis=1))
        return GraphData(
            x=torch.from_numpy(np.concatenate(x)),
            edge_index=symmetric_with_loops(source, destination, nodes),
            y=torch.from_numpy(np.concatenate(y)),
            graph_ptr=torch.tensor([0, *np.concatenate(sizes)]).cumsum(0),
            task_name=self.task,
            setting=self.setting,
            num_classes=LABELS,
            split=Split(*graph.split(kept)),
        )

    def provenance(self) -> dict[str, Any]:
        """Canonical by the archive's digest; PPI-24 is known by its own."""
        graphs, digest = self.params.train_graphs or 20, self._digest
        name, remark = _KNOWN.get(digest, ("my-ppi", "PPI's layout in an archive that is not the canonical ppi.zip"))
        if graphs < 20:
            remark = "; ".join(filter(None, [remark, f"reduced PPI: {graphs} of 20 training graphs"]))
            name = f"small-{name}"
        about = {"canonical": name == "ppi", "remark": remark, "name": name}
        return about | ({"sha256": digest} if digest else {})


_KNOWN = {
    CANONICAL: ("ppi", ""),
    PPI24: ("ppi24", "PPI-24: the graphs and split of PPI with rebuilt features and labels"),
    None: (
        "my-ppi",
        "PPI's layout in an unpacked folder, which cannot be verified: name ppi.zip itself in params.path",
    ),
}


def _address() -> str:
    from torch_geometric import datasets  # seconds to import

    return datasets.PPI.url


def _part(files: Files, part: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[int]]:
    """One part's features [N, 50], labels [N, 121], links [2, E] and the first node of each graph, then N."""
    nodes, graphs = PARTS[part]
    names = {what: files.find(f"{part}_{what}.npy") for what in ("feats", "labels", "graph_id")}
    shapes = {"feats": (nodes, FEATURES), "labels": (nodes, LABELS), "graph_id": (nodes,)}
    x, y, graph = arrays = [files.array(name) for name in names.values()]
    for array, (what, shape) in zip(arrays, shapes.items(), strict=True):
        if array.shape != shape or array.dtype.kind not in ("iu" if what == "graph_id" else "biuf"):
            files.fail(names[what], f"{list(shape)} numbers expected, {array.dtype} {list(array.shape)} found")
    wrong = np.argwhere((y != 0) & (y != 1))
    if len(wrong):
        row, column = wrong[0].tolist()
        files.fail(names["labels"], f"row {row} has label {y[row, column]} in column {column}, must be 0 or 1")
    with np.errstate(over="ignore", invalid="ignore"):
        x = x.astype(np.float32)
    if not np.isfinite(x).all():
        row = np.argwhere(~np.isfinite(x))[0, 0]
        files.fail(names["feats"], f"row {row} has a feature that is not finite")
    starts = np.flatnonzero(np.append(True, graph[1:] != graph[:-1]))  # a difference could overflow
    if len(starts) != graphs or len(np.unique(graph)) != graphs:
        files.fail(
            names["graph_id"],
            f"{graphs} graphs expected, nodes of a graph next to each other; "
            f"{len(np.unique(graph))} found, in {len(starts)} pieces",
        )
    return x, y.astype(np.float32), _links(files, f"{part}_graph.json", graph), [*starts.tolist(), nodes]


def _links(files: Files, base: str, graph: np.ndarray) -> np.ndarray:
    """Links [2, E] int64 of a node-link graph; ``graph`` [N]: which graph each node is of."""
    name, nodes = files.find(base), len(graph)
    try:
        content = json.loads(files.read(name))
        ids, links = {node["id"] for node in content["nodes"]}, content["links"]
        ends = np.array([[link["source"] for link in links], [link["target"] for link in links]])
    except DataError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        files.fail(name, f"not a graph in node-link JSON ({type(error).__name__}: {error})")
    if len(content["nodes"]) != nodes or ids != set(range(nodes)):
        files.fail(name, f"nodes 0 to {nodes - 1} expected, {len(content['nodes'])} found, or with other ids")
    if ends.dtype.kind != "i" or ends.ndim != 2:
        files.fail(name, f"integers expected as source and target of the links, {ends.dtype} found")
    outside = np.flatnonzero(((ends < 0) | (ends >= nodes)).any(axis=0))
    if len(outside):
        files.fail(name, f"link {outside[0]} is {ends[:, outside[0]].tolist()}, but nodes are 0 to {nodes - 1}")
    across = np.flatnonzero(graph[ends[0]] != graph[ends[1]])
    if len(across):
        files.fail(name, f"link {across[0]} is {ends[:, across[0]].tolist()}, nodes of two graphs")
    return ends
