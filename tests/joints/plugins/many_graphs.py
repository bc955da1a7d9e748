"""Eleven graphs of 5 to 15 nodes; two labels, which the features tell a little; a split a seed; augmented."""

import torch

from distillbench.plugin import Dataset, GraphData, Split, symmetric_with_loops


class ManyGraphs(Dataset):
    """Made here."""

    task, setting = "multilabel", "inductive"
    source, licence = "made here", "MIT"

    def load(self):
        random = torch.Generator().manual_seed(7)
        sizes = torch.arange(5, 16)
        ptr = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
        edges = [
            symmetric_with_loops(*(torch.rand(n, n, generator=random) < 0.2).nonzero().T, n) + start
            for n, start in zip(sizes.tolist(), ptr.tolist(), strict=False)
        ]
        y = (torch.rand(int(ptr[-1]), 2, generator=random) < 0.5).float()
        return GraphData(
            x=y @ torch.tensor([[1.0, 0, 1], [0, 1, -1]]) + torch.randn(len(y), 3, generator=random),
            edge_index=torch.cat(edges, dim=1),
            y=y,
            graph_ptr=ptr,
            task_name=self.task,
            setting=self.setting,
            num_classes=2,
        )

    def draw_split(self, data, random):
        return Split(*torch.randperm(data.num_graphs, generator=random).split([6, 2, 3]))

    def augment(self, x, ptr, random):
        return x + torch.randn(x.shape, generator=random)
