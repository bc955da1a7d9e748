"""Where a job's time goes: seconds by what it was spent on, the last line of its log.

    took 12.3 s: start 0.61, library 4.10, imports 0.31, data 0.10, training 6.02, evaluation 1.00, writing 0.11,
    rest 0.05

start: from the process that Snakemake made to the call of the job's function. library: waiting for the process that has
the graph library imported. imports: of modules, the graph library's among them where no process had it. data: reading a
data set or what a teacher left. evaluation: on validation, and the look at the test part. pause: for the machine to be
watched before a profile. rest: all else.
A process is one job, so there is one account. Importing this module imports nothing but the standard library.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

_seconds: dict[str, float] = {}
_outer: list[str] = []  # of what is being spent, the innermost last
_since = 0.0
_LINE = re.compile(r"took ([\d.]+) s: (.*)$")


class Spent(NamedTuple):
    """Seconds of a whole job, and of its parts by name."""

    total: float
    parts: dict[str, float]


@contextmanager
def spending(what: str) -> Iterator[None]:
    """Count the time spent here as ``what``; time that is spent on something else within it is not part of it."""
    _account()
    _outer.append(what)
    try:
        yield
    finally:
        _account()
        _outer.pop()


def _account() -> None:
    global _since
    now = time.monotonic()
    if _outer:
        _seconds[_outer[-1]] = _seconds.get(_outer[-1], 0.0) + now - _since
    _since = now


def spent_line(total: float, before: dict[str, float]) -> str:
    """The line that sums a job of ``total`` seconds up; ``before``: parts from before this process."""
    parts = before | _seconds
    parts["rest"] = max(0.0, total - sum(parts.values()))
    return f"took {total:.2f} s: {', '.join(f'{name} {seconds:.2f}' for name, seconds in parts.items())}"


def read_spent(line: str) -> Spent | None:
    """What a line of a log says, if it is such a line."""
    found = _LINE.search(line)
    if not found:
        return None
    parts = (part.rsplit(" ", 1) for part in found[2].split(", "))
    return Spent(float(found[1]), {name: float(seconds) for name, seconds in parts})
