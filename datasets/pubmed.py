"""PubMed: 19,717 papers on diabetes that cite one another, 3 kinds of diabetes; 20 labels a kind.

Yang, Cohen, Salakhutdinov: Revisiting Semi-Supervised Learning with Graph Embeddings. ICML 2016, arXiv:1603.08861
(kimiyoung/planetoid: the files and the split). Sen, Namata, Bilgic, Getoor, Gallagher, Eliassi-Rad: Collective
Classification in Network Data. AI Magazine 2008 (the graph).

Counts: 19,717 nodes, 44,324 undirected edges (88,676 entries in the file, some twice, 6 of them self-loops), 500
features (TF-IDF of words), no isolated node. The public split: 60 nodes for training, 500 for validation, 1,000 for
the test; the other 18,157 are in no part.

Features are divided by their sum, as Kipf and Welling (2017), PyG's examples (NormalizeFeatures) and DGL do;
``row_normalised: false`` leaves them as they are published. All published numbers share one split; on other
splits models rank differently (Shchur, Mumme, Bojchevski, Günnemann: Pitfalls of Graph Neural Network Evaluation. 2018,
arXiv:1811.05868): ``splits: random`` draws one for every seed, of the same sizes.
"""

import torch

from distillbench.plugin import Dataset, GraphData, Parameters, Split, Splits, planetoid, split_as_published

# SHA-256 of the files at commit af6abf4 of kimiyoung/planetoid, or the id under which git lists one
DIGESTS = {
    "x": "fbe9cb5c47200d1b7769a26e579be3b7130b556831f9d850e77c4c74f2599b33",
    "y": "e6c807633307a07ed659249006536a147c7999c797f11a2560752990181b41b3",
    "tx": "4eb5f5d0f30f26497eb0ac6ac9719d09c67e284f1ed0385c93f3ef27a671da3d",
    "ty": "ee2e0d4819d9fbcc403689c3bf2e49face401b605932f093bc58ab6461130fdd",
    "allx": "3b86bccf08111c37c632a9dd8ab63db25ea76361",  # git's id
    "ally": "0c37bbe3b5014ec365e9d393cf4791925e5ed94fb194305d74f064a8d7b50f0e",
    "graph": "5b89f0036ca22909471f1e6558eb42fa06e0c730a577bde5b058b40638f81dc9",
    "test.index": "b101d421688bbaecbd82e8a18f1e282378d6830f3a37666f28ebc47f844341b5",
}


class PubMed(Dataset):
    """One citation graph with the public split, the same for every seed, or random ones of its sizes."""

    task, setting = "multiclass", "transductive"
    source = "https://github.com/kimiyoung/planetoid, data/ind.pubmed.* (Yang et al. 2016; Sen et al. 2008)"
    licence = "MIT (kimiyoung/planetoid); no licence stated for the graph itself, cite the papers"

    class Params(Parameters):
        """path: folder with the eight files ind.pubmed.* (default: downloaded). row_normalised: features sum to 1.

        splits: the public one, or one drawn for every seed: 20 nodes a class, 500 for validation, 1,000 for the test.
        """

        path: str | None = None
        row_normalised: bool = True
        splits: Splits = "published"

    def load(self) -> GraphData:
        """The graph with its public split. Raises DataError naming a file that is missing or not the published one."""
        return planetoid("pubmed", self.params.path, DIGESTS, row_normalised=self.params.row_normalised)

    def draw_split(self, data: GraphData, random: torch.Generator) -> Split:
        """As many nodes in each part as in the public split, and of every class for training."""
        return split_as_published(data, random)
