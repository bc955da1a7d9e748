"""How malloc treats what a training step frees."""

import ctypes

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of malloc.h


def keep_freed_memory() -> None:
    """Have malloc keep what is freed instead of returning it to the system, from here on, in this process.

    A training step frees and allocates the same hundreds of megabytes again and again, and where each of them is mapped
    anew, most of the time goes into page faults, as with PyG's GAT on a batch of PPI (benchmarks/RESULTS.md). Not
    needed (and not there) with another C library than glibc.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        return
    libc.mallopt(_MMAP_THRESHOLD, 1 << 30)
    libc.mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)
