"""Functions of every kind, and how each is run to its end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

KINDS = ("function", "coroutine", "generator", "async generator")


def of_kind(kind: str, body: Callable[[], object]) -> Callable[[], Any]:
    """A function of this kind, with this body."""

    def function() -> object:
        return body()

    async def coroutine() -> object:
        await asyncio.sleep(0)
        return body()

    def generator() -> Iterator[object]:
        yield "a piece"
        yield body()

    async def async_generator() -> AsyncIterator[object]:
        yield "a piece"
        await asyncio.sleep(0)
        yield body()

    made: dict[str, Callable[[], Any]] = {
        "function": function,
        "coroutine": coroutine,
        "generator": generator,
        "async generator": async_generator,
    }
    return made[kind]


def run(kind: str, function: Callable[[], Any]) -> Any:
    """Call it and take all that it gives; the value is what it gave last."""

    async def awaited() -> Any:
        return await function()

    async def last_piece() -> Any:
        return [piece async for piece in function()][-1]

    if kind == "function":
        return function()
    if kind == "coroutine":
        return asyncio.run(awaited())
    if kind == "generator":
        return list(function())[-1]
    return asyncio.run(last_piece())
