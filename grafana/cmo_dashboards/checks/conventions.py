"""What all dashboards have alike: how they refresh, lead to each other, mark what happened and draw lines.

Grafana renders a dashboard just as readily when its links drop the time range, its annotations never appear,
its lines bridge gaps and its latency leads to no trace.
"""

from __future__ import annotations

import json
import re
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import promql_parser
from cmo_exporter import catalogue

from cmo_dashboards.checks.finding import Finding
from cmo_dashboards.checks.promql import metric_of, nodes, tree_of
from cmo_dashboards.document import annotations_of, defaults_of, every_panel, overrides, panels, title_of
from cmo_dashboards.shipped import compiled_directory, shipped_objectives

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cmo_slo.model import Objectives

    from cmo_dashboards.document import Document

_REFRESH: Final = "30s"
_LAST: Final = "lastNotNull"
_SHARED_CROSSHAIR: Final = 1
_DASHBOARD: Final = re.compile(r"/d/([\w-]+)(?:/[\w-]*)?([^\s)\]\"]*)")
_VARIABLE: Final = re.compile(r"[?&]var-([a-z_]+)")
_WITH_EXEMPLARS: Final = frozenset(
    f"{metric.name}_bucket"
    for metric in (
        catalogue.QUERY_DURATION,
        catalogue.QUERY_TIME_TO_FIRST_TOKEN,
        catalogue.COMPONENT_DURATION,
        catalogue.QUEUE_WAIT,
        catalogue.LLM_TIME_TO_FIRST_TOKEN,
        catalogue.HTTP_SERVER_REQUEST_DURATION,
        catalogue.HTTP_SERVER_TIME_TO_FIRST_BYTE,
    )
)
"""Histograms whose observations the exporter gives the trace that explains them."""


def check(document: Document, promised: Objectives) -> Iterator[Finding]:
    """Settings, links, annotations, gaps, legends and exemplars."""
    yield from _settings(document)
    yield from _links_to_the_others(document)
    yield from _annotations(document, promised)
    known = _variables_of_dashboards(promised.name) | {str(document.get("uid")): _variables_of(document)}
    for panel in every_panel(document):
        for text in _texts(panel):
            yield from _dead_links(title_of(panel), text, known)
    for panel in panels(document):
        yield from _bridged_gaps(panel)
        yield from _what_is_shown(panel)
        yield from _without_exemplars(panel)


def _settings(document: Document) -> Iterator[Finding]:
    for setting, expected, why in (
        ("editable", False, "what is edited in Grafana is lost at the next start"),
        ("refresh", _REFRESH, "the rhythm of the rules"),
        ("graphTooltip", _SHARED_CROSSHAIR, "a shared crosshair"),
    ):
        found = document.get(setting)
        if found != expected or type(found) is not type(expected):
            yield Finding("dashboard", f"has {setting} {found!r}; expected {expected!r}: {why}")


def _links_to_the_others(document: Document) -> Iterator[Finding]:
    links = document.get("links") or []
    tags = set(document.get("tags") or [])
    by_tag = [link for link in links if link.get("type") == "dashboards"]
    if not [link for link in by_tag if link.get("tags") and set(link["tags"]) <= tags]:
        yield Finding("dashboard", f"has no link to the others by a tag of its own, {sorted(tags)}")
    for link in links:
        place = f"link {link.get('title', '?')}"
        if not link.get("keepTime"):
            yield Finding(place, "forgets the time that is looked at; expected keepTime")
        if not link.get("includeVars"):
            yield Finding(place, "forgets what is chosen; expected includeVars")


def _annotations(document: Document, promised: Objectives) -> Iterator[Finding]:
    """Known by what they ask, whatever they are called."""
    drawn = []
    for place, annotation in annotations_of(document):
        if not annotation.get("enable"):
            yield Finding(place, "is not enabled; expected its marks")
        else:
            drawn.append(tree_of(str(annotation.get("expr", ""))))
    for what, asks in _MARKS.items():
        if not any(tree is not None and asks(tree, promised) for tree in drawn):
            yield Finding("dashboard", f"has no annotation that asks for {what}")


def _asks_for_alerts(tree: promql_parser.Expr, promised: Objectives) -> bool:
    alerts = [alert.alert for alert in promised.alerts if alert.kind == "down"]
    return all(
        _is_selected(tree, {"alertstate": "firing", "severity": severity, "alertname": name})
        for severity in ("page", "ticket")
        for name in alerts
    )


def _asks_for_load_tests(tree: promql_parser.Expr, promised: Objectives) -> bool:
    tests = [alert.alert for alert in promised.alerts if alert.kind == "load_test"]
    labels = {"alertstate": "firing", "severity": "info"}
    return all(_is_selected(tree, labels | {"alertname": name}) for name in tests)


def _is_selected(tree: promql_parser.Expr, labels: dict[str, str]) -> bool:
    """Whether a selector takes firing alerts with these labels, and no other state, nor other projects'."""
    return any(
        isinstance(node, promql_parser.VectorSelector)
        and metric_of(node) == "ALERTS"
        and {matcher.name for matcher in node.matchers.matchers} >= {"alertname", "alertstate"}
        and all(_takes(matcher, labels.get(matcher.name)) for matcher in node.matchers.matchers)
        for node, _ in nodes(tree)
    )


