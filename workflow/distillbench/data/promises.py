"""What a data set's file promises, held against what it loads: once, before anything is trained on it."""

from collections.abc import Callable

import torch

from distillbench.data.graph_data import DataError, Dataset, GraphData, Split
from distillbench.params import METRICS
from distillbench.seeds import shared_generators

SEEDS = (0, 1, 2)  # whose splits are looked at
SCALES = 1e4  # ratio of the largest to the smallest standard deviation of a feature, from which on it is said


def load_checked(make: Callable[[], Dataset]) -> tuple[Dataset, GraphData]:
    """Load a data set twice, whatever random numbers others draw, and hold it to its word.

    Raises DataError naming all that the class states and the data are not, or that is no function of the seed.
    """
    dataset, data = make(), None
    with shared_generators(2):
        digest = _loaded(dataset).digest
    with shared_generators(1):
        data = _loaded(make())
    if data.digest != digest:
        raise DataError("two loads give different data: draw from a generator of a fixed seed")
    if problems := [*_broken_words(dataset, data)]:
        raise DataError("; ".join(problems))
    splits = [dataset.split(data, seed) for seed in SEEDS]
    one = len({split.digest for split in splits}) == 1  # whatever order a part is in
    if dataset.resplit and one:
        raise DataError(
            f"the class states a split a seed, and seeds {SEEDS[0]} to {SEEDS[-1]} have one: the statistics would take "
            "it for several; without draw_split, and with GraphData(split=...), it is one for all seeds"
        )
    if not dataset.resplit and not one:
        raise DataError(
            f"the class states one split for all seeds, and seeds {SEEDS[0]} to {SEEDS[-1]} differ: draw in draw_split"
        )
    return dataset, data


def _loaded(dataset: Dataset) -> GraphData:
    data = dataset.load()
    if not isinstance(data, GraphData):
        raise DataError(f"load returned a {type(data).__name__}, must be a GraphData")
    return data


def _broken_words(dataset: Dataset, data: GraphData) -> list[str]:
    found = []
    for key, stated, loaded in (
        ("task", dataset.task, data.task_name),
        ("setting", dataset.setting, data.setting),
        ("metric", dataset.metric or METRICS[data.task_name], data.task.metric_name),
        ("splits", dataset.splits, 0 if data.splits is None else len(data.splits)),
    ):
        if stated != loaded:
            found.append(f"{key}: the class states {stated!r}, and load gives {loaded!r}")
    edges = data.edge_index.shape[1]
    if dataset.dynamic and edges:
        found.append(f"dynamic: the class states that there are no edges, and load gives {edges}")
    if not dataset.dynamic and not edges:
        found.append(
            "edge_index: there are no edges, not even self-loops, which symmetric_with_loops adds; of point clouds, "
            "whose edges the model draws, the class states dynamic = True"
        )
    return found


def warnings_of(data: GraphData, split: Split) -> list[str]:
    """What a reader of the results should know of a split, the features and the graph, a sentence each."""
    found = []
    if not data.task.multilabel:
        nodes = split.train
        if data.setting == "inductive" and data.task.level == "node":
            of_part = torch.zeros(data.num_graphs, dtype=torch.bool).index_fill(0, split.train, True)
            nodes = of_part.repeat_interleave(data.graph_ptr.diff()).nonzero().flatten()
        counts = torch.bincount(data.y[nodes].clamp(min=0), minlength=data.num_classes)
        if untaught := (counts == 0).nonzero().flatten().tolist():
            classes = f"class {untaught[0]} has" if len(untaught) == 1 else f"{len(untaught)} classes have"
            found.append(f"{classes} no row to train on (seed {SEEDS[0]})")
    deviation = data.x.double().std(dim=0, correction=0)
    varying = deviation[deviation > 0]
    if constant := len(deviation) - len(varying):
        found.append(f"{constant:,} of {len(deviation):,} features are the same at every node")
    if len(varying) and (ratio := float(varying.max() / varying.min())) >= SCALES:
        found.append(f"the scales of the features differ by a factor of {ratio:,.0f}: not normalised")
    if data.edge_index.shape[1]:
        source, destination = data.edge_index
        linked = torch.zeros(data.num_nodes, dtype=torch.bool)
        linked[destination[source != destination]] = True
        if (isolated := int((~linked).sum())) > data.num_nodes / 2:
            found.append(f"{isolated:,} of {data.num_nodes:,} nodes have no neighbour but themselves")
    return found
