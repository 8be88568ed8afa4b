"""Which cases test which alert, and the test files of them all."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from cmo_exporter import catalogue

from cmo_slo.alerts.budget import BudgetAlert
from cmo_slo.alerts.down import DownAlert
from cmo_slo.alerts.hanging import HangingAlert
from cmo_slo.alerts.level import LevelAlert
from cmo_slo.alerts.load_test import LoadTestAlert
from cmo_slo.alerts.no_traffic import NoTrafficAlert
from cmo_slo.alerts.page import LINGERS_SCRAPES
from cmo_slo.alerts.restarts import RestartsAlert
from cmo_slo.alerts.rise import RiseAlert
from cmo_slo.alerts.scrape import ScrapeAlert
from cmo_slo.alerts.share import ShareAlert, SlowShareAlert
from cmo_slo.alerts.trend import TrendAlert
from cmo_slo.alerts.watchdog import WatchdogAlert
from cmo_slo.compile import compile_rules, surroundings_of
from cmo_slo.durations import HOUR, MINUTE, duration, parse_duration
from cmo_slo.indicators import LatencyIndicator, RatioIndicator
from cmo_slo.rule_tests import causes, monitoring, pages, roll_ups, stimulus
from cmo_slo.rule_tests.case import Case, case_document
from cmo_slo.rule_tests.shares import (
    Share,
    page_rare_cases,
    page_window_cases,
    rare_cases,
    rare_limit_cases,
    share_cases,
    soon,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cmo_slo.alerts.alert import Surroundings
    from cmo_slo.alerts.kinds import AnyAlert
    from cmo_slo.alerts.page import Page
    from cmo_slo.model import Objective, Objectives
    from cmo_slo.rule import Rule

_TICKET_STEP: Final = MINUTE
# Less than five minutes, after which a series is forgotten.
_BUDGET_STEP: Final = 3 * MINUTE
_AN_HOUR: Final = HOUR // _BUDGET_STEP
# So many good events at once that no window of six hours has too many bad ones any more.
_DROWNED: Final = 1e7
# At short scrape intervals a quarter of an hour has too many steps for a test of few queries.
_MOST_RARE_STEPS: Final = 120
_TREND_STEP: Final = 5 * MINUTE
# A day in few steps.
_RESTARTS_STEP: Final = 4 * MINUTE


@dataclass(frozen=True)
class RuleTestFile:
    """The tests of one alert, evaluated every ``step`` milliseconds; ``groups`` are in the file's order."""

    alert: str
    step: int
    groups: tuple[str, ...]
    documents: tuple[dict[str, Any], ...]

    def document(self, rule_file: str) -> dict[str, Any]:
        """The whole file as promtool reads it."""
        return {
            "rule_files": [rule_file],
            "evaluation_interval": duration(self.step),
            # promtool would take them in any order, and what one step holds would depend on it.
            "group_eval_order": list(self.groups),
            "tests": list(self.documents),
        }


@dataclass(frozen=True)
class _Plan:
    """Cases of one alert."""

    alert: str
    step: int
    cases: Iterable[Case]


def generate_rule_tests(objectives: Objectives, scrape_interval: str) -> tuple[RuleTestFile, ...]:
    """The tests of every alert that the objectives compile to, in the order of the file.

    Raises:
        CompileError: the objectives or the interval cannot be compiled.
    """
    groups = compile_rules(objectives, scrape_interval)
    alerts = [rule for group in groups for rule in group.rules if rule.alert]
    surroundings = surroundings_of(objectives, scrape_interval)
    plans = [*_objective_plans(objectives, surroundings), *_alert_plans(objectives, surroundings)]
    names = tuple(group.name for group in groups)
    return tuple(_file(plan, alerts, names) for plan in plans)


def _file(plan: _Plan, alerts: list[Rule], groups: tuple[str, ...]) -> RuleTestFile:
    rule = next(rule for rule in alerts if rule.alert == plan.alert)
    documents = tuple(case_document(case, rule, plan.step) for case in plan.cases)
    return RuleTestFile(plan.alert, plan.step, groups, documents)


# --- alerts of objectives --------------------------------------------------------------------------


