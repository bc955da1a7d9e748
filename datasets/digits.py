"""Digits: scikit-learn's 1,797 handwritten digits as one k-nearest-neighbour graph (8x8 pixels, 10 classes).

Transductive node classification with few labels: 5 a class for training, 300 nodes for validation, the rest for the
test, drawn anew for every seed. Ships with scikit-learn, nothing is downloaded.
"""

import torch
from pydantic import PositiveInt

from distillbench.plugin import Dataset, GraphData, Parameters, Split, symmetric_with_loops


class Digits(Dataset):
    """Each digit is a node, linked to the digits whose pixels are nearest (Euclidean)."""

    task, setting = "multiclass", "transductive"
    source = "scikit-learn, load_digits (UCI ML repository, optical recognition of handwritten digits, test part)"
    licence = "CC BY 4.0"

    class Params(Parameters):
        """neighbours: k of the graph, before it is made symmetric. train_per_class: labels a class. val: nodes."""

        neighbours: PositiveInt = 10
        train_per_class: PositiveInt = 5
        val: PositiveInt = 300

    def load(self) -> GraphData:
        """Pixels scaled to [0, 1]; edges symmetrised, with self-loops."""
        from sklearn.datasets import load_digits
        from sklearn.neighbors import NearestNeighbors

        digits = load_digits()
        k = self.params.neighbours
        nearest = NearestNeighbors(n_neighbors=k).fit(digits.data).kneighbors(return_distance=False)
        nodes = len(digits.data)
        edges = symmetric_with_loops(
            torch.from_numpy(nearest).flatten(), torch.arange(nodes).repeat_interleave(k), nodes
        )
        return GraphData(
            x=torch.from_numpy(digits.data / 16).float(),
            edge_index=edges,
            y=torch.from_numpy(digits.target).long(),
            graph_ptr=torch.tensor([0, nodes]),
            task_name=self.task,
            setting=self.setting,
            num_classes=10,
        )

    def draw_split(self, data: GraphData, random: torch.Generator) -> Split:
        """``train_per_class`` nodes of every class, then ``val`` nodes of any class, then the rest."""
        order = torch.randperm(data.num_nodes, generator=random)
        train = torch.cat([order[data.y[order] == c][: self.params.train_per_class] for c in range(data.num_classes)])
        rest = order[~torch.isin(order, train)]
        return Split(train, rest[: self.params.val], rest[self.params.val :])
