"""Cora: 2,708 papers on machine learning that cite one another, 7 subjects; 20 labels a subject.

Yang, Cohen, Salakhutdinov: Revisiting Semi-Supervised Learning with Graph Embeddings. ICML 2016, arXiv:1603.08861
(kimiyoung/planetoid: the files and the split). Sen, Namata, Bilgic, Getoor, Gallagher, Eliassi-Rad: Collective
Classification in Network Data. AI Magazine 2008 (the graph).

Counts: 2,708 nodes, 5,278 undirected edges (10,858 entries in the file, some twice), 1,433 features (a word occurs or
not), no isolated node. The public split: 140 nodes for training, 500 for validation, 1,000 for the test; the other
1,068 are in no part.

Features are divided by their sum, as Kipf and Welling (2017), PyG's examples (NormalizeFeatures) and DGL do;
``row_normalised: false`` leaves them 0 and 1. All published numbers share one split; on other
splits models rank differently (Shchur, Mumme, Bojchevski, Günnemann: Pitfalls of Graph Neural Network Evaluation. 2018,
arXiv:1811.05868): ``splits: random`` draws one for every seed, of the same sizes.
"""

import torch

from distillbench.plugin import Dataset, GraphData, Parameters, Split, Splits, planetoid, split_as_published

# SHA-256 of the files at commit af6abf4 of kimiyoung/planetoid
DIGESTS = {
    "x": "23cfa55d91c6f624233f5eb7b6e3f141f1bd2b2ae39608a63cf5d084bb27baab",
    "y": "94465c14eb53e04ca262198dcbb2521ee8af60fb3f3d546cd6ca24a511b0e7d1",
    "tx": "b9afbaa4a400df991f6f02ef677e1e44da55ffc04801fd02f9e673987829226a",
    "ty": "41f5ac76596a1699cc33f53084a2419e92961c42bb75f36fc38e616d348532ad",
    "allx": "9419ba2f26f5c35243db64aba110e0f35a04851609e0dc5433450676ca6b8543",
    "ally": "2b998f5cc7fedc86e7f97ca2498f47a1ffc1462c29e2d578b23bf3f62b6e7d71",
    "graph": "58f13302f39dde8852dad6fe6d15b89b077b6d7f837626bce671ef80344b383d",
    "test.index": "297ce89af2b51a6a194181c7dbe1796c6a1cf9cd9349a88383b1b1e227867875",
}


class Cora(Dataset):
    """One citation graph with the public split, the same for every seed, or random ones of its sizes."""

    task, setting = "multiclass", "transductive"
    source = "https://github.com/kimiyoung/planetoid, data/ind.cora.* (Yang et al. 2016; Sen et al. 2008)"
    licence = "MIT (kimiyoung/planetoid); no licence stated for the graph itself, cite the papers"

    class Params(Parameters):
        """path: folder with the eight files ind.cora.* (default: downloaded). row_normalised: features sum to 1.

        splits: the public one, or one drawn for every seed: 20 nodes a class, 500 for validation, 1,000 for the test.
        """

        path: str | None = None
        row_normalised: bool = True
        splits: Splits = "published"

    def load(self) -> GraphData:
        """The graph with its public split. Raises DataError naming a file that is missing or not the published one."""
        return planetoid("cora", self.params.path, DIGESTS, row_normalised=self.params.row_normalised)

    def draw_split(self, data: GraphData, random: torch.Generator) -> Split:
        """As many nodes in each part as in the public split, and of every class for training."""
        return split_as_published(data, random)
