"""GraphData, the library-neutral form of every data set, and the base class of a data set's file.

A data set is loaded once, symmetrised and self-looped once, written to ``results/data/`` without pickle, and identified
by a digest of its content. Splits that are drawn per seed are drawn from it when a run starts.
"""

import hashlib
import io
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from distillbench.data.cards import Card, read_card, write_card
from distillbench.data.conversions import MEND, count, edges, features, labels, part, pointers
from distillbench.data.conversions import DataError as DataError
from distillbench.data.tasks import OTHER_METRICS, TASKS, Task, task_of
from distillbench.params import METRICS, Parameters, Setting, TaskName
from distillbench.record import RecordError, write_atomically
from distillbench.seeds import generator, shared_generators


class Split(NamedTuple):
    """Nodes (transductive) or graphs (inductive) for training, selection and the final test: int64 index tensors."""

    train: Tensor
    val: Tensor
    test: Tensor

    def sizes(self) -> dict[str, int]:
        """Number of nodes or graphs in each part."""
        return {name: len(part) for name, part in self._asdict().items()}

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of which nodes or graphs are in which part, in whatever order."""
        total = hashlib.sha256()
        for name, rows in self._asdict().items():
            total.update(f"{name}:{len(rows)}:".encode())
            total.update(np.ascontiguousarray(rows.sort().values.numpy()).tobytes())
        return total.hexdigest()


@dataclass(frozen=True)
class GraphData:
    """One or several graphs as plain tensors on the CPU.

    Lists, NumPy arrays, SciPy's and torch's sparse features, other widths of numbers and masks of a part of the split
    are converted (see conversions); anything else raises DataError, which names the part and the value.

    x: [N, F] float32. edge_index: [2, E] int64, sorted by destination, no duplicates, symmetric with self-loops; empty
    for point clouds, whose edges the model draws. y: [N] or [G] int64, or [N, C] float32 in {0, 1}. graph_ptr: [G + 1]
    int64, first node of each graph. split: the canonical split where the data set has one. num_classes: C. splits:
    [K, N], for inductive tasks [K, G], int8, where it comes with several: 0 train, 1 val, 2 test, -1 none of them.
    metric: what it is scored by, where that is not the task's own metric; "roc_auc" (two classes).
    """

    x: Tensor
    edge_index: Tensor
    y: Tensor
    graph_ptr: Tensor
    task_name: TaskName
    setting: Setting
    num_classes: int
    split: Split | None = None
    splits: Tensor | None = None
    metric: str = ""

    def __post_init__(self) -> None:
        if problem := self._converted() or self._problem():
            raise DataError(problem)

    def _converted(self) -> str | None:
        """Bring every tensor into its form; what is wrong with one that has none."""
        if self.task_name not in TASKS or self.setting not in get_args(Setting):
            return f"GraphData: no such task or setting: {self.task_name}, {self.setting}"
        if self.metric not in ("", METRICS[self.task_name], *OTHER_METRICS):
            return f"GraphData: no such metric: {self.metric}"
        try:
            found: dict[str, Any] = {"x": features(self.x), "edge_index": edges(self.edge_index)}
            found["num_classes"] = count(self.num_classes, "num_classes")
            found["y"] = labels(self.y, multilabel=self.task.multilabel)
            found["graph_ptr"] = pointers(self.graph_ptr)
            if self.split is not None:
                vars(self).update(found)
                found["split"] = split_of(self.split, self.num_rows, self.setting)
        except DataError as error:
            return f"GraphData: {error}"
        vars(self).update(found)  # of a frozen class
        return None

    @property
    def task(self) -> Task:
        """The task: loss, metric and decision rule."""
        return task_of(self.task_name, self.metric)

    @property
    def num_nodes(self) -> int:
        """Nodes in all graphs together."""
        return len(self.x)

    @property
    def num_graphs(self) -> int:
        """Number of graphs."""
        return len(self.graph_ptr) - 1

    @property
    def num_rows(self) -> int:
        """What a split divides: nodes of one graph, or graphs."""
        return self.num_nodes if self.setting == "transductive" else self.num_graphs

    @cached_property
    def edge_ptr(self) -> Tensor:
        """[G + 1] int64: first edge of each graph (edges are sorted by destination, so graphs are contiguous)."""
        return torch.searchsorted(self.edge_index[1].contiguous(), self.graph_ptr)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the content, the same on every machine."""
        total = hashlib.sha256()
        for name, array in _arrays(self).items():
            total.update(f"{name}:{array.dtype.str}:{array.shape}".encode())
            total.update(np.ascontiguousarray(array).tobytes())
        if self.task.metric_name != METRICS[self.task_name]:
            total.update(f"metric:{self.task.metric_name}".encode())
        return total.hexdigest()

    def graph(self, index: int) -> "GraphData":
        """One graph by itself, its nodes renumbered from 0."""
        start, stop = self.graph_ptr[index].item(), self.graph_ptr[index + 1].item()
        first, last = self.edge_ptr[index].item(), self.edge_ptr[index + 1].item()
        rows = slice(index, index + 1) if self.task.level == "graph" else slice(start, stop)
        part = object.__new__(GraphData)  # not checked again: that would take as long as training on small graphs
        vars(part).update(
            {f.name: getattr(self, f.name) for f in fields(self)},
            x=self.x[start:stop],
            edge_index=self.edge_index[:, first:last] - start,
            y=self.y[rows],
            graph_ptr=torch.tensor([0, stop - start]),
            split=None,
            splits=None,
        )
        return part

    def _problem(self) -> str | None:
        rules = itertools.chain(self._rules_of_nodes(), self._rules_of_edges(), self._rules_of_splits())
        return next((f"GraphData: {rule}" for rule, holds in rules if not holds), None)

    def _rules_of_nodes(self) -> Iterator[tuple[str, bool]]:
        ptr, x, y = self.graph_ptr, self.x, self.y
        yield f"x must be [N, F], is {list(x.shape)}", x.ndim == 2
        yield "x has no features: give each node a constant, its degree or a one-hot number", x.shape[1] > 0
        finite = torch.isfinite(x)
        yield _all("x must be finite", finite, x)
        bounds = ptr.ndim == 1 and len(ptr) > 1 and ptr[[0, -1]].tolist() == [0, len(x)]
        yield f"graph_ptr must start at 0, grow, and end at N = {len(x)}", bounds and bool((ptr.diff() > 0).all())
        if self.setting == "transductive":
            yield "a transductive data set must be one graph", self.num_graphs == 1 and self.task.level == "node"
        rows = self.num_graphs if self.task.level == "graph" else len(x)
        yield f"y must have one row for each {self.task.level}: has {len(y)} for {rows}", len(y) == rows
        if self.task.multilabel:
            yield f"y must be [N, C], C = {self.num_classes}, is {list(y.shape)}", y.shape[1:] == (self.num_classes,)
            right = (y == 0) | (y == 1) | y.isnan()
            yield _all("y must be 0, 1 or (hidden) NaN", right, y)
        else:
            yield f"y must be [M], one row for each {self.task.level}, is {list(y.shape)}", y.ndim == 1
            right = (y >= -1) & (y < self.num_classes)
            yield _all(f"y must be 0 to C - 1 = {self.num_classes - 1} or (hidden) -1", right, y)
        if self.metric == "roc_auc":
            yield "roc_auc must be of two classes, one a row", self.num_classes == 2 and not self.task.multilabel

    def _rules_of_edges(self) -> Iterator[tuple[str, bool]]:
        yield (
            f"edge_index must be [2, E], is {list(self.edge_index.shape)}",
            (self.edge_index.ndim == 2 and len(self.edge_index) == 2),
        )
        if not self.edge_index.shape[1]:
            return
        n, (source, destination) = len(self.x), self.edge_index
        named = (self.edge_index >= 0) & (self.edge_index < n)
        yield _all(f"edge_index must name nodes of x, 0 to {n - 1}", named, self.edge_index)
        yield f"edge_index must be sorted by destination: {MEND}", bool((destination.diff() >= 0).all())
        # the libraries' layers disagree on directed graphs, and DGL's refuse nodes without an incoming edge
        there, back = (destination * n + source).sort().values, (source * n + destination).sort().values
        yield f"edge_index must have no duplicates: {MEND}", bool((there.diff() > 0).all())
        yield f"edge_index must be symmetric: {MEND}", torch.equal(there, back)
        loops = int((source == destination).sum())
        yield f"edge_index must have a self-loop at every node, {n - loops} have none: {MEND}", loops == n
        of_source, of_destination = (
            torch.searchsorted(self.graph_ptr, ends.contiguous(), right=True) for ends in (source, destination)
        )
        yield "edge_index must not link two graphs", torch.equal(of_source, of_destination)

    def _rules_of_splits(self) -> Iterator[tuple[str, bool]]:
        if self.splits is None:
            return
        rows = len(self.x) if self.setting == "transductive" else self.num_graphs
        yield "splits and split must not both be given", self.split is None
        yield "splits must be [K, N] or [K, G] int8", self.splits.dtype == torch.int8 and self.splits.ndim == 2
        yield "splits must have a column for each node or graph", self.splits.shape[1] == rows
        yield "splits must be 0, 1, 2 or -1", bool(((self.splits >= -1) & (self.splits < len(Split._fields))).all())


