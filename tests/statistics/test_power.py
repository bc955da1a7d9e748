"""The power of the signed-rank test, and what follows from it for the number of seeds."""

import math
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from distillbench.cli import main
from distillbench.runs import RUN_COLUMNS, write_runs
from distillbench.statistics import power as pw
from distillbench.statistics.paired import signed_rank_p
from distillbench.tables.power import power_table

from .conftest import BASE, UP, runs_of, shifted

LEVELS = [0.05, 0.05 / 4, 0.05 / 20]


def brute_force(effect, n, alpha, samples=4000):
    """The share of samples in which scipy's exact test rejects."""
    x = np.random.default_rng(7).normal(effect, 1, (samples, n))
    return float((stats.wilcoxon(x, axis=1, method="exact").pvalue <= alpha).mean())


def four_errors(p, samples=4000):
    """Four standard errors of the difference of two simulated shares near ``p``."""
    return 4 * math.sqrt(max(p * (1 - p), 1e-4) * (1 / samples + 1 / pw.SAMPLES))


@pytest.mark.parametrize(
    ("effect", "n", "alpha"),
    [(1.8, 6, 0.05), (-1.0, 10, 0.05), (0.5, 10, 0.05), (1.4, 10, 0.0125), (0.6, 20, 0.05), (0.9, 20, 0.0025)],
)
def test_power_is_the_share_of_simulated_samples_in_which_scipys_test_rejects(effect, n, alpha):
    simulated = brute_force(effect, n, alpha)
    assert pw.power(effect, n, alpha) == pytest.approx(simulated, abs=four_errors(simulated))


def test_six_pairs_reject_only_where_all_have_one_sign():
    for effect in (0.0, 0.5, 1.0, 2.0):
        exact = stats.norm.cdf(effect) ** 6 + stats.norm.cdf(-effect) ** 6
        assert pw.power(effect, 6, 0.05) == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / pw.SAMPLES))


def test_five_pairs_never_reject_at_five_percent():
    assert pw.power(100.0, 5, 0.05) == 0  # 2 / 2^5 = 0.0625
    assert math.isnan(pw.smallest_detectable(5, 0.01, 0.05))
    assert pw.power(100.0, 5, 0.0625) == 1
    assert pw.seeds_needed(1.0, 1e-9, 0.05) == 6


@pytest.mark.parametrize("alpha", LEVELS)
@pytest.mark.parametrize("n", [10, 13, 20, 30])
def test_the_critical_value_is_where_the_exact_test_begins_to_reject(n, alpha):
    critical = pw.critical_rank_sum(n, alpha)
    for rank_sum, rejects in ((critical, True), (critical - 1, False)):
        left, signs = rank_sum, -np.ones(n)
        for rank in range(n, 0, -1):
            if rank <= left:
                left, signs[rank - 1] = left - rank, 1
        d = signs * np.arange(1, n + 1)
        assert d[d > 0].sum() == rank_sum
        assert (signed_rank_p(d) <= alpha) == rejects
        assert (stats.wilcoxon(d, method="exact").pvalue <= alpha) == rejects


@pytest.mark.parametrize("alpha", LEVELS)
def test_without_a_difference_the_test_rejects_no_more_often_than_its_level(alpha):
    for n in (6, 8, 10, 15, 30, 31, 200):
        assert pw.power(0.0, n, alpha) <= alpha + 4 * math.sqrt(alpha / pw.SAMPLES)


@pytest.mark.parametrize("alpha", LEVELS)
def test_power_grows_with_the_effect_and_what_is_detectable_shrinks_with_the_seeds(alpha):
    for n in (12, 25, 60):
        grown = [pw.power(effect, n, alpha) for effect in np.linspace(0, 3, 16)]
        assert all(a <= b for a, b in pairwise(grown)) and grown[0] < 2 * alpha and grown[-1] > 0.99
        assert pw.power(-0.7, n, alpha) == pw.power(0.7, n, alpha)
    sizes = [pw.smallest_detectable(n, 1.0, alpha) for n in (10, 12, 15, 20, 25, 30, 31, 35, 50, 100, 1000)]
    assert all(a > b for a, b in pairwise(sizes))


@pytest.mark.parametrize("alpha", LEVELS)
def test_simulation_and_approximation_agree_where_they_meet(alpha):
    t_test = TTestPower()
    for effect in np.linspace(0, 0.9, 16):
        assert pw.power(effect, 30, alpha) == pytest.approx(t_test.power(effect, 30 * 3 / math.pi, alpha), abs=0.025)
    assert pw.power(0.4, 50, 0.05) == t_test.power(0.4, 150 / math.pi, 0.05)
    simulated = brute_force(0.45, 40, alpha)
    assert pw.power(0.45, 40, alpha) == pytest.approx(simulated, abs=0.025 + four_errors(simulated))


