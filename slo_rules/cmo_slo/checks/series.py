"""Which series exist, with which labels, and how many: from the catalogue and from the rules themselves."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from cmo_exporter import catalogue

from cmo_slo import recorded
from cmo_slo.checks.promql import Aggregate, Binary, Call, Expression, Selector, Subquery, children, selectors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cmo_slo.checks.context import Context
    from cmo_slo.checks.rules import Group, Rule, RuleDocument

Answer = TypeVar("Answer")
Labels = dict[str, tuple[str, ...] | None]
"""Label names, each with its closed list of values, or ``None`` where any value may be."""

TARGET_LABELS: Final = frozenset(
    {
        "job", "instance", "cluster", "env", "environment", "region", "zone", "datacenter", "namespace",
        "pod", "container", "service", "endpoint", "node", "team", "tenant", "replica", "prometheus",
        "prometheus_replica", "exported_job", "exported_instance",
    }
)  # fmt: skip
"""Labels that a scrape configuration adds to every series of a target."""

PROMETHEUS_PREFIXES: Final = (
    "prometheus_", "alertmanager_", "scrape_", "process_", "python_", "go_", "net_conntrack_", "promhttp_",
)  # fmt: skip
PROMETHEUS_SERIES: Final = frozenset({"up", "ALERTS", "ALERTS_FOR_STATE"})

OWN_PREFIXES: Final = (
    "cmo_",
    "slo:cmo_",
    "slo:http_server_",
    "scenario:slo_",
    "objective:slo_",
    "window:slo_",
)
"""What only this project names: an unknown one is a mistake."""

OPENTELEMETRY_PREFIX: Final = "http_server_"
"""What we name as OpenTelemetry does, and others as well."""

# Rules that record from each other, in a circle or a long chain, are followed no further than this.
_DEEPEST: Final = 20
_RECORDED_OF_A_COUNTER: Final = re.compile(r"slo:(\w+):(?:checkpoint|increase)", re.ASCII)


@dataclass(frozen=True)
class Source:
    """A rule that records a series, and its group."""

    group: Group
    rule: Rule


class RecordedSeries:
    """What the given files record, by name."""

    def __init__(self, documents: Sequence[RuleDocument]) -> None:
        self._by_name: dict[str, list[Source]] = {}
        self._chosen: dict[Selector, list[Source]] = {}
        for document in documents:
            for group in document.groups:
                for rule in group.rules:
                    if rule.record is not None:
                        self._by_name.setdefault(rule.record, []).append(Source(group, rule))

    @property
    def names(self) -> frozenset[str]:
        """The names of all recorded series."""
        return frozenset(self._by_name)

    def of_name(self, name: str) -> Sequence[Source]:
        """Every rule that records series of this name."""
        return self._by_name.get(name, ())

    def sources(self, selector: Selector) -> list[Source]:
        """The rules that may record what a selector chooses: no fixed label of theirs contradicts it."""
        if selector not in self._chosen:
            recording = self.of_name(selector.name)
            self._chosen[selector] = [one for one in recording if _may_match(one.rule.labels, selector)]
        return self._chosen[selector]


class Followed(Generic[Answer]):
    """What is known of the series that selectors choose, each worked out once from their rules.

    Rules that record from each other, in a circle or a very long chain, are followed no further than gives an
    answer: ``unknown`` stands in for the rest.
    """

    def __init__(self, unknown: Answer) -> None:
        self._unknown = unknown
        self._answers: dict[Selector, Answer] = {}
        self._following: list[Selector] = []

    def answer(self, selector: Selector, work_out: Callable[[Selector], Answer]) -> Answer:
        """What is known of an instant selector; asked of one that is being followed already, ``unknown``."""
        instant = Selector(selector.name, selector.matchers)
        if instant in self._answers:
            return self._answers[instant]
        if instant in self._following or len(self._following) >= _DEEPEST:
            return self._unknown
        self._following.append(instant)
        try:
            self._answers[instant] = work_out(instant)
        except RecursionError:
            self._answers[instant] = self._unknown
        finally:
            self._following.pop()
        return self._answers[instant]


def _may_match(labels: Mapping[str, str], selector: Selector) -> bool:
    return all(
        matcher.accepts(labels[matcher.name]) for matcher in selector.matchers if matcher.name in labels
    )


def catalogue_series() -> dict[str, Labels]:
    """Every series of the catalogue, with its labels."""
    known: dict[str, Labels] = {}
    for metric in catalogue.CATALOGUE:
        for name in metric.series_names:
            known[name] = dict(metric.labels)
            if name.endswith("_bucket"):
                spellings = (text for edge in metric.buckets for text in (str(edge), f"{edge:g}"))
                known[name]["le"] = (*dict.fromkeys(spellings), "+Inf")
    return known


CATALOGUE_SERIES: Final[Mapping[str, Labels]] = catalogue_series()


def is_recorded_by_us(name: str) -> bool:
    """Whether our own compiled rules record a series of this name, in whatever file."""
    found = _RECORDED_OF_A_COUNTER.fullmatch(name)
    return name in recorded.AGGREGATED or (found is not None and found[1] in CATALOGUE_SERIES)


def interval_of(selector: Selector, series: RecordedSeries, context: Context) -> int:
    """Milliseconds between two samples of what a selector chooses, where several differ the shortest."""
    intervals = [source.group.interval or context.evaluation for source in series.sources(selector)]
    return min(intervals, default=context.scrape_interval)


class SeriesCounter:
    """Estimates how many series an expression reads or gives: right to a factor, not to a series."""

    def __init__(self, series: RecordedSeries, context: Context) -> None:
        self._series = series
        self._context = context
        self._followed = Followed(context.default_series)

    def chosen(self, selector: Selector) -> int:
        """How many series a selector chooses."""
        labels = CATALOGUE_SERIES.get(selector.name)
        if labels is not None:
            return prod(self._values(name, values, selector) for name, values in labels.items())
        if self._series.sources(selector):
            return self._followed.answer(selector, self._recorded)
        if selector.name in ("up", "scrape_duration_seconds") or "instance" in selector.fixed():
            return 1
        return self._context.default_series

    def _recorded(self, selector: Selector) -> int:
        expressions = [source.rule.expression for source in self._series.sources(selector)]
        return sum(1 if one is None else self.given(one) for one in expressions)

    def given(self, expression: Expression) -> int:
        """How many series an expression gives."""
        match expression:
            case Selector():
                return self.chosen(expression)
            case Aggregate():
                return self._aggregated(expression)
            case Binary(operator="or"):
                return self.given(expression.left) + self.given(expression.right)
            case Binary():
                left, right = self.given(expression.left), self.given(expression.right)
                return max(left, right) if expression.operator not in ("and", "unless") else left
            case Call(function="absent" | "absent_over_time" | "scalar" | "vector" | "time"):
                return 1
            case Call() | Subquery():
                return max((self.given(inner) for inner in children(expression)), default=1)
            case _:
                return 1

    def _aggregated(self, aggregate: Aggregate) -> int:
        inside = self.given(aggregate.expression)
        if aggregate.by is None:
            return inside
        values = [self._values_anywhere(label, aggregate.expression) for label in aggregate.by]
        return min(inside, prod(values))

    def _values_anywhere(self, label: str, expression: Expression) -> int:
        known = [
            self._values(label, CATALOGUE_SERIES[selector.name].get(label), selector)
            for selector in selectors(expression)
            if selector.name in CATALOGUE_SERIES
        ]
        return max(known, default=self._context.default_label_values)

    def _values(self, name: str, values: tuple[str, ...] | None, selector: Selector) -> int:
        matchers = [matcher for matcher in selector.matchers if matcher.name == name]
        listed = [matcher.literals for matcher in matchers if matcher.operator in ("=", "=~")]
        if any(literals is not None for literals in listed):
            number = min(len(literals) for literals in listed if literals is not None)
            # The same edge in two spellings is one series.
            return 1 if name == "le" and number == 2 else number
        if values is None:
            return self._context.default_label_values
        distinct = {float(value) for value in values} if name == "le" else set(values)
        return len(distinct)
