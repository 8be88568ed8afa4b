"""The page when the service is gone: none of its instances is scraped, for longer than a deploy's restart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from cmo_slo.alerts.alert import Alert, Surroundings, alert_rule
from cmo_slo.durations import duration
from cmo_slo.monitor_series import UP

if TYPE_CHECKING:
    from cmo_slo.rule import Rule


class DownAlert(Alert):
    """A page when no instance of the service has been scraped for longer than a restart takes."""

    kind: Literal["down"]


def condition(surroundings: Surroundings) -> str:
    """Whether nothing of the service has been scraped for a restart's time; false while nothing is known."""
    return f'max(max_over_time({UP}{{job="{surroundings.job}"}}[{duration(surroundings.restart)}])) == 0'


def rule(alert: DownAlert, surroundings: Surroundings) -> Rule:
    """The page; its value is 0 where targets are down, 1 where there is none.

    It waits for a restart's time instead of looking back over it, so that a Prometheus that has just
    started waits too.
    """
    up = f'{UP}{{job="{surroundings.job}"}}'
    return alert_rule(
        alert,
        surroundings,
        f"max by (job) ({up}) == 0\nor\nabsent({up})",
        severity="page",
        role="symptom",
        component="service",
        words={"restart": duration(surroundings.restart)},
        waits=surroundings.restart,
        lingers=8 * surroundings.interval,
    )
