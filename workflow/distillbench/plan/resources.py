"""What a job asks of a batch system or a cloud: memory, time, GPUs. Imports no torch.

From the config's own estimates (config.Resources) for its data set and pair, and the number of runs in a job. GPUs only
for backends that can use one. A local run asks for nothing: there the cores decide what runs side by side.
"""

import math
from typing import NamedTuple

from distillbench.config.config import Config, Resources
from distillbench.models.backends import runs_on_gpus
from distillbench.paths import Cell

USUAL = Resources(memory_mb=3000, run_minutes=10.0, gpus=0)
START_MINUTES = 5  # imports, data, writing
DATA_MINUTES = 30  # a download, mostly


class Demand(NamedTuple):
    """Of one job. memory_mb: MiB, as batch systems count them. minutes: of wall time."""

    memory_mb: int
    minutes: int
    gpus: int

    def at(self, attempt: int) -> "Demand":
        """For the n-th attempt at a job: n times the memory and the time."""
        return self._replace(memory_mb=attempt * self.memory_mb, minutes=attempt * self.minutes)


def estimate(*given: Resources) -> Resources:
    """The last of these estimates that gives a value, for each value; else USUAL's."""
    values = USUAL.model_dump()
    for resources in given:
        values |= resources.model_dump(exclude_none=True)
    return Resources(**values)


def demand(config: Config, cell: Cell, runs: int) -> Demand:
    """What a job with so many runs in a cell asks for. A run takes no longer than its time budget (run_seconds)."""
    entry = config.datasets[cell.dataset]
    found = estimate(config.resources, entry.resources, entry.pairs[cell.pair.partition("@")[0]].resources)
    assert found.memory_mb is not None and found.run_minutes is not None and found.gpus is not None
    each = min(found.run_minutes, config.execution.run_seconds / 60)
    gpus = found.gpus if found.gpus and runs_on_gpus(cell.backend) else 0
    return Demand(found.memory_mb, math.ceil(START_MINUTES + runs * each), gpus)


def data_demand(config: Config, dataset: str) -> Demand:
    """What the job that prepares a data set asks for."""
    found = estimate(config.resources, config.datasets[dataset].resources)
    assert found.memory_mb is not None
    return Demand(found.memory_mb, DATA_MINUTES, 0)
