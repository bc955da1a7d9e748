"""Two rings: a data set to begin with; the first line is its title in `distillbench list datasets`.

A template: `distillbench new dataset NAME` copies it. Say here what the data are, who published them (authors, title,
venue, year), how many nodes, edges, features and classes there are, and what the split is. Generated, never downloaded.
"""

# The class-level statements and Params are read without importing torch, when runs are planned. So they use literals,
# pydantic, typing and what comes without torch of distillbench.plugin; everything else may use whatever it needs.
import torch
from pydantic import PositiveInt

from distillbench.plugin import Dataset, GraphData, Parameters, Split, symmetric_with_loops


class TwoRings(Dataset):
    """Nodes on two rings, whose features tell the rings apart badly and their neighbours' better."""

    # task: "multiclass" (one class a node), "multilabel" (several), "graph-multiclass" (one class a graph).
    # setting: "transductive" (one graph, the split is of its nodes) or "inductive" (the split is of graphs).
    # Also possible: metric = "roc_auc"; splits = 10 (published ones); dynamic = True (point clouds, without edges).
    task, setting = "multiclass", "transductive"
    source = "generated"
    licence = "MIT"

    class Params(Parameters):
        """nodes: of each ring. Where one names a file or folder, what is in it decides what is read again."""

        nodes: PositiveInt = 100

    def load(self) -> GraphData:
        """Everything, the same at every call: random numbers come from a generator of a fixed seed."""
        random, n = torch.Generator().manual_seed(0), self.params.nodes
        y = torch.arange(2 * n) // n
        node = torch.arange(2 * n)
        next_of = torch.where((node + 1) % n == 0, node + 1 - n, node + 1)
        return GraphData(
            x=torch.randn(2 * n, 8, generator=random) + 0.3 * y[:, None],
            edge_index=symmetric_with_loops(node, next_of, 2 * n),  # both directions, self-loops, no duplicates
            y=y,
            graph_ptr=torch.tensor([0, 2 * n]),  # first node of each graph, and their number at the end
            task_name=self.task,
            setting=self.setting,
            num_classes=2,
            # split=Split(train, val, test), indices of nodes or graphs, where there is a canonical one
        )

    def draw_split(self, data: GraphData, random: torch.Generator) -> Split:
        """A split for one seed, of ``random`` alone. Leave it out where ``load`` gives a canonical one."""
        n = data.num_nodes
        return Split(*torch.randperm(n, generator=random).split([n // 10, n // 5, n - n // 10 - n // 5]))
