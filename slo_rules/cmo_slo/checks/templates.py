"""Templates in the texts and labels of alerts that Prometheus refuses, or fills in with nothing.

A variable that nobody defines makes Prometheus refuse the whole file. A label that the series of an alert
cannot have is filled in with nothing, and the gap is found by whoever is woken. ``cmo_slo.alert_texts`` looks
for the same in the objectives that rules are compiled from.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Final

from cmo_slo.checks.alert_labels import LabelFinder
from cmo_slo.checks.finding import Reporter, rules_in
from cmo_slo.checks.series import RecordedSeries
from cmo_slo.templates import VARIABLES, actions, labels_read, undefined_variables

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cmo_slo.checks.alert_labels import LabelSet
    from cmo_slo.checks.context import Context
    from cmo_slo.checks.finding import Finding, Place
    from cmo_slo.checks.rules import RuleDocument

_REPORT: Final = Reporter("templates")
# Asked whether it is there, a label may be missing: one text for several alerts.
_ASKS: Final = re.compile(r"\b(?:if|with|and|or|not|eq|ne|len|match)\b")


def check(documents: Sequence[RuleDocument], context: Context) -> Iterator[Finding]:  # noqa: ARG001
    """Every annotation and every label of every alert."""
    finder = LabelFinder(RecordedSeries(documents), proved=True)
    for place, _, rule in rules_in(documents):
        if rule.alert is None:
            continue
        given = None if rule.expression is None else finder.of(rule.expression)
        texts = {
            **{f"the annotation {name!r}": text for name, text in rule.annotations.items()},
            **{f"the label {name!r}": text for name, text in rule.labels.items()},
        }
        for where, text in texts.items():
            yield from _variables(place, where, text)
            if given is not None:
                yield from _labels(place, where, text, given)


def _variables(place: Place, where: str, text: str) -> Iterator[Finding]:
    for name in undefined_variables(text):
        near = difflib.get_close_matches(name, VARIABLES, n=1)
        yield _REPORT.error(
            place,
            f"{where} reads ${name}, which nothing defines, so that Prometheus refuses the file",
            f"expected one of {', '.join(f'${one}' for one in VARIABLES)}; "
            f"{f'did you mean ${near[0]}?' if near else 'write one of these, or define it'}",
        )


def _labels(place: Place, where: str, text: str, given: LabelSet) -> Iterator[Finding]:
    found = actions(text)
    asked = {label for action in found if _ASKS.search(action) for label in labels_read(action)}
    read = dict.fromkeys(label for action in found for label in labels_read(action))
    for label in read:
        if label in asked or given.may_have(label):
            continue
        # Which others an open set has is not known.
        known = (
            "a label that is not dropped"
            if given.open
            else ", ".join(sorted(given.names)) or "no labels at all"
        )
        near = difflib.get_close_matches(label, sorted(given.names), n=1)
        mend = f"did you mean {near[0]}?" if near else "keep it in the expression, or take it out here"
        yield _REPORT.error(
            place,
            f"{where} reads $labels.{label}, which the series of its expression cannot have: it stays empty",
            f"expected {known}; {mend}",
        )
