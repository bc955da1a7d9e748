"""Going on after a kill: a run resumed from a checkpoint is the uninterrupted one, and no damaged one is used."""

import pytest

from distillbench.training.fit import Checkpointing

from .conftest import SETTINGS, assert_same


class Killed(BaseException):
    pass


def kill_after(epoch):
    def progress(row, best_epoch):
        if row["epoch"] == epoch:
            raise Killed

    return progress


@pytest.mark.parametrize("method", ["supervised", "fitnet"])
@pytest.mark.parametrize("task, clouds", SETTINGS)
def test_a_run_resumed_from_a_checkpoint_is_the_uninterrupted_one_bit_for_bit(run_of, tmp_path, task, clouds, method):
    whole, killed, resumed = (run_of(task, clouds, method) for _ in range(3))
    fit_whole = whole.fit(7)
    checkpointing = Checkpointing(tmp_path / "c.pt", "key", every=0.0)
    with pytest.raises(Killed):
        killed.fit(7, checkpointing=checkpointing, progress=kill_after(4))
    epochs = []
    fit_resumed = resumed.fit(7, checkpointing=checkpointing, progress=lambda row, best: epochs.append(row["epoch"]))
    assert epochs == [4, 5, 6, 7]  # the epoch it was killed in was not saved yet
    assert_same(whole, resumed, fit_whole, fit_resumed)


def test_a_finished_run_that_is_resumed_trains_no_more(run_of, tmp_path):
    checkpointing = Checkpointing(tmp_path / "c.pt", "key", every=0.0)
    first, again = run_of("multiclass"), run_of("multiclass")
    fit_first = first.fit(3, checkpointing=checkpointing)
    epochs = []
    fit_again = again.fit(3, checkpointing=checkpointing, progress=lambda row, best: epochs.append(row["epoch"]))
    assert epochs == []
    assert_same(first, again, fit_first, fit_again)


def damaged(content):
    return {
        "of another run": None,
        "empty": b"",
        "cut short": content[: len(content) // 2],
        "not a checkpoint": b"hello",
        "with bits flipped": content[:2000] + bytes(b ^ 255 for b in content[2000:2100]) + content[2100:],
    }


@pytest.mark.parametrize("damage", list(damaged(b"")))
def test_a_checkpoint_that_is_not_ours_or_damaged_is_ignored(run_of, tmp_path, damage):
    """Fault: a checkpoint is damaged, or of another run.

    Provoked: a checkpoint is cut, emptied, replaced by text, has bits flipped, or is of another key.
    Promised: it is ignored, and the run starts anew with the same result.
    """
    path = tmp_path / "c.pt"
    run_of("multiclass").fit(3, checkpointing=Checkpointing(path, "key", every=0.0))
    content = damaged(path.read_bytes())[damage]
    if content is not None:
        path.write_bytes(content)
    whole, other, epochs = run_of("multiclass"), run_of("multiclass"), []
    checkpointing = Checkpointing(path, "another key" if content is None else "key", every=1e9)
    found = other.fit(4, checkpointing=checkpointing, progress=lambda row, best: epochs.append(row["epoch"]))
    assert epochs == [1, 2, 3, 4]
    assert_same(whole, other, whole.fit(4), found)


def test_no_flipped_bit_goes_unnoticed(run_of, tmp_path):
    """Fault: a bit of a checkpoint is flipped.

    Provoked: bits all over a checkpoint are flipped, one at a time.
    Promised: the checkpoint is ignored each time.
    """
    path = tmp_path / "c.pt"
    run = run_of("multiclass")
    run.fit(1, checkpointing=Checkpointing(path, "key", every=0.0))
    content = path.read_bytes()
    for place in range(0, len(content), len(content) // 20):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        epochs = []
        run.fit(1, checkpointing=Checkpointing(path, "key"), progress=lambda row, best, e=epochs: e.append(1))
        assert epochs == [1], place


def test_no_checkpoint_is_written_before_its_time(run_of, tmp_path):
    run_of("multiclass").fit(3, checkpointing=Checkpointing(tmp_path / "c.pt", "key", every=1e9))
    assert list(tmp_path.iterdir()) == []
