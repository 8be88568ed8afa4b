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


def title_of(panel: dict[str, Any]) -> str:
    """What people call a panel: its title, or its id where it has none."""
    return str(panel.get("title") or f"panel {panel.get('id')}")


def targets_of(panel: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The queries of a panel, each with the name of the place it stands in."""
    for target in panel.get("targets") or []:
        yield f"{title_of(panel)} ({target.get('refId', '?')})", target


def annotations_of(document: Document) -> Iterator[tuple[str, dict[str, Any]]]:
    """All annotations, each with the name of its place."""
    for annotation in document.get("annotations", {}).get("list", []):
        yield f"annotation {annotation.get('name', '?')}", annotation


def askers(document: Document) -> Iterator[tuple[str, dict[str, Any]]]:
    """Whatever asks a data source, each with the name of its place: queries of panels, and annotations."""
    for panel in panels(document):
        yield from targets_of(panel)
    yield from annotations_of(document)


def expressions(document: Document) -> Iterator[tuple[str, str]]:
    """Every PromQL expression with the name of its place; of a query without one, an empty text."""
    for panel in panels(document):
        yield from ((place, str(target.get("expr", ""))) for place, target in targets_of(panel))
    for place, annotation in annotations_of(document):
        if "expr" in annotation:
            yield place, str(annotation["expr"])


def overrides(panel: dict[str, Any], setting: str) -> Iterator[tuple[dict[str, Any], Any]]:
    """Of a setting that some series have for themselves: their matcher, and its value or ``{}``."""
    for override in (panel.get("fieldConfig") or {}).get("overrides") or []:
        for given in override.get("properties") or []:
            if given.get("id") == setting:
                yield override.get("matcher") or {}, given.get("value") or {}


def defaults_of(panel: dict[str, Any]) -> dict[str, Any]:
    """The field defaults of a panel (unit, thresholds and so on), empty where it has none."""
    defaults: dict[str, Any] = (panel.get("fieldConfig") or {}).get("defaults") or {}
    return defaults
