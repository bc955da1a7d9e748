"""Every sentence says what the verdicts say, and nothing stronger."""

import pandas as pd
import pytest

from distillbench.statistics import compare, libraries
from distillbench.statistics.conclusions import conclusions, findings, overview
from tests.report.conftest import compared, controls
from tests.statistics.conftest import BASE, UP, runs_of, shifted

BOTH = ("pyg", "dgl")


def said(*rows, **given):
    """The findings about these rows, without where they were found and without the sentence on the controls."""
    texts = findings(pd.DataFrame([*rows]), **given)
    assert all(text.startswith("On digits (gat), ") and text.endswith(".") for text in texts)
    return [text.removeprefix("On digits (gat), ") for text in texts if not text.startswith("On digits (gat), mean")]


def equivalence_of(**verdicts):
    common = {"backend_a": "pyg", "backend_b": "dgl", "delta": 0.01, "dataset": "digits", "pair": "gat"}
    return pd.DataFrame([common | {"method": method, "verdict": verdict} for method, verdict in verdicts.items()])


def test_levels_of_teacher_and_student_come_first():
    one, both = controls("pyg"), [*controls("pyg"), *controls("dgl")]
    level = "On digits (gat), mean test accuracy: teacher 92.5%, the student alone 83.2%"
    assert findings(pd.DataFrame(one)) == [f"{level} (PyG)."]
    assert findings(pd.DataFrame(both)) == [f"{level} (both libraries)."]
    both[3]["mean"] = 0.8
    assert findings(pd.DataFrame(both)) == [f"{level} (PyG); teacher 92.5%, the student alone 80.0% (DGL)."]


def test_better_in_both_libraries_with_size_and_interval():
    rows = [compared("kd", "better"), compared("kd", "better", "dgl", diff=0.05, ci_low=0.02, ci_high=0.08)]
    sizes = "+4.8 points [+1.4, +7.6] with PyG, +5.0 points [+2.0, +8.0] with DGL"
    assert said(*rows) == [f"kd beats the student alone with both libraries: {sizes}."]


def test_with_one_library_it_is_named():
    (text,) = said(compared("kd", "better"))
    assert text == "kd beats the student alone with PyG: +4.8 points [+1.4, +7.6]."


def test_the_gap_closed_and_seeds_that_are_missing_are_said():
    (text,) = said(compared("kd", "better", gap_closed=0.52, n_pairs=8, n_ok=8))
    assert "[+1.4, +7.6] (52% of the gap to the teacher), over 8 of 10 seeds." in text
    (text,) = said(compared("kd", "better", gap_closed=3.79))
    assert text.endswith("[+1.4, +7.6] (more than the whole gap to the teacher).")


def test_another_baseline_is_named():
    (text,) = said(compared("lsp", "worse", baseline="kd", diff=-0.02, ci_low=-0.03, ci_high=-0.01))
    assert text == "lsp is worse than kd with PyG: −2.0 points [−3.0, −1.0]."


def test_what_holds_on_these_splits_is_not_said_of_new_data():
    (text,) = said(compared("kd", "better on these splits"), compared("at", "better on these splits"))
    assert text.startswith("kd and at beat the student alone with PyG on these splits (which says nothing of new data")


def test_no_difference_is_never_called_equal_and_says_what_could_have_been_shown():
    found = {"lsp": 0.021, "at": 0.034, "fitnet": 0.021}
    rows = [compared(m, "no difference shown", b, detectable=d) for b in BOTH for m, d in found.items()]
    (text,) = said(*rows)
    assert text == (
        "no difference from the student alone is shown with either library for lsp, at and fitnet; the smallest that "
        "this run could have shown with 80% power: 2.1 to 3.4 points, depending on the method."
    )
    (text,) = said(compared("lsp", "no difference shown", detectable=float("nan")))
    assert text == "no difference from the student alone is shown with PyG for lsp."


@pytest.mark.parametrize("suffix", ["", " on these splits"])
def test_equivalence_names_its_margin(suffix):
    (text,) = said(compared("lsp", f"equivalent within δ{suffix}"), delta=0.01)
    assert text.startswith(f"lsp is equivalent to the student alone with PyG within ±1 point{suffix}")
    (text,) = said(compared("lsp", f"equivalent within δ{suffix}"))
    assert "within δ" in text


