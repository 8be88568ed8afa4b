"""Every coloured step and every line is one that an objective promises of what is asked for, or a state.

A step from anywhere else is a promise that nobody made: a red tile with nothing to do about it, or a green
one of a target that no verdict knows. What a panel asks for decides which objectives are meant: 90 % is the
target of one, and would be a lie on a panel of another.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final

import promql_parser
from cmo_exporter import catalogue
from cmo_slo import recorded
from cmo_slo.indicators import LatencyIndicator

from cmo_dashboards.checks.finding import Finding
from cmo_dashboards.checks.promql import metric_of, nodes, tree_of
from cmo_dashboards.colours import FAIL, NEUTRAL, WARN, Step, budget_steps, verdict_steps
from cmo_dashboards.document import defaults_of, overrides, panels, title_of
from cmo_dashboards.promised import target_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cmo_slo.model import Objective, Objectives

    from cmo_dashboards.document import Document

_LINES: Final = "timeseries"
_BUDGET_BURNS_AS_FAST_AS_IT_LASTS: Final = 1.0
_SECONDS: Final = "s"
_TITLE_WITH_A_TARGET: Final = re.compile(r"\btarget\b.*[<>]")
_Colours = tuple[tuple[float, str], ...]
"""Values from which on a colour holds, in their order, without those that change nothing."""


def check(document: Document, promised: Objectives) -> Iterator[Finding]:
    """Steps of each panel, and of overrides in it."""
    for panel in panels(document):
        place = title_of(panel)
        asked = _Asked(panel, promised)
        coloured = False
        for steps in _all_steps(panel):
            colours = _colours(steps)
            coloured |= len(colours) > 1
            if panel.get("type") == _LINES:  # a step of the same colour is a line too
                yield from _lines(place, panel, steps, asked)
            elif not (
                len(colours) == 1
                or _is_of_an_objective(colours, asked)
                or _is_a_state(colours, _texts(panel))
            ):
                yield Finding(place, f"has colours {colours}, which are of no objective that it asks for")
        if _TITLE_WITH_A_TARGET.search(str(panel.get("title"))) and not coloured:
            yield Finding(
                place, "names a target and gives it no colour or line; expected one from the objective"
            )


class _Asked:
    """What the queries of a panel are about, as far as targets go."""

    def __init__(self, panel: dict[str, Any], promised: Objectives) -> None:
        selectors = [
            node
            for target in panel.get("targets") or []
            if (tree := tree_of(str(target.get("expr", "")))) is not None
            for node, _ in nodes(tree)
            if isinstance(node, promql_parser.VectorSelector)
        ]
        self.metrics = {metric_of(selector) for selector in selectors}
        self.objectives = _objectives_of(selectors, self.metrics, title_of(panel), promised)
        cancelled = any(("outcome", "cancelled") in _labels(selector) for selector in selectors)
        self.limits = {promised.cancelled_limit} if cancelled else set()


def _objectives_of(
    selectors: list[promql_parser.VectorSelector], metrics: set[str], title: str, promised: Objectives
) -> list[Objective]:
    """Those that a label names, or that judge a metric that is asked for.

    Also those that judge the same events as one that is named, where the title says their target.
    """
    labels = {pair for selector in selectors for pair in _labels(selector)}
    named = {value for label, value in labels if label == "objective"}
    events = [objective.indicator for objective in promised.objectives if objective.name in named]
    indicators = {value for label, value in labels if label == "indicator"}
    read = {base for metric in metrics for base in _METRIC.findall(metric)}
    for component in promised.components:
        if component.name in indicators:
            read |= _metrics_in(component.indicator.model_dump(mode="json"))
    return [
        objective
        for objective in promised.objectives
        if objective.name in named
        or (objective.indicator in events and target_text(objective) in title)
        or _metrics_in(objective.indicator.model_dump(mode="json")) & read
    ]


_METRIC: Final = re.compile("|".join(sorted(catalogue.BY_NAME, key=len, reverse=True)))
"""Also in the names of series that are recorded of one."""


def _metrics_in(item: Any) -> set[str]:
    if isinstance(item, str):
        return {item} & catalogue.BY_NAME.keys()
    parts = item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
    return {name for part in parts for name in _metrics_in(part)}


def _labels(selector: promql_parser.VectorSelector) -> Iterator[tuple[str, str]]:
    for matcher in selector.matchers.matchers:
        for value in matcher.value.split("|"):
            yield matcher.name, value


def _all_steps(panel: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    yield (defaults_of(panel).get("thresholds") or {}).get("steps") or []
    for _, thresholds in overrides(panel, "thresholds"):
        yield thresholds.get("steps") or []


def _colours(steps: list[dict[str, Any]]) -> _Colours:
    return _without_repetition((step.get("value"), str(step.get("color"))) for step in steps)


def _without_repetition(steps: Iterator[tuple[float | None, str]]) -> _Colours:
    kept: list[tuple[float, str]] = []
    for value, colour in steps:
        if not kept or kept[-1][1] != colour:
            kept.append((-math.inf if value is None else float(value), colour))
    return tuple(kept)


def _is_of_an_objective(colours: _Colours, asked: _Asked) -> bool:
    made: list[tuple[Step, ...]] = []
    for objective in asked.objectives:
        if recorded.BUDGET_REMAINING in asked.metrics:
            made.append(budget_steps(objective))
        else:
            made += [verdict_steps(objective), verdict_steps(objective, missed=NEUTRAL)]
    return colours in [_without_repetition((step.value, step.colour) for step in steps) for steps in made]


def _is_a_state(colours: _Colours, texts: set[float]) -> bool:
    """States with texts of their own; or none against any, which needs no target: one restart, one page."""
    edges = [value for value, _ in colours[1:]]
    if all(edge in texts for edge in edges):
        return True
    bad = [colour for _, colour in colours if colour != NEUTRAL]
    return set(edges) <= {0.0, 1.0} and len(bad) == 1 and bad[0] in (FAIL, WARN)


def _texts(panel: dict[str, Any]) -> set[float]:
    """Values that a panel shows as words."""
    return {
        float(value)
        for mapping in defaults_of(panel).get("mappings") or []
        if mapping.get("type") == "value"
        for value, result in (mapping.get("options") or {}).items()
        if result.get("text")
    }


def _lines(
    place: str, panel: dict[str, Any], steps: list[dict[str, Any]], asked: _Asked
) -> Iterator[Finding]:
    """Steps of a picture over time are lines: each is a target, and all are drawn."""
    targets = _targets(str(defaults_of(panel).get("unit")), asked)
    lines = [float(step["value"]) for step in steps if step.get("value") is not None]
    for value in lines:
        if value not in targets:
            yield Finding(
                place, f"has a line at {value:g}; expected one of its targets {sorted(targets)}, or none"
            )
    custom = defaults_of(panel).get("custom") or {}
    drawn = (custom.get("thresholdsStyle") or {}).get("mode", "off") != "off"
    if drawn != bool(lines):
        drawing = "draws" if drawn else "does not draw"
        yield Finding(
            place, f"{drawing} lines, and has {lines}; expected them drawn where it has a target alone"
        )


def _targets(unit: str, asked: _Asked) -> set[float]:
    if recorded.BURN_RATE in asked.metrics:
        return {_BUDGET_BURNS_AS_FAST_AS_IT_LASTS}
    targets = {objective.target for objective in asked.objectives}
    if unit == _SECONDS:
        indicators = [objective.indicator for objective in asked.objectives]
        targets = {one.threshold_seconds for one in indicators if isinstance(one, LatencyIndicator)}
    return targets | asked.limits
