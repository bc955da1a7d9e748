"""The power of the signed-rank test, the smallest detectable difference, the seeds a difference needs.

Everywhere ``alpha`` is the level of ONE test at its hardest. In a cell of m methods that is the family's level over m,
Holm's first step: what is detectable at that level is detectable whatever the other methods do. Imports no torch.
"""

import math
from bisect import bisect_left
from functools import cache

import numpy as np
from numpy.typing import NDArray
from statsmodels.stats.power import TTestPower

from distillbench.params import fewest_pairs

POWER = 0.8
MOST_SEEDS = 1000  # who would need more is told so, not how many
SIMULATED = 30  # pairs, up to which power is simulated; from there on the approximation is as good, and free
SAMPLES = 20_000  # standard error of a power of 0.8: 0.003
AT_ONCE = 2_000


def power(effect: float, n: int, alpha: float) -> float:
    """The chance that the exact two-sided signed-rank test of ``n`` pairs rejects at level ``alpha``.

    The differences are normal with mean ``effect`` × their standard deviation (a standardised effect, either sign).
    Up to 30 pairs by simulation with a fixed generator, standard error at most 0.004. Above, by the test's asymptotic
    relative efficiency: as the t test of n · 3/π pairs (Noether, JASA 1987; by statsmodels), which differs from the
    simulation by less than 0.025 there (for alpha >= 0.0001). 0 where n is too small for the test ever to reject. Tied
    differences and zeros make the test weaker than this. Raises ValueError unless 0 < alpha < 1.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha: {alpha:g} is not between 0 and 1")
    shift = abs(effect)
    if n < fewest_pairs(alpha):
        return 0.0
    if n > SIMULATED:
        towards, away = (
            float(TTestPower().power(shift, n * 3 / math.pi, alpha / 2, alternative=side))
            for side in ("larger", "smaller")
        )  # apart, because scipy's noncentral t is NaN in a tail that is empty or full
        return (1.0 if math.isnan(towards) else towards) + (0.0 if math.isnan(away) else away)
    limits = _limits(n, critical_rank_sum(n, alpha))
    return float(2 - (np.searchsorted(limits, -shift, "right") + np.searchsorted(limits, shift, "right")) / len(limits))


def smallest_detectable(n: int, std: float, alpha: float, power: float = POWER) -> float:
    """The smallest mean difference that the test of ``n`` pairs finds with probability ``power``, in the unit of std.

    ``std`` is the standard deviation of the paired differences; see ``power`` for the rest. NaN where n is too small
    for the test ever to reject at ``alpha``, or std is unknown (NaN). Raises ValueError unless 0 < alpha < power < 1.
    """
    return _smallest_effect(n, alpha, power) * std


def seeds_needed(diff: float, std: float, alpha: float, power: float = POWER) -> int | None:
    """The smallest number of pairs of which the test finds a mean difference ``diff`` with probability ``power``.

    ``std`` is the standard deviation of the paired differences, in the unit of ``diff``. None where more than 1,000
    are needed, there is no difference, or either is unknown (NaN). With differences that do not vary (std 0), the
    smallest number with which the test can reject. Raises ValueError unless 0 < alpha < power < 1.
    """
    _check_levels(alpha, power)
    if diff == 0 or math.isnan(diff) or math.isnan(std):
        return None
    if std == 0:
        return fewest_pairs(alpha)
    tried = range(fewest_pairs(alpha), MOST_SEEDS + 1)
    found = bisect_left(tried, True, key=lambda n: abs(diff) / std >= _smallest_effect(n, alpha, power))
    return tried[found] if found < len(tried) else None


def critical_rank_sum(n: int, alpha: float) -> int:
    """The smallest rank sum of the positive differences, of ``n`` without ties, with a two-sided exact p <= ``alpha``.

    Built as in ``paired.signed_rank_p``. There is one where 2 / 2^n, the p of n differences of one sign, is <= alpha.
    """
    chance = np.ones(1)
    for rank in range(1, n + 1):
        chance = (np.pad(chance, (0, rank)) + np.pad(chance, (rank, 0))) / 2
    return int(np.flatnonzero(2 * chance[::-1].cumsum()[::-1] <= alpha)[0])


@cache
def _limits(n: int, critical: int) -> NDArray[np.float32]:
    """Sorted, of SAMPLES standard normal samples [n]: the shift below which the test does not reject upwards, negated.

    The positive rank sum of x is the number of its Walsh averages (x_i + x_j)/2, i <= j, above zero (Tukey 1949). So
    for x = z + shift the sum reaches ``critical`` where the critical-th largest Walsh average of z exceeds -shift:
    one sample answers for every effect, and power is monotone in it.
    """
    random = np.random.default_rng(0)
    i, j = np.triu_indices(n)
    place = len(i) - critical
    found = []
    for _ in range(SAMPLES // AT_ONCE):
        z = random.standard_normal((AT_ONCE, n), dtype=np.float32)
        found.append(np.partition((z[:, i] + z[:, j]) / 2, place, axis=1)[:, place])
    limits: NDArray[np.float32] = np.sort(np.concatenate(found))
    return limits


@cache
def _smallest_effect(n: int, alpha: float, wanted: float) -> float:
    """The standardised effect at which ``power`` reaches ``wanted``, never below it; NaN where it cannot."""
    _check_levels(alpha, wanted)
    if n < fewest_pairs(alpha):
        return math.nan
    low, high = 0.0, 1.0
    while power(high, n, alpha) < wanted:
        low, high = high, 2 * high
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle, n, alpha) >= wanted else (middle, high)
    return high


def _check_levels(alpha: float, wanted: float) -> None:
    if not 0 < alpha < wanted < 1:
        raise ValueError(f"power: {wanted:g} is not between alpha ({alpha:g}) and 1, or alpha is not above 0")
