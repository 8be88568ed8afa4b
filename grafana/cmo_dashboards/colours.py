"""Colours, and what they may say.

All are from Okabe and Ito's palette, which people with any colour vision can tell apart, with three more that
hold beside them. Each is fixed, so that a scenario looks the same on every panel. Verdict colours are given
only by `verdict_steps`, from an objective; its lowest step is always neutral, because that is the step that
Grafana uses for "no data".
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from cmo_slo.indicators import HeldLevelIndicator
from cmo_slo.model import UPWARD, Operator

if TYPE_CHECKING:
    from cmo_slo.model import Objective

PASS: Final = "#009E73"  # noqa: S105 - a colour
WARN: Final = "#E69F00"
FAIL: Final = "#D55E00"
NEUTRAL: Final = "#808080"

SERIES: Final = ("#0072B2", "#CC79A7", "#56B4E9", "#E69F00", "#F0E442")
"""Colours of series; the first is that of live traffic. Green and vermilion are left to verdicts."""

OUTCOMES: Final = {
    "success": PASS,
    "failure": FAIL,
    "error": FAIL,
    "timeout": WARN,
    "rejected": "#CC79A7",
    "cancelled": NEUTRAL,
}
"""Colours of what becomes of queries and calls; their names stand beside them."""
SOURCES: Final = {
    "cache": "#56B4E9",
    "lightrag": "#0072B2",
    "perplexity": "#CC79A7",
    "stale": WARN,
    "default": FAIL,
}
"""Colours of where answers come from; the last two are none."""

LINES: Final = tuple(colour for colour in SERIES if colour != WARN)
"""Colours of lines whose names are written in a panel, in their order: none that a verdict has."""
COMPONENTS: Final = {
    "lightrag": "#0072B2",
    "perplexity": "#CC79A7",
    "llm": "#56B4E9",
    "embedding": "#F0E442",
    "cache_l1": "#4B4BD0",
    "cache_l2": "#EE99AA",
    "cache_l3": "#DDCC77",
}
"""Colours of the components of the reference service; of a service with others, theirs are free."""
TIERS: Final = {"l1": "#4B4BD0", "l2": "#EE99AA", "l3": "#DDCC77", "lightrag": "#0072B2"}
"""Colours of cache tiers, each that of the component which it is."""
FREE: Final = "#7A8BB5"
"""Of series that may be called anything, instances for example, Grafana shows shades of this one colour: its
only mode without the green and the red of its palette, in which no line looks like a verdict."""

PALETTE: Final = tuple(
    sorted({PASS, WARN, FAIL, NEUTRAL, FREE, *SERIES, *COMPONENTS.values(), *TIERS.values()})
)
"""Every colour that a dashboard may have."""

_DECIMALS: Final = 12
_LOWEST: Final = -sys.float_info.max
"""Below this there is no value, only "no data"; memory may shrink, and that is no lack of data."""


@dataclass(frozen=True)
class Step:
    """A colour and the value from which it holds; ``None`` is minus infinity, and also "no data"."""

    value: float | None
    colour: str


def verdict_steps(objective: Objective, missed: str = FAIL) -> tuple[Step, ...]:
    """Colours of a value that is held against an objective, the warning band included.

    Grafana gives a colour to values *at or above* a step, so a strict ``>`` begins one representable number
    later: exactly 95 % is no pass of ``> 95 %``, here as in a verdict. So does the warning band below a
    target: a value that is exactly the band away from its target is no warning.

    Args:
        objective: what is promised.
        missed: colour of a value that misses; neutral where a miss may only mean that nobody asked for more.
    """
    edge, safe = pass_edge(objective), safe_edge(objective)
    if objective.operator in UPWARD:
        steps = [Step(None, NEUTRAL), Step(0.0, missed)]
        steps += [Step(edge, WARN), Step(safe, PASS)] if objective.warning_band else [Step(edge, PASS)]
        return tuple(steps)
    steps = [Step(None, NEUTRAL), Step(_LOWEST, PASS)]
    if objective.warning_band:
        steps.append(Step(math.nextafter(safe, math.inf), WARN))
    return (*steps, Step(edge, missed))


def budget_steps(objective: Objective) -> tuple[Step, ...]:
    """Colours of what is left of an error budget: the verdict on the ratio of its window, in other words.

    With a target of 95 %, 95.5 % of good events leave a tenth of the budget: a warning band of 0.5 points is
    one of a tenth here. Where nothing is left the target is met exactly, which a strict one does not allow.
    """
    edge = math.nextafter(0.0, math.inf) if objective.operator is Operator.ABOVE else 0.0
    steps = [Step(None, NEUTRAL), Step(_LOWEST, FAIL)]
    if objective.warning_band:
        # As fractions of the decimals in the file: 1 - 0.7 is not quite 0.3.
        safe = Fraction(str(objective.warning_band)) / (1 - Fraction(str(objective.target)))
        return (*steps, Step(edge, WARN), Step(float(safe), PASS))
    return (*steps, Step(edge, PASS))


def pass_edge(objective: Objective) -> float:
    """The first value at which the judgement of an objective changes, seen from below."""
    target = objective.target
    if isinstance(objective.indicator, HeldLevelIndicator):
        target = round(target * (1.0 - objective.indicator.tolerance), _DECIMALS)
    if objective.operator in (Operator.ABOVE, Operator.AT_MOST):
        return math.nextafter(target, math.inf)
    return target


def safe_edge(objective: Objective) -> float:
    """The value that is just the warning band away from its target, on the side of what meets it."""
    band = objective.warning_band if objective.operator in UPWARD else -objective.warning_band
    return round(objective.target + band, _DECIMALS)


def target_line(objective: Objective) -> tuple[Step, ...]:
    """One line at the target, and no colour for anything else."""
    return (Step(None, NEUTRAL), Step(objective.target, FAIL))


def colour_of(value: float, steps: tuple[Step, ...]) -> str:
    """The colour that Grafana gives to a value: that of the last step at or under it; NaN has the first."""
    colour = steps[0].colour
    for step in steps[1:]:
        if step.value is not None and value >= step.value:
            colour = step.colour
    return colour
