"""Counts equal the scripted truth, or something says why they cannot be known."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from cmo_exporter import catalogue
from cmo_slo.count import count_run, count_scenario
from cmo_slo.indicators import Events, GrowthIndicator, HeldLevelIndicator
from cmo_slo.levels import held_level, memory_growth
from cmo_slo.samples import Series, find_targets
from cmo_slo.span import UncountableError

from .counting import QUERIES, assert_exact, counts, outcomes, truth
from .scripted import EPOCH, World, edited, four, load

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("interval", [1.0, 5.0, 15.0])
@pytest.mark.parametrize("phase", [0.0, 0.31, 0.77])
def test_four_scenarios_back_to_back_are_counted_exactly(interval: float, phase: float) -> None:
    world = four(interval=interval, phase=phase * interval)
    found, problems = counts(world)
    assert problems == []
    assert_exact(world, found)


@pytest.mark.parametrize("interval", [1.0, 5.0, 15.0])
def test_counts_of_several_instances_add_up(interval: float) -> None:
    world = four(interval=interval, instances=3)
    found, problems = counts(world)
    assert problems == []
    assert_exact(world, found)


def test_series_that_are_born_during_the_run_begin_at_zero() -> None:
    world = four(lazy=True, interval=5.0)
    found, problems = counts(world)
    # Outcomes that never happened have no series at all, which is said and not taken for zero.
    assert any("There is no series" in problem for problem in problems)
    assert found[0].events(QUERIES, {"outcome": ("success",)}).count == world.loads[0].truth(
        outcome="success"
    )


def problems_of(world: World, change: object) -> str:
    return " ".join(counts(world, edited(world.evidence(), change))[1])


def test_the_same_target_under_two_replicas_is_refused_by_the_name_of_the_label() -> None:
    def twice(series: Series) -> list[Series]:
        return [replace(series, labels={**series.labels, "prometheus_replica": name}) for name in ("a", "b")]

    problem = problems_of(four(), twice)
    assert "prometheus_replica (a / b)" in problem
    assert '--selector \'job="cmo",prometheus_replica="a"\'' in problem


def test_one_process_scraped_under_two_addresses_is_refused() -> None:
    def twice(series: Series) -> list[Series]:
        return [series, replace(series, labels={**series.labels, "instance": "localhost:9464"})]

    problem = problems_of(four(), twice)
    assert "the same process" in problem
    assert "instance (127.0.0.1:9464 / localhost:9464)" in problem


def test_one_metric_exposed_twice_by_a_target_is_refused() -> None:
    def twice(series: Series) -> list[Series]:
        if series.name != QUERIES:
            return [series]
        return [series, replace(series, labels={**series.labels, "pod": "x"})]

    assert "pod (absent / x)" in problems_of(four(), twice)


def test_series_of_no_known_target_are_refused() -> None:
    def foreign(series: Series) -> Series:
        if series.name != QUERIES:
            return series
        return replace(series, labels={**series.labels, "instance": "gateway:80"})

    assert "belongs to no target that `up` knows" in problems_of(four(), foreign)


@pytest.mark.parametrize(
    "name", ["cmo_queries_total", "cmo_query_duration_seconds_count", "cmo_queries_in_progress"]
)
def test_a_metric_that_is_not_there_is_not_zero(name: str) -> None:
    assert problems_of(four(), lambda series: None if series.name == name else series)


def test_a_failure_series_that_somebody_dropped_is_noticed() -> None:
    def dropped(series: Series) -> Series | None:
        return None if series.labels.get("outcome") == "error" else series

    assert "questions began but" in problems_of(four(), dropped)


def test_a_target_without_start_times_is_doubtful() -> None:
    assert "tells no start time" in " ".join(counts(four(start_times=False))[1])


def test_more_operations_than_offered_are_doubtful() -> None:
    world = four()
    run = world.run()
    found = find_targets(world.evidence(), run.start)
    for operations, words in ((399, "someone else used the scenario"), (401, "did not reach the service")):
        count = count_scenario(found.targets, replace(run.scenarios[0], operations=operations))
        assert words in " ".join(count.problems)


def test_a_restart_between_t0_and_the_start_does_not_matter() -> None:
    world = World((load(start=60.0),), interval=15.0, phase=14.9, restarts=(50.0,))
    found, problems = counts(world)
    assert problems == []
    span = found[0].spans[0]
    assert span.base is not None
    assert span.base.time < EPOCH + 50.0
    assert found[0].restarts == ()
    assert outcomes(found[0]) == truth(world.loads[0])


def test_an_instance_born_after_the_start_is_counted_from_zero() -> None:
    one = load(start=60.0)
    late = replace(one, questions=tuple(question for question in one.questions if question.begin > 66.0))
    world = World((late,), born=63.0)
    run = world.run()
    scenario = replace(run.scenarios[0], start=EPOCH + 60.0)
    found = find_targets(world.evidence(), scenario.start)
    count = count_scenario(found.targets, scenario)
    assert count.problems == ()
    assert outcomes(count) == truth(late)


def test_t0_is_over_before_the_start_and_t1_comes_after_the_end() -> None:
    """A sample carries the time at which its scrape began: values rendered later are under it."""
    world = World((load(start=60.0),), phase=0.9, scrape_seconds=0.6)
    found, problems = counts(world)
    assert problems == []
    span = found[0].spans[0]
    assert span.base is not None
    assert span.base.time == EPOCH + 58.9
    assert span.last.time > EPOCH + world.loads[0].end
    assert span.confirmed_at > span.last.time


# --- each rule by itself, in its own words ---


def points_changed(name: str, change: Callable[[float, float], float | None], **labels: str) -> Any:
    """Series of a name (and labels) with their samples passed through ``change``, times since the epoch."""

    def changed(series: Series) -> Series:
        if series.name != name or any(series.labels.get(key) != value for key, value in labels.items()):
            return series
        points = {time: change(time - EPOCH, value) for time, value in series.points.items()}
        return replace(series, points={time: value for time, value in points.items() if value is not None})

    return changed


def test_t1_waits_until_counters_stand_still_though_nothing_is_in_progress() -> None:
    """Counters move after the client has its last byte; here much later than the gauge goes to 0."""
    world = World((load(),), lag_seconds=2.6)
    evidence = edited(world.evidence(), points_changed("cmo_queries_in_progress", lambda _t, _v: 0.0))
    found, problems = counts(world, evidence)
    assert problems == []
    assert outcomes(found[0]) == truth(world.loads[0])


def test_t1_is_not_in_a_pause_before_the_last_question() -> None:
    one = load()
    last = replace(one.questions[-1], begin=one.end + 6.0, seconds=0.2)
    world = World((replace(one, questions=(*one.questions[:-1], last)),))
    found, problems = counts(world)
    assert problems == []
    assert found[0].spans[0].last.time > EPOCH + last.end
    assert outcomes(found[0]) == truth(world.loads[0])


def test_a_run_that_follows_on_the_heels_of_another_was_not_quiet() -> None:
    before, after = load(start=40.0), load(start=60.0)
    both = replace(after, questions=(*before.questions, *after.questions))
    world = World((both,), interval=5.0)
    scenario = replace(World((after,)).run().scenarios[0], operations=800)
    found = find_targets(world.evidence(), scenario.start)
    assert "its counters moved" in " ".join(count_scenario(found.targets, scenario).problems)


def test_a_question_that_hangs_since_before_the_start_was_not_quiet() -> None:
    hanging = replace(load().questions[0], begin=10.0, seconds=55.0)
    one = load(start=60.0)
    world = World((replace(one, questions=(hanging, *one.questions)),))
    scenario = World((one,)).run().scenarios[0]
    found = find_targets(world.evidence(), scenario.start)
    assert "questions were in progress" in " ".join(count_scenario(found.targets, scenario).problems)


def test_a_counter_that_falls_is_a_restart_whatever_the_start_times_say() -> None:
    world = World((load(),))

    def same_start(series: Series) -> Series:
        if "start_time" not in series.name:
            return series
        return replace(series, points=dict.fromkeys(series.points, EPOCH - 100.0))

    restarted = replace(world, restarts=(70.0,))
    found, _ = counts(restarted, edited(restarted.evidence(), same_start))
    assert found[0].restarts
    assert "fell from" in found[0].restarts[0].what


def test_a_counter_that_grew_past_its_old_value_began_at_zero_after_a_restart() -> None:
    """An earlier run of 30, a restart between the runs, then 400: not 370."""
    earlier = load(start=5.0, length=10.0, operations=30, failures=0, slow=0, misses=0)
    one = load(start=60.0)
    both = replace(one, questions=(*earlier.questions, *one.questions))
    world = World((both,), interval=15.0, phase=14.9, restarts=(48.0,))
    scenario = World((one,)).run().scenarios[0]
    found = find_targets(world.evidence(), scenario.start)
    count = count_scenario(found.targets, scenario)
    assert count.problems == ()
    assert outcomes(count) == truth(one)


def test_a_series_that_was_there_before_t0_but_not_in_it_is_doubtful() -> None:
    gone = points_changed(
        QUERIES, lambda time, value: None if 59.0 < time < 60.0 else value, outcome="success"
    )
    assert "was there before the last scrape before the start" in problems_of(World((load(),)), gone)


def test_a_service_that_was_not_scraped_before_is_doubtful() -> None:
    assert "was not scraped before" in " ".join(counts(World((load(),), scraped_from=60.5))[1])


def test_one_scrape_before_the_start_is_enough_only_at_zero() -> None:
    one = load(start=60.0)
    assert counts(World((one,), interval=5.0, scraped_from=55.5))[1] == []
    earlier = load(start=20.0)
    both = World(
        (replace(one, questions=(*earlier.questions, *one.questions)),), interval=5.0, scraped_from=55.5
    )
    scenario = World((one,)).run().scenarios[0]
    found = find_targets(both.evidence(), scenario.start)
    assert "or there was only one" in " ".join(count_scenario(found.targets, scenario).problems)


def test_scraping_that_stopped_long_before_the_start_is_doubtful() -> None:
    world = World((load(),), failed=tuple(range(50, 60)))
    assert "older than its start" in " ".join(counts(world)[1])


def test_a_series_that_is_missing_in_between_is_doubtful() -> None:
    gap = points_changed(
        QUERIES, lambda time, value: None if 66.0 < time < 68.0 else value, outcome="success"
    )
    assert "missing or no number in some scrapes" in problems_of(World((load(),)), gap)


def test_a_series_that_a_restart_took_away_is_doubtful() -> None:
    world = World((load(),), restarts=(70.0,))
    gone = points_changed(QUERIES, lambda time, value: None if time > 70.0 else value, outcome="error")
    assert "is not there at the end" in problems_of(world, gone)


def test_counts_that_are_no_whole_numbers_are_doubtful() -> None:
    assert problems_of(World((load(),)), points_changed(QUERIES, lambda _time, value: value)) == ""
    halves = points_changed(QUERIES, lambda _time, value: value + 0.5)
    assert "is no whole number" in problems_of(World((load(),)), halves)


@pytest.mark.parametrize("value", [-1.0, 2.0**53 + 2.0, 1e308])
def test_counts_that_no_counter_can_have_are_doubtful(value: float) -> None:
    """Beyond 2^53 a float no longer holds every whole number, and two of 1e308 add up to infinity."""
    world = World((load(),))
    late = points_changed(QUERIES, lambda time, found: value if time > 70.0 else found)
    found, problems = counts(world, edited(world.evidence(), late))
    assert f"{QUERIES} of cmo/127.0.0.1:9464 is below 0 or above 2^53" in problems[0]
    assert sum(outcomes(found[0]).values()) <= 400
    largest = points_changed(QUERIES, lambda _time, found: found + 2.0**53 - 500.0)
    assert problems_of(world, largest) == ""


def test_a_worker_that_is_started_anew_while_others_stay_is_doubtful() -> None:
    """Before the start, where a whole new process would be fine: counters of one of several are not."""

    def workers(series: Series) -> Series | list[Series] | None:
        if series.name == "process_start_time_seconds":
            return None
        if series.name != "cmo_worker_start_time_seconds":
            return series
        second = {time: EPOCH - 90.0 if time < EPOCH + 50.0 else EPOCH + 50.0 for time in series.points}
        return [series, replace(series, labels={**series.labels, "worker": "1"}, points=second)]

    world = World((load(),), interval=15.0, phase=14.9)
    assert "A worker of cmo/127.0.0.1:9464 started anew" in problems_of(world, workers)


def test_a_target_that_no_longer_answers_is_said_so() -> None:
    world = World((load(),), failed=tuple(range(79, 200)))
    assert "does not answer" in " ".join(counts(world)[1])


def test_users_are_not_known_where_nothing_was_scraped() -> None:
    world = World((load(),), failed=tuple(range(64, 72)))
    found, problems = counts(world)
    assert problems == []
    indicator = HeldLevelIndicator(
        kind="held",
        integral="cmo_active_user_seconds_total",
        clock="cmo_active_user_clock_seconds_total",
    )
    with pytest.raises(UncountableError, match="was not scraped for"):
        held_level(found[0], indicator)
    held = held_level(counts(World((load(),)))[0][0], indicator)
    assert held.at_least == held.at_most == 50.0


@pytest.mark.parametrize("tick", [1e-320, 1e300])
def test_users_over_a_clock_that_cannot_be_one_are_not_known(tick: float) -> None:
    world = World((load(),))
    clock = points_changed("cmo_active_user_clock_seconds_total", lambda time, _value: tick * time)
    indicator = HeldLevelIndicator(
        kind="held",
        integral="cmo_active_user_seconds_total",
        clock="cmo_active_user_clock_seconds_total",
    )
    with pytest.raises(UncountableError, match=r"or its clock is below 0 or above 2\^53"):
        held_level(counts(world, edited(world.evidence(), clock))[0][0], indicator)


def test_memory_of_a_process_started_after_t0_has_no_base() -> None:
    indicator = GrowthIndicator(
        kind="growth",
        peak=Events(metric="cmo_memory_peak_bytes"),
        base=Events(metric="cmo_memory_bytes", labels={"kind": ("rss",)}),
    )
    world = World((load(),), interval=15.0, phase=14.9, restarts=(50.0,))
    with pytest.raises(UncountableError, match="was started after the last scrape before"):
        memory_growth(counts(world)[0][0], indicator)
    (growth,) = memory_growth(counts(World((load(),)))[0][0], indicator)
    assert growth.bytes == 50e6


@pytest.mark.parametrize("reverse", [False, True])
def test_what_a_whole_run_rose_by_does_not_depend_on_the_order_of_judging(*, reverse: bool) -> None:
    """A counter without a scenario; here the clock of users, which rises by a second a second."""
    found, _ = counts(four())
    name = catalogue.ACTIVE_USER_CLOCK.name
    (rise,) = count_run(found[::-1] if reverse else found, [name])[name].values()
    spans = [span for count in found for span in count.spans]
    first = min(span.base.time for span in spans if span.base)
    assert rise == pytest.approx(max(span.last.time for span in spans) - first)
