"""malloc keeps what is freed, with the C library that is there."""

import ctypes
import json
import subprocess
import sys
from pathlib import Path

import pytest

from distillbench.training import allocator
from tests.needs import excused_in_ci

TRIM, THRESHOLD, MAPS = -1, -3, -4
WORKFLOW = Path(allocator.__file__).parents[2]


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


HEAP = """
import json, resource, sys
from pathlib import Path
from distillbench.training.allocator import keep_freed_memory
if sys.argv[1:]:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 28), used + (1 << 28)))
assert keep_freed_memory()
rest = Path("/proc/self/smaps").read_text().partition("[heap]")[2]
flags = [line for line in rest.splitlines() if line.startswith("VmFlags:")][0].split()
first = rest.partition("VmFlags:")[0]
sizes = {name: int(first.partition(name)[2].split()[0]) for name in ("Size:", "Rss:")}
print(json.dumps({**sizes, "flags": flags}))
"""


def heap(*arguments):
    """Size and resident part, kB, and flags of the heap of a new process."""
    command = [sys.executable, "-c", HEAP, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONPATH": str(WORKFLOW)})
    return json.loads(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux, for /proc and madvise")
def test_the_heap_asks_for_huge_pages_and_takes_address_space_alone():
    if not Path("/sys/kernel/mm/transparent_hugepage").exists():
        pytest.skip(excused_in_ci("needs a Linux with huge pages"))
    found = heap()
    assert "hg" in found["flags"]
    assert found["Size:"] > 1e6 and found["Rss:"] < found["Size:"] / 2
    assert heap("little address space")["Size:"] < 1e6  # and nothing fails
