"""Squirrel, filtered: Wikipedia's pages on squirrels, linked by hyperlinks, 5 levels of traffic; ten fixed splits.

Rozemberczki, Allen, Sarkar: Multi-scale attributed node embedding. J. Complex Networks 2021, arXiv 1909.13021 (the
graph); Pei et al.: Geom-GCN. ICLR 2020 (classes); Platonov, Kuznedelev, Diskin, Babenko, Prokhorenkova: A critical look
at the evaluation of GNNs under heterophily. ICLR 2023, arXiv 2302.11640 (this version).

2,223 of the 5,201 nodes: the paper found many of them to be duplicates of others, which leak labels from training to
test, and removed them. These are NOT the data of PyG's ``WikipediaNetwork`` or of geom-gcn, which are the original
graph: numbers published of those cannot be compared with numbers of these. 2,089 words as binary features, 46,998
links (the undirected version of the file), 96,219 edges when symmetric with self-loops.
"""

from distillbench.plugin import Dataset, HeterophilousGraph, Parameters


class Squirrel(HeterophilousGraph, Dataset):
    """Seed s has split s modulo 10; about 48/32/20% of the nodes, so that sizes differ a little."""

    task, setting, splits = "multiclass", "transductive", 10
    source = (
        "https://github.com/yandex-research/heterophilous-graphs, data/squirrel_filtered.npz (Platonov et al. 2023)"
    )
    licence = "MIT (as distributed there)"
    file, size, classes = "squirrel_filtered.npz", 208_215, 5
    digest = "f06370ffb3116c5de8b7a600005400b2293c025e0ce2f6916d8201a825505ac7"

    class Params(Parameters):
        """path: squirrel_filtered.npz (default: downloaded)."""

        path: str | None = None
