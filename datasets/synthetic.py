"""Synthetic: a small contextual stochastic block model with overlapping communities, for tests and smoke runs.

Inductive multi-label node classification over several graphs. A node belongs to some of the communities (its labels);
two nodes are linked more often the more communities they share; features are the sum of the communities' centres plus
noise. Generated, never downloaded. Deshpande et al., Contextual Stochastic Block Models, NeurIPS 2018 (two communities,
no overlap; generalised here).
"""

import torch
from pydantic import Field, PositiveFloat, PositiveInt

from distillbench.plugin import Dataset, GraphData, Parameters, Split, symmetric_with_loops


class Synthetic(Dataset):
    """Several graphs from one model; the split is by graph and fixed."""

    task, setting = "multilabel", "inductive"
    source = "generated (contextual stochastic block model with overlapping communities)"
    licence = "MIT"

    class Params(Parameters):
        """train, val, test: graphs. density: expected neighbours for each shared community. noise: std of features."""

        train: PositiveInt = 8
        val: PositiveInt = 2
        test: PositiveInt = 4
        nodes: PositiveInt = 80
        communities: PositiveInt = 5
        features: PositiveInt = 16
        membership: float = Field(default=0.35, gt=0, lt=1)
        density: PositiveFloat = 6.0
        noise: PositiveFloat = 1.5
        seed: int = 0

    def load(self) -> GraphData:
        """All graphs, one after another."""
        p = self.params
        random = torch.Generator().manual_seed(p.seed)
        centres = torch.randn(p.communities, p.features, generator=random)
        x, y, edges = [], [], []
        for start in range(0, (p.train + p.val + p.test) * p.nodes, p.nodes):
            member = (torch.rand(p.nodes, p.communities, generator=random) < p.membership).float()
            x.append(member @ centres + p.noise * torch.randn(p.nodes, p.features, generator=random))
            y.append(member)
            chance = (member @ member.T * p.density / p.nodes).clamp(max=1)
            linked = torch.rand(p.nodes, p.nodes, generator=random).triu(1) > 1 - chance.triu(1)
            edges.append(symmetric_with_loops(*linked.nonzero().T, p.nodes) + start)
        graphs = len(x)
        order = torch.arange(graphs)
        return GraphData(
            x=torch.cat(x),
            edge_index=torch.cat(edges, dim=1),
            y=torch.cat(y),
            graph_ptr=torch.arange(graphs + 1) * p.nodes,
            task_name=self.task,
            setting=self.setting,
            num_classes=p.communities,
            split=Split(order[: p.train], order[p.train : p.train + p.val], order[p.train + p.val :]),
        )
