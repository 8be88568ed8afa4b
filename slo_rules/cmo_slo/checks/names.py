"""Metrics, labels and label values that do not exist: an alert on them is silent for ever.

What is known is our catalogue and what the given files record. Other people's series are left alone, unless
their name is nearly one of ours.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Final

from cmo_slo import recorded
from cmo_slo.checks.finding import Reporter, rules_in
from cmo_slo.checks.promql import Aggregate, Binary, Call, Expression, Selector, selectors, walk
from cmo_slo.checks.series import (
    CATALOGUE_SERIES,
    OPENTELEMETRY_PREFIX,
    OWN_PREFIXES,
    PROMETHEUS_PREFIXES,
    PROMETHEUS_SERIES,
    TARGET_LABELS,
    RecordedSeries,
    is_recorded_by_us,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cmo_slo.checks.context import Context
    from cmo_slo.checks.finding import Finding, Place
    from cmo_slo.checks.promql import Matcher
    from cmo_slo.checks.rules import RuleDocument
    from cmo_slo.checks.series import Labels

_REPORT: Final = Reporter("names")
_OWN: Final = (*CATALOGUE_SERIES, *recorded.AGGREGATED)
_NEAR: Final = 0.9
_AS_LONG_BUT_FOR: Final = 2
_SAME_END_CHARACTERS: Final = 4
_ADDS_LABELS: Final = frozenset({"label_replace", "label_join", "info"})


def check(documents: Sequence[RuleDocument], context: Context) -> Iterator[Finding]:  # noqa: ARG001
    """Every selector, and every label that series are grouped or matched by."""
    series = RecordedSeries(documents)
    unknown = _UnknownNames(series)
    for place, _, rule in rules_in(documents):
        if rule.expression is None:
            continue
        for selector in dict.fromkeys(selectors(rule.expression)):
            yield from unknown.check(place, selector.name)
            yield from _labels(place, selector)
            yield from _fixed_labels(place, selector, series)
        yield from _groupings(place, rule.expression)


class _UnknownNames:
    """Tells unknown names; each name is looked into once, however many rules read it."""

    def __init__(self, series: RecordedSeries) -> None:
        self._series = series
        self._near: dict[str, str] = {}

    def check(self, place: Place, name: str) -> Iterator[Finding]:
        if not name or self._is_known(name):
            return
        near = self._nearest(name)
        ours = name.startswith((*OWN_PREFIXES, OPENTELEMETRY_PREFIX))
        if not near and not ours:
            return
        wrong = f"{name!r} is neither in the catalogue nor recorded by a given rule"
        mend = (
            f"did you mean {near}?"
            if near
            else "take it from docs/metrics.md, or give the file that records it"
        )
        if name.startswith(OWN_PREFIXES):
            yield _REPORT.error(place, wrong, f"expected a series that exists; {mend}")
        else:
            yield _REPORT.warning(
                place, wrong, f"expected a series that exists, if it is meant as ours; {mend}"
            )

    def _is_known(self, name: str) -> bool:
        return (
            name in CATALOGUE_SERIES
            or name in PROMETHEUS_SERIES
            or bool(self._series.of_name(name))
            or is_recorded_by_us(name)
            or (name.startswith(PROMETHEUS_PREFIXES))
        )

    def _nearest(self, name: str) -> str:
        if name not in self._near:
            ours = name.startswith((*OWN_PREFIXES, OPENTELEMETRY_PREFIX))
            candidates = list(_OWN) if ours else [own for own in _OWN if _alike(name, own)]
            found = difflib.get_close_matches(name, candidates, n=1, cutoff=0.6 if ours else _NEAR)
            self._near[name] = found[0] if found else ""
        return self._near[name]


def _alike(name: str, own: str) -> bool:
    # Two slips of the pen at most: cheap enough to ask of every name in thousands of rules.
    same_end = name[-_SAME_END_CHARACTERS:] == own[-_SAME_END_CHARACTERS:]
    same_start = name[:_SAME_END_CHARACTERS] == own[:_SAME_END_CHARACTERS]
    return abs(len(name) - len(own)) <= _AS_LONG_BUT_FOR and (same_end or same_start)


def _labels(place: Place, selector: Selector) -> Iterator[Finding]:
    labels = CATALOGUE_SERIES.get(selector.name)
    if labels is None:
        return
    for matcher in sorted(selector.matchers, key=str):
        if matcher.name in TARGET_LABELS or matcher.name.startswith("__"):
            continue
        if matcher.name not in labels:
            yield _REPORT.error(
                place,
                f"{selector.name} has no label {matcher.name!r}",
                f"expected one of {_listed(labels)}; {_did_you_mean(matcher.name, labels)}",
            )
            continue
        yield from _values(place, selector.name, matcher, labels)


def _values(place: Place, metric: str, matcher: Matcher, labels: Labels) -> Iterator[Finding]:
    allowed = labels[matcher.name]
    literals = matcher.literals
    if allowed is None or literals is None or literals == ("",):
        return
    strange = [value for value in literals if value not in allowed and value != "_other"]
    # An edge is one value however it is spelt, and is listed once.
    spelt = {float(value): value for value in reversed(allowed)} if matcher.name == "le" else None
    told = ", ".join(allowed if spelt is None else reversed(spelt.values()))
    for value in strange:
        yield _REPORT.error(
            place,
            f"{value!r} is no value of {metric}'s label {matcher.name!r}",
            f"expected one of {told}; {_did_you_mean(value, allowed)}",
        )


def _fixed_labels(place: Place, selector: Selector, series: RecordedSeries) -> Iterator[Finding]:
    """Labels that every rule that records a series sets, to nothing that is asked for."""
    sources = series.of_name(selector.name)
    if not sources or series.sources(selector):
        return
    for matcher in sorted(selector.matchers, key=str):
        values = {source.rule.labels.get(matcher.name) for source in sources}
        if None in values:
            continue
        if not any(matcher.accepts(value) for value in values if value is not None):
            yield _REPORT.error(
                place,
                f"no rule records {selector.name} with {matcher}",
                f"expected one of {', '.join(sorted(str(value) for value in values))}; name one of these",
            )
            return
    asked = ", ".join(sorted(str(matcher) for matcher in selector.matchers))
    yield _REPORT.error(
        place,
        f"no rule records {selector.name} with all of {asked}",
        "expected labels that one rule sets together; compare them with the rules that record it",
    )


def _groupings(place: Place, expression: Expression) -> Iterator[Finding]:
    if any(isinstance(node, Call) and node.function in _ADDS_LABELS for node in walk(expression)):
        return
    for node in walk(expression):
        if isinstance(node, Aggregate) and node.by:
            yield from _grouping(place, node.by, [node.expression], "groups")
        elif isinstance(node, Binary) and node.matching.on:
            yield from _grouping(place, node.matching.labels, [node.left, node.right], "matches")


def _grouping(place: Place, labels: Iterable[str], sides: list[Expression], verb: str) -> Iterator[Finding]:
    """Labels that no series of ours inside has; where others' series are inside too, nothing is known."""
    chosen = [selector for side in sides for selector in selectors(side)]
    if not chosen or any(selector.name not in CATALOGUE_SERIES for selector in chosen):
        return
    known = {label: None for selector in chosen for label in CATALOGUE_SERIES[selector.name]}
    for label in sorted(set(labels) - set(known) - TARGET_LABELS):
        yield _REPORT.error(
            place,
            f"{verb} by {label!r}, which {', '.join(sorted({one.name for one in chosen}))} has not",
            f"expected one of {_listed(known)}; {_did_you_mean(label, known)}",
        )


def _listed(labels: Iterable[str]) -> str:
    return ", ".join([*labels, "job", "instance"])


def _did_you_mean(text: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(text, list(known), n=1)
    return f"did you mean {near[0]}?" if near else "name one of these"
