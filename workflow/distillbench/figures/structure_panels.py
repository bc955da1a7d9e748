"""How the picture of a feature space is laid out and drawn: points of a cloud, or a node's neighbourhood in a graph.

Drawn without pyplot; equal input gives equal files. Importing this module imports no torch.
"""

import math
import textwrap
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import networkx as nx  # type: ignore[import-untyped]
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy.stats import rankdata, spearmanr

from distillbench.figures.style import ALARM, FAINT, GROUND, TEXT, new_figure, save, styled

HOPS, MOST_NODES = 2, 150  # of the neighbourhood that is drawn of a graph
# Perceptually uniform, dark is near; without its lightest end, which is hard to see on white
COLOURS = ListedColormap(mpl.colormaps["viridis"](np.linspace(0, 0.95, 256)))
MARK = "#e3000f"
# Inches: margin, a panel's width, between panels, the text below one, page head and foot, the rows' names.
LEFT, PANEL, GAP, NOTE, HEAD, FOOT, NAMES = 0.2, 2.5, 0.25, 0.5, 1.0, 0.85, 0.3


class Panel(NamedTuple):
    """distances: [P] from the marked point to each of the drawn ones; None where there are none, and note says why."""

    distances: np.ndarray | None
    note: str


class View(NamedTuple):
    """What is drawn, the same in every panel.

    graph: its number in the data. nodes: [P] the drawn nodes of that graph, the marked one first. positions: [P, 2],
    and the order in which to draw them. links: [L, 2] places in ``nodes``. text: what it is, for the caption.
    """

    graph: int
    nodes: np.ndarray
    positions: np.ndarray
    order: np.ndarray
    links: np.ndarray
    text: str


def feature_distances(features: np.ndarray) -> np.ndarray:
    """Euclidean distance of every row of ``features`` [P, D] to the first: [P], not finite where they are not."""
    exact = features.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(np.linalg.norm(exact - exact[0], axis=1))


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation of two lists of distances [P], without the marked point, which is first in both.

    NaN where it is not defined: fewer than three points besides the marked one, or all at the same distance.
    """
    if len(a) < 4 or np.ptp(a[1:]) == 0 or np.ptp(b[1:]) == 0:
        return math.nan
    return float(spearmanr(a[1:], b[1:]).statistic)


def nearness(distances: np.ndarray) -> np.ndarray:
    """What is drawn in colour: ranks of ``distances`` [P] without the marked point's, 0 nearest to 1 furthest: [P - 1].

    Ranks, as in the correlation: one point that is far from all others would leave the rest in one colour, and the
    scales of two feature spaces have nothing to do with each other.
    """
    return np.asarray((rankdata(distances[1:]) - 1) / max(len(distances) - 2, 1))


def ego_network(edge_index: np.ndarray, node: int, most: int) -> np.ndarray:
    """At most ``most`` nodes within HOPS links of ``node``, ring by ring, itself first: [P].

    Of a ring that is too large, nodes spread evenly over it (by number): the first ones would be the neighbours of one
    neighbour.
    """
    source, destination = edge_index
    nodes = ring = np.array([node])
    for _ in range(HOPS):
        ring = np.setdiff1d(source[np.isin(destination, ring)], nodes)
        room = most - len(nodes)
        if len(ring) > room:
            ring = ring[np.linspace(0, len(ring) - 1, room).round().astype(int)]
        nodes = np.concatenate([nodes, ring])
    return nodes


def project(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points [P, D] on the page: positions [P, 2], and their order from back to front [P].

    Of more than three coordinates the first three are drawn, in parallel projection, seen a little from above.
    """
    if x.shape[1] < 3:
        flat = np.pad(x, [(0, 0), (0, 2 - x.shape[1])])
        return flat, np.arange(len(x))
    turn, tilt = np.deg2rad(-60), np.deg2rad(25)
    right = np.array([-np.sin(turn), np.cos(turn), 0])
    towards = np.array([np.cos(tilt) * np.cos(turn), np.cos(tilt) * np.sin(turn), np.sin(tilt)])
    up = np.cross(towards, right)
    return x[:, :3] @ np.stack([right, up], axis=1), np.argsort(x[:, :3] @ towards, kind="stable")


def links_among(nodes: np.ndarray, edge_index: np.ndarray) -> np.ndarray:
    """Links between two of ``nodes``, each once and without loops, as places in ``nodes``: [L, 2]."""
    place = np.full(int(edge_index.max()) + 1, -1)
    place[nodes] = np.arange(len(nodes))
    links: np.ndarray = place[edge_index].T
    return links[(links[:, 0] < links[:, 1]) & (links >= 0).all(axis=1)]


def lay_out(nodes: int, links: np.ndarray) -> np.ndarray:
    """Positions of a network on the page, linked nodes near each other: [P, 2]."""
    graph = nx.empty_graph(nodes)
    graph.add_edges_from(links.tolist())
    positions = nx.spring_layout(graph, seed=0, iterations=200)
    return np.array([positions[node] for node in range(nodes)])


def draw_panels(
    view: View,
    teacher: Panel,
    columns: dict[str, list[Panel]],
    rows: list[str],
    *,
    title: str,
    text: str,
    png: Path,
    svg: Path,
) -> None:
    """Write PNG and SVG: the teacher once, beside a column of panels per student with one for each of ``rows``."""
    with styled():
        save(_figure(view, teacher, columns, rows, title, text), png=png, svg=svg)


