"""The page on the load test says what the code does."""

from __future__ import annotations

from pathlib import Path

from cmo_loadtest.offer import describe_offer
from cmo_loadtest.scenarios import SCENARIOS

PAGE = (Path(__file__).parents[2] / "docs" / "load-test.md").read_text(encoding="utf-8")


def test_the_cold_hit_rates_are_those_that_the_command_computes() -> None:
    table = describe_offer(list(SCENARIOS.values()), seed=1)
    computed = table[table.index("Hits of a cold cache") :].splitlines()
    assert "\n".join(f"    {line}" for line in computed) in PAGE


def test_the_scenarios_are_listed_as_they_are() -> None:
    for scenario in SCENARIOS.values():
        row = (
            f"| {scenario.name} | {scenario.pattern.value} | {scenario.users} | {scenario.operations} "
            f"| {scenario.duration_seconds:g} | {scenario.distinct_questions} |"
        )
        assert row in PAGE
