"""Where a query's answer goes as it comes into being: to the user at once, or nowhere yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cmo_exporter import Query


class Output:
    """Hands pieces of the answer to ``emit`` if the answer is streamed, and knows whether any has been."""

    def __init__(self, query: Query, emit: Callable[[str], Awaitable[None]] | None) -> None:
        self._query = query
        self._emit = emit
        self._begun = False

    @property
    def streamed(self) -> bool:
        """Whether the user is sent the answer piece by piece."""
        return self._emit is not None

    @property
    def begun(self) -> bool:
        """Whether the user has been sent a piece. From then on no other source can take over."""
        return self._begun

    async def write(self, piece: str) -> None:
        """Send a piece of the answer, or nothing if the answer is not streamed."""
        if self._emit is None or not piece:
            return
        if not self._begun:
            self._begun = True
            self._query.first_token()
        await self._emit(piece)
