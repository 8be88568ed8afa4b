"""A provider of models over HTTP, which does what the words it is asked say."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

USAGE = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
PIECES = ("One ", "two ", "three.")


class ModelServer:
    """What it was asked, and the gate before which it waits when it is told to wait."""

    def __init__(self) -> None:
        self.requests = 0
        self.app = Starlette(
            routes=[
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
                Route("/v1/embeddings", self._embeddings, methods=["POST"]),
                Route("/v1/responses", self._responses, methods=["POST"]),
                Route("/v1/models", self._models),
            ]
        )

    async def _chat(self, request: Request) -> Response:
        self.requests += 1
        body = await request.json()
        words = body["messages"][-1]["content"]
        if words.startswith("status "):
            return _refusal(int(words.removeprefix("status ")), words)
        if words == "wait":
            await _until_left(request)
        if body.get("stream"):
            return StreamingResponse(_events(request, words, body), media_type="text/event-stream")
        choices = [] if words == "no choices" else [_choice("message", "".join(PIECES), "stop")]
        return JSONResponse(_completion("chat.completion", choices, USAGE))

    async def _embeddings(self, _request: Request) -> Response:
        self.requests += 1
        data = [{"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}]
        usage = {"prompt_tokens": 7, "total_tokens": 7}
        return JSONResponse({"object": "list", "model": "embedder", "data": data, "usage": usage})

    async def _responses(self, request: Request) -> Response:
        self.requests += 1
        words = (await request.json())["input"]
        return StreamingResponse(_response_events(words), media_type="text/event-stream")

    async def _models(self, _request: Request) -> Response:
        return JSONResponse({"object": "list", "data": []})


def _refusal(status: int, words: str) -> Response:
    message = {"error": {"message": f"you asked: {words}", "type": "x", "code": "x"}}
    return JSONResponse(message, status, {"retry-after-ms": "1"})


async def _until_left(request: Request) -> None:
    while not await request.is_disconnected():  # noqa: ASYNC110 - Starlette has no event for it
        await asyncio.sleep(0.01)


def _choice(kind: str, content: str | None, finish_reason: str | None) -> dict[str, Any]:
    said = {"role": "assistant", "content": content}
    return {"index": 0, kind: said, "finish_reason": finish_reason}


def _completion(kind: str, choices: list[dict[str, Any]], usage: Any) -> dict[str, Any]:
    return {"id": "1", "object": kind, "created": 1, "model": "small-2030-01-01", "choices": choices,
            "usage": usage}  # fmt: skip


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content)}\n\n"


async def _events(request: Request, words: str, body: dict[str, Any]) -> AsyncIterator[str]:
    kind = "chat.completion.chunk"
    yield _event(_completion(kind, [_choice("delta", "", None)], None))
    for number, piece in enumerate(PIECES):
        # Some providers report the sum so far with every piece.
        usage = {**USAGE, "completion_tokens": 25 * number} if words == "usage all the time" else None
        yield _event(_completion(kind, [_choice("delta", piece, None)], usage))
        if words == "stall":
            await _until_left(request)
    if words == "break off":
        return
    if words == "fail":
        yield _event({"error": {"message": words, "code": "x"}})
        return
    yield _event(_completion(kind, [_choice("delta", None, "stop")], None))
    if body.get("stream_options", {}).get("include_usage"):
        yield _event(_completion(kind, [], USAGE))
    yield "data: [DONE]\n\n"


async def _response_events(words: str) -> AsyncIterator[str]:
    usage = {"input_tokens": 100, "output_tokens": 50, "total_tokens": 150,
             "input_tokens_details": {"cached_tokens": 0},
             "output_tokens_details": {"reasoning_tokens": 0}}  # fmt: skip
    answer = {"id": "r", "object": "response", "created_at": 1, "model": "small", "output": [],
              "parallel_tool_calls": False, "tool_choice": "auto", "tools": []}  # fmt: skip
    yield _event({"type": "response.created", "sequence_number": 0, "response": answer})
    yield _event({"type": "response.output_text.delta", "sequence_number": 1, "delta": "One ",
                  "item_id": "i", "output_index": 0, "content_index": 0, "logprobs": []})  # fmt: skip
    if words != "break off":
        kind = "response.failed" if words == "fail" else "response.completed"
        yield _event({"type": kind, "sequence_number": 2, "response": {**answer, "usage": usage}})
