"""Tickets when live traffic misses an objective's own target over an hour, or over a day where few ask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from cmo_exporter import catalogue
from pydantic import BeforeValidator, Field

from cmo_slo import recorded
from cmo_slo.alerts.alert import (
    Alert,
    Role,
    Surroundings,
    Text,
    alert_rule,
    exceeds,
    percentage,
    threshold_word,
)
from cmo_slo.durations import MINUTE
from cmo_slo.indicators import no_boolean
from cmo_slo.promql import selector
from cmo_slo.recorded import Window

if TYPE_CHECKING:
    from cmo_slo.rule import Rule

# An hour's share moves slowly: what is below its target for five minutes has not merely brushed it.
_WAITS: Final = 5 * MINUTE
_LINGERS: Final = 15 * MINUTE


class BelowTarget(Alert):
    """A ticket when the share of good live events is below the target."""

    WORDS = ("limit", "target")
    LABELS = ("slo", "objective", "scenario")

    role: Role
    component: Text
    minimum_bad_events: Annotated[int, Field(ge=1), BeforeValidator(no_boolean)]


def rule(
    ticket: BelowTarget,
    surroundings: Surroundings,
    objective: str,
    target: float,
    threshold: float | None = None,
) -> Rule:
    """The ticket; its value is the share of bad events. ``threshold`` is the seconds of a latency."""

    def bad_and_total(window: Window) -> tuple[str, str]:
        labels = {
            "slo": (surroundings.slo,),
            "objective": (objective,),
            "scenario": (catalogue.LIVE,),
            "window": (window.value,),
        }
        total = selector(recorded.TOTAL_EVENTS_IN_WINDOW, labels)
        return f"({total} - {selector(recorded.GOOD_EVENTS_IN_WINDOW, labels)})", total

    limit = round(1 - target, 12)
    hour_bad, hour_total = bad_and_total(Window.HOUR)
    day_bad, day_total = bad_and_total(Window.DAY)
    busy = exceeds(hour_bad, hour_total, limit, ticket.minimum_bad_events)
    rare = (
        f"{exceeds(day_bad, day_total, limit, ticket.minimum_bad_events)}\n"
        f"and ignoring (window)\n"
        f"{hour_bad} > 0\n"
        f"and ignoring (window)\n"
        f"{hour_total} < {2 * ticket.minimum_bad_events}"
    )
    return alert_rule(
        ticket,
        surroundings,
        f"max without (window) (\n  {busy}\n  or\n  {rare}\n)".replace("\n", "\n  ").replace("\n  )", "\n)"),
        severity="ticket",
        role=ticket.role,
        component=ticket.component,
        words={"limit": percentage(limit), "target": percentage(target), **threshold_word(threshold)},
        waits=_WAITS,
        lingers=_LINGERS,
    )
