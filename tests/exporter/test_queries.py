"""What is counted when a query begins and ends, and which outcome wins."""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from cmo_exporter import Exporter, Query, catalogue

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


@pytest.mark.parametrize(
    ("take_back", "outcome"),
    [
        (Query.failed, "error"),
        (Query.timed_out, "timeout"),
        (Query.rejected, "rejected"),
        (Query.cancelled, "cancelled"),
        (lambda query: query.answered("default"), "error"),
        (lambda query: query.concluded("timeout"), "timeout"),
    ],
)
def test_a_failure_after_a_success_takes_it_back_and_nothing_brings_it_again(
    exporter: Exporter, take_back: Callable[[Query], None], outcome: str
) -> None:
    with exporter.query() as query:
        query.answered("lightrag")
        query.answered("cache")
        take_back(query)
        query.failed()
        query.answered("lightrag")
    assert count(exporter, "cmo_queries_total", scenario="live", outcome=outcome) == 1
    for real in ("cache", "lightrag", "perplexity"):
        assert count(exporter, "cmo_answers_total", scenario="live", source=real) == 0


def test_a_beginning_of_another_kind_of_number_is_one(exporter: Exporter) -> None:
    began: Any = Decimal("0.5")
    with exporter.query(began=began) as query:
        query.answered("cache")
    assert count(exporter, "cmo_queries_in_progress", scenario="live") == 0
    assert count(exporter, "cmo_queries_total", scenario="live", outcome="success") == 1


def test_the_first_of_several_successes_counts(exporter: Exporter) -> None:
    with exporter.query() as query:
        query.answered("cache")
        query.answered("lightrag")
    assert count(exporter, "cmo_answers_total", scenario="live", source="cache") == 1
    assert count(exporter, "cmo_answers_total", scenario="live", source="lightrag") == 0


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
    [
        (ValueError(), "error"),
        (TimeoutError(), "timeout"),
        (asyncio.CancelledError(), "cancelled"),
        (GeneratorExit(), "cancelled"),
    ],
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


def test_a_query_that_is_finished_again_counts_once(exporter: Exporter) -> None:
    with exporter.query() as query:
        query.first_token()
        query.finish(GeneratorExit())
    query.finish()
    query.finish(asyncio.CancelledError())
    assert count(exporter, "cmo_queries_total", scenario="live", outcome="cancelled") == 1
    assert count(exporter, "cmo_queries_total", scenario="live", outcome="error") == 0
    assert count(exporter, "cmo_streams_abandoned_total", scenario="live") == 1


def test_the_first_token_is_timed_from_the_arrival_and_the_first_of_several_counts(
    exporter: Exporter,
) -> None:
    arrived = time.monotonic() - 5
    with exporter.query(began=arrived) as query:
        query.first_token()
        latest = time.monotonic()
        query.first_token()
    name = "cmo_query_time_to_first_token_seconds"
    assert count(exporter, f"{name}_count", scenario="live") == 1
    assert 5 <= count(exporter, f"{name}_sum", scenario="live") <= latest - arrived


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
    timed = [
        exporter.registry.get_sample_value(
            "cmo_component_duration_seconds_count", {"outcome": coarse, **labels}
        )
        for coarse in catalogue.DURATION_OUTCOMES
    ]
    assert sum(filter(None, timed)) == 1


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


def test_feedback_is_counted_by_rating(exporter: Exporter) -> None:
    assert count(exporter, "cmo_feedback_total", scenario="live", rating="down") == 0
    exporter.feedback("up")
    exporter.feedback("down", scenario="clinical_rush")
    exporter.feedback("sideways")
    assert count(exporter, "cmo_feedback_total", scenario="live", rating="up") == 1
    assert count(exporter, "cmo_feedback_total", scenario="clinical_rush", rating="down") == 1
    assert count(exporter, "cmo_feedback_total", scenario="live", rating="_other") == 1


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
