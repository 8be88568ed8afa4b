"""Objectives in, Prometheus rules out: pure, so that the same objectives always give the same file.

The groups, in the order of evaluation: what happened since the last one (`cmo_slo.events`) and the pages,
at every scrape; roll-ups each hour and long windows each minute (`cmo_slo.long_windows`); tickets each
minute; the objectives' own numbers. Nothing here reads or writes a file.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Final, TypeVar

from cmo_slo import events, long_windows, recorded
from cmo_slo.alerts import (
    below_target,
    budget,
    down,
    hanging,
    level,
    load_test,
    no_traffic,
    page,
    restarts,
    rise,
    scrape,
    share,
    trend,
    watchdog,
)
from cmo_slo.alerts.alert import Surroundings, fires
from cmo_slo.durations import HOUR, MILLISECOND, MINUTE, SECOND, DurationError, duration, parse_duration
from cmo_slo.indicators import LatencyIndicator
from cmo_slo.rule import Rule, RuleGroup, labelled

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cmo_slo.alerts.kinds import AnyAlert
    from cmo_slo.model import Objectives

DEFAULT_SCRAPE_INTERVAL: Final = "15s"

# Prometheus forgets a series 5 minutes after its last sample; beyond 2 minutes one missed scrape is a gap.
_SHORTEST_INTERVAL: Final = 100 * MILLISECOND
_LONGEST_INTERVAL: Final = 2 * MINUTE

# Long windows are read from few samples, and tickets wait: neither need be evaluated at every scrape.
_SLOW_INTERVAL: Final = MINUTE
# Pages read a quarter of an hour too: it has to come while they still fire, which is for 20 scrapes.
_MOST_SCRAPES_LATE: Final = 15


class CompileError(Exception):
    """The objectives or the scrape interval cannot be compiled; the message says why and how to mend it."""

    exit_status: ClassVar[int] = 3


def compile_rules(
    objectives: Objectives, scrape_interval: str = DEFAULT_SCRAPE_INTERVAL
) -> tuple[RuleGroup, ...]:
    """Compile one objectives file.

    Args:
        objectives: what to compile.
        scrape_interval: how often the service is scraped, as Prometheus writes durations; pages are
            evaluated as often.

    Raises:
        CompileError: the interval is unusable.
    """
    surroundings = surroundings_of(objectives, scrape_interval)
    name, interval = surroundings.slo, surroundings.interval
    groups = (
        (
            "events",
            interval,
            [
                *events.rules(objectives, interval),
                *_pages(objectives, surroundings),
                *_load_test(objectives, surroundings),
                *_watchdog(objectives, surroundings),
            ],
        ),
        ("hourly", HOUR, long_windows.hourly_rules(objectives, interval)),
        (
            "long-windows",
            min(_SLOW_INTERVAL, _MOST_SCRAPES_LATE * interval),
            long_windows.window_rules(objectives, interval),
        ),
        ("tickets", max(_SLOW_INTERVAL, interval), _tickets(objectives, surroundings)),
        ("objectives", interval, _constants(objectives, interval)),
    )
    compiled = (
        RuleGroup(f"{name}-{part}", every, tuple(labelled(rules, {"slo": name})))
        for part, every, rules in groups
    )
    return tuple(group for group in compiled if group.rules)


def surroundings_of(objectives: Objectives, scrape_interval: str) -> Surroundings:
    """What the alerts of an objectives file need to know of it, at a scrape interval.

    Raises:
        CompileError: the interval is unusable.
    """
    return Surroundings(
        slo=objectives.name,
        interval=_interval(scrape_interval),
        job=objectives.service.job,
        probe_job=objectives.service.probe_job,
        scenarios=objectives.scenarios,
        restart=objectives.service.restart_seconds * SECOND,
        runbooks=objectives.links.runbooks.rstrip("/"),
        dashboards=objectives.links.dashboards.rstrip("/"),
    )


def recorded_names(objectives: Objectives) -> tuple[str, ...]:
    """Names of all series that the compiled rules record, sorted."""
    groups = compile_rules(objectives)
    return tuple(sorted({rule.record for group in groups for rule in group.rules if rule.record}))


def _interval(text: str) -> int:
    try:
        interval = parse_duration(text)
    except DurationError as error:
        raise CompileError(str(error)) from error
    if not _SHORTEST_INTERVAL <= interval <= _LONGEST_INTERVAL:
        raise CompileError(
            f"A scrape interval of {text} cannot be compiled: expected "
            f"{duration(_SHORTEST_INTERVAL)} to {duration(_LONGEST_INTERVAL)}, such as 15s."
        )
    return interval


# --- alerts ----------------------------------------------------------------------------------------


def _pages(objectives: Objectives, surroundings: Surroundings) -> Iterator[Rule]:
    """The pages: the service is gone, queries fail, they hang, they are slow, none come.

    Each leaves out those that go before it in that order: one incident wakes people once.
    """
    gone: tuple[str, ...] = ()
    paged: list[str] = []
    for of_absence in _of_kind(objectives, down.DownAlert):
        yield down.scraped_rule(surroundings)
        yield down.rule(of_absence, surroundings)
        gone = (down.condition(surroundings),)
        paged.append(of_absence.alert)

    def before() -> tuple[str, ...]:
        return (*gone, fires(surroundings.slo, *paged)) if paged else gone

    failing, slow = _objective_pages(objectives, surroundings)
    hangs = _of_kind(objectives, hanging.HangingAlert)
    ended = tuple(hanging.ended(one, surroundings) for one in hangs)
    for objective_page, objective, own in failing:
        # Not while the one before it only fires on: after an outage failures would be told minutes late.
        yield _for_objective(page.rule(objective_page, surroundings, own, (*gone, *ended)), objective)
    paged += [one.alert for one, _, _ in failing]
    for of_hang in hangs:
        yield hanging.rule(of_hang, surroundings, before())
        paged.append(of_hang.alert)
    for objective_page, objective, own in slow:
        threshold = _threshold(objectives, objective)
        slow_page = page.rule(objective_page, surroundings, own, before(), threshold)
        yield _for_objective(slow_page, objective)
    # The slow ones too: users who left after they had waited are slow, and nobody was answered.
    paged += [one.alert for one, _, _ in slow]
    for of_silence in _of_kind(objectives, no_traffic.NoTrafficAlert):
        yield no_traffic.rule(of_silence, surroundings, before())


def _load_test(objectives: Objectives, surroundings: Surroundings) -> Iterator[Rule]:
    """Evaluated with the pages, because it must be known before tickets are sent."""
    for alert in _of_kind(objectives, load_test.LoadTestAlert):
        yield load_test.rule(alert, surroundings, objectives.scenarios)


def _watchdog(objectives: Objectives, surroundings: Surroundings) -> Iterator[Rule]:
    """Evaluated with the pages, which its silence is about.

    Prometheus loses what fires in its first seconds, before it has found Alertmanager, and sends it again at
    the first evaluation more than a minute later: of groups of a minute, that is the second.
    """
    for alert in _of_kind(objectives, watchdog.WatchdogAlert):
        yield watchdog.rule(alert, surroundings)


_Kind = TypeVar("_Kind")


def _of_kind(objectives: Objectives, kind: type[_Kind]) -> list[_Kind]:
    return [alert for alert in objectives.alerts if isinstance(alert, kind)]


_ObjectivePage = tuple[page.Page, str, str]


def _objective_pages(
    objectives: Objectives, surroundings: Surroundings
) -> tuple[list[_ObjectivePage], list[_ObjectivePage]]:
    """The pages of ratios and those of latencies, each with its objective and its condition."""
    failing: list[_ObjectivePage] = []
    slow: list[_ObjectivePage] = []
    for objective in objectives.objectives:
        if objective.page is not None:
            is_slow = isinstance(objective.indicator, LatencyIndicator)
            own = page.condition(objective.page, surroundings.slo, objective.name, slow=is_slow)
            (slow if is_slow else failing).append((objective.page, objective.name, own))
    return failing, slow


def _threshold(objectives: Objectives, name: str) -> float | None:
    """Seconds that an answer may take by an objective, if it is one on latency."""
    indicators = (one.indicator for one in objectives.objectives if one.name == name)
    return next((one.threshold_seconds for one in indicators if isinstance(one, LatencyIndicator)), None)


def _for_objective(rule: Rule, objective: str) -> Rule:
    return replace(rule, labels={"objective": objective, **rule.labels})


def _tickets(objectives: Objectives, surroundings: Surroundings) -> Iterator[Rule]:
    for objective in objectives.objectives:
        if objective.ticket is not None:
            threshold = _threshold(objectives, objective.name)
            ticket = below_target.rule(
                objective.ticket, surroundings, objective.name, objective.target, threshold
            )
            yield _for_objective(ticket, objective.name)
    for alert in objectives.alerts:
        yield from _ticket(alert, surroundings)


def _ticket(alert: AnyAlert, surroundings: Surroundings) -> Iterator[Rule]:
    match alert:
        case budget.BudgetAlert():
            yield budget.rule(alert, surroundings)
        case share.ShareAlert() | share.SlowShareAlert():
            yield share.rule(alert, surroundings)
        case level.LevelAlert():
            yield level.rule(alert, surroundings)
        case rise.RiseAlert():
            yield rise.rule(alert, surroundings)
        case trend.TrendAlert():
            yield trend.floor_rule(surroundings)
            yield trend.rule(alert, surroundings)
        case restarts.RestartsAlert():
            yield restarts.rule(alert, surroundings)
        case scrape.ScrapeAlert():
            yield scrape.rule(alert, surroundings)
        case _:
            pass  # stands with the pages


# --- targets and thresholds ------------------------------------------------------------------------


def _constants(objectives: Objectives, interval: int) -> Iterator[Rule]:
    for objective in objectives.objectives:
        name = {"objective": objective.name}
        yield _constant(
            recorded.TARGET,
            objective.target,
            {**name, "operator": objective.operator.value, "unit": objective.unit},
        )
        if isinstance(objective.indicator, LatencyIndicator):
            yield _constant(recorded.THRESHOLD_SECONDS, objective.indicator.threshold_seconds, name)
        if objective.page is not None:
            yield _constant(recorded.PAGE_BAD_RATIO_LIMIT, objective.page.bad_ratio_above, name)
            yield _constant(recorded.PAGE_BAD_EVENTS_LIMIT, objective.page.minimum_bad_events, name)
        if objective.counted:
            for window, length in events.window_lengths(objective, interval).items():
                yield _constant(recorded.WINDOW_SECONDS, length / SECOND, {**name, "window": window.value})


def _constant(record: str, value: float, labels: Mapping[str, str]) -> Rule:
    return Rule(f"vector({float(value)!r})", record=record, labels=labels)
