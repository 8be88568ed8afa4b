"""Says that a load test runs, to nobody: Alertmanager silences tickets of causes meanwhile.

It looks at the queries of a minute, because a scenario may be over in nine seconds, and fires on for an hour,
because most tickets look at an hour, in which the load test still is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from cmo_slo import recorded
from cmo_slo.alerts.alert import Alert, Surroundings, alert_rule
from cmo_slo.durations import HOUR, MINUTE
from cmo_slo.promql import selector, summed

if TYPE_CHECKING:
    from cmo_slo.rule import Rule


class LoadTestAlert(Alert):
    """Fires while any scenario of a run is asked for."""

    kind: Literal["load_test"]


def rule(alert: LoadTestAlert, surroundings: Surroundings, scenarios: tuple[str, ...]) -> Rule:
    """The information; its value is how many queries the load test has begun in a minute."""
    started = selector(recorded.STARTED_QUERIES, {"slo": (surroundings.slo,), "scenario": scenarios})
    return alert_rule(
        alert,
        surroundings,
        f"sum({summed(started, max(MINUTE, 2 * surroundings.interval))}) > 0",
        severity="info",
        role="monitoring",
        component="service",
        lingers=HOUR,
    )
