"""What real jobs store of what they predicted, beside the data, the weights and the record; and what becomes of it."""

import logging
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from distillbench.config.config import OFFICIAL
from distillbench.jobs.tables import collect
from distillbench.predictions import agreement, read_part, read_rows, row_scores
from distillbench.record import RecordError, read_record, write_record, write_shard
from distillbench.training.experiment import Experiment

from .by_hand import mlp
from .conftest import drawn
from .test_labels import METHODS, in_production, of_each, parts

STUDENTS = ("supervised", "kd", "spy")


def predictions(runs, dataset, method, seed=0):
    return runs.file(dataset, method, seed, "predictions.npz")


def finished(runs_in, dataset="one_graph", **changes):
    runs = runs_in(**({"seeds": 1} | changes), only=dataset)
    runs.run(dataset, *STUDENTS)
    return runs


@of_each
def test_the_scores_of_a_record_are_those_of_its_stored_predictions(runs_in, dataset, setting):
    """On the rows of each part, with their labels, in the numbers that the whole data set has for them."""
    runs = finished(runs_in, dataset, protocol={"setting": setting}, training={"epochs": 15})
    data, (_, val, test) = runs.data(dataset), parts(runs, dataset)
    for method in METHODS:
        (record,) = runs.records(dataset, method)
        for name, rows, score in (("val", val, record.val), ("test", test, record.test)):
            found = read_part(predictions(runs, dataset, method), name, expected=record.digests["predictions"])
            assert list(found.rows) == sorted(rows.tolist())
            assert np.array_equal(found.y, data.y[found.rows].numpy())
            values = row_scores(found, record.metric).values.astype(np.float64)
            assert values.mean() == pytest.approx(score, abs=1e-7)
        assert 0 <= record.calibration["ece"] <= 1 and record.calibration["nll"] > 0


def test_stored_logits_are_the_outputs_on_the_whole_graph_or_on_what_was_seen_of_it(runs_in):
    runs = finished(runs_in, protocol={"setting": "production"})
    data, (_, _, test) = runs.data("one_graph"), parts(runs, "one_graph")
    for method in METHODS:
        _, logits = in_production(data, test, runs.weights("one_graph", method, 0), method)
        found = read_part(predictions(runs, "one_graph", method))
        assert np.allclose(found.logits, logits[found.rows].numpy(), atol=1e-2)
        assert np.array_equal(found.predicted, logits[found.rows].argmax(dim=1).numpy())
        loss = torch.nn.functional.cross_entropy(logits[found.rows], data.y[found.rows]).item()
        (record,) = runs.records("one_graph", method)
        assert record.calibration["nll"] == pytest.approx(loss, rel=1e-5)


def test_by_the_official_protocol_the_bits_and_batches_are_those_that_were_scored(runs_in):
    """A label from logit 0.5 on, and the mean over batches of two graphs and of one."""
    training = {"epochs": 15, "batch_size": 2}
    runs = finished(runs_in, "many_graphs", protocol=OFFICIAL | {"validate_every": 1}, training=training)
    data = runs.data("many_graphs")
    graphs = torch.randperm(11, generator=drawn(0, "split"))[8:]
    ptr = data.graph_ptr.tolist()
    changed = 0
    for method in METHODS:
        (record,) = runs.records("many_graphs", method)
        part = read_part(predictions(runs, "many_graphs", method))
        logits = mlp(runs.weights("many_graphs", method, 0), data.x)[part.rows].numpy()
        assert np.array_equal(part.predicted, logits >= 0.5)
        changed += int((part.predicted != (logits >= 0)).sum())
        of_batch = [[node for g in some for node in range(ptr[g], ptr[g + 1])] for some in (graphs[:2], graphs[2:])]
        assert [sorted(part.rows[part.batch == n]) for n in (0, 1)] == [sorted(nodes) for nodes in of_batch]
        values = row_scores(part, record.metric).values.astype(np.float64)
        assert values.mean() == pytest.approx(record.test, abs=1e-7)
    assert changed


def test_where_logits_are_many_classes_alone_are_stored(runs_in):
    one = finished(runs_in, execution={"logits": 30 * 3})
    part = predictions(one, "one_graph", "kd")
    assert read_part(part).logits.shape == (30, 3) and read_part(part, "val").logits.shape == (18, 3)
    less = finished(lambda **changes: runs_in("less", **changes), execution={"logits": 30 * 3 - 1})
    part = predictions(less, "one_graph", "kd")
    assert read_part(part).logits is None and read_part(part, "val").logits.shape == (18, 3)
    assert less.records("one_graph", "kd")[0].key == one.records("one_graph", "kd")[0].key


def test_a_ranking_is_stored_with_its_scores_whatever_becomes_of_the_logits(runs_in):
    runs = runs_in(seeds=1, only="one_graph")
    runs.prepare("one_graph")
    job = runs.job("one_graph", "teacher")
    experiment = Experiment(job.params, job.data)
    two = {"y": experiment.data.y.clamp(max=1), "num_classes": 2, "metric": "roc_auc"}
    experiment.data = replace(experiment.data, **two)
    outcome = experiment.run(0, kept_logits=0)
    part = outcome.predictions["test"]
    assert part.logits is None and part.score.dtype == np.float64
    values = row_scores(part, "roc_auc").values.astype(np.float64)
    assert values.mean() == pytest.approx(outcome.test, abs=1e-7) and 0 < outcome.test < 1


