"""Shared file systems: without locks, and machines whose clocks differ."""

import errno
import fcntl
import os
import time

import pytest

from distillbench.locks import LockError
from tests.faults.conftest import prepare, results_of, run_job


@pytest.mark.parametrize("answer", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_the_file_system_has_no_locks(plan, monkeypatch, answer):
    """Fault: the file system of the results has no locks.

    Provoked: flock answers ENOLCK, ENOSYS or EOPNOTSUPP when a job begins.
    Promised: the job ends before it trains or writes anything, naming the file and what to do; with locks it then runs.
    """

    def flock(descriptor, operation):
        raise OSError(answer, os.strerror(answer))

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", flock)
        with pytest.raises(LockError, match=r"records-0\.lock: the file system has no locks"):
            run_job(plan)
    assert not list(plan.paths.root.rglob("seed-*")) and not list(plan.paths.root.rglob("records-0.json"))
    assert [record.status for record in run_job(plan)] == ["ok"] * 3


def test_files_are_of_another_time(plan):
    """Fault: clocks of the machines that share a folder differ, so files seem to be of the future or long past.

    Provoked: every file is dated a year ahead, then the data set ten years back, and the job is run again each time.
    Promised: no seed is trained again and the records stay, to the byte: what decides is content, not time.
    """
    run_job(plan, "teacher")
    first = results_of(run_job(plan, "kd"))
    files = [file for file in plan.paths.root.rglob("seed-*") if file.is_file()]
    contents = {file: file.read_bytes() for file in files}
    assert files
    for days in (365, -3650):
        for file in plan.paths.root.rglob("*"):
            moment = time.time() + 86400 * (days if "data" in file.parts or days > 0 else 0)
            os.utime(file, (moment, moment))
        prepare(plan)
        assert results_of(run_job(plan, "kd")) == first
        assert {file: file.read_bytes() for file in files} == contents
