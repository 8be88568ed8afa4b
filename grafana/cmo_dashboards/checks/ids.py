"""Ids and titles are there and unique: Grafana drops a panel without an id, and links go by both."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from cmo_dashboards.checks.finding import Finding
from cmo_dashboards.document import every_panel, panels, title_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cmo_dashboards.document import Document


def check(document: Document) -> Iterator[Finding]:
    """Dashboard uid, panel ids and panel titles."""
    if not document.get("uid"):
        yield Finding("dashboard", "has no uid; links to it would break at every import")
    for panel in every_panel(document):
        if not isinstance(panel.get("id"), int) or panel["id"] < 1:
            yield Finding(title_of(panel), f"has id {panel.get('id')!r}; expected a whole number from 1 on")
    ids = Counter(panel.get("id") for panel in every_panel(document))
    titles = Counter(title_of(panel) for panel in panels(document))
    for name, counts in (("id", ids), ("title", titles)):
        for value, count in counts.items():
            if count > 1:
                yield Finding("dashboard", f"{count} panels have the {name} {value!r}; expected one")
