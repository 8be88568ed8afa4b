"""The real client of OpenAI against a real server: what a model call took, used and cost."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import time
from typing import TYPE_CHECKING, Any

import openai
import pytest
from cmo_exporter import Exporter
from cmo_exporter.adapters import instrument_openai

from ..collector import Collector, attributes
from .model_server import PIECES, USAGE, ModelServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from opentelemetry.proto.trace.v1.trace_pb2 import Span

    from .readings import Reading, Readings

CALLS = ("cmo_component_calls_total", "live", "llm")
IN_PROGRESS = ("cmo_component_in_progress", "llm")
TOKENS = ("cmo_llm_tokens_total", "llm", "stub", "small")
FIRST_TOKEN = ("cmo_llm_time_to_first_token_seconds_count", "llm", "stub", "small")
COUNTED = (
    "cmo_component_calls",
    "cmo_component_in_progress",
    "cmo_instrumentation_errors",
    "cmo_llm_cost",
    "cmo_llm_time_to_first_token_seconds_count",
    "cmo_llm_tokens",
    "cmo_retries",
    "cmo_series_dropped",
)
USED: dict[tuple[str, ...], Any] = {(*TOKENS, "input"): 100, (*TOKENS, "output"): 50,
                 ("cmo_llm_cost_usd_total", "llm", "stub", "small"): pytest.approx(0.0002)}  # fmt: skip
STREAM: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}


@pytest.fixture
def server() -> ModelServer:
    return ModelServer()


@pytest.fixture
def base_url(server: ModelServer, serve: Callable[[Any], AbstractContextManager[int]]) -> Iterator[str]:
    with serve(server.app) as port:
        yield f"http://127.0.0.1:{port}/v1"


@pytest.fixture
def client(base_url: str, adapted: Exporter) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=base_url, api_key="secret", max_retries=0) as plain:
        measured = instrument_openai(plain, adapted, component="llm", provider="stub")
        assert instrument_openai(measured, adapted, component="llm", provider="stub") is plain
        yield measured


def asking(words: str, **more: Any) -> dict[str, Any]:
    return {"model": "small", "messages": [{"role": "user", "content": words}]} | more


def test_tokens_and_cost_of_a_call_are_those_that_the_provider_reports(
    client: openai.OpenAI, readings: Readings
) -> None:
    answer = client.chat.completions.create(**asking("hello"))
    assert type(answer) is openai.types.chat.ChatCompletion
    assert answer.choices[0].message.content == "One two three."
    assert readings.added(*COUNTED) == {(*CALLS, "success"): 1, **USED}


def test_an_embedding_has_read_tokens_only_and_without_a_price_no_cost(
    client: openai.OpenAI, readings: Readings
) -> None:
    client.embeddings.create(model="embedder", input="hello")
    assert readings.added(*COUNTED) == {
        (*CALLS, "success"): 1,
        ("cmo_llm_tokens_total", "llm", "stub", "embedder", "input"): 7,
    }


def test_a_stream_is_under_way_until_its_end_and_its_first_words_are_timed(
    client: openai.OpenAI, readings: Readings
) -> None:
    stream = client.chat.completions.create(**asking("hello", **STREAM))
    assert type(stream) is openai.Stream
    next(stream)  # says who speaks, and nothing else
    assert readings.added(*COUNTED) == {IN_PROGRESS: 1}
    next(stream)
    assert readings.added(*COUNTED) == {FIRST_TOKEN: 1}
    assert len(list(stream)) == len(PIECES) + 1
    assert readings.added(*COUNTED) == {(*CALLS, "success"): 1, IN_PROGRESS: -1, **USED}


def test_the_first_words_are_timed_from_the_call_on(client: openai.OpenAI, readings: Readings) -> None:
    asked = time.monotonic()
    stream = client.chat.completions.create(**asking("hello", **STREAM))
    begun = time.monotonic()
    next(stream)  # says who speaks, and nothing else
    readings.added()
    silent = time.monotonic()
    next(stream)
    shortest, longest = silent - begun, time.monotonic() - asked
    assert shortest <= readings.now("cmo_llm_time_to_first_token_seconds_sum", *FIRST_TOKEN[1:]) <= longest
    stream.close()


async def test_the_asynchronous_client_streams_alike(
    base_url: str, adapted: Exporter, readings: Readings
) -> None:
    async with openai.AsyncOpenAI(base_url=base_url, api_key="secret", max_retries=0) as plain:
        client = instrument_openai(plain, adapted, component="llm", provider="stub")
        stream = await client.chat.completions.create(**asking("hello", **STREAM))
        assert type(stream) is openai.AsyncStream
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
        assert text == "".join(PIECES)
        assert readings.added(*COUNTED) == {(*CALLS, "success"): 1, FIRST_TOKEN: 1, **USED}
        async with await client.chat.completions.create(**asking("stall", **STREAM)) as stream:
            async for _ in stream:
                break
        assert readings.added(*COUNTED) == {(*CALLS, "cancelled"): 1}
        waiting = asyncio.create_task(client.chat.completions.create(**asking("wait")))
        while not readings.now(*IN_PROGRESS):  # noqa: ASYNC110 - a metric wakes nobody
            await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert readings.added(*COUNTED) == {(*CALLS, "cancelled"): 1}
        with pytest.raises(openai.RateLimitError):
            await client.chat.completions.create(**asking("status 429"))
        assert readings.added(*COUNTED) == {(*CALLS, "rejected"): 1}


def test_usage_that_comes_with_every_piece_is_counted_once(client: openai.OpenAI, readings: Readings) -> None:
    list(client.chat.completions.create(**asking("usage all the time", stream=True)))
    assert readings.added("cmo_llm_tokens") == {(*TOKENS, "input"): 100, (*TOKENS, "output"): 50}


def test_a_stream_that_nobody_reads_on_is_cancelled(client: openai.OpenAI, readings: Readings) -> None:
    with client.chat.completions.create(**asking("stall", **STREAM)) as stream:
        next(stream)
    assert readings.added(*COUNTED) == {(*CALLS, "cancelled"): 1}


def test_a_stream_that_is_thrown_away_is_cancelled(client: openai.OpenAI, readings: Readings) -> None:
    stream = client.chat.completions.create(**asking("hello", **STREAM))
    next(stream)
    del stream
    gc.collect()
    assert readings.added(*COUNTED) == {(*CALLS, "cancelled"): 1}


def test_a_stream_that_is_never_begun_is_cancelled(client: openai.OpenAI, readings: Readings) -> None:
    raw = client.chat.completions.with_raw_response.create(**asking("hello", **STREAM))
    assert readings.added(*COUNTED) == {IN_PROGRESS: 1}
    del raw
    gc.collect()
    assert readings.added(*COUNTED) == {(*CALLS, "cancelled"): 1, IN_PROGRESS: -1}


def test_a_stream_that_stops_before_the_model_is_done_is_an_error(
    client: openai.OpenAI, readings: Readings
) -> None:
    assert list(client.chat.completions.create(**asking("break off", **STREAM)))
    assert readings.added(*COUNTED) == {(*CALLS, "error"): 1, FIRST_TOKEN: 1}
    with pytest.raises(openai.APIError):
        list(client.chat.completions.create(**asking("fail", **STREAM)))
    assert readings.added(*COUNTED) == {(*CALLS, "error"): 1, FIRST_TOKEN: 1}


@pytest.mark.parametrize(
    ("status", "outcome"), [(500, "error"), (429, "rejected"), (408, "timeout"), (504, "timeout")]
)
def test_a_refusal_is_named_for_what_it_is(
    client: openai.OpenAI, readings: Readings, status: int, outcome: str
) -> None:
    with pytest.raises(openai.APIStatusError):
        client.chat.completions.create(**asking(f"status {status}"))
    assert readings.added(*COUNTED) == {(*CALLS, outcome): 1}


def test_a_time_out_of_the_client_is_a_timeout_though_it_is_no_timeout_error(
    client: openai.OpenAI, readings: Readings
) -> None:
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.2).chat.completions.create(**asking("wait"))
    assert readings.added(*COUNTED) == {(*CALLS, "timeout"): 1}
    with pytest.raises(openai.APITimeoutError):
        list(client.with_options(timeout=0.2).chat.completions.create(**asking("stall", **STREAM)))
    assert readings.added(*COUNTED) == {(*CALLS, "timeout"): 1, FIRST_TOKEN: 1}


def test_the_attempts_that_the_client_makes_by_itself_are_one_call_and_counted_as_retries(
    client: openai.OpenAI, server: ModelServer, readings: Readings
) -> None:
    with pytest.raises(openai.InternalServerError):
        client.with_options(max_retries=2).chat.completions.create(**asking("status 500"))
    assert server.requests == 3
    assert readings.added(*COUNTED) == {(*CALLS, "error"): 1, ("cmo_retries_total", "llm"): 2}


def test_an_answer_without_choices_is_an_error_though_its_status_is_200(
    client: openai.OpenAI, readings: Readings
) -> None:
    client.chat.completions.create(**asking("no choices"))
    assert readings.added(*COUNTED) == {(*CALLS, "error"): 1, **USED}


def test_a_raw_response_is_counted_and_its_tokens_once_it_is_parsed(
    client: openai.OpenAI, readings: Readings
) -> None:
    raw = client.chat.completions.with_raw_response.create(**asking("hello"))
    assert readings.added(*COUNTED) == {(*CALLS, "success"): 1}
    assert raw.parse() is raw.parse()
    assert readings.added(*COUNTED) == USED
    stream = client.chat.completions.with_raw_response.create(**asking("hello", **STREAM)).parse()
    assert list(stream)
    assert readings.added(*COUNTED) == {(*CALLS, "success"): 1, FIRST_TOKEN: 1, **USED}


@pytest.mark.parametrize(
    ("words", "outcome", "used"),
    [("hello", "success", USED), ("fail", "error", USED), ("break off", "error", {})],
)
def test_the_responses_api_is_measured_alike(
    client: openai.OpenAI, readings: Readings, words: str, outcome: str, used: Reading
) -> None:
    for _ in client.responses.create(model="small", input=words, stream=True):
        pass
    assert readings.added(*COUNTED) == {(*CALLS, outcome): 1, FIRST_TOKEN: 1, **used}


def test_the_streaming_helper_is_measured_alike(client: openai.OpenAI, readings: Readings) -> None:
    with client.chat.completions.stream(**asking("hello", stream_options={"include_usage": True})) as events:
        assert events.get_final_completion().choices[0].message.content == "".join(PIECES)
    assert readings.added(*COUNTED) == {(*CALLS, "success"): 1, FIRST_TOKEN: 1, **USED}
    with client.chat.completions.stream(**asking("stall")) as events:
        next(events)
    assert readings.added(*COUNTED) == {(*CALLS, "cancelled"): 1}


def test_a_model_that_the_settings_do_not_name_makes_no_series(
    client: openai.OpenAI, readings: Readings
) -> None:
    client.chat.completions.create(**asking("hello", model="surprise"))
    assert readings.added("cmo_llm_tokens") == {
        ("cmo_llm_tokens_total", "_other", "_other", "_other", "input"): USAGE["prompt_tokens"],
        ("cmo_llm_tokens_total", "_other", "_other", "_other", "output"): USAGE["completion_tokens"],
    }


def test_asking_for_the_list_of_models_asks_no_model(client: openai.OpenAI, readings: Readings) -> None:
    client.models.list()
    assert readings.added(*COUNTED) == {}


def test_a_call_belongs_to_the_query_that_it_is_made_for(
    client: openai.OpenAI, adapted: Exporter, readings: Readings
) -> None:
    with adapted.query("clinical_rush"):
        client.chat.completions.create(**asking("hello"))
    assert readings.added("cmo_component_calls") == {
        ("cmo_component_calls_total", "clinical_rush", "llm", "success"): 1
    }


def test_a_call_is_told_by_a_span_of_a_model_call_with_its_own_tokens(
    collector: Collector, base_url: str, adapted: Exporter
) -> None:
    """The first of two streams ends while the second is the last that has begun."""
    with (
        Exporter(dataclasses.replace(adapted.settings, otlp_endpoint=collector.url)) as exporter,
        openai.OpenAI(base_url=base_url, api_key="secret", max_retries=0) as plain,
    ):
        client = instrument_openai(plain, exporter, component="llm", provider="stub")
        with exporter.query():
            client.embeddings.create(model="embedder", input="hello")
            client.chat.completions.create(**asking("hello", model="unheard of"))
            first = client.chat.completions.create(**asking("hello", **STREAM))
            second = client.chat.completions.create(**asking("hello", **STREAM))
            list(first)
            second.close()
    query = collector.span("query")
    embedding, unknown = collector.span("embeddings embedder"), collector.span("chat _other")
    whole, closed = sorted(
        (span for span in collector.spans if span.name == "chat small"),
        key=lambda span: span.start_time_unix_nano,
    )
    for span in (embedding, unknown, whole, closed):
        assert span.kind == span.SPAN_KIND_CLIENT
        assert span.trace_id == query.trace_id
        assert attributes(span)["gen_ai.provider.name"] == "stub"
    assert attributes(embedding)["gen_ai.operation.name"] == "embeddings"
    assert (used(embedding), used(unknown)) == ((7, 0), (100, 50))
    assert (used(whole), used(closed)) == ((100, 50), (None, None))
    assert attributes(closed)["cmo.outcome"] == "cancelled"


def used(span: Span) -> tuple[object, object]:
    found = attributes(span)
    return found.get("gen_ai.usage.input_tokens"), found.get("gen_ai.usage.output_tokens")
