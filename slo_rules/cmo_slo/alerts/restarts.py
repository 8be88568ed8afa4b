"""A ticket when processes of the service restart more often than deploys explain.

Each restart loses the queries inside it, and nothing counts those: a service that comes back within a
minute is never down for long enough to page, and fails nobody whom it could count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal

from cmo_exporter import catalogue
from pydantic import BeforeValidator, Field

from cmo_slo.alerts.alert import Alert, Duration, Surroundings, alert_rule, read_back
from cmo_slo.durations import HOUR, duration
from cmo_slo.indicators import no_boolean
from cmo_slo.promql import selector

if TYPE_CHECKING:
    from cmo_slo.rule import Rule

_LINGERS: Final = HOUR


class RestartsAlert(Alert):
    """A ticket when a worker has restarted more often than a limit within a window."""

    WORDS = ("limit", "window")
    LABELS = ("job", "instance")

    kind: Literal["restarts"]
    restarts_above: Annotated[int, Field(ge=0), BeforeValidator(no_boolean)]
    window: Annotated[Duration, read_back()]


def rule(alert: RestartsAlert, surroundings: Surroundings) -> Rule:
    """The ticket; its value is how often the worker that did most has restarted."""
    window = duration(surroundings.window(alert.window))
    started = selector(catalogue.WORKER_START_TIME.name, {"job": (surroundings.job,)})
    return alert_rule(
        alert,
        surroundings,
        f"max by (job, instance) (changes({started}[{window}])) > {alert.restarts_above}",
        severity="ticket",
        role="cause",
        component="service",
        words={"limit": str(alert.restarts_above), "window": window},
        lingers=_LINGERS,
    )
