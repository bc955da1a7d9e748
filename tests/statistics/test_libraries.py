"""PyG against DGL."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from distillbench.statistics import libraries

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
    assert row["verdict"] == "too few seeds" and row["note"] == "dgl: skipped (dgl is not installed)"
    assert libraries.equivalence(runs_of({"kd": BASE})).empty
    with pytest.raises(ValueError, match="delta"):
        libraries.equivalence(two_backends(BASE, BASE), delta=0)


# wall time

SECONDS_A = [2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 12.0, 30.0]


def timed(a, b, **more):
    """Both libraries with equal scores, and the training times ``a`` and ``b`` of the seeds."""
    runs = two_backends(BASE[: len(a)], BASE[: len(b)], **more)
    return runs.assign(train_seconds=[*a, *b])


def test_the_time_ratio_is_a_median_of_paired_ratios_between_two_order_statistics():
    (row,) = libraries.equivalence(timed(SECONDS_A, [2.0] * 10)).to_dict("records")
    # the median of ten lies between the second and the ninth with probability 1 - 2 (1 + 10) / 2^10 = 97.9%
    assert (row["time_ratio"], row["time_ratio_low"], row["time_ratio_high"]) == (3.25, 1.5, 6.0)
    # that of six between the least and the largest with 1 - 2 / 2^6 = 96.9%, in whatever order they come
    assert libraries.median_ratio([6, 1, 4, 3, 5, 2], [1] * 6) == (3.5, 1, 6)
    # 1/1, 2/4 and 9/3: the ratio of the two medians would be 2/3
    assert libraries.median_ratio([1, 2, 9], [1, 4, 3]).median == 1


def test_times_are_paired_by_seed_and_only_of_runs_that_finished_in_both():
    ratios = libraries.equivalence(timed(SECONDS_A, [x / 2 for x in SECONDS_A]))
    assert ratios[["time_ratio", "time_ratio_low", "time_ratio_high"]].to_numpy().tolist() == [[2, 2, 2]]
    slow = [*SECONDS_A[:9], 1e6]
    (row,) = libraries.equivalence(timed(slow, SECONDS_A, pyg={("kd", 9): ("oom", "")})).to_dict("records")
    assert (row["time_ratio"], row["time_ratio_high"]) == (1, 1) and row["note"] == "pyg: seed 9 oom"


def test_few_seeds_have_a_ratio_without_an_interval_and_no_times_have_none():
    (row,) = libraries.equivalence(timed([2.0] * 5, [1.0] * 5)).to_dict("records")
    assert row["time_ratio"] == 2 and np.isnan([row["time_ratio_low"], row["time_ratio_high"]]).all()
    (untimed,) = libraries.equivalence(two_backends(BASE, BASE)).to_dict("records")
    assert np.isnan([untimed[name] for name in ("time_ratio", "time_ratio_low", "time_ratio_high")]).all()
    failed = {("kd", s): ("diverged", "loss is NaN") for s in range(10)}
    (none,) = libraries.equivalence(timed(SECONDS_A, SECONDS_A, dgl=failed)).to_dict("records")
    assert np.isnan(none["time_ratio"])


def test_a_ratio_of_two_devices_is_called_one():
    runs = timed(SECONDS_A, SECONDS_A).assign(device=["cuda"] * 10 + ["cpu"] * 10)
    assert libraries.equivalence(runs)["note"].tolist() == ["times: pyg on cuda, dgl on cpu"]
    assert libraries.equivalence(runs.assign(device="cpu"))["note"].tolist() == [""]


def test_columns_are_appended_before_the_note():
    columns = list(libraries.equivalence(two_backends(BASE, BASE)).columns)
    assert columns[-5:] == ["verdict", "time_ratio", "time_ratio_low", "time_ratio_high", "note"]


def test_a_cell_is_what_all_its_methods_cost_per_seed():
    kd, lsp = (timed([a] * 6, [b] * 6) for a, b in ((1.0, 2.0), (5.0, 10.0)))
    lsp["method"] = "lsp"
    runs = pd.concat([kd, lsp])
    (row,) = libraries.cell_times(runs).to_dict("records")
    assert (row["seconds_a"], row["seconds_b"], row["n_seeds"]) == (6, 12, 6)
    assert (row["time_ratio"], row["time_ratio_low"], row["time_ratio_high"]) == (0.5, 0.5, 0.5)
    # a method that failed in one library counts in neither
    runs.loc[(runs["method"] == "lsp") & (runs["backend"] == "dgl"), "status"] = "oom"
    (row,) = libraries.cell_times(runs).to_dict("records")
    assert (row["seconds_a"], row["seconds_b"]) == (1, 2)
    assert libraries.cell_times(runs[runs["backend"] == "pyg"]).empty
    assert list(libraries.cell_times(runs.drop(columns="train_seconds")).columns) == libraries.TIME_COLUMNS


def test_the_margin_may_be_of_the_data_set():
    apart = shifted([0.004 * (-1) ** n for n in range(10)])
    (row,) = libraries.equivalence(two_backends(apart, BASE), delta={"toy": 0.001}).to_dict("records")
    assert (row["delta"], row["verdict"]) == (0.001, "not shown equivalent")
    (row,) = libraries.equivalence(two_backends(apart, BASE), delta={"other": 0.001}).to_dict("records")
    assert (row["delta"], row["verdict"]) == (0.01, "equivalent within δ")


def test_seeds_that_share_teachers_are_no_ten_pieces_of_evidence():
    apart = shifted([0.004] * 5 + [-0.004] * 5)
    runs = two_backends(apart, BASE).assign(weights="")
    taught = [runs_of({"teacher": [0.9] * 10}, backend=name) for name in ("pyg", "dgl")]
    taught = pd.concat([frame.assign(weights=list("aaaaabbbbb")) for frame in taught])
    alone, shared = (
        libraries.equivalence(frame, min_seeds=2).set_index("method").loc["kd"]
        for frame in (runs, pd.concat([taught, runs]))
    )
    assert alone["verdict"] == "equivalent within δ" and shared["verdict"] == "not shown equivalent"
    # the t test of two teachers' means, 0.004 and -0.004
    assert shared["p_tost"] == pytest.approx(scipy_stats.t.sf(0.01 / 0.004, 1), rel=1e-6)
    assert shared["note"] == "10 seeds share 2 teachers"
    one = libraries.equivalence(pd.concat([taught, runs]).assign(weights="a")).set_index("method").loc["kd"]
    assert one["verdict"] == "too few seeds" and one["note"] == "10 seeds share 1 teacher"


def test_times_say_on_what_and_are_of_seeds_that_finished_alike():
    runs = two_backends(BASE, BASE, pyg={("kd", 3): ("oom", "")}).assign(train_seconds=1.0)
    more = two_backends(BASE, BASE).assign(method="lsp", train_seconds=2.0)
    runs = pd.concat([runs, more])
    runs["device"] = runs["backend"].map({"pyg": "cuda", "dgl": "cpu"})
    (times,) = libraries.cell_times(runs).to_dict("records")
    assert (times["device_a"], times["device_b"], times["n_seeds"]) == ("cuda", "cpu", 9)
    assert (times["seconds_a"], times["time_ratio"]) == (3, 1)
