"""The recorded operations: read them back, and hold them against the plan before anything is claimed.

``operations.jsonl`` has one line for each operation. It is the load test's ground truth, so it is complete
and each operation is in it once, or the run has failed.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cmo_loadtest.errors import IncompleteRunError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from cmo_loadtest.plan import Plan

_SHOWN = 3


@dataclass(frozen=True)
class Operation:
    """One operation as it went. Times are Unix seconds of the generator's clock.

    ``latency_seconds`` is from sending the question to the last byte of the answer, on a clock that no
    adjustment moves. ``outcome`` is the trail's, or "error" where no answer came; ``error`` says why.
    """

    operation: str
    scenario: str
    user: str
    intended_start: float
    start: float
    end: float
    latency_seconds: float
    http_status: int | None
    outcome: str
    source: str | None
    cache: str | None
    tiers: tuple[tuple[str, str], ...]
    fallbacks: tuple[tuple[str, str, str], ...]
    error: str

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Operation:
        """One line of ``operations.jsonl``, parsed."""
        lists = {name: tuple(tuple(entry) for entry in record[name]) for name in ("tiers", "fallbacks")}
        return cls(**{**record, **lists})


def read_operations(path: Path) -> tuple[Operation, ...]:
    """Every operation in a file, in the order in which they ended.

    Raises:
        IncompleteRunError: a line is cut off or is no record of an operation.
    """
    operations = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            operations.append(Operation.from_record(json.loads(line)))
        except (ValueError, TypeError, KeyError) as error:
            raise IncompleteRunError(f"{path}, line {number}: this is no record of an operation.") from error
    return tuple(operations)


def check_complete(plan: Plan, operations: Iterable[Operation]) -> None:
    """Hold the recorded operations against the plan.

    Raises:
        IncompleteRunError: an operation is missing, was recorded twice, or was never planned.
    """
    planned = {
        operation.operation
        for scenario in plan.scenarios
        for user in scenario.users
        for operation in user.operations
    }
    recorded = Counter(operation.operation for operation in operations)
    faults = {
        "missing": sorted(planned - recorded.keys()),
        "recorded more than once": sorted(name for name, times in recorded.items() if times > 1),
        "recorded but not planned": sorted(recorded.keys() - planned),
    }
    found = [f"{len(names)} {fault} ({_some(names)})" for fault, names in faults.items() if names]
    if found:
        raise IncompleteRunError(f"Of {len(planned)} planned operations: {', '.join(found)}.")


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return f"{shown}, …" if len(names) > _SHOWN else shown
