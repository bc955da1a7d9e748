"""Every sentence says what the verdicts say, and nothing stronger: made from planted tables."""

import pandas as pd
import pytest

from distillbench.statistics import compare, libraries
from distillbench.statistics.conclusions import conclusions, finding, overview
from tests.report.conftest import compared, controls
from tests.statistics.conftest import BASE, UP, runs_of, shifted

LEVELS = " The teacher has 92.5%, the student alone 83.2% test accuracy."


def said(*rows):
    text = finding(pd.DataFrame([*controls("pyg+dgl"), *rows]))
    assert text.startswith("On digits (gat), ") and text.endswith(LEVELS)
    return text.removeprefix("On digits (gat), ").removesuffix(LEVELS)


def both(method, verdict, **changes):
    return compared(method, verdict, "pyg+dgl", **changes)


def test_the_finding_comes_first_with_size_interval_and_seeds():
    assert said(both("kd", "better")) == "kd is +4.8 points [+1.4, +7.6] (9 of 10 seeds) above the student alone."


def test_worse_has_the_seeds_that_are_below():
    text = said(both("at", "worse", diff=-0.05, ci_low=-0.08, ci_high=-0.02, improved=1, n_pairs=9, collapsed=2))
    assert text == "at is −5.0 points [−8.0, −2.0] (8 of 10 seeds, 2 collapsed) below the student alone."


def test_better_and_worse_and_equivalent_are_one_line():
    text = said(
        both("kd", "better"),
        both("rkd", "better", diff=0.05),
        both("at", "worse", diff=-0.05),
        both("lsp", "equivalent within δ"),
    )
    assert text == (
        "rkd is +5.0 points [+1.4, +7.6] (9 of 10 seeds) and kd +4.8 [+1.4, +7.6] (9 of 10 seeds) above the student "
        "alone; at is −5.0 points [+1.4, +7.6] (1 of 10 seeds) below it; lsp is within ±1 point of the student alone."
    )


def test_of_many_the_largest_three_have_sizes():
    rows = [both(f"m{n}", "better", diff=0.01 * n) for n in range(1, 6)]
    text = said(*rows)
    assert [text.count(name) for name in ("m5", "m4", "m3", "m2", "m1")] == [1, 1, 1, 0, 0]
    assert text.endswith(" and 2 more (table) above the student alone.")


def test_a_gain_below_the_margin_is_said_to_be_one():
    text = said(both("kd", "better, by less than δ", diff=0.004, ci_low=0.001, ci_high=0.007))
    assert "+0.4 points [+0.1, +0.7] (9 of 10 seeds, less than 1) above" in text


def test_who_is_best_is_said_to_be_open_where_it_is():
    best, other = both("rkd", "better", best_diff=0.0, best_high=0.0), both("kd", "better", best_high=0.002)
    assert "(which of rkd and kd is best is not decided)" in said(best, other)
    assert "not decided" not in said(best, both("kd", "better", best_high=-0.001))
    # who is not even shown to be better than the student alone is in no such list
    assert "not decided" not in said(best, both("kd", "no difference shown", best_high=0.002))


def test_no_difference_is_never_called_equal():
    text = said(both("kd", "no difference shown", ci_low=-0.01), both("at", "no difference shown", diff=-0.01))
    assert text == (
        "no method is shown to differ from the student alone; the largest difference seen is that of kd, "
        "+4.8 points [−1.0, +7.6] (9 of 10 seeds)."
    )
    assert said(both("at", "no difference shown", diff=-0.01)) == "no method is shown to differ from the student alone."


@pytest.mark.parametrize(
    "verdict", ["no difference shown", "equivalent within δ", "too few seeds", "all failed", "skipped"]
)
def test_only_better_is_called_above_and_only_worse_below(verdict):
    frame = pd.DataFrame([*controls("pyg+dgl"), both("kd", verdict)])
    text = " ".join([overview(frame), finding(frame)])
    assert " above" not in text and " below" not in text and "better than the student alone" not in text


def test_one_published_split_is_named():
    rows = [row | {"resplit": False} for row in [*controls("pyg+dgl"), both("kd", "better")]]
    assert finding(pd.DataFrame(rows)).startswith("On digits (gat, its one split), kd is")


def test_another_baseline_is_named():
    rows = [row | {"baseline": "kd"} for row in (both("kd", "control", mean=0.8), both("lsp", "worse", diff=-0.02))]
    text = finding(pd.DataFrame(rows))
    assert "lsp is −2.0 points [+1.4, +7.6] (1 of 10 seeds) below kd. Kd 80.0% test accuracy." in text


def test_libraries_are_named_where_a_method_has_a_row_for_each():
    text = said(
        compared("kd", "better", "pyg"), compared("kd", "no difference shown", "dgl"), both("at", "equivalent within δ")
    )
    assert text.startswith("kd (PyG) is +4.8 points") and "at is within" in text
    rows = [*controls("pyg"), *controls("dgl"), compared("kd", "better", "pyg"), compared("kd", "better", "dgl")]
    assert finding(pd.DataFrame(rows)).endswith(
        "The teacher has 92.5% (PyG) and 92.5% (DGL), the student alone 83.2% (PyG) and 83.2% (DGL) test accuracy."
    )


