"""The stub's HTTP side: OpenAI's routes, each answered in its own time or not at all.

``/v1`` are the model and the embeddings, ``/perplexity/v1`` the fallback provider with a latency of its own;
``/ingest/v1`` answers at once and never fails, for building the index. ``PUT /control`` forces a fault on
all routes but ingestion, for tests, and only from this machine.

A call that its client gives up ends at once and frees its place: what counts as load is work under way.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from collections import Counter, OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route as HttpRoute

from cmo_oracle.departure import departure
from cmo_oracle.loopback import is_loopback
from cmo_oracle.upstream.answers import Prompt, answer, read_prompt
from cmo_oracle.upstream.calibration import Calibration, Fate, Fault, Route, draw
from cmo_oracle.upstream.wording import embed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

Forced = Literal["error", "timeout", "slow"]

_NEVER_SECONDS: Final = 86_400.0
# One call of a question that needs several: together they take longer than two seconds, alone no time-out.
_SLOW_SECONDS: Final = 1.1
_CHARACTERS_PER_TOKEN: Final = 4
_STREAM_PIECES: Final = 24
_FIRST_TOKEN_SHARE: Final = 0.4
_REMEMBERED_REQUESTS: Final = 200_000
_STATUS: Final[dict[Fault, tuple[int, str]]] = {
    "error": (500, "The model failed."),
    "unavailable": (503, "The model is overloaded."),
    "rate_limit": (429, "Too many requests."),
}


@dataclass
class Upstream:
    """The stub's state: what is under way, what was asked before, and what a test has forced."""

    calibration: Calibration
    seed: int = 0
    forced: Forced | None = None
    in_flight: int = 0
    asked_for: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    _asked: OrderedDict[bytes, int] = field(default_factory=OrderedDict)

    @contextmanager
    def call(self) -> Iterator[None]:
        """Count a call as under way."""
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1

    def fate(self, route: Route, content: bytes) -> Fate:
        """What becomes of this call, which is already counted as under way."""
        if self.forced == "timeout":
            return Fate(_NEVER_SECONDS, "stall")
        if self.forced == "error":
            return Fate(0.0, "error")
        key = hashlib.blake2b(route.encode() + content, digest_size=16).digest()
        attempt = self._asked.pop(key, 0)
        self._asked[key] = attempt + 1
        if len(self._asked) > _REMEMBERED_REQUESTS:
            self._asked.popitem(last=False)
        fate = draw(
            self.calibration, route, seed=self.seed, content=key, attempt=attempt, in_flight=self.in_flight
        )
        return replace(fate, seconds=max(fate.seconds, _SLOW_SECONDS)) if self.forced == "slow" else fate


