"""Panels that say whether anything is seen at all: what is not scraped looks as quiet as what is well."""

from __future__ import annotations

from typing import Final

from cmo_dashboards.colours import FAIL, NEUTRAL, Step
from cmo_dashboards.panels import Panel, Query, Shape, Unit

_UP_TEXTS: Final = ((0.0, "down"), (1.0, "up"))
_UP_STEPS: Final = (Step(None, NEUTRAL), Step(0.0, FAIL), Step(1.0, NEUTRAL))
NOT_SCRAPED: Final = "No target is scraped"
_WHERE: Final = "ask Prometheus' address /api/v1/targets for the error."


def targets_up(job: str, *, width: int, height: int) -> Panel:
    """Whether each instance of one job is scraped."""
    return Panel(
        title="Targets up",
        shape=Shape.STAT,
        width=width,
        height=height,
        unit=Unit.COUNT,
        answers="Can Prometheus read the service's metrics? One tile an instance. While it "
        "cannot, every other panel shows the past.",
        when_red="Ask /healthz of the port that users come in by. No answer: the process is gone. An answer: "
        f"only the metrics port is at fault, and users are served unseen; {_WHERE}",
        queries=(Query(f'up{{job="{job}"}}', "{{instance}}", 0, 1),),
        steps=_UP_STEPS,
        no_value=NOT_SCRAPED,
        value_texts=_UP_TEXTS,
    )


def jobs_up(jobs: tuple[str, ...], *, where_scraped: tuple[str, ...] = (), width: int, height: int) -> Panel:
    """Whether every target of each job is scraped; of those ``where_scraped`` only where they have one."""
    series = f'up{{job=~"{"|".join((*jobs, *where_scraped))}"}}'
    return Panel(
        title="Scrape jobs up",
        shape=Shape.STAT,
        width=width,
        height=height,
        unit=Unit.COUNT,
        answers="Is everything scraped that the alerts need? A job is down when one of its targets is. A "
        f"job that is missing here has no target at all; there should be {', '.join(jobs)}.",
        when_red=f"See below which target it is and since when, then {_WHERE}",
        queries=(Query(f"min by (job) ({series})", "{{job}}", 0, 1),),
        steps=_UP_STEPS,
        no_value=NOT_SCRAPED,
        value_texts=_UP_TEXTS,
    )


def up_over_time(jobs: tuple[str, ...], *, width: int, height: int) -> Panel:
    """When each target was scraped and when not."""
    return Panel(
        title="Targets up over time",
        shape=Shape.STATES,
        width=width,
        height=height,
        unit=Unit.COUNT,
        answers="When was which target not scraped? A gap means that Prometheus itself was down, or that "
        "the target was not known to it.",
        when_red=f"What happened in it was not counted at the time. If it lasts, {_WHERE}",
        queries=(Query(f'up{{job=~"{"|".join(jobs)}"}}', "{{job}} {{instance}}", 0, 1),),
        steps=_UP_STEPS,
        no_value=NOT_SCRAPED,
        value_texts=_UP_TEXTS,
    )
