"""One style for all figures, whatever a person's own matplotlib is set to; names beside points hide nothing."""

from itertools import combinations, pairwise

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from distillbench.figures import style
from distillbench.figures.labels import Label, place_labels
from distillbench.wording import BACKENDS, backend_order


def written(folder, draw):
    png, svg = folder / "figure.png", folder / "figure.svg"
    with style.styled():
        figure = style.new_figure(3, 2)
        draw(figure)
        style.save(figure, png=png, svg=svg)
    return png.read_bytes(), svg.read_bytes()


def plotted(figure):
    figure.add_subplot().plot([1, 2, 3], label="$x_1$")
    style.caption(figure, "a title", "a text", "a foot")


def test_equal_figures_are_equal_files_also_under_other_settings(tmp_path):
    first = written(tmp_path, plotted)
    with mpl.rc_context({"font.size": 20, "axes.facecolor": "red", "savefig.dpi": 30, "svg.fonttype": "none"}):
        assert written(tmp_path, plotted) == first
        assert mpl.rcParams["font.size"] == 20, "the style ends with its context"
    assert b"Matplotlib v" not in first[0] and b"<dc:date>" not in first[1]


def test_a_message_is_a_figure_too(tmp_path):
    png, svg = tmp_path / "a.png", tmp_path / "a.svg"
    style.draw_message("title", "no <runs> $x_1$", png=png, svg=svg)
    assert png.read_bytes().startswith(b"\x89PNG") and "no &lt;runs&gt; $x_1$" in svg.read_text(encoding="utf-8")


def luminance(colour):
    """Relative luminance (WCAG 2.1) of an sRGB colour."""
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def test_libraries_are_told_apart_without_colour():
    looks = [style.library_look(backend) for backend in BACKENDS]
    assert len({look.marker for look in looks}) == len(looks) == 3
    grey = sorted(luminance(look.colour) + 0.05 for look in looks)
    assert all(lighter / darker > 1.2 for darker, lighter in pairwise(grey))
    assert len({look.marker for look in style.LOOKS}) == len({look.colour for look in style.LOOKS}) == len(style.LOOKS)
    assert style.library_look("jax") not in looks


def test_people_see_the_libraries_in_one_order_and_others_after_them():
    assert sorted(["tensorflow", "csr", "dgl", "jax", "pyg"], key=backend_order) == [
        "pyg", "dgl", "csr", "jax", "tensorflow",
    ]  # fmt: skip


def test_a_long_name_is_cut_and_a_line_break_is_none():
    assert style.shortened("kd", 5) == "kd"
    assert style.shortened("abcdef", 5) == "abcd…" and style.shortened("a\nb", 5) == "a b"


@pytest.fixture
def axes():
    with style.styled():
        ax = style.new_figure(5, 4).add_subplot()
        ax.set(xlim=(0, 1), ylim=(0, 1))
        yield ax


def boxes(ax):
    ax.figure.canvas.draw()
    return [mpl.text.Text.get_window_extent(text) for text in ax.texts]  # without the line that leads to the point


def test_no_name_is_over_another_a_point_or_a_line(axes):
    rng = np.random.default_rng(3)
    points = rng.uniform(0.2, 0.8, (40, 2)).tolist()
    step = ([0.1, 0.5, 0.5, 0.9], [0.3, 0.3, 0.6, 0.6])
    left_out = place_labels(
        axes, [Label(x, y, f"name {n}", {"fontsize": 7}) for n, (x, y) in enumerate(points)], points, [step]
    )
    placed = boxes(axes)
    assert len(placed) + len(left_out) == 40 and len(placed) > 30
    # the height of a box is that of the tallest letters there are; the text's own is 0.82 of it
    tight = [mpl.transforms.Bbox.from_extents(b.x0, b.y0 + 0.1 * b.height, b.x1, b.y1 - 0.1 * b.height) for b in placed]
    assert not any(a.overlaps(b) for a, b in combinations(tight, 2))
    pixels = axes.transData.transform(points)
    assert not any(box.contains(x, y) for box in tight for x, y in pixels)
    corners = axes.transData.transform(np.column_stack(step))
    along = np.concatenate([np.linspace(a, b, 50) for a, b in pairwise(corners)])
    assert not any(box.contains(x, y) for box in tight for x, y in along)
    inside = axes.get_window_extent()
    assert all(inside.x0 <= box.x0 and box.x1 <= inside.x1 for box in tight)


def test_a_name_without_room_is_reported(axes):
    assert place_labels(axes, [Label(0.5, 0.5, "x" * 300), Label(0.5, 0.5, "fits")], [(0.5, 0.5)]) == ["x" * 300]
    assert [text.get_text() for text in axes.texts] == ["fits"]
