"""The benchmark of steps runs, and writes what it measured."""

import os
import subprocess
import sys
from pathlib import Path

from benchmarks import steps

ROOT = Path(__file__).parents[2]


def cells(page, method):
    """The cells of a method's rows, table by table, without its name."""
    rows = [line for line in page.splitlines() if line.startswith(f"| {method} |")]
    return [[cell.strip() for cell in row.strip("|").split(" | ")[1:]] for row in rows]


def test_it_measures_every_size_and_writes_its_tables(tmp_path):
    command = [sys.executable, "benchmarks/steps.py", "--methods", "kd", "lsp", "crd"]
    command += ["--nodes", "50", "100", "--degrees", "2", "4", "--degree-nodes", "100", "--repeats", "1"]
    command += ["--output", str(tmp_path / "steps.md")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "workflow")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "steps.md").read_text()
    for method in ("kd", "lsp"):
        of_nodes, of_edges = cells(text, method)
        # milliseconds: a step of so few nodes takes more than 50 microseconds and less than a second
        assert all(0.05 <= float(cell) < 1000 for cell in of_nodes[:2] + of_edges[:2]), method
    assert [len(row) for row in cells(text, "crd")] == [4, 4, 6]  # the third: of sampled nodes
    assert "linear in edges × features" in text  # what the docstring says, beside the figures


def test_its_tables_show_milliseconds_their_slope_and_what_was_left_out(monkeypatch, tmp_path):
    def measured(series, repeats, limit):
        """8 nodes² times degree, in nanoseconds: 1 ms for 1,000 nodes and 8 neighbours, but for the largest lsp."""
        found = {case: case.nodes**2 * case.degree / 8e9 for cases in series for case in cases}
        return {case: seconds for case, seconds in found.items() if (case.method, case.nodes) != ("lsp", 2000)}

    monkeypatch.setattr(steps, "measured", measured)
    given = ["--methods", "kd", "lsp", "--nodes", "500", "1000", "2000", "--degrees", "4", "16"]
    steps.main([*given, "--degree-nodes", "1000", "--output", str(tmp_path / "steps.md")])
    page = (tmp_path / "steps.md").read_text()
    of_nodes, of_edges = cells(page, "kd")
    assert of_nodes[:4] == ["0.2", "1.0", "4.0", "2.00"] and of_edges[:3] == ["0.5", "2.0", "1.00"]
    assert cells(page, "lsp")[0][:4] == ["0.2", "1.0", "–", "2.00"]


def test_a_figure_is_the_median_of_the_repeats_and_a_series_ends_before_it_takes_too_long(monkeypatch):
    # the first two of each case are a warm-up, by the quicker of which the next, twice as large, would take four times
    times = {"quick": iter([0.9, 0.1, 0.5, 0.2, 0.3]), "slow": iter([9.0, 1.0, 1.2, 1.3, 1.1])}

    class Step:
        def __init__(self, case):
            self.case = case

        def __call__(self):
            return next(times[self.case.method])

    monkeypatch.setattr(steps, "Step", Step)
    quick, slow, slower = steps.Case("quick", 10, 2), steps.Case("slow", 10, 2), steps.Case("slow", 20, 2)
    assert steps.measured([[quick], [slow, slower]], repeats=3, limit=2.0) == {quick: 0.3, slow: 1.2}
