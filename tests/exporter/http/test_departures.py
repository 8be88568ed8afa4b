"""Who leaves before the last byte has left with 499, also where the application never looks."""

from __future__ import annotations

import asyncio
import json
import math
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from socket import socket
from typing import Any

import pytest
from cmo_exporter import Exporter, ExporterSettings, instrument_asgi, instrument_fastapi
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from starlette.middleware.base import BaseHTTPMiddleware

Serve = Callable[..., AbstractContextManager[int]]
Eventually = Callable[[Callable[[], object]], None]
Counted = Callable[[], dict[tuple[str, ...], float]]
Connect = Callable[[int], AbstractContextManager[socket]]
Value = Callable[..., float]

GET = b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"


def all_told(instrumented: Any) -> bool:
    """Whether there are requests, and each has been found to take long."""
    return set(instrumented._site.watch.active.values()) == {math.inf}


class Held:
    """An application that never receives, and answers when it is let."""

    def __init__(self, *, begins_first: bool = False) -> None:
        self.began = threading.Event()
        self.release = threading.Event()
        self.begins_first = begins_first

    async def __call__(self, scope: Any, _receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        start = {"type": "http.response.start", "status": 200, "headers": []}
        if self.begins_first:
            await send(start)
            await send({"type": "http.response.body", "body": b"first", "more_body": True})
        self.began.set()
        await asyncio.to_thread(self.release.wait, 60)
        if not self.begins_first:
            await send(start)
        await send({"type": "http.response.body", "body": b"last"})


@pytest.mark.parametrize("begins_first", [False, True], ids=["before the answer", "in mid-stream"])
@pytest.mark.parametrize("request_bytes", [GET, POST + b"12345", POST + b"12"], ids=["GET", "POST", "half"])
def test_an_application_that_never_looks(
    exporter: Exporter,
    serve: Serve,
    eventually: Eventually,
    counted: Counted,
    connect: Connect,
    request_bytes: bytes,
    begins_first: bool,
) -> None:
    held = Held(begins_first=begins_first)
    departed = threading.Event()

    async def tell(scope: Any, receive: Any, send: Any) -> None:
        """Around the exporter, as a server is: says when it has told of the departure."""

        async def watched() -> Any:
            message = await receive()
            if message["type"] == "http.disconnect":
                departed.set()
            return message

        await instrumented(scope, watched, send)

    instrumented: Any = instrument_asgi(held, exporter)
    with serve(tell) as port:
        with connect(port) as client:
            client.sendall(request_bytes)
            assert held.began.wait(60)
            eventually(lambda: all_told(instrumented))  # it is listened to
        assert departed.wait(60), "nobody has listened for the departure"
        held.release.set()
        eventually(counted)
    method = request_bytes.split()[0].decode()
    assert counted() == {(method, "unmatched", "499"): 1}


def test_a_request_whose_client_left_took_until_then_and_not_as_long_as_the_work_goes_on(
    exporter: Exporter, serve: Serve, eventually: Eventually, counted: Counted, connect: Connect, value: Value
) -> None:
    held = Held()
    instrumented: Any = instrument_asgi(held, exporter)
    with serve(instrumented) as port:
        asked = time.monotonic()
        with connect(port) as client:
            client.sendall(GET)
            assert held.began.wait(60)
            eventually(lambda: all_told(instrumented))  # it is listened to
        eventually(lambda: [one._left_at for one in instrumented._site.watch.active] != [None])
        longest = time.monotonic() - asked
        # The work goes on for as long again, so that with it the request would have taken longer.
        eventually(lambda: time.monotonic() - asked > 2 * longest)
        held.release.set()
        eventually(counted)
    labels = {"http_request_method": "GET", "http_route": "unmatched", "http_response_status_code": "499"}
    took = value("http_server_request_duration_seconds_sum", **labels, error_type="")
    assert 0 < took <= longest


def test_an_answer_that_comes_at_once_needs_no_listener(exporter: Exporter) -> None:
    """A task for each request would cost more than all else: quick answers are not listened to."""
    received = 0

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"yes"})

    async def receive() -> Any:
        nonlocal received
        received += 1
        return {"type": "http.disconnect"}

    async def send(_message: Any) -> None:
        """A server that takes everything."""

    async def run() -> int:
        app_to_serve: Any = instrument_asgi(app, exporter)
        await app_to_serve({"type": "http", "method": "GET", "path": "/", "headers": []}, receive, send)
        return len(asyncio.all_tasks())

    assert asyncio.run(run()) == 1
    assert received == 0


