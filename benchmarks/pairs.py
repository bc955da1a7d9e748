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
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from distillbench.models.backends import missing_reason
from distillbench.profiling.peak_memory import peak_memory_mb
from distillbench.training.allocator import keep_freed_memory

Malloc = Literal["kept", "default"]
Step = Callable[[], Sequence[Tensor] | None]
# rows and columns of the matrices; bytes: more than a cache holds, and on a GPU, more than it takes to begin
_GEMM, _COPY = {"cpu": 1024, "cuda": 8192}, {"cpu": 1 << 26, "cuda": 1 << 30}


class Work(NamedTuple):
    """What a computation cannot do without: flops in dense products, and bytes read or written once each."""

    flops: float = 0
    bytes: float = 0


@dataclass(frozen=True)
class Side:
    """One way to do it.

    make: a function of a module, called with ``device`` and ``arguments`` in the side's process. It returns the step
    that is timed; a step's results, if it has some, have to agree with those of the other sides. malloc: "kept" is how
    a run of distillbench has it, "default" is what a script has that does not care; on a GPU they are the same. needs:
    a library (pyg, dgl) without which the side is left out. cpu_only: it does not run on a GPU.
    """

    name: str
    make: Callable[..., Step]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    malloc: Malloc = "kept"
    needs: str | None = None
    cpu_only: bool = False


@dataclass(frozen=True)
class Case:
    """Ours against others. targets: how many times faster ours has to be, one for each of them (None: nothing said).

    memory_mb: how much memory ours may take where the other takes a gigabyte. work: called for what ours has to do at
    least, for the distance from the machine's limit. tolerance: of each of the results, relative to the largest number
    in it. Targets are for CPUs.
    """

    name: str
    ours: Side
    others: Sequence[Side]
    targets: Sequence[float | None]
    work: Callable[[], Work]
    tolerance: float = 1e-4
    memory_mb: float | None = None

    def on(self, device: str) -> "Case | None":
        """The case as it makes sense on a device; None where nothing is left of it."""
        if device == "cpu":
            return self
        others = [side for side in self.others if side.malloc == "kept" and not side.cpu_only]
        if self.ours.malloc != "kept" or not others:
            return None
        return replace(self, others=others, targets=[None] * len(others), memory_mb=None)


@dataclass
class Measured:
    """What a side did. seconds: of each step. memory_mb: at the peak of a step, beyond what is held before it.

    differs: largest difference from one of our results, relative to the largest number in it. missing: why it did not
    run, or to its end.
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
    work: Work

    def ratio(self, other: int) -> float | None:
        """How many times as long as ours the other side takes: median over median."""
        side = self.sides[1 + other]
        return None if side.missing else side.median / self.sides[0].median

    def spread(self, other: int) -> tuple[float, float] | None:
        """Quartiles of the ratio, round by round."""
        side, ours = self.sides[1 + other], self.sides[0]
        if side.missing or len(side.seconds) < 2:
            return None
        low, _, high = statistics.quantiles([b / a for a, b in zip(ours.seconds, side.seconds, strict=True)], n=4)
        return low, high

    @property
    def over_limit(self) -> float:
        """Ours over the time in which this machine could do the work: dense products, then memory traffic."""
        return self.sides[0].median / (self.work.flops / self.gemm + self.work.bytes / self.bandwidth)


def measure(case: Case, pairs: int, device: str) -> Result | None:
    """Run a case: ``pairs`` rounds of one step of each side, after warming up. None where ours cannot run here.

    A side that fails says so in its row, and the others go on.

    Raises:
        RuntimeError: ours failed, or another side does not agree with it.
    """
    sides = [case.ours, *case.others]
    measured = [Measured(missing=_missing(side, device)) for side in sides]
    if measured[0].missing:
        print(f"{case.name}: {case.ours.name}: {measured[0].missing}", file=sys.stderr)
        return None
    running = [(_Process(side, device), m) for side, m in zip(sides, measured, strict=True) if not m.missing]
    machine = [_Process(Side(name, make), device) for name, make in (("gemm", _gemm), ("copy", _copy))]
    rates: tuple[list[float], list[float]] = ([], [])
    try:
        ours: Sequence[Tensor] = ()
        for process, one in list(running):  # one at a time: the peak of memory is that of a machine with room
            try:
                one.memory_mb, results = process.ask("warm up")
            except RuntimeError as error:
                if one is measured[0]:
                    raise
                one.missing = f"failed: {str(error).strip().splitlines()[-1]}"
                running.remove((process, one))
                process.stop()
                continue
            if one is measured[0]:
                ours = results
            else:
                one.differs = _difference(case, ours, results)
        for each in machine:
            each.ask("warm up")
        for turn in range(pairs):
            for place in range(len(running)):
                process, one = running[(place + turn) % len(running)]
                one.seconds.append(process.ask("step"))
            amounts = (2.0 * _GEMM[device] ** 3, 2.0 * _COPY[device])
            for rate, each, amount in zip(rates, machine, amounts, strict=True):
                rate.append(amount / each.ask("step"))
    finally:
        for process in [*(process for process, _ in running), *machine]:
            process.stop()
    return Result(case, measured, statistics.median(rates[0]), statistics.median(rates[1]), case.work())


def _missing(side: Side, device: str) -> str:
    return (missing_reason(side.needs) if side.needs else None) or (
        "only on a CPU" if side.cpu_only and device != "cpu" else ""
    )


def _difference(case: Case, ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float | None:
    """The largest difference, tensor by tensor. Raises RuntimeError where it is more than the case tolerates."""
    differs = None
    for a, b in zip(ours, theirs, strict=True):
        one = ((a.double() - b.double()).abs().max() / a.double().abs().max().clamp_min(1e-30)).item()
        if not one <= case.tolerance:
            raise RuntimeError(f"{case.name}: results differ by {one:.2g}, more than {case.tolerance:g}")
        differs = max(one, differs or 0.0)
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
                results = step() or ()  # the first call makes what stays: handles, the optimiser's state
                memory = peak_memory_mb(step, torch.device(device))
                step()
                connection.send((False, (memory, [each.detach().cpu() for each in results])))
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
    a, b = torch.randn(2, _GEMM[device.type], _GEMM[device.type], device=device)
    out = torch.empty_like(a)

    def step() -> None:
        torch.mm(a, b, out=out)

    return step


def _copy(device: torch.device) -> Step:
    a = torch.ones(_COPY[device.type], dtype=torch.uint8, device=device)
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