def _all(rule: str, right: Tensor, values: Tensor) -> tuple[str, bool]:
    """A rule of every value, with how many break it and the first that does; and whether it holds."""
    if bool(right.all()):
        return rule, True
    places = (~right).nonzero()
    place = places[0].tolist()
    first = f"{values[tuple(place)].item():g} at {place}"
    return f"{rule}: {len(places)} of {values.numel()} values are not, the first is {first}", False


class Dataset:
    """One subclass per file in ``datasets/``.

    A subclass states its task, setting, source and licence, its parameters, how to ``load`` and, where the split is
    redrawn for every seed, how to ``draw_split``. One that comes with several splits states how many. One that can do
    both has a parameter ``splits: Splits = "published"``, and draws where that is "random".
    """

    task: ClassVar[TaskName]
    setting: ClassVar[Setting]
    dynamic: ClassVar[bool] = False  # no edges of its own: the model draws them
    metric: ClassVar[str] = ""  # what it is scored by, where that is not the task's own metric
    splits: ClassVar[int] = 0  # published ones, where there are several: seed s has number s modulo splits
    source: ClassVar[str]
    licence: ClassVar[str]
    name: ClassVar[str] = ""  # of the plug-in: its file's, set when it is loaded

    class Params(Parameters):
        """No parameters."""

    def __init__(self, params: Any) -> None:
        self.params = params

    def __init_subclass__(cls) -> None:
        for name in ("task", "setting", "source", "licence"):
            if not hasattr(cls, name):
                raise TypeError(f"data set {cls.__name__} states no {name}")

    def load(self) -> GraphData:
        """The whole data set."""
        raise NotImplementedError(f"{type(self).__name__}.load")

    def draw_split(self, data: GraphData, random: torch.Generator) -> Split:
        """A split for one seed. Only where there is no canonical one, or where the parameter ``splits`` is "random"."""
        raise NotImplementedError(f"{type(self).__name__}.draw_split")

    @property
    def published_splits(self) -> int:
        """How many published splits the seeds are dealt; 0: each seed's is drawn."""
        drawn = type(self).draw_split is not Dataset.draw_split and not self.splits
        asked = getattr(self.params, "splits", None)  # see params.Splits; a parameter of that name may be anything else
        if asked == "random" or (drawn and asked != "published"):
            return 0
        return max(1, self.splits)

    @property
    def resplit(self) -> bool:
        """Whether the split changes with the seed: it is drawn, or another of several published ones."""
        return self.published_splits != 1

    def augment(self, x: Tensor, ptr: Tensor, random: torch.Generator) -> Tensor:
        """What a model in training sees instead of ``x`` [N, F], the features of the graphs that ``ptr`` [G + 1] marks.

        Node i stays node i. Evaluation, and the teacher's outputs that students are given, are of ``x`` itself.
        """
        return x

    def provenance(self) -> dict[str, Any]:
        """What is known of the data's origin after ``load``; goes into ``data.json``.

        canonical: whether these are the very data that published numbers are about. remark: why not, in a sentence for
        tables. name: what to call data that are not. Anything else (digests of files) as the data set likes.
        """
        return {"canonical": True, "remark": ""}

    def check_name(self, name: str) -> None:
        """Raise DataError where data that are not canonical would be shown under the data set's own name."""
        about, own = self.provenance(), self.name
        alike = rf"{re.escape(own.replace('_', '-'))}([^a-z0-9]|$)"
        if about["canonical"] or not re.match(alike, name.casefold().replace("_", "-")):
            return
        other = about.get("name", f"my-{own}")
        raise DataError(
            f"datasets.{name}: {about['remark']}: it must not be shown as {own!r}. Give the entry another name in the "
            f"config, such as `{other}: {{dataset: {own}, params: ..., pairs: ...}}`"
        )

    def split(self, data: GraphData, seed: int) -> Split:
        """The split of one seed: the canonical one, the seed's of several, or drawn from the scope (seed, "split").

        Raises DataError naming data set, seed, part and value: for parts that are no indices or masks, that overlap or
        are empty, that have rows without a label; for a split that is not a function of the seed.
        """
        try:
            parts = self._parts(data, seed)
            empty = [name for name, size in parts.sizes().items() if not size]
            if empty:
                raise DataError(f"nothing is left for {', '.join(empty)} (sizes: {parts.sizes()})")
            if len(torch.cat(parts).unique()) != sum(map(len, parts)):
                raise DataError("the parts of the split overlap")
            _check_labels(data, parts)
        except DataError as error:
            raise DataError(f"{self.name or type(self).__name__}, split of seed {seed}: {error}") from None
        return parts

    def _parts(self, data: GraphData, seed: int) -> Split:
        if data.splits is not None and self.published_splits:
            return self._published(data.splits, seed)
        if self.published_splits:
            if data.split is None:
                raise DataError("no canonical split, and draw_split is not defined")
            return data.split
        drawn = []
        for state in (1, 2):  # of the generators that a split must not be drawn from
            with shared_generators(state):
                drawn.append(split_of(self.draw_split(data, generator(seed, "split")), data.num_rows, data.setting))
        if not all(torch.equal(a, b) for a, b in zip(*drawn, strict=True)):
            raise DataError(
                "draw_split gives two splits for one seed, and two runs of a pair would have different test rows: draw "
                "from `random` alone; for scikit-learn and NumPy: random_state=random.initial_seed() % 2**32"
            )
        return drawn[0]

    def _published(self, splits: Tensor, seed: int) -> Split:
        if len(splits) != self.splits:
            raise DataError(
                f"the data come with {len(splits)} splits, but the class states {self.splits}: the statistics go by "
                "that"
            )
        codes = splits[seed % len(splits)]
        return Split(*((codes == part).nonzero().flatten() for part in range(len(Split._fields))))


