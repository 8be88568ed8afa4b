"""What an answer counts as: by its trail, never by its HTTP status, and never guessed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cmo_loadtest.answers import read_answer, transport_failure

TRAIL = {
    "outcome": "success",
    "source": "perplexity",
    "cache": "miss",
    "tiers": [["l1", "miss"], ["l3", "error"]],
    "fallbacks": [["lightrag", "perplexity", "api_timeout"]],
}


def _body(**changes: Any) -> bytes:
    return json.dumps({"answer": "An answer.", "trail": {**TRAIL, **changes}}).encode()


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(200, "success"), (200, "error"), (504, "timeout"), (503, "rejected"), (200, "timeout")],
)
def test_the_trail_decides_whatever_the_status_says(status: int, outcome: str) -> None:
    answer = read_answer(status, _body(outcome=outcome))
    assert (answer.outcome, answer.http_status, answer.error) == (outcome, status, "")


def test_the_whole_trail_is_kept() -> None:
    answer = read_answer(200, _body())
    assert (answer.source, answer.cache) == ("perplexity", "miss")
    assert answer.tiers == (("l1", "miss"), ("l3", "error"))
    assert answer.fallbacks == (("lightrag", "perplexity", "api_timeout"),)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"Internal Server Error", "the body is not JSON"),
        (b"\xff\xfe{", "the body is not JSON"),
        (b'{"answer": "fine"}', "no trail"),
        (b'{"trail": {}}', "no outcome"),
        (b'{"trail": null}', "of another shape"),
        (b"[]", "of another shape"),
        (_body(outcome="cancelled"), "unknown outcome 'cancelled'"),
        (_body(outcome=["success"]), "unknown outcome"),
        (_body(tiers=[["l1"]]), "the trail"),
    ],
)
def test_an_answer_without_a_readable_trail_is_an_error(body: bytes, reason: str) -> None:
    answer = read_answer(200, body)
    assert answer.outcome == "error"
    assert answer.source is None
    assert answer.error.startswith("HTTP 200 without a readable trail")
    assert reason in answer.error or reason == "the trail"


def test_a_malformed_request_was_rejected() -> None:
    assert read_answer(422, b'{"detail": []}').outcome == "rejected"


def test_a_transport_failure_is_an_error_with_its_cause() -> None:
    answer = transport_failure(ConnectionRefusedError(111, "Connection refused"))
    assert (answer.outcome, answer.http_status) == ("error", None)
    assert answer.error == "ConnectionRefusedError: [Errno 111] Connection refused"
    assert transport_failure(TimeoutError()).error == "TimeoutError: no details"
