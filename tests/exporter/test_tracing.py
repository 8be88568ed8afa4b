"""Traces: off until an endpoint is set, and then without a word of what was asked or by whom."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pytest
from cmo_exporter import Exporter, ExporterSettings, instrument_fastapi
from cmo_exporter.spans import DiscreetSpanExporter
from fastapi import FastAPI
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from .collector import Collector, collecting

Serve = Callable[[Any], AbstractContextManager[int]]
QUESTION = "does my patient have phenylketonuria"
SESSION = "session-of-doctor-grey"


def service(exporter: Exporter) -> FastAPI:
    app = FastAPI()

    @app.post("/query")
    async def answer(body: dict[str, str]) -> dict[str, str]:
        exporter.current_query().answered("lightrag")
        return {"answer": body["question"]}

    @app.post("/explode/{user}")
    async def explode(user: str, body: dict[str, str]) -> None:
        raise RuntimeError(f"{user} asked {body['question']}")

    instrument_fastapi(app, exporter, query_routes=("/query", "/explode/{user}"))
    return app


def ask(port: int) -> None:
    trace = {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01", "tracestate": "user=doctor-grey"}
    headers = {"X-CMO-Session": SESSION, "User-Agent": "doctor-grey-browser", **trace}
    for path in ("/query", "/explode/doctor-grey"):
        httpx.post(
            f"http://127.0.0.1:{port}{path}",
            params={"q": QUESTION},
            json={"question": QUESTION},
            headers=headers,
            timeout=60,
        )


@pytest.mark.parametrize("request_spans", ["exporter", "opentelemetry"])
@pytest.mark.parametrize("by", ["settings", "environment"])
def test_a_span_arrives_without_question_session_or_user(
    collector: Collector, serve: Serve, monkeypatch: pytest.MonkeyPatch, by: str, request_spans: str
) -> None:
    url = collector.url
    if by == "environment":
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        monkeypatch.setenv("OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST", ".*")
    settings = ExporterSettings(
        otlp_endpoint=url if by == "settings" else None,
        service_name="cmo-test",
        request_spans=request_spans,
    )
    with Exporter(settings) as exporter, serve(service(exporter)) as port:
        ask(port)
    assert collector.bodies, "closing sends what is left"
    for word in ("phenylketonuria", "session-of", "grey", "127.0.0.1"):
        assert word not in collector.text
    assert "cmo-test" in collector.text
    expected = ["POST /explode/{user}", "POST /query", "query", "query"]
    assert sorted(span.name for span in collector.spans) == expected
    failed = collector.span("POST /explode/{user}")
    assert failed.status.code == failed.status.STATUS_CODE_ERROR
    assert "RuntimeError" in collector.text, "what kind of error it was may be known"
    (scope,) = {
        scope.scope.name
        for request in collector.requests
        for resource in request.resource_spans
        for scope in resource.scope_spans
        if failed in scope.spans
    }
    assert (
        scope
        == {"exporter": "cmo_exporter", "opentelemetry": "opentelemetry.instrumentation.fastapi"}[
            request_spans
        ]
    )
    outcome = {"scenario": "live", "outcome": "success"}
    assert exporter.registry.get_sample_value("cmo_queries_total", outcome) == 1


@pytest.mark.parametrize("variable", [None, "OTEL_SDK_DISABLED"])
def test_without_an_endpoint_there_are_no_traces(
    collector: Collector, serve: Serve, monkeypatch: pytest.MonkeyPatch, variable: str | None
) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    if variable:
        monkeypatch.setenv(variable, "true")
    settings = ExporterSettings(otlp_endpoint=collector.url if variable else None)
    with Exporter(settings) as exporter, serve(service(exporter)) as port:
        assert not exporter.tracing.enabled
        ask(port)
    assert not collector.bodies


def test_a_variable_without_a_scheme_is_said_at_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318")
    exporter = Exporter(ExporterSettings())
    exporter.tracing.close()
    assert "OTEL_EXPORTER_OTLP_ENDPOINT has no scheme, and no spans can be sent there" in caplog.text


def test_what_an_error_says_stays_here() -> None:
    sent = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(DiscreetSpanExporter(sent)))
    with provider.get_tracer("test").start_as_current_span(
        "ask", attributes={"http.route": "/query"}
    ) as span:
        span.set_attribute("user.id", SESSION)
        span.add_event("asked", {"question": QUESTION})
        span.set_status(StatusCode.ERROR, QUESTION)
    (span_sent,) = sent.get_finished_spans()
    assert span_sent.attributes == {"http.route": "/query"}
    assert span_sent.status.status_code is StatusCode.ERROR
    assert QUESTION not in span_sent.to_json()
    assert SESSION not in span_sent.to_json()


def test_a_collector_that_is_gone_does_not_keep_the_service_from_ending(serve: Serve) -> None:
    with collecting() as collector:
        pass
    with (
        Exporter(ExporterSettings(otlp_endpoint=collector.url)) as exporter,
        serve(service(exporter)) as port,
    ):
        ask(port)
    outcome = {"scenario": "live", "outcome": "success"}
    assert exporter.registry.get_sample_value("cmo_queries_total", outcome) == 1
