"""Disks that are full, or cannot be written"""

import contextlib
import errno
import itertools
import resource
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from distillbench.config.config import ConfigError
from distillbench.jobs import train as jobs
from distillbench.plan.plan import Plan, make_plan
from distillbench.profiling.peak_memory import in_fresh_process
from distillbench.record import read_record, write_atomically
from distillbench.tracking.store import TrackingError
from distillbench.tracking.sync import sync
from distillbench.training import fit
from tests.faults.conftest import CELL, CONFIG, ROOT, plan_of, prepare, results_of, run_job
from tests.needs import excused_in_ci


@contextlib.contextmanager
def mounted(folder: Path, *options: str):
    """A file system of its own in memory; skips where none may be mounted."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(excused_in_ci("needs root with leave to mount a file system"))
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """A file that takes all the room there is."""
    filler = folder / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return filler


@pytest.fixture
def small(tmp_path, one_thread):
    """A plan whose results are on a small disk, with the data and the teachers; and what its job ends in elsewhere."""
    quiet = plan_of(tmp_path / "quiet/results")
    prepare(quiet)
    expected = results_of(run_job(quiet))
    with mounted(tmp_path / "small", "size=8m"):
        plan = plan_of(tmp_path / "small/results")
        prepare(plan)
        run_job(plan, "teacher")
        yield plan, expected


def filling_up(write: Callable[..., None], disk: Path, when: Callable[[int], bool]) -> Callable[..., None]:
    """``write``, for whose calls of certain numbers, from 1 on, the disk is full."""
    calls = itertools.count(1)

    def full(path, content):
        filler = fill(disk) if when(next(calls)) else None
        try:
            write(path, content)
        finally:
            if filler:
                filler.unlink()

    return full


def left_in(plan: Plan) -> set[str]:
    """What is in the job's folder, but empty files and the lock."""
    folder = plan.paths.runs(CELL, "supervised")
    return {file.name for file in folder.iterdir() if file.stat().st_size and not file.name.endswith(".lock")}


@pytest.mark.parametrize("name", ["write_atomically", "write_record", "write_shard"])
def test_the_disk_is_full_when_a_runs_files_are_written(small, monkeypatch, name):
    """Fault: the disk is full when a run's weights, its record, or the job's file of records is written.

    Provoked: the results folder is a small file system in memory, which is filled up before the first weights, before
    the second record, and before the file of records.
    Promised: the job fails with the file's name and the room that is left, nothing half-written is there, and once
    there is room a second run has the result of a quiet one, without training a finished seed again.
    """
    plan, expected = small
    disk, first = plan.paths.root.parent, {"write_atomically": 1, "write_record": 2, "write_shard": 1}[name]
    write = getattr(jobs, name)
    monkeypatch.setattr(jobs, name, filling_up(write, disk, lambda call: call == first))
    file = {"write_atomically": r"seed-0\.pt", "write_record": r"seed-1\.json", "write_shard": r"records-0\.json"}[name]
    with pytest.raises(OSError, match=rf"{file}: No space left on device, 0\.0 MB free") as caught:
        run_job(plan)
    assert caught.value.errno == errno.ENOSPC
    finished = {"write_atomically": 0, "write_record": 1, "write_shard": 3}[name]
    records = {name for name in left_in(plan) if name.endswith(".json")}
    assert records == {f"seed-{seed}.json" for seed in range(finished)}
    before = {name: (plan.paths.runs(CELL, "supervised") / name).stat().st_mtime_ns for name in records}
    assert results_of(run_job(plan)) == expected
    assert {name: (plan.paths.runs(CELL, "supervised") / name).stat().st_mtime_ns for name in records} == before


