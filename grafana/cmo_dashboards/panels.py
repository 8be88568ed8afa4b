"""Panels as data, and how each kind of them is drawn.

A panel is described once (`Panel`): what it answers, what to do when it is red, its queries, and beside each
query the range in which its values are plausible. From that come the Grafana panel, its description, the page
of documentation and the list of queries that the end-to-end test runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import cycle
from typing import TYPE_CHECKING, Final

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from cmo_dashboards.colours import FAIL, FREE, LINES, NEUTRAL, Step
from cmo_dashboards.variables import DATASOURCE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from grafana_foundation_sdk.cog.builder import Builder

_STACKED_OPACITY: Final = 60
_LINK: Final = dashboard.DashboardLinkType.LINK
WHEN_RED: Final = "**When red:**"
WHAT_TO_DO: Final = "**What to do:**"
"""How the second half of a description begins, where its panel is ever red and where it is not."""
OR_NO_DATA: Final = "or no data: see Targets up"
"""How a text ends that cannot tell whether there was none of something, or whether nobody knows."""
NO_TRAFFIC: Final = f"No traffic, {OR_NO_DATA}"
NO_CALLS: Final = f"No calls, {OR_NO_DATA}"


class Unit(StrEnum):
    """Units as Grafana calls them. Megabytes are of 10⁶ bytes."""

    RATIO = "percentunit"
    BYTES = "decbytes"
    BYTES_A_SECOND = "Bps"
    SECONDS = "s"
    COUNT = "short"
    PER_SECOND = "reqps"
    DOLLARS = "currencyUSD"


class Shape(StrEnum):
    """What a panel looks like."""

    STAT = "stat"
    TIME_SERIES = "timeseries"
    STACKED = "stacked"
    """A time series of parts of a whole."""
    STATES = "state-timeline"
    """Which state each series was in, when; `Panel.value_texts` names the states."""
    TABLE = "table"


@dataclass(frozen=True)
class Query:
    """One query of a panel.

    Attributes:
        expression: PromQL with Grafana's macros.
        legend: what its series are called; labels in ``{{…}}``.
        lowest, highest: bounds of any plausible value.
        judged: whether its values have a target, and so may have a verdict's colour.
        may_be_empty: whether no series at all is the normal state of a busy service.
        dashed: whether its lines are dashed, for a view beside the one that is judged.
        exemplars: whether single queries are drawn as points, which lead to their traces.
    """

    expression: str
    legend: str
    lowest: float
    highest: float
    judged: bool = True
    may_be_empty: bool = False
    dashed: bool = False
    exemplars: bool = False


@dataclass(frozen=True)
class Link:
    """A link from a panel: to the runbook of what it shows, or to the dashboard that tells more."""

    title: str
    url: str


def to_dashboard(title: str, uid: str, **chosen: str) -> Link:
    """A link to another dashboard, with the time and the data source that are looked at.

    Args:
        title: what people read.
        uid: of the dashboard.
        chosen: variables of that dashboard, by name, and what they are to be.
    """
    variables = "".join(f"&var-{name}={value}" for name, value in chosen.items())
    return Link(title, f"/d/{uid}?${{__url_time_range}}&${{datasource:queryparam}}{variables}")


@dataclass(frozen=True)
class Columns:
    """Columns of a table.

    Attributes:
        first: labels whose columns come first, in this order; rows are in the order of the last of them.
        values: what the column after these is called, which has the values; a table without a name for it has
            labels alone.
    """

    first: tuple[str, ...] = ()
    values: str = ""


@dataclass(frozen=True)
class Panel:
    """One panel: its place (``width`` of 24 columns, ``height`` in rows), its meaning and its queries.

    ``when_red`` is what to do, also where no colour ever asks for it.
    """

    title: str
    shape: Shape
    width: int
    height: int
    unit: Unit
    answers: str
    when_red: str
    queries: tuple[Query, ...]
    steps: tuple[Step, ...] = (Step(None, NEUTRAL),)
    no_value: str = NO_TRAFFIC
    highest: float | None = None
    decimals: int | None = None
    value_texts: tuple[tuple[float, str], ...] = ()
    value_colours: tuple[tuple[float, str], ...] = ()
    """Fixed colours of single values, beside their texts."""
    line_colours: tuple[tuple[str, str], ...] = ()
    """Fixed colours of lines by how they are called here, where a label alone does not say it."""
    links: tuple[Link, ...] = ()
    data_links: tuple[Link, ...] = ()
    """Links from each value, whose addresses may name fields of its row: ``${__data.fields.alertname}``."""
    lowest: float | None = 0.0
    """Where the axis begins; growth may be negative."""
    columns: Columns = Columns()
    """Of a table."""

    @property
    def advice(self) -> str:
        """What to do; "when red" is said only of what a colour can say."""
        coloured = self.shape in (Shape.STAT, Shape.STATES)
        colours = {step.colour for step in self.steps} | {colour for _, colour in self.value_colours}
        return f"{WHEN_RED if coloured and FAIL in colours else WHAT_TO_DO} {self.when_red}"

    @property
    def description(self) -> str:
        """What the panel says about itself in Grafana."""
        return f"{self.answers}\n\n{self.advice}"


@dataclass(frozen=True)
class Row:
    """A titled row of panels, laid out from left to right.

    Attributes:
        title: the question that its panels answer together.
        panels: from left to right; 24 columns a line.
        folded: whether it is closed at first, being detail to drill into.
        repeated_by: a variable, for each of whose values the row is drawn; none if empty.
    """

    title: str
    panels: tuple[Panel, ...]
    folded: bool = False
    repeated_by: str = ""


SeriesColours = Mapping[str, Mapping[str, str]]
"""Fixed colours of series, by the label that begins their legend, and by its value."""


def draw(panel: Panel, series_colours: SeriesColours) -> Builder[dashboard.Panel]:
    """The Grafana panel.

    Args:
        panel: what to draw.
        series_colours: of a series that a label names; what follows its value after a comma is free.
    """
    if panel.shape is Shape.STAT:
        return _common(_stat(panel), panel)
    if panel.shape is Shape.TABLE:
        return _common(_table(panel.columns), panel)
    if panel.shape is Shape.STATES:
        return _common(_states(), panel)
    return _common(_time_series(panel, series_colours), panel)


_Builder = stat.Panel | timeseries.Panel | table.Panel | statetimeline.Panel


def _common(built: _Builder, panel: Panel) -> Builder[dashboard.Panel]:
    built.title(panel.title).description(panel.description).datasource(DATASOURCE)
    built.span(panel.width).height(panel.height)
    built.unit(panel.unit.value).no_value(panel.no_value).mappings(_mappings(panel))
    if panel.lowest is not None:
        built.min(panel.lowest)
    if panel.links:
        built.links(_links(panel.links))
    if panel.data_links:
        built.data_links(_links(panel.data_links))
    built.thresholds(_thresholds(panel.steps))
    if panel.highest is not None:
        built.max(panel.highest)
    if panel.decimals is not None:
        built.decimals(panel.decimals)
    for index, query in enumerate(panel.queries):
        built.with_target(_target(query, _ref_id(index), panel.shape))
    return built


def _links(links: tuple[Link, ...]) -> list[Builder[dashboard.DashboardLink]]:
    return [builders.DashboardLink(link.title).url(link.url).type(_LINK) for link in links]


def _stat(panel: Panel) -> stat.Panel:
    built = stat.Panel()
    built.color_scheme(builders.FieldColor().mode(dashboard.FieldColorModeId.THRESHOLDS))
    built.color_mode(common.BigValueColorMode.BACKGROUND_SOLID).graph_mode(common.BigValueGraphMode.NONE)
    built.text_mode(common.BigValueTextMode.VALUE_AND_NAME).orientation(common.VizOrientation.HORIZONTAL)
    built.justify_mode(common.BigValueJustifyMode.AUTO).wide_layout(wide_layout=True)
    built.reduce_options(common_builders.ReduceDataOptions().values(values=False).calcs(["lastNotNull"]))
    for index, query in enumerate(panel.queries):
        if not query.judged:
            built.override_by_query(_ref_id(index), [_fixed(NEUTRAL)])
    return built


def _time_series(panel: Panel, series_colours: SeriesColours) -> timeseries.Panel:
    built = timeseries.Panel()
    built.color_scheme(builders.FieldColor().mode(dashboard.FieldColorModeId.SHADES).fixed_color(FREE))
    has_target = len(panel.steps) > 1
    style = common.GraphThresholdsStyleMode.DASHED if has_target else common.GraphThresholdsStyleMode.OFF
    built.thresholds_style(common_builders.GraphThresholdsStyleConfig().mode(style))
    built.draw_style(common.GraphDrawStyle.LINE).line_width(2).fill_opacity(0)
    built.show_points(common.VisibilityMode.AUTO).span_nulls(span_nulls=False)
    if panel.shape is Shape.STACKED:
        built.fill_opacity(_STACKED_OPACITY).line_width(1)
        built.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
    built.tooltip(
        common_builders.VizTooltipOptions()
        .mode(common.TooltipDisplayMode.MULTI)
        .sort(common.SortOrder.DESCENDING)
    )
    built.legend(
        common_builders.VizLegendOptions()
        .display_mode(common.LegendDisplayMode.LIST)
        .placement(common.LegendPlacement.BOTTOM)
        .show_legend(show_legend=True)
        .calcs([])
    )
    for ref_id, colour in _written(panel):
        built.override_by_query(ref_id, [_fixed(colour)])
    for name, colour in (*_named(panel, series_colours), *panel.line_colours):
        built.override_by_regexp(f"^{name}(,.*)?$", [_fixed(colour)])
    dashes = dashboard.DynamicConfigValue(id_val="custom.lineStyle", value={"fill": "dash", "dash": [4, 6]})
    for index, query in enumerate(panel.queries):
        if query.dashed:
            built.override_by_query(_ref_id(index), [dashes])
    return built


def _written(panel: Panel) -> Iterator[tuple[str, str]]:
    """Queries of a single line, whose name is written in the panel, with their colours."""
    single = [index for index, query in enumerate(panel.queries) if "{{" not in query.legend]
    for index, colour in zip(single, cycle(LINES), strict=False):
        yield _ref_id(index), colour


def _named(panel: Panel, series_colours: SeriesColours) -> Iterator[tuple[str, str]]:
    """Names of series that this panel may have, with their colours."""
    for label, colours in series_colours.items():
        if any(query.legend.startswith(f"{{{{{label}}}}}") for query in panel.queries):
            yield from colours.items()


def _states() -> statetimeline.Panel:
    built = statetimeline.Panel().show_value(common.VisibilityMode.AUTO).merge_values(merge_values=True)
    built.color_scheme(builders.FieldColor().mode(dashboard.FieldColorModeId.THRESHOLDS))
    return built.row_height(0.9).legend(
        common_builders.VizLegendOptions()
        .display_mode(common.LegendDisplayMode.LIST)
        .placement(common.LegendPlacement.BOTTOM)
        .show_legend(show_legend=False)
        .calcs([])
    )


def _table(columns: Columns) -> table.Panel:
    hidden = ("Time", "__name__", "alertstate", *(() if columns.values else ("Value",)))
    built = table.Panel().show_header(show_header=True)
    # A row without some label has an empty text there, which would read as if there were no row.
    built.override_by_field_type("string", [dashboard.DynamicConfigValue(id_val="noValue", value="")])
    if columns.first:
        order = {"fields": {}, "sort": [{"field": columns.first[-1]}]}
        built.with_transformation(dashboard.DataTransformerConfig(id_val="sortBy", options=order))
    shown = {
        "excludeByName": dict.fromkeys(hidden, True),
        "indexByName": {name: place for place, name in enumerate((*columns.first, "Value"))},
        "renameByName": {"Value": columns.values} if columns.values else {},
    }
    return built.with_transformation(dashboard.DataTransformerConfig(id_val="organize", options=shown))


def _target(query: Query, ref_id: str, shape: Shape) -> prometheus.Dataquery:
    target = prometheus.Dataquery().datasource(DATASOURCE).ref_id(ref_id)
    target.expr(query.expression).legend_format(query.legend)
    if query.exemplars:
        target.exemplar(exemplar=True)
    if shape in (Shape.TIME_SERIES, Shape.STACKED, Shape.STATES):
        return target.range()
    target.instant()
    return target.format(PromQueryFormat.TABLE) if shape is Shape.TABLE else target


def _thresholds(steps: tuple[Step, ...]) -> builders.ThresholdsConfig:
    return (
        builders.ThresholdsConfig()
        .mode(dashboard.ThresholdsMode.ABSOLUTE)
        .steps([dashboard.Threshold(value=step.value, color=step.colour) for step in steps])
    )


def _mappings(panel: Panel) -> list[dashboard.ValueMapping]:
    """No value and NaN read as what they are, in the neutral colour, whatever the thresholds say."""
    nothing = dashboard.SpecialValueMap(
        dashboard.DashboardSpecialValueMapOptions(
            match=dashboard.SpecialValueMatch.NULL_AND_NAN,
            result=dashboard.ValueMappingResult(text=panel.no_value, color=NEUTRAL, index=0),
        )
    )
    colours = dict(panel.value_colours)
    texts = {
        f"{value:g}": dashboard.ValueMappingResult(text=text, color=colours.get(value), index=index + 1)
        for index, (value, text) in enumerate(panel.value_texts)
    }
    return [nothing, dashboard.ValueMap(options=texts)] if texts else [nothing]


def _ref_id(index: int) -> str:
    return chr(ord("A") + index)


def _fixed(colour: str) -> dashboard.DynamicConfigValue:
    return dashboard.DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": colour})
