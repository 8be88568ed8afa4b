"""A threshold that no value can pass: an alert that looks like protection and can never fire.

Multi-window burn rates were made for targets of 99.9 %: at 70 % the usual 14.4 and 6 ask for an error ratio
of 4.32 and 1.8. Neither Sloth nor Pyrra says so.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from cmo_slo.checks.bounds import BoundsFinder, Evidence
from cmo_slo.checks.finding import Reporter, rules_in
from cmo_slo.checks.promql import (
    Aggregate,
    Binary,
    Call,
    Expression,
    children,
    constant,
    selectors,
    shown,
    walk,
)
from cmo_slo.checks.series import RecordedSeries

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cmo_slo.checks.bounds import Bounds
    from cmo_slo.checks.context import Context
    from cmo_slo.checks.finding import Finding, Place
    from cmo_slo.checks.rules import RuleDocument

_REPORT: Final = Reporter("attainability")
# A quantile from here on is percent; nobody means 1.5 as such.
_LEAST_PERCENT: Final = 10
_MIRRORED: Final = {">": "<", ">=": "<=", "<": ">", "<=": ">=", "==": "==", "!=": "!="}


def check(documents: Sequence[RuleDocument], context: Context) -> Iterator[Finding]:  # noqa: ARG001
    """Every comparison that lets only some values through, in alerts and in recording rules."""
    finder = BoundsFinder(RecordedSeries(documents))
    for place, _, rule in rules_in(documents):
        if rule.expression is not None:
            dead = rule.alert is not None and not _can_give(rule.expression, finder)
            consequence = ", so the alert never fires" if dead else ""
            yield from _quantiles(place, rule.expression)
            for comparison, excluded in _comparisons(rule.expression, excluded=False):
                yield from _comparison(place, comparison, finder, consequence, excluded=excluded)


def _quantiles(place: Place, expression: Expression) -> Iterator[Finding]:
    """Every quantile beyond 0 and 1, mostly meant as percent: it is infinite, whatever is measured."""
    for node in dict.fromkeys(walk(expression)):
        match node:
            case Call(function="histogram_quantile" | "quantile_over_time"):
                level = constant(node.arguments[0])
            case Aggregate(operator="quantile", parameter=parameter) if parameter is not None:
                level = constant(parameter)
            case _:
                continue
        if level is None or math.isnan(level) or 0 <= level <= 1:
            continue
        end = "+Inf" if level > 1 else "-Inf"
        mend = f"write {level / 100:g}" if _LEAST_PERCENT <= level <= 100 else "correct it"
        yield _REPORT.error(
            place,
            f"`{shown(node)}` is {end} whatever is measured: it asks for the quantile {level:g}",
            f"expected a quantile from 0 to 1; {mend}",
        )


def _comparisons(expression: Expression, *, excluded: bool) -> Iterator[tuple[Binary, bool]]:
    """Every comparison that filters, and whether it only chooses what `unless` leaves out."""
    if isinstance(expression, Binary):
        if expression.filters:
            yield expression, excluded
        yield from _comparisons(expression.left, excluded=excluded)
        # What `unless` excludes may well never be there: then it only does nothing.
        excludes = expression.operator == "unless"
        yield from _comparisons(expression.right, excluded=excluded or excludes)
        return
    for inner in children(expression):
        yield from _comparisons(inner, excluded=excluded)


def _can_give(expression: Expression, finder: BoundsFinder) -> bool:
    """Whether an expression can ever have a result, as far as its comparisons go."""
    match expression:
        case Binary(operator="and"):
            return _can_give(expression.left, finder) and _can_give(expression.right, finder)
        case Binary(operator="or"):
            return _can_give(expression.left, finder) or _can_give(expression.right, finder)
        case Binary(operator="unless"):
            return _can_give(expression.left, finder)
        case Binary() if expression.filters:
            operator, value, limit = _told(expression)
            passes = _can_pass(operator, finder.of(value), finder.of(limit))
            return passes and _can_give(value, finder)
        case Aggregate():
            return _can_give(expression.expression, finder)
    return True


def _told(comparison: Binary) -> tuple[str, Expression, Expression]:
    """Operator, value and limit, in this order also where the limit stands first."""
    if constant(comparison.left) is not None:
        return _MIRRORED[comparison.operator], comparison.right, comparison.left
    return comparison.operator, comparison.left, comparison.right


def _comparison(
    place: Place, comparison: Binary, finder: BoundsFinder, consequence: str, *, excluded: bool
) -> Iterator[Finding]:
    operator, value, limit = _told(comparison)
    bounds, limits = finder.of(value), finder.of(limit)
    if _can_pass(operator, bounds, limits):
        return
    asked = f"`{shown(value, 60)} {operator} {shown(limit, 30)}`"
    reason = f"{_reach(bounds)}, and the limit is {_limit(limit, limits)}"
    wrong = f"{asked} can never be true: {reason}{consequence}"
    if excluded:
        mend = "expected an exclusion that can happen; correct the limit, or delete it"
        yield _REPORT.warning(place, wrong, mend)
    elif max(bounds.evidence, limits.evidence) is Evidence.NAME:
        mend = "expected a limit within reach, if the name says what it is; lower it"
        yield _REPORT.warning(place, wrong, mend)
    else:
        burns = bounds.evidence is Evidence.GENERATOR or _looks_like_a_burn_rate(place, value, limit)
        yield _REPORT.error(place, wrong, _mend(operator, bounds, burns=burns))


def _looks_like_a_burn_rate(place: Place, value: Expression, limit: Expression) -> bool:
    """Whether a limit is a factor times a budget, or a name says that a budget burns."""
    names = [place.rule.name if place.rule else "", *(selector.name for selector in selectors(value))]
    return any("burn" in name.lower() for name in names) or (
        isinstance(limit, Binary) and limit.operator == "*"
    )


def _can_pass(operator: str, value: Bounds, limit: Bounds) -> bool:
    match operator:
        case ">":
            return value.high > limit.low
        case ">=":
            return value.high >= limit.low
        case "<":
            return value.low < limit.high
        case "<=":
            return value.low <= limit.high
        case "==":
            return value.low <= limit.high and limit.low <= value.high
    return not value.low == value.high == limit.low == limit.high


def _reach(bounds: Bounds) -> str:
    by = "" if bounds.evidence is Evidence.STRUCTURE else ", by its name,"
    if bounds.low == bounds.high:
        return f"the value{by} is always {bounds.low:g}"
    if math.isinf(bounds.low):
        return f"the value{by} is at most {bounds.high:g}"
    if math.isinf(bounds.high):
        return f"the value{by} is never below {bounds.low:g}"
    return f"the value{by} lies from {bounds.low:g} to {bounds.high:g}"


def _limit(limit: Expression, limits: Bounds) -> str:
    number = constant(limit)
    if number is None:
        return f"{limits.low:g} to {limits.high:g}"
    return f"{shown(limit)} = {number:g}" if isinstance(limit, Binary) else f"{number:g}"


def _mend(operator: str, bounds: Bounds, *, burns: bool) -> str:
    if operator in (">", ">=") and bounds.high == 1:
        if burns:
            return (
                "expected a limit below 1; a burn-rate factor needs factor * (1 - target) < 1, so page on "
                "the error ratio itself where the target is low"
            )
        return "expected a limit below 1; correct it"
    return "expected a limit that values can pass; correct it"
