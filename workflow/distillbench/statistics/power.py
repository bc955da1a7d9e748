"""The power of the paired comparison, before there are runs: the smallest difference that so many seeds will show.

The verdict asks for two things, a p of step-down max-|t| and an interval without 0; the interval asks for more. So
power is that of the t test at the interval's level, taken to be alpha over the number of methods (Bonferroni), which is
a little more than the correlated methods of one teacher need. It knows nothing of the error of the test rows, which no
number of seeds takes away. Imports no torch.
"""

import math
from typing import TYPE_CHECKING

from scipy import stats
from scipy.optimize import brentq

from distillbench.params import MIN_CELLS as MIN_DATASETS
from distillbench.params import MIN_SEEDS, fewest_pairs
from distillbench.plan.sources import redraws

if TYPE_CHECKING:
    from distillbench.plan.plan import Plan

POWER = 0.8


def power(effect: float, n: int, level: float) -> float:
    """The chance that the two-sided paired t test of ``n`` seeds rejects at ``level``.

    The differences are normal with mean ``effect`` × their standard deviation, of either sign: t is noncentral with
    n - 1 degrees of freedom and noncentrality effect·√n. 0 for n < 2. Raises ValueError unless 0 < level < 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"alpha: {level:g} is not between 0 and 1")
    if n < 2:
        return 0.0
    critical, shift = stats.t.ppf(1 - level / 2, n - 1), abs(effect) * math.sqrt(n)
    towards, away = (
        float(tail) for tail in (stats.nct.sf(critical, n - 1, shift), stats.nct.sf(critical, n - 1, -shift))
    )
    # scipy's noncentral t is NaN in a tail that is full or empty
    return (1.0 if math.isnan(towards) else towards) + (0.0 if math.isnan(away) else away)


def smallest_detectable(n: int, std: float, *, methods: int = 1, alpha: float = 0.05, wanted: float = POWER) -> float:
    """The smallest mean difference that ``n`` seeds show with probability ``wanted``, in the unit of ``std``.

    ``std`` is the standard deviation of the paired differences, ``methods`` how many are compared with the baseline at
    ``alpha`` together. NaN where n is too small for any verdict. Raises ValueError unless 0 < alpha < wanted < 1.
    """
    if not 0 < alpha < wanted < 1:
        raise ValueError(f"power: {wanted:g} is not between alpha ({alpha:g}) and 1, or alpha is not above 0")
    if n < fewest_pairs(alpha):
        return math.nan
    level = alpha / methods
    high = 1.0
    while power(high, n, level) < wanted:
        high *= 2
    return float(brentq(lambda effect: power(effect, n, level) - wanted, 0.0, high, xtol=1e-9)) * std


def limits(plan: "Plan") -> list[str]:
    """What no outcome of the runs of a plan would show, in sentences."""
    seeds, alpha = plan.config.seeds, plan.config.compare.alpha
    needed = max(MIN_SEEDS, fewest_pairs(alpha))
    if seeds < needed:
        return [f"seeds: {seeds}: no verdict below {needed}: the tables will say `too few seeds` everywhere."]
    most = max((len(set(plan.methods_of(cell)) - {plan.config.compare.baseline}) for cell in plan.cells), default=1)
    reach = smallest_detectable(seeds, 1.0, methods=max(most, 1), alpha=alpha)
    lines = [
        f"{seeds} seeds, up to {max(most, 1)} methods beside the baseline: a true difference of {reach:.1f} standard "
        f"deviations of the paired differences is shown in 80% of such runs, a smaller one in fewer; with a deviation "
        f"of one point, {reach:.1f} points. The error of the test rows comes on top (docs/statistics.md)."
    ]
    one = [name for name in plan.config.datasets if not _draws_splits(plan, name)]
    if one:
        lines.append(f"One split for all seeds, so that results are about that split: {', '.join(one)}.")
    graphs = {plan.entry(name).dataset or name for name in plan.config.datasets}
    if len(graphs) < MIN_DATASETS:
        lines.append(f"{len(graphs)} data sets: nothing is tested across data sets below {MIN_DATASETS}.")
    return lines


def _draws_splits(plan: "Plan", dataset: str) -> bool:
    declared = plan.dataset_declaration(dataset)
    if redraws(declared):
        return bool(getattr(plan.dataset_params(dataset), "splits", None) == "random")
    return "draw_split" in declared.defines or bool(declared.attributes.get("splits"))
