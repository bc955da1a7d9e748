"""Sides of a comparison take turns in processes of their own, have to agree, and make one row each."""

import pytest
import torch

from benchmarks import growth
from benchmarks.__main__ import HEADER, chosen, row_of
from benchmarks.pairs import Case, Measured, Result, Side, Work, measure
from benchmarks.shapes import PPI_EDGES, PPI_NODES, random_edges


def numbers(device, times=1.0, megabytes=0):
    def step():
        held = torch.ones(megabytes * 250_000, device=device)  # touched: it counts as memory
        return times * torch.arange(4.0) + 0 * held.sum()

    return step


def failing(device):
    def step():
        raise ZeroDivisionError("no such step")

    return step


def side(name="ours", make=numbers, needs=None, cpu_only=False, **arguments):
    return Side(name, make, arguments, needs=needs, cpu_only=cpu_only)


@pytest.fixture(scope="module")
def measured():
    others = [side("same"), side("large", megabytes=200), side("absent", needs="no_such_module")]
    return measure(Case("case", side(), others, (2.0, None, None), Work(flops=1e6, bytes=1e6)), 3, "cpu")


def test_every_side_takes_as_many_steps(measured):
    assert [len(one.seconds) for one in measured.sides] == [3, 3, 3, 0]
    assert measured.gemm > 1e6 and measured.bandwidth > 1e6


def test_memory_is_that_of_a_step(measured):
    ours, _, large, _ = measured.sides
    assert large.memory_mb == pytest.approx(200, abs=20)
    assert ours.memory_mb < 50


def test_a_side_without_its_library_is_left_out_and_says_why(measured):
    assert measured.sides[3].missing == "no_such_module is not installed"
    assert "no_such_module is not installed" in row_of(measured, 2)


def test_a_row_has_the_ratio_of_medians_and_whether_it_is_what_was_wanted():
    ours, theirs = Measured([1.0, 3.0, 2.0], 5.0), Measured([3.0, 9.0, 3.2], 50.0, differs=2e-7)
    case = Case("case", side(), [side("plain")], (1.6,), Work(flops=3e9, bytes=1e9))
    result = Result(case, [ours, theirs], gemm=3e9, bandwidth=4e9)
    assert result.ratio(0) == pytest.approx(1.6)
    assert result.over_limit == pytest.approx(2 / 1.25)
    row = row_of(result, 0)
    assert row == ["case", "plain", "2000.0", "3200.0", "1.60", "yes, ≥ 1.6", "5", "50", "1.6", "2e-07"]
    assert len(row) == len(HEADER)
    slower = Result(case, [ours, Measured([2.0])], 3e9, 4e9)
    assert row_of(slower, 0)[5] == "**no**, ≥ 1.6"


def test_sides_that_disagree_are_not_compared():
    with pytest.raises(RuntimeError, match=r"case: the results differ by 0\.01"):
        measure(Case("case", side(), [side("other", times=1.01)], (None,)), 1, "cpu")


def test_a_side_that_fails_ends_the_case_with_its_reason():
    with pytest.raises(RuntimeError, match=r"(?s)broken failed.*no such step"):
        measure(Case("case", side(), [side("broken", failing)], (None,)), 1, "cpu")


def test_cases_are_chosen_by_a_part_of_their_name():
    assert {case.name for case in chosen(["rbf"])} == {
        "LSP, rbf: teacher once + student step",
        "LSP, rbf: student step",
    }
    with pytest.raises(SystemExit, match="--only rfb: no such case; there are lsp, step"):
        chosen(["rfb"])


@pytest.mark.parametrize("nodes, edges", [(PPI_NODES, PPI_EDGES), (100, 3000), (10, 10)])
def test_a_random_graph_has_the_size_asked_for(nodes, edges):
    found = random_edges(nodes, edges)
    assert found.shape == (2, edges)
    assert (found[1].diff() >= 0).all()
    assert torch.unique(found[0] * nodes + found[1]).numel() == edges
    assert int((found[0] == found[1]).sum()) == nodes
    assert torch.equal(torch.unique(found[0] * nodes + found[1]), torch.unique(found[1] * nodes + found[0]))


def test_growth_measures_sizes_until_one_would_not_fit(tmp_path):
    sizes = [(10, 1_000_000), (10, 10_000_000), (10, 100_000_000)]  # 1 GB, 10 GB, 100 GB
    points = growth.series("mine", _Point(), sizes)
    assert [point.edges for point in points] == [1_000_000, 10_000_000]
    panels = [growth.Panel("edges", "title", "edges", sizes, {name: points}) for name in ("pyg", "loss")]
    growth.draw(panels, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").stat().st_size > 10_000
    assert "slope 1" in (tmp_path / "growth.svg").read_text()


class _Point:
    """A size that takes as much memory as it has edges, measured in another process."""

    def __call__(self, nodes, edges):
        return growth.Point(nodes, edges, 1e-6 * edges, 1e-3 * edges)


@pytest.mark.parametrize("backend", ["pyg", "csr"])
def test_growth_trains_an_lsp_student(backend):
    point = growth.measure(backend, 60, 400)
    assert (point.nodes, point.edges) == (60, 400)
    assert point.seconds > 0


def test_growth_of_the_loss():
    assert growth.measure_loss(60, 400).seconds > 0
