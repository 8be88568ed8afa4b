"""What a run offers to a service and its caches: a table for people, computed from the plan itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cmo_loadtest.plan import plan_scenarios

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cmo_loadtest.plan import PlannedScenario
    from cmo_loadtest.scenarios import Scenario

_ANSWER_SECONDS: Final = (0.0, 0.5, 1.0, 2.0)


def cold_hits(planned: Iterable[PlannedScenario], answer_seconds: float) -> tuple[int, int]:
    """Hits of a cache that begins empty, keeps everything, and is filled by answers that always come.

    A question misses while its first answer is still being made: users who ask it meanwhile do not share
    the work. Scenarios follow one another with everything cached that was asked before.

    Args:
        planned: scenarios in the order in which they are driven.
        answer_seconds: how long an answer that is not in the cache takes.

    Returns:
        Hits and operations.
    """
    known: set[str] = set()
    hits = operations = 0
    for scenario in planned:
        first_asked: dict[str, float] = {}
        asks = [(ask.offset_seconds, ask.question) for user in scenario.users for ask in user.operations]
        for offset, question in sorted(asks):
            operations += 1
            asked_at = first_asked.setdefault(question, offset)
            ready = question in known or (asked_at < offset and asked_at + answer_seconds <= offset)
            hits += ready
        known |= first_asked.keys()
    return hits, operations


def describe_offer(scenarios: Sequence[Scenario], seed: int) -> str:
    """A table of what a run of these scenarios offers, and the best that a cold cache can do with it."""
    planned = plan_scenarios(scenarios, seed)
    lines = [
        f"{'scenario':<20} {'pattern':<10} {'users':>5} {'operations':>10} {'seconds':>7} {'distinct':>8}"
    ]
    for scenario, own in zip(scenarios, planned, strict=True):
        lines.append(
            f"{scenario.name:<20} {scenario.pattern.value:<10} {scenario.users:>5} {scenario.operations:>10} "
            f"{scenario.duration_seconds:>7g} {len(_questions([own])):>8}"
        )
    total = sum(scenario.operations for scenario in scenarios)
    distinct = len(_questions(planned))
    seconds = sum(scenario.duration_seconds for scenario in scenarios)
    lines.append(f"{'all':<20} {'':<10} {'':>5} {total:>10} {seconds:>7g} {distinct:>8}")
    lines.append("")
    lines.append("Hits of a cold cache that keeps everything, when an answer takes")
    for answer_seconds in _ANSWER_SECONDS:
        hits, operations = cold_hits(planned, answer_seconds)
        lines.append(f"  {answer_seconds:>4g} s: {100 * hits / operations:5.1f} % ({hits} of {operations})")
    return "\n".join(lines)


def _questions(planned: Iterable[PlannedScenario]) -> set[str]:
    return {
        operation.question for scenario in planned for user in scenario.users for operation in user.operations
    }