def _figure(
    view: View, teacher: Panel, columns: dict[str, list[Panel]], rows: list[str], title: str, text: str
) -> Figure:
    students = LEFT + PANEL + GAP + NAMES
    width = students + len(columns) * (PANEL + GAP)
    heading, legend = (
        textwrap.fill(note, int(letters * width)) for note, letters in ((text, 14.4), (_legend(view), 16.5))
    )
    head = HEAD + 0.16 * heading.count("\n")
    foot = FOOT + 0.13 * legend.count("\n")
    wide, high = np.ptp(view.positions, axis=0)
    tall = PANEL * min(max(high / max(wide, 1e-9), 0.6), 1.0)  # a flat thing needs no square
    height = head + len(rows) * (tall + NOTE) + foot
    figure = new_figure(width, height)

    def place(x: float, row: float) -> Axes:
        """A panel ``x`` inches from the left, in a row counted from the top."""
        bottom = height - head - row * (tall + NOTE) - tall
        return figure.add_axes((x / width, bottom / height, PANEL / width, tall / height))

    # the teacher is the same for all rows
    _draw_panel(place(LEFT, (len(rows) - 1) / 2), view, teacher, "teacher", teacher.note)
    for column, (name, panels) in enumerate(columns.items()):
        for row, panel in enumerate(panels):
            ax = place(students + column * (PANEL + GAP), row)
            _draw_panel(ax, view, panel, "" if row else name, _note(panel, teacher))
            if column == 0:
                ax.annotate(rows[row], (0, 0.5), xycoords="axes fraction", xytext=(-7, 0), textcoords="offset points",
                            rotation=90, ha="right", va="center", color=TEXT, fontsize=10)  # fmt: skip
    figure.text(LEFT / width, 1 - 0.14 / height, title, va="top", fontsize=13, fontweight="bold")
    figure.text(LEFT / width, 1 - 0.42 / height, heading, va="top", color=TEXT)
    figure.text(LEFT / width, 0.1 / height, legend, va="bottom", fontsize=7.5, color=FAINT)
    _draw_scale(figure.add_axes((LEFT / width, (foot - 0.3) / height, PANEL / width, 0.11 / height)))
    return figure


def _draw_panel(ax: Axes, view: View, panel: Panel, name: str, note: str) -> None:
    ax.set_axis_off()
    ax.set_title(name, loc="center", fontsize=10.5)
    if panel.distances is None:
        ax.add_patch(Rectangle((0, 0), 1, 1, transform=ax.transAxes, color=GROUND, zorder=0))
        ax.text(0.5, 0.5, textwrap.fill(panel.note, 32), transform=ax.transAxes, ha="center", va="center", color=ALARM)
        return
    x = view.positions
    ax.set_aspect("equal", adjustable="datalim")  # all panels of a row keep their size, also those with a message
    ax.margins(0.05)
    if len(view.links):
        ax.add_collection(LineCollection(list(x[view.links]), colors="#999999", linewidths=0.5, alpha=_faint(view)))
    others = view.order[view.order != 0]
    size = min(max(9000 / len(x), 9), 70)
    colour = nearness(panel.distances)[others - 1]
    ax.scatter(x[others, 0], x[others, 1], s=size, c=colour, cmap=COLOURS, norm=Normalize(0, 1),
               edgecolors="white", linewidths=min(0.03 * size, 0.5), zorder=2)  # fmt: skip
    ax.scatter(x[0, 0], x[0, 1], s=190, marker="*", c=MARK, edgecolors="white", linewidths=1.2, zorder=3)
    ax.annotate(note, (0.5, 0), xycoords="axes fraction", xytext=(0, -4), textcoords="offset points",
                ha="center", va="top", fontsize=9, annotation_clip=False)  # fmt: skip


def _faint(view: View) -> float:
    """Links of a dense neighbourhood are not to hide its nodes."""
    return min(0.6, max(0.08, 60 / len(view.links)))


def _note(panel: Panel, teacher: Panel) -> str:
    if panel.distances is None:
        return ""
    lines = [panel.note] if panel.note else []
    if teacher.distances is not None:
        rho = rank_correlation(panel.distances, teacher.distances)
        lines.insert(0, "ρ is not defined here" if math.isnan(rho) else f"ρ = {rho:.2f}".replace("-", "−"))
    return "\n".join(lines)


def _draw_scale(ax: Axes) -> None:
    ax.imshow(np.linspace(0, 1, 256)[None], aspect="auto", cmap=COLOURS, extent=(0, 1, 0, 1))
    ax.spines[:].set_visible(False)
    ax.set_yticks([])
    ax.set_xticks([0, 1], ["near", "far"])
    ax.tick_params(length=0, pad=2)
    near, far = ax.get_xticklabels()
    near.set_horizontalalignment("left")
    far.set_horizontalalignment("right")


def _legend(view: View) -> str:
    where = "The layout is of the links alone, and the same in all panels. " if len(view.links) else ""
    return (
        "Colour: Euclidean distance in the features from the marked point (red star) to each of the others, by rank "
        f"within the panel. {where}ρ: Spearman's rank correlation of the student's distances with the teacher's, over "
        "the points drawn, without the marked one."
    )