def test_where_scipys_noncentral_t_is_not_a_number_power_is_what_it_is_nearby():
    alpha, pairs = 0.0001, 200 * 3 / math.pi
    effects = np.linspace(0.3, 0.5, 41)
    assert np.isnan([TTestPower().power(effect, pairs, alpha) for effect in effects]).any()
    grown = [pw.power(effect, 200, alpha) for effect in effects]
    # the noncentral t, as a normal with its spread: Johnson, Kotz, Balakrishnan, Distributions 2, eq. 31.26
    t = stats.t.isf(alpha / 2, pairs - 1)
    spread = math.sqrt(1 + t**2 / (2 * (pairs - 1)))
    expected = stats.norm.sf((t * (1 - 1 / (4 * (pairs - 1))) - effects * math.sqrt(pairs)) / spread)
    assert grown == pytest.approx(expected, abs=0.002)
    assert all(a < b for a, b in pairwise(grown))


def test_power_of_a_huge_effect_is_one_at_any_number_of_seeds():
    assert [pw.power(1e4, n, 0.001) for n in (11, 30, 31, 900)] == [1, 1, 1, 1]
    assert pw.power(1e4, 40, 1e-15) == 0  # 2 / 2^40 is above


@pytest.mark.parametrize(("alpha", "wanted"), [(0.05, 0.8), (0.0125, 0.5), (0.0025, 0.95)])
def test_seeds_needed_and_the_smallest_detectable_difference_invert_each_other(alpha, wanted):
    for n in (10, 14, 29, 30, 31, 400):
        detectable = pw.smallest_detectable(n, 0.02, alpha, wanted)
        assert pw.power(detectable / 0.02 * (1 + 1e-9), n, alpha) >= wanted
        assert pw.power(detectable / 0.02 * (1 - 1e-3), n, alpha) < wanted
        assert pw.seeds_needed(-detectable * (1 + 1e-9), 0.02, alpha, wanted) == n
        assert pw.seeds_needed(detectable * (1 - 1e-5), 0.02, alpha, wanted) == n + 1


def test_seeds_needed_says_none_where_no_number_helps():
    assert pw.seeds_needed(0.0, 0.01, 0.05) is None
    assert pw.seeds_needed(0.0, 0.0, 0.05) is None
    assert pw.seeds_needed(0.0005, 0.01, 0.05) is None  # some 3,290
    assert pw.seeds_needed(math.nan, 0.01, 0.05) is None
    assert pw.seeds_needed(0.01, math.nan, 0.05) is None
    assert pw.seeds_needed(0.001, 0.01, 0.05) == pytest.approx(785 * math.pi / 3, rel=0.01)  # a t test needs 787


def test_differences_that_do_not_vary_need_only_what_the_test_needs():
    assert [pw.seeds_needed(0.01, 0.0, alpha) for alpha in (0.0625, 0.05, 0.0125, 0.0005)] == [5, 6, 8, 12]
    assert pw.smallest_detectable(6, 0.0, 0.05) == 0
    assert math.isnan(pw.smallest_detectable(1, math.nan, 0.05))


def test_levels_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="alpha: 1 is not between 0 and 1"):
        pw.power(1.0, 10, 1.0)
    with pytest.raises(ValueError, match=r"power: 0\.05 is not between alpha \(0\.1\) and 1"):
        pw.smallest_detectable(10, 0.01, 0.1, 0.05)
    with pytest.raises(ValueError, match="power: 1 is not"):
        pw.seeds_needed(0.01, 0.01, 0.05, 1.0)


def test_a_hundred_methods_share_the_level():
    runs = runs_of({"supervised": BASE} | {f"m{k}": shifted([u * k / 20 for u in UP]) for k in range(100)})
    table = power_table(runs)
    assert len(table) == 100 and (table["alpha"] == 0.0005).all() and table["detectable"].isna().all()  # n = 10 < 12


def test_the_table_is_about_the_pairs_that_finished_and_the_methods_that_are_tested():
    broken = {("at", seed): ("oom", "") for seed in range(7)} | {("kd", 3): ("diverged", "loss is NaN")}
    runs = runs_of({"teacher": BASE, "supervised": BASE, "kd": shifted(UP), "at": BASE, "lsp": BASE}, broken=broken)
    kd, at, lsp = power_table(runs).to_dict("records")
    ups = np.delete(UP, 3)
    assert (kd["method"], kd["n_pairs"]) == ("kd", 9)
    assert (kd["diff"], kd["diff_std"]) == pytest.approx((ups.mean(), ups.std(ddof=1)))
    assert kd["alpha"] == at["alpha"] == 0.025  # at has 3 pairs: no verdict, no member of the family
    assert kd["detectable"] == pw.smallest_detectable(9, kd["diff_std"], 0.025)
    assert kd["seeds_needed"] == pw.seeds_needed(kd["diff"], kd["diff_std"], 0.025)
    assert at["n_pairs"] == 3 and math.isnan(at["detectable"])
    assert (lsp["diff"], lsp["diff_std"], lsp["detectable"]) == (0, 0, 0) and pd.isna(lsp["seeds_needed"])


