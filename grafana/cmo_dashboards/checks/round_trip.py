"""The SDK reads a dashboard and writes the same again: nothing in it is unknown to Grafana's schema.

The SDK validates nothing when it runs; a misspelt field would be ignored by Grafana without a word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cmo_dashboards.checks.finding import Finding
from cmo_dashboards.finish import through_the_sdk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cmo_dashboards.document import Document


def check(document: Document) -> Iterator[Finding]:
    """The document before and after the SDK."""
    try:
        after = through_the_sdk(document)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        yield Finding("dashboard", f"cannot be read by grafana-foundation-sdk: {error}")
        return
    yield from _differences("dashboard", document, after)


def _differences(place: str, before: Any, after: Any) -> Iterator[Finding]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            where = f"{place}.{key}"
            if key not in after:
                yield Finding(where, "is unknown to the schema: the SDK drops it")
            elif key not in before:
                yield Finding(where, f"is missing: the schema has {after[key]!r}")
            else:
                yield from _differences(where, before[key], after[key])
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from _differences(f"{place}[{index}]", one, other)
    elif before != after:
        yield Finding(place, f"is {before!r}; the SDK makes {after!r} of it")
