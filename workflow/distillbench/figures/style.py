"""How figures look and are written: one style, one palette, one way to save. Imports no torch and no pyplot.

The look itself is in ``distillbench.mplstyle``. It lies on top of matplotlib's defaults and not of a person's own
matplotlibrc, so that equal input gives equal files on every machine.
"""

import textwrap
from contextlib import AbstractContextManager
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import matplotlib.style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from distillbench.record import write_atomically

STYLE_FILE = Path(__file__).with_name("distillbench.mplstyle")
TEACHER, TEXT, FAINT, ALARM = "#222222", "#444444", "#777777", "#b00020"
GROUND, BAND = "#f6f6f6", "#ececec"  # a panel that has nothing to show; a margin, behind what is drawn
DPI = 160


class Look(NamedTuple):
    """A colour, and the marker that tells the same without it."""

    colour: str
    marker: str


# Okabe and Ito's palette, ordered so that neighbours are apart also in grey.
LOOKS = [
    Look("#0072B2", "o"), Look("#D55E00", "D"), Look("#009E73", "s"), Look("#CC79A7", "^"),
    Look("#E69F00", "v"), Look("#56B4E9", "P"), Look("#000000", "X"),
]  # fmt: skip
# the last is darker than any colour of the palette, so that all three are apart in grey and legible as text
LIBRARIES = {"pyg": LOOKS[0], "dgl": LOOKS[1], "csr": Look("#882255", "^")}


def styled() -> AbstractContextManager[None]:
    """A context in which matplotlib draws in the style; both drawing and ``save`` belong in it."""
    return matplotlib.style.context(STYLE_FILE, after_reset=True)


def library_look(backend: str) -> Look:
    """The look of a library, the same in every figure; what is none of them has the third colour."""
    return LIBRARIES.get(backend, LOOKS[2])


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of ``width`` × ``height`` inches that is drawn without a display."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def caption(figure: Figure, title: str, text: str, foot: str, *, left: float = 0.12) -> None:
    """Write ``title`` and below it ``text`` at the head of the page, ``foot`` at its end, broken to the page's width.

    ``left`` is the margin in inches. How high they come: ``head_height`` and ``foot_height``.
    """
    width, height = figure.get_size_inches()
    figure.text(left / width, 1 - 0.14 / height, title, va="top", fontsize=13, fontweight="bold")
    figure.text(left / width, 1 - 0.42 / height, _wrapped(text, width, 9), va="top", color=TEXT)
    figure.text(left / width, 0.1 / height, _wrapped(foot, width, 7.5), va="bottom", fontsize=7.5, color=FAINT)


def head_height(text: str, width: float) -> float:
    """Inches that a caption's title and ``text`` take on a page of ``width`` inches."""
    return 0.6 + 0.16 * _wrapped(text, width, 9).count("\n")


def foot_height(foot: str, width: float) -> float:
    """Inches that a caption's ``foot`` takes on a page of ``width`` inches."""
    return 0.25 + 0.13 * (_wrapped(foot, width, 7.5).count("\n") + 1)


def save(figure: Figure, *, png: Path, svg: Path, dpi: int = DPI) -> None:
    """Write ``figure`` as PNG and SVG, without dates and versions: equal figures are equal files."""
    drawn, traced = BytesIO(), BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi, metadata={"Software": None}, pil_kwargs={"optimize": True})
    figure.savefig(traced, format="svg", metadata={"Date": None})
    write_atomically(png, drawn.getvalue())
    write_atomically(svg, traced.getvalue())


def shortened(name: str, letters: int) -> str:
    """``name`` in one line of at most ``letters`` letters."""
    line = " ".join(name.split())
    return line if len(line) <= letters else line[: letters - 1] + "…"


def draw_message(title: str, text: str, *, png: Path, svg: Path) -> None:
    """Write a small figure that only says why there is nothing to draw: a declared file is always there."""
    with styled():
        figure = new_figure(6.2, head_height(text, 6.2) + 0.2)
        caption(figure, title, text, "")
        save(figure, png=png, svg=svg)


def _wrapped(text: str, width: float, points: float) -> str:
    """``text`` in lines of ``width`` inches, at the average width of the style's letters."""
    letters = int((width - 0.24) * 138 / points)
    return "\n".join(textwrap.fill(part, letters, break_on_hyphens=False) for part in text.split("\n"))
