"""A dashboard: its rows as data, and the finished JSON that is made of them.

All are alike in what is not their own: the variables and their order, the links to each other, which keep
time and variables, the marks of alerts, deploys and load tests, and how often they ask anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cmo_exporter import catalogue
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard as models

from cmo_dashboards.breakers import LINE_COLOURS
from cmo_dashboards.colours import COMPONENTS, FAIL, NEUTRAL, OUTCOMES, SERIES, SOURCES, TIERS
from cmo_dashboards.document import askers
from cmo_dashboards.finish import finish
from cmo_dashboards.jobs import of_its_job
from cmo_dashboards.panels import Row, SeriesColours, draw
from cmo_dashboards.variables import (
    DATASOURCE,
    SCENARIO,
    AnyVariable,
    datasource_variable,
    variable_builder,
)

if TYPE_CHECKING:
    from cmo_slo.model import Service

    from cmo_dashboards.document import Document

REFRESH: Final = "30s"
REFRESH_INTERVALS: Final = ["5s", "30s", "1m", "5m"]
TAG: Final = "cmo"
"""Of every dashboard of this project: they link to each other by it."""
TOLD: Final = "page|ticket"
"""Severities of which somebody is told: not the watchdog's, which always fires, nor that of a load test."""
_LOAD_TEST: Final = 'ALERTS{alertstate="firing", alertname="CMOLoadTestRunning"}'
_LAST_SEEN: Final = f"max_over_time(timestamp({catalogue.BUILD_INFO.name})[1d:1m] offset $__interval)"
_MISSED_SECONDS: Final = 120
_DEPLOY: Final = (
    f"count by (version, revision) ({catalogue.BUILD_INFO.name}) unless (max by (version, revision) "
    f"({_LAST_SEEN}) >= on () group_left () max({_LAST_SEEN}) - {_MISSED_SECONDS})"
)
"""What runs now, unless nothing else was seen later, but for a missed scrape or two.

So a version that comes back after an outage is no deploy, and one that comes back after another version is.
"""
_DEPLOY_COLOUR: Final = "#0072B2"


ALL_TESTS_LEGEND: Final = "All test scenarios"


@dataclass(frozen=True)
class Dashboard:
    """One dashboard, ``document`` its JSON; of load tests in ``scenarios``, and the jobs of ``service``.

    ``variables`` are what it can be narrowed to, in the order of `cmo_dashboards.variables.VARIABLES`.
    """

    uid: str
    title: str
    description: str
    scenarios: tuple[str, ...]
    service: Service
    rows: tuple[Row, ...]
    variables: tuple[AnyVariable, ...] = (SCENARIO,)
    opens_at: str = "now-1h"
    document: Document = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        document = finish(_build(self))
        for _, asker in askers(document):
            if "expr" in asker:
                asker["expr"] = of_its_job(asker["expr"], self.service)
        object.__setattr__(self, "document", document)


def firing(severity: str = TOLD) -> str:
    """The firing alerts of this project's rules; Prometheus itself makes this series.

    Args:
        severity: what their severity matches.
    """
    return f'ALERTS{{alertstate="firing", alertname=~"CMO.+", severity=~"{severity}"}}'


def series_colours(scenarios: tuple[str, ...]) -> SeriesColours:
    """One fixed colour for each name that is known, the same on every panel of every dashboard."""
    names = (catalogue.LIVE, *scenarios)
    of_scenarios = {name: SERIES[index % len(SERIES)] for index, name in enumerate(names)}
    return {
        "scenario": {**of_scenarios, ALL_TESTS_LEGEND: NEUTRAL},
        "outcome": OUTCOMES,
        "source": SOURCES,
        "component": COMPONENTS,
        "tier": TIERS,
        "state": LINE_COLOURS,
    }


def _build(described: Dashboard) -> models.Dashboard:
    built = (
        builders.Dashboard(described.title)
        .uid(described.uid)
        .description(described.description)
        .tags([TAG, "slo"])
        .timezone("browser")
        .time(described.opens_at, "now")
        .refresh(REFRESH)
        .timepicker(builders.TimePicker().refresh_intervals(REFRESH_INTERVALS))
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .readonly()
        .link(_links())
        .with_variable(datasource_variable())
    )
    for variable in described.variables:
        built.with_variable(variable_builder(variable))
    for annotation in _annotations():
        built.annotation(annotation)
    colours = series_colours(described.scenarios)
    for row in described.rows:
        _lay_out(built, row, colours)
    return built.build()


def _lay_out(built: builders.Dashboard, row: Row, colours: SeriesColours) -> None:
    """A row; the panels of a closed one lie inside it, where Grafana looks for them."""
    head = builders.Row(row.title).collapsed(row.folded)
    if row.repeated_by:
        head.repeat(row.repeated_by)
    if not row.folded:
        built.with_row(head)
    for panel in row.panels:
        (head if row.folded else built).with_panel(draw(panel, colours))
    if row.folded:
        built.with_row(head)


def _links() -> builders.DashboardLink:
    """To the other dashboards, with the time and the variables that are chosen."""
    return (
        builders.DashboardLink("CMO dashboards")
        .type(models.DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .as_dropdown(as_dropdown=False)
        .keep_time(keep_time=True)
        .include_vars(include_vars=True)
    )


def _annotations() -> tuple[builders.AnnotationQuery, ...]:
    """Marks on every time series: what paged or became a ticket, what was deployed, when tests ran."""
    return (
        _annotation("Firing alerts", firing(), FAIL, "{{alertname}}", "{{severity}}"),
        _annotation("Deploys", _DEPLOY, _DEPLOY_COLOUR, "{{version}}", "revision {{revision}}"),
        _annotation("Load tests", _LOAD_TEST, NEUTRAL, "load test", "{{alertname}}"),
    )


def _annotation(name: str, expression: str, colour: str, title: str, text: str) -> builders.AnnotationQuery:
    return (
        builders.AnnotationQuery()
        .name(name)
        .datasource(DATASOURCE)
        .enable(enable=True)
        .hide(hide=False)
        .icon_color(colour)
        .expr(expression)
        .title_format(title)
        .text_format(text)
        .step("15s")
    )
