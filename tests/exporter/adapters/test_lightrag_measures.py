"""How LightRAG's questions are measured: amounts, every form of asking, threads, and faults of the exporter.

The program that asks is ``lightrag_measures.py``.
"""

from __future__ import annotations

from typing import Any

import pytest

from .lightrag_run import CALLS, outcomes, running

DURATION = "cmo_component_duration_seconds_sum"
FIRST_TOKENS = "cmo_query_time_to_first_token_seconds_count live"
SUCCESS = {"live success": 1}
ERROR = {"live error": 1}


@pytest.fixture(scope="module")
def seen(
    version: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    return running("lightrag_measures", version, request, tmp_path_factory.mktemp("lightrag"))


@pytest.fixture
def amounts(seen: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = seen["amounts"]
    return found


@pytest.fixture
def replies(seen: dict[str, Any], version: str) -> dict[str, Any]:
    found: dict[str, Any] = seen["replies"]
    if version == "1.4":
        assert found == {}
        pytest.skip("1.4.6 has no aquery_llm")
    return found


def between(begins: list[float], ends: list[float]) -> float:
    return sum(end - begin for begin, end in zip(begins, ends, strict=True))


def test_a_wait_is_what_lies_before_the_provider_and_no_more(amounts: dict[str, Any]) -> None:
    waited = amounts["measured"]["cmo_queue_wait_seconds_sum llm"]
    assert waited <= between(amounts["asked"], amounts["entered"])
    # While the first has the only place, the second is known to wait.
    assert waited >= amounts["left"][0] - amounts["seen waiting"]


def test_a_model_call_takes_what_the_provider_takes_and_no_wait(amounts: dict[str, Any]) -> None:
    took = amounts["measured"][f"{DURATION} llm"]
    assert took >= between(amounts["entered"], amounts["left"])
    # The second's turn does not come before the first has left.
    turns = [amounts["asked"][0], amounts["left"][0]]
    assert took <= between(turns, amounts["answered"])


def test_a_question_takes_its_wait_and_its_model_call(amounts: dict[str, Any]) -> None:
    measured = amounts["measured"]
    assert measured[f"{DURATION} lightrag"] <= between(amounts["asked"], amounts["answered"])
    parts = measured["cmo_queue_wait_seconds_sum llm"] + between(amounts["entered"], amounts["left"])
    assert measured[f"{DURATION} lightrag"] >= parts


def test_a_wait_is_told_of_the_query_that_waited(seen: dict[str, Any]) -> None:
    """Also of the second, though the worker that makes the call began with the first."""
    assert seen["logged"] == [["llm"], ["llm"]]


def test_a_reply_that_says_failure_is_an_error_although_it_is_returned(replies: dict[str, Any]) -> None:
    assert replies["answered"]["status"] == "success"
    for name in ("raised", "too late", "nothing found"):
        assert replies[name]["status"] == "failure"
    assert replies["answered"]["content"].startswith("An answer to")
    assert outcomes(replies["answered"]["counted"]) == SUCCESS
    assert outcomes(replies["raised"]["counted"]) == ERROR
    assert outcomes(replies["nothing found"]["counted"]) == ERROR
    assert outcomes(replies["too late"]["counted"]) == {"live timeout": 1}
    assert outcomes(replies["nothing found"]["counted"], "llm") == {}


def test_the_stream_in_a_reply_is_followed_to_its_end(replies: dict[str, Any]) -> None:
    assert replies["is a generator"]
    assert outcomes(replies["returned"]) == {}
    assert replies["returned"]["cmo_component_in_progress lightrag"] == 1
    assert replies["first token"] == {FIRST_TOKENS: 1}
    assert replies["text"] == "One two three."
    assert outcomes(replies["ended"]) == outcomes(replies["ended"], "llm") == SUCCESS
    assert replies["ended"]["cmo_component_in_progress lightrag"] == -1


def test_the_stream_in_a_reply_that_nobody_reads_on_is_cancelled(replies: dict[str, Any]) -> None:
    for left in (replies["abandoned"], replies["never read"]):
        assert outcomes(left) == outcomes(left, "llm") == {"live cancelled": 1}


def test_the_stream_in_a_reply_that_breaks_off_is_an_error(replies: dict[str, Any]) -> None:
    assert outcomes(replies["broke off"]) == outcomes(replies["broke off"], "llm") == ERROR


def test_the_synchronous_forms_are_measured_once_each(seen: dict[str, Any], version: str) -> None:
    synchronous = seen["synchronous"]
    forms = {name for name in synchronous if name.startswith("query")}
    if version == "1.5":
        assert forms == {"query", "query_llm", "query_data"}
    else:
        assert forms == {"query", "query_with_separate_keyword_extraction"}
        raised = synchronous.pop("query_with_separate_keyword_extraction")
        assert (outcomes(raised), outcomes(raised, "llm")) == (ERROR, SUCCESS)
    for name in forms & synchronous.keys():
        answered, unanswered = synchronous[name]
        assert (outcomes(answered), outcomes(unanswered)) == (SUCCESS, ERROR)
        assert outcomes(answered, "llm") == ({} if name == "query_data" else SUCCESS)


def test_a_stream_that_a_synchronous_form_returns_is_followed(seen: dict[str, Any]) -> None:
    synchronous = seen["synchronous"]
    assert outcomes(synchronous["returned a stream"]) == {}
    assert synchronous["text"] == "One two three."
    assert outcomes(synchronous["read it"]) == outcomes(synchronous["read it"], "llm") == SUCCESS
    assert synchronous["read it"][FIRST_TOKENS] == 1


def test_a_fault_of_the_exporter_changes_nothing_for_the_service(seen: dict[str, Any], version: str) -> None:
    faults = seen["faults"]
    failures = [None, None] if version == "1.5" else ["RuntimeError", "TimeoutError"]
    assert faults["whole"][0].startswith("An answer to")
    assert faults["whole"][1:] == [*failures, "One two three.", "broke off"]
    for part, found in faults["parts"].items():
        assert found["got"] == faults["whole"], part


def test_a_fault_of_the_exporter_is_counted_each_time_and_said_once(seen: dict[str, Any]) -> None:
    faults = seen["faults"]
    assert all(sum(found["errors"].values()) for found in faults["parts"].values())
    # Each of the five questions makes one ticket, and asks it to start once.
    assert faults["parts"]["_Ticket.__init__"]["errors"] == {"cmo_queue_depth": 5}
    assert faults["parts"]["_Ticket.start"]["errors"] == {"cmo_component_calls_total": 5}
    named = sorted({metric for found in faults["parts"].values() for metric in found["errors"]})
    assert sorted(line.split()[1] for line in faults["said"]) == named
    assert not any("what a user has asked" in line for line in faults["said"])


def test_after_a_fault_everything_is_measured_as_before(seen: dict[str, Any]) -> None:
    after = seen["faults"]["counted after"]
    expected = {"live success": 2, "live error": 2, "live timeout": 1}
    assert outcomes(after) == outcomes(after, "llm") == expected
    assert not any("instrumentation_errors" in key for key in after)


def test_objects_made_in_several_threads_are_counted_once_each(seen: dict[str, Any]) -> None:
    threads = seen["threads"]
    assert threads["made"] == 8
    first, again = threads["in one loop"]["first"], threads["in one loop"]["again"]
    assert first == {
        f"{CALLS} live lightrag success": 40,
        f"{CALLS} live llm success": 40,
        "cmo_queue_wait_seconds_count llm": 40,
        "cmo_cache_requests_total live lightrag miss": 40,
    }
    assert again == {
        f"{CALLS} live lightrag success": 8,
        "cmo_cache_requests_total live lightrag hit": 8,
    }
    assert threads["in one loop"]["depth"] == 0


def test_questions_of_several_threads_are_counted_right(seen: dict[str, Any], version: str) -> None:
    if version == "1.4":
        pytest.skip("the locks that 1.4.6 takes for every question are of one loop")
    found = seen["threads"]["in loops of their own"]
    assert found["answers"] == 400
    assert found["counted"] == {
        f"{CALLS} live lightrag success": 400,
        f"{CALLS} live llm success": 400,
        "cmo_queue_wait_seconds_count llm": 400,
    }
    assert found["depth"] == 0
    assert seen["threads"]["overtaken"] == 0
