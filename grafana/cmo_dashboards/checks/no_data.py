"""No data never looks like success: it has words of its own and the neutral colour.

Grafana colours "no data" by the lowest threshold, so that one may not be a verdict's colour.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cmo_dashboards.checks.finding import Finding
from cmo_dashboards.colours import NEUTRAL
from cmo_dashboards.document import defaults_of, panels, title_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cmo_dashboards.document import Document


def check(document: Document) -> Iterator[Finding]:
    """Words and colours of absent values on each panel."""
    for panel in panels(document):
        defaults = defaults_of(panel)
        if not defaults.get("noValue"):
            yield Finding(title_of(panel), "has no words for the absence of data; expected noValue")
        steps = (defaults.get("thresholds") or {}).get("steps") or []
        if not steps or steps[0].get("value") is not None or steps[0].get("color") != NEUTRAL:
            yield Finding(
                title_of(panel), f"colours no data {steps[:1]}; expected a lowest step of {NEUTRAL}"
            )
        if not any(_says_nothing_is_nothing(mapping) for mapping in defaults.get("mappings") or []):
            yield Finding(title_of(panel), f"does not map null and NaN to words in {NEUTRAL}")


def _says_nothing_is_nothing(mapping: dict[str, Any]) -> bool:
    options = mapping.get("options") or {}
    result = options.get("result") or {}
    covers = mapping.get("type") == "special" and options.get("match") == "null+nan"
    return covers and bool(result.get("text")) and result.get("color") == NEUTRAL
