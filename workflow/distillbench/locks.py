"""Locks between processes that write into one folder."""

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

log = logging.getLogger(__name__)

_NONE = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}  # what file systems without locks answer


class LockError(OSError):
    """The file system of a folder has no locks; the message names the lock's file and what to do."""


class BusyError(OSError):
    """Somebody else holds a lock that is not waited for."""


@contextmanager
def locked(path: Path, *, busy: str = "", wait: bool = True) -> Iterator[None]:
    """Hold the lock of this file, waiting for whoever holds it; ``busy`` is what to say of them.

    Raises LockError where there are no locks, and BusyError where somebody holds it and is not to be waited for.
    A file in place of a lock would stay when a process is killed, and nobody on another machine could tell.
    """
    lock = FileLock(path, fallback_to_soft=False)
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            if not wait:
                raise BusyError(busy) from error
            if busy:
                log.warning(busy)
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
