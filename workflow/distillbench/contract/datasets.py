"""What every data set must hold: two loads give the same data, and the splits are what it says."""

import sys
from pathlib import Path

from pydantic import ValidationError

from distillbench.data.graph_data import DataError
from distillbench.data.promises import SEEDS, load_checked, warnings_of
from distillbench.plugins import PluginError, load


def check_dataset(path: Path) -> bool:
    """Load a data set by its defaults and draw some splits; print what it is, or what is wrong."""
    try:
        plugin = load("dataset", path)
        dataset, data = load_checked(lambda: plugin(plugin.Params()))
    except (DataError, PluginError, ValidationError, ImportError, OSError) as error:
        print(f"{path}: {type(error).__name__}: {error}", file=sys.stderr)
        return False
    split = dataset.split(data, SEEDS[0])
    for warning in warnings_of(data, split):
        print(f"  warning  {warning}")
    sizes = ", ".join(f"{name} {size}" for name, size in split.sizes().items())
    print(
        f"{path}: {plugin.task}, {plugin.setting}: {data.num_graphs} graphs, {data.num_nodes} nodes, "
        f"{data.edge_index.shape[1]} edges, {data.x.shape[1]} features, {data.num_classes} classes; {sizes}; "
        "keeps the contract"
    )
    return True
