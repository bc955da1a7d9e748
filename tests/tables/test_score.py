"""Metrics of stored predictions, without training: beside scikit-learn, and over the records of a folder."""

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as theirs

from distillbench.cli import main
from distillbench.paths import Cell, Paths
from distillbench.predictions import Part, pack
from distillbench.record import Record, RecordError, file_digest, write_record
from distillbench.tables.score import METRICS, score_table, score_text

CLASSES = ("accuracy", "balanced_accuracy", "macro_f1", "micro_f1")


def part(seed, *, labels=0, logits=True, wrong=0.2):
    rng = np.random.default_rng(seed)
    if labels:
        y = rng.random((200, labels)) < 0.3
        z = np.where(y ^ (rng.random(y.shape) < wrong), 1.0, -1.0) * rng.random(y.shape)
        return Part(np.arange(200), y, z >= 0, z if logits else None)
    y = rng.choice(4, size=200, p=[0.5, 0.3, 0.15, 0.05])
    z = rng.normal(size=(200, 5)) + 2 * np.eye(5)[y]
    return Part(np.arange(200), y, z.argmax(axis=1), z if logits else None)


def test_metrics_of_classes_are_those_of_scikit_learn():
    found = part(0)
    y, predicted = found.y, found.predicted
    assert 4 in predicted and 4 not in y
    expected = [
        theirs.accuracy_score(y, predicted),
        theirs.recall_score(y, predicted, labels=np.unique(y), average="macro"),
        theirs.f1_score(y, predicted, average="macro", zero_division=0),
        theirs.f1_score(y, predicted, average="micro"),
    ]
    assert [METRICS[name](found) for name in CLASSES] == pytest.approx(expected)
    p = np.exp(found.logits) / np.exp(found.logits).sum(axis=1, keepdims=True)
    assert METRICS["nll"](found) == pytest.approx(theirs.log_loss(y, p, labels=range(5)))


def test_metrics_of_labels_are_those_of_scikit_learn():
    found = part(1, labels=3)
    found = Part(found.rows, np.pad(found.y, ((0, 0), (0, 1))), np.pad(found.predicted, ((0, 0), (0, 1))))
    expected = [
        (found.y == found.predicted).mean(),
        *(theirs.f1_score(found.y, found.predicted, average=name, zero_division=0) for name in ("macro", "micro")),
    ]
    assert [METRICS[name](found) for name in ("accuracy", "macro_f1", "micro_f1")] == pytest.approx(expected)
    for name in ("balanced_accuracy", "roc_auc"):
        with pytest.raises(ValueError, match=r"one (class )?a row"):
            METRICS[name](found)


def test_the_area_is_of_the_stored_scores_or_of_two_logits():
    rng = np.random.default_rng(2)
    y, z = rng.integers(0, 2, 100), rng.normal(size=(100, 2))
    score = z[:, 1] - z[:, 0]
    for columns in ({"logits": z}, {"score": score}):
        assert METRICS["roc_auc"](Part(np.arange(100), y, y, **columns)) == pytest.approx(
            theirs.roc_auc_score(y, score)
        )
    with pytest.raises(ValueError, match="no logits are stored"):
        METRICS["roc_auc"](Part(np.arange(100), y, y))


@pytest.fixture
def results(tmp_path):
    """Two seeds of a teacher and two students; a student's logits were too many, another's run is of before."""
    for method in ("teacher", "supervised", "kd", "old"):
        for seed in range(2):
            of_seed = part(seed)
            own = part(seed, logits=method != "kd")
            if method != "teacher":
                predicted = np.where(of_seed.rows < 10 * (seed + 1), (own.predicted + 1) % 5, own.predicted)
                own = Part(own.rows, own.y, predicted, own.logits)
            folder = Paths(tmp_path / "results").runs(Cell("digits", "pyg", "gat"), method)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"seed-{seed}.predictions.npz").write_bytes(pack({"val": own, "test": own}))
            written = {"predictions": file_digest(folder / f"seed-{seed}.predictions.npz")}
            record = Record(
                key="k", dataset="digits", backend="pyg", pair="gat", method=method, seed=seed, status="ok",
                role="teacher" if method == "teacher" else "student", task="multiclass", metric="accuracy",
                val=0.5, test=METRICS["accuracy"](own), digests={} if method == "old" else written,
                calibration={"ece": 0.25, "nll": 1.5} if method == "kd" else {},
            )  # fmt: skip
            write_record(folder / f"seed-{seed}.json", record)
    return tmp_path / "results"


