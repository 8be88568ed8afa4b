"""Requests to a real server: what is a query, when it ends, and what came of it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pytest
import uvicorn
from cmo_exporter import Exporter, ExporterSettings, instrument_asgi, instrument_fastapi
from fastapi import BackgroundTasks, FastAPI, HTTPException
from fastapi.responses import JSONResponse, StreamingResponse

Serve = Callable[[Any], AbstractContextManager[int]]
Eventually = Callable[[Callable[[], object]], None]
SECRET = "does my patient have phenylketonuria"


class Service:
    """A small question-answering service with an endpoint for each way to end."""

    def __init__(self, exporter: Exporter) -> None:
        self.exporter = exporter
        self.release = threading.Event()
        self.began = threading.Event()
        self.background_done = threading.Event()
        self.app = FastAPI()
        endpoints: dict[str, Callable[..., Any]] = {
            "/query": self.answer,
            "/stream": self.stream,
            "/slow": self.slow,
            "/raise": self.explode,
            "/broken-stream": self.broken_stream,
            "/background": self.background,
            "/refuse/{status}": self.refuse,
            "/boast": self.boast,
        }
        for path, endpoint in endpoints.items():
            self.app.post(path)(endpoint)
        instrument_fastapi(self.app, exporter, query_routes=tuple(endpoints))

    async def answer(self, body: dict[str, str]) -> dict[str, str]:
        query = self.exporter.current_query()
        with query.component("lightrag"):
            await asyncio.sleep(0)
        query.cache_result("miss")
        query.answered("lightrag")
        return {"answer": body["question"]}

    async def wait_for_release(self) -> None:
        self.began.set()
        await asyncio.to_thread(self.release.wait, 60)

    async def stream(self) -> StreamingResponse:
        query = self.exporter.current_query()

        async def pieces() -> AsyncIterator[str]:
            query.first_token()
            yield "first "
            await self.wait_for_release()
            query.answered("lightrag")
            yield "last"

        return StreamingResponse(pieces())

    async def slow(self, body: dict[str, str]) -> dict[str, str]:
        self.slow_query = query = self.exporter.current_query()
        await self.wait_for_release()
        query.answered("lightrag")
        return {"answer": body.get("question", "at last")}

    async def explode(self) -> None:
        self.exporter.current_query().answered("lightrag")
        raise RuntimeError(SECRET)

    async def broken_stream(self) -> StreamingResponse:
        query = self.exporter.current_query()

        async def pieces() -> AsyncIterator[str]:
            query.answered("lightrag")
            yield "first "
            raise RuntimeError(SECRET)

        return StreamingResponse(pieces())

    async def background(self, tasks: BackgroundTasks) -> dict[str, str]:
        self.exporter.current_query().answered("cache")

        async def later() -> None:
            await self.wait_for_release()
            self.background_done.set()

        tasks.add_task(later)
        return {"answer": "now"}

    async def refuse(self, status: int) -> None:
        raise HTTPException(status)

    async def boast(self) -> JSONResponse:
        self.exporter.current_query().answered("lightrag")
        return JSONResponse({}, status_code=500)


@pytest.fixture
def service(exporter: Exporter) -> Service:
    return Service(exporter)


def outcomes(exporter: Exporter, scenario: str = "live") -> dict[str, float]:
    """Finished queries of a scenario by outcome, those that have any."""
    return {
        sample.labels["outcome"]: sample.value
        for family in exporter.registry.collect()
        for sample in family.samples
        if sample.name == "cmo_queries_total" and sample.labels["scenario"] == scenario and sample.value
    }


def http(exporter: Exporter) -> dict[tuple[str, ...], float]:
    """HTTP requests by method, route, status and error type."""
    return {
        (
            sample.labels["http_request_method"],
            sample.labels["http_route"],
            sample.labels["http_response_status_code"],
            sample.labels["error_type"],
        ): sample.value
        for family in exporter.registry.collect()
        for sample in family.samples
        if sample.name == "http_server_request_duration_seconds_count"
    }


def value(exporter: Exporter, name: str, **labels: str) -> float:
    found = exporter.registry.get_sample_value(name, labels)
    assert found is not None, (name, labels)
    return found


def post(port: int, path: str, **headers: str) -> httpx.Response:
    url = f"http://127.0.0.1:{port}{path}"
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return httpx.post(url, json={"question": SECRET}, headers=named, timeout=60)


@contextlib.contextmanager
def raw_post(port: int, path: str) -> Any:
    """A POST over a socket that can be cut."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
            "Content-Type: application/json\r\n\r\n{}".encode()
        )
        yield connection
        # Reset, as a browser that is closed does.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_an_answer_is_counted_under_its_scenario_and_session(
    service: Service, serve: Serve, eventually: Eventually
) -> None:
    exporter = service.exporter
    with serve(service.app) as port:
        answer = post(port, "/query", X_CMO_Scenario="clinical_rush", X_CMO_Session="u1")
        assert answer.json() == {"answer": SECRET}
        eventually(lambda: outcomes(exporter, "clinical_rush") == {"success": 1})
        assert value(exporter, "cmo_active_users", scenario="clinical_rush") == 1
        post(port, "/query", X_CMO_Scenario="clinical_rush", X_CMO_Session="u1", X_CMO_Session_End="1")
        eventually(lambda: value(exporter, "cmo_active_users", scenario="clinical_rush") == 0)
    assert outcomes(exporter, "clinical_rush") == {"success": 2}
    assert http(exporter) == {("POST", "/query", "200", ""): 2}
    assert value(exporter, "cmo_network_bytes_total", direction="receive") == 2 * len(answer.request.content)
    assert value(exporter, "cmo_network_bytes_total", direction="transmit") == 2 * len(answer.content)
    calls = {"scenario": "clinical_rush", "component": "lightrag", "outcome": "success"}
    assert value(exporter, "cmo_component_calls_total", **calls) == 2
    assert value(exporter, "http_server_active_requests", http_request_method="POST") == 0


