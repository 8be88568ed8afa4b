"""How an ASGI application learns that whoever asked is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import Receive


async def departure(receive: Receive) -> None:
    """Wait until the client has closed the connection. The request's body, if it is unread, is lost."""
    while (await receive())["type"] != "http.disconnect":
        pass
