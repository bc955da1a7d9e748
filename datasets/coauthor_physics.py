"""Coauthor Physics: 34,493 physicists who wrote papers together, 5 fields of study; node classification.

Shchur, Mumme, Bojchevski, Günnemann: Pitfalls of Graph Neural Network Evaluation. Relational Representation Learning
Workshop 2018, arXiv:1811.05868 (shchur/gnn-benchmark: the file and the protocol). Data: Microsoft Academic Graph,
KDD Cup 2016.

Counts: 34,493 nodes, 247,962 undirected edges, connected, 8,415 features (a keyword occurs in the papers or not).

There is no canonical split: 20 nodes of every class for training, 30 for validation and the rest for the test are
drawn for every seed, as in the paper. Half of the nodes are of one class. Features are dense here: 1.2 GB, and several
times that while they are written.
"""

import torch
from pydantic import PositiveInt

from distillbench.plugin import Dataset, GraphData, Parameters, ShchurGraph, Split, split_per_class


class CoauthorPhysics(ShchurGraph, Dataset):
    """One graph, its split drawn for every seed."""

    task, setting = "multiclass", "transductive"
    source = (
        "https://github.com/shchur/gnn-benchmark, data/npz/ms_academic_phy.npz "
        "(Shchur et al. 2018; Microsoft Academic Graph)"
    )
    licence = "MIT (shchur/gnn-benchmark); data of Microsoft Academic Graph: no licence stated there"
    title, download = "Coauthor Physics", "data/coauthor_physics/ms_academic_phy.npz"
    published = "8d8bc12e29aa67f6753a712080eae81079bd7d01"
    content = "e761ae4bdb8a1a28c2ca5acb7ddb84b4e33c4eefb138919ebdaae43cb509ce93"

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
