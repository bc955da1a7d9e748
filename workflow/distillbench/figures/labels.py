"""Names beside points of a plot, none over another name or another point. Imports no torch and no pyplot."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Text
from numpy.typing import ArrayLike, NDArray

from distillbench.figures.style import FAINT

NEAR, STEPS = 5.5, (1, 1.9, 3, 4.3, 6, 8)  # points from a marker's centre to its name, and multiples of it to try
DIRECTIONS = [0, 180, 90, 270, 45, 135, 315, 225, 20, 160, 340, 200, 70, 110, 290, 250]  # degrees, best first


class Label(NamedTuple):
    """A name at a point in data coordinates; ``style`` is what matplotlib's Text takes."""

    x: float
    y: float
    text: str
    style: dict[str, Any] = {}


def place_labels(
    ax: Axes,
    labels: Sequence[Label],
    points: Sequence[tuple[float, float]],
    steps: Sequence[tuple[Sequence[float], Sequence[float]]] = (),
) -> list[str]:
    """Write ``labels`` where they hide none of ``points`` and ``steps`` and no other label; the first ones first.

    points: (x, y). steps: the corners (x [n], y [n]) of lines that run along the axes; all in data coordinates. Each
    label is tried in 16 directions at growing distances, a faint line leading to its point from the further ones.
    Returns the texts that found no room and were left out. Limits and scales of ``ax`` must be set before.
    """
    figure = ax.get_figure(root=True)
    assert figure is not None
    pixel = figure.dpi / 72
    inside = np.array(ax.get_window_extent().extents)
    taken = [_box(ax.transData.transform(point), 3.2 * pixel) for point in points]
    for line in steps:
        corners = ax.transData.transform(np.column_stack(line))
        taken += [np.concatenate([np.minimum(a, b) - pixel, np.maximum(a, b) + pixel]) for a, b in pairwise(corners)]
    left_out = []
    for x, y, text, style in labels:
        here = np.asarray(ax.transData.transform((x, y)))
        drawn = ax.annotate(text, (x, y), (0, 0), textcoords="offset points", ha="center", va="center", **style)
        size = Text.get_window_extent(drawn)  # of the text alone, without its arrow
        half = np.array([size.width, 0.82 * size.height]) / 2 + 0.6 * pixel
        spot = next((s for s in _spots(here, half, pixel) if _free(s, inside, taken)), None)
        drawn.remove()
        if spot is None:
            left_out.append(text)
            continue
        taken.append(spot)
        low, high = spot[:2], spot[2:]
        nearest = np.clip(here, low, high)
        arrow = None
        if math.dist(nearest, here) > 1.3 * NEAR * pixel:
            begin = tuple((nearest - low) / (high - low))
            arrow = {"arrowstyle": "-", "color": FAINT, "lw": 0.5, "shrinkA": 0, "shrinkB": 3, "relpos": begin}
        offset = ((low + high) / 2 - here) / pixel
        ax.annotate(text, (x, y), (offset[0], offset[1]), textcoords="offset points", ha="center", va="center",
                    arrowprops=arrow, zorder=6, **style)  # fmt: skip
    return left_out


Box = NDArray[np.float64]  # [4], pixels: left, bottom, right, top


def _spots(here: NDArray[np.float64], half: NDArray[np.float64], pixel: float) -> Iterator[Box]:
    """The places of a text of half size ``half`` (pixels) around a point, the nearest first."""
    for step in STEPS:
        for degrees in DIRECTIONS:
            towards = np.array([math.cos(math.radians(degrees)), math.sin(math.radians(degrees))])
            centre = here + towards * (NEAR * step * pixel) + np.clip(towards * 1.5, -1, 1) * half
            yield _box(centre, half)


def _free(spot: Box, inside: Box, taken: list[Box]) -> bool:
    if (spot[:2] < inside[:2]).any() or (spot[2:] > inside[2:]).any():
        return False
    boxes = np.array(taken).reshape(-1, 4)
    return not ((boxes[:, :2] < spot[2:]) & (boxes[:, 2:] > spot[:2])).all(axis=1).any()


def _box(centre: ArrayLike, half: ArrayLike) -> Box:
    return np.concatenate([np.subtract(centre, half), np.add(centre, half)])
