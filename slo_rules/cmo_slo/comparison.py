"""Hold a number against its target, and say it in words that never flatter it.

Numbers are compared as fractions: exactly 95 % is not above 95 %.
"""

from __future__ import annotations

import operator
from decimal import ROUND_FLOOR, Decimal
from typing import TYPE_CHECKING, Final

from cmo_slo.model import Operator
from cmo_slo.verdict import Status, exact

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from fractions import Fraction

    from cmo_slo.model import Objective
    from cmo_slo.verdict import Options

COMPARE: Final[Mapping[Operator, Callable[[Fraction, Fraction], bool]]] = {
    Operator.ABOVE: operator.gt,
    Operator.AT_LEAST: operator.ge,
    Operator.BELOW: operator.lt,
    Operator.AT_MOST: operator.le,
}


def cut_off(value: float, decimals: int) -> str:
    """A number cut off and not rounded: what is below a limit does not show as the limit."""
    shown = f"{value:.{decimals + 6}f}"  # so much that 1.1, which is no float, stays 1.1
    return str(Decimal(shown).quantize(Decimal(1).scaleb(-decimals), ROUND_FLOOR))


def percent(value: Fraction) -> str:
    """A ratio in per cent, cut off and not rounded, so that it never shows as a target that it misses."""
    hundredths = value * 10_000
    return f"{int(hundredths) // 100}.{int(hundredths) % 100:02d} %"


def held_against(options: Options, objective: Objective, value: Fraction, shown: str) -> tuple[Status, str]:
    """PASS, WARN or FAIL of a value in the objective's unit, and why; ``shown`` is the value in words."""
    target, band = exact(objective.target), exact(objective.warning_band)
    wanted = f"{objective.operator} {amount(objective, target)}"
    if not COMPARE[objective.operator](value, target):
        return Status.FAIL, f"{shown} is not {wanted}."
    if abs(value - target) >= band:
        return Status.PASS, f"{shown} is {wanted}."
    near = f"{shown} is {wanted}, but within {amount(objective, band)} of it"
    if options.strict:
        return Status.FAIL, f"{near}, which --strict does not allow."
    return Status.WARN, f"{near}."


def amount(objective: Objective, value: Fraction) -> str:
    """A value in the objective's unit, as people read it."""
    match objective.unit:
        case "ratio":
            return f"{float(value * 100):g} %"
        case "bytes":
            return f"{float(value / 10**6):g} MB"
        case _:
            return f"{float(value):g} {objective.unit}"
