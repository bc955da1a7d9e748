"""CiteSeer: 3,327 papers on computer science that cite one another, 6 subjects; 20 labels a subject.

Yang, Cohen, Salakhutdinov: Revisiting Semi-Supervised Learning with Graph Embeddings. ICML 2016, arXiv:1603.08861
(kimiyoung/planetoid: the files and the split). Sen, Namata, Bilgic, Getoor, Gallagher, Eliassi-Rad: Collective
Classification in Network Data. AI Magazine 2008 (the graph).

Counts: 3,327 nodes, 4,552 undirected edges (9,464 entries in the file, some twice, 248 of them self-loops), 3,703
features (a word occurs or not), 48 isolated nodes. The public split: 120 nodes for training, 500 for validation, 1,000
for the test; the other 1,707 are in no part.

15 nodes have links, but neither features nor a label: their numbers are between those of the test nodes, and the other
files leave them out. They are kept, as everywhere, with features 0; their label is hidden here (-1), where PyG and DGL
call it 0. They are in no part of the split.

Features are divided by their sum, as Kipf and Welling (2017), PyG's examples (NormalizeFeatures) and DGL do;
``row_normalised: false`` leaves them 0 and 1. All published numbers share one split; on other
splits models rank differently (Shchur, Mumme, Bojchevski, Günnemann: Pitfalls of Graph Neural Network Evaluation. 2018,
arXiv:1811.05868): ``splits: random`` draws one for every seed, of the same sizes.
"""

import torch

from distillbench.plugin import Dataset, GraphData, Parameters, Split, Splits, planetoid, split_as_published

# SHA-256 of the files at commit af6abf4 of kimiyoung/planetoid
DIGESTS = {
    "x": "d20de19150741e555de0ed037195630fc194114ebc7fd72ced62810148aa22f6",
    "y": "8ba87e515d8e3ee3cf52f6d2c5b86aa73f11ecad825a808455209ec26cd54924",
    "tx": "539a8906a2da97628d212f2fdd668c109a8b3f0d36574b59e5d3fd5b5303da21",
    "ty": "55e5bd1ba1e733a04598753ad1a8d57957f4b8f89e74519f41f4f4938767e4ce",
    "allx": "2ac30345d95c9ec933a817ee0bdd6a5f077f8c184a20e696910192d534414668",
    "ally": "f704b2d986dde6c2669934de1f3ae5696a6cf9455c0f6b2646a2d135ea0a1c95",
    "graph": "d79a4ef9d3e7169aee8946145f6b7306e35bc79bffad26346cfb94e10e9912a7",
    "test.index": "2af990671580b6b2df5d158d1038f8292e30c9cd821b5453f399659b25b723d4",
}


class CiteSeer(Dataset):
    """One citation graph with the public split, the same for every seed, or random ones of its sizes."""

    task, setting = "multiclass", "transductive"
    source = "https://github.com/kimiyoung/planetoid, data/ind.citeseer.* (Yang et al. 2016; Sen et al. 2008)"
    licence = "MIT (kimiyoung/planetoid); no licence stated for the graph itself, cite the papers"

    class Params(Parameters):
        """path: folder with the eight files ind.citeseer.* (default: downloaded). row_normalised: features sum to 1.

        splits: the public one, or one drawn for every seed: 20 nodes a class, 500 for validation, 1,000 for the test.
        """

        path: str | None = None
        row_normalised: bool = True
        splits: Splits = "published"

    def load(self) -> GraphData:
        """The graph with its public split. Raises DataError naming a file that is missing or not the published one."""
        return planetoid("citeseer", self.params.path, DIGESTS, row_normalised=self.params.row_normalised)

    def draw_split(self, data: GraphData, random: torch.Generator) -> Split:
        """As many nodes in each part as in the public split, and of every class for training."""
        return split_as_published(data, random)
