"""Any record"""

import json
import re
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillbench.jobs.tables import collect, compare
from distillbench.record import Record, RecordError, digest, read_record, read_shard, sealed, write_record, write_shard
from tests.fuzz.conftest import cases

OUTCOMES: list[str] = []
FILES = ("runs.csv", "runs.parquet", "rows.npz")
SEEDS, METHODS = 7, ("teacher", "supervised", "kd")
COMPARE = {"baseline": "supervised", "alpha": 0.05, "delta": 0.01}
KNOWN = {
    "key": "k", "dataset": "digits", "backend": "pyg", "pair": "gat", "status": "ok", "task": "multiclass",
    "metric": "accuracy", "epochs": 3, "best_epoch": 2, "params": 10, "train_seconds": 1.0, "digests": {"code": "c"},
    "environment": {"device": "cpu", "torch": "2.13.0"}, "split_sizes": {"train": 10, "val": 10, "test": 10},
}  # fmt: skip


def record(method, seed, **changes):
    role = "teacher" if method == "teacher" else "student"
    score = 0.5 + 0.03 * METHODS.index(method) + 0.01 * ((seed * 7 + len(method)) % 5)
    return Record(**{**KNOWN, "method": method, "role": role, "seed": seed, "val": score, "test": score, **changes})


RECORDS = {method: [record(method, seed) for seed in range(SEEDS)] for method in METHODS}
STATUSES = st.sampled_from(["ok", "diverged", "oom", "timeout", "error", "skipped", "OK", "failed", "", None])
MOMENTS = st.sampled_from(["", "2026-01-02T03:04:05.000+00:00", "2026-01-02", "soon", "9999", None, 0])
scores = st.none() | st.floats(0, 1) | st.floats() | st.text(max_size=3)
CHANGES = {
    "status": STATUSES, "test": scores, "val": scores, "seed": st.integers(-2, 9) | st.booleans(),
    "metric": st.sampled_from(["accuracy", "micro_f1", "", "=1+1"]), "reason": st.text(max_size=20),
    "method": st.sampled_from([*METHODS, "lsp", "../up"]), "role": st.sampled_from(["teacher", "student", "boss"]),
    "dataset": st.sampled_from(["digits", "cora"]), "params": st.integers() | st.none(), "resplit": st.booleans(),
    "train_seconds": st.floats() | st.none(), "environment": st.just({}), "split_sizes": st.just({}),
    "digests": st.just({}), "started": MOMENTS, "ended": MOMENTS,
    "test_metrics": st.dictionaries(st.sampled_from(["roc_auc", "accuracy_seen"]), scores),
    "extra": st.integers(), "hyperparameters": st.just({"a": 1}),
}  # fmt: skip


@st.composite
def changed(draw):
    """Contents of the three files of records, a few fields of a few changed, some lost or twice; and which files."""
    files = {method: [each.model_dump(mode="json") for each in records] for method, records in RECORDS.items()}
    touched = set()
    for _ in range(draw(st.integers(1, 3))):
        method = draw(st.sampled_from(METHODS))
        contents = files[method]
        if not contents:
            continue
        touched.add(method)
        where = draw(st.integers(0, len(contents) - 1))
        match draw(st.sampled_from(["change", "change", "change", "lose", "twice"])):
            case "change":
                field = draw(st.sampled_from(sorted(CHANGES)))
                contents[where][field] = draw(CHANGES[field])
            case "lose":
                del contents[where]
            case _:
                contents.append(dict(contents[where]))
    return files, touched


@cases(350)
@given(case=changed())
def one_case(case):
    files, touched = case
    with tempfile.TemporaryDirectory() as name:
        folder, expected = Path(name), {}
        for method, contents in files.items():
            file = folder / f"{method}.json"
            try:
                text = json.dumps([sealed(content) for content in contents])
            except ValueError:  # a NaN is no JSON: nothing of ours can have written it
                text = json.dumps([{**content, "checksum": "0"} for content in contents])
            file.write_text(text)
            expected[str(file)] = {"seeds": list(range(SEEDS)), "code": "c", "hyperparameters": digest({})}
        tables = {k: str(folder / f"comparison.{k}") for k in ("csv", "parquet", "html", "tex", "markdown")}
        tables |= {k: str(folder / f"{k}.csv") for k in ("equivalence", "times", "across")}
        try:
            collect(expected, [], list(METHODS), *(str(folder / name) for name in FILES))
            compare(str(folder / "runs.parquet"), tables, [], [], [], **COMPARE)
        except RecordError as error:
            named = set(re.findall(r"^\S+/(\w+)\.json: ", str(error), re.MULTILINE))
            assert named & touched, error  # noqa: PT017  # of files that contradict each other the others, too
            OUTCOMES.append("refused")
        else:
            as_the_records_say(expected, pd.read_csv(tables["csv"]))
            OUTCOMES.append("table")


