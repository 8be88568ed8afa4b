"""The page when live queries hang: they have begun and do not finish, so nothing is counted as failed.

Three ways to see it, each of one instance, so that the traffic of another does not hide it:

- Those in progress less those that began within a time have been under way for longer, all of them. Sure and
  quick, where not many others begin.
- What is in progress on average is what finishes takes in a second (Little's law), but for what does not
  finish. Slower, and sure only with the age of the oldest beside it.
- A blocked event loop lets no query begin either, so there one that is inside is enough.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal

from cmo_exporter import catalogue
from pydantic import BeforeValidator, Field

from cmo_slo import recorded
from cmo_slo.alerts.alert import Alert, Duration, Surroundings, alert_rule, excluding, fires, read_back
from cmo_slo.alerts.page import LINGERS_SCRAPES
from cmo_slo.durations import SECOND, duration
from cmo_slo.indicators import no_boolean
from cmo_slo.promql import indented, selector, summed, within

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cmo_slo.rule import Rule

_COVERED: Final = 0.9
_AVERAGED: Final = 5
_FRESH_SCRAPES: Final = 4


class HangingAlert(Alert):
    """A page when live queries have been under way for longer than any answer takes."""

    WORDS = ("after", "minimum")
    LABELS = ("scenario",)

    kind: Literal["hanging"]
    after: Annotated[Duration, read_back(windows=_AVERAGED)]
    """Longer than the service's own deadline."""
    minimum_queries: Annotated[int, Field(ge=1), BeforeValidator(no_boolean)]


def condition(alert: HangingAlert, surroundings: Surroundings) -> str:
    """When queries hang; its value is how many."""
    of = {"job": (surroundings.job,), "scenario": (catalogue.LIVE,)}
    live = selector(catalogue.QUERIES_IN_PROGRESS.name, of)
    in_progress = f"sum by (scenario, job, instance) ({live})"
    after = surroundings.window(alert.after)
    blocked = selector(catalogue.EVENT_LOOP_BLOCKED.name, {"job": (surroundings.job,)})
    fresh = _FRESH_SCRAPES * surroundings.interval
    of_a_load_test = selector(catalogue.QUERIES_IN_PROGRESS.name, {**of, "scenario": surroundings.scenarios})
    return (
        f"sum by (scenario) (\n"
        f"  (\n"
        f"    {indented(_older(alert, surroundings, in_progress), '    ')}\n"
        f"    or\n"
        f"    {indented(_unfinished(alert, surroundings, of, in_progress), '    ')}\n"
        f"    or\n"
        # Whoever comes now is not even counted: its queries in progress may be none.
        f"    (\n"
        f"      {in_progress} > 0\n"
        f"      or\n"
        f"      {in_progress} unless on (job, instance) sum by (job, instance) ({of_a_load_test}) > 0\n"
        f"    )\n"
        f"    and on (job, instance)\n"
        f"    max by (job, instance) ({blocked}) > {after / SECOND:g}\n"
        f"  )\n"
        f"  and on (scenario, job, instance)\n"
        # A target that went while Prometheus was down has no mark of its end: its last gauges are seen on.
        f"  time() - timestamp({live}) < {fresh / SECOND:g}\n"
        f")"
    )


def ended(alert: HangingAlert, surroundings: Surroundings) -> str:
    """Whether the page fires still, though none is old any more: some that hang on must not hide failures."""
    oldest = selector(
        catalogue.OLDEST_QUERY_AGE.name, {"job": (surroundings.job,), "scenario": (catalogue.LIVE,)}
    )
    after = surroundings.window(alert.after) / SECOND
    return f"{fires(surroundings.slo, alert.alert)}\nunless on ()\nmax({oldest}) > {after:g}"


def _older(alert: HangingAlert, surroundings: Surroundings, in_progress: str) -> str:
    after = surroundings.window(alert.after)
    started = selector(recorded.STARTED_QUERIES, {"slo": (surroundings.slo,), "scenario": (catalogue.LIVE,)})
    begun = f"sum by (scenario, job, instance) ({summed(started, after)})"
    # Where it is not known what began, all that is in progress would seem old.
    known = f"sum by (scenario, job, instance) (count_over_time({within(started, after)}))"
    enough = _COVERED * after / surroundings.interval
    return (
        f"{in_progress} - {begun} >= {alert.minimum_queries}\n"
        f"and on (scenario, job, instance)\n"
        f"{known} >= {enough:g}"
    )


def _unfinished(
    alert: HangingAlert, surroundings: Surroundings, of: Mapping[str, tuple[str, ...]], in_progress: str
) -> str:
    after = surroundings.window(alert.after)
    window = duration(_AVERAGED * after)
    live = selector(catalogue.QUERIES_IN_PROGRESS.name, of)
    # Over the whole window, as the rate beside it: where scrapes are missing the mean of those that are there
    # would be that of less time.
    scrapes = _AVERAGED * after / surroundings.interval
    mean = f"sum by (scenario, job, instance) ({summed(live, _AVERAGED * after)}) / {scrapes:g}"
    work = selector(f"{catalogue.QUERY_DURATION.name}_sum", of)
    finished = f"sum by (scenario, job, instance) (rate({work}[{window}]))"
    oldest = selector(catalogue.OLDEST_QUERY_AGE.name, of)

    def counted(series: str) -> str:
        return f"max by (scenario, job, instance) (count_over_time({within(series, _AVERAGED * after)}))"

    return (
        f"{mean} - {finished} >= {alert.minimum_queries}\n"
        f"and on (scenario, job, instance)\n"
        f"max by (scenario, job, instance) ({oldest}) > {after / SECOND:g}\n"
        f"and on (scenario, job, instance)\n"
        f"{in_progress} >= {alert.minimum_queries}\n"
        f"and on (scenario, job, instance)\n"
        # A rate over the first minutes of a series is too low.
        f"{live} offset {window}\n"
        f"and on (scenario, job, instance)\n"
        f"{counted(work)} >= {_COVERED:g} * {counted(live)}"
    )


def rule(alert: HangingAlert, surroundings: Surroundings, others: tuple[str, ...]) -> Rule:
    """The page; its value is how many queries hang."""
    return alert_rule(
        alert,
        surroundings,
        excluding(condition(alert, surroundings), others),
        severity="page",
        role="symptom",
        component="service",
        words={"after": duration(surroundings.window(alert.after)), "minimum": str(alert.minimum_queries)},
        lingers=LINGERS_SCRAPES * surroundings.interval,
    )
