"""How much is searched: the same two thousand cases each time; with FUZZ=20 twenty times as many, drawn at random."""

import os

from hypothesis import HealthCheck, settings

TIMES = int(os.environ.get("FUZZ", "1"))


def cases(number: int) -> settings:
    """Settings of a test of so many cases."""
    return settings(
        max_examples=number * TIMES,
        derandomize=TIMES == 1,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
