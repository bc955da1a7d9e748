"""ogbg-molhiv: 41,127 molecules, 1,443 of which inhibit the replication of HIV; graph classification, scaffold split.

Hu, Fey, Zitnik, Dong, Ren, Liu, Catasta, Leskovec: Open Graph Benchmark: Datasets for Machine Learning on Graphs.
NeurIPS 2020, arXiv 2005.00687; labels: Wu et al., MoleculeNet. Chemical Science 2018, from the DTP AIDS Antiviral
Screen. 1,049,163 atoms, 1,129,688 bonds; 32,901 molecules (1,232 active) are for training, 4,113 (81) for validation,
4,113 (130) for the test: scaffolds of the test do not occur in training. Scored by ROC AUC, as in OGB.

An atom's nine categories are one-hot here, 174 columns together: a linear layer of them is the sum of embeddings that
OGB's ``AtomEncoder`` is. BONDS HAVE NO FEATURES HERE: no model of this project reads any. Published numbers are of
models that do (GIN-E, PNA), so a teacher's cannot be compared with them, though data, split and metric are OGB's.

The features alone are 0.73 GB; loading and writing them takes 2.5 GB of memory, reading them in a run 3.2 GB.
"""

from pathlib import Path
from typing import Any

import torch

from distillbench.plugin import Dataset, Files, GraphData, Parameters, ogb, symmetric_with_loops

URL = "http://snap.stanford.edu/ogb/data/graphproppred/csv_mol_download/hiv.zip"
DOWNLOAD = "data/ogbg_molhiv/hiv.zip"
# as two public projects state it; OGB publishes no digest
DIGEST = "47d747664b9e1653de5aac99bf26c015d88a3daa474f5a32f3fe5c014111375b"
# atomic number, chirality, degree, charge, hydrogens, radical electrons, hybridisation, aromatic?, in a ring?
CATEGORIES = (119, 5, 12, 12, 10, 6, 6, 2, 2)  # of each, as ogb.utils.features has them
CLASSES = 2


class OGBGMolHIV(Dataset):
    """Molecules with OGB's split; links are bonds, symmetric, with a self-loop an atom."""

    task, setting, metric = "graph-multiclass", "inductive", "roc_auc"
    source = (
        "http://snap.stanford.edu/ogb/data/graphproppred/csv_mol_download/hiv.zip (OGB; Hu et al. 2020; MoleculeNet)"
    )
    licence = "MIT (OGB; MoleculeNet)"

    class Params(Parameters):
        """path: hiv.zip or its unpacked folder (default: downloaded, which needs `distillbench[ogb]`)."""

        path: str | None = None

    def load(self) -> GraphData:
        """All molecules in the order of the file. Raises DataError naming the file."""
        self._path = ogb.located(
            self.params.path, "ogbg-molhiv", "graphproppred/master.csv", URL, Path(DOWNLOAD), DIGEST, None
        )
        with Files(self._path, depth=4) as files:
            atoms = ogb.sizes(files, "node")
            nodes, graphs = int(atoms.sum()), len(atoms)
            categories = ogb.table(files, "node-feat.csv.gz", nodes, len(CATEGORIES), below=max(CATEGORIES))
            outside = (categories >= torch.tensor(CATEGORIES)).any(dim=1).nonzero().flatten()
            if len(outside):
                files.fail(files.find("node-feat.csv.gz"), f"row {outside[0]} has a category that OGB does not")
            y = ogb.table(files, "graph-label.csv.gz", graphs, 1, below=CLASSES).flatten()
            source, destination = ogb.links(files, atoms)
            split = ogb.published_split(files, graphs)
        first = torch.tensor((0, *CATEGORIES[:-1])).cumsum(0)
        return GraphData(
            x=torch.zeros(nodes, sum(CATEGORIES)).scatter_(1, categories + first, 1.0),
            edge_index=symmetric_with_loops(source, destination, nodes),
            y=y,
            graph_ptr=torch.cat([torch.tensor([0]), atoms.cumsum(0)]),
            task_name=self.task,
            setting=self.setting,
            num_classes=CLASSES,
            split=split,
            metric=self.metric,
        )

    def provenance(self) -> dict[str, Any]:
        """Canonical by the archive's digest."""
        return ogb.known_by(self._path, "ogbg-molhiv", "hiv.zip", DIGEST)
