"""Says that a load test runs, to nobody: Alertmanager silences tickets of causes meanwhile.

It fires on for an hour, because tickets look at an hour, in which the load test still is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from cmo_exporter import catalogue

from cmo_slo.alerts.alert import Alert, Surroundings, alert_rule
from cmo_slo.durations import HOUR
from cmo_slo.promql import selector

if TYPE_CHECKING:
    from cmo_slo.rule import Rule


class LoadTestAlert(Alert):
    """Fires while any scenario of a run has users."""

    kind: Literal["load_test"]


def rule(alert: LoadTestAlert, surroundings: Surroundings, scenarios: tuple[str, ...]) -> Rule:
    """The information; its value is how many users the load test has."""
    users = selector(catalogue.ACTIVE_USERS.name, {"scenario": scenarios})
    return alert_rule(
        alert,
        surroundings,
        f"sum({users}) > 0",
        severity="info",
        role="monitoring",
        component="service",
        lingers=HOUR,
    )
