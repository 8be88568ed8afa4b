"""Variables are defined before they are used, and narrow each other in one order on every dashboard.

Grafana replaces what it knows and sends the rest as it stands: an undefined variable is a query for a label
value that nobody has, and a variable that asks for one after it is empty at the first visit. So is one whose
question is wrong, or whose pattern takes nothing out of the answers: Grafana offers nothing, without a word.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import promql_parser

from cmo_dashboards.checks.finding import Finding
from cmo_dashboards.document import every_panel, expressions, title_of
from cmo_dashboards.queries import Macros
from cmo_dashboards.variables import DATASOURCE_NAME, VARIABLES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cmo_dashboards.document import Document

_ORDER: Final = (DATASOURCE_NAME, *(variable.name for variable in VARIABLES))
_USED: Final = re.compile(r"\$\{?([a-z][a-z_]*)")
_ON_TIME_RANGE_CHANGE: Final = 2
_LABEL_VALUES: Final = re.compile(r"label_values\((.+), [a-z_]+\)")
_QUERY_RESULT: Final = re.compile(r"query_result\((.+)\)")
_GROUPS: Final = ("(?<text>", "(?<value>")


def check(document: Document) -> Iterator[Finding]:
    """Order, use and refresh of the variables."""
    variables: list[dict[str, Any]] = document.get("templating", {}).get("list", [])
    names = [str(variable.get("name")) for variable in variables]
    yield from _of_each(variables, names)
    known = [name for name in names if name in _ORDER]
    if known != sorted(known, key=_ORDER.index):
        yield Finding("dashboard", f"has its variables in the order {known}; expected that of {_ORDER}")
    used = {DATASOURCE_NAME, *(name for variable in variables for name in _names(_question(variable)))}
    for place, asked in _uses(document):
        used |= asked
        for name in sorted(asked - set(names)):
            yield Finding(place, f"asks for ${name}, which is no variable of this dashboard")
    for name in sorted(set(names) - used):
        yield Finding(f"variable {name}", "narrows nothing: no query asks for it")


def _of_each(variables: list[dict[str, Any]], names: list[str]) -> Iterator[Finding]:
    for at, variable in enumerate(variables):
        place = f"variable {names[at]}"
        for name in sorted(_names(_question(variable)) - set(names[:at])):
            yield Finding(place, f"asks for ${name}, which is not defined before it")
        if variable.get("type") == "query" and variable.get("refresh") != _ON_TIME_RANGE_CHANGE:
            yield Finding(place, "is not asked anew when the time range changes; expected refresh 2")
        if variable.get("type") == "query":
            yield from _of_a_question(place, variable)
        if variable.get("type") == "custom":
            yield from _of_a_choice(place, variable)


def _of_a_question(place: str, variable: dict[str, Any]) -> Iterator[Finding]:
    """What is asked is PromQL in a function of Grafana's, and answers that are no values are taken apart."""
    question = _question(variable)
    result = _QUERY_RESULT.fullmatch(question)
    asked = result or _LABEL_VALUES.fullmatch(question)
    if asked is None:
        yield Finding(place, f"asks {question!r}; expected label_values(…, label) or query_result(…)")
        return
    replaced = Macros().replace(asked[1])
    try:
        promql_parser.parse(replaced)
    except ValueError as error:
        yield Finding(place, f"does not ask in PromQL: {' '.join(str(error).split())}: {replaced}")
    if result and not all(group in str(variable.get("regex", "")) for group in _GROUPS):
        yield Finding(place, f"offers whole results; expected a regex with {' and '.join(_GROUPS)}…)")


def _of_a_choice(place: str, variable: dict[str, Any]) -> Iterator[Finding]:
    """What is chosen at first is offered."""
    offered = [(option.get("text"), option.get("value")) for option in variable.get("options") or []]
    current = variable.get("current") or {}
    if (current.get("text"), current.get("value")) not in offered:
        yield Finding(place, f"has {current.get('text')!r} chosen; expected one of its options {offered}")


def _uses(document: Document) -> Iterator[tuple[str, set[str]]]:
    for place, expression in expressions(document):
        yield place, _names(expression)
    for panel in every_panel(document):
        if panel.get("repeat"):
            yield title_of(panel), {str(panel["repeat"])}


def _names(expression: str) -> set[str]:
    return set(_USED.findall(expression))


def _question(variable: dict[str, Any]) -> str:
    question = variable.get("query")
    return str(question.get("query", "")) if isinstance(question, dict) else ""
