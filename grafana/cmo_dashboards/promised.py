"""What an objectives file promises, as panels say it: objectives by name, targets in words, runbooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from cmo_slo.model import Links
from pydantic import ValidationError

from cmo_dashboards.panels import Link

if TYPE_CHECKING:
    from cmo_slo.model import Objective, Objectives

_MEGABYTE: Final = 1e6
_WEB: Final = ("http://", "https://")
_Indicator = TypeVar("_Indicator")


def find(objectives: Objectives, name: str, kind: type[_Indicator]) -> tuple[Objective, _Indicator]:
    """An objective and its indicator.

    Raises:
        ValueError: the file has none of this name and kind; a dashboard shows it.
    """
    for objective in objectives.objectives:
        if objective.name == name and isinstance(objective.indicator, kind):
            return objective, objective.indicator
    raise ValueError(
        f"objectives file {objectives.name!r} has no objective {name!r} with an indicator of kind "
        f"{kind.__name__}; the dashboards show it"
    )


def counted(objectives: Objectives) -> tuple[Objective, ...]:
    """The objectives that are judged by events, and so can be judged of live traffic."""
    return tuple(objective for objective in objectives.objectives if objective.counted)


def budgeted(objectives: Objectives) -> tuple[Objective, ...]:
    """The counted objectives that page: people suffer when their budget is spent. All, where none pages."""
    all_counted = counted(objectives)
    return tuple(objective for objective in all_counted if objective.page is not None) or all_counted


def target_text(objective: Objective) -> str:
    """The target as people write it, for example ``> 95 %``."""
    sign = objective.operator.value
    if objective.unit == "ratio":
        return f"{sign} {objective.target * 100:g} %"
    if objective.unit == "bytes":
        return f"{sign} {objective.target / _MEGABYTE:g} MB"
    return f"{sign} {objective.target:g}"


def scraped_jobs(objectives: Objectives) -> tuple[str, ...]:
    """The scrape jobs that must not fall silent: those of the alert on scrapes, else the service's alone."""
    for alert in objectives.alerts:
        if alert.kind == "scrape":
            return tuple(alert.jobs)
    return (objectives.service.job,)


def watchdog(objectives: Objectives) -> str:
    """Name of the alert that always fires.

    Raises:
        ValueError: the file has none; the dashboard of the monitor shows whether it fires.
    """
    for alert in objectives.alerts:
        if alert.kind == "watchdog":
            return alert.alert
    raise ValueError(f"objectives file {objectives.name!r} has no alert of kind 'watchdog'")


def with_runbooks(objectives: Objectives, address: str) -> Objectives:
    """The objectives with runbooks published at another address.

    Raises:
        ValueError: no browser could open it.
    """
    expected = "expected an address such as https://git.example.org/docs/runbooks"
    if not address.startswith(_WEB):
        raise ValueError(f"runbooks at {address!r}: no browser could open that; {expected}")
    try:
        links = Links(runbooks=address, dashboards=objectives.links.dashboards)
    except ValidationError as error:
        reasons = "; ".join(str(one["msg"]) for one in error.errors())
        raise ValueError(f"runbooks at {address!r}: {reasons}") from error
    return objectives.model_copy(update={"links": links})


def runbook_links(objectives: Objectives, alert: str) -> tuple[Link, ...]:
    """The link to an alert's runbook: where it is published, else its dashboard (`cmo_dashboards.runbooks`).

    Args:
        objectives: their ``links.runbooks`` is what the link begins with.
        alert: its name, or a field of Grafana's that holds it.
    """
    address = objectives.links.runbooks.rstrip("/")
    if not address.startswith(_WEB):
        return (Link(f"Runbook of {alert}", f"/d/{alert}?${{__url_time_range}}"),)
    return (Link(f"Runbook of {alert}", f"{address}/{alert}.md"),)
