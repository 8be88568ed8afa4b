"""What an alert must say so that whoever gets it can act, and what a recorded series must be called.

promtool accepts an alert without a severity, without a text and without a runbook, with ``--lint=all`` as
well.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from cmo_slo.checks.bounds import BoundsFinder
from cmo_slo.checks.context import needs_action, pages
from cmo_slo.checks.finding import Reporter, rules_in
from cmo_slo.checks.promql import Call, selectors, walk
from cmo_slo.checks.series import RecordedSeries
from cmo_slo.checks.windows_read import WindowFinder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cmo_slo.checks.context import Context
    from cmo_slo.checks.finding import Finding, Place
    from cmo_slo.checks.rules import Rule, RuleDocument

_REPORT: Final = Reporter("policy")
RUNBOOK_ANNOTATIONS: Final = ("runbook_url", "runbook")
_DESCRIPTIONS: Final = ("description", "message")
_DASHBOARDS: Final = ("dashboard_url", "dashboard", "dashboardURL", "grafana_url", "__dashboardUid__")
_CAMEL_CASE: Final = re.compile(r"[A-Z][a-zA-Z0-9]*", re.ASCII)
_LEVELS: Final = re.compile(r"[a-zA-Z_]\w*:[a-zA-Z_]\w*:\w+", re.ASCII)
_VALUE: Final = re.compile(
    r"\{\{[^}]*(?:\$value|\.Value|printf|humanize|query|\$externalLabels)[^}]*\}\}|\{\{\s*with"
)


def check(documents: Sequence[RuleDocument], context: Context) -> Iterator[Finding]:
    """Every alert and every name of a recorded series."""
    series = RecordedSeries(documents)
    bounds, windows = BoundsFinder(series), WindowFinder(series)
    for place, _, rule in rules_in(documents):
        if rule.record is not None:
            yield from _record(place, rule.record)
            continue
        yield from _name(place, rule)
        yield from _severity(place, rule, context)
        yield from _texts(place, rule, bounds)
        yield from _patience(place, rule, windows)


def _record(place: Place, name: str) -> Iterator[Finding]:
    if not _LEVELS.fullmatch(name):
        yield _REPORT.warning(
            place,
            f"the recorded series {name!r} does not say what it is",
            "expected level:metric:operations, such as job:http_requests:rate5m; rename it",
        )


def _name(place: Place, rule: Rule) -> Iterator[Finding]:
    if not _CAMEL_CASE.fullmatch(rule.name):
        yield _REPORT.warning(
            place,
            f"the alert name {rule.name!r} is not in CamelCase",
            "expected letters and digits; rename it",
        )


def _severity(place: Place, rule: Rule, context: Context) -> Iterator[Finding]:
    allowed = ", ".join(context.severities)
    if not rule.severity:
        yield _REPORT.error(
            place,
            "has no severity, so nothing can tell where to send it",
            f"expected one of {allowed}; add the label",
        )
    elif rule.severity not in context.severities and "{{" not in rule.severity:
        yield _REPORT.error(
            place,
            f"the severity {rule.severity!r} is not one of the list",
            f"expected one of {allowed}; choose one",
        )


def _texts(place: Place, rule: Rule, bounds: BoundsFinder) -> Iterator[Finding]:
    if not _first(rule, ("summary",)) and not _first(rule, ("message",)):
        yield _REPORT.error(
            place, "has no summary", "expected a few words that say what is wrong; add the annotation"
        )
    description = _first(rule, _DESCRIPTIONS)
    if not description:
        yield _REPORT.error(
            place, "has no description", "expected the value and what it means for users; add the annotation"
        )
    elif needs_action(rule) and not _VALUE.search(description) and not _tells_nothing(rule, bounds):
        yield _REPORT.warning(
            place,
            "its description does not tell the value, so nobody can judge how bad it is",
            "expected {{ $value }} in it; add it",
        )
    if not needs_action(rule):
        return
    if not _first(rule, RUNBOOK_ANNOTATIONS):
        yield _REPORT.error(
            place, "has no runbook", "expected the annotation runbook_url; write down what to do, and link it"
        )
    if not _first(rule, _DASHBOARDS):
        yield _REPORT.warning(
            place,
            "has no link to a dashboard",
            "expected the annotation dashboard_url; link the one to look at first",
        )


def _first(rule: Rule, names: tuple[str, ...]) -> str:
    return next(
        (rule.annotations[name].strip() for name in names if rule.annotations.get(name, "").strip()), ""
    )


def _tells_nothing(rule: Rule, bounds: BoundsFinder) -> bool:
    """Whether the value is always the same: that something is absent, or that it is 0."""
    if rule.expression is None:
        return True
    found = bounds.of(rule.expression)
    return found.low == found.high


def _patience(place: Place, rule: Rule, windows: WindowFinder) -> Iterator[Finding]:
    if rule.hold or rule.keep_firing or rule.expression is None:
        return
    constant = not any(selectors(rule.expression))
    absent = any(
        isinstance(node, Call) and node.function == "absent_over_time" for node in walk(rule.expression)
    )
    if constant or absent or (pages(rule) and windows.longest(rule.expression)):
        return
    yield _REPORT.warning(
        place,
        "has neither `for` nor `keep_firing_for`: one odd sample raises it, one good sample ends it",
        "expected one of them, or a page over windows; add `for`",
    )
