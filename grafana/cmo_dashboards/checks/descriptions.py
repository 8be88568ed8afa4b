"""Every panel says what it answers and what to do, when it is red or ever; on-call's page is made of this."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cmo_dashboards.checks.finding import Finding
from cmo_dashboards.document import panels, title_of
from cmo_dashboards.panels import WHAT_TO_DO, WHEN_RED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cmo_dashboards.document import Document

_MARKERS: Final = (WHEN_RED, WHAT_TO_DO)


def check(document: Document) -> Iterator[Finding]:
    """Title and both halves of the description of each panel."""
    for panel in panels(document):
        if not panel.get("title"):
            yield Finding(title_of(panel), "has no title")
        description = str(panel.get("description") or "")
        marker = next((one for one in _MARKERS if one in description), "")
        answers, _, what_to_do = description.partition(marker) if marker else (description, "", "")
        if not answers.strip():
            yield Finding(title_of(panel), "does not describe what it answers")
        if not what_to_do.strip():
            yield Finding(title_of(panel), f"does not describe what to do, after one of {_MARKERS}")
