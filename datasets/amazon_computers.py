"""Amazon Computers: 13,752 computer products that are bought together, 10 categories; node classification.

Shchur, Mumme, Bojchevski, Günnemann: Pitfalls of Graph Neural Network Evaluation. Relational Representation Learning
Workshop 2018, arXiv:1811.05868 (shchur/gnn-benchmark: the file and the protocol). McAuley, Targett, Shi,
van den Hengel: Image-based Recommendations on Styles and Substitutes. SIGIR 2015 (the products).

Counts: 13,752 nodes, 245,861 undirected edges (287,209 directed in the file), 281 isolated nodes, 767 features (a word
occurs in the reviews or not).

There is no canonical split: 20 nodes of every class for training, 30 for validation and the rest for the test are
drawn for every seed, as in the paper. Shchur et al., and after them CPF and GLNN, keep only
the largest connected component (13,381 nodes, 245,778 edges): ``largest_component: true``. PyG and DGL keep all
nodes, and that is the default here.
"""

import torch
from pydantic import PositiveInt

from distillbench.plugin import Dataset, GraphData, Parameters, ShchurGraph, Split, split_per_class


class AmazonComputers(ShchurGraph, Dataset):
    """One graph, its split drawn for every seed."""

    task, setting = "multiclass", "transductive"
    source = (
        "https://github.com/shchur/gnn-benchmark, data/npz/amazon_electronics_computers.npz "
        "(Shchur et al. 2018; McAuley et al. 2015)"
    )
    licence = "MIT (shchur/gnn-benchmark); data of Amazon, collected by McAuley et al.: no licence stated there"
    title, download = "Amazon Computers", "data/amazon_computers/amazon_electronics_computers.npz"
    published = "8120e4148a330b3fafe37c4476823302d9d834b9"
    content = "e313550a95f6ab9c09d2c89c67808e679652d4e6d9421bcbf0eba24b68813f76"

    class Params(Parameters):
        """path: the .npz file (default: downloaded). train_per_class, val_per_class: nodes of every class.

        largest_component: only that, as in Shchur et al.
        row_normalised: features of a node sum to 1, instead of being 0 and 1.
        """

        path: str | None = None
        train_per_class: PositiveInt = 20
        val_per_class: PositiveInt = 30
        largest_component: bool = False
        row_normalised: bool = False

    def draw_split(self, data: GraphData, random: torch.Generator) -> Split:
        """``train_per_class``, then ``val_per_class`` nodes of every class, then the rest."""
        return split_per_class(data.y, self.params.train_per_class, self.params.val_per_class, random)
