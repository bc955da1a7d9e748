"""The smallest difference that so many seeds show: against a second implementation, and as a command."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from distillbench.cli import main
from distillbench.plan.plan import make_plan
from distillbench.runs import write_parquet
from distillbench.statistics import power as pw
from distillbench.statistics.compare import compare
from distillbench.tables.power import POWER_COLUMNS, power_table
from tests.report.conftest import CONFIG, ROOT

from .conftest import BASE, UP, runs_of, shifted


@pytest.mark.parametrize(
    ("effect", "n", "level"), [(1.8, 6, 0.05), (-1.0, 10, 0.05), (1.4, 10, 0.0125), (0.5, 30, 0.01)]
)
def test_power_is_the_share_of_simulated_samples_in_which_scipys_test_rejects(effect, n, level):
    d = np.random.default_rng(1).normal(effect, 1, (4000, n))
    share = (scipy_stats.ttest_1samp(d, 0, axis=1).pvalue <= level).mean()
    assert pw.power(effect, n, level) == pytest.approx(share, abs=3.5 * math.sqrt(0.25 / 4000))


def test_power_without_an_effect_is_the_level_and_of_a_huge_one_is_one():
    assert pw.power(0, 10, 0.01) == pytest.approx(0.01)
    assert pw.power(1e6, 3, 0.01) == pw.power(60, 100, 1e-5) == 1
    assert pw.power(3, 1, 0.05) == 0
    shares = [pw.power(effect, 10, 0.01) for effect in np.linspace(0, 20, 400)]
    assert all(a <= b + 1e-9 for a, b in itertools.pairwise(shares)), "nowhere is it less, nor not a number"


def test_the_smallest_detectable_difference_has_the_power_that_is_wanted():
    for n, methods, wanted in ((6, 1, 0.8), (10, 28, 0.8), (30, 5, 0.95)):
        found = pw.smallest_detectable(n, 0.02, methods=methods, wanted=wanted)
        assert pw.power(found / 0.02, n, 0.05 / methods) == pytest.approx(wanted, abs=1e-6)
    few = [pw.smallest_detectable(n, 0.01) for n in (6, 10, 20, 100)]
    assert few == sorted(few, reverse=True)


def test_so_few_seeds_show_nothing_and_levels_that_make_no_sense_are_refused():
    assert math.isnan(pw.smallest_detectable(5, 0.01)) and not math.isnan(pw.smallest_detectable(6, 0.01, methods=100))
    with pytest.raises(ValueError, match="alpha: 1 is not between"):
        pw.power(1, 10, 1)
    with pytest.raises(ValueError, match=r"power: 0\.01 is not between alpha \(0\.05\) and 1"):
        pw.smallest_detectable(10, 0.01, wanted=0.01)


def test_a_plan_says_what_its_runs_cannot_show():
    ten = " ".join(pw.limits(make_plan(CONFIG | {"seeds": 10}, ["own.yaml"], ROOT)))
    reach = pw.smallest_detectable(10, 1.0, methods=2)
    assert f"10 seeds, up to 2 methods beside the baseline: a true difference of {reach:.1f} standard" in ten
    assert "2 data sets: nothing is tested across data sets below 6" in ten and "about that split: synthetic" in ten
    (few,) = pw.limits(make_plan(CONFIG | {"seeds": 5}, ["own.yaml"], ROOT))
    assert few == "seeds: 5: no verdict below 6: the tables will say `too few seeds` everywhere."
    (strict,) = pw.limits(make_plan(CONFIG | {"compare": {"alpha": 0.001}}, ["own.yaml"], ROOT))
    assert strict.startswith("seeds: 8: no verdict below 11")
    cora = {"cora": {"pairs": CONFIG["datasets"]["digits"]["pairs"]}}
    assert any(
        text.endswith("about that split: cora.") for text in pw.limits(make_plan(CONFIG | {"datasets": cora}, [], ROOT))
    )


# The command


def written(runs, folder):
    write_parquet(compare(runs), folder / "tables" / "comparison.parquet")
    return folder


def test_the_command_prints_a_table_of_the_runs_and_writes_it(tmp_path, capsys):
    runs = runs_of({"teacher": BASE, "supervised": BASE, "kd": shifted(UP), "at": shifted([-u for u in UP])})
    (tmp_path / "tables").mkdir()
    results = written(runs, tmp_path)
    assert main(["power", "--results", str(results), "--csv", str(tmp_path / "power.csv")]) == 0
    out = capsys.readouterr().out
    compared = compare(runs).set_index("method")
    (kd,) = [line.split() for line in out.splitlines() if line.split()[:1] == ["kd"]]
    shown = [f"{100 * compared.loc['kd', name]:.2f}" for name in ("diff_std", "se")]
    assert kd == [
        "kd",
        "PyG",
        "10",
        f"+{100 * np.mean(UP):.2f}",
        *shown,
        "–",
        f"{100 * compared.loc['kd', 'detectable']:.2f}",
    ]
    assert "toy · gat" in out and "probability 0.8" in out and "method minus supervised" in out
    table = pd.read_csv(tmp_path / "power.csv")
    assert list(table.columns) == POWER_COLUMNS and list(table["method"]) == ["kd", "at"]
    pd.testing.assert_frame_equal(table, power_table(compare(runs)), rtol=1e-12)


def test_the_command_plans_without_runs(capsys):
    assert main(["power", "--std", "0.01", "--methods", "5", "--seeds", "50,5,10"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    expected = [[str(n), f"{100 * pw.smallest_detectable(n, 0.01, methods=5):.2f}"] for n in (10, 50)]
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


def test_a_table_that_cannot_be_read_is_a_sentence_and_no_traceback(tmp_path, capsys):
    assert main(["power", "--results", str(tmp_path)]) == 1
    assert f"no comparison at {tmp_path}/tables/comparison.parquet: run first" in capsys.readouterr().err
    (tmp_path / "tables").mkdir()
    results = written(runs_of({"supervised": BASE}), tmp_path)
    assert main(["power", "--results", str(results)]) == 1
    assert "no student was run but the baseline" in capsys.readouterr().err
    (tmp_path / "tables" / "comparison.parquet").write_bytes(b"no parquet")
    assert main(["power", "--results", str(results)]) == 1
    assert "corrupt table: " in capsys.readouterr().err
