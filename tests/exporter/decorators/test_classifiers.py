"""Classifiers: what came of a call is read from what it returned."""

from __future__ import annotations

from typing import Any

import pytest
from cmo_exporter import Exporter, ExporterError, Outcome, StreamEnd, returned_failures

from .counted import calls, count, outcomes, scrape, total
from .kinds import KINDS, of_kind, run


@pytest.mark.parametrize("kind", KINDS)
def test_a_classifier_says_what_came_of_what_was_returned(exporter: Exporter, kind: str) -> None:
    seen: list[object] = []

    def classify(result: object) -> Outcome:
        seen.append(result)
        return Outcome("success", "lightrag")

    run(kind, exporter.observe_query(classify=classify)(of_kind(kind, lambda: "an answer")))
    run(kind, exporter.observe_component("lightrag", classify=classify)(of_kind(kind, lambda: "an answer")))
    expected = StreamEnd(2, "an answer") if "generator" in kind else "an answer"
    assert seen == [expected, expected]
    assert outcomes(exporter) == {"success": 1}
    assert calls(exporter) == {"success": 1}
    assert count(exporter, "cmo_answers_total", scenario="live", source="lightrag") == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("said", [None, 1, RuntimeError("a question")])
def test_a_classifier_that_fails_makes_an_error_and_is_counted(
    exporter: Exporter, kind: str, said: object, caplog: pytest.LogCaptureFixture
) -> None:
    def classify(result: object) -> Any:
        if isinstance(said, Exception):
            raise said
        return said

    function = of_kind(kind, lambda: "an answer")
    assert run(kind, exporter.observe_query(classify=classify)(function)) == "an answer"
    assert run(kind, exporter.observe_component("lightrag", classify=classify)(function)) == "an answer"
    assert outcomes(exporter) == {"error": 1}
    assert calls(exporter) == {"error": 1}
    for metric in ("cmo_queries_total", "cmo_component_calls_total"):
        assert count(exporter, "cmo_instrumentation_errors_total", metric=metric) == 1
    assert "a question" not in caplog.text


@pytest.mark.parametrize(
    ("said", "outcome", "source"),
    [
        ("success", "success", None),
        ("timeout", "timeout", None),
        (Outcome("success", "cache"), "success", "cache"),
        (Outcome("success", "stale"), "error", "stale"),
        (Outcome("error", "default"), "error", "default"),
        (Outcome("splendid", "lightrag"), "error", "lightrag"),
    ],
)
def test_what_a_classifier_may_say(
    exporter: Exporter, said: Outcome | str, outcome: str, source: str | None
) -> None:
    exporter.observe_query(classify=lambda _: said)(lambda: None)()
    assert outcomes(exporter) == {outcome: 1}
    answers = total(scrape(exporter), "cmo_answers_total", scenario="live")
    assert answers == (source is not None)
    if source is not None:
        assert count(exporter, "cmo_answers_total", scenario="live", source=source) == 1


def test_the_first_word_on_a_query_counts(exporter: Exporter) -> None:
    @exporter.observe_query(classify=lambda _: Outcome("success", "lightrag"))
    def answer() -> str:
        exporter.current_query().answered("default")
        return "I apologize"

    answer()
    assert outcomes(exporter) == {"error": 1}
    assert count(exporter, "cmo_answers_total", scenario="live", source="default") == 1


class Response:
    def __init__(self, content: str = "", error_details: str | None = None) -> None:
        self.content = content
        self.error_details = error_details


@pytest.mark.parametrize(
    ("returned", "outcome"),
    [
        (None, Outcome("error")),
        ("", Outcome("error")),
        (" \n", Outcome("error")),
        ("Glycine is an amino acid.", Outcome("success", "lightrag")),
        ("I APOLOGIZE, but I cannot answer.", Outcome("error", "default")),
        (Response("Glycine."), Outcome("success", "lightrag")),
        (Response(""), Outcome("error")),
        (Response("Glycine.", "the provider is down"), Outcome("error")),
        (Response("We apologize. I apologize."), Outcome("error", "default")),
        ({"answer": "Glycine."}, Outcome("success", "lightrag")),
        ({"answer": "Glycine.", "error_details": {"type": "quota"}}, Outcome("error")),
        (StreamEnd(0), Outcome("error")),
        (StreamEnd(3, "."), Outcome("success", "lightrag")),
    ],
)
def test_failures_that_are_returned_are_known(returned: object, outcome: Outcome) -> None:
    classify = returned_failures("lightrag", apologies=("I apologize",))
    assert classify(returned) == outcome


def test_the_source_may_be_read_from_what_was_returned() -> None:
    classify = returned_failures(lambda returned: str(returned["source"]))
    assert classify({"answer": "Glycine.", "source": "perplexity"}) == Outcome("success", "perplexity")


@pytest.mark.parametrize("argument", ["apologies", "error_fields", "text_fields"])
def test_one_word_is_taken_as_one_and_none_may_be_empty(argument: str) -> None:
    def classify(returned: object, words: object) -> Outcome | str:
        return returned_failures("lightrag", **{argument: words})(returned)  # type: ignore[arg-type]  # each its own

    for returned in ("It is a sugar.", {"i": "it", "answer": "I apologise."}, {"apologise": "", "text": "i"}):
        assert classify(returned, "apologise") == classify(returned, ("apologise",))
    for wrong in ("", (" ",), (None,)):
        with pytest.raises(ExporterError, match=f"{argument} holds .* not empty"):
            classify("It is a sugar.", wrong)
