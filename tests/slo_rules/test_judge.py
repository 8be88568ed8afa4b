"""Verdicts on scripted runs: the boundaries, the precedence, and every known way to a wrong PASS."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cmo_slo.judge import judge
from cmo_slo.objectives import find_objectives
from cmo_slo.samples import Clock, Series
from cmo_slo.verdict import Outcome, Status
from hypothesis import given, settings
from hypothesis import strategies as st

from .judging import CMO_015, judged, unit
from .scripted import EPOCH, SCENARIOS, World, edited, four, load

if TYPE_CHECKING:
    from collections.abc import Callable

    from cmo_slo.model import Objectives


def with_first(**changes: Any) -> World:
    """The four scenarios, the first of them changed."""
    world = four()
    one = load("academic_research", start=60.0, seed=0, **changes)
    return replace(world, loads=(one, *world.loads[1:]))


def test_a_good_run_is_compliant() -> None:
    verdict = judged(four())
    assert verdict.problems == ()
    assert verdict.outcome is Outcome.COMPLIANT
    assert verdict.score == 1
    assert {one.status for one in verdict.results} == {Status.PASS}


@pytest.mark.parametrize(
    ("failures", "expected"),
    [(21, Status.FAIL), (20, Status.FAIL), (19, Status.WARN), (18, Status.PASS), (17, Status.PASS)],
)
def test_exactly_95_percent_does_not_pass(failures: int, expected: Status) -> None:
    """Of 400: 380 are exactly 95 %. The warning band of 0.5 points ends at 382, which passes."""
    found = unit(judged(with_first(failures=failures, slow=0)), "success")
    assert (found.good, found.total) == (400 - failures, 400)
    assert found.status is expected, found.reason


@pytest.mark.parametrize(("slow", "expected"), [(20, Status.FAIL), (19, Status.WARN), (12, Status.PASS)])
def test_slow_answers_count_against_two_seconds(slow: int, expected: Status) -> None:
    """Exactly 2.000 s is within."""
    found = unit(judged(with_first(failures=0, slow=slow)), "within_2s")
    assert (found.good, found.total) == (400 - slow, 400)
    assert found.status is expected


def test_a_fast_apology_is_no_fast_answer() -> None:
    found = unit(judged(with_first(failures=30, slow=0)), "within_2s")
    assert (found.good, found.status) == (370, Status.FAIL)
    assert found.details["share_of_successes_within_threshold"] == 1.0


def test_overall_pools_events_and_never_averages_ratios() -> None:
    world = four()
    small = load("clinical_rush", start=81.0, operations=100, failures=40, slow=0, misses=20)
    world = replace(world, loads=(world.loads[0], small, *world.loads[2:]))
    found = unit(judged(world), "success", "overall")
    assert (found.good, found.total) == (3 * 392 + 60, 1300)


def test_a_cancelled_share_above_its_limit_is_inconclusive() -> None:
    for cancelled, expected in ((8, Status.PASS), (9, Status.INCONCLUSIVE)):
        verdict = judged(with_first(failures=0, slow=0, cancelled=cancelled))
        assert unit(verdict, "success").status is expected
        assert unit(verdict, "within_2s").status is expected


def test_cancelled_within_two_seconds_is_left_out_and_later_counts_against_us() -> None:
    one = load("academic_research", start=60.0, seed=0, failures=0, slow=0, cancelled=8)
    questions = tuple(
        replace(question, seconds=2.4) if question.outcome == "cancelled" and n % 2 else question
        for n, question in enumerate(one.questions)
    )
    late = sum(question.outcome == "cancelled" and question.seconds > 2 for question in questions)
    assert late
    world = replace(four(), loads=(replace(one, questions=questions), *four().loads[1:]))
    found = unit(judged(world), "within_2s")
    assert (found.good, found.total) == (392, 392 + late)


def test_too_few_events_are_inconclusive() -> None:
    for operations, expected in ((99, Status.INCONCLUSIVE), (100, Status.PASS)):
        found = unit(judged(with_first(operations=operations, failures=0, slow=0, misses=10)), "success")
        assert found.status is expected


def test_cache_hits_are_judged_overall_alone() -> None:
    world = four()
    loads = tuple(load(one.name, start=one.start, seed=n, misses=120) for n, one in enumerate(world.loads))
    verdict = judged(replace(world, loads=loads))
    found = unit(verdict, "cache_hits", "overall")
    assert (found.good, found.total, found.status) == (1120, 1600, Status.FAIL)  # exactly 70 %
    assert verdict.outcome is Outcome.NON_COMPLIANT


# --- users ---


@pytest.mark.parametrize(
    ("held", "expected"), [(50.0, Status.PASS), (49.5, Status.PASS), (49.4, Status.FAIL), (20.0, Status.FAIL)]
)
def test_users_offered_but_not_served_fail(held: float, expected: Status) -> None:
    found = unit(judged(with_first(held_users=held)), "concurrent_users")
    assert found.status is expected, found.reason
    assert found.value == pytest.approx(held)


def test_users_not_offered_are_inconclusive() -> None:
    found = unit(judged(with_first(users=49, held_users=49.0)), "concurrent_users")
    assert found.status is Status.INCONCLUSIVE
    assert "Only 49 users were offered" in found.reason


def test_users_of_an_earlier_run_do_not_help() -> None:
    found = unit(judged(with_first(users=50, held_users=70.0)), "concurrent_users")
    assert found.status is Status.INCONCLUSIVE
    assert "sessions of an earlier run are still open" in found.reason


def test_a_dip_in_one_interval_is_a_fail_though_the_mean_holds() -> None:
    world = four()

    def dipped(series: Series) -> Series:
        if series.name != "cmo_active_user_seconds_total" or series.labels["scenario"] != SCENARIOS[0]:
            return series
        lost = {time: value - (10.0 if time > EPOCH + 70.0 else 0.0) for time, value in series.points.items()}
        return replace(series, points=lost)

    found = unit(judged(world, edited(world.evidence(), dipped)), "concurrent_users")
    assert found.status is Status.FAIL
    assert found.value == pytest.approx(40.0)


def test_fewer_than_two_intervals_are_inconclusive() -> None:
    found = unit(judged(four(interval=15.0, phase=2.0)), "concurrent_users")
    assert found.status is Status.INCONCLUSIVE
    assert "2 intervals" in found.reason


def test_a_user_on_two_instances_is_not_two_users() -> None:
    found = unit(judged(four(instances=2)), "concurrent_users")
    assert found.status is Status.INCONCLUSIVE
    assert "From 25.00 to 50.00" in found.reason


# --- memory ---


@pytest.mark.parametrize(
    ("grown", "expected"),
    [
        (50e6, Status.PASS),
        (90e6, Status.PASS),
        (91e6, Status.WARN),
        (100e6, Status.FAIL),
        (150e6, Status.FAIL),
    ],
)
def test_memory_growth(grown: float, expected: Status) -> None:
    found = unit(judged(with_first(peak_bytes=500e6 + grown)), "memory_growth")
    assert found.status is expected, found.reason
    assert found.value == grown


def test_a_peak_that_is_not_kept_is_inconclusive() -> None:
    found = unit(judged(with_first(peak_bytes=400e6)), "memory_growth")
    assert found.status is Status.INCONCLUSIVE


# --- restarts, missing data, doubtful data ---


def test_a_restart_makes_every_count_inconclusive_and_is_a_catastrophe() -> None:
    verdict = judged(with_first(failures=100), replace(with_first(failures=100), restarts=(90.0,)).evidence())
    assert verdict.outcome is Outcome.INCONCLUSIVE
    for result in verdict.results:
        found = {one.scope: one.status for one in result.units}
        if result.objective.name == "no_catastrophic_failure":
            assert found["clinical_rush"] is Status.FAIL
            assert found["rag_intensive"] is Status.PASS
        else:
            assert set(found.values()) == {Status.INCONCLUSIVE}


def test_a_scenario_without_a_success_is_a_catastrophe() -> None:
    verdict = judged(with_first(failures=400, slow=0))
    assert unit(verdict, "no_catastrophic_failure").status is Status.FAIL
    assert verdict.outcome is Outcome.NON_COMPLIANT


def test_a_scenario_that_did_not_run_is_inconclusive() -> None:
    world = four()
    verdict = judged(replace(world, loads=world.loads[:3]))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "does not hold rag_intensive" in unit(verdict, "success", "rag_intensive").reason
    assert unit(verdict, "success", "overall").status is Status.INCONCLUSIVE


def drop(name: str, **labels: str) -> Callable[[Series], Series | None]:
    def change(series: Series) -> Series | None:
        matches = series.name == name and all(
            series.labels.get(key) == value for key, value in labels.items()
        )
        return None if matches else series

    return change


def times(name: str, factor: float, **labels: str) -> Callable[[Series], Series]:
    def change(series: Series) -> Series:
        if series.name != name or any(series.labels.get(key) != value for key, value in labels.items()):
            return series
        return replace(series, points={time: factor * value for time, value in series.points.items()})

    return change


def twice(label: str) -> Callable[[Series], list[Series]]:
    return lambda one: [one, replace(one, labels={**one.labels, label: "second"})]


def shifted(seconds: float) -> Callable[[Series], Series]:
    return lambda one: replace(one, points={time + seconds: value for time, value in one.points.items()})


WRONG_PASSES: dict[str, Callable[[Series], Any]] = {
    "nothing stored": lambda _series: None,
    "no up": drop("up"),
    "no scrape durations": drop("scrape_duration_seconds"),
    "no start times": lambda one: None if "start_time_seconds" in one.name else one,
    "no questions counted": drop("cmo_queries_total"),
    "errors dropped": drop("cmo_queries_total", outcome="error"),
    "cancelled dropped": drop("cmo_queries_total", outcome="cancelled"),
    "no started counter": drop("cmo_queries_started_total"),
    "nothing in progress known": drop("cmo_queries_in_progress"),
    "no histogram": drop("cmo_query_duration_seconds_count"),
    "failures missing in the histogram": drop("cmo_query_duration_seconds_count", outcome="failure"),
    "no edge at 2 s": drop("cmo_query_duration_seconds_bucket", le="2.0"),
    "no cache results": drop("cmo_query_cache_results_total"),
    "misses dropped": drop("cmo_query_cache_results_total", result="miss"),
    "no user clock": drop("cmo_active_user_clock_seconds_total"),
    "no user-seconds": drop("cmo_active_user_seconds_total"),
    "no memory": drop("cmo_memory_bytes"),
    "no memory peak": drop("cmo_memory_peak_bytes"),
    "more good than all": times("cmo_query_duration_seconds_bucket", 3.0, outcome="success"),
    "half counts": times("cmo_queries_total", 0.5),
    "doubled questions": times("cmo_queries_total", 2.0),
    "two replicas": twice("replica"),
    "one process at two addresses": twice("instance"),
    "one target in two jobs": twice("job"),
    "Prometheus 20 s ahead": shifted(20.0),
    "Prometheus 20 s behind": shifted(-20.0),
    "users count backwards": times("cmo_active_user_seconds_total", -1.0),
    "in progress for ever": lambda one: (
        replace(one, points=dict.fromkeys(one.points, 1.0)) if one.name == "cmo_queries_in_progress" else one
    ),
}


@pytest.mark.parametrize("how", WRONG_PASSES)
def test_doubtful_data_is_never_compliant(how: str) -> None:
    world = four()
    verdict = judged(world, edited(world.evidence(clock=Clock(None)), WRONG_PASSES[how]))
    assert verdict.outcome is Outcome.INCONCLUSIVE, verdict.reason
    reasons = [
        one.reason for result in verdict.results for one in result.units if one.status is not Status.PASS
    ]
    assert all(reasons)


def test_start_times_of_the_process_alone_rule_a_restart_out_for_counts() -> None:
    world = four()
    verdict = judged(world, edited(world.evidence(), drop("cmo_worker_start_time_seconds")))
    assert unit(verdict, "success").status is Status.PASS
    assert unit(verdict, "no_catastrophic_failure").status is Status.INCONCLUSIVE


@pytest.mark.parametrize(
    "changes",
    [
        {"start_times": False},
        {"failed": tuple(range(50, 70))},
        {"scraped_until": 142.0},
        {"scraped_from": 62.0},
        {"broken": (("cmo_queries_total", 0.1),)},
        {"restarts": (100.0,)},
    ],
    ids=str,
)
def test_a_run_that_was_scraped_badly_is_never_compliant(changes: dict[str, Any]) -> None:
    assert judged(four(**changes)).outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize(
    ("clock", "expected"),
    [
        (Clock(0.2), Outcome.COMPLIANT),
        (Clock(0.3), Outcome.INCONCLUSIVE),
        (Clock(-3600.0), Outcome.INCONCLUSIVE),
        (Clock(0.1, 0.2), Outcome.INCONCLUSIVE),
        (Clock(None), Outcome.COMPLIANT),
    ],
)
def test_clocks_must_agree(clock: Clock, expected: Outcome) -> None:
    verdict = judged(four(), replace(four().evidence(), clock=clock))
    assert verdict.outcome is expected
    if expected is Outcome.INCONCLUSIVE:
        assert "clock of Prometheus differs" in verdict.problems[0]


def test_the_clock_of_another_host_is_checked_in_the_data() -> None:
    """A quiet service, so that neither T0 nor T1 would notice that everything is 5 s late."""
    world = four()
    late = edited(world.evidence(clock=Clock(None)), shifted(5.0))
    alone = judge(CMO_015, world.run(), late, scenarios=[SCENARIOS[3]])
    assert alone.outcome is Outcome.INCONCLUSIVE


# --- options, precedence, score ---


def test_strict_turns_a_warning_into_a_failure() -> None:
    world = with_first(failures=19, slow=0)
    assert judged(world).outcome is Outcome.COMPLIANT
    verdict = judged(world, strict=True)
    assert unit(verdict, "success").status is Status.FAIL
    assert verdict.outcome is Outcome.NON_COMPLIANT


def test_confidence_makes_a_straddling_interval_inconclusive() -> None:
    for failures, expected in (
        (14, Status.INCONCLUSIVE),
        (26, Status.INCONCLUSIVE),
        (0, Status.PASS),
        (80, Status.FAIL),
    ):
        found = unit(judged(with_first(failures=failures, slow=0), confidence=True), "success")
        assert found.status is expected, found.reason


def test_a_key_failure_comes_before_a_key_doubt() -> None:
    world = with_first(failures=100)
    verdict = judged(world, edited(world.evidence(), drop("cmo_memory_bytes")))
    assert verdict.outcome is Outcome.NON_COMPLIANT


def warned(objectives: Objectives, names: set[str]) -> Objectives:
    """The objectives with a warning band so wide that every pass of the named ones is a warning."""
    changed = [
        one.model_copy(update={"warning_band": 1e9}) if one.name in names else one
        for one in objectives.objectives
    ]
    return objectives.model_copy(update={"objectives": tuple(changed)})


def test_the_score_counts_a_warning_half() -> None:
    world = four()
    two = judge(warned(CMO_015, {"success", "within_2s"}), world.run(), world.evidence())
    assert two.score == Fraction(6) / Fraction(7)
    assert two.outcome is Outcome.COMPLIANT
    three = judge(warned(CMO_015, {"success", "within_2s", "cache_hits"}), world.run(), world.evidence())
    assert three.score == Fraction("5.5") / Fraction(7)
    assert three.outcome is Outcome.NON_COMPLIANT


def test_one_scenario_alone_is_marked_as_partial() -> None:
    world = four()
    verdict = judge(CMO_015, world.run(), world.evidence(), scenarios=["clinical_rush"])
    assert verdict.partial
    assert {one.scope for result in verdict.results for one in result.units} == {"clinical_rush", "overall"}
    assert not judged(world).partial


@settings(max_examples=40)
@given(
    failures=st.integers(0, 60),
    slow=st.integers(0, 60),
    cancelled=st.integers(0, 20),
    misses=st.integers(0, 400),
)
def test_a_pass_is_a_pass_by_the_truth(failures: int, slow: int, cancelled: int, misses: int) -> None:
    world = World((load(failures=failures, slow=slow, cancelled=cancelled, misses=misses),))
    one = world.loads[0]
    objectives = CMO_015.model_copy(update={"scenarios": (one.name,)})
    verdict = judge(objectives, world.run(), world.evidence())
    finished = 400 - cancelled
    good = {Status.PASS, Status.WARN}
    doubtful = cancelled * 50 > 400
    truth = {
        "success": one.truth(outcome="success") * 20 > 19 * finished,
        "within_2s": one.within("success") * 20 > 19 * (400 - one.within("cancelled")),
    }
    for name, passes in truth.items():
        for scope in (one.name, "overall"):
            assert (unit(verdict, name, scope).status in good) == (passes and not doubtful)


def test_the_shipped_objectives_are_the_ones_judged_here() -> None:
    assert Path(find_objectives("cmo-015")).name == "cmo-015.yml"
    assert CMO_015.scenarios == SCENARIOS


def test_a_bucket_that_holds_more_than_there_were_is_not_judged() -> None:
    world = four()
    bucket = "cmo_query_duration_seconds_bucket"

    def swollen(one: Series) -> Series:
        if one.name != bucket or one.labels["outcome"] != "success" or float(one.labels["le"]) != 2.0:
            return one
        return replace(one, points={time: value and value + 12.0 for time, value in one.points.items()})

    verdict = judge(CMO_015, world.run(), edited(world.evidence(), swollen))
    (within,) = [one for one in verdict.results if one.objective.name == "within_2s"]
    assert within.status is Status.INCONCLUSIVE
    assert "one of the two is counted wrongly" in within.units[0].reason


@pytest.mark.parametrize("factor", [1e3, 1e290])
def test_a_start_time_in_other_units_is_a_restart_in_words(factor: float) -> None:
    world = four(restarts=(70.0,))

    def scaled(one: Series) -> Series:
        if not one.name.endswith("start_time_seconds"):
            return one
        return replace(one, points={time: value * factor for time, value in one.points.items()})

    verdict = judge(CMO_015, world.run(), edited(world.evidence(), scaled))
    assert verdict.outcome is not Outcome.COMPLIANT


def test_scrapes_that_ended_before_they_began_are_not_believed() -> None:
    world = four()

    def backwards(one: Series) -> Series:
        if one.name != "scrape_duration_seconds":
            return one
        return replace(one, points={time: -value for time, value in one.points.items()})

    verdict = judge(CMO_015, world.run(), edited(world.evidence(), backwards))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "negative scrape_duration_seconds" in verdict.problems[0]