def split_of(split: Any, rows: int, setting: Setting) -> Split:
    """A split of so many nodes (transductive) or graphs, its parts as conversions.part has them. Raises DataError."""
    if not isinstance(split, Split):
        raise DataError(f"the split is a {type(split).__name__}, must be a Split(train, val, test)")
    what = "nodes" if setting == "transductive" else "graphs"
    made = Split(*(part(value, rows, what, name) for name, value in split._asdict().items()))
    return split if all(a is b for a, b in zip(split, made, strict=True)) else made


def _check_labels(data: GraphData, parts: Split) -> None:
    """Raise DataError where a part has rows without a label: they would be trained on, and scored."""
    hidden = data.y.isnan().any(dim=1) if data.task.multilabel else data.y < 0
    if not hidden.any():
        return
    for name, rows in parts._asdict().items():
        nodes = rows
        if data.setting == "inductive" and data.task.level == "node":
            of_part = torch.zeros(data.num_graphs, dtype=torch.bool).index_fill(0, rows, True)
            nodes = of_part.repeat_interleave(data.graph_ptr.diff()).nonzero().flatten()
        if (missing := nodes[hidden[nodes]]).numel():
            what = f"{data.task.level}s"
            first = f"{data.task.level} {int(missing[0])}"
            raise DataError(
                f"{len(missing)} of the {len(nodes)} {what} of the part {name!r} have no label (-1, or NaN), the first "
                f"is {first}: leave them out of all parts"
            )


