"""A division whose denominator may be 0: NaN or infinity whenever nothing happens.

A recorded NaN stays: every average over it is NaN too, for as long as its window reaches back. In an alert a
division by 0 gives infinity, which is above every limit, or NaN, which no comparison lets through.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
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
    r".*(?:size|limits?|capacity|allocatable|quota|budget|target|objective|requests?_hard|cores|cpus|MemTotal|max"
    r"|threshold|info|created|replicas)(?:_(?:bytes|total|seconds|value|files|fds))?(?:[:_]\w+)?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class _Around:
    """What stands around a division: conditions beside it, and whether a comparison drops NaN."""

    conditions: tuple[Expression, ...] = ()
    exclusions: tuple[Expression, ...] = ()
    compared: bool = False

    def within(self, binary: Binary) -> _Around:
        """What stands around the left side of an operator that stands in all this."""
        if binary.operator == "and":
            return replace(self, conditions=(*self.conditions, *_conjuncts(binary.right)))
        if binary.operator == "unless":
            return replace(self, exclusions=(*self.exclusions, binary.right))
        if binary.filters and binary.operator != "!=":
            return replace(self, compared=True)
        return self

    def guards(self, denominator: Expression) -> bool:
        """Whether the division only counts where the denominator is not 0."""
        return any(_is_above_zero(one, denominator) for one in self.conditions) or any(
            _is_zero(one, denominator) for one in self.exclusions
        )


def check(documents: Sequence[RuleDocument], context: Context) -> Iterator[Finding]:  # noqa: ARG001
    """Every division and remainder in every rule."""
    series = RecordedSeries(documents)
    denominators = _Denominators(series, BoundsFinder(series))
    for place, _, rule in rules_in(documents):
        if rule.expression is None:
            continue
        for division, around in _divisions(rule.expression, _Around()):
            yield from _division(place, division, around, denominators, records=rule.record is not None)


def _divisions(expression: Expression, around: _Around) -> Iterator[tuple[Binary, _Around]]:
    if isinstance(expression, Binary):
        if expression.operator in ("/", "%"):
            yield expression, around
        inside = around.within(expression)
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
    place: Place, division: Binary, around: _Around, denominators: _Denominators, *, records: bool
) -> Iterator[Finding]:
    denominator = division.right
    if constant(denominator) == 0:
        yield _REPORT.error(
            place, f"`{shown(division)}` divides by 0", "expected another divisor; correct it"
        )
        return
    if not denominators.may_be_zero(denominator) or around.guards(denominator):
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


@dataclass(frozen=True)
class _Denominators:
    """Tells which can be 0."""

    series: RecordedSeries
    bounds: BoundsFinder

    def may_be_zero(self, denominator: Expression) -> bool:
        """Whether it can be 0 when nothing happens; of gauges that are sizes or limits it is taken not to."""
        bounds = self.bounds.of(denominator)
        if bounds.low > 0 or bounds.high < 0:
            return False
        if isinstance(denominator, Binary):
            if denominator.filters:
                never = denominator.operator == "!=" and constant(denominator.right) == 0
                return not never and self.may_be_zero(denominator.left)
            if denominator.operator in _SETS:
                guarded = _Around().within(denominator).guards(denominator.left)
                return not guarded and self.may_be_zero(denominator.left)
            if denominator.operator == "*":
                return self.may_be_zero(denominator.left) or self.may_be_zero(denominator.right)
            if denominator.operator == "/":
                return self.may_be_zero(denominator.left)
        chosen = list(selectors(denominator))
        return not (chosen and all(self._never_zero(one) for one in chosen))

    def _never_zero(self, selector: Selector) -> bool:
        by_name = selector.range is None and _NEVER_ZERO.fullmatch(selector.name) is not None
        return by_name and not self.series.of_name(selector.name)


def _is_above_zero(condition: Expression, denominator: Expression) -> bool:
    """Whether a condition holds only where the denominator is not 0."""
    if not isinstance(condition, Binary) or not condition.filters or condition.left != denominator:
        return False
    limit = constant(condition.right)
    return limit is not None and (
        (condition.operator == ">" and limit >= 0)
        or (condition.operator == ">=" and limit > 0)
        or (condition.operator == "!=" and limit == 0)
    )


def _is_zero(condition: Expression, denominator: Expression) -> bool:
    """Whether a condition holds wherever the denominator is 0."""
    if not isinstance(condition, Binary) or not condition.filters or condition.left != denominator:
        return False
    limit = constant(condition.right)
    return limit is not None and (
        (condition.operator in ("==", "<=") and limit == 0)
        or (condition.operator in ("<", "<=") and limit > 0)
    )
