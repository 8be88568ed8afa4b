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


# A service that is scraped now and then has a good scrape before any wait is over.
_RESTARTS_LOOKED_AT: Final = 10
_LEAST_SHARE_OF_SCRAPES: Final = 0.7  # two deploys in that time leave 80 %


def condition(surroundings: Surroundings) -> str:
    """Whether nothing has been scraped for a restart's time, or little for ten; false if nothing is known."""
    restart = duration(surroundings.restart)
    nothing = f"max(max_over_time({_up(surroundings)}[{restart}])) == 0"
    return f"{nothing}\nor\n{_hardly_scraped(surroundings, 'max')}"


def _hardly_scraped(surroundings: Surroundings, most: str) -> str:
    """Whether fewer than 70 % of the scrapes were good; ``most`` takes the instance that has most of them."""
    up, window = _up(surroundings), _looked_at(surroundings)
    return (
        f"{most}(avg_over_time({up}[{window}])) < {_LEAST_SHARE_OF_SCRAPES}\n"
        f"and\n"
        # What was not known so long ago may just be starting.
        f"{most}({up} offset {window}) >= 0"
    )


def _looked_at(surroundings: Surroundings) -> str:
    return duration(_RESTARTS_LOOKED_AT * surroundings.restart)


def _up(surroundings: Surroundings) -> str:
    return f'{UP}{{job="{surroundings.job}"}}'


def rule(alert: DownAlert, surroundings: Surroundings) -> Rule:
    """The page; its value is 0 where targets are down, 1 where there is none, else the share of good scrapes.

    It waits for a restart's time instead of looking back over it, so that a Prometheus that has just
    started waits too.
    """
    up = _up(surroundings)
    return alert_rule(
        alert,
        surroundings,
        f"max by (job) ({up}) == 0\nor\n{_hardly_scraped(surroundings, 'max by (job) ')}\nor\nabsent({up})",
        severity="page",
        role="symptom",
        component="service",
        words={"restart": duration(surroundings.restart), "window": _looked_at(surroundings)},
        waits=surroundings.restart,
        lingers=LINGERS_SCRAPES * surroundings.interval,
    )
