"""Two sides that never meet, and quantiles of histograms that have lost their buckets: both give nothing.

An operator brings series together by their labels, and where no pair has the same it gives nothing: no error,
and an alert that is silent for ever. Only labels that an aggregation, a matcher or a recording rule settles
are held against each other. What somebody groups by is taken to be there: else the grouping would be the
mistake.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cmo_slo.checks.alert_labels import KEEPS_ALL, LabelFinder, LabelSet
from cmo_slo.checks.finding import Reporter, rules_in
from cmo_slo.checks.promql import (
    Aggregate,
    Binary,
    Call,
    Expression,
    Negation,
    Number,
    Selector,
    Subquery,
    Text,
    selectors,
    shown,
    walk,
)
from cmo_slo.checks.series import CATALOGUE_SERIES, TARGET_LABELS, Followed, RecordedSeries

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cmo_slo.checks.context import Context
    from cmo_slo.checks.finding import Finding, Place
    from cmo_slo.checks.rules import RuleDocument

_REPORT: Final = Reporter("matching")
_OF_EVERY_TARGET: Final = frozenset({"job", "instance"})
# Rules of others name these everywhere, and work where nobody sets them as well.
_MAY_BE_MISSING: Final = TARGET_LABELS - _OF_EVERY_TARGET
_SCALARS: Final = frozenset({"scalar", "time", "pi"})
_LABELS_OF_THEIR_OWN: Final = frozenset({"vector", "histogram_quantiles", *_SCALARS})
_SHOWN: Final = 60


def check(documents: Sequence[RuleDocument], context: Context) -> Iterator[Finding]:  # noqa: ARG001
    """Every operator between series, and every quantile of a histogram."""
    series = RecordedSeries(documents)
    labels = LabelFinder(series, proved=True)
    sides = _Sides(labels, _SureLabels(series, labels))
    buckets = _Buckets(series, labels)
    for place, _, rule in rules_in(documents):
        if rule.expression is None:
            continue
        for node in dict.fromkeys(walk(rule.expression)):
            if isinstance(node, Binary):
                yield from sides.check(place, node)
            elif isinstance(node, Call):
                yield from buckets.check(place, node)


class _SureLabels:
    """Finds the labels that every series of an expression has."""

    def __init__(self, series: RecordedSeries, labels: LabelFinder) -> None:
        self._series = series
        self._labels = labels
        self._followed: Followed[frozenset[str]] = Followed(frozenset())

    def of(self, expression: Expression) -> frozenset[str]:
        """Their names; those that are not known to be there are not among them."""
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
                return frozenset()

    def _selected(self, selector: Selector) -> frozenset[str]:
        if selector.alternatives:
            return frozenset()
        asked = frozenset(selector.fixed())
        if self._series.sources(selector):
            return asked | self._followed.answer(selector, self._recorded)
        if selector.name == "up":
            return asked | _OF_EVERY_TARGET
        if selector.name.startswith("cmo_") and selector.name in CATALOGUE_SERIES:
            return asked | _OF_EVERY_TARGET | frozenset(CATALOGUE_SERIES[selector.name])
        return asked

    def _recorded(self, selector: Selector) -> frozenset[str]:
        found = []
        for source in self._series.sources(selector):
            inside = self.of(source.rule.expression) if source.rule.expression else frozenset()
            removed = {name for name, value in source.rule.labels.items() if not value}
            found.append((inside | frozenset(source.rule.labels)) - removed)
        return frozenset.intersection(*found)

    def _aggregated(self, aggregate: Aggregate) -> frozenset[str]:
        inside = self.of(aggregate.expression)
        if aggregate.operator in KEEPS_ALL:
            return inside
        if aggregate.without is not None:
            return inside - aggregate.without
        by = aggregate.by or frozenset()
        if not self._is_one_kind(aggregate.expression):
            return by & inside
        may = self._labels.of(aggregate.expression)
        return frozenset(label for label in by if may.may_have(label))

    def _is_one_kind(self, expression: Expression) -> bool:
        """Whether all series have the same labels, as far as is known: then those that are grouped by."""
        return not any(
            (isinstance(node, Binary) and node.operator == "or")
            or (isinstance(node, Selector) and (self._series.sources(node) or not node.name))
            for node in walk(expression)
        )

    def _combined(self, binary: Binary) -> frozenset[str]:
        left, right = self.of(binary.left), self.of(binary.right)
        if binary.operator == "or":
            return left & right
        if binary.operator in ("and", "unless"):
            return left
        if _is_scalar(binary.left) or _is_scalar(binary.right):
            return left | right
        matching = binary.matching
        if matching.group:
            # What is taken over from the other side may be missing there, and is then removed.
            return (left if matching.group == "left" else right) - matching.included
        return left & matching.labels if matching.on else left - matching.labels

    def _called(self, call: Call) -> frozenset[str]:
        if call.function in ("absent", "absent_over_time"):
            (chosen,) = call.arguments
            return frozenset(chosen.fixed()) if isinstance(chosen, Selector) else frozenset()
        if call.function in _LABELS_OF_THEIR_OWN:
            return frozenset()
        inside = frozenset[str]().union(*(self.of(argument) for argument in call.arguments))
        if call.function in ("label_replace", "label_join"):
            written = call.arguments[1]
            return inside - {written.value} if isinstance(written, Text) else frozenset()
        return inside - {"le"} if call.function.startswith("histogram_") else inside


class _Sides:
    """Tells operators whose sides never have the same labels."""

    def __init__(self, labels: LabelFinder, sure: _SureLabels) -> None:
        self._labels = labels
        self._sure = sure

    def check(self, place: Place, binary: Binary) -> Iterator[Finding]:
        """One operator; numbers need no match, and `or` is made for series that have none."""
        if binary.operator == "or" or _is_scalar(binary.left) or _is_scalar(binary.right):
            return
        left, right = self._labels.of(binary.left), self._labels.of(binary.right)
        not_right = self._only_on(binary.left, right, binary)
        not_left = self._only_on(binary.right, left, binary)
        if (not_left and not_right) or (not_left | not_right) - _MAY_BE_MISSING:
            lacking = [
                f"{', '.join(map(repr, sorted(missing)))} {'is' if len(missing) == 1 else 'are'} "
                f"not on `{shown(side, _SHOWN)}`"
                for side, missing in ((binary.left, not_left), (binary.right, not_right))
                if missing
            ]
            gives = "excludes nothing" if binary.operator == "unless" else "gives nothing"
            wrong = (
                f"`{shown(binary)}` {gives}, for its sides never match: {_compared(binary)}, "
                f"and {' and '.join(lacking)}"
            )
            yield _REPORT.error(place, wrong, _mend(left, right))
        elif binary.matching.on and (side := self._tied_by_nothing(binary, left, right)) is not None:
            wrong = (
                f"`{shown(binary)}` ties nothing together: {_compared(binary)}, "
                f"which cannot be on `{shown(side, _SHOWN)}`"
            )
            yield _REPORT.error(place, wrong, _mend(left, right))

    def _only_on(self, one: Expression, other: LabelSet, binary: Binary) -> frozenset[str]:
        """What all series of one side have, no series of the other, and must be the same on both."""
        matching = binary.matching
        return frozenset(
            label
            for label in self._sure.of(one)
            if (label in matching.labels) is matching.on and not other.may_have(label)
        )

    @staticmethod
    def _tied_by_nothing(binary: Binary, left: LabelSet, right: LabelSet) -> Expression | None:
        """A side that has labels, of which `on` names none: it finds all of the other, or none."""
        asked = binary.matching.labels
        if not asked:
            return None  # `on ()` is meant so
        for side, own, other in ((binary.left, left, right), (binary.right, right, left)):
            # A side without any label is one series, which may well be compared with whatever there is.
            if own.names and (other.names or other.open) and not any(map(own.may_have, asked)):
                return side
        return None


def _compared(binary: Binary) -> str:
    listed = ", ".join(sorted(binary.matching.labels))
    if binary.matching.on:
        return f"`on ({listed})` compares these labels"
    return f"`ignoring ({listed})` compares all others" if listed else "without `on` all labels are compared"


def _mend(left: LabelSet, right: LabelSet) -> str:
    shared = ", ".join(sorted(left.names & right.names))
    mend = f"match `on ({shared})`" if shared else "name what they share in `on (…)`"
    return f"expected labels that both sides have; {mend}, or group both by the same labels"


class _Buckets:
    """Tells quantiles of classic histograms whose series have no bucket edges any more."""

    def __init__(self, series: RecordedSeries, labels: LabelFinder) -> None:
        self._labels = labels
        self._series = series
        self._followed = Followed(unknown=False)

    def check(self, place: Place, call: Call) -> Iterator[Finding]:
        """One call of a function; native histograms have no `le`, and are let be."""
        if call.function not in ("histogram_quantile", "histogram_fraction"):
            return
        histogram = call.arguments[-1]
        if self._labels.of(histogram).may_have("le") or not self._is_classic(histogram):
            return
        yield _REPORT.error(
            place,
            f"`{shown(call)}` gives nothing: `{shown(histogram, _SHOWN)}` drops the label 'le', which holds "
            "the edges of the buckets",
            f"expected `le` to be kept; {_keep_le(histogram)}",
        )

    def _is_classic(self, expression: Expression) -> bool:
        chosen = list(selectors(expression))
        return bool(chosen) and all(
            selector.name.endswith("_bucket") or self._followed.answer(selector, self._records_buckets)
            for selector in chosen
        )

    def _records_buckets(self, selector: Selector) -> bool:
        sources = self._series.sources(selector)
        return bool(sources) and all(
            source.rule.expression is not None and self._is_classic(source.rule.expression)
            for source in sources
        )


def _keep_le(histogram: Expression) -> str:
    if not isinstance(histogram, Aggregate):
        return "group by it as well"
    if histogram.without is not None:
        return "take it out of `without (…)`"
    return f"write `by ({', '.join(['le', *sorted(histogram.by or ())])})`"


def _is_scalar(expression: Expression) -> bool:
    """Whether an expression gives a number, and no series."""
    match expression:
        case Number():
            return True
        case Call():
            return expression.function in _SCALARS
        case Negation():
            return _is_scalar(expression.expression)
        case Binary():
            return _is_scalar(expression.left) and _is_scalar(expression.right)
    return False