def _objective_plans(objectives: Objectives, surroundings: Surroundings) -> Iterable[_Plan]:
    for objective in objectives.objectives:
        if objective.page is not None:
            share = _page(objective, objective.page, surroundings)
            cases = list(share_cases(share))
            quarter = 15 * MINUTE // surroundings.interval
            if quarter <= _MOST_RARE_STEPS:
                windows = objective.page.windows(surroundings.interval)
                short, long = (length // surroundings.interval for length in (windows.short, windows.long))
                cases += page_window_cases(share, short=short, long=long, quarter=quarter)
                cases += page_rare_cases(
                    share,
                    long=long,
                    quarter=quarter,
                    minimum=objective.page.low_traffic.minimum_bad_events,
                )
            yield _Plan(objective.page.alert, surroundings.interval, _scraped(cases))
        if objective.ticket is not None:
            share = _ticket(objective)
            cases = [*share_cases(share), *roll_ups.day_cases(share, objectives.name, objective.name)]
            yield _Plan(objective.ticket.alert, _TICKET_STEP, cases)


def _scraped(cases: Iterable[Case]) -> list[Case]:
    """The same of a service that is there: what is said of one that is gone goes before all else."""
    there = stimulus.up("1x1000")
    return [replace(case, series=(*case.series, there)) for case in cases]


def _stimulus(objective: Objective) -> stimulus.Stimulus:
    indicator = objective.indicator
    if isinstance(indicator, RatioIndicator):
        return stimulus.of_ratio(indicator)
    if isinstance(indicator, LatencyIndicator):
        return stimulus.of_latency(indicator)
    raise ValueError(f"{objective.name} counts no events")


def _page(objective: Objective, page: Page, surroundings: Surroundings) -> Share:
    long = page.windows(surroundings.interval).long // surroundings.interval
    return Share(
        stimulus=_stimulus(objective),
        limit=page.bad_ratio_above,
        minimum=page.minimum_bad_events,
        window=long,
        fires_after=long + 2,
        ends_after=long + LINGERS_SCRAPES + 2,
        waits=0,
        lingers=LINGERS_SCRAPES,
        value_of_all=1.0,
        labels={"scenario": catalogue.LIVE},
    )


def _ticket(objective: Objective) -> Share:
    assert objective.ticket is not None  # noqa: S101 - asked by the caller
    limit = round(1 - objective.target, 12)
    return Share(
        stimulus=_stimulus(objective),
        limit=limit,
        minimum=objective.ticket.minimum_bad_events,
        window=60,
        fires_after=soon(limit, 5),
        ends_after=60 + 15 + 5,
        waits=5,
        lingers=15,
        value_of_all=1.0,
        labels={"scenario": catalogue.LIVE},
    )


# --- alerts by themselves --------------------------------------------------------------------------


def _alert_plans(objectives: Objectives, surroundings: Surroundings) -> Iterable[_Plan]:
    for alert in objectives.alerts:
        step, cases = _cases(alert, objectives, surroundings)
        yield _Plan(alert.alert, step, cases)


def _cases(alert: AnyAlert, objectives: Objectives, surroundings: Surroundings) -> tuple[int, Iterable[Case]]:
    match alert:
        case DownAlert() | HangingAlert() | NoTrafficAlert():
            return surroundings.interval, _page_cases(alert, surroundings)
        case BudgetAlert():
            return _BUDGET_STEP, _budget_cases(alert, objectives)
        case ShareAlert() | SlowShareAlert():
            share = _share(alert)
            window, minimum = parse_duration(alert.window) // _TICKET_STEP, alert.minimum_bad_events
            return _TICKET_STEP, [
                *share_cases(share),
                *rare_cases(share, window=6 * window, minimum=minimum),
                *rare_limit_cases(share, window=window, minimum=minimum),
            ]
        case LevelAlert() | RiseAlert() | TrendAlert() | RestartsAlert():
            return _cause_cases(alert, surroundings.slo)
        case ScrapeAlert():
            return _TICKET_STEP, monitoring.scrape_cases(alert, surroundings, _TICKET_STEP)
        case LoadTestAlert():
            return _TICKET_STEP, monitoring.load_test_cases(objectives.scenarios)
        case WatchdogAlert():
            return _TICKET_STEP, monitoring.watchdog_cases()


def _cause_cases(
    alert: LevelAlert | RiseAlert | TrendAlert | RestartsAlert, slo: str
) -> tuple[int, Iterable[Case]]:
    match alert:
        case LevelAlert():
            return _TICKET_STEP, causes.level_cases(alert, _TICKET_STEP)
        case RiseAlert():
            return _TICKET_STEP, causes.rise_cases(alert, slo, _TICKET_STEP)
        case TrendAlert():
            return _TREND_STEP, causes.trend_cases(alert, _TREND_STEP)
        case RestartsAlert():
            return _RESTARTS_STEP, causes.restarts_cases(alert, _RESTARTS_STEP)


def _page_cases(
    alert: DownAlert | HangingAlert | NoTrafficAlert, surroundings: Surroundings
) -> Iterable[Case]:
    match alert:
        case DownAlert():
            return pages.down_cases(surroundings)
        case HangingAlert():
            return _scraped(pages.hanging_cases(alert, surroundings))
        case NoTrafficAlert():
            return pages.no_traffic_cases(alert, surroundings)


def _budget_cases(alert: BudgetAlert, objectives: Objectives) -> Iterable[Case]:
    for objective in objectives.objectives:
        if objective.name in alert.objectives:
            allowed = 1 - objective.target
            share = Share(
                stimulus=_stimulus(objective),
                limit=round(allowed * alert.burn_rate_above, 12),
                # promtool rolls hours up at every step: events count many times over, ratios stay true.
                minimum=None,
                window=_AN_HOUR,
                fires_after=10,
                ends_after=_AN_HOUR + 3,
                good_again=_DROWNED,
                waits=4,
                lingers=_AN_HOUR,
                value_of_all=1 / allowed,
                labels={"objective": objective.name, "scenario": catalogue.LIVE},
            )
            minimum, slo = alert.minimum_bad_events, objectives.name
            by_hours = roll_ups.budget_cases(share, minimum, slo, objective.name, _BUDGET_STEP)
            for case in (*share_cases(share), *by_hours):
                yield replace(case, name=f"{objective.name}: {case.name}")


def _share(alert: ShareAlert | SlowShareAlert) -> Share:
    window = parse_duration(alert.window) // _TICKET_STEP
    make = stimulus.of_share(alert)
    series = make([stimulus.Events(0, 1, 1)])[0]
    kept = ("scenario", *alert.by)
    return Share(
        stimulus=make,
        limit=alert.share_above,
        minimum=alert.minimum_bad_events,
        window=window,
        fires_after=soon(alert.share_above, 1),
        ends_after=window + 15 + 5,
        waits=1,
        lingers=15,
        value_of_all=1.0,
        labels={name: value for name, value in series.labels.items() if name in kept},
    )
