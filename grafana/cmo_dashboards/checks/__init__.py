"""Faults that Grafana and the SDK accept silently.

A check takes a document and yields findings. Adding one is a file here, its name in ``checks_of``, and a
seeded fault in ``tests/grafana/test_checks.py``.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

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

    from cmo_slo.model import Objectives

    from cmo_dashboards.document import Document

__all__ = ["Check", "Finding", "checks_of", "run_checks"]


def checks_of(objectives: Objectives) -> Mapping[str, Check]:
    """Every check of dashboards of these objectives by its name, which is also the name of its file."""
    known = names.known_series(objectives)
    return {
        "ids": ids.check,
        "grid": grid.check,
        "datasource": datasource.check,
        "variables": variables.check,
        "units": units.check,
        "colours": partial(colours.check, known=known),
        "thresholds": partial(thresholds.check, promised=objectives),
        "conventions": partial(conventions.check, promised=objectives),
        "descriptions": descriptions.check,
        "parses": parses.check,
        "windows": windows.check,
        "names": partial(names.check, known=known),
        "jobs": partial(jobs.check, promised=objectives),
        "no_data": no_data.check,
        "round_trip": round_trip.check,
    }


def run_checks(document: Document, objectives: Objectives) -> Iterator[tuple[str, Finding]]:
    """All findings of all checks of a dashboard of these objectives, each with the name of its check."""
    for name, check in checks_of(objectives).items():
        for finding in check(document):
            yield name, finding
