"""What every data set must hold: two loads give the same data, and the splits are what it says."""

import sys
from pathlib import Path

from pydantic import ValidationError

from distillbench.data.graph_data import DataError, Split
from distillbench.plugins import PluginError, load

SEEDS = (0, 1)


def check_dataset(path: Path) -> bool:
    """Load a data set by its defaults and draw two splits; print what it is, or what is wrong."""
    try:
        plugin = load("dataset", path)
        datasets = [plugin(plugin.Params()) for _ in range(2)]
        first, second = (dataset.load() for dataset in datasets)
        splits = [
            [dataset.split(data, seed) for seed in SEEDS]
            for dataset, data in zip(datasets, (first, second), strict=True)
        ]
    except (PluginError, DataError, ValidationError, ImportError, OSError) as error:
        print(f"{path}: {type(error).__name__}: {error}", file=sys.stderr)
        return False
    problems = []
    if first.digest != second.digest:
        problems.append("load: two loads give different data: draw from a generator of a fixed seed")
    if first.task_name != plugin.task or first.setting != plugin.setting:
        found = f"{first.task_name}, {first.setting}"
        problems.append(f"load: the data are {found}, the class states {plugin.task}, {plugin.setting}")
    if not all(_equal(a, b) for a, b in zip(*splits, strict=True)):
        problems.append("split: one seed gives two splits: draw from the generator that draw_split is given")
    if datasets[0].resplit == _equal(*splits[0]):
        said = "a split a seed" if datasets[0].resplit else "one split"
        problems.append(f"split: the class states {said}, and seeds {SEEDS[0]} and {SEEDS[1]} do not have it so")
    for problem in problems:
        print(f"  failed  {problem}")
    sizes = ", ".join(f"{name} {size}" for name, size in splits[0][0].sizes().items())
    print(
        f"{path}: {plugin.task}, {plugin.setting}: {first.num_graphs} graphs, {first.num_nodes} nodes, "
        f"{first.edge_index.shape[1]} edges, {first.x.shape[1]} features, {first.num_classes} classes; {sizes}; "
        f"{'failed' if problems else 'keeps the contract'}"
    )
    return not problems


def _equal(one: Split, other: Split) -> bool:
    return all(a.tolist() == b.tolist() for a, b in zip(one, other, strict=True))
