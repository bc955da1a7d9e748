"""Tolokers: workers of a crowdsourcing platform, linked where they worked on the same task; who was banned? Ten splits.

Platonov, Kuznedelev, Diskin, Babenko, Prokhorenkova: A critical look at the evaluation of GNNs under heterophily. ICLR
2023, arXiv 2302.11640; made of Toloka's TolokerGraph. 11,758 nodes, 21.8% of them banned; 10 features; 519,000 links,
1,049,758 edges when symmetric with self-loops. Scored by ROC AUC, as in the paper.
"""

from typing import Any

from distillbench.data import Dataset, GraphData
from distillbench.heterophilous import known_by, located, read_graph
from distillbench.params import Parameters

FILE, SIZE = "tolokers.npz", 1_329_769
DIGEST = "dacf3ac94cec53d03cd2adb5255c08b33dee1656c33ca8164a464bd9450a1667"


class Tolokers(Dataset):
    """Seed s has split s modulo 10: 5,879 nodes for training, 2,939 for validation, 2,940 for the test."""

    task, setting, metric, splits = "multiclass", "transductive", "roc_auc", 10
    source = "https://github.com/yandex-research/heterophilous-graphs, data/tolokers.npz (Platonov et al. 2023)"
    licence = "MIT (as distributed there); TolokerGraph, which it is made of: CC BY 4.0"

    class Params(Parameters):
        """path: tolokers.npz (default: downloaded)."""

        path: str | None = None

    def load(self) -> GraphData:
        """The graph with its ten splits. Raises DataError naming the file."""
        self._path = located(self.params.path, FILE, DIGEST, SIZE)
        return read_graph(self._path, self, classes=2)

    def provenance(self) -> dict[str, Any]:
        """Canonical by the file's digest."""
        return known_by(self._path, FILE, DIGEST)