def test_too_few_seeds_conclude_nothing():
    few = "too few seeds"
    (text,) = said(compared("kd", few, n_pairs=2), compared("lsp", few, n_pairs=4))
    assert text == "nothing can be concluded about kd and lsp with PyG: 2 to 4 paired seeds are too few."


def test_failures_and_what_was_skipped_are_said_with_their_reason():
    nothing = {"diff": float("nan"), "mean": float("nan"), "n_ok": 0, "n_pairs": 0}
    (text,) = said(compared("kd", "all failed", note="seeds 0, 1 diverged (loss is NaN)", **nothing))
    assert text == "no run of kd finished with PyG (seeds 0, 1 diverged (loss is NaN))."
    rows = [compared("kd", "better"), compared("kd", "skipped", "dgl", note="DGL is not installed", **nothing)]
    skipped, better = said(*rows)
    assert skipped == "nothing was run with DGL: DGL is not installed."
    assert better.startswith("kd beats the student alone with PyG")


def test_libraries_that_disagree_are_not_said_to_differ():
    rows = [compared("kd", "better"), compared("kd", "no difference shown", "dgl", diff=0.021, ci_low=-0.01)]
    (text,) = said(*rows)
    assert text == (
        "the verdict is not the same in both libraries for kd: better with PyG (+4.8 points [+1.4, +7.6]), no "
        "difference shown with DGL (+2.1 points [−1.0, +7.6]). That verdicts differ does not show that the libraries "
        "do."
    )


@pytest.mark.parametrize("word", ["better", "worse", "equivalent within δ"])
def test_verdicts_that_differ_by_the_splits_alone_are_told_apart(word):
    rows = [compared("kd", word), compared("kd", f"{word} on these splits", "dgl")]
    (text,) = said(*rows, delta=0.01)
    plain = word.replace("δ", "±1 point")
    assert f"{plain} with PyG" in text and f"{plain} on these splits with DGL" in text


def test_a_failure_in_one_library_is_not_a_verdict_that_differs_in_substance():
    failed = compared("kd", "all failed", "dgl", diff=float("nan"), n_pairs=0)
    (text,) = said(compared("kd", "better"), failed)
    assert text.endswith("better with PyG (+4.8 points [+1.4, +7.6]), all failed with DGL.")


def test_a_method_that_only_one_library_ran_is_said_of_that_one():
    texts = said(compared("kd", "better"), compared("kd", "better", "dgl"), compared("mine", "better"))
    assert texts[0].startswith("kd beats the student alone with both libraries")
    assert texts[1].startswith("mine beats the student alone with PyG")


def test_of_many_methods_the_largest_comes_first_and_intervals_stay_in_the_table():
    ups = {"a": 0.01, "b": 0.04, "c": 0.02, "d": 0.03}
    (text,) = said(*(compared(m, "better", b, diff=up) for m, up in ups.items() for b in BOTH))
    sizes = "b +4.0 / +4.0, d +3.0 / +3.0, c +2.0 / +2.0, a +1.0 / +1.0 points"
    assert text.endswith(f"with both libraries: {sizes} (PyG / DGL; intervals are in the table).")


def test_the_best_and_those_not_shown_worse():
    rows = [
        compared(m, "better", best=best, p_best=0.5) for m, best in {"kd": "best", "lsp": "not worse", "at": ""}.items()
    ]
    assert said(*rows)[-1] == "highest mean with PyG: kd; not shown worse than it: lsp."
    rows = [compared(m, "better", best=best, p_best=0.01) for m, best in {"kd": "best", "at": ""}.items()]
    assert said(*rows)[-1] == "highest mean with PyG: kd; all others that could be tested are worse."
    assert len(said(compared("kd", "better", best=""))) == 1


