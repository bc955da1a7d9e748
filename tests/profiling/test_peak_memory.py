"""The peak of memory: what a function needs while it runs, seen from a process that has done nothing."""

import multiprocessing
import os

import pytest
import torch

from distillbench.profiling.peak_memory import in_fresh_process, peak_memory_mb

CPU = torch.device("cpu")
# MB, of 32 or more: Linux (from 6.2 on) counts resident pages on each processor and adds them up in batches, so a
# reading is off by some tenths for each processor that the process has run on
OFF = 1


def needs(megabytes):
    """A function that needs so much while it runs, and holds nothing after."""
    return lambda: torch.ones(int(megabytes * 1e6 / 4)).sum()


def peak_of(megabytes):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    needs(4)()  # its code is read from disk, and pages of that count as resident: how many is the system's choice
    return peak_memory_mb(needs(megabytes), CPU)


def test_it_is_what_the_function_needed_and_no_more():
    assert in_fresh_process(peak_of, 256) == pytest.approx(256, abs=OFF)
    assert in_fresh_process(peak_of, 32) == pytest.approx(32, abs=OFF)


def with_a_peak_before():
    needs(200)()
    return peak_of(32)


def test_an_earlier_peak_does_not_count():
    assert in_fresh_process(with_a_peak_before) == pytest.approx(32, abs=OFF)


def test_on_a_gpu_it_is_the_rise_of_pytorchs_own_peak(monkeypatch):
    """Of a counter of bytes: an earlier peak of 9 MB, 2 MB held, of which the function makes 5 and frees all but 3."""
    gpu = {"held": 2_000_000, "peak": 9_000_000}
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: gpu.update(peak=gpu["held"]))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: gpu["held"])
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: gpu["peak"])
    assert peak_memory_mb(lambda: gpu.update(held=3_000_000, peak=5_000_000), torch.device("cuda")) == 3.0
    assert peak_memory_mb(lambda: None, torch.device("cuda")) == 0.0


def test_each_call_has_a_process_of_its_own_and_leaves_nothing_behind():
    threads = torch.get_num_threads()
    first, second = in_fresh_process(os.getpid), in_fresh_process(os.getpid)
    assert len({first, second, os.getpid()}) == 3
    in_fresh_process(torch.set_num_threads, threads + 1)
    assert torch.get_num_threads() == threads


def test_elsewhere_than_on_linux_it_is_a_new_interpreter(monkeypatch):
    monkeypatch.setattr("distillbench.profiling.peak_memory.sys.platform", "darwin")
    asked = []
    get_context = multiprocessing.get_context
    monkeypatch.setattr(multiprocessing, "get_context", lambda kind: asked.append(kind) or get_context("fork"))
    assert in_fresh_process(os.getpid) != os.getpid() and asked == ["spawn"]


def fails():
    raise ValueError("no such thing")


def test_a_failure_says_where_it_was():
    with pytest.raises(RuntimeError, match=r"(?s)a measurement failed:.*in fails.*ValueError: no such thing"):
        in_fresh_process(fails)


def test_a_killed_process_is_a_failure_too():
    with pytest.raises(RuntimeError, match="ended with exit status 9"):
        in_fresh_process(os._exit, 9)
