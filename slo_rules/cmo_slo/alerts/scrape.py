"""A ticket when a target is not scraped, or a whole job has no target: what is not scraped cannot alert."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from cmo_slo.alerts.alert import Alert, Duration, Surroundings, Text, alert_rule
from cmo_slo.durations import duration, parse_duration
from cmo_slo.monitor_series import UP

if TYPE_CHECKING:
    from cmo_slo.rule import Rule


class ScrapeAlert(Alert):
    """A ticket when a target of some jobs has had no good scrape in a window, or a job has no target."""

    kind: Literal["scrape"]
    jobs: Annotated[tuple[Text, ...], Field(min_length=1)]
    window: Duration = "5m"


def rule(alert: ScrapeAlert, surroundings: Surroundings) -> Rule:
    """The ticket; its value is 0 for a target that is down, 1 for a job that has none."""
    window = duration(parse_duration(alert.window))
    jobs = "|".join(alert.jobs)
    down = f'max by (job, instance) (max_over_time({UP}{{job=~"{jobs}"}}[{window}])) == 0'
    absent = (f'absent_over_time({UP}{{job="{job}"}}[{window}])' for job in alert.jobs)
    return alert_rule(
        alert,
        surroundings,
        "\nor\n".join([down, *absent]),
        severity="ticket",
        role="monitoring",
        component="prometheus",
        words={"window": window},
        # A server that has just started has not scraped anything for a while.
        waits=surroundings.interval * 4,
        lingers=surroundings.interval * 8,
    )
