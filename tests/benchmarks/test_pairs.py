"""Sides of a comparison take turns in processes of their own, have to agree, and make one row each."""

import re
from functools import partial

import pytest
import torch

from benchmarks import growth, lsp, pairs, shapes, similarities, student_step
from benchmarks.__main__ import HEADER, chosen, replaced, row_of, with_rows
from benchmarks.pairs import Case, Measured, Result, Side, Work, measure
from benchmarks.shapes import PPI_EDGES, PPI_NODES, random_edges
from distillbench.models.backends import missing_reason


def numbers(device, times=1.0, megabytes=0):
    def step():
        held = torch.ones(megabytes * 250_000, device=device)  # touched: it counts as memory
        return [torch.ones(2), times * torch.arange(4.0) + 0 * held.sum()]

    return step


def failing(device):
    def step():
        raise ZeroDivisionError("no such step")

    return step


def side(name="ours", make=numbers, needs=None, cpu_only=False, **arguments):
    return Side(name, make, arguments, needs=needs, cpu_only=cpu_only)


@pytest.fixture(scope="module")
def measured():
    others = [side("same"), side("large", megabytes=200), side("broken", failing)]
    return measure(Case("case", side(), others, (2.0, None, None), lambda: Work(1e6, 1e6)), 3, "cpu")


def test_every_side_takes_as_many_steps(measured):
    assert [len(one.seconds) for one in measured.sides] == [3, 3, 3, 0]
    assert measured.gemm > 1e6 and measured.bandwidth > 1e6


def test_memory_is_that_of_a_step(measured):
    ours, _, large, _ = measured.sides
    assert large.memory_mb == pytest.approx(200, abs=20)
    assert ours.memory_mb < 50


def test_a_side_that_fails_says_why_and_the_others_go_on(measured):
    assert measured.sides[3].missing == "failed: ZeroDivisionError: no such step"
    row = row_of(measured, 2)
    assert "failed: ZeroDivisionError: no such step" in row and len(row) == len(HEADER)


def test_a_side_without_its_library_is_left_out_and_says_why(monkeypatch):
    monkeypatch.setattr(pairs, "missing_reason", lambda name: f"{name} is not installed")
    found = measure(Case("case", side(), [side("absent", needs="dgl")], (None,), Work), 2, "cpu")
    assert found.sides[1].missing == "dgl is not installed"
    assert measure(Case("case", side(needs="pyg"), [side()], (None,), Work), 2, "cpu") is None


def test_a_row_has_the_ratio_of_medians_and_whether_it_is_what_was_wanted():
    ours, theirs = Measured([1.0, 3.0, 2.0], 55.0), Measured([3.0, 9.0, 3.2], 5000.0, differs=2e-7)
    case = Case("case", side(), [side("plain")], (1.6,), Work, memory_mb=50.0)
    result = Result(case, [ours, theirs], gemm=3e9, bandwidth=4e9, work=Work(flops=3e9, bytes=1e9))
    assert result.ratio(0) == pytest.approx(1.6)
    assert result.over_limit == pytest.approx(2 / 1.25)
    row = row_of(result, 0)
    assert row[:7] == ["case", "plain", "2000.0", "3200.0", "1.60", "1.60–3.00", "≥ 1.6: yes"]
    assert row[7:] == ["55", "5000", "≤ 50: **no**", "1.6", "2e-07"]
    slower = Result(case, [ours, Measured([2.0, 3.1, 1.9], 40.0)], 3e9, 4e9, Work(1, 1))
    assert row_of(slower, 0)[6] == "≥ 1.6: **no**"
    assert row_of(slower, 0)[9] == "–"  # the other takes no gigabyte


def test_sides_that_disagree_in_one_of_their_results_are_not_compared():
    with pytest.raises(RuntimeError, match=r"case: results differ by 0\.01"):
        measure(Case("case", side(), [side("other", times=1.01)], (None,), Work), 2, "cpu")


def test_ours_that_fails_ends_the_case_with_its_reason():
    with pytest.raises(RuntimeError, match=r"(?s)broken failed.*no such step"):
        measure(Case("case", side("broken", failing), [side()], (None,), Work), 2, "cpu")


