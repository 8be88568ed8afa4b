"""A division whose denominator may be 0: NaN or infinity whenever nothing happens.

A recorded NaN stays: every average over it is NaN too, for as long as its window reaches back. In an alert a
division by 0 gives infinity, which is above every limit, or NaN, which no comparison lets through.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cmo_slo.checks.bounds import BoundsFinder, is_part, without_factor
from cmo_slo.checks.finding import Reporter, rules_in
from cmo_slo.checks.promql import Binary, Expression, Selector, children, constant, selectors, shown
from cmo_slo.checks.series import RecordedSeries

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cmo_slo.checks.context import Context
    from cmo_slo.checks.finding import Finding, Place
    from cmo_slo.checks.rules import RuleDocument

_REPORT: Final = Reporter("guards")
_SETS: Final = frozenset({"and", "unless"})
_MEND: Final = "expected a guard; divide by `(… > 0)`, so that idle gives no sample"
# Sizes, limits and targets: what is 0 only where a thing does not exist.
_NEVER_ZERO: Final = re.compile(
    r".*(?:size|limit|capacity|allocatable|quota|budget|target|objective|requests?_hard|cores|cpus|MemTotal|max"
    r"|threshold|info|created|replicas)(?:_(?:bytes|total|seconds|value|files|fds))?(?:[:_]\w+)?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class _Around:
    """What stands around a division: guards beside it, and whether a comparison drops NaN."""

    guards: tuple[Expression, ...] = ()
    compared: bool = False


def check(documents: Sequence[RuleDocument], context: Context) -> Iterator[Finding]:  # noqa: ARG001
    """Every division and remainder in every rule."""
    finder = BoundsFinder(RecordedSeries(documents))
    for place, _, rule in rules_in(documents):
        if rule.expression is None:
            continue
        for division, around in _divisions(rule.expression, _Around()):
            yield from _division(place, division, around, finder, records=rule.record is not None)


def _divisions(expression: Expression, around: _Around) -> Iterator[tuple[Binary, _Around]]:
    if isinstance(expression, Binary):
        if expression.operator in ("/", "%"):
            yield expression, around
        inside = around
        if expression.operator == "and":
            inside = _Around((*around.guards, *_conjuncts(expression.right)), around.compared)
        elif expression.filters and expression.operator != "!=":
            inside = _Around(around.guards, compared=True)
        yield from _divisions(expression.left, inside)
        yield from _divisions(expression.right, _Around() if expression.operator in _SETS else inside)
        return
    for inner in children(expression):
        yield from _divisions(inner, around)


def _conjuncts(expression: Expression) -> Iterator[Expression]:
    if isinstance(expression, Binary) and expression.operator == "and":
        yield from _conjuncts(expression.left)
        yield from _conjuncts(expression.right)
    else:
        yield expression


def _division(
    place: Place, division: Binary, around: _Around, finder: BoundsFinder, *, records: bool
) -> Iterator[Finding]:
    denominator = division.right
    if constant(denominator) == 0:
        yield _REPORT.error(
            place, f"`{shown(division)}` divides by 0", "expected another divisor; correct it"
        )
        return
    if not _may_be_zero(denominator, finder) or any(_guards(one, denominator) for one in around.guards):
        return
    if is_part(without_factor(division.left)[1], denominator):
        if around.compared:
            return  # a part of nothing is nothing: NaN, which the comparison drops
        becomes = "NaN"
    else:
        becomes = "infinite or NaN"
    wrong = f"`{shown(division)}` is {becomes} while `{shown(denominator, 60)}` is 0"
    if records:
        yield _REPORT.error(place, wrong, _MEND)
    else:
        yield _REPORT.warning(place, wrong, _MEND)


def _may_be_zero(denominator: Expression, finder: BoundsFinder) -> bool:
    bounds = finder.of(denominator)
    if bounds.low > 0 or bounds.high < 0:
        return False
    if isinstance(denominator, Binary):
        if denominator.filters:
            limit = constant(denominator.right)
            if denominator.operator == "!=" and limit == 0:
                return False
            return _may_be_zero(denominator.left, finder)
        if denominator.operator in _SETS:
            guarded = denominator.operator == "and" and any(
                _guards(one, denominator.left) for one in _conjuncts(denominator.right)
            )
            return not guarded and _may_be_zero(denominator.left, finder)
        if denominator.operator in ("*", "/"):
            left = _may_be_zero(denominator.left, finder)
            return left or (denominator.operator == "*" and _may_be_zero(denominator.right, finder))
    chosen = list(selectors(denominator))
    return not (chosen and all(_never_zero(one) for one in chosen))


def _never_zero(selector: Selector) -> bool:
    return selector.range is None and _NEVER_ZERO.fullmatch(selector.name) is not None


def _guards(condition: Expression, denominator: Expression) -> bool:
    """Whether a condition beside the division holds only where the denominator is above 0."""
    if not isinstance(condition, Binary) or not condition.filters:
        return False
    limit = constant(condition.right)
    if limit is None or condition.left != denominator:
        return False
    return (
        (condition.operator == ">" and limit >= 0)
        or (condition.operator == ">=" and limit > 0)
        or (condition.operator == "!=" and limit == 0)
    )
