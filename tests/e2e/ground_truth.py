"""What happened in a run by every account but the exporter's: the load test's records and the ASGI timer's.

The checker reads counters; nothing here does. So where the two agree, they agree for a reason.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True)
class Operation:
    """One operation as the load test saw it; the trail is what the service's own code reported."""

    id: str
    scenario: str
    outcome: str
    source: str | None
    cache: str | None
    tiers: tuple[tuple[str, str], ...]
    fallbacks: tuple[tuple[str, str, str], ...]
    latency_seconds: float


def read_operations(run_directory: Path) -> list[Operation]:
    """The load test's record of a run, one entry an operation."""
    return [
        Operation(
            id=row["operation"],
            scenario=row["scenario"],
            outcome=row["outcome"],
            source=row["source"],
            cache=row["cache"],
            tiers=tuple((tier, result) for tier, result in row["tiers"] or ()),
            fallbacks=tuple((source, target, reason) for source, target, reason in row["fallbacks"] or ()),
            latency_seconds=row["latency_seconds"],
        )
        for row in _rows(run_directory / "operations.jsonl")
    ]


def read_service_durations(timing_log: Path) -> dict[str, float]:
    """Seconds to the last byte by operation, as the timer around the service measured them."""
    return {row["operation"]: row["duration_seconds"] for row in _rows(timing_log) if row["operation"]}


def outcomes(operations: list[Operation], scenario: str) -> dict[str, int]:
    """Operations of a scenario by outcome; outcomes that did not occur are left out."""
    return dict(Counter(one.outcome for one in operations if one.scenario == scenario))


def sources(operations: list[Operation], scenario: str) -> dict[str, int]:
    """Answers of a scenario by where they came from."""
    return dict(Counter(one.source for one in operations if one.scenario == scenario and one.source))


def tier_results(operations: list[Operation], scenario: str) -> dict[str, dict[str, int]]:
    """Cache look-ups of a scenario by tier and result."""
    counted: dict[str, Counter[str]] = {}
    for one in operations:
        if one.scenario == scenario:
            for tier, result in one.tiers:
                counted.setdefault(tier, Counter())[result] += 1
    return {tier: dict(results) for tier, results in counted.items()}


def cache_results(operations: list[Operation], scenario: str) -> dict[str, int]:
    """What the caches did for the queries of a scenario, one count a query."""
    return dict(Counter(one.cache for one in operations if one.scenario == scenario and one.cache))


def fallbacks(operations: list[Operation], scenario: str) -> dict[tuple[str, str, str], int]:
    """Hand-overs of a scenario by source, target and reason."""
    return dict(Counter(step for one in operations if one.scenario == scenario for step in one.fallbacks))


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open() as lines:
        for line in lines:
            yield json.loads(line)