def test_what_was_heard_is_not_lost_to_the_application(
    exporter: Exporter, serve: Serve, eventually: Eventually, counted: Counted, connect: Connect
) -> None:
    """The body arrives while the application works; it reads late, and gets all of it."""
    app = FastAPI()
    began, release = threading.Event(), threading.Event()

    @app.post("/slow")
    async def slow(request: Request) -> Any:
        began.set()
        await asyncio.to_thread(release.wait, 60)
        body = await request.body()
        return {"length": len(body), "left": await request.is_disconnected()}

    served: Any = instrument_asgi(app, exporter)
    with serve(served) as port, connect(port) as client:
        client.sendall(b"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n" + b"x" * 100_000)
        assert began.wait(60)
        eventually(lambda: all_told(served))  # it is listened to
        client.sendall(b"x" * 100_000)
        release.set()
        client.sendall(b"x" * 100_000)
        answer = client.recv(65536)
        while b"}" not in answer:
            answer += client.recv(65536)
        assert b'{"length":300000,"left":false}' in answer
        eventually(counted)
    assert counted() == {("POST", "/slow", "200"): 1}


@pytest.mark.parametrize("layer", [False, True], ids=["plain", "behind BaseHTTPMiddleware"])
def test_a_stream_that_is_cut_off_is_no_clean_200(
    exporter: Exporter,
    serve: Serve,
    eventually: Eventually,
    counted: Counted,
    connect: Connect,
    layer: bool,
) -> None:
    app = FastAPI()

    async def pass_on(request: Request, call_next: Any) -> Any:
        return await call_next(request)

    if layer:
        app.add_middleware(BaseHTTPMiddleware, dispatch=pass_on)

    @app.get("/slow")
    async def stream() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            while True:
                yield b"piece"
                await asyncio.sleep(0.005)

        return StreamingResponse(pieces())

    instrument_fastapi(app, exporter)
    with serve(app) as port:
        with connect(port) as client:
            client.sendall(GET)
            assert b"200 OK" in client.recv(1024)
        eventually(counted)
    assert counted() == {("GET", "/slow", "499"): 1}


def test_a_slow_answer_that_is_fetched_is_a_200(
    exporter: Exporter, serve: Serve, eventually: Eventually, counted: Counted, connect: Connect
) -> None:
    """Servers say "disconnect" after the last byte as well, which is no departure."""
    held = Held()
    asked = threading.Event()

    async def tell(scope: Any, receive: Any, send: Any) -> None:
        async def watched() -> Any:
            asked.set()
            return await receive()

        await instrumented(scope, watched, send)

    instrumented: Any = instrument_asgi(held, exporter)
    with serve(tell) as port, connect(port) as client:
        for _ in range(2):  # the connection is kept
            asked.clear()
            client.sendall(GET)
            assert asked.wait(60)
            held.release.set()
            answer = client.recv(65536)
            while b"last" not in answer:
                answer += client.recv(65536)
            held.release.clear()
        eventually(lambda: counted() == {("GET", "unmatched", "200"): 2})


