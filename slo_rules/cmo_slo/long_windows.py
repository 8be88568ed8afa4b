"""Live events over hours and days: an hourly roll-up, and windows that add roll-ups up.

Thirty days are 720 samples a series this way instead of 172,800, and exact (``evidence.md``, Long windows).
Numerators and denominators are added up and divided last. What is missing, because Prometheus was down or
nothing was scraped, is missing from both, and the coverage of the window says how much that is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cmo_exporter import catalogue

from cmo_slo import recorded
from cmo_slo.durations import HOUR, SECOND
from cmo_slo.events import LONG_WINDOWS
from cmo_slo.promql import selector, summed, within
from cmo_slo.recorded import Window
from cmo_slo.rule import Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cmo_slo.model import Objective, Objectives

_SUMS: Final = (
    (recorded.GOOD_EVENTS, recorded.GOOD_EVENTS_HOURLY, recorded.GOOD_EVENTS_IN_WINDOW),
    (recorded.TOTAL_EVENTS, recorded.TOTAL_EVENTS_HOURLY, recorded.TOTAL_EVENTS_IN_WINDOW),
)
_COMPONENT_SUMS: Final = (
    (
        recorded.COMPONENT_GOOD_EVENTS,
        recorded.COMPONENT_GOOD_EVENTS_HOURLY,
        recorded.COMPONENT_GOOD_EVENTS_IN_WINDOW,
    ),
    (
        recorded.COMPONENT_TOTAL_EVENTS,
        recorded.COMPONENT_TOTAL_EVENTS_HOURLY,
        recorded.COMPONENT_TOTAL_EVENTS_IN_WINDOW,
    ),
)


_COMPONENT_WINDOWS: Final = (Window.HOUR, Window.DAY, Window.MONTH)
"""There are several components to each objective, and nothing looks at more of their windows."""


def hourly_rules(objectives: Objectives, interval: int) -> Iterator[Rule]:
    """The roll-ups, evaluated once an hour; ``interval`` is milliseconds between evaluations of events.

    An hour ends one evaluation of events ago: the last one may still be being written, and what a roll-up
    has missed no other would make good.
    """
    if not _counted(objectives):
        return
    for source, hourly, _ in _sums(objectives):
        yield Rule(summed(_live(source, objectives), HOUR, ago_milliseconds=interval), record=hourly)
    covered = _covered_seconds(objectives, interval, ago_milliseconds=interval)
    yield Rule(covered, record=recorded.COVERED_SECONDS_HOURLY)


def window_rules(objectives: Objectives, interval: int) -> Iterator[Rule]:
    """Windows from an hour to 30 days, coverage, burn rates and what is left of the budget."""
    counted = _counted(objectives)
    if not counted:
        return
    for window, length in LONG_WINDOWS.items():
        for sums in _sums(objectives):
            if sums in _SUMS or window in _COMPONENT_WINDOWS:
                yield _in_window(sums, window, length, objectives)
        yield _coverage(window, length, objectives, interval)
    slow = selector(recorded.SLOW_EVENTS, {"slo": (objectives.name,), "scenario": (catalogue.LIVE,)})
    for window in (Window.QUARTER, Window.HOUR):
        labels = {"window": window.value}
        yield Rule(summed(slow, LONG_WINDOWS[window]), record=recorded.SLOW_EVENTS_IN_WINDOW, labels=labels)
    for objective in counted:
        yield from _budget_rules(objective, objectives.name)


def _counted(objectives: Objectives) -> list[Objective]:
    return [objective for objective in objectives.objectives if objective.counted]


def _sums(objectives: Objectives) -> tuple[tuple[str, str, str], ...]:
    """What is recorded at each evaluation, its roll-up, and its windows."""
    return (*_SUMS, *_COMPONENT_SUMS) if objectives.components else _SUMS


def _live(series: str, objectives: Objectives) -> str:
    return selector(series, {"slo": (objectives.name,), "scenario": (catalogue.LIVE,)})


def _covered_seconds(
    objectives: Objectives, interval: int, *, window: int = HOUR, ago_milliseconds: int = 0
) -> str:
    # As many samples as evaluations that had data, each of which stands for the time since the one before.
    total = within(_live(recorded.TOTAL_EVENTS, objectives), window, ago_milliseconds=ago_milliseconds)
    return f"count_over_time({total}) * {interval / SECOND:g}"


def _in_window(sums: tuple[str, str, str], window: Window, length: int, objectives: Objectives) -> Rule:
    source, hourly, target = sums
    labels = {"window": window.value}
    if length <= HOUR:
        return Rule(summed(_live(source, objectives), length), record=target, labels=labels)
    # Until the first roll-up it is the last hour, recorded just before, so that it is not empty.
    hour = {"slo": (objectives.name,), "scenario": (catalogue.LIVE,), "window": (Window.HOUR.value,)}
    in_hours = _or_until_hours(hourly, length, f"ignoring (window) {selector(target, hour)}", objectives)
    return Rule(in_hours, record=target, labels=labels)


def _coverage(window: Window, length: int, objectives: Objectives, interval: int) -> Rule:
    covered = _covered_seconds(objectives, interval, window=min(length, HOUR))
    if length > HOUR:
        covered = _or_until_hours(recorded.COVERED_SECONDS_HOURLY, length, covered, objectives)
    share = f"clamp_max((\n  {covered}\n) / {length // SECOND}, 1)"
    return Rule(share, record=recorded.COVERAGE, labels={"window": window.value})


def _or_until_hours(hourly: str, length: int, instead: str, objectives: Objectives) -> str:
    """A window of whole hours, and what there is instead until the first of them has been rolled up."""
    return f"{summed(_live(hourly, objectives), length)}\nor {instead}"


def _budget_rules(objective: Objective, slo: str) -> Iterator[Rule]:
    """Burn rates of every long window and what is left of 30 days, neither of them NaN where nobody asked."""
    allowed = round(1 - objective.target, 12)
    for window in LONG_WINDOWS:
        burn = _burn_rate(objective, slo, window, allowed)
        labels = {"objective": objective.name, "window": window.value}
        yield Rule(burn, record=recorded.BURN_RATE, labels=labels)
    month = {"slo": (slo,), "objective": (objective.name,), "window": (Window.MONTH.value,)}
    yield Rule(
        f"1 - {selector(recorded.BURN_RATE, month)}",
        record=recorded.BUDGET_REMAINING,
        labels={"objective": objective.name, "window": Window.MONTH.value},
    )


def _burn_rate(objective: Objective, slo: str, window: Window, allowed: float) -> str:
    of = {
        "slo": (slo,),
        "objective": (objective.name,),
        "scenario": (catalogue.LIVE,),
        "window": (window.value,),
    }
    total = selector(recorded.TOTAL_EVENTS_IN_WINDOW, of)
    good = selector(recorded.GOOD_EVENTS_IN_WINDOW, of)
    return f"({total} - {good}) / ({total} > 0) / {allowed!r}\nor 0 * {total}"