@pytest.mark.parametrize("room", [0, 1, 1000])
def test_a_write_that_finds_no_room_leaves_what_was_there(tmp_path, room):
    """Fault: the disk is full in the middle of a file.

    Provoked: the size of files is limited (ulimit -f) below that of the content.
    Promised: the old content is there, whole, nothing else is, and the error names the file.
    """
    path = tmp_path / "seed-0.json"
    write_atomically(path, "old")

    def write():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then the write fails instead
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
        try:
            write_atomically(path, b"x" * 5000)
        except OSError as error:
            return str(error)
        return "written"

    assert f"{path}: File too large" in in_fresh_process(write)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_checkpoint_that_finds_no_room_does_not_end_the_run(small, monkeypatch, caplog):
    """Fault: the disk is full when a checkpoint is written.

    Provoked: the results folder is a small file system in memory, which is filled up before every checkpoint.
    Promised: the run goes on without it, with the same result; the job's log says so.
    """
    plan, expected = small
    full = filling_up(fit.write_atomically, plan.paths.root.parent, lambda call: True)
    monkeypatch.setattr(fit, "write_atomically", full)
    assert results_of(run_job(plan)) == expected
    assert "no checkpoint is written" in caplog.text and "checkpoint.pt: No space left on device" in caplog.text


def test_the_results_folder_cannot_be_written(tmp_path):
    """Fault: the results folder, or the one above it, cannot be written.

    Provoked: it is a file system mounted read-only; it is a file.
    Promised: the config is refused before anything runs, with the folder and the reason.
    """
    planned = lambda results: make_plan({**CONFIG, "results": str(tmp_path / results)}, ["config.yaml"], ROOT)  # noqa: E731
    planned("new/results")
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"config\.yaml:\n  results: '.*/file/results': .*/file cannot be written to"):
        planned("file/results")
    with mounted(tmp_path / "fixed", "ro"):
        for results in ("fixed", "fixed/deep/results"):
            with pytest.raises(ConfigError, match=rf"results: '.*{results}': .*/fixed cannot be written to"):
                planned(results)


def test_records_stay_readable_on_a_full_disk(tmp_path, one_thread):
    """Fault: the disk fills up after some seeds are finished.

    Provoked: the disk is filled up when two of three seeds have records, and the job is run.
    Promised: the job fails, the two records are intact, and with room they are not trained again.
    """
    with mounted(tmp_path / "full", "size=8m"):
        plan = plan_of(tmp_path / "full/results", seeds=2)
        prepare(plan)
        run_job(plan)
        folder = plan.paths.runs(CELL, "supervised")
        before = {file: (file.stat().st_mtime_ns, read_record(file)) for file in folder.glob("seed-*.json")}
        filler = fill(tmp_path / "full")
        more = make_plan({**CONFIG, "results": str(plan.paths.root)}, [], ROOT)  # three seeds
        with pytest.raises(OSError, match="No space left on device"):
            run_job(more)
        filler.unlink()
        assert len(run_job(more)) == 3
        assert {file: (file.stat().st_mtime_ns, read_record(file)) for file in before} == before


def test_the_disk_is_full_when_mlflow_is_synced(tmp_path, one_thread):
    """Fault: the disk is full when MLflow's SQLite store is written.

    Provoked: the store is on a small file system in memory, which is filled up before and during a sync.
    Promised: the sync ends with an error that names the store, records are untouched, and with room the next sync
    writes every run, once.
    """
    with mounted(tmp_path / "small", "size=12m"):
        plan = plan_of(tmp_path / "small/results")
        prepare(plan)
        run_job(plan)
        before = {file: file.read_bytes() for file in plan.paths.records()}
        filler = fill(tmp_path / "small")
        with pytest.raises(TrackingError, match=r"(?s)mlflow/mlflow\.db: .*database or disk is full"):
            sync(plan.paths.root)
        assert {file: file.read_bytes() for file in plan.paths.records()} == before
        filler.unlink()
        assert sync(plan.paths.root) == (3, 0, 0, ())
        (plan.paths.runs(CELL, "supervised") / "seed-1.json").unlink()
        run_job(plan)  # another record of this seed: its run is written anew
        before = {file: file.read_bytes() for file in plan.paths.records()}
        fill(tmp_path / "small")
        with pytest.raises(TrackingError, match=r"(?s)mlflow/mlflow\.db: .*database or disk is full"):
            sync(plan.paths.root)
        filler.unlink()
        assert sync(plan.paths.root) == (0, 1, 2, ())
        assert sync(plan.paths.root) == (0, 0, 3, ())
        assert {file: file.read_bytes() for file in plan.paths.records()} == before
