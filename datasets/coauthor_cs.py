"""Coauthor CS: 18,333 computer scientists who wrote papers together, 15 fields of study; node classification.

Shchur, Mumme, Bojchevski, Günnemann: Pitfalls of Graph Neural Network Evaluation. Relational Representation Learning
Workshop 2018, arXiv:1811.05868 (shchur/gnn-benchmark: the file and the protocol). Data: Microsoft Academic Graph,
KDD Cup 2016.

Counts: 18,333 nodes, 81,894 undirected edges, connected, 6,805 features (a keyword occurs in the papers or not).

There is no canonical split: 20 nodes of every class for training, 30 for validation and the rest for the test are
drawn for every seed, as in the paper. Classes are of 118 to 4,136 nodes. Features are dense here: 0.5 GB.
"""

import torch
from pydantic import PositiveInt

from distillbench.plugin import Dataset, GraphData, Parameters, ShchurGraph, Split, split_per_class


class CoauthorCS(ShchurGraph, Dataset):
    """One graph, its split drawn for every seed."""

    task, setting = "multiclass", "transductive"
    source = (
        "https://github.com/shchur/gnn-benchmark, data/npz/ms_academic_cs.npz "
        "(Shchur et al. 2018; Microsoft Academic Graph)"
    )
    licence = "MIT (shchur/gnn-benchmark); data of Microsoft Academic Graph: no licence stated there"
    title, download = "Coauthor CS", "data/coauthor_cs/ms_academic_cs.npz"
    published = "9bdd7da943d86b74297e8d32e99eb64245b52835"
    content = "9286b43bdfc1cfb279ef6009d2450f95371414bc47ddd197ca2c4504c6f0de24"

    class Params(Parameters):
        """path: the .npz file (default: downloaded). train_per_class, val_per_class: nodes of every class.

        row_normalised: features of a node sum to 1, instead of being 0 and 1.
        """

        path: str | None = None
        train_per_class: PositiveInt = 20
        val_per_class: PositiveInt = 30
        row_normalised: bool = False

    def draw_split(self, data: GraphData, random: torch.Generator) -> Split:
        """``train_per_class``, then ``val_per_class`` nodes of every class, then the rest."""
        return split_per_class(data.y, self.params.train_per_class, self.params.val_per_class, random)
