"""malloc keeps what is freed, with the C library that is there."""

import ctypes

import pytest

from distillbench import allocator

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
