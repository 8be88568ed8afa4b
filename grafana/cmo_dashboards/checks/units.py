"""Every panel has a unit that follows from what it asks for, and a minimum.

An axis that begins at 94 % makes a ripple look like an outage, and seconds that are called milliseconds make
an outage look like a ripple.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from cmo_dashboards.checks.finding import Finding
from cmo_dashboards.checks.measures import Form, Measure, measure
from cmo_dashboards.checks.promql import tree_of
from cmo_dashboards.document import defaults_of, overrides, panels, targets_of, title_of
from cmo_dashboards.panels import Unit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cmo_dashboards.document import Document

_UNITS: Final = frozenset(unit.value for unit in Unit)
# As Grafana calls them, and not as `Unit` does, which may be wrong itself.
_OF_DIMENSIONS: Final = {
    (1, 0, 0): ("s",),
    (0, 1, 0): ("decbytes",),
    (-1, 1, 0): ("Bps",),
    (0, 0, 1): ("currencyUSD",),
    (-1, 0, 0): ("reqps",),
}
_OF_FORMS: Final = {
    Form.COUNT: ("short",),
    Form.SHARE: ("percentunit",),
    Form.OPEN: ("short", "percentunit"),
}
_A_SECOND: Final = "a second"
"""In a title: what is counted is no request, and the number alone is shown."""


def check(document: Document) -> Iterator[Finding]:
    """Unit and minimum of each panel, and the unit of each of its queries."""
    for panel in panels(document):
        defaults = defaults_of(panel)
        if defaults.get("unit") not in _UNITS:
            expected = ", ".join(sorted(_UNITS))
            yield Finding(title_of(panel), f"has unit {defaults.get('unit')!r}; expected one of {expected}")
        if not isinstance(defaults.get("min"), int | float):
            yield Finding(title_of(panel), f"has minimum {defaults.get('min')!r}; expected a number")
        for place, target in targets_of(panel):
            yield from _of_query(place, panel, target)


def _of_query(place: str, panel: dict[str, Any], target: dict[str, Any]) -> Iterator[Finding]:
    tree = tree_of(str(target.get("expr", "")))
    measured = None if tree is None else measure(tree)
    if measured is None or measured.form is Form.NUMBER:
        return
    unit = _unit_of(panel, str(target.get("refId")))
    expected = _expected(measured, title_of(panel))
    if unit not in expected:
        names = " or ".join(expected) or "another expression: no unit is right for this"
        yield Finding(place, f"shows {measured} in the unit {unit!r}; expected {names}")


def _expected(measured: Measure, title: str) -> tuple[str, ...]:
    if measured.form in (Form.SCALED, Form.MOMENT):
        return ()
    units = _OF_DIMENSIONS.get(measured.dimension) or (
        _OF_FORMS[measured.form] if not any(measured.dimension) else ()
    )
    return (*units, "short") if units == ("reqps",) and _A_SECOND in title else units


def _unit_of(panel: dict[str, Any], ref_id: str) -> str:
    """Of one query, which may have one of its own."""
    unit = str(defaults_of(panel).get("unit"))
    for matcher, own in overrides(panel, "unit"):
        if matcher == {"id": "byFrameRefID", "options": ref_id} and own:
            unit = str(own)
    return unit
