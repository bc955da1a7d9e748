"""How malloc treats what a training step frees."""

import contextlib
import ctypes
from pathlib import Path

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # of malloc.h
_HUGEPAGE = 14  # of madvise, sys/mman.h
_HEAP = 1 << 30  # bytes of address space that the heap is given at once


def keep_freed_memory() -> bool:
    """Have malloc keep what is freed instead of returning it to the system, from here on, in this process.

    A training step frees and allocates the same hundreds of megabytes again and again, and where each of them is mapped
    anew, most of the time goes into page faults, as with PyG's GAT on a batch of PPI (benchmarks/RESULTS.md).

    Returns:
        Whether it does so now. With another C library than glibc there is nothing to set.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
        mallopt = libc.mallopt
    except (OSError, AttributeError):
        return False
    # glibc up to 2.34 takes no threshold above 32 MB: there, nothing is mapped at all. One of both has to hold before
    # trimming is set, since that ends glibc's own adaptation of the threshold, at whose first value all would be mapped
    if not (mallopt(_MMAP_THRESHOLD, 1 << 30) or mallopt(_MMAP_MAX, 0)):
        return False
    if not mallopt(_TRIM_THRESHOLD, (1 << 31) - 1):
        return False
    with contextlib.suppress(OSError, AttributeError):
        _ask_for_huge_pages(libc)
    return True


def _ask_for_huge_pages(libc: ctypes.CDLL) -> None:
    """Have the heap made of pages of 2 MB where Linux grants them on request: features of nodes are read and written at
    places all over it, and each small page is looked up by itself. A tenth of the time of PyG's step is in that.

    Address space alone is taken, no memory. Where there is less of it to be had nothing changes.
    """
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
    libc.free.argtypes = (ctypes.c_void_p,)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    libc.free(libc.malloc(_HEAP - (1 << 16)))  # the heap keeps it, for nothing is trimmed any more
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith("[heap]"):
            begin, end = (int(address, 16) for address in line.split()[0].split("-"))
            libc.madvise(begin, end - begin, _HUGEPAGE)
