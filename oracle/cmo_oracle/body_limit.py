"""Refuse request bodies that no question can need before they fill the memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import HTTPException

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


class BodyLimit:
    """ASGI middleware: reading more than ``limit`` bytes of a body ends the request with status 413."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one connection on, with its body counted."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = _announced(scope)
        read = 0

        async def counted() -> Message:
            nonlocal read
            if announced > self._limit:
                raise HTTPException(413, f"The body may have at most {self._limit} bytes.")
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._limit:
                raise HTTPException(413, f"The body may have at most {self._limit} bytes.")
            return message

        await self._app(scope, counted, send)


def _announced(scope: dict[str, Any] | Any) -> int:
    value = dict(scope["headers"]).get(b"content-length", b"0")
    return int(value) if value.isdigit() else 0
