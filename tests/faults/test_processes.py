"""Processes that are killed, and clocks that jump"""

import itertools
import random
import shutil
import time
from datetime import UTC, datetime, timedelta

import torch

from distillbench.record import read_record
from tests.faults.conftest import CELL, plan_of, prepare, results_of, run_job, started


def single_threaded(work, *arguments):
    torch.set_num_threads(1)  # OpenMP's threads do not survive a fork
    work(*arguments)


def test_a_training_process_is_killed_at_random_moments(plan, tmp_path):
    """Fault: a training process is killed (SIGKILL) at a random moment.

    Provoked: a job of three seeds is killed at 20 moments drawn over the time it takes, and started again each time.
    Promised: no record is half-written, a finished seed is not trained again, and the results are those of a quiet run.
    """
    quiet_plan = plan_of(tmp_path / "quiet/results")
    prepare(quiet_plan)
    begun = time.monotonic()
    process = started(single_threaded, run_job, quiet_plan)
    process.join()
    seconds = time.monotonic() - begun
    assert process.exitcode == 0
    quiet = results_of(run_job(quiet_plan))  # of what is on disk

    folder, moments = plan.paths.runs(CELL, "supervised"), random.Random(0)
    before = {}
    killed = with_a_seed = finished = 0
    while killed < 20 or with_a_seed < 3 or finished < 1:  # until there was something to lose
        assert killed < 100
        process = started(single_threaded, run_job, plan)
        process.join(moments.uniform(0, seconds))
        alive = process.is_alive()
        killed += alive
        process.kill()
        process.join()
        now = {file: (file.stat().st_mtime_ns, read_record(file)) for file in folder.glob("seed-*.json")}
        assert {file: now[file] for file in before} == before
        with_a_seed += 0 < len(now) < 3
        if alive == (len(now) == len(before)):  # the machine is slower, or faster, than it was
            seconds *= 1.1 if alive else 1 / 1.1
        before = now
        if len(now) == 3:
            finished += 1
            assert results_of(run_job(plan)) == quiet
            assert not [file for file in folder.iterdir() if ".checkpoint." in file.name]  # nor a draft of one
            shutil.rmtree(folder)
            before = {}


def test_a_process_is_killed_between_a_record_and_the_end_of_its_checkpoint(plan):
    """Fault: a training process is killed (SIGKILL) just after it wrote a record, with the checkpoint still there.

    Provoked: a finished seed has a checkpoint beside its record when its job runs again.
    Promised: the record is used, and the checkpoint is gone.
    """
    prepare(plan)
    before = results_of(run_job(plan))
    left = plan.paths.runs(CELL, "supervised") / "seed-2.checkpoint.pt"
    left.write_bytes(b"half of a run")
    assert results_of(run_job(plan)) == before and not left.exists()


def test_the_clock_jumps_in_the_middle_of_a_run(plan, monkeypatch):
    """Fault: the system's clock jumps by a day, back or ahead, while a run trains.

    Provoked: every clock of the system but the one that never jumps does so before each reading, once into the past,
    then into the future.
    Promised: no time budget is exceeded by it, durations are those of a clock that never jumps, no run ends before it
    began, and results are the same.
    """
    quiet = results_of(run_job(plan))
    shutil.rmtree(plan.paths.runs(CELL, "supervised"))
    for days in (-1, 1):
        readings, jumps = iter(range(1, 100)), itertools.count(1)
        now = datetime.now(UTC)
        dated = lambda now=now, days=days, readings=readings: (now + timedelta(days=days * next(readings))).isoformat(  # noqa: E731
            timespec="milliseconds"
        )
        monkeypatch.setattr("distillbench.jobs.train.utc_now", dated)
        monkeypatch.setattr(time, "time", lambda days=days, jumps=jumps: 1e9 + 86400 * days * next(jumps))
        records = run_job(plan)
        shutil.rmtree(plan.paths.runs(CELL, "supervised"))
        assert results_of(records) == quiet
        for record in records:
            length = datetime.fromisoformat(record.ended) - datetime.fromisoformat(record.started)
            assert timedelta(0) <= length < timedelta(hours=1)
            assert 0 < record.train_seconds < 3600
