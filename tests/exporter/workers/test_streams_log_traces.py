"""Departures, the query log and traces are those of the whole service, whichever worker has answered."""

from __future__ import annotations

import collections
import contextlib
import functools
import http.client
import json
import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from ..collector import collecting
from .servers import WORKERS, Service, exchange, ready, serving, total

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from opentelemetry.proto.trace.v1.trace_pb2 import Span

    from ..collector import Collector

    Eventually = Callable[[Callable[[], object]], None]

CLIENTS = 8
QUERIES = 120
SCRAPES = 20
LONG = 1900  # 11 KB of a line: more than the buffers between a line and its file hold
STREAM = {"http_request_method": "POST", "http_route": "/stream"}


@dataclass
class Watched:
    """A service whose queries are lines and spans as well."""

    service: Service
    collector: Collector
    log: Path

    def lines(self) -> list[dict[str, Any]]:
        """The query log; a line that is torn, or runs into another, cannot be read."""
        return [
            json.loads(line)
            for line in self.log.read_text(encoding="utf-8").splitlines()
            if "trace_id" in line or line.startswith("{")
        ]

    def all_is_written(self) -> bool:
        """Whether every query that has ended is in its metrics and has its line and its spans."""
        samples = self.service.samples()
        finished = total(samples, "cmo_queries_total")
        return (
            finished
            == total(samples, "cmo_queries_started_total")
            == total(samples, "cmo_query_log_lines_total", result="written")
            == len(queries(self.collector))
        )


@pytest.fixture(params=["uvicorn", "gunicorn --preload"], scope="module")
def watched(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, eventually: Eventually
) -> Iterator[Watched]:
    """Under a server that spawns its workers, and one that forks them from a process with an exporter."""
    service, directory = Service(), tmp_path_factory.mktemp("service")
    with collecting() as collector:
        running = serving(
            request.param,
            service,
            directory,
            QUERY_LOG="1",
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
            OTEL_BSP_SCHEDULE_DELAY="200",
        )
        with running:
            eventually(lambda: ready(service))
            yield Watched(service, collector, directory / "log")


def queries(collector: Collector) -> list[Span]:
    return [span for span in collector.spans if span.name == "query"]


def leave_midstream(port: int) -> str:
    """Read the first piece of an answer and go; says whose answer it was."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("POST", "/stream?pieces=0", headers={"X-CMO-Scenario": "rush"})
        answer = connection.getresponse()
        assert answer.read1() == b"it "
        return answer.headers["X-Worker"]


def ask(port: int, number: int) -> tuple[str, str, int]:
    """Ask within a trace of one's own, every other time at length: trace, span, and who answered."""
    trace, span = secrets.token_hex(16), secrets.token_hex(8)
    path = f"/query?length={number % 2 * LONG}"
    answer = exchange(port, "POST", path, {"traceparent": f"00-{trace}-{span}-01"})
    return trace, span, int(json.loads(answer)["worker"])


def test_who_leaves_in_midstream_is_counted_whoever_served_and_whoever_is_scraped(
    watched: Watched, eventually: Eventually
) -> None:
    service = watched.service
    left: list[str] = []
    while len(set(left)) < WORKERS:
        with ThreadPoolExecutor(CLIENTS) as clients:
            left += clients.map(leave_midstream, [service.port] * CLIENTS)
    stayed = 10
    for _ in range(stayed):
        body = exchange(service.port, "POST", "/stream?pieces=3", {"X-CMO-Scenario": "rush"})
        assert body == b"it may may may be"
    # A worker hears of a departure when its event loop comes to it.
    eventually(lambda: service.total("cmo_queries_total", scenario="rush") == len(left) + stayed)
    eventually(
        lambda: service.total("http_server_request_duration_seconds_count", **STREAM) == len(left) + stayed
    )
    for _ in range(SCRAPES):
        find = functools.partial(total, service.samples())
        requests = functools.partial(find, "http_server_request_duration_seconds_count", **STREAM)
        assert requests(http_response_status_code="499") == len(left)
        assert requests(http_response_status_code="200") == stayed
        assert requests() == len(left) + stayed
        assert find("cmo_queries_total", scenario="rush", outcome="cancelled") == len(left)
        assert find("cmo_queries_total", scenario="rush", outcome="success") == stayed
        assert find("cmo_streams_abandoned_total", scenario="rush") == len(left)
        assert find("cmo_query_time_to_first_token_seconds_count", scenario="rush") == len(left) + stayed
        assert find("cmo_queries_in_progress") == find("http_server_active_requests") == 0
    eventually(watched.all_is_written)
    ends = collections.Counter(
        (line["outcome"], line["http"]["status"]) for line in watched.lines() if line["scenario"] == "rush"
    )
    assert ends == {("cancelled", 499): len(left), ("success", 200): stayed}


def test_each_query_has_one_line_and_its_spans_whoever_answered(
    watched: Watched, eventually: Eventually
) -> None:
    service = watched.service
    with ThreadPoolExecutor(CLIENTS) as clients:
        asked = list(clients.map(functools.partial(ask, service.port), range(QUERIES)))
    assert len({worker for _, _, worker in asked}) > 1
    eventually(watched.all_is_written)
    lines = {line["trace_id"]: line for line in watched.lines()}
    assert len(lines) == len(watched.lines()), "no line is there twice"
    spans = {span.span_id.hex(): span for span in watched.collector.spans}
    assert len(spans) == len(watched.collector.spans), "nor a span"
    components = {span.parent_span_id.hex() for span in spans.values() if span.name == "lightrag"}
    for number, (trace, above, worker) in enumerate(asked):
        line = lines[trace]
        assert line["process"] == worker
        assert len(line.get("question", "")) == number % 2 * LONG
        query = spans[line["span_id"]]
        request = spans[query.parent_span_id.hex()]
        assert (query.name, request.name) == ("query", "POST /query")
        assert query.trace_id.hex() == request.trace_id.hex() == trace
        assert request.parent_span_id.hex() == above
        assert line["span_id"] in components


def test_the_log_adds_up_to_the_metrics(watched: Watched, eventually: Eventually) -> None:
    service = watched.service
    for _ in range(QUERIES):
        service.ask()  # each begins a trace of its own: forked workers must not draw the same ids
    eventually(watched.all_is_written)
    lines, samples = watched.lines(), service.samples()
    assert len({line["trace_id"] for line in lines}) == len({line["span_id"] for line in lines}) == len(lines)
    assert {(line["trace_id"], line["span_id"]) for line in lines} == {
        (span.trace_id.hex(), span.span_id.hex()) for span in queries(watched.collector)
    }
    assert total(samples, "cmo_query_log_lines_total", result="dropped") == 0
    assert total(samples, "cmo_instrumentation_errors_total") == 0
    for scenario, outcome in {(line["scenario"], line["outcome"]) for line in lines}:
        seconds = [
            line["duration_seconds"]
            for line in lines
            if (line["scenario"], line["outcome"]) == (scenario, outcome)
        ]
        labels = {"scenario": scenario, "outcome": outcome}
        assert total(samples, "cmo_queries_total", **labels) == len(seconds)
        assert total(samples, "cmo_query_duration_seconds_count", **labels) == len(seconds)
        # Each line is rounded to the microsecond.
        assert total(samples, "cmo_query_duration_seconds_sum", **labels) == pytest.approx(
            sum(seconds), abs=1e-6 * len(seconds)
        )
