"""An error inside the exporter never reaches the service: the answer is the same, the error is counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pytest
from cmo_exporter import Exporter, instrument_fastapi
from cmo_exporter.departures import DepartureWatch, Listener
from cmo_exporter.exchange import Exchange
from cmo_exporter.http_tallies import ActiveRequests, HttpTallies, HttpTally
from cmo_exporter.ledger import Ending, ScenarioBook
from cmo_exporter.queries import Query
from cmo_exporter.routes import RouteTemplates
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

Serve = Callable[..., AbstractContextManager[int]]
Value = Callable[..., float]
Eventually = Callable[[Callable[[], object]], None]
SECRET = "does my patient have phenylketonuria"

# Where a failure is put in, and the metric under which it is counted.
FAULTS = [
    (Exchange, "__init__", "http_server_active_requests"),
    (DepartureWatch, "tick_later", "http_server_active_requests"),
    (DepartureWatch, "_call_overdue", "http_server_request_duration_seconds"),
    (Exchange, "overdue", "http_server_request_duration_seconds"),
    (Query, "__init__", "cmo_queries_started_total"),
    (ScenarioBook, "post", "cmo_queries_started_total"),
    (Ending, "post", "cmo_queries_total"),
    (Exchange, "_leave", "cmo_network_bytes_total"),
    (Exchange, "_finish", "http_server_request_duration_seconds"),
    (RouteTemplates, "of", "http_server_request_duration_seconds"),
    (HttpTallies, "of", "http_server_request_duration_seconds"),
    (HttpTally, "post", "http_server_request_duration_seconds"),
    (ActiveRequests, "post", "http_server_active_requests"),
    (Listener, "__init__", "http_server_request_duration_seconds"),
    (Listener, "listen", "http_server_request_duration_seconds"),
]


@pytest.mark.parametrize(
    ("owner", "method", "metric"), FAULTS, ids=lambda part: getattr(part, "__name__", part)
)
def test_a_failure_is_counted_and_goes_no_further(
    exporter: Exporter,
    serve: Serve,
    value: Value,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    owner: type,
    method: str,
    metric: str,
) -> None:
    app = FastAPI()

    @app.post("/query")
    async def ask(body: dict[str, str]) -> dict[str, str]:
        await asyncio.sleep(0.3)  # so long that its departure is listened for
        return body

    @app.post("/stream")
    async def stream() -> StreamingResponse:
        async def pieces() -> Any:
            yield "first "
            yield "last"

        return StreamingResponse(pieces())

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(SECRET)

    instrument_fastapi(app, exporter, query_routes=("/query", "/stream"))
    with serve(app) as port, monkeypatch.context() as broken:
        broken.setattr(owner, method, fail)
        for _ in range(2):
            answer = httpx.post(f"http://127.0.0.1:{port}/query", json={"question": SECRET}, timeout=60)
            assert (answer.status_code, answer.json()) == (200, {"question": SECRET})
        assert httpx.post(f"http://127.0.0.1:{port}/stream", timeout=60).text == "first last"
        with httpx.Client(timeout=60) as client, pytest.raises(httpx.ReadTimeout):
            client.post(f"http://127.0.0.1:{port}/query", json={}, timeout=0.01)
        eventually(lambda: value("cmo_instrumentation_errors_total", metric=metric))
    said = [record for record in caplog.records if record.name == "cmo_exporter"]
    assert 1 <= len(said) <= 2, "each metric is said once"
    assert SECRET not in caplog.text


@pytest.mark.parametrize("name", ["http_duration", "http_first_byte", "http_active", "network"])
def test_a_metric_that_cannot_be_recorded_leaves_the_others_right(
    exporter: Exporter, serve: Serve, value: Value, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    app = FastAPI()

    @app.post("/query")
    async def ask() -> str:
        exporter.current_query().answered("cache")
        return "yes"

    instrument_fastapi(app, exporter)
    with monkeypatch.context() as broken:
        broken.setattr(exporter.recorder.instruments, name, None)
        with serve(app) as port:
            assert httpx.post(f"http://127.0.0.1:{port}/query").text == '"yes"'
    assert value("http_server_active_requests", http_request_method="POST") == 0
    assert value("cmo_queries_in_progress", scenario="live") == 0
    assert value("cmo_queries_total", scenario="live", outcome="success") == 1
