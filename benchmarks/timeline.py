"""Where the wall time of a finished run went: each core's seconds, from the last lines of the jobs' logs.

A run of W seconds on C cores has W × C core-seconds. A job holds one core from the start of its process to its end, a
profile all of them. What a job says of its time (distillbench.durations) is taken as said; no core held is idle.
"""

import itertools
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from distillbench.durations import read_spent

ASKED_FOR = ("training", "evaluation", "profiling")  # all else is overhead
TRAINED = ("teachers", "runs", "tuning")  # folders of logs whose jobs train
KINDS = {
    "data": "data sets",
    "profiles": "profiling",
    "collect.log": "collect",
    "compare.log": "compare",
    "figures": "figures",
    "report.log": "report",
    "track.log": "MLflow",
}  # of all others: further tables
PARTS = {
    "start": "start of jobs' processes",
    "library": "waiting for a library's import",
    "imports": "imports of modules",
    "data": "reading data",  # and what teachers left
    "training": "training",
    "evaluation": "evaluation",
    "pause": "pause before profiling",
    "writing": "writing records and weights",
}
IDLE = (
    "idle before the first job (Snakemake: imports, config, DAG)",
    "between jobs (Snakemake: scheduling, a process for each job that parses again)",
    "idle after the last run and profile",
    "idle after the last job",
)


class Job(NamedTuple):
    """A finished job: seconds since 1970, the cores it held, and seconds by what they were spent on."""

    began: float
    ended: float
    cores: int
    is_run: bool  # trains or profiles
    parts: dict[str, float]


def read_jobs(logs: Path, cores: int, since: float, until: float) -> list[Job]:
    """The jobs whose logs are below ``logs`` and that ran between two times (seconds since 1970), by their begin."""
    jobs = []
    for path in sorted(logs.rglob("*.log")):
        lines = path.read_text(encoding="utf-8").splitlines()
        spent = read_spent(lines[-1]) if lines else None
        if spent is None:
            continue
        ended = datetime.strptime(lines[-1][:23], "%Y-%m-%d %H:%M:%S,%f").timestamp()
        kind = path.relative_to(logs).parts[0]
        rest = "rest of jobs that train" if kind in TRAINED else KINDS.get(kind, "further tables")
        parts = {PARTS.get(name, rest): seconds for name, seconds in spent.parts.items()}
        is_run = kind in TRAINED or kind == "profiles"
        if since <= ended - spent.total and ended <= until + 0.001:
            held = cores if kind == "profiles" else 1
            jobs.append(Job(ended - spent.total, ended, held, is_run, parts))
    return sorted(jobs, key=lambda job: job.began)


def core_seconds(jobs: Sequence[Job], cores: int, began: float, ended: float) -> dict[str, float]:
    """Core-seconds by what they went into; they add up to ``cores`` × the wall time, if no more jobs ran than cores."""
    spent: dict[str, float] = {}
    for job in jobs:
        for name, seconds in job.parts.items():
            spent[name] = spent.get(name, 0.0) + seconds * job.cores
    first = min((job.began for job in jobs), default=ended)
    last_run = max((job.ended for job in jobs if job.is_run), default=first)
    last = max((job.ended for job in jobs), default=ended)
    limits = [began, first, last_run, last, ended]
    for name, (low, high) in zip(IDLE, itertools.pairwise(limits), strict=True):
        spent[name] = idle(jobs, cores, low, high)
    return spent


def idle(jobs: Sequence[Job], cores: int, low: float, high: float) -> float:
    """Core-seconds between two times in which no job held the core."""
    times = sorted({low, high, *(t for job in jobs for t in (job.began, job.ended) if low < t < high)})
    total = 0.0
    for a, b in itertools.pairwise(times):
        held = sum(job.cores for job in jobs if job.began <= a and job.ended >= b)
        total += max(0, cores - held) * (b - a)
    return total


def overhead(spent: dict[str, float]) -> float:
    """The share of all core-seconds that were neither training, nor evaluation, nor profiling."""
    return 1 - sum(spent.get(name, 0.0) for name in ASKED_FOR) / sum(spent.values())
