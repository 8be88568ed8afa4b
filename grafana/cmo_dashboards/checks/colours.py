"""Every colour can be told apart with any colour vision, has a text beside it, and means what that says.

Grafana's own names (``green``, ``red``) are shades that some cannot tell apart, and change with the theme.
Thresholds have colours only where a target exists, and those are made of an objective in one place. What is
called a success is never shown as a failure, and what is none never green, whoever gave it its colour.
"""

from __future__ import annotations

import re
from itertools import combinations
from typing import TYPE_CHECKING, Any, Final

import promql_parser
from cmo_exporter import catalogue

from cmo_dashboards.checks.finding import Finding
from cmo_dashboards.checks.promql import metric_of, nodes, tree_of
from cmo_dashboards.colours import FAIL, NEUTRAL, PALETTE, PASS, WARN, Step, colour_of
from cmo_dashboards.document import annotations_of, defaults_of, overrides, panels, title_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cmo_dashboards.checks.names import KnownSeries
    from cmo_dashboards.document import Document

_COLOUR_FIELDS: Final = ("color", "fixedColor", "iconColor")
_OF_VALUES: Final = ("stat", "state-timeline", "gauge", "bargauge")
"""Panels whose colour is a judgement of the value."""
_MODES_OF_VALUES: Final = ("thresholds", "fixed")
_MODES_OF_SERIES: Final = (
    "thresholds",
    "fixed",
    "shades",
    "palette-classic",
    "palette-classic-by-name",
    "continuous-blues",
    "continuous-purples",
    "continuous-BlPu",
    "continuous-YlBl",
)
"""Without those from green to red, which some see as one colour and all as a verdict."""
_VERDICTS: Final = (PASS, WARN, FAIL)
_WELL: Final = frozenset({"success", "PASS", "passes", "up", "answered", "accepted", "fires", "closed"})
_AMISS: Final = frozenset(
    {"failure", "error", "errors", "timeout", "rejected", "refused", "failed", "fails", "FAIL", "WARN"}
    | {"Few, target missed", "down", "silent", "dropped", "stale", "default"}
    | {state for state in catalogue.BREAKER_STATES if state != "closed"}
)
"""Names of what is no success; `default` is an apology in the place of an answer."""
_UNKNOWN: Final = re.compile(r"No .*|Too few .*|Nothing .*|Unknown.*")
_LEGEND: Final = re.compile(r"\{\{(\w+)\}\}([^{]*)")


def check(document: Document, known: KnownSeries) -> Iterator[Finding]:
    """Colours of thresholds, mappings, overrides and annotations."""
    for panel in panels(document):
        for colour in _colours(panel.get("fieldConfig") or {}):
            if colour not in PALETTE:
                yield Finding(title_of(panel), f"has the colour {colour!r}; expected one of {PALETTE}")
        for mapping in defaults_of(panel).get("mappings") or []:
            yield from _without_text(title_of(panel), mapping)
        yield from _modes(panel)
        yield from _against_its_meaning(panel)
        yield from _alike(panel, known)
    for place, annotation in annotations_of(document):
        if annotation.get("iconColor") not in PALETTE:
            yield Finding(place, f"has the colour {annotation.get('iconColor')!r}; expected one of {PALETTE}")


def _colours(item: Any) -> Iterator[str]:
    if isinstance(item, dict):
        for name, value in item.items():
            if name in _COLOUR_FIELDS and isinstance(value, str):
                yield value
            else:
                yield from _colours(value)
    elif isinstance(item, list):
        for value in item:
            yield from _colours(value)


def _without_text(place: str, mapping: dict[str, Any]) -> Iterator[Finding]:
    """States that differ by colour alone."""
    if mapping.get("type") != "value":
        return
    for value, result in (mapping.get("options") or {}).items():
        if not result.get("text"):
            yield Finding(place, f"shows the value {value} by a colour alone; expected a text beside it")


