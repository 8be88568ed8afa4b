"""Runs that went wrong and whose data look well: whatever a service says of itself, none of them passes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from cmo_exporter import catalogue
from cmo_slo.judge import judge
from cmo_slo.verdict import Outcome, Status, Verdict

from .judging import CMO_015, judged, unit
from .scripted import EPOCH, SCENARIOS, World, edited, load

if TYPE_CHECKING:
    from collections.abc import Callable

    from cmo_slo.samples import Series

    Change = Callable[[Series], object]

CACHE_RESULTS = catalogue.QUERY_CACHE_RESULTS_TOTAL.name


def apart(**changes: object) -> World:
    """The four scenarios with a pause of 10 s between them, compliant unless changed."""
    loads = tuple(load(name, start=60.0 + 30.0 * n, seed=n) for n, name in enumerate(SCENARIOS))
    return replace(World(loads), **changes)  # type: ignore[arg-type]


def points_changed(suffix: str, change: Callable[[float], float]) -> Change:
    def changed(one: Series) -> Series:
        if not one.name.endswith(suffix):
            return one
        return replace(one, points={time: change(value) for time, value in one.points.items()})

    return changed


def assert_restart_is_seen(verdict: Verdict) -> None:
    assert verdict.outcome is Outcome.INCONCLUSIVE
    for result in verdict.results:
        if result.objective.name == "no_catastrophic_failure":
            assert result.status is Status.FAIL
        else:
            assert {one.status for one in result.units} == {Status.INCONCLUSIVE}


@pytest.mark.parametrize(
    "told",
    [
        lambda at: at,
        lambda at: at - 60.0,
        lambda at: at - 600.0,
        lambda at: at + 600.0,
        lambda at: at * 0.001,
        lambda at: at * 1000.0,
    ],
    ids=["right", "a minute behind", "ten minutes behind", "ten minutes ahead", "in ks", "in ms"],
)
def test_a_restart_between_scenarios_is_seen_whatever_the_clock_of_the_service(
    told: Callable[[float], float],
) -> None:
    world = apart(restarts=(85.0,))
    evidence = edited(world.evidence(), points_changed("start_time_seconds", told))
    assert_restart_is_seen(judged(world, evidence))


def test_a_restart_between_scenarios_is_seen_by_its_counters_alone() -> None:
    world = apart(restarts=(85.0,))
    same = points_changed("start_time_seconds", lambda _: EPOCH - 100.0)
    verdict = judged(world, edited(world.evidence(), same))
    assert_restart_is_seen(verdict)
    assert any(f"{catalogue.QUERIES_STARTED.name} fell from 400 to 0" in words for words in verdict.problems)


def test_a_restart_before_the_first_scenario_is_that_ones() -> None:
    world = apart(restarts=(50.0,))
    run = replace(world.run(), start=EPOCH + 40.0)
    verdict = judge(CMO_015, run, world.evidence())
    assert unit(verdict, "no_catastrophic_failure").status is Status.FAIL
    assert_restart_is_seen(verdict)


@pytest.mark.parametrize(("allowed", "expected"), [(0.0, Status.FAIL), (1.0, Status.INCONCLUSIVE)])
def test_a_restart_that_is_allowed_is_no_failure_and_no_pass(allowed: float, expected: Status) -> None:
    world = apart(restarts=(70.0,))
    objectives = CMO_015.model_copy(
        update={
            "objectives": tuple(
                one.model_copy(update={"target": allowed}) if one.name == "no_catastrophic_failure" else one
                for one in CMO_015.objectives
            )
        }
    )
    verdict = judge(objectives, world.run(), world.evidence())
    assert unit(verdict, "no_catastrophic_failure").status is expected


def relabelled(one: Series) -> Series | list[Series]:
    """Misses under a label value that is in no list, beside the series of misses that stays at 0."""
    if one.name != CACHE_RESULTS or one.labels["result"] != "miss":
        return one
    nothing = replace(one, points=dict.fromkeys(one.points, 0.0))
    return [nothing, replace(one, labels={**one.labels, "result": "_other"})]


def changed_result(result: str, factor: float) -> Change:
    def changed(one: Series) -> Series:
        if one.name != CACHE_RESULTS or one.labels["result"] != result:
            return one
        return replace(one, points={time: value * factor // 1 for time, value in one.points.items()})

    return changed


@pytest.mark.parametrize(
    "change",
    [relabelled, changed_result("miss", 0.0), changed_result("miss", 0.5), changed_result("hit", 2.0)],
    ids=["misses in no list", "misses frozen", "misses halved", "hits doubled"],
)
def test_cache_hits_that_do_not_fit_the_questions_are_not_judged(change: Change) -> None:
    loads = tuple(load(name, start=60.0 + 21.0 * n, misses=160, seed=n) for n, name in enumerate(SCENARIOS))
    world = World(loads)
    assert unit(judged(world), "cache_hits", "overall").status is Status.FAIL
    verdict = judged(world, edited(world.evidence(), change))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    found = unit(verdict, "cache_hits", "overall")
    assert found.status is Status.INCONCLUSIVE
    assert "400 questions finished, and cmo_query_cache_results_total counts" in found.reason


def test_data_without_cache_results_are_judged_on_the_rest() -> None:
    world = apart()
    verdict = judged(world, edited(world.evidence(), lambda one: None if one.name == CACHE_RESULTS else one))
    assert unit(verdict, "success").status is Status.PASS
    assert unit(verdict, "cache_hits", "overall").status is Status.INCONCLUSIVE


def test_users_that_move_between_instances_are_not_missed() -> None:
    """60 all the time: 45 and 15, then 15 and 45. The lowest of each added up would be 30 that never were."""
    world = apart(instances=2)

    def moved(one: Series) -> Series:
        if one.name != catalogue.ACTIVE_USER_SECONDS.name:
            return one
        (of_it,) = (each for each in world.loads if each.name == one.labels["scenario"])
        begin, middle, end = of_it.start, (of_it.start + of_it.end) / 2, of_it.end
        first, second = (45.0, 15.0) if one.labels["instance"].endswith("9464") else (15.0, 45.0)

        def held(time: float) -> float:
            moment = min(time - EPOCH, end)
            return first * max(0.0, min(moment, middle) - begin) + second * max(0.0, moment - middle)

        return replace(one, points={time: held(time) for time in one.points})

    found = unit(judged(world, edited(world.evidence(), moved)), "concurrent_users")
    assert found.status is Status.INCONCLUSIVE, found.reason
    assert found.details["lowest_at_most"] >= 60.0
