"""Actor: actors who occur together on a page of Wikipedia, 5 groups of words on their own pages; ten fixed splits.

Pei, Wei, Chang, Lei, Yang: Geom-GCN: Geometric Graph Convolutional Networks. ICLR 2020, arXiv 2002.05287 (the graph,
induced from the network of Tang, Sun, Wang, Yang: Social influence analysis in large-scale networks. KDD 2009; called
"film" there). 7,600 nodes, 932 keywords as binary features, 26,659 links, 60,918 edges when symmetric with self-loops.

The file is that of yandex-research/heterophilous-graphs (Platonov et al. 2023): one file with a known digest, instead
of the twelve that PyG's ``Actor`` fetches from graphdml-uiuc-jlu/geom-gcn. Compared with those (commit f1fc0d1), it
holds the same features, labels and ten splits, and the same links once they are symmetric: of geom-gcn's 30,019
directed ones 122 are self-loops, and many are there in both directions. The splits have 48/32/20% of the nodes, not the
60/20/20% that the paper of Geom-GCN states.
"""

from distillbench.plugin import Dataset, HeterophilousGraph, Parameters


class Actor(HeterophilousGraph, Dataset):
    """Seed s has split s modulo 10: 3,648 nodes for training, 2,432 for validation, 1,520 for the test."""

    task, setting, splits = "multiclass", "transductive", 10
    source = "https://github.com/yandex-research/heterophilous-graphs, data/actor.npz (Platonov et al. 2023)"
    licence = "MIT (as distributed there; geom-gcn, where the graph is from, states no licence)"
    file, size, classes = "actor.npz", 252_956, 5
    digest = "c350eef06b2c2a9bf8218be2b57cac6d4003d0922eb597a039e9123f75817816"

    class Params(Parameters):
        """path: actor.npz (default: downloaded)."""

        path: str | None = None
