"""Everything asks ``${datasource}``: a fixed data source would be missing wherever it is called otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from cmo_dashboards.checks.finding import Finding
from cmo_dashboards.document import askers, panels, title_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cmo_dashboards.document import Document

_EXPECTED: Final = {"type": "prometheus", "uid": "${datasource}"}


def check(document: Document) -> Iterator[Finding]:
    """The variable, and the data source of each panel, query and annotation."""
    variables = document.get("templating", {}).get("list", [])
    if not any(item.get("name") == "datasource" and item.get("type") == "datasource" for item in variables):
        yield Finding("dashboard", "has no variable 'datasource' of type datasource")
    for place, item in _askers(document):
        if item.get("datasource") != _EXPECTED:
            yield Finding(place, f"asks {item.get('datasource')!r}; expected {_EXPECTED}")


def _askers(document: Document) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from ((title_of(panel), panel) for panel in panels(document))
    yield from ((place, asker) for place, asker in askers(document) if not asker.get("builtIn"))
