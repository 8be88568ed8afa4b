"""Answers sent piece by piece, as server-sent events, and the watch for users who leave meanwhile.

Starlette's own streaming response notices a user who has left only under some servers, and leaves the work
behind an event that is awaited running. Here the work is a task, and is cancelled when its user is gone.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.responses import JSONResponse, Response

from cmo_oracle.departure import departure
from cmo_oracle.pipeline import Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from starlette.types import Receive, Scope, Send

    from cmo_oracle.pipeline import Pipeline
    from cmo_oracle.question import Question

_PIECES_WAITING = 64
_Result = TypeVar("_Result")


class UserGoneError(Exception):
    """The user closed the connection before the answer was complete; the work has been cancelled."""


async def unless_user_leaves(receive: Receive, work: Coroutine[Any, Any, _Result]) -> _Result:
    """The result of ``work``, which is cancelled when the user closes the connection.

    Raises:
        UserGoneError: the user left first.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(departure(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise UserGoneError
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


class EventStream(Response):
    """Runs one query and streams its answer: ``token`` events, then one ``done`` event with the trail.

    The status is decided by the first thing there is to say: a query that is refused or timed out before
    its first piece gets ``as_json``, an ordinary response, instead.
    """

    media_type = "text/event-stream"

    def __init__(
        self, pipeline: Pipeline, question: Question, *, as_json: Callable[[Reply], JSONResponse]
    ) -> None:
        super().__init__(headers={"cache-control": "no-store"})
        del self.headers["content-length"]
        self._pipeline = pipeline
        self._question = question
        self._as_json = as_json
        self._events: asyncio.Queue[str | Reply] = asyncio.Queue(_PIECES_WAITING)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, as long as there is somebody to answer."""
        producing = asyncio.create_task(self._produce())
        try:
            with suppress(UserGoneError):
                await unless_user_leaves(receive, self._send(scope, receive, send))
        finally:
            producing.cancel()
            with suppress(asyncio.CancelledError):
                await producing

    async def _produce(self) -> None:
        reply = await self._pipeline.run(self._question, self._events.put)
        await self._events.put(reply)

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        event = await self._events.get()
        if isinstance(event, Reply) and event.trail.http_status != 200:
            await self._as_json(event)(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        while isinstance(event, str):
            await send(_body("token", {"text": event}, more=True))
            event = await self._events.get()
        await send(_body("done", {"trail": event.trail.as_json()}, more=False))


def _body(event: str, data: dict[str, object], *, more: bool) -> dict[str, object]:
    # JSON has no line breaks, so that one data line is enough.
    text = f"event: {event}\ndata: {json.dumps(data)}\n\n"
    return {"type": "http.response.body", "body": text.encode(), "more_body": more}