def test_equivalence_of_the_libraries():
    alike, open_, few = "equivalent within δ", "not shown equivalent", "too few seeds"
    row = compared("kd", "better")

    def last(**verdicts):
        return said(row, equivalence=equivalence_of(**verdicts))[-1]

    four = dict.fromkeys(("kd", "lsp", "at", "fitnet"), alike)
    assert last(**four) == "PyG and DGL are equivalent within ±1 point for all 4 models."
    assert "for all models but crd; for crd it is not shown" in last(**four, crd=open_)
    assert last(kd=alike, at=alike, lsp=open_) == (
        "PyG and DGL are equivalent within ±1 point for kd and at; for lsp it is not shown (which does not mean that "
        "they differ)."
    )
    assert last(kd=open_, lsp=open_).startswith("PyG and DGL are shown to be equivalent within ±1 point for no model")
    weak = f"{alike} on these splits"
    assert last(**dict.fromkeys(four, weak)) == (
        "PyG and DGL are equivalent within ±1 point on these splits for all 4 models."
    )
    assert last(kd=alike, at=weak, lsp=open_).startswith(
        "PyG and DGL are equivalent within ±1 point for kd; for at on these splits only; for lsp it is not shown"
    )
    assert last(kd=weak, at=open_).startswith("PyG and DGL are equivalent within ±1 point on these splits for kd; for")
    assert last(kd=few) == "there are too few paired seeds to say whether PyG and DGL are equivalent."
    assert last(kd=alike, lsp=few).endswith("; there are too few paired seeds for lsp.")


def test_the_overview_counts_every_comparison_once():
    verdicts = ["better", "better on these splits", "worse", "no difference shown", "equivalent within δ"]
    verdicts += ["too few seeds", "all failed", "skipped", "skipped"]
    rows = [*controls(), *(compared(f"m{n}", verdict) for n, verdict in enumerate(verdicts))]
    assert overview(pd.DataFrame(rows)) == (
        "Of 9 comparisons with the student alone, 1 shows the method better, 1 shows it better on these splits only, "
        "1 shows it worse, 1 shows it equivalent, in 1 no difference is shown, 1 has too few seeds to conclude "
        "anything, 1 had no run that finished and 2 were not run."
    )
    alike = [compared("kd", "no difference shown"), compared("lsp", "no difference shown")]
    assert overview(pd.DataFrame(alike)) == "None of the 2 comparisons with the student alone shows a difference."
    assert overview(pd.DataFrame(controls())).startswith("No method was compared")


def test_what_holds_on_these_splits_only_is_counted_apart():
    weak = ["better", "better", "worse", "equivalent within δ"]
    rows = [compared(f"m{n}", f"{verdict} on these splits") for n, verdict in enumerate(weak)]
    assert overview(pd.DataFrame(rows)) == (
        "Of 4 comparisons with the student alone, 2 show the method better on these splits only, 1 shows it worse on "
        "these splits only and 1 shows it equivalent on these splits only."
    )
    assert overview(pd.DataFrame(rows[:2])) == (
        "All 2 comparisons with the student alone show the method better on these splits only."
    )


def test_no_difference_shown_is_never_counted_as_no_difference():
    rows = [compared("kd", "better"), compared("lsp", "no difference shown"), compared("at", "no difference shown")]
    assert overview(pd.DataFrame(rows)) == (
        "Of 3 comparisons with the student alone, 1 shows the method better and in 2 no difference is shown."
    )


# What stats.compare itself says, where something did not run


SCORES = {"teacher": shifted([0.1] * 10), "supervised": BASE, "kd": shifted(UP), "at": shifted([0.0005, 0] * 5)}


def compared_runs(dgl=None, pyg=None):
    """Findings and overview of runs in both libraries; ``pyg``, ``dgl``: by method, what became of all its runs."""
    frames = []
    for backend, broken in (("pyg", pyg or {}), ("dgl", dgl or {})):
        failed = {(method, seed): why for method, why in broken.items() for seed in range(10)}
        frames.append(runs_of(SCORES, backend=backend, dataset="digits", broken=failed))
    runs = pd.concat(frames, ignore_index=True)
    comparison = compare.compare(runs)
    return findings(comparison, libraries.equivalence(runs), delta=0.01), overview(comparison)


def test_a_library_that_is_missing_is_said_once_and_compared_with_nothing():
    texts, counted = compared_runs(dgl=dict.fromkeys(SCORES, ("skipped", "DGL is not installed")))
    assert counted == (
        "Of 4 comparisons with the student alone, 1 shows the method better, 1 shows it equivalent and 2 were not run."
    )
    absent, levels, kd, at, best = texts
    assert absent == "On digits (gat), nothing was run with DGL: DGL is not installed."
    assert levels == "On digits (gat), mean test accuracy: teacher 89.4%, the student alone 79.4% (PyG)."
    assert kd.startswith("On digits (gat), kd beats the student alone with PyG: +1.2 points [")
    assert at == "On digits (gat), at is equivalent to the student alone with PyG within ±1 point."
    assert best.startswith("On digits (gat), highest mean with PyG: kd")


