"""A second stopwatch around the service, that the exporter has no part in.

An end-to-end test holds the exporter's durations against this log. The timer therefore wraps the
instrumented application from directly outside, stops at the same event (the send of the last piece of the
body has returned), and reads its own clock. It imports nothing of the exporter.
"""

from __future__ import annotations

import json
import threading
import time
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping
    from pathlib import Path

    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
    ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_OPERATION_HEADER: Final = b"x-cmo-operation"
_SCENARIO_HEADER: Final = b"x-cmo-scenario"


class TimingLog:
    """ASGI application that times every POST to ``route`` and appends one JSON line about it.

    A line holds ``operation`` and ``scenario`` (the headers, or null), ``start`` (Unix seconds),
    ``duration_seconds`` to the last byte, or until the request was given up, and ``status`` (0: none sent).
    Lines are written and flushed by a thread. The log ends with the application's lifespan.
    """

    def __init__(self, app: ASGIApp, path: Path, *, route: str = "/query") -> None:
        self._app = app
        self._route = route
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")
        self._writer = threading.Thread(target=self._write, name="timing-log", daemon=True)
        self._writer.start()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one connection on, timing it if it is a query."""
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"] == self._route:
            await self._time(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            if scope["type"] == "lifespan":
                self.close()

    def close(self) -> None:
        """Write what is left and close the file."""
        self._lines.put(None)
        self._writer.join()

    async def _time(self, scope: Scope, receive: Receive, send: Send) -> None:
        status = 0
        ended: float | None = None

        async def timed_send(message: MutableMapping[str, Any]) -> None:
            nonlocal status, ended
            await send(message)
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body" and not message.get("more_body", False):
                ended = time.perf_counter()

        start, begun = time.time(), time.perf_counter()
        try:
            await self._app(scope, receive, timed_send)
        finally:
            duration = (ended or time.perf_counter()) - begun
            headers = dict(scope["headers"])
            self._lines.put(
                json.dumps(
                    {
                        "operation": _text(headers.get(_OPERATION_HEADER)),
                        "scenario": _text(headers.get(_SCENARIO_HEADER)),
                        "start": start,
                        "duration_seconds": duration,
                        "status": status,
                    }
                )
            )

    def _write(self) -> None:
        with self._file:
            while (line := self._lines.get()) is not None:
                self._file.write(line + "\n")
                self._file.flush()


def _text(header: bytes | None) -> str | None:
    return None if header is None else header.decode("latin-1")
