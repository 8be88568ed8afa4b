"""The run manifest: when a run was, what it offered, and the ground truth to hold a verdict against.

The checker reads times, scenarios and what was offered from it, and never a result: those it takes from
Prometheus alone. The summary of the ground truth is for people and for tests that compare the two.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cmo_loadtest.records import Operation
    from cmo_loadtest.scenarios import Scenario

SCHEMA: Final = "cmo.run-manifest/v1"
MANIFEST_FILE: Final = "manifest.json"
OPERATIONS_FILE: Final = "operations.jsonl"

_WITHIN_SECONDS: Final = 2.0  # exactly 2.000 s is within
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def build_manifest(
    run_id: str, target: str, scenarios: Sequence[Scenario], operations: Iterable[Operation]
) -> dict[str, Any]:
    """The manifest of a complete run.

    Args:
        run_id: name of the run, and of its directory.
        target: base URL of the service.
        scenarios: what was driven, in order, with the durations that were meant.
        operations: every operation of the run.
    """
    by_scenario: dict[str, list[Operation]] = {scenario.name: [] for scenario in scenarios}
    for operation in operations:
        by_scenario[operation.scenario].append(operation)
    entries = [_scenario_entry(scenario, by_scenario[scenario.name]) for scenario in scenarios]
    return {
        "schema": SCHEMA,
        "run_id": run_id,
        "tool": f"cmo-loadtest {metadata.version('cmo-observability')}",
        "host": _host(),
        "target": target,
        "start": min(entry["start"] for entry in entries),
        "end": max(entry["end"] for entry in entries),
        "scenarios": entries,
        "ground_truth": {
            "operations_file": OPERATIONS_FILE,
            "scenarios": {name: summarise(own) for name, own in by_scenario.items()},
        },
    }


def summarise(operations: Sequence[Operation]) -> dict[str, Any]:
    """Counts of one scenario's operations.

    ``within_2s`` counts successes whose latency at the client was at most 2 s. The service measures from the
    question's arrival, so that a few operations around 2 s may be within by its clock and not by this one.
    """
    tiers: dict[str, Counter[str]] = {}
    for operation in operations:
        for tier, result in operation.tiers:
            tiers.setdefault(tier, Counter())[result] += 1
    within = [
        operation
        for operation in operations
        if operation.outcome == "success" and operation.latency_seconds <= _WITHIN_SECONDS
    ]
    return {
        "operations": len(operations),
        "outcomes": _counts(operation.outcome for operation in operations),
        "sources": _counts(operation.source for operation in operations if operation.source),
        "tiers": {tier: dict(sorted(results.items())) for tier, results in sorted(tiers.items())},
        "within_2s": len(within),
    }


def write_atomically(path: Path, content: dict[str, Any]) -> None:
    """Write JSON so that the file is there as a whole or not at all, even when the machine stops."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with draft.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _scenario_entry(scenario: Scenario, operations: Sequence[Operation]) -> dict[str, Any]:
    by_user: dict[str, list[Operation]] = {}
    for operation in operations:
        by_user.setdefault(operation.user, []).append(operation)
    return {
        "name": scenario.name,
        "start": min(operation.start for operation in operations),
        "end": max(operation.end for operation in operations),
        # All users are held from the last one's first question to the first one's last answer.
        "held_start": max(min(operation.start for operation in own) for own in by_user.values()),
        "held_end": min(max(operation.end for operation in own) for own in by_user.values()),
        "offered": {
            "users": scenario.users,
            "operations": scenario.operations,
            "pattern": scenario.pattern.value,
            "duration_seconds": scenario.duration_seconds,
        },
    }


def _counts(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _host() -> str:
    """Which machine's clock the times are of: a digest that changes with every boot."""
    return hashlib.sha256(_BOOT_ID.read_bytes().strip()).hexdigest()[:16]