@pytest.mark.parametrize("damage", ["missing", "altered"])
def test_a_run_whose_predictions_are_not_those_of_its_record_is_trained_again(runs_in, caplog, damage):
    runs = finished(runs_in)
    file = predictions(runs, "one_graph", "kd")
    before, others = file.read_bytes(), predictions(runs, "one_graph", "supervised").stat().st_mtime_ns
    caplog.set_level(logging.WARNING)
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    for method in STUDENTS:
        runs.job("one_graph", method).run()
    said = "is missing" if damage == "missing" else "does not match its record"
    assert f"{file} {said}: the seed is trained again" in caplog.text
    assert file.read_bytes() == before
    assert predictions(runs, "one_graph", "supervised").stat().st_mtime_ns == others


def test_no_student_is_trained_again_for_what_is_kept_of_its_teachers_predictions(runs_in):
    runs = finished(runs_in)
    (record,) = runs.records("one_graph", "teacher")
    other = record.model_copy(update={"digests": {**record.digests, "predictions": "0" * 64}})
    write_shard(runs.plan.paths.shard(runs.cell("one_graph"), "teacher", 0), [other])
    before = runs.file("one_graph", "kd", 0, "json").stat().st_mtime_ns
    runs.job("one_graph", "kd").run()
    assert runs.file("one_graph", "kd", 0, "json").stat().st_mtime_ns == before


# tables


def gathered(runs, folder):
    """The table of runs, and the rows."""
    plan = runs.plan
    files = [folder / name for name in ("runs.csv", "runs.parquet", "rows.npz")]
    collect(plan.expected(), plan.skipped(), plan.methods, *map(str, files))
    return pd.read_csv(files[0]).set_index(["method", "seed"]), read_rows(files[2])


def test_the_table_of_runs_has_agreement_and_calibration_and_the_rows_are_of_its_scores(runs_in, tmp_path):
    runs = finished(runs_in, seeds=2)
    table, rows = gathered(runs, tmp_path)
    assert set(rows) == {("one_graph", "csr", "pair", *run) for run in table.index}
    assert len(rows) == 4 * 2
    agreements = set()
    for method, seed in table.index:
        ids, bits = rows[("one_graph", "csr", "pair", method, seed)]
        assert list(ids) == sorted(torch.randperm(60, generator=drawn(seed, "split"))[30:].tolist())
        row, record = table.loc[(method, seed)], read_record(runs.file("one_graph", method, seed, "json"))
        assert bits.astype(np.float64).mean() == pytest.approx(row["test"], abs=1e-12)
        assert (row["ece"], row["nll"]) == (record.calibration["ece"], record.calibration["nll"])
        if method == "teacher":
            assert np.isnan(row["agreement"])
            continue
        own, teacher = (read_part(predictions(runs, "one_graph", name, seed)) for name in (method, "teacher"))
        assert row["agreement"] == agreement(own, teacher) == (own.predicted == teacher.predicted).mean()
        agreements.add(row["agreement"])
    assert len(agreements) > 1


def test_every_file_of_predictions_that_cannot_be_trusted_is_named_and_no_table_is_written(runs_in, tmp_path):
    runs = finished(runs_in)
    predictions(runs, "one_graph", "kd").unlink()
    predictions(runs, "one_graph", "teacher").write_bytes(predictions(runs, "one_graph", "spy").read_bytes())
    with pytest.raises(RecordError) as error:
        gathered(runs, tmp_path)
    lines = str(error.value).splitlines()
    assert len(lines) == 2 and all("Delete" in line and "records-0.json" in line for line in lines)
    assert "teachers/" in lines[0] and "predictions.npz: does not match its record" in lines[0]
    assert "/kd/" in lines[1] and "predictions.npz: is missing" in lines[1]
    assert not list(tmp_path.glob("r*.*"))


def test_records_of_before_predictions_were_stored_are_in_the_table_and_not_among_the_rows(runs_in, tmp_path):
    runs = finished(runs_in)
    (record,) = runs.records("one_graph", "kd")
    old = {name: value for name, value in record.digests.items() if name != "predictions"}
    record = record.model_copy(update={"digests": old, "calibration": {}})
    write_record(runs.file("one_graph", "kd", 0, "json"), record)
    write_shard(runs.plan.paths.shard(runs.cell("one_graph"), "kd", 0), [record])
    table, rows = gathered(runs, tmp_path)
    assert table.loc[("kd", 0), "test"] == record.test
    assert table.loc[("kd", 0), ["agreement", "ece", "nll"]].isna().all()
    assert {key[3] for key in rows} == {"teacher", "supervised", "spy"}


def test_runs_that_values_are_chosen_by_predict_no_test_row(runs_in):
    runs = runs_in(seeds=1, only="one_graph")
    runs.prepare("one_graph")
    job = runs.job("one_graph", "teacher")
    (outcome,) = job.validate("trial")
    assert outcome.status == "ok" and outcome.predictions == {} and outcome.calibration == {}