def test_a_method_that_failed_altogether_stays_in_the_table():
    broken = {("kd", seed): ("oom", "") for seed in range(10)}
    (kd,) = power_table(runs_of({"supervised": BASE, "kd": BASE}, broken=broken)).to_dict("records")
    assert kd["n_pairs"] == 0 and math.isnan(kd["diff"]) and pd.isna(kd["seeds_needed"]) and kd["alpha"] == 0.05


def written(runs, folder):
    tables = folder / "tables"
    write_runs(
        runs.reindex(columns=list(RUN_COLUMNS)).astype(RUN_COLUMNS), tables / "runs.csv", tables / "runs.parquet"
    )
    return folder


def test_the_command_prints_a_table_of_the_runs_and_writes_it(tmp_path, capsys):
    runs = runs_of({"teacher": BASE, "supervised": BASE, "kd": shifted(UP), "at": shifted([-u for u in UP])})
    results = written(runs, tmp_path)
    assert main(["power", "--results", str(results), "--csv", str(tmp_path / "power.csv")]) == 0
    out = capsys.readouterr().out
    assert "toy · pyg · gat: 0.05 over 2 methods, each tested at 0.025" in out
    (kd,) = [line.split() for line in out.splitlines() if line.split()[:1] == ["kd"]]
    std = np.std(UP, ddof=1)
    level = 0.025
    assert kd[:4] == ["kd", "10", f"+{100 * np.mean(UP):.2f}", f"{100 * std:.2f}"]
    assert kd[4] == f"{100 * pw.smallest_detectable(10, std, level):.2f}"
    assert kd[5] == str(pw.seeds_needed(np.mean(UP), std, level))
    assert "on these splits" not in out and "probability 0.8" in out
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "power.csv").astype({"seeds_needed": "Int64"}), power_table(runs), rtol=1e-12
    )


def test_the_command_says_where_splits_are_redrawn_and_takes_another_baseline(tmp_path, capsys):
    results = written(runs_of({"supervised": BASE, "kd": shifted(UP)}, resplit=True), tmp_path)
    assert main(["power", "--results", str(results), "--baseline", "kd", "--alpha", "0.01", "--power", "0.9"]) == 0
    out = capsys.readouterr().out
    assert "on these splits" in out and "(toy)" in out and "method minus kd" in out and "probability 0.9" in out
    assert "0.01 over 1 method, each tested at 0.01" in out


def test_the_command_plans_without_runs(capsys):
    assert main(["power", "--std", "0.01", "--methods", "5", "--seeds", "50,5,10"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    expected = [[str(n), f"{100 * pw.smallest_detectable(n, 0.01, 0.01):.2f}"] for n in (10, 50)]
    assert ["5", "–"] in lines and all(row in lines for row in expected)
    assert lines.index(["5", "–"]) < lines.index(expected[0]) < lines.index(expected[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--std 0.01", "--std, --methods and --seeds go together"),
        ("--std zero --methods 1 --seeds 5", "'--std': 'zero' is not a valid float"),
        ("--std -1 --methods 1 --seeds 5", "'--std': -1 is not above 0"),
        ("--std nan --methods 1 --seeds 5", "'--std': nan is not above 0"),
        ("--std 0.01 --methods 0 --seeds 5", "'--methods': 0 is not in the range x>=1"),
        ("--std 0.01 --methods 1 --seeds 2.5", "'--seeds': '2.5' is not a whole number above 0"),
        ("--alpha 5", "'--alpha': 5 is not between 0 and 1"),
        ("--alpha 0.2 --power 0.1", "--power: 0.1 is not above --alpha (0.2)"),
        ("--std 0.01 --methods 1 --seeds 5 --csv x.csv", "--csv: is for runs"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_by_name(arguments, message, capsys):
    assert main(["power", *arguments.split()]) == 2
    assert message in capsys.readouterr().err


def test_runs_that_cannot_be_read_are_a_sentence_and_no_traceback(tmp_path, capsys):
    assert main(["power", "--results", str(tmp_path)]) == 1
    assert f"no runs at {tmp_path}/tables/runs.parquet: run snakemake first" in capsys.readouterr().err
    results = written(runs_of({"supervised": BASE}), tmp_path)
    assert main(["power", "--results", str(results)]) == 1
    assert "no student was run but supervised" in capsys.readouterr().err
    assert main(["power", "--results", str(results), "--baseline", "supervise"]) == 1
    assert "did you mean 'supervised'?" in capsys.readouterr().err
    (tmp_path / "tables" / "runs.parquet").write_bytes(b"no parquet")
    assert main(["power", "--results", str(results)]) == 1
    assert "corrupt table: " in capsys.readouterr().err