def test_too_few_seeds_and_failures_decide_nothing():
    few = finding(pd.DataFrame([*controls(), compared("kd", "too few seeds", n_pairs=3)]))
    assert few.startswith("On digits (gat), nothing was decided: 3 paired seeds are too few.")
    note = "10 seeds share 2 teachers: the unit is the teacher"
    shared = finding(pd.DataFrame([*controls(), compared("kd", "too few seeds", note=note)]))
    assert "10 paired seeds and their teachers are too few" in shared
    lost = compared("supervised", "all failed", n_ok=0, n_pairs=0, note="seeds 0 to 9 oom")
    alone = finding(pd.DataFrame([lost, compared("kd", "too few seeds", n_pairs=0)]))
    assert alone == "On digits (gat), nothing was decided: no run of the student alone finished (seeds 0 to 9 oom)."


def test_the_overview_goes_by_what_holds_over_the_whole_table():
    rows = [
        *controls("pyg+dgl"),
        both("kd", "better"),
        both("at", "better", p_table=0.2),
        both("lsp", "worse"),
        both("sp", "no difference shown"),
    ]
    text = overview(pd.DataFrame(rows))
    assert text == (
        "Of 4 comparisons, tested together, 1 shows a method better than the student alone and 1 shows one worse. The "
        "largest gain is that of kd on digits (gat): +4.8 points [+1.4, +7.6] (9 of 10 seeds)."
    )
    none = overview(
        pd.DataFrame([*controls("pyg+dgl"), both("at", "better", p_table=0.2), both("sp", "no difference shown")])
    )
    assert none == "No method is shown to differ from the student alone in any of the 2 comparisons, tested together."
    assert overview(pd.DataFrame(controls())).startswith("Nothing was decided")


def test_what_is_not_decided_and_what_is_missing_is_a_line_each():
    gone = [
        compared(name, "skipped", "dgl", n_ok=0, n_pairs=0, note="skipped (dgl is not installed)")
        for name in ("supervised", "kd", "at")
    ]
    rows = [
        *controls(),
        compared("kd", "better"),
        compared("at", "no difference shown"),
        compared("sp", "all failed", n_ok=0, note="seed 1 oom"),
        *gone,
    ]
    rows += [compared("lsp", "too few seeds", n_pairs=2)]
    texts = conclusions(pd.DataFrame(rows))
    assert texts[1:] == [
        "Not decided, neither a difference from the student alone nor equivalence: at on digits (gat); "
        "lsp on digits (gat) (too few seeds).",
        "Missing: sp on digits (gat) with PyG: no run finished (seed 1 oom); everything on digits (gat) with DGL: "
        "not run (dgl is not installed).",
    ]


def equivalence_of(**verdicts):
    common = {"backend_a": "pyg", "backend_b": "dgl", "delta": 0.01, "dataset": "digits", "pair": "gat"}
    return pd.DataFrame([common | {"method": method, "verdict": verdict} for method, verdict in verdicts.items()])


def test_libraries_are_one_line():
    frame = pd.DataFrame([*controls("pyg+dgl"), both("kd", "better")])
    alike, few = "equivalent within δ", "too few seeds"
    *_, text = conclusions(frame, equivalence_of(kd=alike, at=alike, lsp="not shown equivalent", sp=few))
    shown = "PyG and DGL are shown to be equivalent within ±1 points for 2 of 3 models"
    assert text == f"{shown}; not shown for lsp on digits (gat)."
    assert len(conclusions(frame, equivalence_of(kd=few))) == len(conclusions(frame))


def test_conclusions_begin_with_the_finding_and_end_across_data_sets():
    rows = [*controls("pyg+dgl"), both("kd", "better")]
    assert conclusions(pd.DataFrame(rows))[0].startswith("On digits (gat), kd is"), "of one pair there is no overview"
    frame = pd.DataFrame([*rows, *(row | {"dataset": "cora"} for row in rows)])
    texts = conclusions(frame, None, "Across.")
    starts = ["Of 2 comparisons", "On digits", "On cora", "Across."]
    assert [text.startswith(start) for text, start in zip(texts, starts, strict=True)] == [True] * 4


def test_from_runs_to_sentences():
    runs = pd.concat([runs_of({"supervised": BASE, "kd": shifted(UP)}, backend=name) for name in ("pyg", "dgl")])
    texts = conclusions(compare.compare(runs), libraries.equivalence(runs))
    assert texts[0].startswith("On toy (gat, its one split), kd is +1.2 points [+0.7, +1.7] (10 of 10 seeds) above")
    assert texts[1] == "PyG and DGL are shown to be equivalent within ±1 points for 2 of 2 models."
