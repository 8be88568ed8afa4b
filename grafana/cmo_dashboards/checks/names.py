"""Every metric, label and label value is in the catalogue, or recorded by a rule, or Prometheus' own.

A dashboard with a name that nobody exposes shows "no data", which looks like peace.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import promql_parser
from cmo_exporter import catalogue

from cmo_dashboards.checks.finding import Finding
from cmo_dashboards.checks.promql import metric_of, nodes, tree_of
from cmo_dashboards.checks.recorded import recorded_series
from cmo_dashboards.document import askers, expressions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cmo_slo.model import Objectives

    from cmo_dashboards.document import Document

_Labels = dict[str, tuple[str, ...] | None]
KnownSeries = Mapping[str, _Labels]
"""Series by name, with their labels and the values of those that have a closed list."""

_OF_EVERY_TARGET: Final[_Labels] = {"job": None, "instance": None}
_OF_AN_ALERT: Final = ("alertname", "severity", "role", "component", "slo", "objective", "scenario")
_OWN: Final[Mapping[str, _Labels]] = {
    "up": {},
    "scrape_duration_seconds": {},
    "scrape_samples_scraped": {},
    "ALERTS": {**dict.fromkeys(_OF_AN_ALERT), "alertstate": ("firing", "pending")},
    "ALERTS_FOR_STATE": dict.fromkeys(_OF_AN_ALERT),
}
"""Series that Prometheus itself makes of a scrape or a rule."""

OF_THE_MONITOR: Final[Mapping[str, tuple[str, ...]]] = {
    "prometheus_rule_evaluation_failures_total": ("rule_group",),
    "prometheus_rule_group_iterations_missed_total": ("rule_group",),
    "prometheus_rule_group_interval_seconds": ("rule_group",),
    "prometheus_rule_group_last_duration_seconds": ("rule_group",),
    "prometheus_config_last_reload_successful": (),
    "prometheus_notifications_alertmanagers_discovered": (),
    "prometheus_notifications_sent_total": ("alertmanager",),
    "prometheus_notifications_errors_total": ("alertmanager",),
    "prometheus_notifications_dropped_total": (),
    "prometheus_tsdb_head_series": (),
    "alertmanager_alerts": ("state",),
    "alertmanager_config_last_reload_successful": (),
    "alertmanager_notifications_total": ("integration",),
    "alertmanager_notifications_failed_total": ("integration",),
    "vmalert_iteration_duration_seconds": ("file", "group", "quantile"),
    "vmalert_iteration_interval_seconds": ("file", "group"),
    "vmalert_iteration_missed_total": ("file", "group"),
    "vmalert_recording_rules_errors_total": ("file", "group"),
    "vmalert_alerting_rules_errors_total": ("file", "group"),
    "vmalert_config_last_reload_successful": (),
    "vmalert_alerts_sent_total": ("addr",),
    "vmalert_alerts_send_errors_total": ("addr",),
    "process_resident_memory_bytes": (),
}
"""What Prometheus 2.42, Alertmanager 0.25, both and later, and vmalert 1.145 expose of themselves."""

_LEVELS: Final[Mapping[str, tuple[str, ...]]] = {
    "scenario": ("objective", "scenario"),
    "objective": ("objective",),
    "window": ("objective",),
}
"""Labels that are left of a recorded series by the level in front of its name; at others all are."""

_LEGEND_LABEL: Final = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_OF_LEGENDS: Final = ("legendFormat", "titleFormat", "textFormat")
_KEEPING_LABELS: Final = frozenset({"==", "!=", "<", ">", "<=", ">=", "and", "or", "unless"})
_CHOOSING: Final = frozenset({"topk", "bottomk", "limitk", "count_values"})
"""Aggregations that leave or make labels beside those that they are by."""
_Selectors = list[promql_parser.VectorSelector]


def check(document: Document, known: KnownSeries) -> Iterator[Finding]:
    """Every expression of panels and annotations; one that does not parse is left to the check of that."""
    for place, expression in expressions(document):
        tree = tree_of(expression)
        if tree is None:
            continue
        found, groupings, made = _names(tree)
        for selector in found:
            yield from _check_selector(place, selector, known)
        labels = {label for selector in found for label in known.get(metric_of(selector), {})}
        for label in sorted(groupings - labels - made):
            yield Finding(place, f"groups or matches by {label!r}, which none of its metrics has")
    yield from _legends(document, known)


def known_series(objectives: Objectives) -> KnownSeries:
    """Every series that can be queried where the rules of these objectives are evaluated."""
    known: dict[str, _Labels] = {name: _OF_EVERY_TARGET | labels for name, labels in _OWN.items()}
    known |= {name: _OF_EVERY_TARGET | dict.fromkeys(labels) for name, labels in OF_THE_MONITOR.items()}
    for metric in catalogue.CATALOGUE:
        for name in metric.series_names:
            labels = _OF_EVERY_TARGET | dict(metric.labels)
            known[name] = labels | {"le": None} if name.endswith("_bucket") else labels
    everything: _Labels = {label: None for labels in known.values() for label in labels}
    for name, fixed in recorded_series(objectives).items():
        left = _LEVELS.get(name.partition(":")[0], tuple(everything))
        known[name] = {**dict.fromkeys(left), **fixed}
    return known


def _check_selector(
    place: str, selector: promql_parser.VectorSelector, known: KnownSeries
) -> Iterator[Finding]:
    metric = metric_of(selector)
    if metric not in known:
        yield Finding(place, f"asks for {metric!r}, which is neither in the catalogue nor recorded by a rule")
        return
    for matcher in selector.matchers.matchers:
        if matcher.name == "__name__":
            continue
        if matcher.name not in known[metric]:
            yield Finding(place, f"{metric} has no label {matcher.name!r}; it has {', '.join(known[metric])}")
            continue
        allowed = known[metric][matcher.name]
        for value in _that_take_nothing(matcher, allowed) if allowed is not None else ():
            yield Finding(
                place,
                f"{value!r} is no value of {metric}'s label {matcher.name!r}: {', '.join(allowed or ())}",
            )


def _that_take_nothing(matcher: promql_parser.Matcher, allowed: tuple[str, ...]) -> list[str]:
    """The value of a matcher, or the alternatives of its pattern, that no value of a closed list equals."""
    if matcher.op in (promql_parser.MatchOp.Equal, promql_parser.MatchOp.NotEqual):
        return [matcher.value] if matcher.value not in ("", *allowed) else []
    is_nested = any(bracket in matcher.value for bracket in "([")
    alternatives = [matcher.value] if is_nested else sorted(set(matcher.value.split("|")))
    return [one for one in alternatives if not any(re.fullmatch(one, value) for value in allowed)]


def _legends(document: Document, known: KnownSeries) -> Iterator[Finding]:
    """Labels in the names of series and marks are ones that these have left."""
    for place, asker in askers(document):
        tree = tree_of(str(asker.get("expr", "")))
        named = {label for of in _OF_LEGENDS for label in _LEGEND_LABEL.findall(str(asker.get(of, "")))}
        if tree is not None:
            for label in sorted(named - _left(tree, known)):
                yield Finding(place, f"legend uses {{{{{label}}}}}, which no series of the query has")


def _left(tree: promql_parser.Expr, known: KnownSeries) -> set[str]:
    """Labels that series of an expression may have; what cannot be told is taken as left."""
    while isinstance(tree, promql_parser.ParenExpr) or (
        isinstance(tree, promql_parser.BinaryExpr) and str(tree.op) in _KEEPING_LABELS - {"or"}
    ):
        tree = tree.expr if isinstance(tree, promql_parser.ParenExpr) else tree.lhs
    if isinstance(tree, promql_parser.AggregateExpr) and str(tree.op) not in _CHOOSING:
        modifier = tree.modifier
        if modifier is None:
            return set()
        if modifier.type == promql_parser.AggModifierType.By:
            return set(modifier.labels)
    selectors, groupings, made = _names(tree)
    return groupings | made | {label for one in selectors for label in known.get(metric_of(one), {})}


def _names(tree: promql_parser.Expr) -> tuple[_Selectors, set[str], set[str]]:
    """All selectors of an expression, all labels that it groups or matches by, and those that it makes."""
    found: _Selectors = []
    groupings: set[str] = set()
    made: set[str] = set()
    for node, _ in nodes(tree):
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)
        elif isinstance(node, promql_parser.AggregateExpr):
            groupings.update(node.modifier.labels if node.modifier else [])
            made.update([node.param.val] if isinstance(node.param, promql_parser.StringLiteral) else [])
        elif isinstance(node, promql_parser.Call) and node.func.name in ("label_replace", "label_join"):
            made.update(part.val for part in node.args[1:2] if isinstance(part, promql_parser.StringLiteral))
        elif isinstance(node, promql_parser.BinaryExpr) and node.modifier:
            groupings.update(node.modifier.matching.labels if node.modifier.matching else [])
            groupings.update(node.modifier.group_labels or [])
    return found, groupings, made
