"""Our runs beside published ones: every verdict, on numbers small enough to check by hand."""

import math
import re
import subprocess
import sys
from io import StringIO

import pandas as pd
import pytest

from distillbench.data.cards import write_card
from distillbench.jobs import reproduce as reproduce_job
from distillbench.plan.published import COLUMNS, PUBLISHED, ClaimsError, matching, mismatch, read_claims
from distillbench.record import Record, RecordError
from distillbench.runs import runs_table, write_runs
from distillbench.statistics import reproduce
from tests.cards import card_of

HEADER = ",".join(COLUMNS)
PPI = {"dataset": "ppi", "pair": "gat", "teacher": "gat-3l", "student": "gat-5l", "sources": [], "methods": {}}
CARD = card_of(name="ppi", dataset="ppi")
T2, T9 = 4.302652729749464, 2.2621571627982053  # Student's t, 97.5%, 2 and 9 degrees of freedom


def claims_of(tmp_path, *lines):
    """Published rows, written short: method,mean,std,seeds,verified,note of one source, pair and metric."""
    path = tmp_path / "published.csv"
    path.write_text("\n".join([HEADER, *(f"paper,ppi,gat-3l,gat-5l,{line}" for line in lines)]) + "\n")
    return read_claims(path)


def runs_of(metric="micro_f1", status="ok", **scores):
    """The table of runs; percent by method, in the order of seeds, None for a run that failed."""
    records = [
        Record(
            key=f"{method}{seed}", dataset="ppi", backend="pyg", pair="gat", method=method, seed=seed,
            role="teacher" if method == "teacher" else "student", task="multilabel", metric=metric,
            status=status if score is not None else "diverged", val=0.5, test=None if score is None else score / 100,
        )
        for method, values in scores.items() for seed, score in enumerate(values)
    ]  # fmt: skip
    return runs_table(records, list(scores))


def compared(runs, claims, pair=PPI, card=CARD, **options):
    """Rows by method and quantity."""
    table = reproduce.reproduction(runs, claims, [pair], {pair["dataset"]: card}, **options)
    assert list(table.columns) == reproduce.COLUMNS
    return table.set_index(["method", "quantity"])


# Verdicts


@pytest.mark.parametrize(
    "interval, verdict, reason",
    [
        ((-0.5, 0.5), "reproduced", "within ±0.5 points"),
        ((0.1, 0.4), "reproduced", "within"),  # a difference is shown, and it is too small to matter
        ((0.51, 0.9), "not reproduced", "ours is higher by more than 0.5 points"),
        ((-3.0, -0.6), "not reproduced", "ours is lower by more than 0.5 points"),
        ((-0.1, 0.6), "inconclusive", "both agreement and a difference of more than 0.5 points are possible"),
        ((0.1, 0.6), "inconclusive", "ours is higher, perhaps by less than 0.5 points"),
        ((-0.9, -0.5), "inconclusive", "ours is lower, perhaps by less"),
    ],
)
def test_the_whole_interval_decides(interval, verdict, reason):
    found = reproduce.judge(reproduce.Interval(*interval), 0.5)
    assert found[0] == verdict and reason in found[1]


def test_a_score_beside_a_published_mean_with_sample_std(tmp_path):
    claims = claims_of(tmp_path, "kd,micro_f1,96.5,0.6,9,yes,")
    row = compared(runs_of(kd=[95, 96, 97]), claims).loc[("kd", "score")]
    # ours: mean 96, s = 1, variance of the mean 1/3; theirs 0.36/9 = 0.04
    variance = 1 / 3 + 0.04
    freedom = variance**2 / ((1 / 3) ** 2 / 2 + 0.04**2 / 8)
    assert freedom == pytest.approx(2.4998, abs=1e-4)
    assert row["ours"] == pytest.approx(96) and row["ours_std"] == pytest.approx(1)
    assert row["ours_high"] - 96 == pytest.approx(T2 / math.sqrt(3))
    assert row["diff"] == pytest.approx(-0.5)
    # t at 2.5 degrees of freedom: 3.575
    assert row["diff_high"] + 0.5 == pytest.approx(3.5749 * math.sqrt(variance), rel=1e-4)
    assert row["diff"] - row["diff_low"] == pytest.approx(row["diff_high"] - row["diff"])
    assert (row["verdict"], row["n_ok"], row["n"]) == ("inconclusive", 3, 3)


