"""What is measured of a request: its end, its first byte, its status, its error."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from socket import socket
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from cmo_exporter import Exporter, instrument_asgi, instrument_fastapi
from cmo_exporter.http_tallies import HttpTallies
from fastapi import BackgroundTasks, FastAPI, HTTPException
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse

if TYPE_CHECKING:
    from pathlib import Path

Serve = Callable[..., AbstractContextManager[int]]
Eventually = Callable[[Callable[[], object]], None]
Counted = Callable[[], dict[tuple[str, ...], float]]
Value = Callable[..., float]
Connect = Callable[[int], AbstractContextManager[socket]]

DURATION = "http_server_request_duration_seconds"
FIRST_BYTE = "http_server_time_to_first_byte_seconds"


def instrumented(exporter: Exporter) -> FastAPI:
    app = FastAPI()
    instrument_fastapi(app, exporter)
    return app


def get(port: int, path: str) -> httpx.Response:
    return httpx.get(f"http://127.0.0.1:{port}{path}", timeout=60)


def labels(route: str, status: str = "200", method: str = "GET") -> dict[str, str]:
    return {
        "http_request_method": method,
        "http_route": route,
        "http_response_status_code": status,
        "error_type": "",
    }


def test_the_first_byte_of_a_stream_is_its_first_piece_and_its_end_the_last(
    exporter: Exporter, serve: Serve, eventually: Eventually, counted: Counted, value: Value
) -> None:
    app = instrumented(exporter)
    first, last = threading.Event(), threading.Event()

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            yield b""  # an empty piece is no byte
            await asyncio.sleep(0.1)
            yield b"first"
            first.set()
            await asyncio.to_thread(last.wait, 60)
            await asyncio.sleep(0.1)
            yield b"last"

        return StreamingResponse(pieces())

    with serve(app) as port, httpx.stream("GET", f"http://127.0.0.1:{port}/stream", timeout=60) as answer:
        assert first.wait(60)
        assert counted() == {}
        assert value("http_server_active_requests", http_request_method="GET") == 1
        last.set()
        assert answer.read() == b"firstlast"
        eventually(counted)
    to_first = value(f"{FIRST_BYTE}_sum", http_route="/stream")
    total = value(f"{DURATION}_sum", **labels("/stream"))
    assert 0.1 <= to_first <= total - 0.1
    assert value("http_server_active_requests", http_request_method="GET") == 0


def test_an_answer_without_a_body_has_its_first_byte_at_its_end(
    exporter: Exporter, serve: Serve, counted: Counted, value: Value
) -> None:
    app = instrumented(exporter)

    @app.get("/status/{status}")
    async def answer(status: int) -> Response:
        return Response(status_code=status)

    @app.head("/page")
    async def page() -> str:
        return "a body that is not sent"

    with serve(app) as port:
        assert get(port, "/status/204").status_code == 204
        assert get(port, "/status/304").status_code == 304
        assert httpx.head(f"http://127.0.0.1:{port}/page").status_code == 200
    assert counted() == {
        ("GET", "/status/{status}", "204"): 1,
        ("GET", "/status/{status}", "304"): 1,
        ("HEAD", "/page", "200"): 1,
    }
    assert value(f"{FIRST_BYTE}_count", http_route="/status/{status}") == 2
    assert value(f"{FIRST_BYTE}_count", http_route="/page") == 1


def test_files_end_with_their_last_byte_or_where_the_server_takes_them_over(
    exporter: Exporter, serve: Serve, counted: Counted, value: Value, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"x" * 200_000)
    app = instrumented(exporter)

    @app.get("/file")
    async def file() -> FileResponse:
        return FileResponse(tmp_path / "file")

    async def with_pathsend(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            scope["extensions"] = {"http.response.pathsend": {}}
        await app(scope, receive, send)

    sent: list[str] = []

    async def send(message: Any) -> None:
        sent.append(message["type"])

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    with serve(app) as port:
        assert len(get(port, "/file").content) == 200_000
    assert counted() == {("GET", "/file", "200"): 1}
    scope = {"type": "http", "method": "GET", "path": "/file", "headers": [], "query_string": b""}
    asyncio.run(with_pathsend(scope, receive, send))
    assert sent == ["http.response.start", "http.response.pathsend"]
    assert counted() == {("GET", "/file", "200"): 2}
    assert value(f"{FIRST_BYTE}_count", http_route="/file") == 2


def test_failures_are_errors_before_and_after_the_first_byte(
    exporter: Exporter, serve: Serve, eventually: Eventually, counted: Counted
) -> None:
    app = instrumented(exporter)

    @app.exception_handler(LookupError)
    async def handled(*_: object) -> JSONResponse:
        return JSONResponse({}, status_code=502)

    async def explode(kind: str) -> None:
        raise {"handled": LookupError, "unhandled": ValueError}.get(kind) or HTTPException(409)

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"first"
            raise ValueError

        return StreamingResponse(pieces())

    app.get("/explode/{kind}")(explode)
    with serve(app) as port:
        assert get(port, "/explode/handled").status_code == 502
        assert get(port, "/explode/unhandled").status_code == 500
        assert get(port, "/explode/else").status_code == 409
        with pytest.raises(httpx.TransportError):
            get(port, "/stream")
        eventually(lambda: len(counted()) == 4)
    assert counted() == {
        ("GET", "/explode/{kind}", "502"): 1,
        ("GET", "/explode/{kind}", "500"): 1,
        ("GET", "/explode/{kind}", "409"): 1,
        ("GET", "/stream", "200", "incomplete"): 1,
    }
    errors = {
        sample.labels["error_type"]
        for family in exporter.registry.collect()
        for sample in family.samples
        if sample.name == f"{DURATION}_count"
    }
    assert errors == {"", "500", "502", "incomplete"}


@pytest.mark.parametrize("sends", [0, 1, 2], ids=["nothing", "only a start", "half a body"])
def test_an_application_that_stops_short_has_failed(
    exporter: Exporter, serve: Serve, eventually: Eventually, counted: Counted, sends: int
) -> None:
    messages: list[dict[str, Any]] = [
        {"type": "http.response.start", "status": 200, "headers": []},
        {"type": "http.response.body", "body": b"half", "more_body": True},
    ]

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        for message in messages[:sends] if scope["type"] == "http" else ():
            await send(message)

    with serve(instrument_asgi(app, exporter)) as port:
        if sends:
            with pytest.raises(httpx.TransportError):
                get(port, "/")
        else:
            assert get(port, "/").status_code == 500
        eventually(counted)
    expected = ("GET", "unmatched", "200", "incomplete") if sends else ("GET", "unmatched", "500")
    assert counted() == {expected: 1}


def test_background_tasks_are_no_latency_and_their_failures_no_failed_answer(
    exporter: Exporter, serve: Serve, eventually: Eventually, counted: Counted, value: Value
) -> None:
    app = instrumented(exporter)
    release, done = threading.Event(), threading.Event()

    @app.get("/background")
    async def background(tasks: BackgroundTasks) -> str:
        async def later() -> None:
            await asyncio.to_thread(release.wait, 60)
            done.set()
            raise ValueError

        tasks.add_task(later)
        return "now"

    with serve(app) as port:
        assert get(port, "/background").text == '"now"'
        eventually(counted)
        assert value("http_server_active_requests", http_request_method="GET") == 0
        release.set()
        eventually(done.is_set)
    assert counted() == {("GET", "/background", "200"): 1}


def test_requests_that_share_a_connection_are_counted_one_by_one(
    exporter: Exporter, serve: Serve, eventually: Eventually, counted: Counted, connect: Connect
) -> None:
    app = instrumented(exporter)

    @app.get("/item/{number}")
    async def item(number: int) -> dict[str, int]:
        await asyncio.sleep(0.2)  # so long that each is listened to
        return {"item": number}

    with serve(app) as port, connect(port) as client:
        request = "GET /item/{} HTTP/1.1\r\nHost: x\r\n\r\n"
        client.sendall("".join(request.format(number) for number in range(5)).encode())  # pipelined
        answer = b""
        while b'{"item":4}' not in answer:
            answer += client.recv(65536)
        for number in range(5, 8):  # kept alive
            client.sendall(request.format(number).encode())
            while b'{"item":%d}' % number not in answer:
                answer += client.recv(65536)
        assert answer.count(b"200 OK") == 8
        eventually(lambda: counted() == {("GET", "/item/{number}", "200"): 8})


def test_a_request_is_active_until_it_is_counted(
    exporter: Exporter, serve: Serve, value: Value, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits until nothing is active must find everything counted."""
    app = instrumented(exporter)
    app.get("/ask")(lambda: "yes")
    of, active = HttpTallies.of, []

    def noting(tallies: HttpTallies, *about: Any) -> Any:
        active.append(value("http_server_active_requests", http_request_method="GET"))
        return of(tallies, *about)

    monkeypatch.setattr(HttpTallies, "of", noting)
    with serve(app) as port:
        assert httpx.get(f"http://127.0.0.1:{port}/ask", timeout=60).status_code == 200
    assert counted() == {("GET", "/ask", "200"): 1}
    assert active == [1]
