"""What is counted when a query begins and ends, and which outcome wins."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from cmo_exporter import Exporter, ExporterSettings, Price, Query, catalogue
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable


def count(exporter: Exporter, name: str, **labels: str) -> float:
    value = exporter.registry.get_sample_value(name, labels)
    assert value is not None, f"there is no series {name}{labels}"
    return value


def test_a_real_answer_is_a_success(exporter: Exporter) -> None:
    with exporter.query(scenario="clinical_rush") as query:
        assert exporter.current_query() is query
        assert count(exporter, "cmo_queries_in_progress", scenario="clinical_rush") == 1
        query.cache_result("hit")
        query.answered("cache")
    assert count(exporter, "cmo_queries_started_total", scenario="clinical_rush") == 1
    assert count(exporter, "cmo_queries_total", scenario="clinical_rush", outcome="success") == 1
    assert count(exporter, "cmo_answers_total", scenario="clinical_rush", source="cache") == 1
    assert count(exporter, "cmo_query_cache_results_total", scenario="clinical_rush", result="hit") == 1
    assert count(exporter, "cmo_queries_in_progress", scenario="clinical_rush") == 0
    name = "cmo_query_duration_seconds_count"
    assert count(exporter, name, scenario="clinical_rush", outcome="success") == 1


@pytest.mark.parametrize("source", ["stale", "default"])
def test_an_apology_is_an_error_and_still_an_answer(exporter: Exporter, source: str) -> None:
    with exporter.query() as query:
        query.answered(source)
    assert count(exporter, "cmo_queries_total", scenario="live", outcome="error") == 1
    assert count(exporter, "cmo_answers_total", scenario="live", source=source) == 1
    assert count(exporter, "cmo_query_duration_seconds_count", scenario="live", outcome="failure") == 1


@pytest.mark.parametrize(
    ("say", "outcome"),
    [
        (Query.failed, "error"),
        (Query.timed_out, "timeout"),
        (Query.rejected, "rejected"),
        (Query.cancelled, "cancelled"),
    ],
)
def test_the_outcome_is_what_the_service_says(
    exporter: Exporter, say: Callable[[Query], None], outcome: str
) -> None:
    with exporter.query() as query:
        say(query)
        query.answered("lightrag")
    assert count(exporter, "cmo_queries_total", scenario="live", outcome=outcome) == 1
    assert count(exporter, "cmo_answers_total", scenario="live", source="lightrag") == 0


def test_a_query_left_without_an_outcome_is_an_error(exporter: Exporter) -> None:
    with exporter.query():
        pass
    assert count(exporter, "cmo_queries_total", scenario="live", outcome="error") == 1


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(ValueError(), "error"), (asyncio.CancelledError(), "cancelled"), (GeneratorExit(), "cancelled")],
)
def test_an_answer_that_was_not_delivered_is_none(
    exporter: Exporter, error: BaseException, outcome: str
) -> None:
    def answer() -> None:
        with exporter.query() as query:
            query.answered("lightrag")
            raise error

    with pytest.raises(type(error)):
        answer()
    assert count(exporter, "cmo_queries_total", scenario="live", outcome=outcome) == 1
    assert count(exporter, "cmo_answers_total", scenario="live", source="lightrag") == 0


def test_leaving_does_not_turn_a_failure_into_a_cancellation(exporter: Exporter) -> None:
    with exporter.query() as query:
        query.timed_out()
        query.client_left()
    assert count(exporter, "cmo_queries_total", scenario="live", outcome="timeout") == 1


def test_what_is_said_after_the_user_has_left_changes_nothing(exporter: Exporter) -> None:
    with exporter.query() as query:
        query.client_left()
        query.rejected()
    assert count(exporter, "cmo_queries_total", scenario="live", outcome="cancelled") == 1


def test_a_query_that_asked_no_cache_is_a_bypass(exporter: Exporter) -> None:
    with exporter.query():
        pass
    assert count(exporter, "cmo_query_cache_results_total", scenario="live", result="bypass") == 1


def test_a_finished_query_is_no_longer_current(exporter: Exporter) -> None:
    with exporter.query(scenario="clinical_rush") as query:
        pass
    query.answered("lightrag")
    stand_in = exporter.current_query()
    assert stand_in is not query
    stand_in.answered("lightrag")
    stand_in.first_token()
    stand_in.cache_result("hit")
    assert count(exporter, "cmo_queries_started_total", scenario="live") == 0
    stand_in.cache_request("l1", "hit")
    assert count(exporter, "cmo_cache_requests_total", scenario="live", tier="l1", result="hit") == 1


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, "success"),
        (TimeoutError(), "timeout"),
        (asyncio.CancelledError(), "cancelled"),
        (OSError(), "error"),
    ],
)
def test_a_component_call_is_judged_by_how_it_is_left(
    exporter: Exporter, error: BaseException | None, outcome: str
) -> None:
    def call() -> None:
        with exporter.query(scenario="rag_intensive") as query, query.component("llm"):
            assert count(exporter, "cmo_component_in_progress", component="llm") == 1
            if error:
                raise error

    if error:
        with pytest.raises(type(error)):
            call()
    else:
        call()
    labels = {"scenario": "rag_intensive", "component": "llm"}
    assert count(exporter, "cmo_component_calls_total", outcome=outcome, **labels) == 1
    assert count(exporter, "cmo_component_in_progress", component="llm") == 0
    assert (
        sum(
            count(exporter, "cmo_component_duration_seconds_count", outcome=coarse, **labels)
            for coarse in catalogue.DURATION_OUTCOMES
        )
        == 1
    )


def test_a_component_that_returns_its_failure_says_so(exporter: Exporter) -> None:
    with exporter.current_query().component("lightrag") as call:
        call.outcome("rejected")
    labels = {"scenario": "live", "component": "lightrag"}
    assert count(exporter, "cmo_component_calls_total", outcome="rejected", **labels) == 1


def test_an_outcome_that_nobody_knows_is_other_and_counted_as_dropped(exporter: Exporter) -> None:
    with exporter.current_query().component("lightrag") as call:
        call.outcome("exploded")
    labels = {"scenario": "live", "component": "lightrag"}
    assert count(exporter, "cmo_component_calls_total", outcome="_other", **labels) == 1
    assert count(exporter, "cmo_component_duration_seconds_count", outcome="failure", **labels) == 1
    assert count(exporter, "cmo_series_dropped_total", metric="cmo_component_calls_total") == 1


def test_queries_in_tasks_do_not_see_each_other(exporter: Exporter) -> None:
    async def one(scenario: str) -> None:
        with exporter.query(scenario=scenario) as query:
            await asyncio.sleep(0)
            assert exporter.current_query() is query
            query.answered("lightrag")

    async def both() -> None:
        await asyncio.gather(*(one(scenario) for scenario in exporter.settings.scenarios * 5))

    asyncio.run(both())
    for scenario in exporter.settings.scenarios:
        assert count(exporter, "cmo_queries_total", scenario=scenario, outcome="success") == 5


def test_the_oldest_query_ages_until_it_is_gone(
    exporter: Exporter, eventually: Callable[[Callable[[], object]], None]
) -> None:
    assert count(exporter, "cmo_oldest_query_age_seconds", scenario="live") == 0
    with exporter.query():
        first = count(exporter, "cmo_oldest_query_age_seconds", scenario="live")
        eventually(lambda: count(exporter, "cmo_oldest_query_age_seconds", scenario="live") > first)
    assert count(exporter, "cmo_oldest_query_age_seconds", scenario="live") == 0


class Spiteful(str):
    """A string that raises whatever it is asked."""

    __slots__ = ()

    def __hash__(self) -> int:
        raise RuntimeError("no hash")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")


# Hypothesis itself hashes and compares what it draws, so it draws a word for it.
SPITEFUL = "a string that raises"
WORDS = st.one_of(
    st.sampled_from(
        (*catalogue.SOURCES, *catalogue.CACHE_TIERS, *catalogue.CACHE_RESULTS, *catalogue.BREAKER_STATES)
    ),
    st.sampled_from(("live", "clinical_rush", "llm", "_other", "", "stub", "cmo-stub")),
    st.text(max_size=20),
    st.none(),
    st.integers(),
    st.just([]),
    st.just(SPITEFUL),
)
AMOUNTS = st.one_of(st.floats(), st.integers(-5, 5), st.none(), st.just("many"))
STEPS = st.lists(st.tuples(st.integers(0, 22), WORDS, WORDS, WORDS, AMOUNTS), max_size=25)


def leave_last(queries: list[Query], error: ValueError | None) -> None:
    if queries:
        queries.pop().__exit__(type(error) if error else None, error, None)


def take(exporter: Exporter, queries: list[Query], step: tuple[int, object, object, object, object]) -> None:
    """One call of the interface, with whatever arguments came."""
    which, *words, amount = step
    a, b, c = (Spiteful("live") if word == SPITEFUL else word for word in words)
    query = queries[-1] if queries else exporter.current_query()
    call = query.component(a)  # type: ignore[arg-type]
    calls: list[Callable[[], object]] = [
        lambda: queries.append(exporter.query(a, b).__enter__()),  # type: ignore[arg-type]
        lambda: leave_last(queries, None),
        lambda: leave_last(queries, ValueError()),
        query.begin,
        query.finish,
        lambda: query.answered(a),  # type: ignore[arg-type]
        query.timed_out,
        query.rejected,
        query.client_left,
        lambda: query.cache_result(a),  # type: ignore[arg-type]
        lambda: query.cache_request(a, b),  # type: ignore[arg-type]
        lambda: query.fallback(source=a, target=b, reason=c),  # type: ignore[arg-type]
        lambda: call.__enter__().outcome(b),  # type: ignore[arg-type]
        lambda: call.__enter__().__exit__(None, None, None),
        lambda: exporter.retry(a),  # type: ignore[arg-type]
        lambda: exporter.queue_wait(a, amount),  # type: ignore[arg-type]
        lambda: exporter.queue_depth(a, amount),  # type: ignore[arg-type]
        lambda: exporter.breaker_state(a, b),  # type: ignore[arg-type]
        lambda: exporter.breaker_rejection(a, b),  # type: ignore[arg-type]
        lambda: exporter.cache_entries(a, amount),  # type: ignore[arg-type]
        lambda: exporter.cache_eviction(a, amount),  # type: ignore[arg-type]
        lambda: exporter.tokens(a, b, c, input_tokens=amount, output_tokens=amount),  # type: ignore[arg-type]
        lambda: exporter.end_session(a),  # type: ignore[arg-type]
    ]
    calls[which]()


@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS)
def test_any_sequence_of_calls_balances_and_makes_no_series(steps: list) -> None:  # type: ignore[type-arg]
    settings = ExporterSettings(
        scenarios=("clinical_rush",),
        components=("llm",),
        models=(("llm", "stub", "cmo-stub"),),
        prices={"cmo-stub": Price(1, 1)},
    )
    exporter = Exporter(settings)
    queries: list[Query] = []
    for step in steps:
        take(exporter, queries, step)
    while queries:
        queries.pop().finish()
    values = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in exporter.registry.collect()
        for sample in family.samples
    }
    closed = allowed_values(settings)
    for (name, labels), value in values.items():
        assert value >= 0, (name, labels)
        for label, text in labels:
            assert text in closed.get(label, (text,)), (name, labels)
    for scenario in (*settings.all_scenarios, catalogue.OTHER):
        key = (("scenario", scenario),)
        finished = sum(
            value
            for (name, labels), value in values.items()
            if name == "cmo_queries_total" and ("scenario", scenario) in labels
        )
        assert values.get(("cmo_queries_in_progress", key), 0) == 0
        assert values.get(("cmo_queries_started_total", key), 0) == finished


def allowed_values(settings: ExporterSettings) -> dict[str, tuple[str, ...]]:
    """Every label value that may appear, by label."""
    other = (catalogue.OTHER,)
    lists: dict[str, tuple[str, ...]] = {
        "scenario": settings.all_scenarios + other,
        "component": settings.components + other,
        "provider": ("stub", *other),
        "model": tuple(model for _, _, model in settings.models) + other,
    }
    for metric in catalogue.CATALOGUE:
        for label, values in metric.labels.items():
            if values is not None:
                lists[label] = tuple({*lists.get(label, ()), *values, *other})
    return lists
