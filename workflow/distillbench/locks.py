"""Locks between processes that write into one folder."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

_NONE = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}  # what file systems without locks answer


class LockError(OSError):
    """The file system of a folder has no locks; the message names the lock's file and what to do."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of this file, waiting for whoever holds it. Raises LockError where there are no locks.

    A file in place of a lock would stay when a process is killed, and nobody on another machine could tell.
    """
    lock = FileLock(path, fallback_to_soft=False)
    try:
        lock.acquire()
    except OSError as error:
        if error.errno not in _NONE:
            raise
        raise LockError(
            f"{path}: the file system has no locks ({error.strerror}), so two jobs could write the same runs. Mount it"
            " with locks (NFS: without nolock; Lustre: with flock), or put `results` on another file system."
        ) from error
    try:
        yield
    finally:
        lock.release()
