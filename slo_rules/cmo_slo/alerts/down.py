"""The page when the service is gone: none of its instances is scraped, for longer than a deploy's restart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from cmo_slo.alerts.alert import Alert, Surroundings, alert_rule
from cmo_slo.alerts.page import LINGERS_SCRAPES
from cmo_slo.durations import duration
from cmo_slo.monitor_series import UP

if TYPE_CHECKING:
    from cmo_slo.rule import Rule


class DownAlert(Alert):
    """A page when no instance of the service has been scraped for longer than a restart takes."""

    WORDS = ("restart", "window")
    LABELS = ("job",)

    kind: Literal["down"]


def condition(surroundings: Surroundings) -> str:
    """Whether nothing of the service has been scraped for a restart's time; false while nothing is known."""
    return f"max(max_over_time({_up(surroundings)}[{duration(surroundings.restart)}])) == 0"


def _up(surroundings: Surroundings) -> str:
    return f'{UP}{{job="{surroundings.job}"}}'


# A service that is scraped now and then has a good scrape before any wait is over.
_RESTARTS_LOOKED_AT: Final = 10
_LEAST_SHARE_OF_SCRAPES: Final = 0.5


def rule(alert: DownAlert, surroundings: Surroundings) -> Rule:
    """The page; its value is 0 where targets are down, 1 where there is none, else the share of good scrapes.

    It waits for a restart's time instead of looking back over it, so that a Prometheus that has just
    started waits too.
    """
    up = _up(surroundings)
    window = duration(_RESTARTS_LOOKED_AT * surroundings.restart)
    return alert_rule(
        alert,
        surroundings,
        f"max by (job) ({up}) == 0\n"
        f"or\n"
        f"max by (job) (avg_over_time({up}[{window}])) < {_LEAST_SHARE_OF_SCRAPES}\n"
        f"and\n"
        # What was not known so long ago may just be starting.
        f"max by (job) ({up} offset {window}) >= 0\n"
        f"or\n"
        f"absent({up})",
        severity="page",
        role="symptom",
        component="service",
        words={"restart": duration(surroundings.restart), "window": window},
        waits=surroundings.restart,
        lingers=LINGERS_SCRAPES * surroundings.interval,
    )
