"""One computation done in several ways, timed in turn in one run.

Each way (`Side`) has a process of its own, since how malloc treats freed memory belongs to a process. All processes of
a case take one step each, again and again, in an order that rotates, so a slow minute of the machine is shared by all.
So do two processes that measure the machine itself: how fast it multiplies matrices, and how fast it copies memory.
"""

import gc
import multiprocessing
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from distillbench.allocator import keep_freed_memory
from distillbench.peak_memory import peak_memory_mb

Step = Callable[[], Tensor | None]
GEMM, COPY = 1024, 1 << 26  # rows and columns of the matrices; bytes: more than a cache holds


class Work(NamedTuple):
    """What a computation cannot do without: flops in dense products, and bytes read or written once each."""

    flops: float = 0
    bytes: float = 0


@dataclass(frozen=True)
class Side:
    """One way to do it.

    make: a function of a module, called with ``device`` and ``arguments`` in the side's process. It returns the step
    that is timed; a step's result, if it has one, has to agree with that of the other sides. malloc: "kept" is how a
    run of distillbench has it, "default" is what a script has that does not care. needs: a module without which the
    side is left out. cpu_only: it does not run on a GPU.
    """

    name: str
    make: Callable[..., Step]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    malloc: Literal["kept", "default"] = "kept"
    needs: str | None = None
    cpu_only: bool = False


@dataclass(frozen=True)
class Case:
    """Ours against others. targets: how many times faster ours has to be, one for each of them (None: nothing said).

    work: what ours has to do at least, for the distance from the machine's limit. tolerance: of the results, relative
    to the largest number in them (None: they are different quantities, and not compared).
    """

    name: str
    ours: Side
    others: Sequence[Side]
    targets: Sequence[float | None]
    work: Work | None = None
    tolerance: float | None = 1e-4


@dataclass
class Measured:
    """What a side did. seconds: of each step. memory_mb: at the peak of a step, beyond what is held before it.

    differs: largest difference from our result, relative to the largest number in ours. missing: why it did not run.
    """

    seconds: list[float] = field(default_factory=list)
    memory_mb: float = float("nan")
    differs: float | None = None
    missing: str = ""

    @property
    def median(self) -> float:
        """Seconds of a step."""
        return statistics.median(self.seconds)


@dataclass
class Result:
    """A case measured: ours, then the others; and the machine's rates meanwhile, medians of flop/s and byte/s."""

    case: Case
    sides: list[Measured]
    gemm: float
    bandwidth: float

    def ratio(self, other: int) -> float | None:
        """How many times as long as ours the other side takes: median over median."""
        side = self.sides[1 + other]
        return None if side.missing else side.median / self.sides[0].median

    @property
    def over_limit(self) -> float | None:
        """Ours over the time in which this machine could do the work: dense products, then memory traffic."""
        work = self.case.work
        if work is None:
            return None
        return self.sides[0].median / (work.flops / self.gemm + work.bytes / self.bandwidth)


def measure(case: Case, pairs: int, device: str) -> Result:
    """Run a case: ``pairs`` rounds of one step of each side, after warming up.

    Raises:
        RuntimeError: a side failed, or the sides do not agree.
    """
    sides = [case.ours, *case.others]
    measured = [Measured(missing=_missing(side, device)) for side in sides]
    if measured[0].missing:
        raise RuntimeError(f"{case.name}: {measured[0].missing}")
    running = [(_Process(side, device), m) for side, m in zip(sides, measured, strict=True) if not m.missing]
    machine = [_Process(Side(name, make), device) for name, make in (("gemm", _gemm), ("copy", _copy))]
    rates: tuple[list[float], list[float]] = ([], [])
    try:
        results = []
        for process, one in running:  # one at a time: the peak of memory is that of a machine with room
            one.memory_mb, result = process.ask("warm up")
            results.append(result)
        for (_, one), result in zip(running[1:], results[1:], strict=True):
            one.differs = _difference(case, results[0], result)
        for each in machine:
            each.ask("warm up")
        for turn in range(pairs):
            for place in range(len(running)):
                process, one = running[(place + turn) % len(running)]
                one.seconds.append(process.ask("step"))
            for rate, each, amount in zip(rates, machine, (2.0 * GEMM**3, 2.0 * COPY), strict=True):
                rate.append(amount / each.ask("step"))
    finally:
        for process in [*(process for process, _ in running), *machine]:
            process.stop()
    return Result(case, measured, statistics.median(rates[0]), statistics.median(rates[1]))


def _missing(side: Side, device: str) -> str:
    import importlib.util

    if side.needs and importlib.util.find_spec(side.needs) is None:
        return f"{side.needs} is not installed"
    return "only on a CPU" if side.cpu_only and device != "cpu" else ""


def _difference(case: Case, ours: Tensor | None, theirs: Tensor | None) -> float | None:
    if case.tolerance is None or ours is None or theirs is None:
        return None
    a, b = ours.double(), theirs.double()
    differs = ((a - b).abs().max() / a.abs().max().clamp_min(1e-30)).item()
    if not differs <= case.tolerance:
        raise RuntimeError(f"{case.name}: the results differ by {differs:.2g}, more than {case.tolerance:g}")
    return differs


class _Process:
    """A side at work in its process."""

    def __init__(self, side: Side, device: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, side, device), daemon=True)
        self._process.start()
        other.close()
        self._name = side.name

    def ask(self, what: str) -> Any:
        self._connection.send(what)
        try:
            failed, answer = self._connection.recv()
        except EOFError:
            self._process.join()
            raise RuntimeError(f"{self._name}: ended with exit status {self._process.exitcode}") from None
        if failed:
            raise RuntimeError(f"{self._name} failed:\n{answer}")
        return answer

    def stop(self) -> None:
        self._connection.close()
        self._process.terminate()
        self._process.join()


def _serve(connection: Connection, side: Side, device: str) -> None:
    torch.set_num_threads(1)
    if side.malloc == "kept":
        keep_freed_memory()
    step: Step | None = None
    while True:
        try:
            asked = connection.recv()
        except EOFError:
            return
        try:
            if asked == "warm up":
                step = side.make(device=torch.device(device), **side.arguments)
                result = step()  # the first call makes what stays: handles, the optimiser's state
                memory = peak_memory_mb(step, torch.device(device))
                step()
                connection.send((False, (memory, None if result is None else result.detach().cpu())))
            else:
                assert step is not None
                gc.collect()
                connection.send((False, _seconds(step, device)))
        except Exception:
            connection.send((True, traceback.format_exc()))


def _seconds(step: Step, device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    begun = time.perf_counter()
    step()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def _gemm(device: torch.device) -> Step:
    a, b = torch.randn(2, GEMM, GEMM, device=device)
    out = torch.empty_like(a)

    def step() -> None:
        torch.mm(a, b, out=out)

    return step


def _copy(device: torch.device) -> Step:
    a = torch.ones(COPY, dtype=torch.uint8, device=device)
    b = torch.empty_like(a)

    def step() -> None:
        b.copy_(a)

    return step


def say(result: Result) -> None:
    """A line of progress."""
    ratios = [
        f"{side.name}: {one.missing}" if one.missing else f"{side.name} × {one.median / result.sides[0].median:.2f}"
        for side, one in zip(result.case.others, result.sides[1:], strict=True)
    ]
    print(f"{result.case.name}: {1000 * result.sides[0].median:.1f} ms; {', '.join(ratios)}", file=sys.stderr)