def test_a_population_std_becomes_a_sample_std(tmp_path):
    lines = ("kd,micro_f1,97.9,0.45,10,yes,population std", "at,micro_f1,97.9,0.45,10,yes,")
    population, sample = claims_of(tmp_path, *lines)
    assert population.sample_std == pytest.approx(0.45 * math.sqrt(10 / 9)) and population.std == 0.45
    assert sample.sample_std == 0.45
    constant = runs_of(kd=[98.0] * 3, at=[98.0] * 3)  # all of the width is theirs
    rows = compared(constant, [population, sample])
    width = rows["diff_high"] - rows["diff"]
    assert width["kd", "score"] == pytest.approx(T9 * math.sqrt(0.45**2 * 10 / 9 / 10))
    assert width["at", "score"] == pytest.approx(T9 * math.sqrt(0.45**2 / 10))
    assert list(rows["verdict"]) == ["reproduced"] * 2 and not rows["reason"].str.contains("assumed|taken").any()


def test_a_single_run_is_a_draw_as_widely_spread_as_ours(tmp_path):
    claims = claims_of(tmp_path, "kd,micro_f1,96,,1,yes,")
    row = compared(runs_of(kd=[95, 96, 97]), claims).loc[("kd", "score")]
    assert row["diff_high"] == pytest.approx(T2 * math.sqrt(1 + 1 / 3))
    assert row["verdict"] == "inconclusive" and "one published run, spread taken to be ours" in row["reason"]
    tight = compared(runs_of(kd=[95.95, 96, 96.05]), claims).loc[("kd", "score")]
    assert tight["diff_high"] == pytest.approx(0.05 * T2 * math.sqrt(4 / 3)) and tight["verdict"] == "reproduced"
    far = compared(runs_of(kd=[94.95, 95, 95.05]), claims).loc[("kd", "score")]
    assert far["verdict"] == "not reproduced" and far["reason"].startswith("ours is lower by more than 0.5 points")


def test_an_unknown_number_of_runs_is_taken_as_one_and_a_known_one_is_used(tmp_path):
    claims = claims_of(tmp_path, "kd,micro_f1,96,,,yes,", "at,micro_f1,96,,4,yes,")
    rows = compared(runs_of(kd=[95, 96, 97], at=[95, 96, 97]), claims)
    assert rows.loc[("kd", "score"), "diff_high"] == pytest.approx(T2 * math.sqrt(1 + 1 / 3))
    assert "not said" in rows.loc[("kd", "score"), "reason"]
    assert rows.loc[("at", "score"), "diff_high"] == pytest.approx(T2 * math.sqrt(1 / 4 + 1 / 3))


def test_too_few_seeds_have_no_interval(tmp_path):
    row = compared(runs_of(kd=[96.0, 96.0]), claims_of(tmp_path, "kd,micro_f1,96,,1,yes,")).loc[("kd", "score")]
    assert row["verdict"] == "inconclusive" and "2 of our 2 seeds finished, 3 are needed" in row["reason"]
    assert math.isnan(row["diff_low"]) and row["diff"] == pytest.approx(0)


def test_failed_runs_are_counted_and_said(tmp_path):
    claims = claims_of(tmp_path, "supervised,micro_f1,95.0,,1,yes,", "kd,micro_f1,96.0,,1,yes,")
    rows = compared(runs_of(supervised=[95, 95.1, 94.9, None, 95], kd=[None, 96.1, 96, 95.9, 96]), claims)
    assert list(rows.loc[("kd", "score"), ["n_ok", "n"]]) == [4, 5]
    assert "1 of our 5 seeds left out" in rows.loc[("kd", "score"), "reason"]
    assert list(rows.loc[("kd", "gain"), ["n_ok", "n"]]) == [3, 5]
    failed = compared(runs_of(supervised=[None] * 4, kd=[None] * 4), claims)
    assert set(failed["verdict"]) == {"inconclusive"} and "none of our 4 seeds" in failed["reason"].iloc[0]


# Gains


