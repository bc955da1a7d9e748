"""One graph of 60 nodes of different degrees; three classes, which the features tell a little; a split a seed."""

import torch

from distillbench.plugin import Dataset, GraphData, Split, symmetric_with_loops


class OneGraph(Dataset):
    """Made here."""

    task, setting = "multiclass", "transductive"
    source, licence = "made here", "MIT"

    def load(self):
        random = torch.Generator().manual_seed(4)
        y = torch.randint(3, (60,), generator=random)
        linked = torch.rand(60, 60, generator=random) < torch.where(y[:, None] == y, 0.15, 0.02)
        linked[0, ::3] = True  # a hub
        return GraphData(
            x=torch.eye(3)[y] + torch.randn(60, 3, generator=random),
            edge_index=symmetric_with_loops(*linked.nonzero().T, 60),
            y=y,
            graph_ptr=torch.tensor([0, 60]),
            task_name=self.task,
            setting=self.setting,
            num_classes=3,
        )

    def draw_split(self, data, random):
        return Split(*torch.randperm(data.num_nodes, generator=random).split([12, 18, 30]))
