"""Records: written whole or not at all, and never believed when altered."""

import json

import pytest

from distillbench.record import (
    Record,
    RecordError,
    digest,
    read_record,
    read_shard,
    write_atomically,
    write_record,
    write_shard,
)

RECORD = Record(
    key="k", dataset="digits", backend="pyg", pair="gat", method="lsp", role="student", seed=3, status="ok",
    task="multiclass", metric="accuracy", val=0.1 + 0.2, test=1 / 3, hyperparameters={"method": {"weight": 1e-7}},
)  # fmt: skip


def test_a_record_comes_back_as_it_was(tmp_path):
    write_record(tmp_path / "seed-3.json", RECORD)
    assert read_record(tmp_path / "seed-3.json") == RECORD
    write_shard(tmp_path / "records-0.json", [RECORD, RECORD.model_copy(update={"seed": 4})])
    assert [record.seed for record in read_shard(tmp_path / "records-0.json")] == [3, 4]


def test_a_record_cut_anywhere_is_named(tmp_path):
    """Fault: a record is cut short.

    Provoked: a record is cut at every seventh byte.
    Promised: it is refused by its name, with what to do.
    """
    path = tmp_path / "seed-3.json"
    write_record(path, RECORD)
    whole = path.read_bytes()
    for length in range(0, len(whole) - 2, 7):
        path.write_bytes(whole[:length])
        with pytest.raises(RecordError, match=r"seed-3\.json: corrupt record"):
            read_record(path)


def test_an_altered_record_is_named(tmp_path):
    """Fault: a record's content is altered, by a flipped bit or by hand.

    Provoked: a score of a stored record is changed; a field is added, with a checksum that matches.
    Promised: it is refused by its name: the checksum does not match, or it is no record of this version.
    """
    path = tmp_path / "seed-3.json"
    write_record(path, RECORD)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "test": 0.99}))
    with pytest.raises(RecordError, match="checksum"):
        read_record(path)
    fields = {**{name: value for name, value in content.items() if name != "checksum"}, "tset": 1}
    path.write_text(json.dumps({**fields, "checksum": digest(fields)}))
    with pytest.raises(RecordError, match="not a record of this version"):
        read_record(path)


def test_a_failed_write_leaves_the_old_content(tmp_path, monkeypatch):
    """Fault: a write fails half-way.

    Provoked: the write of a file that is there already raises an error.
    Promised: the old content is there, whole, and nothing else is left behind.
    """
    path = tmp_path / "table.csv"
    write_atomically(path, "old")

    def full(_: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("distillbench.record.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"]


def test_the_digest_does_not_depend_on_the_order_of_keys():
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 1.5})