def test_a_gain_is_paired_on_our_side_and_not_on_theirs(tmp_path):
    claims = claims_of(
        tmp_path, "supervised,micro_f1,95,0.3,9,yes,", "kd,micro_f1,98,0.4,9,yes,", "teacher,micro_f1,99,0.1,9,yes,"
    )
    runs = runs_of(teacher=[89, 89, 89], supervised=[80, 85, 90], kd=[83, 88, 93])  # only differences matter
    rows = compared(runs, claims)
    assert sorted(q for _, q in rows.index) == ["gain", "score", "score", "score"]
    gain = rows.loc[("kd", "gain")]
    assert (gain["published"], gain["ours"], gain["diff"]) == pytest.approx((3, 3, 0))
    assert gain["published_std"] == pytest.approx(0.5)  # 3-4-5
    # ours does not vary; theirs: 0.09/9 + 0.16/9, both with 8 degrees of freedom
    freedom = 0.25**2 / ((0.09**2 + 0.16**2) / 8)
    assert freedom == pytest.approx(14.837, abs=1e-3)
    assert gain["diff_high"] == pytest.approx(2.1334 * 0.5 / 3, rel=1e-3)
    assert gain["verdict"] == "reproduced"


def test_the_spread_of_a_single_published_gain_is_that_of_two_unpaired_runs(tmp_path):
    claims = claims_of(tmp_path, "supervised,micro_f1,95,,1,yes,", "kd,micro_f1,98,,1,yes,")
    gain = compared(runs_of(supervised=[94, 95, 96], kd=[97, 98, 99]), claims).loc[("kd", "gain")]
    assert gain["diff_high"] == pytest.approx(T2 * math.sqrt(0 / 3 + 1 + 1))


def test_no_gain_does_not_reproduce_a_small_gain(tmp_path):
    """+0.4 points were published; we find none, precisely: within ±0.5 of the claim, and yet not what was claimed."""
    claims = claims_of(tmp_path, "supervised,micro_f1,95.7,,1,yes,", "lsp,micro_f1,96.1,,1,yes,")
    alone = [95.69, 95.70, 95.71]
    gain = compared(runs_of(supervised=alone, lsp=alone), claims).loc[("lsp", "gain")]
    assert gain["margin"] == pytest.approx(0.2) and gain["published"] == 0.4
    assert gain["verdict"] == "not reproduced" and "lower by more than 0.2 points" in gain["reason"]
    found = compared(runs_of(supervised=alone, lsp=[x + 0.4 for x in alone]), claims).loc[("lsp", "gain")]
    assert found["verdict"] == "reproduced"


def test_a_published_gain_lost_in_its_own_spread_claims_nothing_and_has_the_whole_margin(tmp_path):
    note = "10,yes,population std"
    claims = claims_of(tmp_path, f"supervised,micro_f1,97.9,0.45,{note}", f"kd,micro_f1,97.93,0.26,{note}")
    assert compared(runs_of(supervised=[97.9] * 3, kd=[97.9] * 3), claims).loc[("kd", "gain"), "margin"] == 0.5
    claims = claims_of(tmp_path, f"supervised,micro_f1,97.5,0.1,{note}", f"kd,micro_f1,97.9,0.1,{note}")
    row = compared(runs_of(supervised=[97.9] * 3, kd=[97.9] * 3), claims).loc[("kd", "gain")]
    assert row["margin"] == pytest.approx(0.2)


def test_without_a_published_student_alone_there_is_no_gain(tmp_path):
    rows = compared(runs_of(kd=[95, 96, 97], supervised=[95, 96, 97]), claims_of(tmp_path, "kd,micro_f1,96,,1,yes,"))
    assert list(rows.index) == [("kd", "score")]


# What is not compared


def test_data_that_are_not_the_published_ones_make_every_row_not_comparable(tmp_path):
    lines = (
        "supervised,micro_f1,95,,1,yes,",
        "kd,micro_f1,96,,1,yes,",
        "lsp,micro_f1,96,,1,no,",
        "at,micro_f1,9,,1,yes,",
    )
    card = CARD.model_copy(update={"provenance": {"canonical": False, "remark": "another build of the graphs"}})
    rows = compared(runs_of(supervised=[95] * 3, kd=[96] * 3, lsp=[96] * 3), claims_of(tmp_path, *lines), card=card)
    assert set(rows["verdict"]) == {"not comparable"} and len(rows) == 7
    assert rows["reason"].str.startswith("another build of the graphs").all()
    assert rows[["diff", "diff_low", "diff_high"]].isna().all(axis=None)
    assert rows.loc[("kd", "score"), "ours"] == pytest.approx(96)  # ours is shown all the same


