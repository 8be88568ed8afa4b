"""Any ASGI application: websockets and the lifespan pass through untouched, other middleware is no matter."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pytest
from cmo_exporter import Exporter, ExporterError, instrument_asgi, instrument_fastapi
from fastapi import FastAPI, Request, WebSocket
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from websockets.sync.client import connect as open_websocket

Serve = Callable[..., AbstractContextManager[int]]
Eventually = Callable[[Callable[[], object]], None]
Counted = Callable[[], dict[tuple[str, ...], float]]
Outcomes = Callable[[], dict[str, float]]


def test_a_plain_application_can_be_wrapped(
    exporter: Exporter, serve: Serve, outcomes: Outcomes, counted: Counted
) -> None:
    async def app(scope: Any, _receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        exporter.current_query().answered("perplexity")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"yes"})

    with serve(instrument_asgi(app, exporter, query_routes=("/ask",))) as port:
        assert httpx.post(f"http://127.0.0.1:{port}/ask", content=b"?").text == "yes"
    assert outcomes() == {"success": 1}
    assert counted() == {("POST", "unmatched", "200"): 1}


@pytest.mark.parametrize("framework", ["Starlette", "FastAPI"])
def test_websockets_and_lifespan_pass_through_untouched(
    exporter: Exporter, serve: Serve, eventually: Eventually, counted: Counted, framework: str
) -> None:
    """The application is given the server's own scope, receive and send, not something in their place."""
    lived: list[str] = []
    given: dict[str, tuple[int, ...]] = {}
    reached: dict[str, tuple[int, ...]] = {}

    @contextlib.asynccontextmanager
    async def lifespan(_app: Any) -> AsyncIterator[dict[str, str]]:
        lived.append("up")
        yield {"state": "shared"}
        lived.append("down")

    async def chat(socket: WebSocket) -> None:
        await socket.accept()
        async for text in socket.iter_text():
            with exporter.query() as query:
                query.answered("cache")
            await socket.send_text(f"{text} {socket.state.state}")

    async def page(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.state.state)

    app: Starlette
    if framework == "FastAPI":
        app = FastAPI(lifespan=lifespan)
        app.add_api_websocket_route("/chat", chat)
        app.add_route("/page", page)
        instrument_fastapi(app, exporter)
        served: Any = app
    else:
        inner = Starlette(routes=[WebSocketRoute("/chat", chat), Route("/page", page)])
        app = Starlette(routes=[Mount("/", inner)], lifespan=lifespan)

        async def beneath(scope: Any, receive: Any, send: Any) -> None:
            reached[scope["type"]] = (id(scope), id(receive), id(send))
            await app(scope, receive, send)

        instrumented: Any = instrument_asgi(beneath, exporter)

        async def above(scope: Any, receive: Any, send: Any) -> None:
            given[scope["type"]] = (id(scope), id(receive), id(send))
            await instrumented(scope, receive, send)

        served = above
    with serve(served) as port:
        assert lived == ["up"]
        with open_websocket(f"ws://127.0.0.1:{port}/chat") as socket:
            for number in range(3):
                socket.send(str(number))
                assert socket.recv(60) == f"{number} shared"
        assert httpx.get(f"http://127.0.0.1:{port}/page").text == "shared"
        eventually(counted)
    assert lived == ["up", "down"]
    for kind in ("websocket", "lifespan"):
        assert given.get(kind) == reached.get(kind)
    assert sum(counted().values()) == 1
    successes = exporter.registry.get_sample_value(
        "cmo_queries_total", {"scenario": "live", "outcome": "success"}
    )
    assert successes == 3


def test_a_query_is_seen_through_a_middleware_with_tasks_of_its_own(
    exporter: Exporter, serve: Serve, outcomes: Outcomes, counted: Counted, eventually: Eventually
) -> None:
    app = FastAPI()

    @app.post("/query")
    async def ask(request: Request) -> dict[str, int]:
        body = await request.body()
        await asyncio.sleep(0.3)  # so long that its departure is listened for
        exporter.current_query().answered("lightrag")
        return {"length": len(body)}

    async def pass_on(request: Request, call_next: Any) -> Any:
        return await call_next(request)

    app.add_middleware(BaseHTTPMiddleware, dispatch=pass_on)
    app.add_middleware(BaseHTTPMiddleware, dispatch=pass_on)
    instrument_fastapi(app, exporter)
    with serve(app) as port:
        for _ in range(2):
            answer = httpx.post(f"http://127.0.0.1:{port}/query", content=b"x" * 100_000)
            assert answer.json() == {"length": 100_000}
        eventually(lambda: counted() == {("POST", "/query", "200"): 2})
    assert outcomes() == {"success": 2}


def test_one_application_in_two_event_loops(exporter: Exporter, serve: Serve, counted: Counted) -> None:
    app = FastAPI()
    both = threading.Barrier(2, timeout=60)

    @app.get("/page")
    def page() -> str:
        both.wait()
        return "yes"

    instrument_fastapi(app, exporter)
    with serve(app) as first, serve(app) as second:
        urls = [f"http://127.0.0.1:{port}/page" for port in (first, second)]
        clients = [threading.Thread(target=httpx.get, args=(url,), kwargs={"timeout": 60}) for url in urls]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
    assert counted() == {("GET", "/page", "200"): 2}


def test_instrumenting_too_late_says_so(exporter: Exporter, serve: Serve) -> None:
    app = FastAPI()
    with serve(app), pytest.raises(ExporterError, match="too late"):
        instrument_fastapi(app, exporter)


def test_a_request_is_counted_under_the_method_that_it_arrived_with(
    exporter: Exporter, counted: Counted
) -> None:
    """Some middlewares put another one into the scope, as a form's hidden field says."""

    async def overridden(scope: Any, _receive: Any, send: Any) -> None:
        scope["method"] = "DELETE"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"gone"})

    async def unused(*_: Any) -> Any:
        """A server that takes everything."""

    app: Any = instrument_asgi(overridden, exporter)
    for _ in range(2):
        asyncio.run(app({"type": "http", "method": "POST", "path": "/", "headers": []}, unused, unused))
    assert counted() == {("POST", "unmatched", "200"): 2}
