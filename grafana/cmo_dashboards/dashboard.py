"""A dashboard: its rows as data, and the finished JSON that is made of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cmo_exporter import catalogue
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard as models

from cmo_dashboards.colours import FAIL, NEUTRAL, SERIES
from cmo_dashboards.finish import finish
from cmo_dashboards.panels import DATASOURCE, Row, draw

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cmo_dashboards.document import Document

REFRESH_INTERVALS: Final = ["5s", "15s", "1m", "5m"]
ALERTS: Final = 'ALERTS{alertstate="firing", alertname=~"CMO.+"}'
"""The firing alerts of this project's rules; Prometheus itself makes this series."""


ALL_TESTS_LEGEND: Final = "All test scenarios"


@dataclass(frozen=True)
class Dashboard:
    """One dashboard. ``document`` is its JSON; ``scenarios`` are those of its load tests."""

    uid: str
    title: str
    description: str
    scenarios: tuple[str, ...]
    rows: tuple[Row, ...]
    document: Document = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "document", finish(_build(self)))


def series_colours(scenarios: tuple[str, ...]) -> Mapping[str, str]:
    """One fixed colour a scenario, the same on every panel of every dashboard."""
    names = (catalogue.LIVE, *scenarios)
    return {
        **{name: SERIES[index % len(SERIES)] for index, name in enumerate(names)},
        ALL_TESTS_LEGEND: NEUTRAL,
    }


def _build(described: Dashboard) -> models.Dashboard:
    built = (
        builders.Dashboard(described.title)
        .uid(described.uid)
        .description(described.description)
        .tags(["cmo", "slo"])
        .timezone("browser")
        .time("now-15m", "now")
        .refresh("5s")
        .timepicker(builders.TimePicker().refresh_intervals(REFRESH_INTERVALS))
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .readonly()
        .with_variable(_datasource_variable())
        .with_variable(_scenario_variable(described.scenarios))
        .annotation(_alert_annotation())
    )
    colours = series_colours(described.scenarios)
    for row in described.rows:
        built.with_row(builders.Row(row.title))
        for panel in row.panels:
            built.with_panel(draw(panel, colours))
    return built.build()


def _datasource_variable() -> builders.DatasourceVariable:
    return builders.DatasourceVariable("datasource").label("Data source").type("prometheus")


def _scenario_variable(scenarios: tuple[str, ...]) -> builders.CustomVariable:
    """Live traffic and the scenarios of the load tests; "All" also shows scenarios that this list lacks."""
    return (
        builders.CustomVariable("scenario")
        .label("Scenario")
        .values(",".join((catalogue.LIVE, *scenarios)))
        .multi(multi=True)
        .include_all(include_all=True)
        .all_value(".+")
        .current(models.VariableOption(selected=True, text=["All"], value=["$__all"]))
        .allow_custom_value(allow_custom_value=False)
    )


def _alert_annotation() -> builders.AnnotationQuery:
    return (
        builders.AnnotationQuery()
        .name("Firing alerts")
        .datasource(DATASOURCE)
        .enable(enable=True)
        .hide(hide=False)
        .icon_color(FAIL)
        .expr(ALERTS)
        .title_format("{{alertname}}")
        .text_format("{{severity}}")
        .step("15s")
    )
