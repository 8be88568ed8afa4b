"""Over which windows an expression averages: what failures have to fill before a threshold is passed.

A range in the expression itself counts, and the range of the rule that records what it reads; where that rule
is in no given file, the window that the name of the series ends in (``…:ratio_rate1h``, ``…:burnrate5m``).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from cmo_slo.checks.promql import Call, Expression, Selector, Subquery, children
from cmo_slo.checks.series import Followed
from cmo_slo.durations import DurationError, parse_duration

if TYPE_CHECKING:
    from cmo_slo.checks.series import RecordedSeries

_AVERAGING: Final = frozenset(
    {
        "rate", "increase", "delta", "deriv", "avg_over_time", "sum_over_time", "count_over_time",
        "quantile_over_time",
    }
)  # fmt: skip
_NAMED: Final = re.compile(r".*?(?:rate|ratio|increase|avg|mean|sum|_|:)((?:\d+(?:ms|[smhdwy]))+)", re.ASCII)


class WindowFinder:
    """Finds windows, knowing what the given files record."""

    def __init__(self, series: RecordedSeries) -> None:
        self._series = series
        self._followed = Followed(0)

    def longest(self, expression: Expression) -> int:
        """Milliseconds of the longest window that an expression averages over, 0 if over none."""
        if isinstance(expression, Selector):
            return self._followed.answer(expression, self._recorded)
        inner = max((self.longest(one) for one in children(expression)), default=0)
        if isinstance(expression, Call) and expression.function in _AVERAGING:
            return inner + max(map(_range, expression.arguments), default=0)
        return inner

    def _recorded(self, selector: Selector) -> int:
        expressions = [source.rule.expression for source in self._series.sources(selector)]
        if not expressions:
            return _named(selector.name)
        return max((self.longest(one) for one in expressions if one is not None), default=0)


def _range(argument: Expression) -> int:
    return (argument.range or 0) if isinstance(argument, Selector | Subquery) else 0


def _named(name: str) -> int:
    found = _NAMED.fullmatch(name)
    if found is None or ":" not in name:
        return 0
    try:
        return parse_duration(found[1])
    except DurationError:
        return 0