def test_records_with_changed_fields_are_refused_by_name_or_counted_as_they_are():
    """Fault: records have wrong, impossible or missing fields, or are missing or there twice, with valid checksums.

    Provoked: one to three such changes in the records of a small table, 350 cases (hypothesis).
    Promised: an error that names the file, or a table with the means, numbers and counts that a few lines of numpy find
    in the records that were accepted.
    """
    OUTCOMES.clear()
    one_case()
    assert OUTCOMES.count("table") >= 30 and OUTCOMES.count("refused") >= 200  # both ends were met


def as_the_records_say(expected, table):
    records = [record for file in expected for record in read_shard(Path(file))]
    rows = {(r.dataset, r.backend, r.pair, r.method) for r in records}
    assert len(table) == len(rows)
    for row in table.to_dict("records"):
        mine = [r for r in records if (r.dataset, r.backend, r.pair, r.method) == tuple(
            row[k] for k in ("dataset", "backend", "pair", "method"))]  # fmt: skip
        good = [r.test for r in mine if r.status == "ok"]
        assert (row["n_ok"], row["n"]) == (len(good), len(mine))
        assert {r.metric for r in mine} == {row["metric"]}
        if good:
            assert all(score is not None and 0 <= score <= 1 for score in good)
            np.testing.assert_allclose(row["mean"], np.mean(good), rtol=1e-12)
        if len(good) > 1:
            np.testing.assert_allclose(row["std"], np.std(good, ddof=1), rtol=1e-9, atol=1e-15)


@cases(250)
@given(data=st.data())
def test_no_damaged_record_is_read_as_another(data):
    """Fault: bytes of a record's file, of one run or of a job, are changed, lost or added.

    Provoked: one change at a random place, 250 cases (hypothesis).
    Promised: an error that names the file, or the very same records.
    """
    with tempfile.TemporaryDirectory() as name:
        file, many = Path(name) / "seed-3.json", data.draw(st.booleans())
        if many:
            write_shard(file, RECORDS["kd"])
        else:
            write_record(file, RECORDS["kd"][3])
        content = file.read_bytes()
        begin = data.draw(st.integers(0, len(content) - 1))
        end = begin + data.draw(st.sampled_from([0, 1, 1, 1, 5, 10**6]))
        file.write_bytes(content[:begin] + data.draw(st.binary(max_size=2)) + content[end:])
        try:
            found = read_shard(file) if many else [read_record(file)]
        except RecordError as error:
            found, text = None, str(error)
        if found is None:
            assert "seed-3.json" in text
            return
        assert found == (RECORDS["kd"] if many else [RECORDS["kd"][3]])


@pytest.mark.parametrize("score", [-0.1, 1.5, float("nan"), float("inf")])
def test_a_score_that_is_none_is_no_record(score):
    with pytest.raises(ValueError, match="test"):
        record("kd", 0, test=score)


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"epochs": 10**30}, None), ({"params": -1}, None), ({"train_seconds": "inf"}, None),
        ({"reason": "\ud800"}, None),
        ({}, '{"test": NaN, "checksum": "0"}'), ({}, "[" * 100_000), ({}, '{"a": ' + "1" * 5000 + "}"),
    ],
)  # fmt: skip
def test_what_no_table_can_hold_is_refused_by_the_name_of_its_file(tmp_path, changes, text):
    file = tmp_path / "seed-0.json"
    content = RECORDS["kd"][0].model_dump(mode="json")
    file.write_text(text or json.dumps(sealed({**content, **changes})))
    with pytest.raises(RecordError, match=r"seed-0\.json: corrupt record"):
        read_record(file)


@pytest.mark.parametrize(
    "changes, problem",
    [
        ({"metric": "micro_f1"}, "metric and resplit are"),
        ({"method": "lsp"}, r"holds digits/pyg/gat/lsp/1 beside"),
        ({"status": "ok", "test": None}, "status ok, but no test value"),
    ],
)
def test_records_that_cannot_be_in_one_table_are_refused_by_the_name_of_their_file(tmp_path, changes, problem):
    contents = [record("kd", seed) for seed in range(3)]
    contents[1] = contents[1].model_copy(update=changes)
    write_shard(tmp_path / "kd.json", contents)
    expected = {str(tmp_path / "kd.json"): {"seeds": [0, 1, 2], "code": "c", "hyperparameters": digest({})}}
    with pytest.raises(RecordError, match=rf"kd\.json: .*{problem}"):
        collect(expected, [], ["kd"], *(str(tmp_path / name) for name in FILES))
