"""Inhibitions that never work, or that silence what they should not.

Alertmanager takes a label of ``equal`` that is absent on both sides as equal, so that one source silences
every target; absent on one side alone it is never equal, and nothing is silenced. ``amtool`` cannot tell
either.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cmo_slo.checks.alert_labels import LabelFinder, LabelSet, fixed_labels
from cmo_slo.checks.finding import Finding, Severity, rules_in
from cmo_slo.checks.promql import Matcher
from cmo_slo.checks.series import RecordedSeries

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cmo_slo.checks.context import Alertmanager, Context, InhibitRule, LabelCondition
    from cmo_slo.checks.rules import Rule, RuleDocument

_CHECK: Final = "inhibition"
_MOST_SHOWN: Final = 5


@dataclass(frozen=True)
class _Alert:
    name: str
    labels: LabelSet
    fixed: Mapping[str, str]
    set_by_rules: frozenset[str]

    def may_match(self, conditions: Sequence[LabelCondition]) -> bool:
        """Whether an alert of this rule can pass all conditions."""
        return all(self._may_pass(one) for one in conditions)

    def _may_pass(self, condition: LabelCondition) -> bool:
        matcher = Matcher(condition.name, condition.operator, condition.value)
        if condition.name in self.fixed:
            return matcher.accepts(self.fixed[condition.name])
        from_series = condition.name in self.labels.names or condition.name not in self.set_by_rules
        # A label that is not there is the same as an empty one.
        return (from_series and self.labels.may_have(condition.name)) or matcher.accepts("")


def check(documents: Sequence[RuleDocument], context: Context) -> Iterator[Finding]:
    """Every inhibition of the given Alertmanager configuration, against every alert of the given files."""
    if context.alertmanager is None:
        return
    labels = LabelFinder(RecordedSeries(documents))
    rules = [rule for _, _, rule in rules_in(documents) if rule.alert is not None]
    set_by_rules = _set_by_rules(rules)
    alerts = [_Alert(rule.name, labels.of_alert(rule), fixed_labels(rule), set_by_rules) for rule in rules]
    for number, rule in enumerate(context.alertmanager.inhibit_rules):
        yield from _inhibition(context.alertmanager, rule, number, alerts)


def _set_by_rules(rules: Sequence[Rule]) -> frozenset[str]:
    """Labels that most rules set themselves, such as the severity: no series has them, so far as is known."""
    counted = Counter(name for rule in rules for name in rule.labels)
    return frozenset(name for name, count in counted.items() if 2 * count > len(rules))


def _inhibition(
    alertmanager: Alertmanager, rule: InhibitRule, number: int, alerts: Sequence[_Alert]
) -> Iterator[Finding]:
    name = f"inhibit_rules[{number}]"

    def finding(severity: Severity, wrong: str, mend: str) -> Finding:
        return Finding(alertmanager.file, rule.line, "", name, _CHECK, severity, wrong, mend)

    sides = {}
    for side, conditions in (("source", rule.source), ("target", rule.target)):
        sides[side] = [alert for alert in alerts if alert.may_match(conditions)]
        if not sides[side]:
            asked = ", ".join(f'{one.name}{one.operator}"{one.value}"' for one in conditions) or "nothing"
            wrong = f"no alert is a {side}: its matchers ask for {asked}"
            yield finding(
                Severity.ERROR, wrong, "expected one at least; correct the matchers, or give all rule files"
            )
    if not sides["source"] or not sides["target"]:
        return
    if not rule.equal:
        wrong = (
            f"without `equal` one of {_listed(sides['source'])} silences every target, whatever it is about"
        )
        yield finding(
            Severity.WARNING, wrong, "expected the labels that tie them together; add `equal: [...]`"
        )
    for label in rule.equal:
        without = {
            side: [one for one in found if not one.labels.may_have(label)] for side, found in sides.items()
        }
        # An alert that is on both sides, being a source of others, does not silence itself.
        if without["source"] and without["target"]:
            wrong = (
                f"the label {label!r} of `equal` is on neither {_listed(without['source'])} nor "
                f"{_listed(without['target'])}, which counts as equal: the one silences the other always"
            )
            yield finding(
                Severity.ERROR, wrong, "expected it on both; add the label to the alerts, or drop it here"
            )
            continue
        for side, other in (("source", "target"), ("target", "source")):
            if without[side]:
                severity = Severity.ERROR if len(without[side]) == len(sides[side]) else Severity.WARNING
                wrong = (
                    f"the label {label!r} of `equal` is on no {_listed(without[side])}, so that as a {side} "
                    f"it is never equal to a {other}'s"
                )
                yield finding(severity, wrong, "expected it on both sides; add the label to the alerts")


def _listed(alerts: Sequence[_Alert]) -> str:
    names = sorted({alert.name for alert in alerts})
    more = f" and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
    return ", ".join(names[:_MOST_SHOWN]) + more
