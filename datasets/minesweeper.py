"""Minesweeper: a grid of 100 x 100 cells of the game, linked to their neighbours; which are mines? Ten fixed splits.

Platonov, Kuznedelev, Diskin, Babenko, Prokhorenkova: A critical look at the evaluation of GNNs under heterophily. ICLR
2023, arXiv 2302.11640 (generated). 10,000 nodes, 20% of them mines; 7 features: the number of mines around a cell,
one-hot (five and more are one), or that it is unknown, as it is for half of the cells; 39,402 links, 88,804 edges when
symmetric with self-loops. Scored by ROC AUC, as in the paper.
"""

from distillbench.plugin import Dataset, HeterophilousGraph, Parameters


class Minesweeper(HeterophilousGraph, Dataset):
    """Seed s has split s modulo 10: 5,000 nodes for training, 2,500 for validation, 2,500 for the test."""

    task, setting, metric, splits = "multiclass", "transductive", "roc_auc", 10
    source = "https://github.com/yandex-research/heterophilous-graphs, data/minesweeper.npz (Platonov et al. 2023)"
    licence = "MIT"
    file, size, classes = "minesweeper.npz", 135_045, 2
    digest = "e664c8dacf1e8ac466c2c09ed4b237bd2c5541f47a6eae9c6092cb87f16412b3"

    class Params(Parameters):
        """path: minesweeper.npz (default: downloaded)."""

        path: str | None = None
