"""How long a page takes once everything fails, and whether it fires at all once half does.

A window reaches a limit ``limit * (window - scrape) / jump`` after failures jump from none to ``jump``; then
come up to one scrape, up to one evaluation, and ``for`` in whole evaluations (``evidence.md``, From fault to
page). ANDed windows must all get there, of ORed ones the quickest counts, and of several rules of one alert
too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cmo_slo.checks.bounds import BoundsFinder
from cmo_slo.checks.context import pages
from cmo_slo.checks.finding import Reporter, rules_in
from cmo_slo.checks.promql import Aggregate, Binary, Call, Expression, children, constant
from cmo_slo.checks.series import RecordedSeries
from cmo_slo.checks.windows_read import WindowFinder
from cmo_slo.durations import duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cmo_slo.checks.context import Context
    from cmo_slo.checks.finding import Finding, Place
    from cmo_slo.checks.rules import Group, Rule, RuleDocument

_REPORT: Final = Reporter("time_to_reach")
_ALL: Final = 1.0
_HALF: Final = 0.5


@dataclass(frozen=True)
class _Estimator:
    bounds: BoundsFinder
    windows: WindowFinder
    context: Context

    def reached(self, expression: Expression, jump: float) -> float:
        """Milliseconds until an expression gives something, infinite if it never does."""
        if isinstance(expression, Aggregate | Call):
            return max((self.reached(inner, jump) for inner in children(expression)), default=0.0)
        if not isinstance(expression, Binary):
            return 0.0
        if expression.operator == "and":
            return max(self.reached(expression.left, jump), self.reached(expression.right, jump))
        if expression.operator == "or":
            return min(self.reached(expression.left, jump), self.reached(expression.right, jump))
        if expression.operator == "unless":
            return self.reached(expression.left, jump)
        if expression.filters:
            return max(self.reached(expression.left, jump), self._comparison(expression, jump))
        return 0.0

    def _comparison(self, comparison: Binary, jump: float) -> float:
        value, bounds = comparison.left, self.bounds.of(comparison.left)
        asked = constant(comparison.right)
        if asked is None or not bounds.ends:
            return 0.0
        # As a share of the way from all well to all failing, in a percentage and a success ratio as well.
        if comparison.operator in (">", ">="):
            limit = (asked - bounds.low) / (bounds.high - bounds.low)
        elif comparison.operator in ("<", "<="):
            limit = (bounds.high - asked) / (bounds.high - bounds.low)
        else:
            return 0.0
        window = self.windows.longest(value)
        if window == 0 or limit <= 0:
            return 0.0
        if limit > jump or (limit == jump and comparison.operator in ("<", ">")):
            return math.inf
        return limit * max(window - self.context.scrape_interval, 0) / jump

    def page(self, group: Group, rule: Rule, jump: float) -> float:
        """Milliseconds from the first failure until the alert fires, at worst."""
        if rule.expression is None:
            return 0.0
        evaluation = group.interval or self.context.evaluation
        held = math.ceil(rule.hold / evaluation) * evaluation
        reached = self.reached(rule.expression, jump)
        return reached + self.context.scrape_interval + evaluation + held


def check(documents: Sequence[RuleDocument], context: Context) -> Iterator[Finding]:
    """Alerts that page; of several rules with one name the quickest is what wakes people."""
    series = RecordedSeries(documents)
    estimator = _Estimator(BoundsFinder(series), WindowFinder(series), context)
    quickest: dict[str, tuple[float, float, Place, Rule]] = {}
    for place, group, rule in rules_in(documents):
        if rule.alert is None or rule.expression is None or not pages(rule):
            continue
        times = estimator.page(group, rule, _ALL), estimator.page(group, rule, _HALF)
        known = quickest.get(rule.alert)
        if known is None or times < known[:2]:
            quickest[rule.alert] = (*times, place, rule)
    for all_fail, half_fail, place, rule in quickest.values():
        yield from _findings(place, rule, all_fail, half_fail, context.time_to_page)


def _findings(place: Place, rule: Rule, all_fail: float, half_fail: float, allowed: int) -> Iterator[Finding]:
    held = f", {duration(rule.hold)} of it in `for`" if rule.hold else ""
    expected = f"expected {duration(allowed)} at most"
    if math.isinf(all_fail):
        return  # it never fires: `attainability` says so
    if all_fail > allowed:
        yield _REPORT.error(
            place,
            f"pages {_rounded(all_fail)} after everything fails{held}",
            f"{expected}; shorten the windows or `for`, lower the limit, or make it a ticket",
        )
    elif math.isinf(half_fail):
        yield _REPORT.warning(
            place,
            "never pages while half of all events fail, because its limit is higher",
            f"{expected}; lower the limit: at a low target page on the error ratio itself",
        )
    elif half_fail > allowed:
        yield _REPORT.warning(
            place,
            f"pages {_rounded(half_fail)} after half of all events fail{held}",
            f"{expected}; shorten the longest window or `for`, or lower the limit",
        )


def _rounded(milliseconds: float) -> str:
    return duration(math.ceil(milliseconds / 1000) * 1000)
