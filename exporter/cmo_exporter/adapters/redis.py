"""redis-py as a tier of a cache: hits, misses and errors, and the time that commands take.

Every command of a client passes through ``execute_command``. Redis is often more than a cache, so what
counts as a look-up is a command that reads values, of keys with the cache's prefix.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, Final, TypeVar

from cmo_exporter import catalogue
from cmo_exporter.adapters.calls import OpenCall, outcome_of
from cmo_exporter.adapters.instrumented import Quietly, mark

if TYPE_CHECKING:
    from collections.abc import Callable

    from cmo_exporter.exporter import Exporter

Client = TypeVar("Client")

_READ_ONE: Final = frozenset({"GET", "GETEX", "HGET", "JSON.GET"})
_READ_MANY: Final = frozenset({"MGET"})


def instrument_redis(
    client: Client, exporter: Exporter, *, tier: str, prefix: str = "", component: str | None = None
) -> Client:
    """Make a ``Redis`` client, synchronous or of ``redis.asyncio``, report its look-ups as one tier.

    A look-up that ends by cancellation is neither hit nor miss nor error.

    Args:
        client: the client; it is returned.
        exporter: where it reports.
        tier: l1, l2 or l3.
        prefix: what the keys of the cache begin with; commands on others are not counted.
        component: what a command on the cache's keys counts as; left out, none is timed.
    """
    with Quietly(exporter, catalogue.CACHE_REQUESTS):
        if mark(client):
            _measure(client, _Tier(exporter, tier, prefix, component))
    return client


class _Tier:
    """What one client reports to."""

    def __init__(self, exporter: Exporter, tier: str, prefix: str, component: str | None) -> None:
        self.exporter = exporter
        self._tier = tier
        self._prefix = prefix.encode()
        self._component = component

    def command(self, arguments: tuple[Any, ...]) -> _Command | None:
        """The command, when it is one on the cache's keys."""
        with Quietly(self.exporter, catalogue.CACHE_REQUESTS):
            name = str(arguments[0]).upper()
            keys = arguments[1:] if name in _READ_MANY else arguments[1:2]
            ours = tuple(self._is_ours(key) for key in keys)
            if any(ours):
                return self._begin(name, ours)
        return None

    def looked_up(self, result: str) -> None:
        """One value was looked up."""
        self.exporter.current_query().cache_request(self._tier, result)

    def _begin(self, name: str, ours: tuple[bool, ...]) -> _Command | None:
        reads = name in _READ_ONE or name in _READ_MANY
        if not reads and self._component is None:
            return None
        call = None
        if self._component is not None:
            call = OpenCall(self.exporter.current_query().component(self._component))
        return _Command(self, call, ours if reads else (), many=name in _READ_MANY)

    def _is_ours(self, key: object) -> bool:
        raw = key.encode() if isinstance(key, str) else key
        return isinstance(raw, (bytes, bytearray, memoryview)) and bytes(raw).startswith(self._prefix)


class _Command:
    """One command under way, and which of the values that it reads are the cache's."""

    def __init__(self, tier: _Tier, call: OpenCall | None, ours: tuple[bool, ...], *, many: bool) -> None:
        self._tier = tier
        self._call = call
        self._ours = ours
        self._many = many

    def returned(self, result: Any) -> None:
        """Redis answered."""
        with Quietly(self._tier.exporter, catalogue.CACHE_REQUESTS):
            if self._call is not None:
                self._call.end("success")
            values = result if self._many else (result,)
            for value, is_ours in zip(values, self._ours, strict=False):
                if is_ours:
                    self._tier.looked_up("miss" if value is None else "hit")

    def failed(self, error: BaseException) -> None:
        """There was no answer."""
        if self._call is not None:
            self._call.end(outcome_of(error))
        if isinstance(error, Exception):
            for is_ours in self._ours:
                if is_ours:
                    self._tier.looked_up("error")


def _measure(client: Any, tier: _Tier) -> None:
    execute: Callable[..., Any] = client.execute_command

    @functools.wraps(execute)
    def executed(*args: Any, **options: Any) -> Any:
        command = tier.command(args)
        if command is None:
            return execute(*args, **options)
        try:
            result = execute(*args, **options)
        except BaseException as error:
            command.failed(error)
            raise
        command.returned(result)
        return result

    @functools.wraps(execute)
    async def executed_async(*args: Any, **options: Any) -> Any:
        command = tier.command(args)
        if command is None:
            return await execute(*args, **options)
        try:
            result = await execute(*args, **options)
        except BaseException as error:
            command.failed(error)
            raise
        command.returned(result)
        return result

    client.execute_command = executed_async if inspect.iscoroutinefunction(execute) else executed
