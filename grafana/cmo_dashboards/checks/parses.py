"""Every query is PromQL, once Grafana's macros and variables are replaced, and no window has a fixed length.

A window of a fixed length is right for one scrape interval and empty or blurred for another. Two exceptions
are right for any: ``last_over_time`` of a series that is recorded hourly, over the hour that it stands for,
without which an instant query finds none after five minutes; and when something was last seen, of a day.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import promql_parser

from cmo_dashboards.checks.finding import Finding
from cmo_dashboards.document import expressions, panels, title_of
from cmo_dashboards.queries import Macros

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cmo_dashboards.document import Document

_FIXED_WINDOW: Final = re.compile(r"\[\s*\d|(?<=:)\s*\d+[smhd]|offset\s+-?\d")
_TEXT: Final = re.compile(r'"(?:\\.|[^"\\])*"')
_FIXED_BY_RIGHT: Final = re.compile(
    r"last_over_time\(\s*[a-z_]+:[a-z_]+:hourly(\{[^{}]*\})?\[1h\]\s*\)|max_over_time\(timestamp\([^()]+\)\[1d:1m\]"
)


def check(document: Document) -> Iterator[Finding]:
    """Every expression of panels and annotations."""
    for panel in panels(document):
        if not panel.get("targets"):
            yield Finding(title_of(panel), "has no query")
    macros = Macros()
    for place, expression in expressions(document):
        replaced = macros.replace(expression)
        try:
            promql_parser.parse(replaced)
        except ValueError as error:
            yield Finding(place, f"is not PromQL: {' '.join(str(error).split())}: {replaced}")
        if "$" in replaced:
            yield Finding(place, f"has a variable or macro that nothing replaces: {replaced}")
        if _FIXED_WINDOW.search(_TEXT.sub('""', _FIXED_BY_RIGHT.sub("", expression))):
            yield Finding(
                place, f"has a window of a fixed length; expected $__rate_interval or $__range: {expression}"
            )
