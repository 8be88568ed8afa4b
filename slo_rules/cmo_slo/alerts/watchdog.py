"""Fires always, so that its silence says that the monitor is gone: a dead-man receiver listens for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from cmo_slo.alerts.alert import Alert, Surroundings, alert_rule

if TYPE_CHECKING:
    from cmo_slo.rule import Rule


class WatchdogAlert(Alert):
    """Always fires."""

    kind: Literal["watchdog"]


def rule(alert: WatchdogAlert, surroundings: Surroundings) -> Rule:
    """The sign of life."""
    return alert_rule(
        alert,
        surroundings,
        "vector(1)",
        severity="watchdog",
        role="monitoring",
        component="prometheus",
    )
