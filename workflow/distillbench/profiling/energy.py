"""The energy of one forward pass, by codecarbon's offline tracker (``pip install 'distillbench[energy]'``)."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from distillbench.profiling.exported import short_reason

SECONDS = 3.0  # codecarbon samples the power once a second
_JOULES_PER_KWH = 3.6e6


class Energy(NamedTuple):
    """joules: of one call, of the whole machine (CPU, memory, GPU); None where ``status`` says why not."""

    status: str
    joules: float | None = None


def energy_of(run: Callable[[], Any], country: str, seconds: float = SECONDS) -> Energy:
    """Call ``run`` for ``seconds`` under the tracker. country: ISO code of three letters, which the tracker asks for.

    The power is what codecarbon finds: measured where it may read the processor's counters (RAPL needs permission),
    else an estimate from the processor's model and its load.
    """
    try:
        from codecarbon import OfflineEmissionsTracker
    except ModuleNotFoundError:
        return Energy("codecarbon is not installed: pip install 'distillbench[energy]'")
    except Exception as error:  # one that does not import
        return Energy(f"codecarbon: {short_reason(error)}")
    try:
        tracker = OfflineEmissionsTracker(
            country_iso_code=country,
            save_to_file=False,
            log_level="critical",
            measure_power_secs=1,
            allow_multiple_runs=True,
        )
        tracker.start()
        try:
            calls, begun = 0, time.perf_counter()
            while calls == 0 or time.perf_counter() - begun < seconds:
                run()
                calls += 1
        finally:
            tracker.stop()  # its threads, too; it hides what goes wrong in it, and then has no data
        joules = tracker.final_emissions_data.energy_consumed * _JOULES_PER_KWH / calls
    except Exception as error:  # it reads drivers, files of the system and a country's data: a job is not to end by it
        return Energy(f"codecarbon: {short_reason(error)}")
    return Energy("ok", joules) if joules > 0 else Energy("codecarbon found no power that it could read or estimate")
