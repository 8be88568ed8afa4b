"""Every panel has a unit and a minimum: an axis that begins at 94 % makes a ripple look like an outage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cmo_dashboards.checks.finding import Finding
from cmo_dashboards.document import defaults_of, panels, title_of
from cmo_dashboards.panels import Unit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cmo_dashboards.document import Document

_UNITS: Final = frozenset(unit.value for unit in Unit)


def check(document: Document) -> Iterator[Finding]:
    """Unit and minimum of each panel."""
    for panel in panels(document):
        defaults = defaults_of(panel)
        if defaults.get("unit") not in _UNITS:
            expected = ", ".join(sorted(_UNITS))
            yield Finding(title_of(panel), f"has unit {defaults.get('unit')!r}; expected one of {expected}")
        if not isinstance(defaults.get("min"), int | float):
            yield Finding(title_of(panel), f"has minimum {defaults.get('min')!r}; expected a number")
