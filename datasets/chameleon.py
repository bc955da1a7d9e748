"""Chameleon, filtered: Wikipedia's pages on chameleons, linked by hyperlinks, 5 levels of traffic; ten fixed splits.

Rozemberczki, Allen, Sarkar: Multi-scale attributed node embedding. J. Complex Networks 2021, arXiv 1909.13021 (the
graph); Pei et al.: Geom-GCN. ICLR 2020 (classes); Platonov, Kuznedelev, Diskin, Babenko, Prokhorenkova: A critical look
at the evaluation of GNNs under heterophily. ICLR 2023, arXiv 2302.11640 (this version).

890 of the 2,277 nodes: the paper found many of them to be duplicates of others, which leak labels from training to
test, and removed them. These are NOT the data of PyG's ``WikipediaNetwork`` or of geom-gcn, which are the original
graph: numbers published of those cannot be compared with numbers of these. 2,325 words as binary features, 8,854
links (the undirected version of the file), 18,598 edges when symmetric with self-loops.
"""

from distillbench.plugin import Dataset, HeterophilousGraph, Parameters


class Chameleon(HeterophilousGraph, Dataset):
    """Seed s has split s modulo 10; about 48/32/20% of the nodes, so that sizes differ a little."""

    task, setting, splits = "multiclass", "transductive", 10
    source = (
        "https://github.com/yandex-research/heterophilous-graphs, data/chameleon_filtered.npz (Platonov et al. 2023)"
    )
    licence = "MIT (as distributed there)"
    file, size, classes = "chameleon_filtered.npz", 58_924, 5
    digest = "bf46f07e1fb5249280447e5fe3100f3e82fc4b93ad1e13ffcfdec924b6ac0bb5"

    class Params(Parameters):
        """path: chameleon_filtered.npz (default: downloaded)."""

        path: str | None = None