def test_on_a_gpu_malloc_and_the_targets_of_cpus_do_not_count():
    default = Side("default", numbers, malloc="default")
    case = Case("case", side(), [side("kept"), default, side("cpu", cpu_only=True)], (2.0, 1.0, None), Work)
    assert ([each.name for each in case.on("cuda").others], case.on("cuda").targets) == (["kept"], [None])
    assert case.on("cpu") is case
    assert Case("case", side(), [default], (2.0,), Work).on("cuda") is None


def test_cases_are_chosen_by_a_part_of_their_name():
    assert {case.name for case in chosen(["rbf"])} == {
        "LSP, rbf: teacher once + student step",
        "LSP, rbf: student step",
    }
    with pytest.raises(SystemExit, match="--only rfb: no such case; there are lsp, step"):
        chosen(["rfb"])


def test_a_part_of_the_page_is_replaced_and_the_rest_stays():
    page = replaced(replaced("# Title\n", "a", "one"), "b", "two")
    again = replaced(page, "a", "three")
    assert again == page.replace("one", "three")
    assert page.index("# Title") < page.index("one") < page.index("two")


def test_plain_formulations_compute_what_ours_do(monkeypatch):
    for module in (lsp, shapes, student_step):
        for name, value in (("PPI_NODES", 40), ("PPI_EDGES", 200)):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(similarities, "CLOUDS", 4)
    monkeypatch.setattr(similarities, "POINTS", 64)
    for case in chosen([]):
        sides = [case.ours, *case.others]
        steps = [
            each.make(
                device=torch.device("cpu"), **each.arguments | ({"nodes": 24} if "nodes" in each.arguments else {})
            )
            for each in sides
            if not (each.needs and missing_reason(each.needs))
        ]
        first, *others = [step() for step in steps]
        assert first and (others or missing_reason("dgl")), case.name  # which some need
        for other in others:
            for a, b in zip(first, other, strict=True):
                assert (a - b).abs().max() <= case.tolerance * a.abs().max(), case.name


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


@pytest.mark.parametrize("measured", [partial(growth.measure, "csr", "cpu"), partial(growth.measure_loss, "cpu")])
def test_growth_measures_each_size_in_a_process_of_its_own(measured):
    threads = torch.get_num_threads()
    (point,) = growth.series("mine", measured, [(60, 400)])
    assert (point.nodes, point.edges) == (60, 400)
    assert point.seconds > 0
    assert torch.get_num_threads() == threads


def test_a_power_law_has_its_exponent():
    assert growth.over_all([10, 100, 1000], [3.0, 300.0, 30_000.0]) == pytest.approx(2)
    assert growth.over_all([10, 100], [3.0]) is None


def test_a_graph_that_would_be_too_dense_is_refused():
    with pytest.raises(ValueError, match="edges: 30000 are too many among 100 nodes"):
        random_edges(100, 30_000)


def test_rows_measured_again_take_the_place_of_theirs_and_say_so():
    table = "| Case | Against | ms |\n| :--- | ---: | ---: |\n| a | x | 1 |\n| a | y | 2 |\n| b | x | 3 |"
    page = (
        f"# T\n\n<!-- plain cpu -->\n## Plain\n\nWritten by `one`; m.\n\n{table}\n<!-- end of plain cpu -->\n\nrest\n"
    )
    again = "## Plain\n\nWritten by `two`.\n\n| Case | Against | ms |\n| :--- | ---: | ---: |\n| a | y | 9 |"
    found = with_rows(page, "plain cpu", again, "Of these, a: written by `two`.")
    assert found == page.replace("| a | y | 2 |", "| a | y | 9 |").replace(
        "`one`; m.\n", "`one`; m.\nOf these, a: written by `two`.\n"
    )
    third = with_rows(found, "plain cpu", again, "Of these, a: written by `three`.")
    assert third == found.replace("`two`", "`three`")
    for where, what in ((page.replace("| a | y | 2 |\n", ""), "a | y"), ("# T\n", "plain cpu")):
        with pytest.raises(SystemExit, match=re.escape(what)):
            with_rows(where, "plain cpu", again, "")
