"""What rules read: which series, how far back, and which rules record them.

Rules that build on others can be evaluated over the past only after those, one layer at a time, and each only
as far back as somebody reads it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import promql_parser

from cmo_bench.rules.rule_groups import DAY, HOUR, MINUTE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from cmo_bench.rules.rule_groups import Rule, RuleGroup

_LOOK_BACK_MILLISECONDS: Final = 5 * MINUTE
_LEAST_MILLISECONDS: Final = 10 * MINUTE
_NAME: Final = "__name__"
_PARTS: Final = ("expr", "lhs", "rhs", "param")


@dataclass(frozen=True)
class Read:
    """One selector of an expression.

    Attributes:
        selector: it as text, with its range where it has one.
        name: the metric; empty where that is not one alone.
        matchers: label, operator and value of all, the metric's name among them.
        milliseconds: how far back it looks, the subqueries around it included.
    """

    selector: str
    name: str
    matchers: tuple[tuple[str, str, str], ...]
    milliseconds: int

    def may_find(self, labels: Mapping[str, str]) -> bool:
        """Whether series with at least these labels may be among what it selects."""
        return all(
            _matches(labels[label], op, value) for label, op, value in self.matchers if label in labels
        )


def reads(expression: str) -> list[Read]:
    """Every selector of an expression."""
    return list(_walk(promql_parser.parse(expression), 0))


def _walk(node: Any, back: int) -> Iterator[Read]:
    kind = type(node).__name__
    if kind == "VectorSelector":
        yield _read(node, str(node.prettify()), back + _LOOK_BACK_MILLISECONDS + _offset(node))
    elif kind == "MatrixSelector":
        inner = node.vector_selector
        yield _read(inner, str(node.prettify()), back + _milliseconds(node.range) + _offset(inner))
    elif kind == "SubqueryExpr":
        yield from _walk(node.expr, back + _milliseconds(node.range) + _offset(node))
    else:
        parts = [getattr(node, part, None) for part in _PARTS]
        for part in (*parts, *(getattr(node, "args", None) or ())):
            if part is not None and not isinstance(part, str | int | float):
                yield from _walk(part, back)


def _read(node: Any, text: str, back: int) -> Read:
    matchers = [
        (str(matcher.name), str(matcher.op).rpartition(".")[2], str(matcher.value))
        for matcher in node.matchers.matchers
    ]
    if node.name is not None:
        matchers.append((_NAME, "Equal", str(node.name)))
    name = next((value for label, op, value in matchers if (label, op) == (_NAME, "Equal")), "")
    return Read(text, name, tuple(matchers), back)


def _matches(value: str, op: str, wanted: str) -> bool:
    if op in ("Equal", "NotEqual"):
        return (value == wanted) == (op == "Equal")
    return (re.fullmatch(wanted, value) is not None) == (op == "Re")


def _milliseconds(span: Any) -> int:
    return int(span.total_seconds() * 1000)


def _offset(node: Any) -> int:
    return max(0, _milliseconds(node.offset)) if node.offset is not None else 0


@dataclass(frozen=True)
class PlacedRule:
    """A recording rule, the group it belongs to, and what its evaluation over the past needs.

    Attributes:
        group: its group.
        rule: the rule.
        layer: 0 where it reads no recorded series, else one more than the rules that it builds on.
        milliseconds: how far back from the end somebody reads what it records.
    """

    group: RuleGroup
    rule: Rule
    layer: int
    milliseconds: int


@dataclass(frozen=True)
class Plan:
    """How rules are evaluated over the past.

    Attributes:
        rules: every recording rule.
        raw_milliseconds: how far back each series that no rule records has to go, by name, so that whatever
            is evaluated at the end, or for somebody who is, finds it.
        raw_at_the_end_milliseconds: the same, for what is evaluated at the end alone.
    """

    rules: tuple[PlacedRule, ...]
    raw_milliseconds: Mapping[str, int]
    raw_at_the_end_milliseconds: Mapping[str, int]


def plan(groups: Sequence[RuleGroup], longest_milliseconds: int) -> Plan:
    """Find the layers of rules, and how far back each is needed for every rule to be evaluated at the end."""
    recording = [(group, rule) for group in groups for rule in group.rules if rule.record]
    needed = [_LEAST_MILLISECONDS] * len(recording)
    everything = [read for group in groups for rule in group.rules for read in reads(rule.expression)]
    for read in everything:
        for index in _recorders(read, recording):
            needed[index] = max(needed[index], read.milliseconds + _LEAST_MILLISECONDS)
    _spread(needed, recording, longest_milliseconds)
    at_the_end = _raw(((read, 0) for read in everything), recording)
    further = (
        (read, needed[index]) for index, (_, rule) in enumerate(recording) for read in reads(rule.expression)
    )
    layers = _layers([_builds_on(rule, recording) for _, rule in recording])
    placed = [
        PlacedRule(group, rule, layer, min(back, longest_milliseconds))
        for (group, rule), layer, back in zip(recording, layers, needed, strict=True)
    ]
    return Plan(tuple(placed), _longest(at_the_end, _raw(further, recording)), at_the_end)


def _raw(
    read_from: Iterable[tuple[Read, int]], recording: Sequence[tuple[RuleGroup, Rule]]
) -> dict[str, int]:
    raw: dict[str, int] = {}
    for read, needed in read_from:
        if read.name and not _recorders(read, recording):
            raw[read.name] = max(raw.get(read.name, 0), read.milliseconds + needed)
    return raw


def _longest(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: max(one.get(name, 0), other.get(name, 0)) for name in {**one, **other}}


def _recorders(read: Read, recording: Sequence[tuple[RuleGroup, Rule]]) -> list[int]:
    return [
        index
        for index, (_, rule) in enumerate(recording)
        if read.may_find({**rule.labels, _NAME: str(rule.record)})
    ]


def _builds_on(rule: Rule, recording: Sequence[tuple[RuleGroup, Rule]]) -> set[int]:
    return {index for read in reads(rule.expression) for index in _recorders(read, recording)}


def _spread(needed: list[int], recording: Sequence[tuple[RuleGroup, Rule]], longest: int) -> None:
    """What a rule is needed for is needed of those that it builds on, further back by what it reads."""
    changed = True
    while changed:
        changed = False
        for index, (group, rule) in enumerate(recording):
            for read in reads(rule.expression):
                back = min(longest, needed[index] + read.milliseconds + group.interval_milliseconds)
                for source in _recorders(read, recording):
                    if needed[source] < back:
                        needed[source], changed = back, True


def _layers(builds_on: Sequence[set[int]]) -> list[int]:
    layers = [0] * len(builds_on)
    for _ in builds_on:
        for index, sources in enumerate(builds_on):
            layers[index] = max([0, *(layers[source] + 1 for source in sources if source != index)])
    return layers


CLASSES_MILLISECONDS: Final = (2 * HOUR, DAY, 4 * DAY, 8 * DAY)
"""Rules of a layer are evaluated together with those that are needed about as far back."""


def rounded_up(milliseconds: int, longest: int) -> int:
    """The class that a span belongs to."""
    return next((size for size in CLASSES_MILLISECONDS if milliseconds <= size), longest)
