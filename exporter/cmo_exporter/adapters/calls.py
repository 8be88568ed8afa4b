"""Calls that end later than the function returns that began them, because their answer is a stream.

A streaming function returns at once with an iterator: its call is over when the iterator is, when reading
it fails, or when nobody wants the rest. What is left unread and thrown away counts as cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import suppress
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final

from cmo_exporter.postponed_ends import put_aside

if TYPE_CHECKING:
    from cmo_exporter.components import ComponentCall

_TOO_MANY_REQUESTS: Final = 429
_TIMEOUT_STATUSES: Final = frozenset({408, 504})


def outcome_of(error: BaseException | None) -> str:
    """The outcome that an exception stands for, whichever library it is from.

    Most libraries have time-outs that are no `TimeoutError`, so the names of its classes decide; an HTTP
    status is taken from the attribute in which clients keep it.
    """
    if error is None:
        return "success"
    if isinstance(error, (asyncio.CancelledError, GeneratorExit)):
        return "cancelled"
    status = _status_of(error)
    if status == _TOO_MANY_REQUESTS:
        return "rejected"
    names = (kind.__name__.lower() for kind in type(error).__mro__)
    if status in _TIMEOUT_STATUSES or any("timeout" in name for name in names):
        return "timeout"
    return "error"


def _status_of(error: BaseException) -> int | None:
    """The HTTP status that it tells of; what a library keeps there may be anything, or raise."""
    with suppress(Exception):
        status = error.status_code  # type: ignore[attr-defined]  # most errors have none
        return status if isinstance(status, int) else None
    return None


class OpenCall:
    """A call of a component that ends when it is told so; the first word counts.

    Thrown away before that, it ends as cancelled: nobody waits for it any more.

    Attributes:
        context: where the call and its query are the current ones, whoever reads its stream and whatever
            else has begun meanwhile.
    """

    def __init__(self, call: ComponentCall) -> None:
        self._call = call
        self._ended = False
        call.__enter__()
        self.context = copy_context()

    def end(self, outcome: str) -> None:
        """The call is over."""
        if not self._ended:
            self._ended = True
            self._call.outcome(outcome)
            self._call.__exit__(None, None, None)

    def __del__(self) -> None:
        # The collector may do this to a thread that holds the lock under which calls are counted.
        if not self._ended and not put_aside(GeneratorExit(), lambda: self.end("cancelled")):
            self.end("cancelled")


class Listener:
    """Hears what happens to a stream. Its methods do not raise."""

    def piece(self, piece: Any) -> None:
        """A piece has come."""

    def end(self, error: BaseException | None) -> None:
        """The stream is over; by ``error`` when it did not end well. It may be told more than once."""


class _Watched:
    """What is common to streams that are read with ``await`` and without."""

    def __init__(self, source: Any, listener: Listener) -> None:
        self._source = source
        self._listener = listener
        self._reading = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def closed_from_outside(self) -> None:
        """What the stream reads from was closed; unless its end did that, nobody wants the rest."""
        if not self._reading:
            self._listener.end(GeneratorExit())


class WatchedStream(_Watched, AsyncGenerator[Any, Any]):
    """An asynchronous iterator whose pieces and end are heard; what else it can do, it still can."""

    def __init__(self, source: Any, listener: Listener) -> None:
        super().__init__(source, listener)
        self._iterator = aiter(source)

    def __aiter__(self) -> WatchedStream:
        return self

    async def __anext__(self) -> Any:
        return await self._heard(self._iterator.__anext__)

    async def asend(self, value: Any) -> Any:
        """As the stream itself."""
        return await self._heard(self._iterator.asend, value)

    async def athrow(self, *arguments: Any) -> Any:
        """As the stream itself."""
        return await self._heard(self._iterator.athrow, *arguments)

    async def aclose(self) -> None:
        """As the stream itself; what has not been read is not wanted."""
        self._listener.end(GeneratorExit())
        close = getattr(self._iterator, "aclose", None)
        if close is not None:
            await close()

    async def _heard(self, step: Callable[..., Any], *arguments: Any) -> Any:
        self._reading = True
        try:
            piece = await step(*arguments)
        except StopAsyncIteration:
            self._listener.end(None)
            raise
        except BaseException as error:
            self._listener.end(error)
            raise
        finally:
            self._reading = False
        self._listener.piece(piece)
        return piece


class WatchedIterator(_Watched, Iterator[Any]):
    """The same for an iterator that is read without ``await``."""

    def __next__(self) -> Any:
        self._reading = True
        try:
            piece = next(self._source)
        except StopIteration:
            self._listener.end(None)
            raise
        except BaseException as error:
            self._listener.end(error)
            raise
        finally:
            self._reading = False
        self._listener.piece(piece)
        return piece
