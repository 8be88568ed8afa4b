"""How far the 30-day results are from counting every event."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cmo_slo import recorded
from cmo_slo.indicators import LatencyIndicator, RatioIndicator

from cmo_bench.exporter.report import Section, Target, Verdict, table
from cmo_bench.rules import pyrra, sloth
from cmo_bench.rules.history import DAY_SECONDS, HOUR_SECONDS, STEP_SECONDS
from cmo_bench.rules.laboratory import OURS, PYRRA, SLOTH
from cmo_bench.rules.server import MeasurementError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cmo_slo.model import Objective

    from cmo_bench.rules.history import History
    from cmo_bench.rules.laboratory import Laboratory, Month
    from cmo_bench.rules.objective import OtherObjective

_LIMIT_POINTS: Final = 0.01
_POINTS: Final = 100
_MOMENTS_SECONDS: Final = 300


@dataclass(frozen=True)
class Result:
    """What somebody says of 30 days, and what is true.

    Attributes:
        objective: of which objective.
        teller: who says it.
        said: the share of good events.
        truth: that share, every event counted.
    """

    objective: str
    teller: str
    said: float
    truth: float

    @property
    def points(self) -> float:
        """How far it is off, in percentage points."""
        return _POINTS * (self.said - self.truth)

    def row(self) -> tuple[str, ...]:
        """As a row of the table."""
        if math.isnan(self.said):
            return (self.objective, self.teller, "NaN", f"{_POINTS * self.truth:.4f} %", "no number")
        return (
            self.objective,
            self.teller,
            f"{_POINTS * self.said:.4f} %",
            f"{_POINTS * self.truth:.4f} %",
            f"{self.points:+.4f}",
        )


def exactness(laboratory: Laboratory) -> Section:
    """Hold the 30-day result of each tool against the events themselves.

    Raises:
        MeasurementError: a result is missing, or the history has no events of an objective.
    """
    month = laboratory.month
    results = [result for other in laboratory.compared for result in _results(laboratory, month, other)]
    own = [result for result in results if result.teller == OURS]
    worst = max(own, key=lambda result: abs(result.points))
    return Section(
        "The 30-day result",
        _text(laboratory, month),
        table(("objective", "result of", "it says", "exact", "points off"), [one.row() for one in results]),
        (
            Target(
                "Our 30-day results are within 0.01 points of counting every event",
                f"{worst.points:+.4f} points at most ({worst.objective}); at most {_LIMIT_POINTS:.2f}",
                Verdict.HOLDS if abs(worst.points) <= _LIMIT_POINTS else Verdict.FAILED,
            ),
        ),
    )


def _results(laboratory: Laboratory, month: Month, other: OtherObjective) -> Iterator[Result]:
    store, history, end = month.store, month.history, month.end
    objective = next(one for one in laboratory.objectives.objectives if one.name == other.name)
    last = history.step_at(end)
    first = max(0, history.step_at(end - 30 * DAY_SECONDS))
    own = _ours(month, other)
    yield Result(other.name, OURS, own, true_share(objective, history, first, last))
    hours = _recorded_hours(month, other.name)
    yield Result(
        other.name, f"{OURS}, of the whole hours that it counts", own, true_share(objective, history, *hours)
    )
    told = _other_truth(other, history, first, last)
    yield Result(other.name, SLOTH, 1 - store.query(sloth.period_error_ratio(other), end).value, told)
    busy = 1 - store.query(sloth.period_error_ratio_of_busy_times(other), end).value
    yield Result(other.name, f"{SLOTH}, had it skipped idle times", busy, told)
    yield Result(other.name, PYRRA, store.query(pyrra.window_ratio(other), end).value, told)


def _ours(month: Month, other: OtherObjective) -> float:
    own = f'{{objective="{other.name}",window="30d"}}'
    good = month.store.query(f"{recorded.GOOD_EVENTS_IN_WINDOW}{own}", month.end).value
    return good / month.store.query(f"{recorded.TOTAL_EVENTS_IN_WINDOW}{own}", month.end).value


def _recorded_hours(month: Month, objective: str) -> tuple[int, int]:
    """The step before the first, and the last, of the hours that the 30-day result is made of."""
    hourly = f'{recorded.TOTAL_EVENTS_HOURLY}{{objective="{objective}",scenario="live"}}[30d]'
    found = month.store.query(hourly, month.end).result
    if len(found) != 1:
        raise MeasurementError(f"Expected one series of {hourly}, got {len(found)}.")
    moments = [float(moment) for moment, _ in found[0]["values"]]
    first = _counted_step(month, objective, moments[-1] - len(moments) * HOUR_SECONDS)
    return first, _counted_step(month, objective, moments[-1])


def _counted_step(month: Month, objective: str, moment: float) -> int:
    """The last step that a roll-up of a moment holds: that of the evaluation before the last one then."""
    moment -= STEP_SECONDS
    steps = f'{recorded.TOTAL_EVENTS}{{objective="{objective}",scenario="live"}}[1m]'
    found = month.store.query(steps, moment).result
    evaluated = float(found[0]["values"][-1][0]) if found else moment
    return max(0, month.history.step_at(evaluated))


def true_share(objective: Objective, history: History, first: int, last: int) -> float:
    """The share of good events of an objective, by its own definition, in steps after ``first`` up to a last.

    Raises:
        MeasurementError: the history has no events of the objective.
    """
    indicator = objective.indicator
    live = {"scenario": ("live",)}
    if isinstance(indicator, RatioIndicator):
        good = history.count(indicator.good.metric, {**live, **indicator.good.labels}, first, last)
        total = history.count(indicator.total.metric, {**live, **indicator.total.labels}, first, last)
    elif isinstance(indicator, LatencyIndicator):
        within = {**live, "le": (repr(float(indicator.threshold_seconds)),)}
        bucket = f"{indicator.metric}_bucket"
        good = history.count(bucket, {**within, **indicator.good}, first, last)
        total = history.count(f"{indicator.metric}_count", {**live, **indicator.total}, first, last)
        if indicator.excluded_within_threshold:
            total -= history.count(bucket, {**within, **indicator.excluded_within_threshold}, first, last)
    else:
        raise MeasurementError(f"Objective {objective.name} is no share of events.")
    if not total:
        raise MeasurementError(f"The history has no events of objective {objective.name}: give it some.")
    return good / total


def _other_truth(other: OtherObjective, history: History, first: int, last: int) -> float:
    good = history.count(other.good.metric, other.good.labels, first, last)
    return good / history.count(other.total.metric, other.total.labels, first, last)


def behind_points(objective: Objective, history: History) -> float:
    """How far a result of whole hours is behind one up to the moment, at the last day's worst moment."""
    hour = HOUR_SECONDS // STEP_SECONDS
    worst = 0.0
    for step in range(history.steps - 1 - 24 * hour, history.steps - 1, _MOMENTS_SECONDS // STEP_SECONDS):
        whole = step - (step - history.steps + 1) % hour
        now = true_share(objective, history, 0, step)
        worst = max(worst, _POINTS * abs(true_share(objective, history, 0, whole) - now))
    return worst


def _text(laboratory: Laboratory, month: Month) -> str:
    compared = {one.name for one in laboratory.compared}
    objectives = [one for one in laboratory.objectives.objectives if one.name in compared]
    behind = max(behind_points(objective, month.history) for objective in objectives)
    return (
        "Each tool's result at the end of the history, beside every event of those 30 days, by the "
        "objective's own definition (Sloth and Pyrra are told one without cancelled queries). "
        f"{month.history.events_lost} queries were lost to restarts before any scrape; they are in the "
        "exact count. Ours is good over total of the recorded 30-day window. Where that is made of whole "
        "hours, an hour that is not over is not in it: the history ends in a calm hour, where that "
        f"hardly matters; near the end of a rush hour it is up to {behind:.2f} points behind. Sloth's is "
        "the mean of the recorded ratios of 5 minutes, which are NaN while nobody asks; beside it what "
        "it would be had those been left out. Pyrra's is `increase()` over the 30 days."
    )
