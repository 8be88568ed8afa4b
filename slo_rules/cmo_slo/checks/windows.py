"""Ranges with too few samples, or longer than samples are kept, and looks where nothing can be seen.

A rate needs two samples; a range of two scrapes loses them with the first scrape that fails. An instant
selector looks back 5 minutes, so a series recorded hourly is invisible to it for 55 of 60.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cmo_slo.checks.finding import Reporter, rules_in
from cmo_slo.checks.promql import Call, Expression, Selector, Subquery, children, shown
from cmo_slo.checks.series import RecordedSeries, interval_of
from cmo_slo.durations import MINUTE, duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cmo_slo.checks.context import Context
    from cmo_slo.checks.finding import Finding, Place
    from cmo_slo.checks.rules import RuleDocument

_REPORT: Final = Reporter("windows")
_LOOK_BACK: Final = 5 * MINUTE
_NEEDS_TWO_SAMPLES: Final = frozenset(
    {"rate", "irate", "increase", "delta", "idelta", "deriv", "predict_linear"}
)
_FEWEST_INTERVALS: Final = 2
_SAFE_INTERVALS: Final = 4


def check(documents: Sequence[RuleDocument], context: Context) -> Iterator[Finding]:
    """Every selector of every rule, with the function that it stands in and the sub-queries around it."""
    series = RecordedSeries(documents)
    for place, _, rule in rules_in(documents):
        if rule.expression is None:
            continue
        found: list[Finding] = []
        for selector, function, around in _chosen(rule.expression, "", 0):
            interval = interval_of(selector, series, context)
            recorded = bool(series.of_name(selector.name))
            found += _range(place, selector, function, interval, recorded=recorded)
            found += _reach(place, selector, around, context.retention)
        yield from dict.fromkeys(found)


def _chosen(expression: Expression, function: str, around: int) -> Iterator[tuple[Selector, str, int]]:
    """Each selector, the function it is given to, and how far the sub-queries around it reach back."""
    match expression:
        case Selector():
            yield expression, function, around
        case Subquery():
            yield from _chosen(expression.expression, "", around + expression.range + expression.offset)
        case Call():
            for argument in expression.arguments:
                yield from _chosen(argument, expression.function, around)
        case _:
            for inner in children(expression):
                yield from _chosen(inner, function if isinstance(inner, Selector) else "", around)


def _range(
    place: Place, selector: Selector, function: str, interval: int, *, recorded: bool
) -> Iterator[Finding]:
    every = f"{'recorded' if recorded else 'scraped'} every {duration(interval)}"
    what = f"`{shown(selector)}`"
    if selector.range is None:
        if interval > _LOOK_BACK:
            yield _REPORT.error(
                place,
                f"{what} is {every} and read at an instant, where it is gone after 5m",
                f"expected a range; read `last_over_time({selector.name}[{duration(interval)}])`",
            )
        return
    # Ranges a millisecond short of a whole number of intervals are meant to be that number.
    length = selector.range + 1
    if function in _NEEDS_TWO_SAMPLES:
        if length < _FEWEST_INTERVALS * interval:
            yield _REPORT.error(
                place,
                f"`{function}` over {what}, {every}, has fewer than 2 samples to work from and gives nothing",
                f"expected {duration(_SAFE_INTERVALS * interval)} or longer; lengthen the range",
            )
        elif length < _SAFE_INTERVALS * interval:
            yield _REPORT.warning(
                place,
                f"`{function}` over {what}, {every}, has gaps as soon as one scrape fails",
                f"expected {duration(_SAFE_INTERVALS * interval)} or longer; lengthen the range",
            )
    elif length < interval:
        yield _REPORT.error(
            place,
            f"{what} is {every}, so that most of its ranges are empty",
            f"expected a range of {duration(interval)} or longer; lengthen it",
        )


def _reach(place: Place, selector: Selector, around: int, retention: int) -> Iterator[Finding]:
    reach = (selector.range or 0) + selector.offset + around
    if reach > retention and not selector.pinned:
        yield _REPORT.error(
            place,
            f"`{shown(selector)}` reaches back {duration(reach)}, and samples are kept for "
            f"{duration(retention)}: what is older counts for nothing, and nothing says so",
            "expected less; shorten the range, or keep samples for longer (--retention, if they are)",
        )
