"""Each function of PromQL gets the series and the window that it is right for.

All of these parse, and draw lines: a rate over the whole range, which is blunt, or over one step, which is
empty; a rate of a gauge, which takes each fall for a restart; a counter as it stands, which says how old a
process is; an average of quantiles, which is the quantile of nothing; an hourly series asked like others,
which is not there five minutes after the hour.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

import promql_parser
from cmo_exporter import catalogue

from cmo_dashboards.checks.finding import Finding
from cmo_dashboards.checks.names import OF_THE_MONITOR
from cmo_dashboards.checks.promql import RANGE, RATE_INTERVAL, Around, metric_of, nodes, tree_of
from cmo_dashboards.document import askers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cmo_dashboards.document import Document

_OF_COUNTERS: Final = frozenset({"rate", "irate", "increase", "resets"})
_OF_GAUGES: Final = frozenset({"delta", "idelta", "deriv", "predict_linear"})
_EXISTENCE: Final = frozenset({"absent", "absent_over_time", "count", "group", "count_over_time"})
"""They ask whether there is a series, whatever its value."""
_MIXERS: Final = frozenset({"avg", "sum", "avg_over_time", "sum_over_time", "quantile", "quantile_over_time"})
_HOUR: Final = timedelta(hours=1)
_WINDOWS: Final = {"rate": (RATE_INTERVAL,), "irate": (RATE_INTERVAL,), "increase": (RATE_INTERVAL, RANGE)}
_WORDS: Final = {RATE_INTERVAL: "$__rate_interval", RANGE: "$__range"}


def check(document: Document) -> Iterator[Finding]:
    """Every expression of panels and annotations."""
    for place, asker in askers(document):
        tree = tree_of(str(asker.get("expr", "")))
        if tree is None:
            continue  # the check `parses` says so
        for node, around in nodes(tree):
            for wrong in _wrong(node, around, instant=bool(asker.get("instant"))):
                yield Finding(place, wrong)


def _wrong(node: promql_parser.Expr, around: Around, *, instant: bool) -> Iterator[str]:
    if isinstance(node, promql_parser.Call):
        yield from _window(node, instant=instant)
        if node.func.name == "histogram_quantile":
            yield from _quantile(node, around)
    elif isinstance(node, promql_parser.VectorSelector):
        yield from _selected(node, around)


def _window(call: promql_parser.Call, *, instant: bool) -> Iterator[str]:
    name = call.func.name
    if name not in _WINDOWS:
        return
    allowed = " or ".join(_WORDS[window] for window in _WINDOWS[name])
    ranges = [argument for argument in call.args if isinstance(argument, promql_parser.MatrixSelector)]
    if not ranges:
        yield f"has {name} of a subquery, which misses restarts; expected it of a counter, over {allowed}"
    for over in ranges:
        if over.range not in _WINDOWS[name]:
            yield f"has {name} over another window; expected {allowed}"
        elif over.range == RANGE and not instant:
            yield f"has {name} over $__range at each step of a picture; expected it where one is asked for"


def _quantile(call: promql_parser.Call, around: Around) -> Iterator[str]:
    mixers = [name for one in around if (name := _name(one)) in _MIXERS]
    if mixers:
        yield f"has {mixers[-1]} of quantiles, which is a quantile of nothing; expected it of the buckets"
    for node, _ in nodes(call):
        if isinstance(node, promql_parser.AggregateExpr) and _of_buckets(node) and not _keeps_edges(node):
            yield "adds up buckets without `le`; expected sum by (…, le)"


def _of_buckets(tree: promql_parser.Expr) -> bool:
    selectors = [node for node, _ in nodes(tree) if isinstance(node, promql_parser.VectorSelector)]
    return any("_bucket" in metric_of(selector) for selector in selectors)


def _keeps_edges(node: promql_parser.AggregateExpr) -> bool:
    modifier = node.modifier
    if modifier is None:
        return False
    return ("le" in modifier.labels) is (modifier.type == promql_parser.AggModifierType.By)


def _selected(selector: promql_parser.VectorSelector, around: Around) -> Iterator[str]:
    metric, functions = metric_of(selector), {_name(one) for one in around}
    if _is_counter(metric):
        if functions & _OF_GAUGES:
            yield f"asks for {sorted(functions & _OF_GAUGES)} of the counter {metric}; expected its rate"
        elif not functions & (_OF_COUNTERS | _EXISTENCE):
            yield f"shows the counter {metric} as it stands; expected rate or increase of it"
    elif functions & _OF_COUNTERS:
        yield f"asks for {sorted(functions & _OF_COUNTERS)} of {metric}, which is no counter"
    if metric.endswith(":hourly") and not _over_whole_hours(around):
        yield f"asks for {metric} at one moment; expected last_over_time(…[1h]), or whole hours of it"


def _over_whole_hours(around: Around) -> bool:
    if len(around) < 2 or not isinstance(around[-1], promql_parser.MatrixSelector):
        return False
    hours = around[-1].range % _HOUR == timedelta(0)
    return hours and _name(around[-2]).endswith("_over_time")


def _is_counter(metric: str) -> bool:
    """Recorded series are increases or ratios, and no counters, whatever they are recorded of."""
    if ":" in metric:
        return False
    known = _KINDS.get(metric)
    if known is None:
        return metric in OF_THE_MONITOR and metric.endswith("_total")
    return known is not catalogue.Kind.GAUGE


_KINDS: Final = {name: metric.kind for metric in catalogue.CATALOGUE for name in metric.series_names}


def _name(node: promql_parser.Expr) -> str:
    """The function or the aggregation that a node is; empty where it is neither."""
    if isinstance(node, promql_parser.Call):
        return str(node.func.name)
    return str(node.op) if isinstance(node, promql_parser.AggregateExpr) else ""
