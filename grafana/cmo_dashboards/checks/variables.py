"""Variables are defined before they are used, and narrow each other in one order on every dashboard.

Grafana replaces what it knows and sends the rest as it stands: an undefined variable is a query for a label
value that nobody has, and a variable that asks for one after it is empty at the first visit.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from cmo_dashboards.checks.finding import Finding
from cmo_dashboards.document import every_panel, expressions, title_of
from cmo_dashboards.variables import DATASOURCE_NAME, VARIABLES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cmo_dashboards.document import Document

_ORDER: Final = (DATASOURCE_NAME, *(variable.name for variable in VARIABLES))
_USED: Final = re.compile(r"\$\{?([a-z][a-z_]*)")
_ON_TIME_RANGE_CHANGE: Final = 2


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
