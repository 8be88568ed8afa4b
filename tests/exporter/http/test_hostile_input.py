"""Odd methods, random paths, garbage: no series beyond a bound, no error, no other answer than ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from socket import socket
from typing import Any

import httpx
import pytest
from cmo_exporter import Exporter, ExporterSettings, instrument_asgi, instrument_fastapi
from fastapi import FastAPI
from fastapi.responses import Response

Serve = Callable[..., AbstractContextManager[int]]
Eventually = Callable[[Callable[[], object]], None]
Counted = Callable[[], dict[tuple[str, ...], float]]
Value = Callable[..., float]
Connect = Callable[[int], AbstractContextManager[socket]]


def http_series(exporter: Exporter) -> set[str]:
    """Every series of the HTTP metrics."""
    return {
        f"{sample.name}{sorted(sample.labels.items())}"
        for family in exporter.registry.collect()
        for sample in family.samples
        if sample.name.startswith("http_")
    }


def test_methods_paths_and_hosts_make_no_series(
    exporter: Exporter, serve: Serve, counted: Counted, value: Value
) -> None:
    app = FastAPI()

    @app.get("/readyz")
    async def ready() -> str:
        return "yes"

    app.post("/query")(ready)
    instrument_fastapi(app, exporter)
    with serve(app) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        client.get("/query")
        client.options("/query")
        for number in range(50):
            client.get("/readyz", headers={"Host": f"host{number}.example"})
            client.get(f"/nowhere/{number}", params={"q": "%00%ff"})
        for number in range(10):
            refused = client.request(f"ODD{number}", "/readyz").status_code
    # httptools knows methods, and refuses others before an application sees them.
    odd = {("_OTHER", "/readyz", "405"): 10} if refused == httpx.codes.METHOD_NOT_ALLOWED else {}
    assert value("cmo_queries_started_total", scenario="live") == 0
    assert counted() == {
        ("GET", "/readyz", "200"): 50,
        ("GET", "/query", "405"): 1,
        ("OPTIONS", "/query", "405"): 1,
        ("GET", "unmatched", "404"): 50,
        **odd,
    }
    assert value("cmo_series_dropped_total", metric="http_server_request_duration_seconds") == 10 * len(odd)


def test_statuses_and_routes_beyond_the_maximum_are_other(serve: Serve) -> None:
    with Exporter(ExporterSettings(maximum_http_series=5)) as exporter:
        app = FastAPI()

        @app.get("/status/{status}")
        async def answer(status: int) -> Response:
            return Response(status_code=status)

        for number in range(10):
            app.get(f"/route{number}")(lambda: "yes")
        instrument_fastapi(app, exporter)
        with serve(app) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            for status in range(400, 420):
                client.get(f"/status/{status}")
            for number in range(10):
                client.get(f"/route{number}")
            before, pages = http_series(exporter), len(exporter.recorder.journal.request_ends)
            for status in (*range(420, 451), *range(420, 451)):
                client.get(f"/status/{status}")
        assert http_series(exporter) == before
        assert len(exporter.recorder.journal.request_ends) == pages, (
            "what is beyond the maximum shares a page"
        )
        overflow = {
            "http_request_method": "_OTHER",
            "http_route": "_other",
            "http_response_status_code": "_other",
            "error_type": "_other",
        }
        read = exporter.registry.get_sample_value
        name = "http_server_request_duration_seconds"
        assert read(f"{name}_count", overflow) == 15 + 10 + 62
        assert read("cmo_series_dropped_total", {"metric": name}) == 15 + 10 + 62
        first_bytes = "http_server_time_to_first_byte_seconds"
        assert read(f"{first_bytes}_count", {"http_route": "_other"}) == 10 - 4


@pytest.mark.parametrize(
    "headers",
    [
        iter([(b"x-cmo-session", b"anna"), (b"host", b"here")]),
        [(b"host", b"here", b"and there"), (b"x-cmo-session", b"anna")],
        [(b"x-cmo-session", "anna"), (b"x-cmo-session-end", None)],
        [(bytearray(b"host"), b"here"), (b"accept", b"*/*")],
        None,
    ],
    ids=["iterator", "three", "text", "bytearray", "none"],
)
def test_headers_that_are_none_lose_no_query_and_the_application_sees_them(
    exporter: Exporter, headers: Any, value: Value
) -> None:
    seen: list[Any] = []

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        seen.append(None if scope["headers"] is None else len(list(scope["headers"])))
        exporter.current_query().answered("cache")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"yes"})

    async def send(_message: Any) -> None:
        pass

    instrumented: Any = instrument_asgi(app, exporter)
    scope = {"type": "http", "method": "POST", "path": "/query", "headers": headers}
    asyncio.run(instrumented(scope, None, send))
    assert seen == [None if headers is None else 2]
    assert value("cmo_queries_total", scenario="live", outcome="success") == 1


@pytest.mark.parametrize("message", [{}, None, 5, {"type": ["odd"]}], ids=str)
def test_with_the_log_on_odd_messages_are_for_the_server_and_the_application(message: Any) -> None:
    exporter = Exporter(ExporterSettings(query_log=True))
    passed: list[Any] = []

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await send(await receive())

    async def receive() -> Any:
        return message

    async def send(sent: Any) -> None:
        passed.append(sent)

    instrumented: Any = instrument_asgi(app, exporter)
    scope = {"type": "http", "method": ["odd"], "path": "/", "headers": []}
    asyncio.run(instrumented(scope, receive, send))
    assert passed == [message]


@pytest.mark.parametrize("status", [0, 99, 600, 12345, -1, True, "200", None, 200.5, [], float("nan")])
def test_a_status_that_is_none_is_passed_on_as_it_is(exporter: Exporter, status: Any, value: Value) -> None:
    sent: list[Any] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"yes"})

    async def send(message: Any) -> None:
        sent.append(message)

    instrumented: Any = instrument_asgi(app, exporter)
    asyncio.run(instrumented({"type": "http", "method": "GET", "path": "/", "headers": []}, None, send))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert value("http_server_active_requests", http_request_method="GET") == 0
    codes = {
        sample.labels["http_response_status_code"]
        for family in exporter.registry.collect()
        for sample in family.samples
        if sample.name == "http_server_request_duration_seconds_count"
    }
    assert codes == {"_other"}


GARBAGE = [
    b"\x00\xff\xfe garbage\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost x\r\n\r\n",
    b"POST /query HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    b"POST /query HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX-CMO-Session: " + b"a" * 60_000 + b"\r\n\r\n",
    b"POST /query HTTP/1.1\r\nHost: x\r\nX-CMO-Scenario: \xff\xfe\r\nContent-Length: 2\r\n\r\n{}",
    b"POST /query HTTP/1.1\r\nHost: x\r\nX-CMO-Session: \xc3\x28\r\nContent-Length: 2\r\n\r\n{}",
    b"POST /query HTTP/1.1\r\nHost: x\r\nX-CMO-Session-End: \xff\r\nContent-Length: 2\r\n\r\n{}",
]


@pytest.mark.parametrize("sent", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_is_answered_as_ever_and_leaves_nothing_behind(
    exporter: Exporter, serve: Serve, eventually: Eventually, value: Value, connect: Connect, sent: bytes
) -> None:
    def service() -> FastAPI:
        app = FastAPI()

        @app.post("/query")
        async def ask(body: dict[str, str]) -> dict[str, str]:
            return body

        return app

    def answer(app: FastAPI) -> bytes:
        with serve(app) as port, connect(port) as client:
            client.sendall(sent)
            with_status = client.recv(65536)
            found = with_status.partition(b"\r\n")[0]
            eventually(
                lambda: all(
                    value("http_server_active_requests", http_request_method=method) == 0
                    for method in ("GET", "POST")
                )
            )
            return found

    instrumented = service()
    instrument_fastapi(instrumented, exporter)
    assert answer(instrumented) == answer(service())
    assert value("cmo_queries_in_progress", scenario="live") == 0
    errors = [
        sample
        for family in exporter.registry.collect()
        for sample in family.samples
        if sample.name == "cmo_instrumentation_errors_total" and sample.value
    ]
    assert errors == []


def test_half_a_body_and_gone_is_a_cancelled_query(
    exporter: Exporter, serve: Serve, eventually: Eventually, counted: Counted, value: Value, connect: Connect
) -> None:
    app = FastAPI()

    @app.post("/query")
    async def ask(body: dict[str, str]) -> dict[str, str]:
        return body

    instrument_fastapi(app, exporter)
    with serve(app) as port:
        with connect(port) as client:
            client.sendall(b"POST /query HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
            eventually(lambda: value("cmo_queries_in_progress", scenario="live") == 1)
        eventually(counted)
    assert counted() == {("POST", "/query", "499"): 1}
    assert value("cmo_queries_total", scenario="live", outcome="cancelled") == 1
