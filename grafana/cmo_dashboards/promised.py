"""What an objectives file promises, as panels say it: objectives by name, targets in words, runbooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar, get_args
from urllib.parse import urlsplit

from cmo_slo.model import Links
from pydantic import BaseModel, ValidationError

from cmo_dashboards.panels import Link

if TYPE_CHECKING:
    from cmo_slo.model import Objective, Objectives

_MEGABYTE: Final = 1e6
_WEB: Final = ("http", "https")
_Indicator = TypeVar("_Indicator", bound=BaseModel)


class LackingError(ValueError):
    """An objectives file has nothing to show where a dashboard shows something; the message says what."""


def find(objectives: Objectives, name: str, kind: type[_Indicator]) -> tuple[Objective, _Indicator]:
    """An objective and its indicator.

    Raises:
        LackingError: the file has none of this name and kind.
    """
    for objective in objectives.objectives:
        if objective.name == name and isinstance(objective.indicator, kind):
            return objective, objective.indicator
    raise LackingError(f"an objective {name!r} with an indicator of kind {_kind(kind)!r}")


def find_component(objectives: Objectives, name: str, kind: type[_Indicator]) -> _Indicator:
    """What is counted of each component under a name.

    Raises:
        LackingError: the file counts nothing of this name and kind.
    """
    for component in objectives.components:
        if component.name == name and isinstance(component.indicator, kind):
            return component.indicator
    raise LackingError(f"an entry {name!r} with an indicator of kind {_kind(kind)!r} under `components`")


def _kind(indicator: type[BaseModel]) -> str:
    """What objectives files call it."""
    (kind,) = get_args(indicator.model_fields["kind"].annotation)
    return str(kind)


def counted(objectives: Objectives) -> tuple[Objective, ...]:
    """The objectives that are judged by events, and so can be judged of live traffic.

    Raises:
        LackingError: the file has none.
    """
    found = tuple(objective for objective in objectives.objectives if objective.counted)
    if not found:
        raise LackingError("an objective with an indicator of kind 'ratio' or 'latency'")
    return found


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
        LackingError: the file has none.
    """
    for alert in objectives.alerts:
        if alert.kind == "watchdog":
            return alert.alert
    raise LackingError("an alert of kind 'watchdog'")


def with_runbooks(objectives: Objectives, address: str) -> Objectives:
    """The objectives with runbooks published at another address.

    Raises:
        ValueError: no browser could open it.
    """
    try:
        links = Links(runbooks=address, dashboards=objectives.links.dashboards)
    except ValidationError as error:
        reasons = "; ".join(str(one["msg"]) for one in error.errors())
        raise ValueError(f"runbooks at {address!r}: {reasons}") from error
    linked = objectives.model_copy(update={"links": links})
    if published_runbooks(linked) is None:
        expected = "expected an address such as https://git.example.org/docs/runbooks"
        raise ValueError(f"runbooks at {address!r}: no browser could open that; {expected}")
    return linked


def published_runbooks(objectives: Objectives) -> str | None:
    """The address where runbooks are published; none where they are a folder, which no browser can open."""
    parts = urlsplit(objectives.links.runbooks)
    return parts.geturl().rstrip("/") if parts.scheme in _WEB else None


def runbook_links(objectives: Objectives, alert: str) -> tuple[Link, ...]:
    """The link to an alert's runbook: where it is published, else its dashboard (`cmo_dashboards.runbooks`).

    Args:
        objectives: their ``links.runbooks`` is what the link begins with.
        alert: its name, or a field of Grafana's that holds it.
    """
    address = published_runbooks(objectives)
    if address is None:
        return (Link(f"Runbook of {alert}", f"/d/{alert}?${{__url_time_range}}"),)
    return (Link(f"Runbook of {alert}", f"{address}/{alert}.md"),)