@pytest.mark.parametrize("status", ["100", "413"])
def test_a_body_that_the_client_offers_is_not_asked_for_in_the_applications_place(
    exporter: Exporter, serve: Serve, eventually: Eventually, counted: Counted, connect: Connect, status: str
) -> None:
    """``Expect: 100-continue``: whoever receives first makes the server say "Continue"."""
    began, release = threading.Event(), threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        began.set()
        await asyncio.to_thread(release.wait, 60)
        if status == "100":
            await receive()
        await send({"type": "http.response.start", "status": int(status) if status != "100" else 200})
        await send({"type": "http.response.body", "body": b"done"})

    site: Any = instrument_asgi(app, exporter)
    with serve(site) as port, connect(port) as client:
        client.sendall(POST.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"))
        assert began.wait(60)
        eventually(lambda: all_told(site))  # it has been found to take long
        release.set()
        answer = client.recv(1024)
        if status == "100":
            assert answer.startswith(b"HTTP/1.1 100 ")
            client.sendall(b"12345")
        while piece := client.recv(65536):
            answer += piece
        assert (b" 100 Continue" in answer) == (status == "100")
        assert b"done" in answer
    eventually(counted)
    assert counted() == {("POST", "unmatched", "200" if status == "100" else "413"): 1}


def test_a_server_of_asgi_2_4_says_by_raising_that_the_user_has_left(
    exporter: Exporter, counted: Counted
) -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            raise BrokenPipeError

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    instrumented: Any = instrument_asgi(app, exporter)
    with pytest.raises(BrokenPipeError):
        asyncio.run(instrumented(scope, None, send))
    assert counted() == {("GET", "unmatched", "499"): 1}


def test_a_server_may_say_disconnect_while_it_is_given_the_last_byte(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Some are done with a request before they return from sending its end."""
    exporter = Exporter(ExporterSettings(query_log=True))
    over = asyncio.Event()
    heard = asyncio.Event()

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await heard.wait()  # until somebody listens
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"last"})

    async def receive() -> Any:
        heard.set()
        await over.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            over.set()
            for _ in range(5):
                await asyncio.sleep(0)

    scope = {"type": "http", "method": "POST", "path": "/query", "headers": [(b"host", b"x")]}
    instrumented: Any = instrument_asgi(app, exporter)
    asyncio.run(instrumented(scope, receive, send))
    labels = {"http_route": "unmatched", "http_response_status_code": "200", "error_type": ""}
    name = "http_server_request_duration_seconds_count"
    assert exporter.registry.get_sample_value(name, {"http_request_method": "POST", **labels}) == 1
    exporter.close()
    line = json.loads(capsys.readouterr().err)
    assert line["http"]["status"] == 200, "the log says what the metrics say"


def test_the_timer_rests_while_all_who_are_left_have_been_told(
    exporter: Exporter, serve: Serve, eventually: Eventually, connect: Connect, counted: Counted
) -> None:
    """A stream may stay open for hours: it costs nothing but the look at it when another request comes."""
    held = Held()
    instrumented: Any = instrument_asgi(held, exporter)
    with serve(instrumented) as port, connect(port) as client:
        client.sendall(GET)
        assert held.began.wait(60)
        eventually(lambda: all_told(instrumented) and not instrumented._site.watch.ticking)
        held.release.set()
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
        eventually(counted)
        assert not instrumented._site.watch.active
        client.sendall(GET)
        eventually(lambda: list(counted().values()) == [2])


def test_a_slow_upload_is_listened_to_once_it_has_arrived(
    exporter: Exporter, serve: Serve, eventually: Eventually, counted: Counted, connect: Connect
) -> None:
    """While the application waits for the body it would hear of a departure itself; afterwards it works."""
    work, release = threading.Event(), threading.Event()

    async def app(scope: Any, receive: Any, _send: Any) -> None:
        if scope["type"] == "http":
            while (await receive()).get("more_body"):
                pass
            work.set()
            await asyncio.to_thread(release.wait, 60)

    instrumented: Any = instrument_asgi(app, exporter)
    with serve(instrumented) as port:
        with connect(port) as client:
            client.sendall(POST)
            eventually(lambda: instrumented._site and all_told(instrumented))
            assert not work.is_set()
            client.sendall(b"hello")
            assert work.wait(60)
            eventually(lambda: all_told(instrumented))
        eventually(lambda: [one._left_at for one in instrumented._site.watch.active] != [None])
        release.set()
        eventually(counted)
    assert counted() == {("POST", "unmatched", "499"): 1}
