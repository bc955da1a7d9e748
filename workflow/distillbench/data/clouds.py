"""Point clouds of shapes: checked, put into the unit sphere, split, augmented. What ModelNet40 and KiCad-3D share."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from distillbench.data.graph_data import DataError, GraphData, Split
from distillbench.seeds import generator

SCALE, SHIFT, JITTER, JITTER_LIMIT = (2 / 3, 3 / 2), 0.2, 0.01, 0.02


def clouds(points: np.ndarray, labels: np.ndarray, *, classes: int, asked: int, where: str) -> tuple[Tensor, Tensor]:
    """The first ``asked`` points of every cloud, in the unit sphere, and the labels.

    Args:
        points: [G, P, 3], any float type. labels: [G] or [G, 1], any integer type, 0 to ``classes`` - 1.
        classes: number of classes.
        asked: the parameter ``points``.
        where: the file, for messages.

    Returns:
        [G, asked, 3] float32 and [G] int64.

    Raises:
        DataError: naming the file and what is wrong with it.
    """
    if points.ndim != 3 or points.shape[2] != 3 or points.dtype.kind != "f":
        raise DataError(f"{where}: points must be [clouds, points, 3] floats, not {points.dtype} {list(points.shape)}")
    if labels.shape not in ((len(points),), (len(points), 1)) or labels.dtype.kind not in "iu":
        raise DataError(
            f"{where}: labels must be integers, one for each of {len(points)} clouds, "
            f"not {labels.dtype} {list(labels.shape)}"
        )
    if points.shape[1] < asked:
        raise DataError(f"{where}: params.points is {asked}, but its clouds have {points.shape[1]} points")
    y = torch.from_numpy(labels.reshape(-1).astype(np.int64))
    wrong = _first((y < 0) | (y >= classes))
    if wrong is not None:
        raise DataError(f"{where}: the label of cloud {wrong} is {y[wrong]}, must be 0 to {classes - 1}")
    x = torch.from_numpy(points[:, :asked].astype(np.float64))
    wrong = _first(~x.isfinite().flatten(1).all(dim=1))
    if wrong is not None:
        raise DataError(f"{where}: cloud {wrong} has coordinates that are not finite")
    wrong = _first((x == x[:, :1]).flatten(1).all(dim=1))
    if wrong is not None:
        raise DataError(f"{where}: all {asked} points of cloud {wrong} are the same")
    return unit_sphere(x).float(), y


def unit_sphere(points: Tensor) -> Tensor:
    """Clouds [G, P, 3] with their centre of mass moved to the origin and their farthest point to distance 1."""
    centred: Tensor = points - points.mean(dim=1, keepdim=True)
    radius: Tensor = centred.norm(dim=2).amax(dim=1)
    return centred / radius[:, None, None]


def stratified(labels: Tensor, number: int, random: torch.Generator) -> Tensor:
    """``number`` of the rows of ``labels`` [M], drawn so that every class has its share: [number] int64, ascending.

    Shares are rounded by the method of largest remainders, so that they add up.
    """
    exact = labels.bincount().double() * number / len(labels)
    quota = exact.floor().long()
    largest = (exact - quota).argsort(descending=True, stable=True)[: number - int(quota.sum())]
    quota[largest] += 1
    order = torch.randperm(len(labels), generator=random)
    return torch.cat([order[labels[order] == c][:n] for c, n in enumerate(quota.tolist())]).sort().values


def with_validation(labels: Tensor, test: Tensor, val: float) -> Split:
    """The split of shapes that come with training and test shapes only: validation is drawn from the training shapes.

    It is drawn once, stratified by class, so all seeds, methods and libraries select on the same shapes.

    Args:
        labels: [G] int64. test: [G] bool.
        val: how many (an integer) or which share of the training shapes (a fraction).

    Raises:
        DataError: nothing is left for one of the parts.
    """
    train = (~test).nonzero().flatten()
    number = val if isinstance(val, int) else round(val * len(train))
    if not 0 < number < len(train):
        raise DataError(f"params.val {val}: {number} of {len(train)} training clouds leave none to train or select on")
    chosen = torch.zeros(len(train), dtype=torch.bool)
    chosen[stratified(labels[train], number, generator(0, "validation"))] = True
    return Split(train[~chosen], train[chosen], test.nonzero().flatten())


def reduced(part: Tensor, labels: Tensor, number: int | None, name: str) -> Tensor:
    """A part of a split cut to ``number`` clouds, stratified by class; whole where that is None.

    Raises DataError naming the parameter where there are fewer.
    """
    if number is None:
        return part
    if number > len(part):
        raise DataError(f"params.{name} is {number}, but there are {len(part)} clouds")
    return part[stratified(labels[part], number, generator(0, "reduced", name))]


def cloud_data(points: Tensor, labels: Tensor, split: Split, classes: Sequence[str]) -> GraphData:
    """GraphData of clouds ``points`` [G, P, 3] and ``labels`` [G], in this order, without those in no part."""
    kept = torch.cat(split).sort().values
    return GraphData(
        x=points[kept].flatten(0, 1),
        edge_index=torch.empty(2, 0, dtype=torch.int64),
        y=labels[kept],
        graph_ptr=torch.arange(len(kept) + 1) * points.shape[1],
        task_name="graph-multiclass",
        setting="inductive",
        num_classes=len(classes),
        split=Split(*(torch.searchsorted(kept, part) for part in split)),
    )


def augmented(x: Tensor, ptr: Tensor, random: torch.Generator) -> Tensor:
    """Clouds as they are usually shown in training (Qi et al. 2017, Wang et al. 2019): scaled, shifted, jittered.

    Each cloud is scaled by U(2/3, 3/2) and shifted by U(-0.2, 0.2), drawn for every axis; each point is moved by
    N(0, 0.01), at most 0.02.

    Args:
        x: [N, 3] points. ptr: [G + 1], first point of each cloud. random: a CPU generator.

    Returns:
        [N, 3]; point i stays point i.
    """
    clouds = len(ptr) - 1
    scale = torch.empty(clouds, 3).uniform_(*SCALE, generator=random)
    shift = torch.empty(clouds, 3).uniform_(-SHIFT, SHIFT, generator=random)
    jitter = (JITTER * torch.randn(len(x), 3, generator=random)).clamp(-JITTER_LIMIT, JITTER_LIMIT)
    cloud = torch.arange(clouds).repeat_interleave(ptr.diff())
    return x * scale[cloud] + shift[cloud] + jitter


def _first(wrong: Tensor) -> int | None:
    rows = wrong.nonzero()
    return int(rows[0]) if len(rows) else None
