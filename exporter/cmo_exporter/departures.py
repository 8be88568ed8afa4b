"""Listens whether the user leaves, for those requests that take long.

An application that works and does not look cannot tell that its user has left; something has to call
``receive`` for it. That takes a task, which costs more than all the rest of the instrumentation together. So
requests wait here for a moment first, and one timer looks after all of them: an answer that comes at once,
as most do, never pays. The same timer posts the journal, and rests while only requests are left that have
been told.
"""

from __future__ import annotations

import asyncio
import math
import time
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final, Protocol

from cmo_exporter import catalogue

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from cmo_exporter.guard import ErrorCounter
    from cmo_exporter.journal import Journal

    Message = MutableMapping[str, Any]

_TICK_SECONDS: Final = 0.1
_PATIENCE_SECONDS: Final = 0.1
"""After so long without an answer a request is listened to, at the next tick. Under load nearly all are
answered before: a task for each that is a little late would make all of them later."""

_TOLD: Final = math.inf
_MOST_MESSAGES_KEPT: Final = 8


class Request(Protocol):
    """What can take long."""

    method: object
    """As it arrived."""

    def overdue(self) -> None:
        """It takes long."""
        ...


class DepartureWatch:
    """The active requests of one event loop; called in that loop alone."""

    def __init__(self, loop: asyncio.AbstractEventLoop, errors: ErrorCounter, journal: Journal) -> None:
        self.loop = loop
        self._errors = errors
        self._journal = journal
        self.active: dict[Request, float] = {}
        """With the time since which each waits; infinite once it has been told that it takes long. Who
        arrives puts itself in, and who is answered takes itself out; else none leaves it for a moment."""
        self.ticking = False
        # Of its own: what is started from the timer belongs to no request in particular.
        self._context = Context()

    def wait_again(self, request: Request, now: float) -> None:
        """Tell this request, if it is still active, when it takes long from now on."""
        if request in self.active:
            self.active[request] = now
            if not self.ticking:
                self.tick_later()

    def tick_later(self) -> None:
        """Look after the requests in a moment, and from then on for as long as any has not been told."""
        self.ticking = True
        self.loop.call_later(_TICK_SECONDS, self._tick, context=self._context)

    def _tick(self) -> None:
        try:
            self._journal.post()
            self._call_overdue(time.monotonic() - _PATIENCE_SECONDS)
        except Exception as error:  # noqa: BLE001 - the event loop is not ours
            self._errors.report(catalogue.HTTP_SERVER_REQUEST_DURATION, error)
        if min(self.active.values(), default=_TOLD) < _TOLD:
            self.tick_later()
        else:
            self.ticking = False

    def _call_overdue(self, since: float) -> None:
        for request, waits_since in list(self.active.items()):
            if waits_since <= since:
                self.active[request] = _TOLD
                request.overdue()


class Listener:
    """Receives in the application's place, and keeps for it what was not the departure.

    Of a body that the application does not read, a few pieces are taken and no more, so that a client that
    sends fast is still held back.

    Args:
        receive: the server's.
        received: told each message.
        loop: the event loop of the request.
    """

    def __init__(
        self,
        receive: Callable[[], Awaitable[Message]],
        received: Callable[[Message], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._receive = receive
        self._received = received
        self._loop = loop
        self._heard: list[asyncio.Task[Message]] = []

    def listen(self) -> None:
        """Ask for the next message."""
        self._heard.append(self._loop.create_task(self._hear()))

    @property
    def listens(self) -> bool:
        """Whether a message has been asked for that the application has not had."""
        return bool(self._heard)

    async def next(self) -> Message:
        """The next message, for the application."""
        task = self._heard[0]
        message = await asyncio.shield(task)
        if message["type"] != "http.disconnect" and task in self._heard:
            self._heard.remove(task)
        return message

    def stop(self) -> None:
        """Listen no more."""
        for task in self._heard:
            if not task.done():
                task.cancel()
            elif not task.cancelled():
                task.exception()  # seen, so that asyncio does not complain of it

    async def _hear(self) -> Message:
        message = await self._receive()
        self._received(message)
        if message["type"] == "http.request" and (
            not message.get("more_body", False) or len(self._heard) < _MOST_MESSAGES_KEPT
        ):
            self.listen()
        return message