def test_an_unknown_scenario_is_other_and_counted_as_dropped(service: Service, serve: Serve) -> None:
    with serve(service.app) as port:
        post(port, "/query", X_CMO_Scenario="made_up")
        post(port, "/query", X_CMO_Scenario="_other")
    assert outcomes(service.exporter, "_other") == {"success": 2}
    assert value(service.exporter, "cmo_series_dropped_total", metric="cmo_queries_started_total") == 2
    assert outcomes(service.exporter) == {}


def test_a_scenario_header_that_is_not_honoured_is_live(serve: Serve) -> None:
    exporter = Exporter(ExporterSettings(scenarios=("clinical_rush",), components=("lightrag",)))
    service = Service(exporter)
    with serve(service.app) as port:
        post(port, "/query", X_CMO_Scenario="clinical_rush")
    assert outcomes(exporter) == {"success": 1}
    assert outcomes(exporter, "clinical_rush") == {}
    assert value(exporter, "cmo_series_dropped_total", metric="cmo_queries_started_total") == 0


def test_a_query_is_in_progress_from_its_arrival_to_its_last_byte(
    service: Service, serve: Serve, eventually: Eventually
) -> None:
    exporter = service.exporter
    with (
        serve(service.app) as port,
        httpx.stream("POST", f"http://127.0.0.1:{port}/stream", timeout=60) as answer,
    ):
        pieces = answer.iter_text()
        assert next(pieces) == "first "
        service.began.wait(60)
        assert value(exporter, "cmo_queries_started_total", scenario="live") == 1
        assert value(exporter, "cmo_queries_in_progress", scenario="live") == 1
        assert value(exporter, "cmo_query_time_to_first_token_seconds_count", scenario="live") == 1
        assert outcomes(exporter) == {}
        asked = time.monotonic()
        eventually(lambda: time.monotonic() > asked + 0.05)
        service.release.set()
        assert "".join(pieces) == "last"
        eventually(lambda: outcomes(exporter) == {"success": 1})
    total = value(exporter, "cmo_query_duration_seconds_sum", scenario="live", outcome="success")
    first = value(exporter, "cmo_query_time_to_first_token_seconds_sum", scenario="live")
    assert total >= first + 0.05


@pytest.mark.parametrize("path", ["/slow", "/stream"])
def test_a_user_who_leaves_has_cancelled_when_they_left(
    service: Service, serve: Serve, eventually: Eventually, path: str
) -> None:
    exporter = service.exporter
    with serve(service.app) as port:
        arrived = time.monotonic()
        with raw_post(port, path):
            assert service.began.wait(60)
        noticed = None
        if path == "/slow":  # the handler does not notice, and works on
            eventually(lambda: service.slow_query._left_at)
            noticed = time.monotonic()
            eventually(lambda: time.monotonic() > noticed + 0.05)
            assert outcomes(exporter) == {}
            service.release.set()
        eventually(lambda: outcomes(exporter))
        service.release.set()
    assert outcomes(exporter) == {"cancelled": 1}
    assert http(exporter) == {("POST", path, "499", ""): 1}
    assert value(exporter, "cmo_answers_total", scenario="live", source="lightrag") == 0
    seconds = value(exporter, "cmo_query_duration_seconds_sum", scenario="live", outcome="cancelled")
    if noticed is not None:
        assert seconds <= noticed - arrived, "the work after the user had left is not the user's waiting"


