"""The page when live queries hang: they have begun and do not finish, so nothing is counted as failed.

How many have been under way for longer than a time is known without looking at any of them: those in
progress less those that began within that time. A blocked event loop lets no query begin either, so there
one that is inside is enough.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from cmo_exporter import catalogue
from pydantic import BeforeValidator, Field

from cmo_slo import recorded
from cmo_slo.alerts.alert import Alert, Duration, Surroundings, alert_rule, excluding
from cmo_slo.durations import SECOND, duration, parse_duration
from cmo_slo.indicators import no_boolean
from cmo_slo.promql import selector, summed

if TYPE_CHECKING:
    from cmo_slo.rule import Rule


class HangingAlert(Alert):
    """A page when live queries have been under way for longer than any answer takes."""

    kind: Literal["hanging"]
    after: Duration
    """Longer than the service's own deadline."""
    minimum_queries: Annotated[int, BeforeValidator(no_boolean), Field(ge=1)]


def condition(alert: HangingAlert, surroundings: Surroundings) -> str:
    """When queries hang; its value is how many."""
    live = {"scenario": (catalogue.LIVE,)}
    started = selector(recorded.STARTED_QUERIES, {"slo": (surroundings.slo,), **live})
    in_progress = selector(catalogue.QUERIES_IN_PROGRESS.name, live)
    after = parse_duration(alert.after)
    blocked = f"max by (job, instance) ({catalogue.EVENT_LOOP_BLOCKED.name}) > {after / SECOND:g}"
    return (
        f"sum by (scenario) ({in_progress})\n"
        f"- sum by (scenario) ({summed(started, after)}) >= {alert.minimum_queries}\n"
        f"or\n"
        f"sum by (scenario) ({in_progress} and on (job, instance) {blocked}) > 0"
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
        words={"after": duration(parse_duration(alert.after)), "minimum": str(alert.minimum_queries)},
        lingers=8 * surroundings.interval,
    )
