"""Every panel says what it answers and what to do when it is red; the page for on-call is made of this."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cmo_dashboards.checks.finding import Finding
from cmo_dashboards.document import panels, title_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cmo_dashboards.document import Document

WHEN_RED: Final = "**When red:**"


def check(document: Document) -> Iterator[Finding]:
    """Title and both halves of the description of each panel."""
    for panel in panels(document):
        if not panel.get("title"):
            yield Finding(title_of(panel), "has no title")
        answers, marker, when_red = str(panel.get("description") or "").partition(WHEN_RED)
        if not answers.strip():
            yield Finding(title_of(panel), "does not describe what it answers")
        if not marker or not when_red.strip():
            yield Finding(title_of(panel), f"does not describe what to do, after {WHEN_RED!r}")
