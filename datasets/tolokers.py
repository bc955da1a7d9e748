"""Tolokers: workers of a crowdsourcing platform, linked where they worked on the same task; who was banned? Ten splits.

Platonov, Kuznedelev, Diskin, Babenko, Prokhorenkova: A critical look at the evaluation of GNNs under heterophily. ICLR
2023, arXiv 2302.11640; made of Toloka's TolokerGraph. 11,758 nodes, 21.8% of them banned; 10 features; 519,000 links,
1,049,758 edges when symmetric with self-loops. Scored by ROC AUC, as in the paper.
"""

from distillbench.plugin import Dataset, HeterophilousGraph, Parameters


class Tolokers(HeterophilousGraph, Dataset):
    """Seed s has split s modulo 10: 5,879 nodes for training, 2,939 for validation, 2,940 for the test."""

    task, setting, metric, splits = "multiclass", "transductive", "roc_auc", 10
    source = "https://github.com/yandex-research/heterophilous-graphs, data/tolokers.npz (Platonov et al. 2023)"
    licence = "MIT (as distributed there); TolokerGraph, which it is made of: CC BY 4.0"
    file, size, classes = "tolokers.npz", 1_329_769, 2
    digest = "dacf3ac94cec53d03cd2adb5255c08b33dee1656c33ca8164a464bd9450a1667"

    class Params(Parameters):
        """path: tolokers.npz (default: downloaded)."""

        path: str | None = None
