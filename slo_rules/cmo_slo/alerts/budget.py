"""Tickets on the slow burn of the 30-day error budget of objectives.

A burn rate is the share of bad events over the share that the target allows; at 1 the budget lasts its 30
days. Two windows, as for pages: three days show that it is no accident, six hours that it goes on. Its
pages, the fast burn, are those on the share itself (`cmo_slo.alerts.page`): at a target of 95 % no burn
rate worth a page could be reached.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal

from cmo_exporter import catalogue
from pydantic import BeforeValidator, Field

from cmo_slo import recorded
from cmo_slo.alerts.alert import Alert, Surroundings, alert_rule
from cmo_slo.durations import HOUR, MINUTE
from cmo_slo.indicators import no_boolean
from cmo_slo.promql import selector
from cmo_slo.recorded import Window

if TYPE_CHECKING:
    from cmo_slo.rule import Rule

# The windows grow by whole hours, so what was true for ten minutes stays true for the rest of one.
_WAITS: Final = 10 * MINUTE
_LINGERS: Final = HOUR


class BudgetAlert(Alert):
    """A ticket when the error budget of any of some objectives is being spent faster than it lasts."""

    WORDS = ("limit",)
    LABELS = ("slo", "objective", "scenario")

    kind: Literal["budget"]
    objectives: Annotated[tuple[str, ...], Field(min_length=1)]
    burn_rate_above: Annotated[float, Field(gt=0.0), BeforeValidator(no_boolean)] = 1.0
    minimum_bad_events: Annotated[int, Field(ge=1), BeforeValidator(no_boolean)]
    """Bad events of three days."""


def rule(alert: BudgetAlert, surroundings: Surroundings) -> Rule:
    """The ticket; its value is the burn rate of three days."""

    def select(series: str, window: Window) -> str:
        labels = {"slo": (surroundings.slo,), "objective": alert.objectives, "scenario": (catalogue.LIVE,)}
        return selector(series, {**labels, "window": (window.value,)})

    days, hours = Window.THREE_DAYS, Window.SIX_HOURS
    total = select(recorded.TOTAL_EVENTS_IN_WINDOW, days)
    good = select(recorded.GOOD_EVENTS_IN_WINDOW, days)
    return alert_rule(
        alert,
        surroundings,
        f"max without (window) ({select(recorded.BURN_RATE, days)}) > {alert.burn_rate_above!r}\n"
        f"and\n"
        f"max without (window) ({select(recorded.BURN_RATE, hours)}) > {alert.burn_rate_above!r}\n"
        f"and\n"
        f"max without (window) ({total} - {good}) >= {alert.minimum_bad_events}",
        severity="ticket",
        role="symptom",
        component="service",
        words={"limit": f"{alert.burn_rate_above:g}"},
        waits=_WAITS,
        lingers=_LINGERS,
        dashboard=surroundings.slo,
    )
