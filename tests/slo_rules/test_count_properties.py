"""Whatever happens to a scripted run, its counts equal the truth, or words say why they cannot be known."""

from __future__ import annotations

from dataclasses import replace

from cmo_exporter import catalogue
from cmo_slo.count import count_scenario
from cmo_slo.samples import Evidence, Series, find_targets
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from .counting import QUERIES, outcomes, truth
from .scripted import SCENARIOS, Load, World, edited, load

FEWER = settings(max_examples=60)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    interval = draw(st.sampled_from([1.0, 5.0, 15.0]))
    gap = draw(st.floats(0.0, 3.0))
    length = draw(st.floats(6.0, 25.0))
    loads: list[Load] = []
    start = draw(st.floats(20.0, 50.0))
    for n in range(draw(st.integers(1, 3))):
        operations = draw(st.integers(5, 60))
        failures = draw(st.integers(0, 5))
        one = load(
            SCENARIOS[n], start=start, length=length, operations=operations, failures=failures, slow=0,
            misses=operations // 4, seed=draw(st.integers(0, 9)),
        )  # fmt: skip
        loads.append(one)
        start = one.end + gap
    return World(
        tuple(loads),
        interval=interval,
        phase=draw(st.floats(0.0, 1.0)) * interval,
        scrape_seconds=draw(st.sampled_from([0.01, 0.3, 0.9])),
        render_share=draw(st.floats(0.0, 1.0)),
        lag_seconds=draw(st.floats(0.0, 0.4)),
        instances=draw(st.integers(1, 2)),
        lazy=draw(st.booleans()),
    )


def exact_or_doubtful(
    world: World, evidence: Evidence | None = None, *, told_what_was_offered: bool = False
) -> None:
    """Every count equals the truth or has a problem, even where the number offered is of no help.

    What was offered would give almost every wrong count away, and so hide that another rule is missing: the
    count is told that exactly as many were offered as it finds.
    """
    found = find_targets(evidence or world.evidence(), world.run().start)
    if found.problems:
        return
    for one, scenario in zip(world.loads, world.run().scenarios, strict=True):
        count = count_scenario(found.targets, scenario)
        if not told_what_was_offered:
            finished = sum(tally.count for tally in count.rises.get(QUERIES, {}).values())
            count = count_scenario(found.targets, replace(scenario, operations=int(finished)))
        if not count.problems and not count.restarts:
            assert outcomes(count) == truth(one)


@FEWER
@given(worlds())
def test_any_scripted_run_is_exact_or_doubtful(world: World) -> None:
    exact_or_doubtful(world)


@FEWER
@given(worlds(), st.floats(0.0, 90.0))
def test_a_restart_at_any_moment_is_exact_or_doubtful(world: World, at: float) -> None:
    exact_or_doubtful(replace(world, restarts=(at,)))


@FEWER
@given(worlds(), st.floats(0.0, 90.0))
def test_a_reset_that_no_start_time_tells_is_exact_or_doubtful(world: World, at: float) -> None:
    """The process tells the start time of its parent: only decreases and contradictions give it away."""

    def one_start(series: Series) -> Series:
        if "start_time" not in series.name or not series.points:
            return series
        return replace(series, points=dict.fromkeys(series.points, next(iter(series.points.values()))))

    world = replace(world, restarts=(at,))
    exact_or_doubtful(world, edited(world.evidence(), one_start), told_what_was_offered=True)


@FEWER
@given(worlds(), st.sets(st.integers(0, 80), max_size=30))
def test_failed_scrapes_are_exact_or_doubtful(world: World, failed: set[int]) -> None:
    exact_or_doubtful(replace(world, failed=tuple(failed)))


@FEWER
@given(worlds(), st.sampled_from([QUERIES, catalogue.QUERIES_STARTED.name, "cmo_queries_in_progress"]))
def test_samples_that_are_no_number_are_exact_or_doubtful(world: World, name: str) -> None:
    exact_or_doubtful(replace(world, broken=((name, 0.2),)))


@FEWER
@given(worlds(), st.floats(-40.0, 40.0))
def test_a_wrong_clock_is_exact_or_doubtful(world: World, shift: float) -> None:
    def shifted(series: Series) -> Series:
        return replace(series, points={time + shift: value for time, value in series.points.items()})

    exact_or_doubtful(world, edited(world.evidence(), shifted), told_what_was_offered=True)


@FEWER
@given(worlds(), st.floats(0.0, 60.0))
def test_scraping_that_begins_late_is_exact_or_doubtful(world: World, since: float) -> None:
    exact_or_doubtful(replace(world, scraped_from=since))


@FEWER
@given(worlds(), st.floats(0.0, 60.0))
def test_an_instance_born_late_is_exact_or_doubtful(world: World, born: float) -> None:
    # Questions that came before it was born reached nobody: only what was offered tells of them.
    exact_or_doubtful(replace(world, born=born), told_what_was_offered=True)


@FEWER
@given(worlds(), st.floats(20.0, 90.0))
def test_scraping_that_ends_early_is_exact_or_doubtful(world: World, until: float) -> None:
    exact_or_doubtful(replace(world, scraped_until=until))


@FEWER
@given(worlds(), st.floats(0.0, 10.0))
def test_the_same_scenario_run_twice_is_exact_or_doubtful(world: World, gap: float) -> None:
    """Another run of the same scenario just before or after must not leak into this one."""
    one = world.loads[0]
    length = one.end - one.start
    assume(one.start - length - gap > 2 * world.interval)
    for shift in (-(length + gap), length + gap):
        other = [replace(question, begin=question.begin + shift) for question in one.questions]
        both = replace(one, questions=(*one.questions, *other))
        doubled = replace(world, loads=(both,))
        found = find_targets(doubled.evidence(), doubled.run().start)
        count = count_scenario(found.targets, world.run().scenarios[0])
        if not count.problems:
            assert outcomes(count) == truth(one)