class _Client:
    """The other end of one call: says when it has left, and sends to it."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._leaving = asyncio.ensure_future(departure(receive))
        self.send = send

    async def stays(self, seconds: float) -> bool:
        """Wait; false as soon as the client is gone."""
        await asyncio.wait({self._leaving}, timeout=max(0.0, seconds))
        return not self._leaving.done()

    def close(self) -> None:
        self._leaving.cancel()


class _Paced(Response):
    """A response that takes its time: waits out its fate, watching for the client to leave."""

    def __init__(
        self, upstream: Upstream, route: Route | None, content: bytes, work: Callable[[], _Reply]
    ) -> None:
        super().__init__()
        self._upstream, self._route, self._content, self._work = upstream, route, content, work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = _Client(receive, send)
        try:
            with self._upstream.call():
                route = self._route
                fate = self._upstream.fate(route, self._content) if route else Fate(0.0, None)
                self._upstream.ended[await self._serve(fate, client, scope, receive)] += 1
        finally:
            client.close()

    async def _serve(self, fate: Fate, client: _Client, scope: Scope, receive: Receive) -> str:
        if fate.fault and fate.fault in _STATUS:
            return await _refuse(fate.fault, fate, client, scope, receive)
        reply = self._work()
        if isinstance(reply, _Stream):
            return await reply.send(fate, client)
        if not await client.stays(fate.seconds):
            return "left"
        await reply(scope, receive, client.send)
        return fate.fault or "answered"


async def _refuse(fault: Fault, fate: Fate, client: _Client, scope: Scope, receive: Receive) -> str:
    if not await client.stays(fate.seconds):
        return "left"
    status, message = _STATUS[fault]
    headers = {"retry-after": "1"} if fault == "rate_limit" else None
    await _error(status, message, headers)(scope, receive, client.send)
    return fault


class _Stream:
    """An answer in pieces as server-sent events, the last of them with the tokens used."""

    def __init__(self, head: dict[str, Any], text: str, usage: dict[str, int]) -> None:
        size = max(1, -(-len(text) // _STREAM_PIECES))
        self._pieces = [text[start : start + size] for start in range(0, len(text), size)] or [""]
        self._head = head
        self._usage = usage

    async def send(self, fate: Fate, client: _Client) -> str:
        rest = fate.seconds * (1 - _FIRST_TOKEN_SHARE) / max(1, len(self._pieces) - 1)
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
        if not await client.stays(fate.seconds * _FIRST_TOKEN_SHARE):
            return "left"
        await client.send({"type": "http.response.start", "status": 200, "headers": headers})
        for number, piece in enumerate(self._pieces):
            if number and not await client.stays(rest):
                return "left"
            await self._event(client, {"delta": {"content": piece}})
        await self._event(client, {"delta": {}, "finish_reason": "stop"}, self._usage)
        await client.send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})
        return fate.fault or "answered"

    async def _event(
        self, client: _Client, choice: dict[str, Any], usage: dict[str, int] | None = None
    ) -> None:
        chunk = {**self._head, "choices": [{"index": 0, "finish_reason": None, **choice}], "usage": usage}
        body = b"data: " + json.dumps(chunk).encode() + b"\n\n"
        await client.send({"type": "http.response.body", "body": body, "more_body": True})


_Reply = Response | _Stream


def create_app(calibration: Calibration, *, seed: int = 0) -> Starlette:
    """The stub as an ASGI application, with a state of its own."""
    return serve_app(Upstream(calibration, seed))


def serve_app(upstream: Upstream) -> Starlette:
    """The stub as an ASGI application over a state that the caller can look at and change."""

    def chat(route: Route | None) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            body = await _json(request)
            if body is None or not _is_messages(body.get("messages")):
                return _error(400, "Expected a JSON body with 'messages', a list of {role, content}.")
            prompt = read_prompt(body["messages"])
            upstream.asked_for[prompt.kind] += 1
            content = f"{prompt.kind}|{prompt.user}".encode()
            return _Paced(upstream, route, content, lambda: _chat_reply(body, prompt))

        return endpoint

    def embeddings(route: Route | None) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            body = await _json(request)
            texts = _texts(body)
            if body is None or texts is None:
                return _error(400, "Expected a JSON body with 'input', a text or a list of texts.")
            upstream.asked_for["embeddings"] += 1
            return _Paced(upstream, route, "\0".join(texts).encode(), lambda: _embeddings_reply(body, texts))

        return endpoint

    async def health(_: Request) -> Response:
        counts = {"asked_for": dict(upstream.asked_for), "ended": dict(upstream.ended)}
        return JSONResponse({"status": "ok", "in_flight": upstream.in_flight, **counts})

    return Starlette(
        routes=[
            HttpRoute("/v1/chat/completions", chat("chat"), methods=["POST"]),
            HttpRoute("/v1/embeddings", embeddings("embeddings"), methods=["POST"]),
            HttpRoute("/perplexity/v1/chat/completions", chat("perplexity"), methods=["POST"]),
            HttpRoute("/ingest/v1/chat/completions", chat(None), methods=["POST"]),
            HttpRoute("/ingest/v1/embeddings", embeddings(None), methods=["POST"]),
            HttpRoute("/control", _control(upstream), methods=["PUT"]),
            HttpRoute("/healthz", health, methods=["GET"]),
        ]
    )


def _control(upstream: Upstream) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        if request.client is None or not is_loopback(request.client.host):
            return _error(403, "The control endpoint answers this machine alone.")
        body = await _json(request)
        if body is None or "fail" not in body or body["fail"] not in (*get_args(Forced), None):
            return _error(400, 'Expected {"fail": "error"}, "timeout", "slow" or null.')
        upstream.forced = body["fail"]
        return JSONResponse({"fail": upstream.forced})

    return endpoint


def _chat_reply(body: dict[str, Any], prompt: Prompt) -> _Reply:
    text = answer(prompt)
    read = sum(len(str(message["content"])) for message in body["messages"])
    usage = _usage(read, len(text))
    head = {"id": "chatcmpl-stub", "created": int(time.time()), "model": str(body.get("model", "cmo-stub"))}
    if body.get("stream"):
        return _Stream({**head, "object": "chat.completion.chunk"}, text, usage)
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return JSONResponse({**head, "object": "chat.completion", "choices": [choice], "usage": usage})


def _embeddings_reply(body: dict[str, Any], texts: list[str]) -> Response:
    as_base64 = body.get("encoding_format") == "base64"
    data = [
        {"object": "embedding", "index": index, "embedding": _encoded(text, as_base64=as_base64)}
        for index, text in enumerate(texts)
    ]
    usage = _usage(sum(map(len, texts)), 0)
    return JSONResponse({"object": "list", "data": data, "model": str(body.get("model", "")), "usage": usage})


def _encoded(text: str, *, as_base64: bool) -> str | list[float]:
    vector = embed(text)
    if as_base64:
        return base64.b64encode(vector.astype(np.dtype("<f4")).tobytes()).decode()
    return [float(number) for number in vector]


def _usage(characters_read: int, characters_written: int) -> dict[str, int]:
    read = -(-characters_read // _CHARACTERS_PER_TOKEN)
    written = -(-characters_written // _CHARACTERS_PER_TOKEN)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


async def _json(request: Request) -> dict[str, Any] | None:
    try:
        body = await request.json()
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def _is_messages(value: object) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(message, dict) and "role" in message and "content" in message for message in value)
    )


def _texts(body: dict[str, Any] | None) -> list[str] | None:
    given = body.get("input") if body else None
    texts = [given] if isinstance(given, str) else given
    valid = isinstance(texts, list) and bool(texts) and all(isinstance(text, str) for text in texts)
    return texts if valid else None


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse(
        {"error": {"message": message, "type": "stub_error", "code": status}}, status, headers
    )