def _takes(matcher: promql_parser.Matcher, value: str | None) -> bool:
    """Whether a matcher takes a label's value; any is right of a label that is not asked about."""
    operators = promql_parser.MatchOp
    pattern = matcher.value if matcher.op in (operators.Re, operators.NotRe) else re.escape(matcher.value)
    hit = value is None or re.fullmatch(pattern, value) is not None
    return hit != (value is not None and matcher.op in (operators.NotEqual, operators.NotRe))


def _asks_for_deploys(tree: promql_parser.Expr, _promised: Objectives) -> bool:
    """What runs now, and was not seen up to a step ago."""
    while isinstance(tree, promql_parser.ParenExpr):
        tree = tree.expr
    if not isinstance(tree, promql_parser.BinaryExpr) or str(tree.op) != "unless":
        return False
    return _builds(tree.lhs) == {False} and _builds(tree.rhs) == {True}


def _builds(tree: promql_parser.Expr) -> set[bool]:
    """Whether its selectors of what runs look back; nothing if another metric is among them."""
    found = [(node, around) for node, around in nodes(tree) if isinstance(node, promql_parser.VectorSelector)]
    if any(metric_of(selector) != catalogue.BUILD_INFO.name for selector, _ in found):
        return set()
    return {any(_offset(one) is not None for one in (selector, *around)) for selector, around in found}


def _offset(node: promql_parser.Expr) -> object:
    """How far a selector or a subquery looks back; none of what has no offset."""
    if isinstance(node, promql_parser.VectorSelector | promql_parser.SubqueryExpr):
        return node.offset
    return None


_MARKS: Final[dict[str, Callable[[promql_parser.Expr, Objectives], bool]]] = {
    "alerts that fire, pages and tickets": _asks_for_alerts,
    "deploys: builds that run now `unless` they were seen up to a step ago": _asks_for_deploys,
    "load tests": _asks_for_load_tests,
}


def _texts(panel: dict[str, Any]) -> Iterator[str]:
    """Wherever an address may stand; the panels inside a closed row are panels of their own."""
    for name, value in panel.items():
        if name != "panels":
            yield from _strings(value)


def _strings(item: Any) -> Iterator[str]:
    if isinstance(item, str):
        yield item
    for value in item.values() if isinstance(item, dict) else item if isinstance(item, list) else ():
        yield from _strings(value)


def _dead_links(place: str, text: str, known: dict[str, frozenset[str]]) -> Iterator[Finding]:
    for uid, asked in _DASHBOARD.findall(text):
        if uid not in known:
            yield Finding(
                place, f"links to the dashboard {uid!r}, which is none of {', '.join(sorted(known))}"
            )
            continue
        for variable in _VARIABLE.findall(asked):
            if variable not in known[uid]:
                yield Finding(
                    place, f"links to {uid!r} with the variable {variable!r}, which it does not have"
                )


@cache
def _variables_of_dashboards(name: str) -> dict[str, frozenset[str]]:
    """The compiled dashboards and runbooks by uid, with their variables, fresh or not.

    Args:
        name: of the objectives, which is the uid of the dashboard of compliance.
    """
    documents = [json.loads(path.read_text("utf-8")) for path in sorted(compiled_directory().rglob("*.json"))]
    known = {str(document.get("uid")): _variables_of(document) for document in documents}
    shipped = shipped_objectives().name
    return {name if uid == shipped else uid: variables for uid, variables in known.items()}


def _variables_of(document: Document) -> frozenset[str]:
    return frozenset(str(item.get("name")) for item in document.get("templating", {}).get("list", []))


def _bridged_gaps(panel: dict[str, Any]) -> Iterator[Finding]:
    """A gap means that nothing was scraped, or nobody asked; a line across it says that all went on."""
    custom = defaults_of(panel).get("custom") or {}
    if any([custom.get("spanNulls"), *(value for _, value in overrides(panel, "custom.spanNulls"))]):
        yield Finding(title_of(panel), "draws lines across gaps; expected spanNulls false")


def _what_is_shown(panel: dict[str, Any]) -> Iterator[Finding]:
    """A tile shows what is so now, and every line has its name."""
    options = panel.get("options") or {}
    calculations = (options.get("reduceOptions") or {}).get("calcs")
    if panel.get("type") == "stat" and calculations != [_LAST]:
        yield Finding(title_of(panel), f"shows {calculations} of its values; expected {[_LAST]}")
    if panel.get("type") == "timeseries" and not (options.get("legend") or {}).get("showLegend"):
        yield Finding(title_of(panel), "does not say which line is which; expected a legend that is shown")


def _without_exemplars(panel: dict[str, Any]) -> Iterator[Finding]:
    """Those of another time than the panel's are not drawn: Grafana asks for them without the offset."""
    if panel.get("type") != "timeseries":
        return
    lacking: set[str] = set()
    having: set[str] = set()
    for target in panel.get("targets") or []:
        tree = tree_of(str(target.get("expr", "")))
        if tree is not None:
            (having if target.get("exemplar") else lacking).update(_estimated(tree))
    for name in sorted(lacking - having):
        yield Finding(title_of(panel), f"estimates the latency of {name} and draws no exemplars of it")


def _estimated(tree: promql_parser.Expr) -> set[str]:
    """Histograms with exemplars of which a quantile is estimated, here and now."""
    return {
        metric_of(node)
        for node, around in nodes(tree)
        if isinstance(node, promql_parser.VectorSelector)
        and metric_of(node) in _WITH_EXEMPLARS
        and node.offset is None
        and any(
            isinstance(one, promql_parser.Call) and one.func.name == "histogram_quantile" for one in around
        )
    }
