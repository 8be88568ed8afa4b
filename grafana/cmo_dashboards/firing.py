"""Panels of the alerts that fire. The watchdog tells apart that none does from that the rules are not loaded.

Prometheus makes a series of each alert that fires and none of those that do not: only an alert that always
fires proves that the others could.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cmo_dashboards.colours import FAIL, NEUTRAL, WARN, Step
from cmo_dashboards.dashboard import TOLD, firing
from cmo_dashboards.panels import Columns, Panel, Query, Shape, Unit
from cmo_dashboards.promised import runbook_links, watchdog

if TYPE_CHECKING:
    from cmo_slo.model import Objectives

_MOST_ALERTS: Final = 100.0
_MOST_SECONDS: Final = 1e8
_TRUE_SINCE: Final = f'ALERTS_FOR_STATE{{alertname=~"CMO.+", severity=~"{TOLD}"}}'
"""Of each alert, the moment (Unix time) from which its condition has held: the series has no state."""
_TICKET: Final = 1
_PAGE: Final = 2
"""Numbers for what an alert is, where a panel shows it as a word and a colour."""
_MEANINGS: Final = {
    "page": "people are affected now, or nobody could tell",
    "ticket": "something wants mending in working hours",
}


def firing_count(objectives: Objectives, severity: str, *, width: int, height: int) -> Panel:
    """How many alerts of one severity fire; pages are red, tickets amber."""
    always = f'ALERTS{{alertstate="firing", alertname="{watchdog(objectives)}"}}'
    counted = f"count({firing(severity)}) or 0 * max({always})"
    title = f"{severity.capitalize()}s firing"
    return Panel(
        title=title,
        shape=Shape.STAT,
        width=width,
        height=height,
        unit=Unit.COUNT,
        answers=f"How many {severity}s fire? Each says that {_MEANINGS[severity]}. *none* is known, because "
        "the watchdog fires; where that is silent, the rules are not loaded or not evaluated. Silenced ones "
        "count: Prometheus knows no silences.",
        when_red="The table beside names them.",
        queries=(Query(counted, title, 0, _MOST_ALERTS),),
        steps=(Step(None, NEUTRAL), Step(1.0, FAIL if severity == "page" else WARN)),
        value_texts=((0.0, "none"),),
        no_value="Rules not loaded",
    )


def what_fires(objectives: Objectives, *, width: int, height: int) -> Panel:
    """Each alert that fires, with a link to its runbook."""
    return Panel(
        title="What fires, and its runbook",
        shape=Shape.TABLE,
        width=width,
        height=height,
        unit=Unit.SECONDS,
        answers="Which pages and tickets fire now, for what, and for how long has each been true? Pages "
        "first. Each line links to its runbook, what to do about it.",
        when_red="Pages before tickets: open the runbook of the page and follow it.",
        queries=(
            Query(
                f"time() - {_TRUE_SINCE} and ignoring (alertstate) {firing()}",
                "{{alertname}}",
                0,
                _MOST_SECONDS,
                may_be_empty=True,
            ),
        ),
        columns=Columns(first=("alertname", "severity"), values="true for"),
        no_value="None fires, or rules not loaded: see Pages firing",
        data_links=runbook_links(objectives, "${__data.fields.alertname}"),
    )


def alerts_over_time(*, width: int, height: int) -> Panel:
    """Since when which alert has fired."""
    return Panel(
        title="Alerts over time",
        shape=Shape.STATES,
        width=width,
        height=height,
        unit=Unit.COUNT,
        answers="Since when do alerts fire, and which came first?",
        when_red="The first to fire is nearest to the cause; compare the panels above at that moment.",
        queries=(
            Query(
                f"max by (alertname) (0 * {firing('page')} + {_PAGE} or 0 * {firing('ticket')} + {_TICKET})",
                "{{alertname}}",
                _TICKET,
                _PAGE,
                may_be_empty=True,
            ),
        ),
        value_texts=((_TICKET, "ticket"), (_PAGE, "page")),
        value_colours=((_TICKET, WARN), (_PAGE, FAIL)),
        no_value="None fired, or the rules were not loaded",
    )
