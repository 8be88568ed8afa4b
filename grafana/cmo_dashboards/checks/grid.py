"""Panels lie inside the grid of 24 columns and do not overlap; Grafana would push them apart its own way."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any, Final

from cmo_dashboards.checks.finding import Finding
from cmo_dashboards.document import title_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cmo_dashboards.document import Document

_COLUMNS: Final = 24


def check(document: Document) -> Iterator[Finding]:
    """Grid positions; panels inside a collapsed row have a grid of their own."""
    yield from _check(document.get("panels", []))
    for panel in document.get("panels", []):
        if panel.get("panels"):
            yield from _check(panel["panels"])


def _check(together: list[dict[str, Any]]) -> Iterator[Finding]:
    placed = []
    for panel in together:
        place = panel.get("gridPos") or {}
        if any(not isinstance(place.get(key), int) for key in "xywh"):
            yield Finding(title_of(panel), f"has grid position {place}; expected x, y, w and h")
        elif place["w"] < 1 or place["h"] < 1 or place["x"] < 0 or place["x"] + place["w"] > _COLUMNS:
            yield Finding(title_of(panel), f"leaves the grid: {place}; expected to fit {_COLUMNS} columns")
        else:
            placed.append((title_of(panel), place))
    for (one, first), (other, second) in combinations(placed, 2):
        if _overlap(first, second):
            yield Finding(one, f"overlaps {other!r}: {first} and {second}")


def _overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
    apart = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
    return not (beside or apart)
