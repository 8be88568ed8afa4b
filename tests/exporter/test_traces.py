"""Spans of a request, its query and the query's component calls belong together, however the query came."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import multiprocessing
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from cmo_exporter import Exporter, ExporterSettings, SettingsError, instrument_asgi, instrument_fastapi
from fastapi import BackgroundTasks, FastAPI, WebSocket, WebSocketDisconnect
from opentelemetry import trace
from opentelemetry.sdk.trace.sampling import Decision, StaticSampler
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route
from websockets.sync.client import connect

from .collector import Collector, attributes

if TYPE_CHECKING:
    from opentelemetry.proto.trace.v1.trace_pb2 import Span
    from starlette.requests import Request

Serve = Callable[[Any], AbstractContextManager[int]]
Eventually = Callable[[Callable[[], object]], None]
QUESTION = "does my patient have phenylketonuria"


def exporter_to(collector: Collector, **changes: Any) -> Exporter:
    return Exporter(
        ExporterSettings(
            scenarios=("rush",),
            components=("lightrag", "llm", "perplexity"),
            models=(("llm", "openai", "gpt-test"), ("perplexity", "perplexity", "sonar-test")),
            otlp_endpoint=collector.url,
            **changes,
        )
    )


def answer(exporter: Exporter) -> None:
    """What a service does for a query: LightRAG, which asks a model and fails, then Perplexity."""
    query = exporter.current_query()
    query.question(QUESTION)
    with query.component("lightrag") as call:
        with query.model_call("llm", "openai", "gpt-test"):
            exporter.tokens("llm", "openai", "gpt-test", input_tokens=700, output_tokens=40)
        exporter.retry("lightrag")
        call.outcome("timeout")
    query.fallback(source="lightrag", target="perplexity", reason="api_timeout")
    with query.component("perplexity"):
        exporter.tokens("perplexity", "perplexity", "sonar-test", input_tokens=70, output_tokens=4)
    query.cache_result("miss")
    query.answered("perplexity")


def assert_the_query_belongs_together(collector: Collector) -> Span:
    """Query, components and model call are one trace; the query's span."""
    query, lightrag = collector.span("query"), collector.span("lightrag")
    model, perplexity = collector.span("chat gpt-test"), collector.span("perplexity")
    assert len({span.trace_id for span in (query, lightrag, model, perplexity)}) == 1
    assert lightrag.parent_span_id == perplexity.parent_span_id == query.span_id
    assert model.parent_span_id == lightrag.span_id
    assert query.start_time_unix_nano <= lightrag.start_time_unix_nano <= model.start_time_unix_nano
    assert query.end_time_unix_nano <= query.start_time_unix_nano + 60 * 10**9
    return query


def service(exporter: Exporter) -> FastAPI:
    app = FastAPI()

    @app.post("/chats/{chat}/query")
    async def ask(chat: str) -> str:
        answer(exporter)
        return "it may be"

    instrument_fastapi(app, exporter, query_routes=("/chats/{chat}/query",))
    return app


@pytest.mark.parametrize("request_spans", ["exporter", "opentelemetry"])
def test_request_query_and_components_are_one_trace(
    collector: Collector, serve: Serve, request_spans: str
) -> None:
    trace_id, caller = "1" * 32, "2" * 16
    exporter = exporter_to(collector, request_spans=request_spans)
    with exporter, serve(service(exporter)) as port:
        httpx.post(
            f"http://127.0.0.1:{port}/chats/7/query",
            headers={"traceparent": f"00-{trace_id}-{caller}-01"},
            timeout=60,
        )
    request = collector.span("POST /chats/{chat}/query")
    query = assert_the_query_belongs_together(collector)
    assert request.trace_id.hex() == query.trace_id.hex() == trace_id
    assert request.parent_span_id.hex() == caller
    assert query.parent_span_id == request.span_id
    assert request.kind == request.SPAN_KIND_SERVER
    assert attributes(request)["http.route"] == "/chats/{chat}/query"
    status = attributes(request).get("http.response.status_code", attributes(request).get("http.status_code"))
    assert status == 200


def test_a_model_call_follows_the_conventions_for_generative_ai(collector: Collector) -> None:
    with exporter_to(collector) as exporter, exporter.query():
        answer(exporter)
    model, perplexity = collector.span("chat gpt-test"), collector.span("perplexity")
    assert model.kind == model.SPAN_KIND_CLIENT
    assert attributes(model) == {
        "cmo.component": "llm",
        "cmo.outcome": "success",
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-test",
        "gen_ai.usage.input_tokens": 700,
        "gen_ai.usage.output_tokens": 40,
    }
    assert attributes(perplexity)["gen_ai.usage.input_tokens"] == 70, "tokens go to the call that used them"


