"""Exemplars lead from a bucket of a latency histogram to the trace of a request that fell into it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final

import httpx
import pytest
from cmo_exporter import Exporter, ExporterSettings, instrument_fastapi
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from prometheus_client.openmetrics.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from .collector import Collector

Serve = Callable[[Any], AbstractContextManager[int]]
LATENCIES = (
    "cmo_component_duration_seconds",
    "cmo_llm_time_to_first_token_seconds",
    "cmo_query_duration_seconds",
    "cmo_query_time_to_first_token_seconds",
    "cmo_queue_wait_seconds",
    "http_server_request_duration_seconds",
    "http_server_time_to_first_byte_seconds",
)
SETTINGS: Final[dict[str, Any]] = {
    "components": ("llm",),
    "models": (("llm", "openai", "gpt-4o-mini"),),
}


def ask(exporter: Exporter, serve: Serve, **headers: str) -> None:
    app = FastAPI()

    @app.post("/query")
    async def answer() -> StreamingResponse:
        query = exporter.current_query()
        exporter.queue_wait("llm", 0.2)
        with query.model_call("llm", "openai", "gpt-4o-mini"):
            exporter.llm_first_token("llm", "openai", "gpt-4o-mini", 0.1)
        query.first_token()
        query.answered("lightrag")
        return StreamingResponse(iter(["it", "may"]))

    instrument_fastapi(app, exporter)
    with serve(app) as port:
        httpx.post(f"http://127.0.0.1:{port}/query", headers=headers, timeout=60)


def scraped_exemplars(exporter: Exporter) -> dict[str, list[dict[str, str]]]:
    accept = "application/openmetrics-text; version=1.0.0"
    reply = httpx.get(exporter.metrics_url, headers={"Accept": accept}, timeout=60)
    assert reply.headers["content-type"].startswith("application/openmetrics-text")
    found: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(reply.text):  # type: ignore[no-untyped-call]
        for sample in family.samples:
            if sample.exemplar is not None:
                assert sample.exemplar.value <= float(sample.labels["le"])
                found.setdefault(family.name, []).append(dict(sample.exemplar.labels))
    return found


@pytest.mark.parametrize("request_spans", ["exporter", "opentelemetry"])
def test_an_openmetrics_scrape_leads_to_the_trace(
    collector: Collector, serve: Serve, request_spans: str
) -> None:
    settings = ExporterSettings(otlp_endpoint=collector.url, request_spans=request_spans, **SETTINGS)
    with Exporter(settings) as exporter:
        ask(exporter, serve)
        found = scraped_exemplars(exporter)
        plain = httpx.get(exporter.metrics_url, headers={"Accept": "text/plain"}, timeout=60).text
    assert sorted(found) == sorted(LATENCIES)
    sent = {(span.trace_id.hex(), span.span_id.hex()): span.name for span in collector.spans}
    names = {}
    for metric, (exemplar,) in found.items():
        assert set(exemplar) == {"trace_id", "span_id"}
        names[metric] = sent[exemplar["trace_id"], exemplar["span_id"]]
    assert names["cmo_query_duration_seconds"] == names["cmo_queue_wait_seconds"] == "query"
    assert names["cmo_component_duration_seconds"] == "chat gpt-4o-mini"
    assert names["cmo_llm_time_to_first_token_seconds"] == "chat gpt-4o-mini"
    assert len({trace_id for trace_id, _ in sent}) == 1
    assert "trace_id" not in plain, "the old text format has no place for them"


def test_what_is_not_sampled_leads_nowhere(collector: Collector, serve: Serve) -> None:
    with Exporter(ExporterSettings(otlp_endpoint=collector.url, **SETTINGS)) as exporter:
        ask(exporter, serve, traceparent=f"00-{'1' * 32}-{'2' * 16}-00")
        assert scraped_exemplars(exporter) == {}


def test_without_traces_there_are_no_exemplars(serve: Serve) -> None:
    with Exporter(ExporterSettings(**SETTINGS)) as exporter:
        assert exporter.tracing.exemplar() is None
        ask(exporter, serve)
        assert scraped_exemplars(exporter) == {}


def test_the_exemplar_of_this_moment_is_that_of_the_current_span(collector: Collector) -> None:
    with Exporter(ExporterSettings(otlp_endpoint=collector.url)) as exporter:
        assert exporter.tracing.exemplar() is None, "no span is current"
        with exporter.query():
            exemplar = exporter.tracing.exemplar()
    query = collector.span("query")
    assert exemplar == {"trace_id": query.trace_id.hex(), "span_id": query.span_id.hex()}
