"""PyG against DGL."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from distillbench import libraries

from .conftest import BASE, UP, runs_of, shifted


def two_backends(a, b, **broken):
    return pd.concat(
        [
            runs_of({"kd": a}, backend="pyg", broken=broken.get("pyg")),
            runs_of({"kd": b}, backend="dgl", broken=broken.get("dgl")),
        ]
    )


def test_tost_is_two_one_sided_t_tests():
    close = [
        base + x
        for base, x in zip(BASE, [0.002, -0.001, 0.003, 0, -0.002, 0.001, 0, 0.002, -0.001, 0.001], strict=True)
    ]
    (row,) = libraries.equivalence(two_backends(close, BASE), delta=0.005).to_dict("records")
    d = np.subtract(close, BASE)
    above = scipy_stats.ttest_1samp(d, -0.005, alternative="greater").pvalue
    below = scipy_stats.ttest_1samp(d, 0.005, alternative="less").pvalue
    assert row["p_tost"] == pytest.approx(max(above, below), rel=1e-9)
    interval = scipy_stats.ttest_1samp(d, 0).confidence_interval(0.90)
    assert (row["ci90_low"], row["ci90_high"]) == pytest.approx(tuple(interval), rel=1e-9)
    assert row["verdict"] == "equivalent within δ"


def test_a_difference_of_the_libraries_is_not_equivalence():
    (row,) = libraries.equivalence(two_backends(shifted(UP), BASE)).to_dict("records")
    assert row["verdict"] == "not shown equivalent" and row["diff"] == pytest.approx(np.mean(UP))


def test_identical_libraries_are_equivalent_and_a_constant_shift_beyond_delta_is_not():
    (same,) = libraries.equivalence(two_backends(BASE, BASE)).to_dict("records")
    assert (same["diff"], same["ci90_low"], same["p_tost"], same["verdict"]) == (0, 0, 0, "equivalent within δ")
    (apart,) = libraries.equivalence(two_backends([x + 0.02 for x in BASE], BASE)).to_dict("records")
    assert (apart["p_tost"], apart["verdict"]) == (1, "not shown equivalent")


def test_a_skipped_library_gives_no_equivalence():
    skipped = {("kd", s): ("skipped", "dgl is not installed") for s in range(10)}
    (row,) = libraries.equivalence(two_backends(BASE, BASE, dgl=skipped)).to_dict("records")
    assert row["verdict"] == "n too small" and row["note"] == "dgl: skipped (dgl is not installed)"
    assert libraries.equivalence(runs_of({"kd": BASE})).empty
    with pytest.raises(ValueError, match="delta"):
        libraries.equivalence(two_backends(BASE, BASE), delta=0)
