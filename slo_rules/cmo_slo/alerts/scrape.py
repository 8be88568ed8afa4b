"""A ticket when a target is not scraped, or a whole job has no target: what is not scraped cannot alert."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal

from cmo_exporter import catalogue
from pydantic import Field

from cmo_slo.alerts.alert import Alert, Duration, JobName, Surroundings, alert_rule, read_back
from cmo_slo.durations import duration
from cmo_slo.monitor_series import UP
from cmo_slo.promql import selector

if TYPE_CHECKING:
    from cmo_slo.rule import Rule


_LONGER: Final = 6
_LEAST_SHARE: Final = 0.7


class ScrapeAlert(Alert):
    """A ticket when a target has had no good scrape in a window, or few for longer, or a job has none."""

    WORDS = ("window", "longer")
    LABELS = ("job", "instance")

    kind: Literal["scrape"]
    jobs: Annotated[tuple[JobName, ...], Field(min_length=1)]
    window: Annotated[Duration, read_back(windows=_LONGER)] = "5m"


def rule(alert: ScrapeAlert, surroundings: Surroundings) -> Rule:
    """The ticket; its value is the share of good scrapes of a target, 1 for a job that has none."""
    window = duration(surroundings.window(alert.window))
    longer = duration(surroundings.window(alert.window) * _LONGER)
    jobs = "|".join(alert.jobs)
    up = f'{UP}{{job=~"{jobs}"}}'
    # What was not known a window ago may just be starting.
    down = (
        f"max by (job, instance) (max_over_time({up}[{window}])) == 0\n"
        f"and\n"
        f"min by (job, instance) ({up} offset {window}) >= 0"
    )
    often = (
        f"min by (job, instance) (avg_over_time({up}[{longer}])) < {_LEAST_SHARE}\n"
        f"and\n"
        f"min by (job, instance) ({up} offset {longer}) >= 0"
    )
    # Of a pod that a deploy has replaced only its last scrapes, which failed, are left in the window.
    down, often = (f"{one}\nand on (job, instance)\n{up}" for one in (down, often))
    # Whose scrapes are good and hold nothing of queries is as blind, and nothing else says so.
    job = {"job": (surroundings.job,)}
    empty = (
        f"min by (job, instance) (min_over_time({selector(UP, job)}[{window}])) == 1\n"
        f"unless on (job, instance)\n"
        f"count by (job, instance) (count_over_time({selector(catalogue.QUERIES.name, job)}[{window}]))"
    )
    absent = (f'absent_over_time({UP}{{job="{job}"}}[{window}])' for job in alert.jobs)
    return alert_rule(
        alert,
        surroundings,
        "\nor\n".join([down, often, empty, *absent]),
        severity="ticket",
        role="monitoring",
        component="prometheus",
        words={"window": window, "longer": longer},
        # A server that has just started has not scraped anything for a while.
        waits=surroundings.interval * 4,
        lingers=surroundings.interval * 8,
    )
