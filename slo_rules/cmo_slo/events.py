"""What happened since the last evaluation, in terms of objectives and alerts: good events, and all.

How events are counted, and why not by ``increase(metric[window])``: that extrapolates to the edges of its
window, by a factor that differs between the counters of a ratio as soon as one of them is near zero, so that
neither the counts nor their ratio are true. Here every evaluation first copies the counters (checkpoints),
then takes what each has gained since the copy before: a plain difference of two recorded samples. The
differences add up to the truth over any window. A scrape that is still being written when the rules run is
counted one evaluation later instead of never; so is all that happened while an evaluation was missed or the
target could not be scraped, up to the look-back. A counter that went down was reset, and counts from 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cmo_exporter import catalogue

from cmo_slo import recorded
from cmo_slo.alerts import share
from cmo_slo.alerts.hanging import HangingAlert
from cmo_slo.alerts.load_test import LoadTestAlert
from cmo_slo.alerts.no_traffic import NoTrafficAlert
from cmo_slo.alerts.page import PageWindows, page_windows
from cmo_slo.durations import DAY, HOUR, MINUTE, SECOND, duration
from cmo_slo.indicators import GrowthIndicator, HeldLevelIndicator, LatencyIndicator, RatioIndicator
from cmo_slo.promql import edge, indented, or_zero, selector, summed
from cmo_slo.recorded import Window
from cmo_slo.rule import Rule

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cmo_slo.indicators import Labels
    from cmo_slo.model import Objective, Objectives

LONG_WINDOWS: Final[Mapping[Window, int]] = {
    Window.QUARTER: 15 * MINUTE,
    Window.HOUR: HOUR,
    Window.SIX_HOURS: 6 * HOUR,
    Window.DAY: DAY,
    Window.THREE_DAYS: 3 * DAY,
    Window.MONTH: 30 * DAY,
}
"""Windows of live events, in milliseconds, whatever the scrape interval."""

_BY_SCENARIO: Final = ("scenario",)
_BY_COMPONENT: Final = ("scenario", "component")

# A checkpoint this old is still what the next increase is taken from.
_LOOK_BACK_SCRAPES: Final = 20
_SHORTEST_LOOK_BACK: Final = MINUTE

# The windows of objectives that page nobody, for dashboards.
_BAD_RATIO_WITHOUT_PAGE: Final = 0.10
_SCRAPES_WITHOUT_PAGE: Final = 4.0
_JUMP_WITHOUT_PAGE: Final = 0.5


def rules(objectives: Objectives, interval: int) -> Iterator[Rule]:
    """Checkpoints, increases, events of objectives and alerts, and the short windows, in this order.

    ``interval`` is milliseconds between scrapes, and between evaluations.
    """
    slo = objectives.name
    series = _counters(objectives)
    for name, selections in series.items():
        yield Rule("\nor\n".join(selections), record=recorded.checkpoint(name))
    for name in series:
        yield Rule(_increase(name, objectives, interval), record=recorded.increase(name))
    for objective in objectives.objectives:
        for record, expression in _steps(objective, objectives).items():
            yield Rule(expression, record=record, labels={"objective": objective.name})
    yield from _overall_rules(objectives)
    yield from _component_rules(objectives)
    yield from _alert_rules(objectives)
    for objective in objectives.objectives:
        if objective.counted:
            yield from _window_rules(objective, slo, interval)


def window_lengths(objective: Objective, interval: int) -> dict[Window, int]:
    """How long each window of an objective is, in milliseconds."""
    windows = _windows(objective, interval)
    return {Window.SHORT: windows.short, Window.LONG: windows.long, **LONG_WINDOWS}


# --- counters --------------------------------------------------------------------------------------


def _counters(objectives: Objectives) -> dict[str, tuple[str, ...]]:
    """Every counter that is read, and the selections of it that all its readers together need."""
    found: dict[str, dict[str, None]] = {}

    def need(series: str, labels: Labels, *matchers: str) -> None:
        job = _job_of(series, objectives)
        # What is not a number is left out: in one instance it would make the sum of all of them no number.
        found.setdefault(series, {})[f"{selector(series, {**job, **labels}, *matchers)} >= 0"] = None

    of_objectives = (objective.indicator for objective in objectives.objectives)
    of_components = (component.indicator for component in objectives.components)
    for indicator in (*of_objectives, *of_components):
        if isinstance(indicator, RatioIndicator):
            need(indicator.total.metric, _restricting(indicator.total.labels))
        elif isinstance(indicator, HeldLevelIndicator):
            need(indicator.integral, {})
            need(indicator.clock, {})
        elif isinstance(indicator, LatencyIndicator):
            # In this order: the answers of a scrape that is written between two copies are a little too good
            # then. The other way round all of them would be slow for one evaluation, and that is a page.
            need(f"{indicator.metric}_count", {})
            need(f"{indicator.metric}_bucket", {}, edge(indicator.threshold_seconds))
    for alert in objectives.alerts:
        if isinstance(alert, share.ShareAlert | share.SlowShareAlert):
            _, total = share.counters(alert)
            for counted in share.counters(alert):
                need(counted.series, total.labels, *_edge_of(counted))
        elif isinstance(alert, HangingAlert | NoTrafficAlert | LoadTestAlert):
            need(catalogue.QUERIES_STARTED.name, {})
    everything = {series: f"{selector(series, _job_of(series, objectives))} >= 0" for series in found}
    return {
        series: (everything[series],) if everything[series] in selections else tuple(selections)
        for series, selections in found.items()
    }


def _job_of(series: str, objectives: Objectives) -> dict[str, tuple[str, ...]]:
    service = objectives.service
    return {"job": (service.probe_job if series.startswith(tuple(catalogue.PROBE_METRICS)) else service.job,)}


def _restricting(labels: Labels) -> Labels:
    """Only what narrows a metric of many series; outcomes and results are few, and others read them too."""
    return {name: values for name, values in labels.items() if name == "component"}


def _increase(series: str, objectives: Objectives, interval: int) -> str:
    look_back = max(_LOOK_BACK_SCRAPES * interval, _SHORTEST_LOOK_BACK)
    now = selector(recorded.checkpoint(series), {"slo": (objectives.name,)})
    # One millisecond back lies the checkpoint of the evaluation before, however long ago that was.
    before = f"last_over_time({now}[{duration(look_back)}] offset 1ms)"
    start_time = selector(catalogue.WORKER_START_TIME.name, {"job": (objectives.service.job,)})
    # Far in the future is a clock that is wrong, and says nothing of what the counters hold.
    age = f"abs(time() - min by (job, instance) ({start_time}))"
    return (
        f"{now}\n"
        f"- (\n"
        f"  {before} <= {now}\n"
        f"  or 0 * ({now} and {before})\n"
        f"  or 0 * ({now} and on (job, instance) ({age} < {look_back / SECOND:g}))\n"
        f")"
    )


# --- steps -----------------------------------------------------------------------------------------


def _steps(objective: Objective, objectives: Objectives) -> dict[str, str]:
    """What happened since the evaluation before, in terms of one objective."""
    indicator, slo = objective.indicator, objectives.name
    job = {"job": (objectives.service.job,)}
    if isinstance(indicator, RatioIndicator):
        good, total = _ratio_steps(indicator, slo)
        return {recorded.GOOD_EVENTS: good, recorded.TOTAL_EVENTS: total}
    if isinstance(indicator, LatencyIndicator):
        good, total, slow = _latency_steps(indicator, slo)
        return {recorded.GOOD_EVENTS: good, recorded.TOTAL_EVENTS: total, recorded.SLOW_EVENTS: slow}
    if isinstance(indicator, HeldLevelIndicator):
        clock = selector(recorded.increase(indicator.clock), {"slo": (slo,)})
        return {
            recorded.USER_SECONDS: _gained(indicator.integral, slo, {}),
            # Instances run side by side: their user-seconds add up, their clocks do not.
            recorded.USER_CLOCK_SECONDS: f"max({clock})",
        }
    if isinstance(indicator, GrowthIndicator):
        peak = selector(indicator.peak.metric, {**job, **indicator.peak.labels})
        base = selector(indicator.base.metric, {**job, **indicator.base.labels})
        return {recorded.LEVEL_PEAK: f"sum by (scenario) ({peak})", recorded.LEVEL_BASE: f"sum({base})"}
    return {}


def _ratio_steps(indicator: RatioIndicator, slo: str, by: tuple[str, ...] = _BY_SCENARIO) -> tuple[str, str]:
    """Good events and all."""
    good = _gained(indicator.good.metric, slo, indicator.good.labels, by=by)
    total = _gained(indicator.total.metric, slo, indicator.total.labels, by=by)
    return or_zero(good, total), total


def _latency_steps(
    indicator: LatencyIndicator, slo: str, by: tuple[str, ...] = _BY_SCENARIO
) -> tuple[str, str, str]:
    """Good events, all, and those that took too long and did not fail."""

    def within(labels: Labels) -> str:
        return _gained(f"{indicator.metric}_bucket", slo, labels, edge(indicator.threshold_seconds), by=by)

    def counted(labels: Labels) -> str:
        return _gained(f"{indicator.metric}_count", slo, labels, by=by)

    total = counted(indicator.total)
    good = or_zero(within(indicator.good), total)
    judged = total
    # Without its bucket nothing is known to be slow: a histogram of other edges must not look like an outage.
    slow = f"{counted(indicator.good)} - {within(indicator.good)}"
    excluded = indicator.excluded_within_threshold
    if excluded:
        within_excluded = or_zero(within(excluded), total)
        judged = f"{total}\n- (\n  {indented(within_excluded)}\n)"
        left = f"{counted(excluded)} - {within(excluded)}"
        slow = f"{slow}\n+ (\n  {indented(or_zero(left, total))}\n)"
    return good, judged, slow


def _gained(series: str, slo: str, labels: Labels, *matchers: str, by: tuple[str, ...] = _BY_SCENARIO) -> str:
    gained = selector(recorded.increase(series), {"slo": (slo,), **labels}, *matchers)
    return f"sum by ({', '.join(by)}) ({gained})"


def _overall_rules(objectives: Objectives) -> Iterator[Rule]:
    """All scenarios of a run pooled; what others there are (live, the prober's) is no part of a run."""
    for objective in objectives.objectives:
        if objective.counted:
            of = {"slo": (objectives.name,), "objective": (objective.name,), "scenario": objectives.scenarios}
            for source, target in (
                (recorded.GOOD_EVENTS, recorded.OVERALL_GOOD_EVENTS),
                (recorded.TOTAL_EVENTS, recorded.OVERALL_TOTAL_EVENTS),
            ):
                pooled = f"sum without (scenario) ({selector(source, of)})"
                yield Rule(pooled, record=target, labels={"objective": objective.name})


def _component_rules(objectives: Objectives) -> Iterator[Rule]:
    """The calls of each component, which its name tells apart as the scenario does queries."""
    for component in objectives.components:
        indicator = component.indicator
        if isinstance(indicator, RatioIndicator):
            good, total = _ratio_steps(indicator, objectives.name, _BY_COMPONENT)
        else:
            good, total, _ = _latency_steps(indicator, objectives.name, _BY_COMPONENT)
        labels = {"indicator": component.name}
        yield Rule(good, record=recorded.COMPONENT_GOOD_EVENTS, labels=labels)
        yield Rule(total, record=recorded.COMPONENT_TOTAL_EVENTS, labels=labels)


def _alert_rules(objectives: Objectives) -> Iterator[Rule]:
    slo = objectives.name
    if any(isinstance(alert, HangingAlert | NoTrafficAlert | LoadTestAlert) for alert in objectives.alerts):
        by = ("scenario", "job", "instance")
        yield Rule(_gained(catalogue.QUERIES_STARTED.name, slo, {}, by=by), record=recorded.STARTED_QUERIES)
    for alert in objectives.alerts:
        if isinstance(alert, share.ShareAlert | share.SlowShareAlert):
            part, whole = (
                _gained(one.series, slo, one.labels, *_edge_of(one), by=share.grouping(alert))
                for one in share.counters(alert)
            )
            yield from share.steps(alert, part, whole)


def _edge_of(counted: share.Counted) -> tuple[str, ...]:
    return () if counted.edge_seconds is None else (edge(counted.edge_seconds),)


# --- windows ---------------------------------------------------------------------------------------


def _windows(objective: Objective, interval: int) -> PageWindows:
    if objective.page is not None:
        return objective.page.windows(interval)
    return page_windows(
        _BAD_RATIO_WITHOUT_PAGE, interval, scrapes=_SCRAPES_WITHOUT_PAGE, jump=_JUMP_WITHOUT_PAGE
    )


def _window_rules(objective: Objective, slo: str, interval: int) -> Iterator[Rule]:
    windows = _windows(objective, interval)
    of = {"slo": (slo,), "objective": (objective.name,)}
    summable = {
        recorded.GOOD_EVENTS: recorded.GOOD_EVENTS_IN_WINDOW,
        recorded.TOTAL_EVENTS: recorded.TOTAL_EVENTS_IN_WINDOW,
    }
    if isinstance(objective.indicator, LatencyIndicator):
        summable[recorded.SLOW_EVENTS] = recorded.SLOW_EVENTS_IN_WINDOW
    for window, length in ((Window.SHORT, windows.short), (Window.LONG, windows.long)):
        labels = {"objective": objective.name, "window": window.value}
        for source, target in summable.items():
            yield Rule(summed(selector(source, of), length), record=target, labels=labels)