def test_an_unverified_number_is_never_compared(tmp_path):
    lines = ("supervised,micro_f1,95,,1,yes,", "kd,micro_f1,96,,1,no,", "at,micro_f1,96,,1,yes,")
    rows = compared(runs_of(supervised=[95] * 3, kd=[96] * 3, at=[96] * 3), claims_of(tmp_path, *lines))
    assert list(rows.loc["kd", "verdict"]) == ["not compared"] * 2 and not rows.loc["kd", "verified"].any()
    assert set(rows.loc["kd", "reason"]) == {"recalled, not read in the source"}
    assert rows.loc["kd", ["diff", "diff_low", "diff_high"]].isna().all(axis=None)
    assert list(rows.loc["at", "verdict"]) == ["reproduced"] * 2
    # a gain over an unverified student alone is not verified either
    lines = ("supervised,micro_f1,95,,1,no,", "at,micro_f1,96,,1,yes,")
    rows = compared(runs_of(supervised=[95] * 3, at=[96] * 3), claims_of(tmp_path, *lines))
    assert list(rows["verdict"]) == ["not compared", "reproduced", "not compared"]


def test_a_method_that_was_not_run_is_there(tmp_path):
    lines = ("supervised,micro_f1,95,,1,yes,", "kd,micro_f1,96,,1,yes,")
    rows = compared(runs_of(supervised=[95] * 3, other=[99] * 3), claims_of(tmp_path, *lines))
    assert list(rows.loc["kd", "verdict"]) == ["not run"] * 2 and set(rows.loc["kd", "reason"]) == {"no run of kd"}
    assert "other" not in rows.index.get_level_values("method")
    rows = compared(runs_of(kd=[96] * 3), claims_of(tmp_path, *lines))
    assert rows.loc[("kd", "gain"), "reason"] == "no run of supervised"


def test_skipped_runs_are_not_run_with_the_reason(tmp_path):
    runs = runs_of(kd=[96] * 3).assign(status="skipped", reason="dgl is not installed", test=math.nan)
    row = compared(runs, claims_of(tmp_path, "kd,micro_f1,96,,1,yes,")).loc[("kd", "score")]
    assert (row["verdict"], row["reason"]) == ("not run", "skipped: dgl is not installed")


def test_a_source_may_say_that_its_number_is_not_comparable(tmp_path):
    claims = claims_of(tmp_path, "glnn,micro_f1,96,,,yes,production setting: not comparable with transductive")
    row = compared(runs_of(glnn=[96] * 3), claims).loc[("glnn", "score")]
    assert row["verdict"] == "not comparable" and row["reason"].startswith("production setting")


# Names


def test_our_variants_are_found_by_the_published_method(tmp_path):
    claims = claims_of(tmp_path, "supervised,micro_f1,95,,1,yes,", "lsp,micro_f1,96,,1,yes,")
    runs = runs_of(alone=[95] * 3, lsp_rbf=[96] * 3, lsp_poly=[94] * 3, lsp=[90] * 3, supervised=[20] * 3)
    methods = {"lsp_rbf": "lsp", "lsp_poly": "lsp", "alone": "supervised", "lsp": "supervised"}
    rows = compared(runs, claims, {**PPI, "methods": methods})
    by = rows.reset_index().set_index(["variant", "quantity"])
    assert by.loc[("lsp_rbf", "gain"), "ours"] == pytest.approx(1)  # over "alone", which the pair names
    assert by.loc[("lsp_poly", "score"), "verdict"] == "not reproduced"
    assert by.loc[("lsp", "score"), "method"] == "supervised"  # what the pair says wins over the name
    with pytest.raises(ClaimsError, match=r"datasets\.ppi\.pairs\.gat\.published: methods\.kd: .*did you mean 'lsp'"):
        compared(runs, claims, {**PPI, "methods": {"kd": "lps"}})


def test_a_metric_is_the_main_one_or_a_column_of_its_name(tmp_path):
    claims = claims_of(
        tmp_path, *(f"kd,{metric},90,,1,yes," for metric in ("accuracy", "mean_class_accuracy", "roc_auc"))
    )
    runs = runs_of("accuracy", kd=[90] * 3).assign(mean_class_accuracy=[0.851, 0.85, 0.849])
    rows = compared(runs, claims).reset_index().set_index("metric")
    assert list(rows["verdict"]) == ["reproduced", "not reproduced", "not comparable"]
    assert list(rows["ours"].iloc[:2]) == pytest.approx([90, 85])
    assert rows.loc["roc_auc", "reason"] == "our runs have no ROC AUC"
    empty = compared(runs.assign(mean_class_accuracy=math.nan), claims).reset_index().set_index("metric")
    assert empty.loc["mean_class_accuracy", "reason"].startswith("our runs have no mean")


