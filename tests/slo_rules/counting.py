"""Counts of scripted worlds, and the truth that they are held to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmo_exporter import catalogue
from cmo_slo.count import ScenarioCount, count_scenario
from cmo_slo.samples import find_targets

if TYPE_CHECKING:
    from cmo_slo.samples import Evidence

    from .scripted import Load, World

QUERIES = catalogue.QUERIES.name


def counts(world: World, evidence: Evidence | None = None) -> tuple[list[ScenarioCount], list[str]]:
    run = world.run()
    found = find_targets(evidence or world.evidence(), run.start)
    scenarios = [count_scenario(found.targets, one) for one in run.scenarios]
    return scenarios, [*found.problems, *(problem for one in scenarios for problem in one.problems)]


def outcomes(count: ScenarioCount) -> dict[str, float]:
    return {name: count.events(QUERIES, {"outcome": (name,)}).count for name in catalogue.QUERY_OUTCOMES}


def truth(one: Load) -> dict[str, float]:
    return {name: one.truth(outcome=name) for name in catalogue.QUERY_OUTCOMES}


def assert_exact(world: World, found: list[ScenarioCount]) -> None:
    for one, count in zip(world.loads, found, strict=True):
        assert outcomes(count) == truth(one)
        bucket = count.events("cmo_query_duration_seconds_bucket", {"outcome": ("success",)}, 2.0)
        assert bucket.count == one.within("success")
        hits = count.events(catalogue.QUERY_CACHE_RESULTS_TOTAL.name, {"result": ("hit",)})
        assert hits.count == one.truth(cache="hit")
