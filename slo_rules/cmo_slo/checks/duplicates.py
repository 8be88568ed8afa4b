"""The same thing twice: rules that fight over one series, alerts that cannot be told apart, double work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cmo_slo.checks.finding import Place, Reporter, rules_in
from cmo_slo.checks.promql import selectors

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cmo_slo.checks.context import Context
    from cmo_slo.checks.finding import Finding
    from cmo_slo.checks.promql import Expression
    from cmo_slo.checks.rules import Rule, RuleDocument

_REPORT: Final = Reporter("duplicates")


def check(documents: Sequence[RuleDocument], context: Context) -> Iterator[Finding]:  # noqa: ARG001
    """Rules and groups of files that are loaded together."""
    yield from _groups(documents)
    yield from _identities(documents)
    yield from _expressions(documents)


def _groups(documents: Sequence[RuleDocument]) -> Iterator[Finding]:
    for document in documents:
        first: dict[str, int] = {}
        for group in document.groups:
            if group.name and group.name in first:
                yield _REPORT.error(
                    Place(document, group),
                    f"a group of this name stands in line {first[group.name]} already",
                    "expected each name once in a file, or Prometheus refuses it; rename one",
                )
            first.setdefault(group.name, group.line)


def _identities(documents: Sequence[RuleDocument]) -> Iterator[Finding]:
    first: dict[tuple[bool, str, frozenset[tuple[str, str]]], Place] = {}
    for place, _, rule in rules_in(documents):
        identity = (rule.record is not None, rule.name, frozenset(rule.labels.items()))
        other = first.setdefault(identity, place)
        if other is place:
            continue
        where = _where(other, place)
        if rule.record is not None:
            wrong = f"records the same series, with the same labels, as the rule in {where}"
            mend = (
                "expected one rule a series, or their samples mix; delete one, or tell them apart by a label"
            )
        else:
            wrong = f"raises the same alert, with the same labels, as the rule in {where}"
            mend = "expected alerts that can be told apart; delete one, or give it another name or label"
        yield _REPORT.error(place, wrong, mend)


def _expressions(documents: Sequence[RuleDocument]) -> Iterator[Finding]:
    # A roll-up may be what another group records more often: only the same thing as often is double work.
    first: dict[tuple[bool, Expression, int, int | None], Place] = {}
    for place, group, rule in rules_in(documents):
        if rule.expression is None or not any(selectors(rule.expression)):
            continue
        same = (rule.record is not None, rule.expression, rule.hold, group.interval)
        other = first.setdefault(same, place)
        if other.rule is None or other.rule.name == rule.name:
            continue
        yield _REPORT.warning(
            place,
            f"has the same expression as {other.rule.name} in {_where(other, place)}",
            f"expected one name for one thing; {_mend(rule)}",
        )


def _mend(rule: Rule) -> str:
    return "read the other series" if rule.record is not None else "delete one alert"


def _where(other: Place, place: Place) -> str:
    line = f"line {other.rule.line}" if other.rule else "another line"
    return line if other.document.file == place.document.file else f"{line} of {other.document.file}"