def test_only_rows_of_the_pair_and_its_sources_are_in_the_table():
    claims, runs = read_claims(), runs_of(supervised=[95.7] * 3, lsp=[96.1] * 3)
    assert set(compared(runs, claims)["source"]) >= {"yang2020", "joshi2022", "distillgcn-issue-2"}
    rows = compared(runs, claims, {**PPI, "sources": ["yang2020"]})
    assert set(rows["source"]) == {"yang2020"}
    scores = rows.xs("score", level="quantity")
    assert set(scores.index) == {"teacher", "supervised", "fitnet", "at", "lsp"}
    assert scores.loc["lsp", "verdict"] == "reproduced" and scores.loc["teacher", "verdict"] == "not run"


@pytest.mark.parametrize(
    "change, message",
    [
        ({"teacher": "gat"}, "there are: gat-3l → gat-5l"),
        ({"sources": ["joshi"]}, "sources: 'joshi' .*did you mean 'joshi2022'"),
    ],
)
def test_a_pair_that_names_nothing_published_is_refused(change, message):
    with pytest.raises(ClaimsError, match=message):
        compared(runs_of(kd=[96] * 3), read_claims(), {**PPI, **change})
    assert "data set 'ppy': did you mean 'ppi'" in mismatch(read_claims(), "ppy", "gat-3l", "gat-5l")


# The published facts


def test_the_projects_published_results_are_sound():
    claims = read_claims()
    assert len(claims) > 100
    modelnet = matching(claims, "modelnet40", "dgcnn", "dgcnn-small")
    assert len(modelnet) == 12 and not any(claim.verified for claim in modelnet)
    assert all(claim.verified for claim in claims if claim.dataset == "ppi")
    table = pd.read_csv(PUBLISHED)
    assert set(table["verified"]) == {"yes", "no"} and len(table) == len(claims)


GOOD = "paper,ppi,t,s,kd,micro_f1,96,0.2,5,yes,"


@pytest.mark.parametrize(
    "line, message",
    [
        ("paper,ppi,t,s,kd,micro_f1,196,,1,yes,", "line 3, column 'mean': '196' is not a number from 0 to 100"),
        ("paper,ppi,t,s,kd,micro_f1,nan,,1,yes,", "line 3, column 'mean': 'nan'"),
        ("paper,ppi,t,s,kd,micro_f1,,,1,yes,", "line 3, column 'mean': ''"),
        ("paper,ppi,t,s,kd,micro_f1,96,-1,5,yes,", "line 3, column 'std': '-1'"),
        ("paper,ppi,t,s,kd,micro_f1,96,,x,yes,", "line 3, column 'seeds': 'x' is not a number of runs"),
        ("paper,ppi,t,s,kd,micro_f1,96,0.2,1,yes,", "line 3, column 'seeds': '1' runs have no std"),
        ("paper,ppi,t,s,kd,micro_f1,96,,1,Yes,", "line 3, column 'verified': 'Yes' is neither yes nor no"),
        ("paper,ppi,t,s,,micro_f1,96,,1,yes,", "line 3, column 'method': is empty"),
        ("paper,ppi,t,s,kd,micro_f1,95,,1,yes,", "line 3, column 'method': paper/ppi/t/s/kd/micro_f1 is on line 2"),
        ("paper,ppi,t,s,kd,micro_f1,96,1,yes,", "line 3: 10 fields, there are 11 columns"),
        ('paper,ppi,t,s,kd,micro_f1,96,,1,yes,"open', "not a CSV file"),
    ],
)
def test_damage_is_named_by_file_line_and_column(tmp_path, line, message):
    path = tmp_path / "published.csv"
    path.write_text(f"{HEADER}\n{GOOD}\n{line}\n")
    with pytest.raises(ClaimsError, match=r"published\.csv") as raised:
        read_claims(path)
    assert message in str(raised.value)


def test_other_columns_are_refused(tmp_path):
    path = tmp_path / "published.csv"
    for text in ("", HEADER.replace("verified,", ""), "\ufeff" + HEADER):
        path.write_text(text)
        with pytest.raises(ClaimsError, match="line 1: the columns are"):
            read_claims(path)
    path.write_bytes(HEADER.encode() + b"\n\xff")
    with pytest.raises(ClaimsError, match="UTF-8"):
        read_claims(path)


