"""The model client against servers that misbehave in every way a provider can, over real HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from cmo_oracle.model_client import Completion, ModelClient, ModelError, Usage
from cmo_stack.free_ports import free_port
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from starlette.requests import Request

MESSAGES = [{"role": "user", "content": "a clinical question"}]
ANSWER_USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
ANSWER = {
    "id": "x", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"content": "an answer"}}],
    "usage": ANSWER_USAGE,
}  # fmt: skip


class Provider:
    """A server whose every reply is what the test says, and that remembers what it was asked."""

    def __init__(self, reply: Callable[[Request], Awaitable[Response]]) -> None:
        self.requests: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.reply = reply

    async def endpoint(self, request: Request) -> Response:
        self.requests.append((dict(request.headers), await request.json()))
        return await self.reply(request)


def _always(response: Callable[[], Response]) -> Callable[[Request], Awaitable[Response]]:
    async def reply(_: Request) -> Response:
        return response()

    return reply


@contextlib.asynccontextmanager
async def _calling(
    reply: Callable[[Request], Awaitable[Response]], timeout_seconds: float = 60.0
) -> AsyncIterator[tuple[ModelClient, Provider]]:
    provider = Provider(reply)
    port = free_port()
    app = Starlette(routes=[Route("/v1/{rest:path}", provider.endpoint, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="critical", timeout_graceful_shutdown=1))
    serving = asyncio.create_task(server.serve())
    client = ModelClient(
        base_url=f"http://127.0.0.1:{port}/v1", api_key="the-key", model="m",
        timeout_seconds=timeout_seconds, max_connections=4,
    )  # fmt: skip
    try:
        async with asyncio.timeout(60):
            while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
                await asyncio.sleep(0.01)
        yield client, provider
    finally:
        await client.close()
        server.should_exit = True
        await serving


def _events(*chunks: dict[str, Any] | str) -> Callable[[], Response]:
    async def body() -> AsyncIterator[str]:
        for chunk in chunks:
            yield f"data: {chunk if isinstance(chunk, str) else json.dumps(chunk)}\n\n"

    return lambda: StreamingResponse(body(), media_type="text/event-stream")


def _piece(
    text: str | None, finish: str | None = None, usage: dict[str, int] | None = None
) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice],
            "usage": usage}  # fmt: skip


async def test_completion_carries_text_and_usage_and_the_key_goes_with_it() -> None:
    async with _calling(_always(lambda: JSONResponse(ANSWER))) as (client, provider):
        assert await client.complete(MESSAGES, temperature=0) == Completion("an answer", Usage(3, 2))
    headers, body = provider.requests[0]
    assert headers["authorization"] == "Bearer the-key"
    assert body == {"model": "m", "messages": MESSAGES, "temperature": 0}


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (400, "api_error"),
        (401, "api_error"),
        (408, "api_timeout"),
        (429, "rate_limit"),
        (500, "api_error"),
        (502, "service_unavailable"),
        (503, "service_unavailable"),
        (504, "api_timeout"),
    ],
)
async def test_a_status_becomes_a_reason_after_one_request_and_quotes_nothing(
    status: int, reason: str
) -> None:
    refuse = _always(lambda: JSONResponse({"error": {"message": "you asked: a clinical question"}}, status))
    async with _calling(refuse) as (client, provider):
        for call in (client.complete(MESSAGES), client.embed(["text"]), anext(client.stream(MESSAGES))):
            with pytest.raises(ModelError, match=str(status)) as failure:
                await call
            assert failure.value.reason == reason
            assert "clinical" not in str(failure.value)
            assert failure.value.__cause__ is None
    assert len(provider.requests) == 3


@pytest.mark.parametrize(
    "response",
    [
        lambda: Response("<html>", media_type="text/html"),
        lambda: Response("{", media_type="application/json"),
        lambda: JSONResponse({}),
        lambda: JSONResponse([]),
        lambda: JSONResponse(ANSWER | {"choices": []}),
        lambda: JSONResponse(ANSWER | {"choices": [{"index": 0, "message": {"content": None}}]}),
        lambda: JSONResponse(ANSWER | {"choices": [{"index": 0, "message": {"content": ""}}]}),
    ],
    ids=["html", "broken", "empty", "list", "no choice", "null", "no text"],
)
async def test_an_answer_that_is_none_is_an_error(response: Callable[[], Response]) -> None:
    async with _calling(_always(response)) as (client, _):
        with pytest.raises(ModelError) as failure:
            await client.complete(MESSAGES)
    assert failure.value.reason == "api_error"


async def test_usage_that_is_not_reported_is_nothing() -> None:
    async with _calling(_always(lambda: JSONResponse(ANSWER | {"usage": None}))) as (client, _):
        assert (await client.complete(MESSAGES)).usage == Usage(0, 0)


async def test_silence_ends_at_the_deadline_for_every_kind_of_call() -> None:
    async def hang(_: Request) -> Response:
        await asyncio.Event().wait()
        return Response()

    async with _calling(hang, timeout_seconds=0.2) as (client, _):
        for call in (client.complete(MESSAGES), client.embed(["text"]), anext(client.stream(MESSAGES))):
            with pytest.raises(ModelError) as failure:
                await call
            assert failure.value.reason == "api_timeout"


async def test_the_deadline_holds_for_a_body_that_trickles() -> None:
    async def trickle() -> AsyncIterator[str]:
        while True:  # every byte comes soon enough for a read time-out, the answer never does
            yield " "
            await asyncio.sleep(0.02)

    body = _always(lambda: StreamingResponse(trickle(), media_type="application/json"))
    async with _calling(body, timeout_seconds=0.3) as (client, _):
        with pytest.raises(ModelError) as failure:
            await client.complete(MESSAGES)
    assert failure.value.reason == "api_timeout"


async def test_a_callers_own_deadline_is_not_taken_for_the_models() -> None:
    async def hang(_: Request) -> Response:
        await asyncio.Event().wait()
        return Response()

    async with _calling(hang) as (client, _):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await client.complete(MESSAGES)


async def test_nobody_listening_is_unavailable() -> None:
    client = ModelClient(
        base_url=f"http://127.0.0.1:{free_port()}/v1",
        api_key="k",
        model="m",
        timeout_seconds=30,
        max_connections=1,
    )
    with pytest.raises(ModelError) as failure:
        await client.complete(MESSAGES)
    await client.close()
    assert failure.value.reason == "service_unavailable"


async def test_stream_hands_on_pieces_and_reports_usage_at_the_end() -> None:
    used: list[Usage] = []
    events = _events(
        _piece("an "), _piece("answer"), _piece(None, "stop"),
        _piece(None, usage=ANSWER_USAGE) | {"choices": []}, "[DONE]",
    )  # fmt: skip
    async with _calling(_always(events)) as (client, provider):
        assert [piece async for piece in client.stream(MESSAGES, on_usage=used.append)] == ["an ", "answer"]
    assert used == [Usage(3, 2)]
    assert provider.requests[0][1]["stream"] is True


@pytest.mark.parametrize("last", [[], ["[DONE]"]], ids=["cut off", "done without a finish"])
async def test_a_stream_that_breaks_off_is_an_error(last: list[str]) -> None:
    async with _calling(_always(_events(_piece("an "), *last))) as (client, _):
        pieces = client.stream(MESSAGES)
        assert await anext(pieces) == "an "
        with pytest.raises(ModelError, match="broke off") as failure:
            await anext(pieces)
    assert failure.value.reason == "api_error"


async def test_a_connection_that_drops_in_the_middle_of_a_stream_is_unavailable() -> None:
    async def handle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        event = f"data: {json.dumps(_piece('an '))}\n\n"
        writer.write(f"{head}{len(event):x}\r\n{event}\r\n".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = ModelClient(
        base_url=f"http://127.0.0.1:{port}/v1", api_key="k", model="m", timeout_seconds=30, max_connections=1
    )
    async with server:
        with pytest.raises(ModelError) as failure:
            _ = [piece async for piece in client.stream(MESSAGES)]
    await client.close()
    assert failure.value.reason == "service_unavailable"


async def test_embeddings_of_the_wrong_number_are_an_error() -> None:
    one = {"object": "list", "model": "m", "data": [{"object": "embedding", "index": 0, "embedding": [1.0]}]}
    async with _calling(
        _always(lambda: JSONResponse(one | {"usage": {"prompt_tokens": 1, "total_tokens": 1}}))
    ) as (
        client,
        _,
    ):
        assert (await client.embed(["a"])).tolist() == [[1.0]]
        with pytest.raises(ModelError, match="1 embeddings came for 2 texts"):
            await client.embed(["a", "b"])


async def test_connections_are_used_again_and_bounded() -> None:
    clients: set[object] = set()

    async def reply(request: Request) -> Response:
        clients.add(request.client)
        return JSONResponse(ANSWER)

    async with _calling(reply) as (client, _):
        for _round in range(5):
            await asyncio.gather(*(client.complete(MESSAGES) for _ in range(8)))
    assert len(clients) <= 4


async def test_a_local_stub_is_not_sought_behind_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    async with _calling(_always(lambda: JSONResponse(ANSWER))) as (client, _):
        assert (await client.complete(MESSAGES)).text == "an answer"