def test_a_server_that_stops_while_a_user_waits_has_failed_them(
    service: Service, eventually: Eventually
) -> None:
    config = uvicorn.Config(service.app, port=0, log_level="critical", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    serving = threading.Thread(target=server.run)
    serving.start()
    eventually(lambda: server.started)
    with raw_post(server.servers[0].sockets[0].getsockname()[1], "/slow"):
        assert service.began.wait(60)
        server.should_exit = True
        eventually(lambda: outcomes(service.exporter))
        service.release.set()
        serving.join()
    assert outcomes(service.exporter) == {"error": 1}
    assert http(service.exporter) == {("POST", "/slow", "500", "500"): 1}


def test_who_cannot_be_listened_for_yet_has_left_when_the_request_is_cancelled(exporter: Exporter) -> None:
    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        raise asyncio.CancelledError  # with the body unread

    async def unused(*_: Any) -> Any:
        raise AssertionError

    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": "/query", "headers": []}
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(instrument_asgi(app, exporter)(scope, unused, unused))  # type: ignore[arg-type]  # as below
    assert outcomes(exporter) == {"cancelled": 1}


def test_an_exception_is_an_error_even_after_a_claimed_answer(
    service: Service, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    with serve(service.app) as port:
        assert post(port, "/raise").status_code == 500
        with pytest.raises(httpx.TransportError):
            post(port, "/broken-stream")
        assert post(port, "/boast").status_code == 500
    assert outcomes(service.exporter) == {"error": 3}
    assert http(service.exporter) == {
        ("POST", "/raise", "500", "500"): 1,
        ("POST", "/broken-stream", "200", "incomplete"): 1,
        ("POST", "/boast", "500", "500"): 1,
    }
    assert value(service.exporter, "cmo_answers_total", scenario="live", source="lightrag") == 0
    assert not [record for record in caplog.records if record.name == "cmo_exporter"]


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (422, "rejected"),
        (429, "rejected"),
        (503, "rejected"),
        (504, "timeout"),
        (500, "error"),
        (502, "error"),
    ],
)
def test_a_status_speaks_where_the_service_does_not(
    service: Service, serve: Serve, status: int, outcome: str
) -> None:
    with serve(service.app) as port:
        post(port, f"/refuse/{status}")
    assert outcomes(service.exporter) == {outcome: 1}
    assert http(service.exporter) == {
        ("POST", "/refuse/{status}", str(status), str(status) if status >= 500 else ""): 1
    }


def test_bad_input_is_rejected(service: Service, serve: Serve) -> None:
    with serve(service.app) as port:
        assert httpx.post(f"http://127.0.0.1:{port}/query", content=b"{").status_code == 422
    assert outcomes(service.exporter) == {"rejected": 1}


def test_background_tasks_are_no_part_of_a_query(
    service: Service, serve: Serve, eventually: Eventually
) -> None:
    with serve(service.app) as port:
        assert post(port, "/background").json() == {"answer": "now"}
        eventually(lambda: outcomes(service.exporter) == {"success": 1})
        assert not service.background_done.is_set()
        assert value(service.exporter, "cmo_queries_in_progress", scenario="live") == 0
        assert value(service.exporter, "http_server_active_requests", http_request_method="POST") == 0
        service.release.set()
        eventually(service.background_done.is_set)


def test_counters_move_after_the_last_byte_and_in_progress_last(exporter: Exporter) -> None:
    """A server that looks at the counters while it is given the last byte."""
    seen: list[tuple[float, dict[str, float]]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        exporter.current_query().answered("lightrag")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"yes"})
        seen.append((value(exporter, "cmo_queries_in_progress", scenario="live"), outcomes(exporter)))

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        seen.append((value(exporter, "cmo_queries_in_progress", scenario="live"), outcomes(exporter)))

    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": "/query", "headers": []}
    asyncio.run(instrument_asgi(app, exporter)(scope, receive, send))  # type: ignore[arg-type]  # the App type promises an awaitable
    assert seen == [(1, {}), (1, {}), (0, {"success": 1})]
