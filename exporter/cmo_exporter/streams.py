"""Streams that are being watched: whoever consumes one sees the stream that was made, and nothing else.

A generator has no context of its own: its body runs in that of whoever asks for the next piece, so that a
context variable set in the body leaks to the consumer, and one that the consumer sets shows in the body. Here
every step of the body runs in one context that belongs to the stream. The body sees its query as the current
one, the consumer does not, and it does not matter which task or thread asks for the next piece or closes it.
"""

from __future__ import annotations

import contextlib
import types
from collections.abc import AsyncGenerator, Coroutine, Generator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextvars import Context

    from cmo_exporter.observations import Observation


class _Watched:
    """What plain and asynchronous streams share: the stream inside, what it is observed as, its context."""

    def __init__(self, stream: Any, observation: Observation, context: Context) -> None:
        self._stream = stream
        self._observation = observation
        self._context = context

    def __getattr__(self, name: str) -> Any:
        if name == "_stream":  # `copy` asks for it before there is one
            raise AttributeError(name)
        # Clients' streams have more to them than iteration: a response, a close of their own.
        return getattr(self._stream, name)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # at the end of the interpreter anything may be gone
            self._context.run(self._observation.abandoned)


class Stream(_Watched, Generator[Any, Any, Any]):
    """An iterator, or a generator, that is being watched."""

    def __next__(self) -> Any:
        return self._step(self._stream.__next__)

    def send(self, value: Any, /) -> Any:
        """Resume the body with a value."""
        return self._step(self._stream.send, value)

    def throw(self, *error: Any) -> Any:
        """Resume the body with an exception."""
        return self._step(self._stream.throw, *error)

    def close(self) -> None:
        """Close the stream; before its end, that is to abandon it."""
        try:
            close = getattr(self._stream, "close", None)
            if close is not None:
                self._context.run(close)
        except BaseException as error:
            self._context.run(self._observation.raised, error)
            raise
        self._context.run(self._observation.abandoned)

    def __enter__(self) -> Any:
        self._context.run(self._stream.__enter__)
        return self

    def __exit__(self, *error: Any) -> Any:
        try:
            return self._context.run(self._stream.__exit__, *error)
        finally:
            self._context.run(self._observation.abandoned)

    def _step(self, method: Callable[..., Any], *arguments: Any) -> Any:
        try:
            piece = self._context.run(method, *arguments)
        except StopIteration:
            self._context.run(self._observation.exhausted)
            raise
        except BaseException as error:
            self._context.run(self._observation.raised, error)
            raise
        self._observation.piece(piece)
        return piece


class AsyncStream(_Watched, AsyncGenerator[Any, Any]):
    """An asynchronous iterator, or generator, that is being watched."""

    async def __anext__(self) -> Any:
        return await self._step(self._stream.__anext__)

    async def asend(self, value: Any, /) -> Any:
        """Resume the body with a value."""
        return await self._step(self._stream.asend, value)

    async def athrow(self, *error: Any) -> Any:
        """Resume the body with an exception."""
        return await self._step(self._stream.athrow, *error)

    async def aclose(self) -> None:
        """Close the stream; before its end, that is to abandon it."""
        try:
            close = getattr(self._stream, "aclose", None)
            if close is not None:
                await in_context(self._context, close)
        except BaseException as error:
            self._context.run(self._observation.raised, error)
            raise
        self._context.run(self._observation.abandoned)

    async def __aenter__(self) -> Any:
        await in_context(self._context, self._stream.__aenter__)
        return self

    async def __aexit__(self, *error: Any) -> Any:
        try:
            return await in_context(self._context, self._stream.__aexit__, *error)
        finally:
            self._context.run(self._observation.abandoned)

    async def _step(self, method: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        try:
            piece = await in_context(self._context, method, *arguments)
        except StopAsyncIteration:
            self._context.run(self._observation.exhausted)
            raise
        except BaseException as error:
            self._context.run(self._observation.raised, error)
            raise
        self._observation.piece(piece)
        return piece


@types.coroutine
def in_context(
    context: Context, function: Callable[..., Awaitable[Any]], *arguments: Any
) -> Generator[Any, Any, Any]:
    """Await what a function returns, running each step of it in a context.

    Args:
        context: where it runs. A task cannot change its context half-way, so every step enters it anew.
        function: what is called, in the context too.
        arguments: with what.
    """
    steps: Any = context.run(function, *arguments)
    if not isinstance(steps, Coroutine):
        steps = _awaiting(steps)
    resume: Callable[..., Any] = steps.send
    argument: Any = None
    while True:
        try:
            wanted = context.run(resume, argument)
        except StopIteration as stop:
            return stop.value
        try:
            argument = yield wanted
            resume = steps.send
        except GeneratorExit:
            context.run(steps.close)
            raise
        except BaseException as error:  # noqa: BLE001 - cancellation above all, which is for the body
            resume, argument = steps.throw, error


async def _awaiting(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
