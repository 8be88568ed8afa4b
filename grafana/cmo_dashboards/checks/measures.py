"""What an expression measures, told from the names of its metrics: seconds, bytes, dollars, counts or shares.

Prometheus' names end in their base unit; functions and operators change it by rules that have no exception: a
rate is a second's, a quotient of seconds and calls is seconds, a quotient of one metric by itself is a share.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import promql_parser
from cmo_slo import recorded

from cmo_dashboards.checks.promql import metric_of, nodes

if TYPE_CHECKING:
    from collections.abc import Callable

_Dimension = tuple[int, int, int]
"""Powers of seconds, bytes and dollars."""
_NONE: Final[_Dimension] = (0, 0, 0)
_BY_SUFFIX: Final[dict[str, _Dimension]] = {"_seconds": (1, 0, 0), "_bytes": (0, 1, 0), "_usd": (0, 0, 1)}
_MOMENTS: Final = ("_timestamp_seconds", "_start_time_seconds", "ALERTS_FOR_STATE")
_EVENTS: Final = ("_events", "_queries", "_scraped")
_COUNTING: Final = frozenset(
    {"count", "group", "count_values", "changes", "resets", "count_over_time", "absent"}
)
_A_SECOND: Final = frozenset({"rate", "irate", "deriv"})
_SECONDS_OF_TIMES: Final = frozenset({60.0, 3_600.0, 86_400.0})
_POWERS_OF_TEN: Final = frozenset({100.0, 1e3, 1e6, 1e9, 0.01, 1e-3})
"""Percent, milliseconds and the like."""
_COMPARISONS: Final = frozenset({"==", "!=", "<", ">", "<=", ">="})


class Form(StrEnum):
    """What a value is, beside its dimension."""

    COUNT = "a count"
    SHARE = "a share"
    OPEN = "a count or a share"
    """Events of one kind for each of another, or a quotient of seconds."""
    NUMBER = "a number"
    MOMENT = "a moment"
    SCALED = "in another unit than its metric's"


@dataclass(frozen=True)
class Measure:
    """What values are; ``metrics`` are those that they are of, without endings."""

    dimension: _Dimension = _NONE
    form: Form = Form.COUNT
    metrics: frozenset[str] = frozenset()
    number: float | None = None

    def __str__(self) -> str:
        if self.form is Form.SCALED:
            return f"values {self.form.value}"
        names = zip(self.dimension, ("seconds", "bytes", "dollars"), strict=True)
        powers = [f"{name}^{power}" if power != 1 else name for power, name in names if power]
        return " · ".join(powers) or self.form.value


def measure(tree: promql_parser.Expr) -> Measure | None:
    """What an expression measures; none where names do not tell."""
    for kind, of in _BY_KIND.items():
        if isinstance(tree, kind):
            return of(tree)
    return None


def _of_selector(selector: promql_parser.VectorSelector) -> Measure | None:
    name = metric_of(selector)
    if ":" in name:
        return _of_recorded(name)
    for ending in ("_bucket", "_count"):
        if name.endswith(f"_seconds{ending}"):
            return Measure(metrics=frozenset({name.removesuffix(ending)}))
    return _of_name(name.removesuffix("_total").removesuffix("_sum"))


def _of_name(base: str) -> Measure:
    metrics = frozenset({base})
    if base.endswith(_MOMENTS):
        return Measure(form=Form.MOMENT, metrics=metrics)
    for suffix, dimension in _BY_SUFFIX.items():
        if base.endswith(suffix):
            return Measure(dimension, metrics=metrics)
    return Measure(form=Form.SHARE if base.endswith("_ratio") else Form.COUNT, metrics=metrics)


def _of_recorded(name: str) -> Measure | None:
    parts = name.split(":")
    if len(parts) != 3:  # of another project, which does not name its series as these rules do
        return None
    _, of, operation = parts
    if operation == "ratio":
        # How many times as fast as it lasts a budget is spent is no share of anything.
        return Measure(form=Form.COUNT if name == recorded.BURN_RATE else Form.SHARE, metrics=frozenset({of}))
    for ending in ("_bucket", "_count"):
        if of.endswith(ending):
            return Measure(metrics=frozenset({of.removesuffix(ending)}))
    if of.endswith(_EVENTS):
        return Measure(metrics=frozenset({"slo_events"}))
    known = _of_name(of.removesuffix("_total"))
    return known if known.dimension != _NONE else None


def _of_aggregation(tree: promql_parser.AggregateExpr) -> Measure | None:
    inner = measure(tree.expr)
    if str(tree.op) in _COUNTING:
        return Measure(metrics=inner.metrics if inner else frozenset())
    return inner


def _of_call(tree: promql_parser.Call) -> Measure | None:
    name = tree.func.name
    if name in ("time", "timestamp"):
        return Measure(form=Form.MOMENT)
    if name == "histogram_quantile":
        buckets = [node for node, _ in nodes(tree) if isinstance(node, promql_parser.VectorSelector)]
        return _of_name(metric_of(buckets[0]).removesuffix("_bucket")) if buckets else None
    literals = promql_parser.NumberLiteral | promql_parser.StringLiteral
    about = [argument for argument in tree.args if not isinstance(argument, literals)] or list(tree.args)
    inner = measure(about[0]) if about else None
    if inner is None or name in _COUNTING:
        return Measure() if name in _COUNTING else None
    return _a_second(inner) if name in _A_SECOND else inner


def _a_second(one: Measure) -> Measure:
    """Seconds a second are a share of time, or so many processors."""
    made = _times(one, (-1, 0, 0))
    return replace(made, form=Form.OPEN) if made.dimension == _NONE else made


def _times(one: Measure, dimension: _Dimension, sign: int = 1) -> Measure:
    a, b, c = (mine + sign * other for mine, other in zip(one.dimension, dimension, strict=True))
    return replace(one, dimension=(a, b, c))


def _of_operation(tree: promql_parser.BinaryExpr) -> Measure | None:
    left, right, operator = measure(tree.lhs), measure(tree.rhs), str(tree.op)
    if operator in _COMPARISONS and tree.modifier is not None and tree.modifier.return_bool:
        return Measure()
    if operator in _COMPARISONS or operator in ("and", "unless"):
        return right if left is not None and left.form is Form.NUMBER else left
    numbers = {one.number for one in (left, right) if one is not None}
    if operator == "*" and 0.0 in numbers:
        return Measure(form=Form.NUMBER, number=0.0)
    if left is None or right is None:
        return None
    if Form.NUMBER in (left.form, right.form):
        return _with_number(left, operator, right)
    made = {"*": _product, "/": _quotient, "-": _difference}.get(operator, _together)(left, right)
    is_scaled = made is not None and Form.SCALED in (left.form, right.form)
    return replace(made, form=Form.SCALED) if made is not None and is_scaled else made


def _with_number(left: Measure, operator: str, right: Measure) -> Measure:
    """A number in a sum has the measure of what stands beside it; times a number it is in another unit."""
    one, number = (right, left.number) if left.form is Form.NUMBER else (left, right.number)
    if operator == "*" and number in _SECONDS_OF_TIMES and one.dimension[0] < 0:
        return _times(one, (1, 0, 0))
    if operator == "/" and left.form is Form.NUMBER:
        return replace(_times(Measure(form=Form.OPEN), one.dimension, -1), metrics=one.metrics)
    if operator in ("*", "/") and number != 1.0:
        is_scaled = one.form is Form.SHARE or max(one.dimension[:2]) > 0 or number in _POWERS_OF_TEN
        return replace(one, form=Form.SCALED) if is_scaled else one
    if operator in ("+", "-") and one.form is Form.SHARE and number not in (0.0, 1.0):
        return replace(one, form=Form.OPEN)
    return one


def _product(left: Measure, right: Measure) -> Measure:
    forms = {left.form, right.form} - {Form.COUNT}
    form = forms.pop() if len(forms) == 1 else Form.OPEN if forms else Form.COUNT
    return replace(_times(left, right.dimension), form=form, metrics=left.metrics | right.metrics)


def _quotient(left: Measure, right: Measure) -> Measure:
    made = _times(left, right.dimension, -1)
    is_share = made.dimension == left.dimension == _NONE and left.metrics & right.metrics
    if left.dimension == right.dimension and left.dimension[0] < 0 and left.metrics & right.metrics:
        is_share = frozenset({"of the same, a second"})
    form = Form.SHARE if is_share else Form.OPEN if made.dimension == _NONE else Form.COUNT
    return replace(made, form=form, metrics=left.metrics | right.metrics)


def _difference(left: Measure, right: Measure) -> Measure | None:
    if left.form is right.form is Form.MOMENT:
        return Measure((1, 0, 0), metrics=left.metrics | right.metrics)
    return _together(left, right)


def _together(left: Measure, right: Measure) -> Measure | None:
    """Of a sum, or of one beside the other."""
    if left.dimension != right.dimension:
        return None
    form = left.form if left.form is right.form else Form.OPEN
    return replace(left, form=form, metrics=left.metrics | right.metrics)


_BY_KIND: Final[dict[type, Callable[..., Measure | None]]] = {
    promql_parser.NumberLiteral: lambda tree: Measure(form=Form.NUMBER, number=tree.val),
    promql_parser.VectorSelector: _of_selector,
    promql_parser.MatrixSelector: lambda tree: _of_selector(tree.vector_selector),
    promql_parser.ParenExpr: lambda tree: measure(tree.expr),
    promql_parser.UnaryExpr: lambda tree: measure(tree.expr),
    promql_parser.SubqueryExpr: lambda tree: measure(tree.expr),
    promql_parser.AggregateExpr: _of_aggregation,
    promql_parser.Call: _of_call,
    promql_parser.BinaryExpr: _of_operation,
}
