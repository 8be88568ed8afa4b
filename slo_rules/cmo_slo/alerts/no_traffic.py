"""The page when live traffic is missing: nobody asks though last week at this hour many did, or nobody can.

A service that is reachable from Prometheus may not be from its users: then nothing fails, nothing is slow,
and nothing comes. Last week says that something should; the prober says that nothing can.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal

from cmo_exporter import catalogue
from pydantic import BeforeValidator, Field

from cmo_slo import recorded
from cmo_slo.alerts.alert import Alert, Duration, Surroundings, alert_rule, excluding, read_back
from cmo_slo.alerts.page import LINGERS_SCRAPES
from cmo_slo.durations import DAY, HOUR, MINUTE, duration
from cmo_slo.indicators import no_boolean
from cmo_slo.monitor_series import UP
from cmo_slo.promql import selector, summed, within
from cmo_slo.recorded import Window

if TYPE_CHECKING:
    from cmo_slo.rule import Rule

# The hour around this moment a week ago, as the series of hours that end at each minute has it.
_LAST_WEEK: Final = 7 * DAY - HOUR // 2
_COVERED: Final = 0.8
_FEWEST_QUESTIONS: Final = 2
_FEWEST_SCRAPES: Final = 4
_ANSWERED_POORLY: Final = (
    catalogue.ProbeResult.TOO_SLOW,
    catalogue.ProbeResult.DEGRADED,
    catalogue.ProbeResult.APOLOGY,
    catalogue.ProbeResult.WRONG_SOURCE,
    catalogue.ProbeResult.WRONG_ANSWER,
)


class NoTrafficAlert(Alert):
    """A page when no live query begins though one should, or none is answered and the probe fails too."""

    WORDS = ("window", "probe_window", "unanswered")
    LABELS = ("scenario",)

    kind: Literal["no_traffic"]
    objective: str
    """The objective whose live events are this service's traffic."""
    window: Annotated[Duration, read_back()]
    """For how long nobody has asked."""
    expected_queries_an_hour: Annotated[int, Field(ge=1), BeforeValidator(no_boolean)]
    """What there must have been in the hour around this time last week."""
    probe_window: Annotated[Duration, read_back()]
    """For how long no live query has been answered, while every canary fails or enough have asked."""
    unanswered_queries: Annotated[int, Field(ge=1), BeforeValidator(no_boolean)]
    """How many must have asked in that time, where there is no prober: their users all left."""


def condition(alert: NoTrafficAlert, surroundings: Surroundings) -> str:
    """When traffic is missing; its value is how many queries there were in that hour last week, or 0."""
    live = {"slo": (surroundings.slo,), "scenario": (catalogue.LIVE,)}
    of_objective = {**live, "objective": (alert.objective,)}
    started = selector(recorded.STARTED_QUERIES, live)
    answered = selector(recorded.GOOD_EVENTS, of_objective)
    last_week = selector(recorded.TOTAL_EVENTS_IN_WINDOW, {**of_objective, "window": (Window.HOUR.value,)})
    window, probe_window = surroundings.window(alert.window), surroundings.window(alert.probe_window)
    enough = _COVERED * window / surroundings.interval
    nobody_answered = f"sum by (scenario) ({summed(answered, probe_window)})"
    # Where nothing is counted any more nobody is known to be answered, either.
    uncounted = f"absent_over_time({answered}[{duration(probe_window)}])"
    lately = max(MINUTE, _FEWEST_SCRAPES * surroundings.interval)
    poor = selector(
        catalogue.PROBE_RESULTS.name, {"job": (surroundings.probe_job,), "result": _ANSWERED_POORLY}
    )
    of_a_load_test = selector(
        recorded.STARTED_QUERIES, {"slo": (surroundings.slo,), "scenario": surroundings.scenarios}
    )
    return (
        f"sum by (scenario) ({last_week} offset {duration(_LAST_WEEK)}) >= {alert.expected_queries_an_hour}\n"
        f"and on (scenario)\n"
        f"sum by (scenario) ({summed(started, window)}) == 0\n"
        f"and on (scenario)\n"
        f"max by (scenario) (count_over_time({within(started, window)})) >= {enough:g}\n"
        f"or\n"
        f"sum by (scenario) ({summed(answered, probe_window)} or 0 * {uncounted}) == 0\n"
        f"and on ()\n"
        f"{_probes_fail(surroundings, probe_window)}\n"
        # The prober is answered, but late or poorly, because a load test asks: that is what a load test does.
        f"unless on ()\n"
        f"(\n"
        f"  sum({summed(of_a_load_test, lately)}) > 0\n"
        f"  and on ()\n"
        f"  sum(increase({poor}[{duration(lately)}])) > 0\n"
        f")\n"
        f"or\n"
        f"{nobody_answered} == 0\n"
        f"and on (scenario)\n"
        f"sum by (scenario) ({summed(started, probe_window)}) >= {alert.unanswered_queries}"
    )


def _probes_fail(surroundings: Surroundings, window: int) -> str:
    """Whether the prober has asked for a whole window, still does, and every question has failed."""
    job = {"job": (surroundings.probe_job,)}
    results = selector(catalogue.PROBE_RESULTS.name, job)
    good = selector(catalogue.PROBE_RESULTS.name, {**job, "result": (str(catalogue.ProbeResult.SUCCESS),)})
    return (
        f"(sum(increase({good}[{duration(window)}])) or vector(0)) == 0\n"
        f"and on ()\n"
        f"sum(increase({results}[{duration(window)}])) >= {_FEWEST_QUESTIONS}\n"
        # One that has just begun has not failed for long, and what one said that is gone is no news.
        f"and on ()\n"
        f"count({results} offset {duration(window)}) > 0\n"
        # Where there are many canaries a window holds the questions of some: the others may be well.
        f"and on ()\n"
        f"max({selector(catalogue.PROBE_UP.name, job)}) == 0"
    )


def rule(alert: NoTrafficAlert, surroundings: Surroundings, others: tuple[str, ...]) -> Rule:
    """The page; not while the service is not scraped, which is another one's."""
    scraped = f'sum({UP}{{job="{surroundings.job}"}}) > 0'
    own = f"(\n  {condition(alert, surroundings)}\n)".replace("\n", "\n  ").replace("\n  )", "\n)")
    return alert_rule(
        alert,
        surroundings,
        excluding(f"{own}\nand on ()\n{scraped}", others),
        severity="page",
        role="symptom",
        component="service",
        words={
            "window": duration(surroundings.window(alert.window)),
            "probe_window": duration(surroundings.window(alert.probe_window)),
            "unanswered": str(alert.unanswered_queries),
        },
        waits=MINUTE,
        lingers=LINGERS_SCRAPES * surroundings.interval,
    )
