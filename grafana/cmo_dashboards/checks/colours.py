"""Every colour is one that people with any colour vision can tell apart, and beside it stands a text.

Grafana's own names (``green``, ``red``) are shades that some cannot tell apart, and change with the theme.
Thresholds have colours only where a target exists, and those are made of an objective in one place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from cmo_dashboards.checks.finding import Finding
from cmo_dashboards.colours import PALETTE
from cmo_dashboards.document import defaults_of, panels, title_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cmo_dashboards.document import Document

_COLOUR_FIELDS: Final = ("color", "fixedColor", "iconColor")


def check(document: Document) -> Iterator[Finding]:
    """Colours of thresholds, mappings, overrides and annotations."""
    for panel in panels(document):
        for colour in _colours(panel.get("fieldConfig") or {}):
            if colour not in PALETTE:
                yield Finding(title_of(panel), f"has the colour {colour!r}; expected one of {PALETTE}")
        for mapping in defaults_of(panel).get("mappings") or []:
            yield from _without_text(title_of(panel), mapping)
    for annotation in document.get("annotations", {}).get("list", []):
        if annotation.get("iconColor") not in PALETTE:
            place = f"annotation {annotation.get('name', '?')}"
            yield Finding(place, f"has the colour {annotation.get('iconColor')!r}; expected one of {PALETTE}")


def _colours(item: Any) -> Iterator[str]:
    if isinstance(item, dict):
        for name, value in item.items():
            if name in _COLOUR_FIELDS and isinstance(value, str):
                yield value
            else:
                yield from _colours(value)
    elif isinstance(item, list):
        for value in item:
            yield from _colours(value)


def _without_text(place: str, mapping: dict[str, Any]) -> Iterator[Finding]:
    """States that differ by colour alone."""
    if mapping.get("type") != "value":
        return
    for value, result in (mapping.get("options") or {}).items():
        if not result.get("text"):
            yield Finding(place, f"shows the value {value} by a colour alone; expected a text beside it")