def scores(table, method):
    return list(table.loc[table["method"] == method, "score"])


def test_every_finished_run_has_a_row(results):
    table = score_table(results, "accuracy")
    assert list(table["method"]) == [name for name in ("teacher", "kd", "old", "supervised") for _ in range(2)]
    expected = [theirs.accuracy_score(part(seed).y, part(seed).predicted) for seed in range(2)]
    assert scores(table, "teacher") == pytest.approx(expected)
    assert table.loc[table["method"] == "old", "score"].isna().all()
    assert set(table.loc[table["method"] == "old", "reason"]) == {"its predictions were not stored"}
    text = score_text(table, "accuracy")
    assert f"digits    gat   PyG      teacher     {np.mean(expected):.4f} ± {np.std(expected, ddof=1):.4f}" in text
    assert "2 runs without: its predictions were not stored" in text


def test_agreement_is_with_the_teacher_of_the_seed(results):
    table = score_table(results, "agreement")
    assert scores(table, "kd") == scores(table, "supervised") == [1 - 10 / 200, 1 - 20 / 200]
    assert table.loc[table["role"] == "teacher", "score"].isna().all()
    assert "is a teacher" not in score_text(table, "agreement")
    for file in results.glob("teachers/**/seed-1.json"):
        file.unlink()
    table = score_table(results, "agreement")
    assert "2 runs without: its teacher has no record here" in score_text(table, "agreement")


def test_calibration_is_the_records_where_it_has_it(results):
    table = score_table(results, "nll")
    assert scores(table, "kd") == [1.5, 1.5]  # whose logits are not stored
    assert scores(table, "supervised") == pytest.approx([METRICS["nll"](part(seed)) for seed in range(2)], rel=2e-3)


def test_every_file_that_cannot_be_trusted_is_named(results):
    folder = results / "runs/digits/pyg/gat"
    (folder / "kd/seed-0.predictions.npz").write_bytes(b"")
    (folder / "supervised/seed-1.predictions.npz").unlink()
    (folder / "old/seed-0.json").write_text("{}")
    with pytest.raises(RecordError) as error:
        score_table(results, "accuracy")
    assert len(str(error.value).splitlines()) == 3
    for name in ("kd/seed-0.predictions.npz: does not match", "supervised/seed-1.predictions.npz: is missing"):
        assert name in str(error.value)


def test_the_command_prints_a_table_and_writes_a_row_for_each_run(results, capsys):
    assert main(["score", "macro_f1", "--results", str(results)]) == 0
    out = capsys.readouterr().out
    assert "supervised" in out and str(results / "tables/score-macro_f1.csv") in out
    table = pd.read_csv(results / "tables/score-macro_f1.csv")
    assert len(table) == 8 and table["score"].notna().sum() == 6


def test_a_metric_of_ones_own_is_a_function_of_a_file(results, tmp_path, capsys):
    own = tmp_path / "own.py"
    own.write_text(
        "def zeros(y_true, y_pred, scores):\n    return (y_pred == 0).mean()\n"
        "def top(y_true, y_pred, scores):\n    return scores.max()\n"
    )
    assert main(["score", f"{own}:zeros", "--results", str(results)]) == 0
    table = pd.read_csv(results / "tables/score-zeros.csv")
    assert scores(table, "teacher") == [(part(seed).predicted == 0).mean() for seed in range(2)]
    assert main(["score", f"{own}:top", "--results", str(results)]) == 0
    assert "2 runs without:" in (out := capsys.readouterr().out) and "own.py:top: AttributeError: 'NoneType'" in out
    assert main(["score", f"{own}:zeroes", "--results", str(results)]) == 2
    assert "has no function 'zeroes': did you mean 'zeros'?" in capsys.readouterr().err


def test_what_is_no_metric_or_has_no_runs_is_said(results, tmp_path, capsys):
    assert main(["score", "macrof1", "--results", str(results)]) == 2
    assert "unknown metric 'macrof1': did you mean 'macro_f1'?" in capsys.readouterr().err
    assert main(["score", "none.py:f", "--results", str(results)]) == 2
    assert "none.py: no such file" in capsys.readouterr().err
    assert main(["score", "accuracy", "--results", str(tmp_path / "nothing")]) == 1
    assert "no finished run in" in capsys.readouterr().err
