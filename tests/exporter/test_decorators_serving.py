"""Watched functions behind a real server: streamed over HTTP, and asked over a websocket."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pytest
import websockets.sync.client
from cmo_exporter import Exporter, Outcome, StreamEnd, instrument_fastapi, returned_failures
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

Serve = Callable[[Any], AbstractContextManager[int]]
Eventually = Callable[[Callable[[], object]], None]


def read(exporter: Exporter, name: str, **labels: str) -> float:
    value = exporter.registry.get_sample_value(name, {"scenario": "live", **labels})
    assert value is not None, f"there is no series {name}{labels}"
    return value


def outcome(exporter: Exporter, name: str) -> float:
    return read(exporter, "cmo_queries_total", outcome=name)


def streaming_app(exporter: Exporter) -> FastAPI:
    """Answers in pieces; the pieces come from watched functions of three kinds."""
    app = FastAPI()

    def classify(end: StreamEnd) -> Outcome:
        return Outcome("success" if end.pieces == 2 else "error", "lightrag")

    @exporter.observe_query(classify=classify)
    async def pieces(question: str) -> AsyncIterator[str]:
        assert exporter.current_query().in_progress
        yield "Gly"
        if question == "for ever":
            await asyncio.Event().wait()
        yield "cine"

    @exporter.observe_query(classify=classify)
    def plain_pieces(question: str) -> Iterator[str]:
        for piece in ("Gly", "cine"):
            assert exporter.current_query().in_progress, "each is asked for in another thread"
            yield piece

    @exporter.observe_query(classify=classify)
    async def aquery(question: str) -> AsyncIterator[str]:
        return pieces.__wrapped__(question)  # type: ignore[attr-defined, no-any-return]

    @app.post("/generator")
    async def by_generator(body: dict[str, str]) -> StreamingResponse:
        return StreamingResponse(pieces(body["question"]))

    @app.post("/plain")
    async def by_plain_generator(body: dict[str, str]) -> StreamingResponse:
        return StreamingResponse(plain_pieces(body["question"]))

    @app.post("/returned")
    async def by_returned_stream(body: dict[str, str]) -> StreamingResponse:
        return StreamingResponse(await aquery(body["question"]))

    return app


@pytest.mark.parametrize("instrumented", [True, False], ids=["within the middleware's query", "alone"])
def test_a_streamed_answer_is_one_query(
    exporter: Exporter, serve: Serve, eventually: Eventually, instrumented: bool
) -> None:
    app = streaming_app(exporter)
    paths = ("/generator", "/plain", "/returned")
    if instrumented:
        instrument_fastapi(app, exporter, query_routes=paths)
    with serve(app) as port:
        for path in paths:
            answer = httpx.post(f"http://127.0.0.1:{port}{path}", json={"question": "q"}, timeout=60)
            assert answer.text == "Glycine"
        eventually(lambda: read(exporter, "cmo_queries_in_progress") == 0)
    assert read(exporter, "cmo_queries_started_total") == 3
    assert outcome(exporter, "success") == 3
    assert read(exporter, "cmo_answers_total", source="lightrag") == 3
    assert read(exporter, "cmo_query_time_to_first_token_seconds_count") == 3
    assert read(exporter, "cmo_streams_abandoned_total") == 0


@pytest.mark.parametrize("instrumented", [True, False], ids=["within the middleware's query", "alone"])
@pytest.mark.parametrize("path", ["/generator", "/returned"])
def test_a_streamed_answer_whose_user_leaves_is_abandoned(
    exporter: Exporter, serve: Serve, eventually: Eventually, instrumented: bool, path: str
) -> None:
    app = streaming_app(exporter)
    if instrumented:
        instrument_fastapi(app, exporter, query_routes=(path,))
    with serve(app) as port:
        url = f"http://127.0.0.1:{port}{path}"
        with httpx.stream("POST", url, json={"question": "for ever"}, timeout=60) as answer:
            assert next(answer.iter_text()) == "Gly"
        eventually(lambda: outcome(exporter, "cancelled") == 1)
    assert read(exporter, "cmo_queries_started_total") == 1
    assert read(exporter, "cmo_queries_in_progress") == 0
    assert read(exporter, "cmo_streams_abandoned_total") == 1
    assert read(exporter, "cmo_query_time_to_first_token_seconds_count") == 1


def chat_app(exporter: Exporter, waiting: threading.Event) -> FastAPI:
    """A chat page as Chainlit has it: a session, and a handler that is called for every message."""
    app = FastAPI()

    @exporter.observe_query(
        session=lambda chat, _: chat.query_params["user"],
        classify=returned_failures("lightrag", apologies=("I apologize",)),
        departures=(WebSocketDisconnect,),
    )
    async def main(chat: WebSocket, message: str) -> str:
        if message == "for ever":
            exporter.current_query().first_token()
            waiting.set()
            while True:
                await chat.send_text("piece ")
                await asyncio.sleep(0)
        answer = "I apologize, something went wrong." if message == "?" else "Glycine."
        await chat.send_text(answer)
        return answer

    @app.websocket("/chat")
    async def chat(chat: WebSocket) -> None:
        await chat.accept()
        async with exporter.session(chat.query_params["user"]):
            while True:
                await main(chat, await chat.receive_text())

    return app


def test_every_message_over_a_websocket_is_a_query(
    exporter: Exporter, serve: Serve, eventually: Eventually
) -> None:
    with serve(chat_app(exporter, threading.Event())) as port:
        url = f"ws://127.0.0.1:{port}/chat?user="
        with (
            websockets.sync.client.connect(url + "u1") as first,
            websockets.sync.client.connect(url + "u2") as second,
        ):
            eventually(lambda: read(exporter, "cmo_active_users") == 2)
            for chat, message in ((first, "What is glycine?"), (second, "?"), (first, "And serine?")):
                chat.send(message)
                chat.recv(timeout=60)
            eventually(lambda: read(exporter, "cmo_queries_in_progress") == 0)
            assert read(exporter, "cmo_active_users") == 2
        eventually(lambda: read(exporter, "cmo_active_users") == 0)
    assert outcome(exporter, "success") == 2
    assert outcome(exporter, "error") == 1
    assert read(exporter, "cmo_answers_total", source="default") == 1


def test_a_user_who_leaves_a_websocket_in_the_middle_has_left(
    exporter: Exporter, serve: Serve, eventually: Eventually
) -> None:
    waiting = threading.Event()
    with serve(chat_app(exporter, waiting)) as port:
        url = f"ws://127.0.0.1:{port}/chat?user=u1"
        # No patience for a farewell: the server has too much to say.
        with websockets.sync.client.connect(url, close_timeout=0.1) as chat:
            chat.send("for ever")
            assert waiting.wait(60)
            chat.recv(timeout=60)
        eventually(lambda: outcome(exporter, "cancelled") == 1)
        eventually(lambda: read(exporter, "cmo_active_users") == 0)
    assert read(exporter, "cmo_queries_in_progress") == 0
    assert read(exporter, "cmo_streams_abandoned_total") == 1


class Question(BaseModel):
    """Known by name alone to whoever reads the annotations of this module."""

    text: str


def test_an_endpoint_may_be_watched_itself(exporter: Exporter, serve: Serve, eventually: Eventually) -> None:
    app = FastAPI()

    @app.post("/query")
    @exporter.observe_query(classify=returned_failures("lightrag"))
    async def query(question: Question, mode: str = "hybrid") -> dict[str, str]:
        return {"answer": f"{mode}: {question.text}" if question.text else ""}

    @app.post("/deadline")
    @exporter.observe_query
    async def deadline(question: Question) -> None:
        raise TimeoutError(question.text)

    instrument_fastapi(app, exporter, query_routes=("/query", "/deadline"))
    with serve(app) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        answer = client.post("/query?mode=local", json={"text": "q"})
        assert answer.json() == {"answer": "local: q"}
        assert client.post("/query", json={"text": ""}).status_code == 200
        assert client.post("/query", json={}).status_code == 422
        assert client.post("/deadline", json={"text": "q"}).status_code == 500
        eventually(lambda: read(exporter, "cmo_queries_in_progress") == 0)
    names = ("success", "error", "rejected", "timeout")
    assert {name: outcome(exporter, name) for name in names} == dict.fromkeys(names, 1)