def test_a_baseline_without_a_finished_run_is_no_comparison_and_said_with_its_reason():
    texts, counted = compared_runs(dgl={"supervised": ("diverged", "loss is NaN")})
    assert counted.startswith("Of 4 comparisons") and "no run" not in counted
    (failed,) = [text for text in texts if "no run of the student alone" in text]
    assert failed.startswith("On digits (gat), no run of the student alone finished with DGL (seeds 0, 1, ")
    assert failed.endswith("9 diverged (loss is NaN)).")
    assert "control" not in " ".join(texts)
    alike = texts[-1]
    assert alike == "On digits (gat), PyG and DGL are equivalent within ±1 point for teacher, kd and at."


def test_without_a_finished_baseline_anywhere_nothing_is_concluded():
    gone = {"supervised": ("oom", "too large")}
    texts, counted = compared_runs(pyg=gone, dgl=gone)
    assert counted == "All 4 comparisons with the student alone have too few seeds to conclude anything."
    assert texts[2] == (
        "On digits (gat), nothing can be concluded about kd and at with either library: no paired seed."
    )


def test_a_method_that_was_skipped_in_one_library_was_not_run_there_and_why():
    texts, _ = compared_runs(dgl={"kd": ("skipped", "its teacher has the status oom")})
    (text,) = [text for text in texts if "not run" in text]
    assert "kd: better with PyG (+1.2 points" in text and text.endswith("not run with DGL.")
    assert texts[-1].endswith("for teacher, supervised and at.")
    texts, _ = compared_runs(*[{"kd": ("skipped", "its teacher has the status oom")}] * 2)
    assert "On digits (gat), kd was not run with either library (its teacher has the status oom)." in texts


def test_seeds_that_share_one_teacher_are_not_called_too_few():
    runs = runs_of(SCORES, dataset="digits").assign(
        weights=lambda frame: frame["role"].map({"teacher": "w"}).fillna("")
    )
    (text,) = [text for text in findings(compare.compare(runs)) if "concluded" in text]
    assert text.endswith("with PyG: 10 seeds share 1 teacher: nothing is known of others.")


def test_a_higher_mean_of_fewer_seeds_is_named_and_not_called_the_highest():
    up = {("kd", seed): ("diverged", "loss is NaN") for seed in range(5)}
    runs = runs_of(SCORES | {"kd": shifted([0.05] * 10)}, dataset="digits", broken=up)
    last = findings(compare.compare(runs))[-1]
    assert last.startswith("On digits (gat), highest mean of those that finished the same seeds with PyG: at; ")
    assert last.endswith("; left out: kd (5 of 10).")
    runs = runs_of(SCORES | {"kd": shifted([-0.05] * 10)}, dataset="digits", broken=up)
    assert findings(compare.compare(runs))[-1].startswith("On digits (gat), highest mean with PyG: at; ")


def test_all_conclusions_go_data_set_by_data_set_and_end_across_them():
    rows = [*controls(), compared("kd", "better")]
    frame = pd.DataFrame([*rows, *(row | {"dataset": "cora"} for row in rows)])
    texts = conclusions(frame, None, "No test across data sets.")
    starts = ["All 2 comparisons", "On digits", "On digits", "On cora", "On cora", "No test across"]
    assert [text.startswith(start) for text, start in zip(texts, starts, strict=True)] == [True] * 6


@pytest.mark.parametrize(
    "verdict", ["better", "worse", "no difference shown", "too few seeds", "all failed", "skipped"]
)
def test_a_hundred_methods_are_all_named(verdict):
    names = [f"m{n:02d}" for n in range(100)]
    text = " ".join(said(*(compared(name, verdict) for name in names), compared("other", "equivalent within δ")))
    assert all(name in text for name in names)


def test_only_better_is_called_beating():
    for verdict in ("no difference shown", "equivalent within δ", "too few seeds", "worse", "all failed"):
        (text,) = said(compared("kd", verdict))
        assert "beat" not in text and "better" not in text
