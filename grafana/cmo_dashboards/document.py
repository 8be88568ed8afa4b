"""Reading dashboard JSON: which panels, queries and annotations are in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

Document = dict[str, Any]
"""A dashboard as Grafana's JSON has it."""


def every_panel(document: Document) -> Iterator[dict[str, Any]]:
    """All panels in reading order, rows and the panels inside collapsed rows included."""
    for panel in document.get("panels", []):
        yield panel
        yield from panel.get("panels") or []


def panels(document: Document) -> Iterator[dict[str, Any]]:
    """All panels that show something: every panel but the rows."""
    return (panel for panel in every_panel(document) if panel.get("type") != "row")


def targets(document: Document) -> Iterator[dict[str, Any]]:
    """All queries of all panels."""
    return (target for panel in panels(document) for target in panel.get("targets") or [])


def title_of(panel: dict[str, Any]) -> str:
    """What people call a panel: its title, or its id where it has none."""
    return str(panel.get("title") or f"panel {panel.get('id')}")


def expressions(document: Document) -> Iterator[tuple[str, str]]:
    """Every PromQL expression with the name of the place it stands in: panels and annotations."""
    for panel in panels(document):
        for target in panel.get("targets") or []:
            yield f"{title_of(panel)} ({target.get('refId', '?')})", str(target.get("expr", ""))
    for annotation in document.get("annotations", {}).get("list", []):
        if "expr" in annotation:
            yield f"annotation {annotation.get('name', '?')}", str(annotation["expr"])


def defaults_of(panel: dict[str, Any]) -> dict[str, Any]:
    """The field defaults of a panel (unit, thresholds and so on), empty where it has none."""
    defaults: dict[str, Any] = (panel.get("fieldConfig") or {}).get("defaults") or {}
    return defaults
