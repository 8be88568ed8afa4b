"""Checks of finished dashboards, one file each: what Grafana and the SDK accept without a word, wrongly.

A check takes a document and yields findings. Adding one is a file here, its name in ``CHECKS``, and a seeded
fault in ``tests/grafana/test_checks.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cmo_dashboards.checks import (
    colours,
    conventions,
    datasource,
    descriptions,
    grid,
    ids,
    jobs,
    names,
    no_data,
    parses,
    round_trip,
    thresholds,
    units,
    variables,
    windows,
)
from cmo_dashboards.checks.finding import Check, Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cmo_dashboards.document import Document

__all__ = ["CHECKS", "Check", "Finding", "run_checks"]

CHECKS: Final[Mapping[str, Check]] = {
    "ids": ids.check,
    "grid": grid.check,
    "datasource": datasource.check,
    "variables": variables.check,
    "units": units.check,
    "colours": colours.check,
    "thresholds": thresholds.check,
    "conventions": conventions.check,
    "descriptions": descriptions.check,
    "parses": parses.check,
    "windows": windows.check,
    "names": names.check,
    "jobs": jobs.check,
    "no_data": no_data.check,
    "round_trip": round_trip.check,
}
"""Every check by its name, which is also the name of its file."""


def run_checks(document: Document) -> Iterator[tuple[str, Finding]]:
    """All findings of all checks, each with the name of its check."""
    for name, check in CHECKS.items():
        for finding in check(document):
            yield name, finding
