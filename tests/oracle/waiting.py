"""Waiting for conditions, with deadlines that the slowest machine keeps."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_DEADLINE_SECONDS = 60.0


async def until(condition: Callable[[], object | Awaitable[object]]) -> None:
    """Ask again and again until the condition, which may be a coroutine function, holds."""
    async with asyncio.timeout(_DEADLINE_SECONDS):
        while True:
            holds = condition()
            if await holds if inspect.isawaitable(holds) else holds:
                return
            await asyncio.sleep(0.005)
