"""Across cells."""

import math

import pandas as pd
import pytest

from distillbench import across

from .conftest import BASE, runs_of


def test_too_few_cells_are_said_to_be_too_few():
    found = across.across_cells(runs_of({"supervised": BASE, "kd": BASE, "at": BASE}))
    assert (
        found.cells == 1
        and math.isnan(found.p)
        and "at least 6 cells" in found.sentence
        and "1 and 3" in found.sentence
    )


def test_friedman_counts_two_libraries_on_one_data_set_once():
    order = [{"supervised": [0.7], "kd": [0.8], "at": [0.75]}] * 5 + [{"supervised": [0.7], "kd": [0.75], "at": [0.8]}]
    runs = pd.concat(
        [runs_of(scores, dataset=f"d{n}", backend=name) for n, scores in enumerate(order) for name in ("pyg", "dgl")]
    )
    found = across.across_cells(runs)
    # ranks sum to 6, 17, 13 over 6 cells of 3 methods: χ² = 12/(6·3·4) (36 + 289 + 169) - 3·6·4 = 10.33, 2 degrees
    assert found.cells == 6 and found.statistic == pytest.approx(12 / 72 * 494 - 72)
    assert found.p == pytest.approx(math.exp(-found.statistic / 2))
    assert "differ" in found.sentence