# What people open


@pytest.fixture
def written(tmp_path):
    """The rule's function, on files; returns what it says and the three files' texts."""

    def write(runs, pairs, **fields):
        write_card(tmp_path / "data.json", card_of(**{"name": "ppi", "dataset": "ppi", **fields}))
        write_runs(runs, tmp_path / "runs.csv", tmp_path / "runs.parquet")
        outputs = {name: tmp_path / f"reproduction.{name}" for name in ("csv", "html", "markdown")}
        texts = {name: str(path) for name, path in outputs.items()}
        said = reproduce_job.reproduce(str(tmp_path / "runs.parquet"), [str(tmp_path / "data.json")], pairs, texts)
        return said, {name: path.read_text(encoding="utf-8") for name, path in outputs.items()}

    return write


def modelnet():
    named = {"dataset": "modelnet40", "teacher": "dgcnn", "student": "dgcnn-small"}
    runs = runs_of("accuracy", teacher=[92] * 3, kd=[91] * 3).assign(dataset="modelnet40")
    return runs, {**PPI, **named}, {"name": "modelnet40", "dataset": "modelnet40"}


def test_unverified_rows_are_grey_and_the_others_are_not(written):
    runs, pair, card = modelnet()
    said, files = written(runs, [pair], **card)
    assert said.endswith("20 not compared")  # 12 scores, 8 gains
    rows = re.findall(r"<tr>\s*<td.*?</tr>", files["html"], re.DOTALL)
    of_kd = next(row for row in rows if ">kd<" in row)
    assert of_kd.count("color: #8c8c8c") == of_kd.count("<td")
    assert "Grey: recalled, not read in the source" in files["html"] and "| *kd* |" in files["markdown"]
    _, files = written(runs_of(supervised=[95.7] * 3, lsp=[96.1] * 3), [{**PPI, "sources": ["yang2020"]}])
    assert "8c8c8c" not in files["html"] and "Grey" not in files["html"] and "italics" not in files["markdown"]


def test_every_form_explains_itself(written):
    runs = runs_of(supervised=[95.7, 95.8, 95.6], lsp=[96.1, 96.2, 96.0])
    pair = {**PPI, "sources": ["yang2020"], "protocol": "official"}
    _, files = written(runs, [pair])
    for kind in ("html", "markdown"):
        text = files[kind].replace("\\", "")
        for words in (
            "reproduced",
            "not reproduced",
            "inconclusive",
            "not comparable",
            "not run",
            "Margin: ±0.5 points",
        ):
            assert words in text
        assert "ppi · PyG · gat · test micro-F1 · protocol: official" in text
        assert "yang2020, gat-3l → gat-5l" in text and "95.70 ± 0.10" in text and "+0.40" in text
    stored = pd.read_csv(StringIO(files["csv"]))
    assert list(stored.columns) == reproduce.COLUMNS
    rows = [line for line in files["markdown"].splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {11}  # ten columns


def test_html_needs_no_network_and_escapes(written):
    hostile = "<script>alert('x')</script>"
    _, files = written(runs_of(kd=[97.9] * 3), [PPI], provenance={"canonical": False, "remark": hostile})
    assert "<script" not in files["html"] and "&lt;script&gt;" in files["html"]
    assert not re.search(r"https?://|@import|url\(|<link|src=", files["html"])


def test_without_pairs_the_table_is_empty_and_says_so(written):
    said, files = written(runs_of(kd=[96] * 3), [])
    assert said.startswith("0 published results")
    assert "No pair of the config names published results" in files["html"] and "No pair" in files["markdown"]
    assert files["csv"].strip() == ",".join(reproduce.COLUMNS)


def test_a_damaged_card_is_named(tmp_path):
    (tmp_path / "data.json").write_text("{}")
    with pytest.raises(RecordError, match=r"data\.json: .*run snakemake again"):
        reproduce_job.reproduce("runs.parquet", [str(tmp_path / "data.json")], [], {})


def test_reading_the_facts_imports_neither_torch_nor_pandas():
    code = (
        "import sys, distillbench.plan.published as c; c.read_claims(); "
        "assert not {'torch', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    code = "import sys, distillbench.statistics.reproduce; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
