"""Between which values an expression can lie: interval arithmetic over PromQL.

A threshold that lies outside can never be passed, and a denominator whose values are all above 0 needs no
guard. Only what is certain narrows a bound: a share of a whole is known by its structure (the same series
with more matchers over fewer), a recorded series by the rule that records it, and, where no rule is given, a
burn rate or an error ratio by its name.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from cmo_slo.checks.alert_labels import LabelFinder, LabelSet
from cmo_slo.checks.promql import (
    Aggregate,
    Binary,
    Call,
    Expression,
    Matcher,
    Negation,
    Number,
    Selector,
    Subquery,
    constant,
    selectors,
)
from cmo_slo.checks.series import Followed

if TYPE_CHECKING:
    from cmo_slo.checks.series import RecordedSeries, Source

_COUNTER: Final = re.compile(r".*(?:_total|_count|_bucket|_sum)")
# Pyrra and kubernetes-mixin, and Sloth.
_SHARE_OF_GENERATOR: Final = re.compile(r".*burnrate.*|slo:sli_error:ratio.*")
_SHARE_BY_NAME: Final = re.compile(
    r".*:(?:\w*_)?(?:error|success|availability|failure)s?(?:_|:)?ratio.*",
    re.IGNORECASE,
)
_PART_WORD: Final = re.compile(
    r"(?<![a-z])(?:good|bad|errors?|failed|failures?|success(?:es)?|hits?|valid)(?![a-z])"
)
_PART_SUFFIX: Final = re.compile(r"_(?:failed|failures?|errors?|dropped|rejected|successes|hits)_total$")
_WHOLE: Final = "total"
_COUNT_OF_BUCKETS: Final = re.compile(r"_bucket$")

_SUMS: Final = frozenset({"rate", "increase", "irate", "sum_over_time", "count_over_time", "last_over_time"})
_KEEPS_VALUES: Final = frozenset(
    {
        "avg_over_time", "min_over_time", "max_over_time", "last_over_time", "quantile_over_time", "sort",
        "sort_desc", "sort_by_label", "sort_by_label_desc", "label_replace", "label_join", "vector", "scalar",
    }
)  # fmt: skip
_AGGREGATES_KEEP: Final = frozenset({"avg", "min", "max", "topk", "bottomk", "limitk", "limit_ratio"})
_NOT_NEGATIVE: Final = frozenset(
    {"rate", "irate", "increase", "changes", "resets", "abs", "sqrt", "stddev_over_time", "stdvar_over_time"}
)
_ONE: Final = frozenset({"absent", "absent_over_time", "present_over_time"})
_COUNTS: Final = frozenset({"count_over_time"})


class Evidence(IntEnum):
    """What bounds rest on, the surest first."""

    STRUCTURE = 0
    GENERATOR = 1
    """A name that only generators of burn-rate alerts give."""
    NAME = 2
    """A name that says so, and may lie."""


@dataclass(frozen=True)
class Bounds:
    """The least and the greatest value, and what says so."""

    low: float = -math.inf
    high: float = math.inf
    evidence: Evidence = Evidence.STRUCTURE

    @property
    def ends(self) -> bool:
        """Whether there is a least and a greatest value, and they differ: a ratio, or a percentage."""
        return math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high

    def within(self, other: Bounds) -> Bounds:
        """Both at once; where they contradict each other, this one."""
        low, high = max(self.low, other.low), min(self.high, other.high)
        return Bounds(low, high, max(self.evidence, other.evidence)) if low <= high else self

    def union(self, other: Bounds) -> Bounds:
        """Either."""
        evidence = max(self.evidence, other.evidence)
        return Bounds(min(self.low, other.low), max(self.high, other.high), evidence)


ANYTHING: Final = Bounds()
SHARE: Final = Bounds(0.0, 1.0)
SHARE_BY_GENERATOR: Final = Bounds(0.0, 1.0, Evidence.GENERATOR)
SHARE_BY_NAME: Final = Bounds(0.0, 1.0, Evidence.NAME)
NOT_NEGATIVE: Final = Bounds(0.0)
ONE: Final = Bounds(1.0, 1.0)


_CALENDAR: Final = {
    "hour": Bounds(0.0, 23.0),
    "minute": Bounds(0.0, 59.0),
    "day_of_week": Bounds(0.0, 6.0),
    "day_of_month": Bounds(1.0, 31.0),
    "day_of_year": Bounds(1.0, 366.0),
    "days_in_month": Bounds(28.0, 31.0),
    "month": Bounds(1.0, 12.0),
}


class BoundsFinder:
    """Finds bounds, knowing what the given files record."""

    def __init__(self, series: RecordedSeries) -> None:
        self._series = series
        self._labels = LabelFinder(series)
        self._followed = Followed(ANYTHING)

    def of(self, expression: Expression) -> Bounds:
        """The bounds of an expression, as narrow as can be known."""
        value = constant(expression)
        if value is not None:
            return ANYTHING if math.isnan(value) else Bounds(value, value)
        match expression:
            case Selector():
                return self._followed.answer(expression, self._named)
            case Call():
                return self._call(expression)
            case Aggregate():
                return self._aggregate(expression)
            case Binary():
                return self._binary(expression)
            case Negation():
                inner = self.of(expression.expression)
                return Bounds(-inner.high, -inner.low, inner.evidence)
            case Subquery():
                return self.of(expression.expression)
            case _:
                return ANYTHING

    def _named(self, selector: Selector) -> Bounds:
        by_name = _bounds_by_name(selector.name)
        sources = self._series.sources(selector)
        if not sources:
            return by_name
        bounds = [self.of(one.rule.expression) if one.rule.expression else ANYTHING for one in sources]
        together = bounds[0]
        for one in bounds[1:]:
            together = together.union(one)
        return together if math.isfinite(together.high) else together.within(by_name)

    def _call(self, call: Call) -> Bounds:
        name, arguments = call.function, call.arguments
        if name in _ONE:
            return ONE
        if name in _CALENDAR:
            return _CALENDAR[name]
        if name in _COUNTS:
            return Bounds(1.0)
        if name in _NOT_NEGATIVE or name == "time":
            return NOT_NEGATIVE if name != "time" else Bounds(1.0)
        if name in ("clamp_min", "clamp_max", "clamp"):
            return self._clamped(call)
        if name == "sum_over_time":
            return NOT_NEGATIVE if self.of(arguments[0]).low >= 0 else ANYTHING
        if name in _KEEPS_VALUES and arguments:
            return self.of(arguments[-1] if name == "quantile_over_time" else arguments[0])
        return ANYTHING

    def _clamped(self, call: Call) -> Bounds:
        inner = self.of(call.arguments[0])
        limits = [constant(argument) for argument in call.arguments[1:]]
        least = limits[0] if call.function != "clamp_max" else None
        most = limits[-1] if call.function != "clamp_min" else None
        low = inner.low if least is None else max(inner.low, least)
        high = inner.high if most is None else min(inner.high, most)
        return Bounds(min(low, high), max(low, high), inner.evidence)

    def _aggregate(self, aggregate: Aggregate) -> Bounds:
        inner = self.of(aggregate.expression)
        if aggregate.operator == "group":
            return ONE
        if aggregate.operator in ("count", "count_values"):
            return Bounds(1.0)
        if aggregate.operator == "quantile":
            level = constant(aggregate.parameter) if aggregate.parameter else None
            return inner if level is not None and 0 <= level <= 1 else ANYTHING
        if aggregate.operator in _AGGREGATES_KEEP:
            return inner
        if aggregate.operator == "sum":
            return self._sum(aggregate, inner)
        return NOT_NEGATIVE if aggregate.operator in ("stddev", "stdvar") else ANYTHING

    def _sum(self, aggregate: Aggregate, inner: Bounds) -> Bounds:
        # Of one element or more, each of at least `low`.
        least = inner.low if inner.low >= 0 else -math.inf
        chosen = aggregate.expression
        if not isinstance(chosen, Selector):
            return Bounds(least)
        sources = self._series.sources(chosen)
        if not sources and inner.evidence is not Evidence.STRUCTURE:
            # Mostly there is one a group; how many there are is not known.
            return Bounds(inner.low, inner.high, Evidence.NAME)
        if sources and math.isfinite(inner.high) and self._one_each(sources, aggregate):
            return Bounds(least, max(inner.high, 0.0) * len(sources), inner.evidence)
        return Bounds(least)

    def _one_each(self, sources: list[Source], aggregate: Aggregate) -> bool:
        """Whether each rule that records what is added up gives one series a group at most."""
        by = aggregate.by
        given = [
            self._labels.of(source.rule.expression) if source.rule.expression else LabelSet(open=True)
            for source in sources
        ]
        return by is not None and all(not one.open and one.names <= by for one in given)

    def _binary(self, binary: Binary) -> Bounds:
        left, right = self.of(binary.left), self.of(binary.right)
        if binary.returns_bool:
            return SHARE
        match binary.operator:
            case "and" | "unless":
                return left
            case "or":
                return left.union(right)
            case "+":
                return _bounds(left, right, left.low + right.low, left.high + right.high)
            case "-":
                least = left.low - right.high
                if left.low >= 0 and is_part(binary.right, binary.left):
                    least = max(least, 0.0)
                return _bounds(left, right, least, left.high - right.low)
            case "*":
                return _corners(left, right, [(x, y) for x in _ends(left) for y in _ends(right)])
            case "/":
                return self._quotient(binary, left, right)
            case _ if binary.filters:
                return _filtered(binary.operator, left, right)
        return ANYTHING

    def _quotient(self, binary: Binary, left: Bounds, right: Bounds) -> Bounds:
        factor, unscaled = without_factor(binary.left)
        if factor != 1:
            # `100 * part / whole` is read as `(100 * part) / whole`.
            share = self.of(replace(binary, left=unscaled))
            return _corners(share, left, [(end, factor) for end in _ends(share)])
        mean_of = averaged(binary)
        if mean_of is not None:
            return self.of(mean_of)
        if is_part(binary.left, binary.right):
            return SHARE if _is_surely_part(binary, right) else SHARE_BY_NAME
        if right.low <= 0:
            return NOT_NEGATIVE if left.low >= 0 and right.low == 0 else ANYTHING
        return _corners(
            left, right, [(x, 1 / y if math.isfinite(y) else 0.0) for x in _ends(left) for y in _ends(right)]
        )


def _is_surely_part(share: Binary, whole: Bounds) -> bool:
    """Whether no more than structure says that the left side is part of the right.

    Not where names say so, because one item may have several errors; nor where members may be negative,
    because some of them may then add up to more than all.
    """
    of_whole = {selector.name for selector in selectors(share.right)}
    of_part = {selector.name for selector in selectors(share.left)}
    return whole.low >= 0 and {_COUNT_OF_BUCKETS.sub("_count", name) for name in of_part} <= {
        _COUNT_OF_BUCKETS.sub("_count", name) for name in of_whole
    }


def averaged(binary: Binary) -> Expression | None:
    """What a quotient is the mean of: ``sum(x) / count(x)``, ``sum_over_time(x) / count_over_time(x)``."""
    left, right = binary.left, without_guard(binary.right)
    if isinstance(left, Aggregate) and isinstance(right, Aggregate):
        same = left.expression == right.expression and left.by == right.by and left.without == right.without
        return left.expression if same and (left.operator, right.operator) == ("sum", "count") else None
    if isinstance(left, Call) and isinstance(right, Call) and left.arguments == right.arguments:
        over_time = (left.function, right.function) == ("sum_over_time", "count_over_time")
        return left.arguments[0] if over_time else None
    return None


def without_guard(expression: Expression) -> Expression:
    """A denominator without what only keeps it from being 0, none of which makes it smaller."""
    while True:
        match expression:
            case Binary(operator=">" | ">=" | "!=", right=Number()) if expression.filters:
                expression = expression.left
            case Call(function="clamp_min"):
                expression = expression.arguments[0]
            case Binary(operator="and" | "unless"):
                expression = expression.left
            case _:
                return expression


def without_factor(expression: Expression) -> tuple[float, Expression]:
    """A constant factor, and what it multiplies; 1 and the expression itself where there is none."""
    if isinstance(expression, Binary) and expression.operator == "*":
        for factor, other in ((expression.left, expression.right), (expression.right, expression.left)):
            value = constant(factor)
            if value is not None and constant(other) is None:
                return value, other
    return 1.0, expression


def is_part(part: Expression, whole: Expression) -> bool:
    """Whether one expression counts some of what another counts, so that it is never greater.

    Known by structure alone: the same aggregation and function over the same series, chosen by more matchers;
    a histogram's bucket of its count; a whole less a part of it.
    """
    whole = without_guard(whole)
    if part == whole:
        return True
    match part:
        case Binary(operator="-"):
            return is_part(part.left, whole) and is_part(part.right, part.left)
        case Binary(operator="or"):
            return is_part(part.left, whole) and (_is_zero(part.right) or is_part(part.right, whole))
        case Binary(operator="and" | "unless"):
            return is_part(part.left, whole)
        case Binary() if part.filters:
            return is_part(part.left, whole)
        case Aggregate() if isinstance(whole, Aggregate):
            return _is_part_of_aggregate(part, whole)
        case Call() if isinstance(whole, Call):
            same = part.function == whole.function and part.function in _SUMS
            return (
                same
                and part.arguments[1:] == whole.arguments[1:]
                and is_part(part.arguments[0], whole.arguments[0])
            )
        case Selector() if isinstance(whole, Selector):
            return _is_part_of_selector(part, whole)
    return False


def _is_part_of_aggregate(part: Aggregate, whole: Aggregate) -> bool:
    if part.operator != whole.operator or part.operator not in ("sum", "count"):
        return False
    if part.without is not None or whole.without is not None:
        finer = part.without is not None and whole.without is not None and part.without <= whole.without
    else:
        finer = (part.by or frozenset()) >= (whole.by or frozenset())
    return finer and is_part(part.expression, whole.expression)


def _is_part_of_selector(part: Selector, whole: Selector) -> bool:
    if (part.range, part.offset, part.pinned) != (whole.range, whole.offset, whole.pinned):
        return False
    if part.alternatives or whole.alternatives or not part.name:
        return False
    own = part.matchers
    if part.name.endswith("_bucket") and whole.name == f"{part.name.removesuffix('_bucket')}_count":
        if not any(matcher.name == "le" for matcher in own):
            return False  # all buckets added up are more than the count
    elif part.name != whole.name and not _is_part_by_name(part.name, whole.name):
        return False
    return all(any(_implies(mine, theirs) for mine in own) for theirs in whole.matchers)


def _is_part_by_name(part: str, whole: str) -> bool:
    # `scenario:slo_good_events:sum` of `scenario:slo_total_events:sum`, `x_failed_total` of `x_total`
    if _WHOLE not in whole:
        return False
    return _PART_WORD.sub(_WHOLE, part) == whole or _PART_SUFFIX.sub("_total", part) == whole


def _implies(mine: Matcher, theirs: Matcher) -> bool:
    if mine.name != theirs.name:
        return False
    if mine == theirs:
        return True
    if mine.operator not in ("=", "=~") or mine.literals is None:
        return False
    return all(theirs.accepts(value) for value in mine.literals)


def _is_zero(expression: Expression) -> bool:
    if constant(expression) == 0:
        return True
    return (
        isinstance(expression, Binary)
        and expression.operator == "*"
        and 0 in (constant(expression.left), constant(expression.right))
    )


def _bounds_by_name(name: str) -> Bounds:
    if name == "up":
        return SHARE
    if _SHARE_OF_GENERATOR.fullmatch(name):
        return SHARE_BY_GENERATOR
    if _SHARE_BY_NAME.fullmatch(name):
        return SHARE_BY_NAME
    return NOT_NEGATIVE if _COUNTER.fullmatch(name) else ANYTHING


def _ends(bounds: Bounds) -> tuple[float, float]:
    return bounds.low, bounds.high


def _corners(left: Bounds, right: Bounds, pairs: list[tuple[float, float]]) -> Bounds:
    # 0 times infinity is 0 here: the infinite end is never reached, the 0 is.
    products = [0.0 if 0 in pair else pair[0] * pair[1] for pair in pairs]
    return _bounds(left, right, min(products), max(products))


def _bounds(left: Bounds, right: Bounds, low: float, high: float) -> Bounds:
    low = -math.inf if math.isnan(low) else low
    high = math.inf if math.isnan(high) else high
    return Bounds(low, high, max(left.evidence, right.evidence))


def _filtered(operator: str, left: Bounds, right: Bounds) -> Bounds:
    if operator in (">", ">="):
        # What is above 0 may be as near to 0 as it likes, and is not 0.
        least = (
            math.nextafter(right.low, math.inf) if operator == ">" and math.isfinite(right.low) else right.low
        )
        return left.within(Bounds(least))
    if operator in ("<", "<="):
        return left.within(Bounds(high=right.high))
    return left.within(right) if operator == "==" else left