def test_a_query_span_says_what_came_of_it(collector: Collector) -> None:
    with exporter_to(collector) as exporter, exporter.query("rush") as query:
        query.first_token()
        answer(exporter)
    span = collector.span("query")
    found = attributes(span)
    assert isinstance(found.pop("cmo.time_to_first_token_seconds"), float)
    assert found == {
        "cmo.scenario": "rush",
        "cmo.outcome": "success",
        "cmo.source": "perplexity",
        "cmo.cache": "miss",
    }
    assert [event.name for event in span.events] == ["cmo.retry", "cmo.fallback"]
    lightrag = collector.span("lightrag")
    assert attributes(lightrag)["error.type"] == "timeout"
    assert lightrag.status.code == lightrag.status.STATUS_CODE_ERROR


def test_each_message_of_a_websocket_is_a_trace_of_its_own(collector: Collector, serve: Serve) -> None:
    with exporter_to(collector) as exporter:
        app = FastAPI()

        @app.websocket("/chat")
        async def chat(socket: WebSocket) -> None:
            await socket.accept()
            try:
                while True:
                    await socket.receive_text()
                    with exporter.query() as query, query.component("lightrag"):
                        query.answered("lightrag")
                    await socket.send_text("it may be")
            except WebSocketDisconnect:
                return

        instrument_fastapi(app, exporter)
        with serve(app) as port, connect(f"ws://127.0.0.1:{port}/chat?q={QUESTION[:4]}") as client:
            for _ in range(2):
                client.send(QUESTION)
                client.recv()
    queries = [span for span in collector.spans if span.name == "query"]
    calls = [span for span in collector.spans if span.name == "lightrag"]
    assert len(collector.spans) == 4
    assert [query.parent_span_id for query in queries] == [b"", b""]
    assert len({query.trace_id for query in queries}) == 2
    assert [(call.trace_id, call.parent_span_id) for call in calls] == [
        (query.trace_id, query.span_id) for query in queries
    ]


def test_a_direct_call_is_a_trace(collector: Collector) -> None:
    with exporter_to(collector) as exporter, exporter.query():
        answer(exporter)
    assert assert_the_query_belongs_together(collector).parent_span_id == b""


async def test_a_call_made_by_another_worker_belongs_to_its_query(collector: Collector) -> None:
    """As in LightRAG 1.4, whose workers run calls in a context that knows no query."""
    with exporter_to(collector) as exporter:

        async def work(query: Any) -> None:
            with query.component("lightrag"), query.model_call("llm", "openai", "gpt-test"):
                await asyncio.sleep(0)

        with exporter.query() as query:
            nowhere = contextvars.Context()
            await asyncio.get_running_loop().create_task(work(query), context=nowhere)
            with exporter.query():  # another one is current there
                await work(query)
    first, second = sorted(
        (span for span in collector.spans if span.name == "query"), key=lambda span: span.start_time_unix_nano
    )
    calls = [span for span in collector.spans if span.name == "lightrag"]
    assert len(calls) == 2
    assert second.parent_span_id == first.span_id, "a query that is asked within another is part of its trace"
    assert {call.trace_id for call in calls} == {first.trace_id}


async def test_queries_side_by_side_keep_their_calls(collector: Collector) -> None:
    with exporter_to(collector) as exporter:

        async def ask() -> None:
            with exporter.query() as query, query.component("lightrag"):
                await asyncio.sleep(0.001)
                with query.component("llm"):
                    await asyncio.sleep(0.001)

        await asyncio.gather(*(ask() for _ in range(20)))
    by_id = {span.span_id: span for span in collector.spans}
    assert len(by_id) == 60
    assert len({span.trace_id for span in collector.spans}) == 20
    for span in collector.spans:
        above = {"llm": "lightrag", "lightrag": "query"}.get(span.name)
        assert above is None or by_id[span.parent_span_id].name == above
        assert above is None or by_id[span.parent_span_id].trace_id == span.trace_id


