"""Which labels an alert carries when it fires, as far as its rule tells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cmo_slo.checks.promql import Aggregate, Binary, Call, Expression, Negation, Selector, Subquery, Text
from cmo_slo.checks.series import CATALOGUE_SERIES, Followed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cmo_slo.checks.rules import Rule
    from cmo_slo.checks.series import RecordedSeries

_OF_EVERY_TARGET: Final = frozenset({"job", "instance"})
_NO_LABELS: Final = frozenset({"scalar", "vector", "time", "absent", "absent_over_time"})
KEEPS_ALL: Final = frozenset({"topk", "bottomk", "limitk", "limit_ratio"})
"""Aggregations that choose some of their series, as they are."""


@dataclass(frozen=True)
class LabelSet:
    """Labels that may be there, whether others may be as well (``open``), and which of those are not."""

    names: frozenset[str] = frozenset()
    open: bool = False
    never: frozenset[str] = frozenset()

    def may_have(self, name: str) -> bool:
        """Whether the label can be there."""
        return name in self.names or (self.open and name not in self.never)

    def with_names(self, names: frozenset[str]) -> LabelSet:
        """These as well."""
        return LabelSet(self.names | names, self.open, self.never - names)

    def without(self, names: frozenset[str]) -> LabelSet:
        """All but these."""
        return LabelSet(self.names - names, self.open, self.never | names)

    def or_those_of(self, other: LabelSet) -> LabelSet:
        """Those of either."""
        never = self.never | other.never
        both = frozenset(name for name in never if not self.may_have(name) and not other.may_have(name))
        return LabelSet(self.names | other.names, self.open or other.open, both)


def fixed_labels(rule: Rule) -> Mapping[str, str]:
    """The labels whose value the rule itself says."""
    return {
        **{name: value for name, value in rule.labels.items() if "{{" not in value},
        "alertname": rule.alert or "",
    }


class LabelFinder:
    """Finds which labels there are, knowing what the given files record.

    What is scraped has the labels of our catalogue and of its target; but a scrape configuration may add
    others, so that where a label must be ``proved`` not to be there only the rules themselves count.
    """

    def __init__(self, series: RecordedSeries, *, proved: bool = False) -> None:
        self._series = series
        self._proved = proved
        self._followed = Followed(LabelSet(open=True))

    def of_alert(self, rule: Rule) -> LabelSet:
        """The labels of an alert: its own, its name, and those of the series that its expression gives."""
        given = LabelSet(open=True) if rule.expression is None else self.of(rule.expression)
        removed = frozenset(name for name, value in rule.labels.items() if not value)
        return given.with_names(frozenset(rule.labels) | {"alertname"}).without(removed)

    def of(self, expression: Expression) -> LabelSet:
        """The labels of the series that an expression gives."""
        match expression:
            case Selector():
                return self._selected(expression)
            case Aggregate():
                return self._aggregated(expression)
            case Binary():
                return self._combined(expression)
            case Call():
                return self._called(expression)
            case Negation() | Subquery():
                return self.of(expression.expression)
            case _:
                return LabelSet()

    def _selected(self, selector: Selector) -> LabelSet:
        asked = frozenset(selector.fixed())
        if self._proved and (selector.alternatives or not self._series.sources(selector)):
            return LabelSet(asked, open=True)
        if selector.name in CATALOGUE_SERIES:
            return LabelSet(frozenset(CATALOGUE_SERIES[selector.name]) | _OF_EVERY_TARGET | asked)
        if selector.name == "up":
            return LabelSet(_OF_EVERY_TARGET | asked)
        if not self._series.sources(selector):
            return LabelSet(asked, open=True)
        return self._followed.answer(selector, self._recorded)

    def _recorded(self, selector: Selector) -> LabelSet:
        sources = self._series.sources(selector)
        found = LabelSet(frozenset(selector.fixed()))
        for source in sources:
            inside = LabelSet(open=True)
            if source.rule.expression is not None:
                inside = self.of(source.rule.expression)
            found = found.or_those_of(inside.with_names(frozenset(source.rule.labels)))
        return found

    def _aggregated(self, aggregate: Aggregate) -> LabelSet:
        inside = self.of(aggregate.expression)
        if aggregate.operator in KEEPS_ALL:
            return inside
        counted: frozenset[str] = frozenset()
        if aggregate.operator == "count_values" and isinstance(aggregate.parameter, Text):
            counted = frozenset({aggregate.parameter.value})
        if aggregate.without is not None:
            return inside.without(aggregate.without).with_names(counted)
        by = aggregate.by or frozenset()
        return LabelSet(frozenset(label for label in by if inside.may_have(label)) | counted)

    def _combined(self, binary: Binary) -> LabelSet:
        left, right = self.of(binary.left), self.of(binary.right)
        if binary.operator == "or":
            return left.or_those_of(right)
        if binary.operator in ("and", "unless"):
            return left
        if (
            isinstance(binary.right, Selector | Aggregate | Call | Binary | Negation)
            and not left.names
            and not left.open
        ):
            return right  # a number on the left
        if binary.matching.group == "left":
            return left.with_names(binary.matching.included)
        if binary.matching.group == "right":
            return right.with_names(binary.matching.included)
        if binary.matching.on and not binary.filters:
            return LabelSet(frozenset(label for label in binary.matching.labels if left.may_have(label)))
        return left if binary.filters else left.without(binary.matching.labels)

    def _called(self, call: Call) -> LabelSet:
        if call.function in ("absent", "absent_over_time"):
            chosen = call.arguments[0]
            return LabelSet(frozenset(chosen.fixed())) if isinstance(chosen, Selector) else LabelSet()
        if call.function in _NO_LABELS or not call.arguments:
            return LabelSet()
        if call.function in ("label_replace", "label_join", "info", "histogram_quantiles"):
            return LabelSet(self.of(call.arguments[0]).names, open=True)
        if call.function == "histogram_quantile":
            inside = self.of(call.arguments[1])
            return inside.without(frozenset({"le"}))
        vectors = [self.of(argument) for argument in call.arguments]
        return max(vectors, key=lambda one: (one.open, len(one.names)))
