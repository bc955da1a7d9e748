"""The memory that a forward pass needs at its peak, seen from a process that has done nothing before."""

import contextlib
import ctypes
import gc
import multiprocessing
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

_PR_SET_THP_DISABLE = 41  # of Linux's prctl.h


def in_fresh_process(work: Callable[..., Any], *arguments: Any) -> Any:
    """What ``work(*arguments)`` returns (picklable), run in a process that holds nothing but the imported libraries.

    On Linux the process is a fork: of a caller that has imported and not computed, as a job of the DAG has, its heap is
    as empty as a new interpreter's, and it is there within milliseconds. A new interpreter, as elsewhere, imports torch
    and a graph library first: 3 to 7 s of CPU, for each pass of each model. Of a caller that has computed, two things
    are no longer true: memory that it freed is reused unseen, and OpenMP's threads or a CUDA context do not survive a
    fork. So whoever measures measures in here, and the caller only waits.

    Raises:
        RuntimeError: ``work`` raised, with its traceback, or its process was killed.
    """
    # elsewhere a fork is not there, or not safe once a system's libraries have started threads
    context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, work, arguments))
    process.start()
    sender.close()
    try:
        failed, result = receiver.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"the process of a measurement ended with exit status {process.exitcode}") from None
    finally:
        receiver.close()
        process.join()
    if failed:
        raise RuntimeError(f"a measurement failed:\n{result}")
    return result


def _send(sender: Connection, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        sender.send((False, work(*arguments)))
    except Exception:
        sender.send((True, traceback.format_exc()))


def peak_memory_mb(run: Callable[[], Any], device: torch.device) -> float:
    """Memory that ``run`` needs at its peak, MB (10⁶ bytes), beyond what is held when it starts.

    On a GPU it is PyTorch's own counter of allocated memory; on a CPU, the rise of the process's resident memory
    (VmHWM), which knows nothing of what was freed and kept for reuse: call it before anything else has run. It is as
    exact as Linux counts, to some tenths of a megabyte for each processor that was used, and has pages of code that is
    read from disk for the first time. NaN where the system does not let a process reset that mark (only Linux does, and
    not in every container).
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return float(torch.cuda.max_memory_allocated(device) - before) / 1e6
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # glibc: give back what is free, so that using it again is seen
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return float("nan")
    _huge_pages(False)
    try:
        before = _status_kb("VmRSS")
        run()
        return max(0, _status_kb("VmHWM") - before) * 1024 / 1e6
    finally:
        _huge_pages(True)


def _huge_pages(allowed: bool) -> None:
    """Pages of 2 MB would round what is needed (and a heap may ask for them, see allocator)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_THP_DISABLE, int(not allowed), 0, 0, 0)


def _status_kb(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])
