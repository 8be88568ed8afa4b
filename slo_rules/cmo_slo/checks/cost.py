"""How many samples a group makes Prometheus read every minute, against a budget.

Series times samples in range times evaluations a minute; a sub-query multiplies by its steps. Measured: a
ratio over
30 days of raw counters reads 4,147,200 samples and takes 198 ms, every time; over hourly roll-ups 17,280, and
6 ms.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from cmo_slo.checks.finding import Place, Reporter
from cmo_slo.checks.promql import Expression, Selector, Subquery, children
from cmo_slo.checks.series import RecordedSeries, SeriesCounter, interval_of
from cmo_slo.durations import MINUTE, duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cmo_slo.checks.context import Context
    from cmo_slo.checks.finding import Finding
    from cmo_slo.checks.rules import Group, Rule, RuleDocument

_REPORT: Final = Reporter("cost")
_MOST_SHOWN: Final = 3


class CostEstimator:
    """Estimates the samples that expressions read, knowing what the given files record."""

    def __init__(self, series: RecordedSeries, context: Context) -> None:
        self._series = series
        self._counter = SeriesCounter(series, context)
        self.context = context

    def samples_per_evaluation(self, expression: Expression | None, evaluation: int) -> int:
        """Samples read when an expression is evaluated once, as part of a group with this interval."""
        if expression is None:
            return 0
        if isinstance(expression, Selector):
            return self._counter.chosen(expression) * self._samples(expression)
        inside = sum(self.samples_per_evaluation(inner, evaluation) for inner in children(expression))
        if isinstance(expression, Subquery):
            step = expression.step or evaluation
            return inside * max(1, expression.range // step)
        return inside

    def _samples(self, selector: Selector) -> int:
        if selector.range is None:
            return 1
        return max(1, math.ceil(selector.range / interval_of(selector, self._series, self.context)))

    def samples_per_minute(self, group: Group, rule: Rule) -> int:
        """Samples that a rule reads in a minute."""
        evaluation = group.interval or self.context.evaluation
        samples = self.samples_per_evaluation(rule.expression, evaluation)
        return math.ceil(samples * MINUTE / evaluation)


def check(documents: Sequence[RuleDocument], context: Context) -> Iterator[Finding]:
    """Every group, with its most expensive rules where it is above the budget."""
    estimator = CostEstimator(RecordedSeries(documents), context)
    for document in documents:
        for group in document.groups:
            yield from _group(Place(document, group), group, estimator)


def _group(place: Place, group: Group, estimator: CostEstimator) -> Iterator[Finding]:
    costs = [(estimator.samples_per_minute(group, rule), rule) for rule in group.rules]
    total, budget = sum(cost for cost, _ in costs), estimator.context.budget
    if total <= budget:
        return
    dearest = sorted(costs, key=lambda pair: -pair[0])[:_MOST_SHOWN]
    shares = ", ".join(
        f"{rule.name} in line {rule.line} ({cost / total:.0%})" for cost, rule in dearest if cost
    )
    every = duration(group.interval or estimator.context.evaluation)
    yield _REPORT.error(
        place,
        f"reads about {total:,} samples a minute, evaluated every {every}; most by {shares}",
        f"expected {budget:,} at most (--budget); read long windows from roll-ups, or evaluate less often",
    )
