"""The queries of a dashboard as Prometheus understands them: macros and variables replaced.

`cmo_dashboards.live` holds what a Prometheus answers against what is written beside each: the range of
plausible values, and the colour that Grafana gives to a value.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cmo_slo.durations import SECOND, parse_duration

from cmo_dashboards.colours import NEUTRAL, colour_of
from cmo_dashboards.document import panels, title_of
from cmo_dashboards.panels import Shape
from cmo_dashboards.variables import VARIABLES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cmo_dashboards.colours import Step
    from cmo_dashboards.dashboard import Dashboard

_COLOURED: Final = (Shape.STAT, Shape.STATES)
"""Shapes whose values are coloured by thresholds; elsewhere these are lines."""


@dataclass(frozen=True)
class Macros:
    """What stands for Grafana's macros and variables; the defaults suit scrapes every second.

    Attributes:
        range: of the dashboard, as a PromQL duration.
        rate_interval: at least four scrape intervals.
        interval: the step of the picture.
        end: of the range, in Unix seconds.
        chosen: what variables stand for, each as Grafana writes it into an expression; a stand-in where one
            is not named: "All", or what is chosen at first.
    """

    range: str = "15m"
    rate_interval: str = "4s"
    interval: str = "1s"
    end: float = 0.0
    chosen: Mapping[str, str] = field(default_factory=dict)

    def replace(self, expression: str) -> str:
        """The expression without macros; longer names first, because some begin with others."""
        for name, value in (
            ("__rate_interval", self.rate_interval),
            ("__interval", self.interval),
            ("__range_s", f"{parse_duration(self.range) / SECOND:g}"),
            ("__to", f"{self.end * 1000:.0f}"),
            ("__range", self.range),
            *((variable.name, self.chosen.get(variable.name, variable.stand_in)) for variable in VARIABLES),
        ):
            expression = expression.replace(f"${{{name}}}", value).replace(f"${name}", value)
        return expression


@dataclass(frozen=True)
class PanelQuery:
    """One query of one panel, ready to be run.

    Attributes:
        dashboard: uid of the dashboard; several may have a panel of one title.
        panel: title of the panel.
        ref_id: of the query in its panel.
        expression: PromQL.
        unit: Grafana's name of the unit.
        lowest, highest: bounds of any plausible value.
        instant: whether Grafana asks at one moment, at the end of the range, or at every step of it.
        may_be_empty: whether no series at all is the normal state of a busy service.
        exemplars: whether Grafana also asks for single queries, to draw them as points.
        steps: thresholds that colour its values; none where nothing does.
        value_colours: of single values, before any step.
    """

    dashboard: str
    panel: str
    ref_id: str
    expression: str
    unit: str
    lowest: float
    highest: float
    instant: bool
    may_be_empty: bool
    exemplars: bool = False
    steps: tuple[Step, ...] = ()
    value_colours: tuple[tuple[float, str], ...] = ()

    @property
    def place(self) -> str:
        """Where it stands, for people."""
        return f"{self.dashboard}: {self.panel} ({self.ref_id})"

    def colour(self, value: float) -> str:
        """The colour that the panel gives to a value; neutral where it tells values by their place alone."""
        fixed = dict(self.value_colours).get(value)
        return fixed or (colour_of(value, self.steps) if self.steps else NEUTRAL)


def queries(dashboard: Dashboard, macros: Macros | None = None) -> list[PanelQuery]:
    """Every query of every panel, taken from the dashboard's finished JSON, with macros replaced."""
    replaced = macros or Macros()
    described = {panel.title: panel for row in dashboard.rows for panel in row.panels}
    found = []
    for panel in panels(dashboard.document):
        source = described[title_of(panel)]
        for target, query in zip(panel["targets"], source.queries, strict=True):
            found.append(
                PanelQuery(
                    dashboard=dashboard.uid,
                    panel=source.title,
                    ref_id=target["refId"],
                    expression=replaced.replace(target["expr"]),
                    unit=panel["fieldConfig"]["defaults"]["unit"],
                    lowest=query.lowest,
                    highest=query.highest,
                    instant=bool(target["instant"]),
                    may_be_empty=query.may_be_empty,
                    exemplars=bool(target.get("exemplar")),
                    steps=source.steps if source.shape in _COLOURED and query.judged else (),
                    value_colours=source.value_colours,
                )
            )
    return found
