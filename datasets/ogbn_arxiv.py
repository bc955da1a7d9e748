"""ogbn-arxiv: 169,343 papers of computer science on arXiv that cite each other, 40 subject areas; split by year.

Hu, Fey, Zitnik, Dong, Ren, Liu, Catasta, Leskovec: Open Graph Benchmark: Datasets for Machine Learning on Graphs.
NeurIPS 2020, arXiv 2005.00687. Features are the mean of 128-dimensional embeddings of the words in title and abstract.
90,941 papers until 2017 are for training, 29,799 of 2018 for validation, 48,603 since 2019 for the test.

The 1,166,243 citations are directed; here, as in most published work, links have no direction: 2,484,941 edges when
symmetric with self-loops. A published number of a model that sees the direction is about other edges.
"""

from pathlib import Path
from typing import Any

import torch

from distillbench.plugin import Dataset, Files, GraphData, Parameters, ogb, symmetric_with_loops

URL = "http://snap.stanford.edu/ogb/data/nodeproppred/arxiv.zip"
DOWNLOAD = "data/ogbn_arxiv/arxiv.zip"
# as several public projects pin it; OGB publishes no digest
DIGEST, SIZE = "49f85c801589ecdcc52cfaca99693aaea7b8af16a9ac3f41dd85a5f3193fe276", 83_058_288
CLASSES = 40


class OGBNArxiv(Dataset):
    """One graph with OGB's split. Needs 87 MB for the features; reading the archive takes some seconds."""

    task, setting = "multiclass", "transductive"
    source = "http://snap.stanford.edu/ogb/data/nodeproppred/arxiv.zip (OGB; Hu et al. 2020; Microsoft Academic Graph)"
    licence = "ODC-BY"

    class Params(Parameters):
        """path: arxiv.zip or its unpacked folder (default: downloaded, which needs `distillbench[ogb]`)."""

        path: str | None = None

    def load(self) -> GraphData:
        """The graph in the order of the file. Raises DataError naming the file."""
        self._path = ogb.located(
            self.params.path, "ogbn-arxiv", "nodeproppred/master.csv", URL, Path(DOWNLOAD), DIGEST, SIZE
        )
        with Files(self._path, depth=4) as files:
            x = ogb.table(files, "node-feat.csv.gz")
            if ogb.sizes(files, "node").tolist() != [len(x)]:
                files.fail(files.find("num-node-list.csv.gz"), f"one graph of {len(x)} nodes expected")
            y = ogb.table(files, "node-label.csv.gz", len(x), 1, below=CLASSES).flatten()
            source, destination = ogb.links(files, torch.tensor([len(x)]))
            split = ogb.published_split(files, len(x))
        return GraphData(
            x=x,
            edge_index=symmetric_with_loops(source, destination, len(x)),
            y=y,
            graph_ptr=torch.tensor([0, len(x)]),
            task_name=self.task,
            setting=self.setting,
            num_classes=CLASSES,
            split=split,
        )

    def provenance(self) -> dict[str, Any]:
        """Canonical by the archive's digest."""
        return ogb.known_by(self._path, "ogbn-arxiv", "arxiv.zip", DIGEST)
