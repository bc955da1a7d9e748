"""The benchmark of steps runs, and writes what it measured."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_it_measures_every_size_and_writes_its_tables(tmp_path):
    command = [sys.executable, "benchmarks/steps.py", "--methods", "kd", "lsp", "crd"]
    command += ["--nodes", "50", "100", "--degrees", "2", "4", "--degree-nodes", "100", "--repeats", "1"]
    command += ["--output", str(tmp_path / "steps.md")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "workflow")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "steps.md").read_text()
    for method in ("kd", "lsp", "crd"):
        row = next(line for line in text.splitlines() if line.startswith(f"| {method} |"))
        first, second = (float(cell) for cell in row.split("|")[2:4])
        assert first > 0 and second > 0
    assert "linear in edges × features" in text  # what the docstring says, beside the figures