def _modes(panel: dict[str, Any]) -> Iterator[Finding]:
    """By what Grafana chooses a colour where none is fixed."""
    of_values = panel.get("type") in _OF_VALUES
    allowed = _MODES_OF_VALUES if of_values else _MODES_OF_SERIES
    chosen = [defaults_of(panel).get("color") or {}, *(colour for _, colour in overrides(panel, "color"))]
    for colour in chosen:
        mode = colour.get("mode")
        if mode not in allowed and not (mode is None and not of_values):
            yield Finding(title_of(panel), f"has the colour mode {mode!r}; expected one of {allowed}")
        if of_values and mode == "fixed" and colour.get("fixedColor") in _VERDICTS:
            yield Finding(
                title_of(panel), f"is always {colour['fixedColor']}, whatever its values; expected none"
            )


def _against_its_meaning(panel: dict[str, Any]) -> Iterator[Finding]:
    for name, colour in _named_colours(panel):
        if name in _WELL and colour in (FAIL, WARN):
            yield Finding(title_of(panel), f"shows {name!r} in {colour}, the colour of what is not well")
        if name in _AMISS and colour == PASS:
            yield Finding(title_of(panel), f"shows {name!r} in {colour}, the colour of success")
        if _UNKNOWN.fullmatch(name) and colour != NEUTRAL:
            yield Finding(
                title_of(panel), f"shows {name!r} in {colour}; expected {NEUTRAL}: it judges nothing"
            )


def _named_colours(panel: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Words that a panel shows, and the colour that each has: of values by mapping or step, and of series."""
    steps = (defaults_of(panel).get("thresholds") or {}).get("steps") or [{}]
    made = tuple(Step(step.get("value"), str(step.get("color", NEUTRAL))) for step in steps)
    for mapping in defaults_of(panel).get("mappings") or []:
        if mapping.get("type") == "value":
            for value, result in (mapping.get("options") or {}).items():
                yield str(result.get("text")), str(result.get("color") or colour_of(float(value), made))
    for matcher, colour in overrides(panel, "color"):
        for name in sorted(_WELL | _AMISS):
            if _takes(matcher, name):
                yield name, str(colour.get("fixedColor"))


def _takes(matcher: dict[str, Any], name: str) -> bool:
    """Whether an override is about the series of a name."""
    options = matcher.get("options")
    if matcher.get("id") == "byName":
        return bool(options == name)
    if matcher.get("id") == "byNames":
        return isinstance(options, dict) and name in (options.get("names") or [])
    if matcher.get("id") == "byRegexp":
        return re.search(str(options).removeprefix("/").removesuffix("/"), name) is not None
    return False


def _alike(panel: dict[str, Any], known: KnownSeries) -> Iterator[Finding]:
    """Series of one query whose names are a closed list, two of which have one fixed colour."""
    for target in panel.get("targets") or []:
        fixed: dict[str, str] = {}
        for name in _closed_names(target, known):
            colours = [colour for matcher, colour in overrides(panel, "color") if _takes(matcher, name)]
            if colours:
                fixed[name] = str(colours[-1].get("fixedColor"))
        for one, other in combinations(fixed, 2):
            if fixed[one] == fixed[other]:
                yield Finding(title_of(panel), f"shows {one!r} and {other!r} in one colour, {fixed[one]}")


def _closed_names(target: dict[str, Any], known: KnownSeries) -> list[str]:
    """What the series of a query are called, where one label with a closed list of values names them."""
    legend = _LEGEND.fullmatch(str(target.get("legendFormat", "")))
    tree = tree_of(str(target.get("expr", "")))
    if legend is None or tree is None:
        return []
    label, after = legend.groups()
    values = [
        _left(node, label, known.get(metric_of(node), {}).get(label) or ())
        for node, _ in nodes(tree)
        if isinstance(node, promql_parser.VectorSelector)
    ]
    return sorted({f"{value}{after}" for closed in values for value in closed})


def _left(selector: promql_parser.VectorSelector, label: str, values: tuple[str, ...]) -> list[str]:
    """Those of a label's values that a selector leaves."""
    operators = promql_parser.MatchOp
    for matcher in selector.matchers.matchers:
        if matcher.name == label and matcher.op in (operators.Equal, operators.Re):
            values = tuple(value for value in values if re.fullmatch(matcher.value, value))
    return list(values)
