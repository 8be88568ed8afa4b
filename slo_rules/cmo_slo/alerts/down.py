"""The page when the service is gone: none of its instances is scraped, for longer than a deploy's restart."""

from __future__ import annotations

from typing import Final, Literal

from cmo_slo import recorded
from cmo_slo.alerts.alert import Alert, Surroundings, alert_rule
from cmo_slo.alerts.page import LINGERS_SCRAPES
from cmo_slo.durations import duration
from cmo_slo.monitor_series import UP
from cmo_slo.promql import indented, selector, within
from cmo_slo.rule import Rule


class DownAlert(Alert):
    """A page when no instance of the service has been scraped for longer than a restart takes."""

    WORDS = ("restart", "window")
    LABELS = ("job",)

    kind: Literal["down"]


# A service that is scraped now and then has a good scrape before any wait is over.
_RESTARTS_LOOKED_AT: Final = 10
_FEWEST_SCRAPES_LOOKED_AT: Final = 20
_LEAST_SHARE_OF_SCRAPES: Final = 0.7  # two deploys in that time leave 80 %
_RESTARTS_LATELY: Final = 4
_FEWEST_SCRAPES_LATELY: Final = 8
_KNOWN: Final = 0.5


def scraped_rule(surroundings: Surroundings) -> Rule:
    """Whether anything of the service is scraped: pods that crash may have a new name each time."""
    up = selector(UP, {"job": (surroundings.job,)})
    # Where there has been a target lately there should be one; where nothing is known nothing is said.
    return Rule(
        f"max({up})\nor\n0 * max(max_over_time({up}[{duration(_looked_at(surroundings))}]))",
        record=recorded.SCRAPED,
        labels={"job": surroundings.job},
    )


def condition(surroundings: Surroundings) -> str:
    """Whether nothing has been scraped for a restart's time, or little for ten; false if nothing is known."""
    restart = max(surroundings.restart, 2 * surroundings.interval)
    nothing = f"max by (job) (max_over_time({_scraped(surroundings)}[{duration(restart)}])) == 0"
    return f"{nothing}\nor\n{_hardly_scraped(surroundings)}"


def _hardly_scraped(surroundings: Surroundings) -> str:
    """Whether fewer than 70 % of the scrapes were good, and some of the latest were not."""
    scraped, window = _scraped(surroundings), _looked_at(surroundings)
    lately = max(_RESTARTS_LATELY * surroundings.restart, _FEWEST_SCRAPES_LATELY * surroundings.interval)
    return (
        f"avg_over_time({within(scraped, window)}) < {_LEAST_SHARE_OF_SCRAPES}\n"
        f"and\n"
        f"min_over_time({within(scraped, lately)}) == 0\n"
        f"and\n"
        # What has just begun to be looked at, or again, may just be starting.
        f"count_over_time({within(scraped, window)}) >= {_KNOWN * window / surroundings.interval:g}"
    )


def _looked_at(surroundings: Surroundings) -> int:
    return max(_RESTARTS_LOOKED_AT * surroundings.restart, _FEWEST_SCRAPES_LOOKED_AT * surroundings.interval)


def _scraped(surroundings: Surroundings) -> str:
    return selector(recorded.SCRAPED, {"slo": (surroundings.slo,), "job": (surroundings.job,)})


def rule(alert: DownAlert, surroundings: Surroundings) -> Rule:
    """The page; its value is 0 where targets are down, 1 where there is none, else the share of good scrapes.

    It waits for a restart's time instead of looking back over it, so that a Prometheus that has just
    started waits too.
    """
    return alert_rule(
        alert,
        surroundings,
        f"max without (slo) (\n  {_scraped(surroundings)} == 0\n  or\n"
        f"  {indented(_hardly_scraped(surroundings))}\n)\nor\n"
        f"absent({selector(UP, {'job': (surroundings.job,)})})",
        severity="page",
        role="symptom",
        component="service",
        words={
            "restart": duration(surroundings.restart),
            "window": duration(_looked_at(surroundings)),
        },
        waits=surroundings.restart,
        lingers=LINGERS_SCRAPES * surroundings.interval,
    )
