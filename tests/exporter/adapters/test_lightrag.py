"""LightRAG 1.5 and 1.4, each run as it is; the program that runs them is ``lightrag_scenario.py``."""

from __future__ import annotations

from typing import Any

import pytest

from ..collector import attributes, collecting
from .lightrag_run import CALLS, outcomes, running

WAITS = "cmo_queue_wait_seconds_count llm"
FIRST_TOKENS = "cmo_query_time_to_first_token_seconds_count live"
APOLOGY = "Sorry, I'm not able to provide an answer to that question.[no-context]"


@pytest.fixture(scope="module")
def seen(
    version: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What the exporter saw of everything that can go well or wrong."""
    directory = tmp_path_factory.mktemp("lightrag")
    with collecting() as collector:
        found = running("lightrag_scenario", version, request, directory, collector.url)
    return {**found, "spans": collector.spans}


def test_an_answer_is_a_success_whose_model_call_is_timed_apart(seen: dict[str, Any]) -> None:
    answered = seen["single"]["answered"]
    assert answered["returned"].startswith("An answer to")
    assert answered["counted"] == {
        f"{CALLS} live lightrag success": 1,
        f"{CALLS} live llm success": 1,
        WAITS: 1,
    }


def test_what_goes_wrong_is_no_success_whether_it_raises_or_returns_none(
    seen: dict[str, Any], version: str
) -> None:
    single = seen["single"]
    assert outcomes(single["error"]["counted"]) == {"live error": 1}
    assert outcomes(single["error"]["counted"], "llm") == {"live error": 1}
    assert outcomes(single["timeout"]["counted"]) == {"live timeout": 1}
    # Nothing that it did before has changed: 1.5 returns None, 1.4 raises.
    raised = (single["error"]["returned"], single["timeout"]["returned"])
    assert raised == ((None, None) if version == "1.5" else ("RuntimeError", "TimeoutError"))


def test_a_model_call_that_is_refused_does_not_make_its_question_refused(seen: dict[str, Any]) -> None:
    for refused in (seen["single"]["refused"]["counted"], seen["streams"]["refused"]):
        assert outcomes(refused, "llm") == {"live rejected": 1}
        assert outcomes(refused) == {"live error": 1}


def test_an_empty_answer_is_an_error(seen: dict[str, Any]) -> None:
    assert seen["single"]["nothing said"]["returned"] == ""
    assert outcomes(seen["single"]["nothing said"]["counted"]) == {"live error": 1}


def test_an_apology_is_an_error_although_it_is_returned_as_an_answer(seen: dict[str, Any]) -> None:
    assert seen["single"]["no results"]["returned"] == APOLOGY
    assert seen["single"]["no results"]["counted"] == {f"{CALLS} live lightrag error": 1}


def test_a_retrieval_that_says_that_it_failed_is_an_error(seen: dict[str, Any], version: str) -> None:
    if version == "1.4":
        assert "retrievals" not in seen
        return
    assert seen["retrievals"] == {
        "success": {f"{CALLS} live lightrag success": 1},
        "failure": {f"{CALLS} live lightrag error": 1},
    }


def test_a_stream_is_under_way_until_its_last_piece(seen: dict[str, Any]) -> None:
    streams = seen["streams"]
    assert streams["returned"] == {
        "cmo_component_in_progress lightrag": 1,
        "cmo_component_in_progress llm": 1,
        WAITS: 1,
    }
    assert streams["first token"] == {FIRST_TOKENS: 1}
    assert streams["text"] == "One two three."
    assert outcomes(streams["ended"]) == outcomes(streams["ended"], "llm") == {"live success": 1}
    assert streams["ended"]["cmo_component_in_progress lightrag"] == -1
    assert streams["is a generator"]


def test_an_abandoned_stream_is_cancelled_even_if_it_was_never_read(seen: dict[str, Any]) -> None:
    streams = seen["streams"]
    for abandoned in (streams["abandoned"], streams["never read"]):
        assert outcomes(abandoned) == outcomes(abandoned, "llm") == {"live cancelled": 1}
    assert FIRST_TOKENS not in streams["never read"]


def test_a_stream_that_breaks_off_is_an_error(seen: dict[str, Any]) -> None:
    assert seen["streams"]["broke off with"] == "broke off"
    assert outcomes(seen["streams"]["broke off"]) == {"live error": 1}


def test_sixty_at_once_each_have_their_own_outcome_and_query(seen: dict[str, Any]) -> None:
    crowd = seen["crowd"]
    assert outcomes(crowd["counted"]) == {
        "failing error": 18, "failing cancelled": 2, "fine success": 18, "fine cancelled": 2,
        "slow success": 18, "slow cancelled": 2,
    }  # fmt: skip
    assert outcomes(crowd["counted"], "llm") == {"failing error": 18, "fine success": 18, "slow success": 18}
    assert crowd["fine answers"] == 36
    assert seen["wrong query"] == 0


def test_the_queue_is_seen_while_it_is_there_and_waits_apart_from_the_model(seen: dict[str, Any]) -> None:
    crowd = seen["crowd"]
    assert crowd["most at once"] == 4
    assert crowd["depth"] == 56
    assert crowd["depth after six left"] == 50
    assert crowd["counted"][WAITS] == 54  # the six who left waited for nothing
    assert crowd["waited"] > 0


def test_its_own_cache_counts_only_while_it_is_on(seen: dict[str, Any]) -> None:
    assert not any("cmo_cache" in key for key in seen["single"]["answered"]["counted"])
    first, second = seen["cache"]
    assert (first["calls"], second["calls"]) == (1, 0)
    assert first["answer"] == second["answer"]
    assert first["counted"]["cmo_cache_requests_total live lightrag miss"] == 1
    assert second["counted"] == {
        f"{CALLS} live lightrag success": 1,
        "cmo_cache_requests_total live lightrag hit": 1,
    }


def test_a_model_that_is_exchanged_later_is_measured_too(seen: dict[str, Any], version: str) -> None:
    if version == "1.4":
        assert "another model" not in seen
        return
    assert outcomes(seen["another model"], "llm") == {"live success": 1}
    assert seen["another model"][WAITS] == 1


def test_building_the_index_is_no_question(seen: dict[str, Any]) -> None:
    assert seen["indexing"] == {}


def test_nothing_is_left_over(seen: dict[str, Any]) -> None:
    assert seen["at rest"] == {}


def test_a_model_call_is_told_by_its_own_span_inside_that_of_its_question(
    version: str, seen: dict[str, Any]
) -> None:
    """Also of the second question, though the worker that makes the call began with the first."""
    questions = {span.span_id: span for span in seen["spans"] if span.name == "lightrag"}
    calls = [span for span in seen["spans"] if span.name.startswith("chat ")]
    own = ["chat gpt-other"] if version == "1.5" else []  # the model of a role
    assert [call.name for call in calls] == ["chat gpt-test", "chat gpt-test", *own]
    assert len(questions) == len(calls)
    assert {call.parent_span_id for call in calls} == set(questions)
    for call in calls:
        assert call.kind == call.SPAN_KIND_CLIENT
        assert call.trace_id == questions[call.parent_span_id].trace_id
        told = attributes(call)
        assert told["gen_ai.provider.name"] == "openai"
        assert call.name == f"chat {told['gen_ai.request.model']}"
        assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (70, 4)
    assert "gen_ai.usage.input_tokens" not in attributes(next(iter(questions.values())))
