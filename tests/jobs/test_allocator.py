"""malloc keeps what is freed, with the C library that is there."""

import ctypes
import itertools
import resource
import sys
from pathlib import Path

import pytest

from distillbench import allocator
from distillbench.peak_memory import in_fresh_process

TRIM, THRESHOLD, MAPS = -1, -3, -4


@pytest.mark.parametrize(
    "refused, settings, kept",
    [
        (set(), [THRESHOLD, TRIM], True),
        ({THRESHOLD}, [THRESHOLD, MAPS, TRIM], True),  # glibc up to 2.34
        ({THRESHOLD, MAPS}, [THRESHOLD, MAPS], False),  # the trim threshold alone would make all large tensors mapped
    ],
)
def test_what_is_set_where_a_setting_is_refused(monkeypatch, refused, settings, kept):
    asked = []

    class C:
        def __init__(self, name):
            assert name == "libc.so.6"

        def mallopt(self, setting, value):
            asked.append(setting)
            return int(setting not in refused)

    monkeypatch.setattr(ctypes, "CDLL", C)
    assert allocator.keep_freed_memory() is kept
    assert asked == settings


@pytest.mark.parametrize("error", [OSError("no such library"), AttributeError("mallopt")])
def test_another_c_library_is_left_alone(monkeypatch, error):
    def absent(name):
        raise error

    monkeypatch.setattr(ctypes, "CDLL", absent)
    assert allocator.keep_freed_memory() is False


def heap():
    """What Linux says of the heap's memory: flags of its largest part, and its size and resident part, kB."""
    allocator.keep_freed_memory()
    parts = Path("/proc/self/smaps").read_text().split("VmFlags:")
    found = [(part, after.splitlines()[0]) for part, after in itertools.pairwise(parts) if "[heap]" in part]
    figures = [
        {line.split()[0]: int(line.split()[1]) for line in part.splitlines() if line.startswith(("Size:", "Rss:"))}
        | {"flags": flags.split()}
        for part, flags in found
    ]
    return max(figures, key=lambda each: each["Size:"])


def heap_with_little_address_space():
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 28), used + (1 << 28)))
    return heap()


@pytest.mark.skipif(sys.platform != "linux", reason="/proc and madvise are Linux's")
def test_the_heap_asks_for_huge_pages_and_takes_address_space_alone():
    if not Path("/sys/kernel/mm/transparent_hugepage").exists():
        pytest.skip("this Linux has no huge pages to ask for")
    found = in_fresh_process(heap)
    assert "hg" in found["flags"]
    assert found["Size:"] > 1e6 and found["Rss:"] < found["Size:"] / 2
    assert in_fresh_process(heap_with_little_address_space)["Size:"] < 1e6  # and nothing fails
