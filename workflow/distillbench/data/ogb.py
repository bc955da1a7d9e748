"""The archives of the Open Graph Benchmark (OGB): gzipped CSV files, read without OGB's data set classes.

ogb 1.3.6, the last release, pickles what it has read and reads that back by ``torch.load``, which torch refuses since
2.6 (snap-stanford/ogb issue 497). So of ogb, an extra of this project, just the address is taken, from the table that
comes with it; and that without importing ogb, which would start a thread that asks PyPI for a newer version.
"""

import gzip
import importlib.util
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from distillbench.data.archives import Files, downloaded, given, sha256
from distillbench.data.graph_data import DataError, Split

TABLE_LIMIT = 2**30  # bytes of one CSV file, unpacked


def located(path: str | None, name: str, table: str, url: str, target: Path, digest: str, size: int | None) -> Path:
    """The archive or folder that ``path`` of the config names, or without one ``target``, downloaded once.

    name: of the data set in ogb. table: ogb's table that has it ("nodeproppred/master.csv"). url: what is said to be
    fetched where ogb is not installed. digest, size: SHA-256 and bytes of the archive.
    """
    return given(path) if path else downloaded(target, lambda: _address(name, table, url, target), digest, size)


def known_by(path: Path, name: str, archive: str, digest: str) -> dict[str, Any]:
    """The provenance: canonical by the archive's digest. ogb deletes the archive; what it unpacked has no digest."""
    if path.is_dir():
        remark = f"{name}'s layout in an unpacked folder, which cannot be verified: name {archive} in params.path"
        return {"canonical": False, "remark": remark, "name": f"my-{name}"}
    found = sha256(path)
    remark = "" if found == digest else f"not the {archive} that {name} is known by (other SHA-256)"
    return {"canonical": not remark, "remark": remark, "name": f"my-{name}" if remark else name, "sha256": found}


def table(files: Files, base: str, rows: int | None = None, columns: int | None = None, *, below: int = 0) -> Tensor:
    """The numbers in one gzipped CSV file without a header: [rows, columns] float32, or int64 where ``below`` is given.

    Of integers, which are 0 to ``below`` - 1. Raises DataError naming the file and what is wrong with it.
    """
    name = files.find(base)
    try:
        with gzip.open(io.BytesIO(files.read(name))) as packed:
            text = packed.read(TABLE_LIMIT + 1)
        if len(text) > TABLE_LIMIT:
            raise ValueError(f"more than {TABLE_LIMIT:,} bytes unpacked")
        frame = pd.read_csv(io.BytesIO(text), header=None, dtype=np.int64 if below else None)
        found = frame.to_numpy(np.int64 if below else np.float32, copy=True)  # pandas lends its own read-only
    except DataError:
        raise
    except Exception as error:  # gzip, zlib and pandas name a damaged file in a dozen ways
        files.fail(name, f"not a gzipped table of numbers ({type(error).__name__}: {error})")
    shape = [size if wanted is None else wanted for wanted, size in zip((rows, columns), found.shape, strict=True)]
    if list(found.shape) != shape:
        files.fail(name, f"{shape} numbers expected, {list(found.shape)} found")
    wrong = (found < 0) | (found >= below) if below else ~np.isfinite(found)
    if wrong.any():
        row, column = np.argwhere(wrong)[0].tolist()
        expected = f"an integer from 0 to {below - 1}" if below else "a finite number"
        files.fail(name, f"row {row}, column {column} is {found[row, column]}, not {expected}")
    return torch.from_numpy(found)


def sizes(files: Files, what: str) -> Tensor:
    """Nodes or edges of each graph ("node", "edge"): [G] int64."""
    return table(files, f"num-{what}-list.csv.gz", columns=1, below=2**40).flatten()


def links(files: Files, nodes: Tensor) -> tuple[Tensor, Tensor]:
    """Source and destination of all links, numbered over all graphs; ``nodes`` [G] are the graphs' nodes.

    The file counts the nodes of every graph from 0.
    """
    links = sizes(files, "edge")
    if len(links) != len(nodes):
        files.fail(files.find("num-edge-list.csv.gz"), f"{len(nodes)} rows expected, {len(links)} found")
    base = "edge.csv.gz"
    ends = table(files, base, int(links.sum()), 2, below=int(nodes.max()))
    outside = (ends >= nodes.repeat_interleave(links)[:, None]).any(dim=1).nonzero().flatten()
    if len(outside):
        files.fail(files.find(base), f"row {outside[0]} is {ends[outside[0]].tolist()}, not nodes of its graph")
    source, destination = (ends + (nodes.cumsum(0) - nodes).repeat_interleave(links)[:, None]).T
    return source, destination


def published_split(files: Files, rows: int) -> Split:
    """The split of ``rows`` nodes or graphs, ascending in every part."""
    parts = [table(files, f"{part}.csv.gz", columns=1, below=rows).flatten() for part in ("train", "valid", "test")]
    if not torch.equal(torch.cat(parts).sort().values, torch.arange(rows)):
        files.fail(files.find("train.csv.gz"), f"with valid and test it must name each of {rows} rows once")
    return Split(*(part.sort().values for part in parts))


def _address(name: str, table: str, url: str, target: Path) -> str:
    spec = importlib.util.find_spec("ogb")
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            f"{name} is downloaded from the address that ogb knows, and ogb is not installed. "
            f"`pip install 'distillbench[ogb]'`; or fetch {url} on any machine and put it at {target.absolute()}, "
            "or name it in datasets.<name>.params.path of the config"
        )
    known = pd.read_csv(Path(spec.submodule_search_locations[0], table), index_col=0, keep_default_na=False)
    return str(known.loc["url", name])
