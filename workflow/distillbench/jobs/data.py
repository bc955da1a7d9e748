"""What the rule dataset does: load a data set and write it where every run reads it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distillbench.paths import Paths


def prepare_data(results: str, name: str, file: str, params: dict[str, Any], files: Sequence[str] = ()) -> str:
    """Load a data set, hold it to its word and write it to ``results/data/{name}/``. Returns a line that sums it up.

    files: marks of the files it is read from (Sources.data_marks). Raises DataError naming the data set, its file, the
    part and the value.
    """
    from distillbench.data.graph_data import DataError, write_data
    from distillbench.data.promises import SEEDS, load_checked, warnings_of
    from distillbench.plugins import load

    plugin = load("dataset", Path(file))
    try:
        dataset, data = load_checked(lambda: plugin(plugin.Params(**params)))
    except DataError as error:
        raise DataError(f"data set {name!r} of {file}: {error}") from error
    dataset.check_name(name)
    warnings = warnings_of(data, dataset.split(data, SEEDS[0]))
    write_data(Paths(results).data(name), name, dataset, data, warnings, files)
    remarks = [remark for remark in (dataset.provenance()["remark"], *warnings) if remark]
    return f"{name}: {data.num_graphs} graphs, {data.num_nodes} nodes, {data.edge_index.shape[1]} edges" + (
        f" ({'; '.join(remarks)})" if remarks else ""
    )
