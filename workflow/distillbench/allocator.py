"""How malloc treats what a training step frees."""

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # of malloc.h


def keep_freed_memory() -> bool:
    """Have malloc keep what is freed instead of returning it to the system, from here on, in this process.

    A training step frees and allocates the same hundreds of megabytes again and again, and where each of them is mapped
    anew, most of the time goes into page faults, as with PyG's GAT on a batch of PPI (benchmarks/RESULTS.md).

    Returns:
        Whether it does so now. With another C library than glibc there is nothing to set.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    # glibc up to 2.34 takes no threshold above 32 MB: there, nothing is mapped at all. One of both has to hold before
    # trimming is set, since that ends glibc's own adaptation of the threshold, at whose first value all would be mapped
    if not (mallopt(_MMAP_THRESHOLD, 1 << 30) or mallopt(_MMAP_MAX, 0)):
        return False
    return bool(mallopt(_TRIM_THRESHOLD, (1 << 31) - 1))
