"""What the rule dataset does: load a data set and write it where every run reads it."""

from pathlib import Path
from typing import Any

from distillbench.paths import Paths


def prepare_data(results: str, name: str, file: str, params: dict[str, Any]) -> str:
    """Load a data set once and write it to ``results/data/{name}/``. Returns a line that sums the job up."""
    from distillbench.data.graph_data import DataError, write_data
    from distillbench.plugins import load

    plugin = load("dataset", Path(file))
    dataset = plugin(plugin.Params(**params))
    try:
        data = dataset.load()
    except DataError as error:
        raise DataError(f"data set {name!r} of {file}: {error}") from error
    dataset.check_name(name)
    write_data(Paths(results).data(name), name, dataset, data)
    remark = dataset.provenance()["remark"]
    return f"{name}: {data.num_graphs} graphs, {data.num_nodes} nodes, {data.edge_index.shape[1]} edges" + (
        f" ({remark})" if remark else ""
    )