def symmetric_with_loops(source: Tensor, destination: Tensor, num_nodes: int) -> Tensor:
    """Edges made symmetric, with one self-loop a node, without duplicates: [2, E] int64 sorted by destination."""
    loops = torch.arange(num_nodes)
    rows, columns = torch.cat([source, destination, loops]), torch.cat([destination, source, loops])
    code = torch.unique(columns * num_nodes + rows)
    return torch.stack([code % num_nodes, code // num_nodes])


def write_data(
    folder: Path,
    name: str,
    dataset: Dataset,
    data: GraphData,
    warnings: Sequence[str] = (),
    files: Sequence[str] = (),
) -> None:
    """Write ``data.npz`` (arrays, no pickle) and ``data.json`` (a Card: what it is, counts, digest) into ``folder``."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **_arrays(data))  # type: ignore[arg-type]
    write_atomically(folder / "data.npz", buffer.getvalue())
    card = Card(
        name=name,
        dataset=dataset.name,
        source=dataset.source,
        licence=dataset.licence,
        params=dataset.params.model_dump(mode="json"),
        provenance=dataset.provenance(),
        warnings=list(warnings),
        files=list(files),
        task=data.task_name,
        metric=data.task.metric_name,
        setting=data.setting,
        resplit=dataset.resplit,
        published_splits=dataset.published_splits,
        nodes=data.num_nodes,
        edges=data.edge_index.shape[1],
        graphs=data.num_graphs,
        features=data.x.shape[1],
        classes=data.num_classes,
        digest=data.digest,
    )
    write_card(folder / "data.json", card)


def read_data(folder: Path) -> GraphData:
    """Read what ``write_data`` wrote. Raises DataError naming the file where it is damaged."""
    path, card_path = folder / "data.npz", folder / "data.json"
    again = "delete the folder and run snakemake again"
    try:
        card = read_card(card_path)
    except RecordError as error:
        raise DataError(str(error)) from error
    about: Any = {"task_name": card.task, "setting": card.setting, "num_classes": card.classes, "metric": card.metric}
    try:
        with np.load(path, allow_pickle=False) as archive:
            stored: dict[str, Any] = {name: torch.from_numpy(archive[name]) for name in archive.files}
        parts = [stored.pop(f"split_{part}", None) for part in Split._fields]
        split = Split(*parts) if all(part is not None for part in parts) else None
        data = GraphData(**stored, **about, split=split)
    except Exception as error:  # zipfile, zlib and numpy name a damaged file in a dozen ways
        raise DataError(f"{path}: cannot be read ({type(error).__name__}: {error}); {again}") from error
    if data.digest != card.digest:
        raise DataError(f"{path}: its content does not match the digest in {card_path.name}; {again}")
    return data


def _arrays(data: GraphData) -> dict[str, np.ndarray]:
    arrays = {f.name: getattr(data, f.name) for f in fields(data) if isinstance(getattr(data, f.name), Tensor)}
    if data.split:
        arrays |= {f"split_{name}": part for name, part in data.split._asdict().items()}
    return {name: value.numpy() for name, value in sorted(arrays.items())}