def test_a_generator_that_is_closed_elsewhere_leaves_nothing_behind(
    collector: Collector,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with exporter_to(collector) as exporter:

        def stream() -> Any:
            with exporter.query() as query, query.component("lightrag"):
                yield "it"
                yield "may"

        pieces = stream()
        contextvars.copy_context().run(next, pieces)
        contextvars.copy_context().run(pieces.close)
        assert not trace.get_current_span().get_span_context().is_valid
    assert attributes(collector.span("query"))["cmo.outcome"] == "cancelled"
    assert not caplog.records


def test_any_asgi_application_has_request_spans_with_route_templates(
    collector: Collector, serve: Serve
) -> None:
    with exporter_to(collector) as exporter:

        async def ask(request: Request) -> PlainTextResponse:
            answer(exporter)
            return PlainTextResponse("it may be")

        inner = Starlette(routes=[Route("/query", ask, methods=["POST"])])
        app = Starlette(routes=[Mount("/clinics/{clinic}", inner)])
        with serve(instrument_asgi(app, exporter, query_routes=("/clinics/{clinic}/query",))) as port:
            httpx.post(f"http://127.0.0.1:{port}/clinics/mercy/query", timeout=60)
            httpx.request("BREW", f"http://127.0.0.1:{port}/{QUESTION}", timeout=60)
    request = collector.span("POST /clinics/{clinic}/query")
    assert assert_the_query_belongs_together(collector).parent_span_id == request.span_id
    odd = collector.span("HTTP")
    assert attributes(odd)["http.request.method"] == "_OTHER"
    assert attributes(odd)["http.response.status_code"] == 404
    assert "mercy" not in collector.text
    assert "BREW" not in collector.text


def test_a_stream_that_breaks_is_an_error_and_one_that_is_left_is_499(
    collector: Collector, serve: Serve, eventually: Eventually
) -> None:
    with exporter_to(collector) as exporter:
        gone = asyncio.Event()

        async def stream(kind: str) -> AsyncIterator[str]:
            yield "it may"
            if kind == "breaks":
                raise ValueError(QUESTION)
            try:
                await asyncio.sleep(3600)
            finally:
                gone.set()

        async def ask(request: Request) -> StreamingResponse:
            return StreamingResponse(stream(request.path_params["kind"]))

        app = Starlette(routes=[Route("/{kind}", ask, methods=["POST"])])
        with serve(instrument_asgi(app, exporter, query_routes=("/{kind}",))) as port:
            url = f"http://127.0.0.1:{port}"
            with (
                pytest.raises(httpx.RemoteProtocolError),
                httpx.stream("POST", f"{url}/breaks", timeout=60) as reply,
            ):
                reply.read()
            with httpx.stream("POST", f"{url}/stays", timeout=60) as reply:
                next(reply.iter_bytes())
            eventually(gone.is_set)
    broken, left = [attributes(span) for span in collector.spans if span.name == "POST /{kind}"]
    assert broken["error.type"] == "ValueError"
    assert left["http.response.status_code"] == 499
    assert "error.type" not in left
    outcomes = [attributes(span)["cmo.outcome"] for span in collector.spans if span.name == "query"]
    assert outcomes == ["error", "cancelled"]


def test_background_work_is_no_part_of_a_request(collector: Collector, serve: Serve) -> None:
    with exporter_to(collector) as exporter:
        app, begun = FastAPI(), list[int]()

        @app.post("/query")
        async def ask(tasks: BackgroundTasks) -> str:
            tasks.add_task(lambda: begun.append(time.time_ns()))
            return "it may be"

        instrument_fastapi(app, exporter)
        with serve(app) as port:
            httpx.post(f"http://127.0.0.1:{port}/query", timeout=60)
    assert collector.span("POST /query").end_time_unix_nano <= begun[0]


@pytest.mark.parametrize("switched_on", [False, True])
def test_the_question_is_in_a_span_only_when_that_is_switched_on_by_name(
    collector: Collector, serve: Serve, switched_on: bool
) -> None:
    exporter = exporter_to(collector, record_question_text=switched_on)
    with exporter, serve(service(exporter)) as port:
        httpx.post(
            f"http://127.0.0.1:{port}/chats/grey/query",
            params={"q": "param-text"},
            headers={"X-CMO-Session": "session-of-grey", "Baggage": "user=grey"},
            timeout=60,
        )
    assert ("phenylketonuria" in collector.text) is switched_on
    assert collector.text.count("phenylketonuria") == int(switched_on)
    for word in ("grey", "param-text", "127.0.0.1"):
        assert word not in collector.text
    if switched_on:
        assert attributes(collector.span("query"))["cmo.question"] == QUESTION


def test_whatever_a_service_puts_into_the_current_span_stays(collector: Collector) -> None:
    with exporter_to(collector) as exporter, exporter.query(QUESTION) as query:
        with query.component(QUESTION) as call:
            span = trace.get_current_span()
            span.set_attribute("input.value", QUESTION)
            span.set_attribute("cmo.question", QUESTION)
            span.set_attributes({"user.id": QUESTION, "http.route": {QUESTION: 1}})
            span.add_event(QUESTION, {"question": QUESTION})
            span.update_name(QUESTION)
            span.set_status(trace.StatusCode.ERROR, QUESTION)
            span.record_exception(ValueError(QUESTION))
            call.outcome(QUESTION)
        with query.model_call(QUESTION, QUESTION, QUESTION, QUESTION):
            exporter.tokens(QUESTION, QUESTION, QUESTION, input_tokens=1, output_tokens=1)
        query.fallback(source=QUESTION, target=QUESTION, reason=QUESTION)
        exporter.retry(QUESTION)
        query.answered(QUESTION)
        query.cache_result(QUESTION)
    assert QUESTION not in collector.text
    assert len(collector.spans) == 3
    assert "ValueError" in collector.text


@pytest.mark.parametrize(("flag", "sampler"), [("00", None), ("01", "always_off")])
def test_what_is_not_sampled_is_not_sent_and_is_counted(
    collector: Collector, serve: Serve, monkeypatch: pytest.MonkeyPatch, flag: str, sampler: str | None
) -> None:
    if sampler:
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    with exporter_to(collector) as exporter, serve(service(exporter)) as port:
        headers = {"traceparent": f"00-{'1' * 32}-{'2' * 16}-{flag}"}
        httpx.post(f"http://127.0.0.1:{port}/chats/7/query", headers=headers, timeout=60)
    assert not collector.spans
    labels = {"scenario": "live", "outcome": "success"}
    assert exporter.registry.get_sample_value("cmo_queries_total", labels) == 1


def test_without_an_endpoint_nothing_of_traces_is_imported() -> None:
    code = """
import json, sys
from cmo_exporter import Exporter, ExporterSettings
with Exporter(ExporterSettings(query_log=True)) as exporter, exporter.query() as query:
    with query.component("x"):
        pass
print(json.dumps([name for name in sys.modules if name.startswith(("opentelemetry", "cmo_exporter.spans"))]))
"""
    environment = {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == []


def test_who_makes_request_spans_is_one_of_two() -> None:
    with pytest.raises(SettingsError, match="'jaeger'; it must be one of: exporter, opentelemetry"):
        ExporterSettings(request_spans="jaeger")


def test_traces_go_on_after_the_exporter_was_closed_and_started_again(collector: Collector) -> None:
    exporter = exporter_to(collector)
    for _ in range(2):
        with exporter, exporter.query():
            pass
    assert len([span for span in collector.spans if span.name == "query"]) == 2


def _in_child(exporter: Exporter) -> None:
    with exporter.query("rush"):
        pass
    exporter.close()


def test_a_forked_worker_sends_its_spans(collector: Collector) -> None:
    exporter = exporter_to(collector)
    with exporter.query():
        pass
    child = multiprocessing.get_context("fork").Process(target=_in_child, args=(exporter,))
    child.start()
    child.join(60)
    exporter.close()
    assert child.exitcode == 0
    scenarios = [attributes(span)["cmo.scenario"] for span in collector.spans]
    assert sorted(map(str, scenarios)) == ["live", "rush"]


def test_a_sampler_that_fails_is_no_fault_of_the_service(collector: Collector, serve: Serve) -> None:
    class Broken(StaticSampler):
        def should_sample(self, *_: Any, **__: Any) -> Any:
            raise RuntimeError(QUESTION)

    with exporter_to(collector) as exporter:
        assert exporter.tracing.maker is not None
        exporter.tracing.maker.sampler = Broken(Decision.RECORD_AND_SAMPLE)
        with serve(service(exporter)) as port:
            assert httpx.post(f"http://127.0.0.1:{port}/chats/7/query", timeout=60).status_code == 200
    value = exporter.registry.get_sample_value
    assert value("cmo_queries_total", {"scenario": "live", "outcome": "success"}) == 1
    assert value("cmo_queries_in_progress", {"scenario": "live"}) == 0
    assert value("cmo_component_in_progress", {"component": "llm"}) == 0
    for metric in ("http_server_request_duration_seconds", "cmo_queries_started_total"):
        assert (value("cmo_instrumentation_errors_total", {"metric": metric}) or 0) > 0


def test_a_request_that_cannot_be_told_by_a_span_is_answered_all_the_same(collector: Collector) -> None:
    """What an application leaves in its scope may be anything."""
    sent = []

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        scope["scheme"] = ["not hashable"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"yes"})

    async def send(message: Any) -> None:
        sent.append(message["type"])

    with exporter_to(collector) as exporter:
        served: Any = instrument_asgi(app, exporter)
        scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
        asyncio.run(served(scope, None, send))
        value = exporter.registry.get_sample_value
        lost = {"metric": "http_server_request_duration_seconds"}
        assert value("cmo_instrumentation_errors_total", lost) == 1
    assert sent == ["http.response.start", "http.response.body"]


def test_queries_leave_nothing_for_the_garbage_collector(collector: Collector) -> None:
    with exporter_to(collector, query_log=True) as exporter:

        def ask() -> None:
            for _ in range(50):
                with exporter.query():
                    answer(exporter)

        ask()
        gc.collect()
        gc.disable()
        try:
            ask()
            exporter.close()
            assert gc.collect() < 50, "objects that refer to each other in a circle"
        finally:
            gc.enable()
