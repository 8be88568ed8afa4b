"""From what the SDK builds to what is committed: one function, through which every dashboard goes.

The SDK leaves panels without ids (and rows with id 0), puts ``placement`` on links and annotations that
Grafana then hides in a menu, and writes keys in the order of its own source. Finished documents have ids
in reading order, sorted keys and one layout, so that a difference in the committed file is a difference
in the dashboard.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import dashboard

from cmo_dashboards.document import defaults_of, every_panel

if TYPE_CHECKING:
    from cmo_dashboards.document import Document

register_default_plugins()


def finish(built: dashboard.Dashboard) -> Document:
    """The finished document of a dashboard that the SDK has built."""
    document: Document = json.loads(json.dumps(built, cls=JSONEncoder))
    for number, panel in enumerate(every_panel(document), start=1):
        panel["id"] = number
    placed: list[dict[str, Any]] = [*document.get("links", []), *document["annotations"].get("list", [])]
    for panel in every_panel(document):
        placed += [*(panel.get("links") or []), *(defaults_of(panel).get("links") or [])]
    for item in placed:
        item.pop("placement", None)
    return document


def through_the_sdk(document: Document) -> Document:
    """The document as the SDK writes it after reading it: the same, if the SDK knows all that is in it."""
    return finish(dashboard.Dashboard.from_json(json.loads(json.dumps(document))))


def text_of(document: Document) -> str:
    """The document as it is committed."""
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
