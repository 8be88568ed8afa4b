"""diskcache's caches: hits, misses, errors, what expires, what is culled, how much is held.

A ``FanoutCache`` swallows the time-outs of its shards and returns the default, as if nothing were there;
so its shards are measured, where a time-out is still an exception.
"""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING, Any, Final, TypeVar

from cmo_exporter import catalogue
from cmo_exporter.adapters.instrumented import Quietly, mark

if TYPE_CHECKING:
    from collections.abc import Callable

    from cmo_exporter.exporter import Exporter

Cache = TypeVar("Cache")

_CHANGES: Final = ("set", "add", "delete", "pop", "evict", "clear")


def instrument_diskcache(cache: Cache, exporter: Exporter, *, tier: str) -> Cache:
    """Make a ``Cache`` or ``FanoutCache`` report what it does as one tier.

    ``cache[key]``, ``get`` and ``memoize`` are look-ups; ``key in cache`` and ``pop`` are none.

    Args:
        cache: the cache; it is returned.
        exporter: where it reports.
        tier: l1, l2 or l3.
    """
    with Quietly(exporter, catalogue.CACHE_REQUESTS):
        if mark(cache):
            shards = vars(cache).get("_shards", (cache,))
            entries = _Entries(exporter, tier, len(shards))
            for number, shard in enumerate(shards):
                _measure(shard, _Shard(shard, number, entries))
    return cache


class _Entries:
    """How much all shards hold together."""

    def __init__(self, exporter: Exporter, tier: str, shards: int) -> None:
        self.exporter = exporter
        self.tier = tier
        self._held = [0] * shards

    def holds(self, shard: int, count: int) -> None:
        """A shard holds so many entries."""
        self._held[shard] = count
        self.exporter.cache_entries(self.tier, sum(self._held))


class _Shard:
    """What one ``Cache`` has to report."""

    def __init__(self, cache: Any, number: int, entries: _Entries) -> None:
        self._cache = cache
        self._number = number
        self._entries = entries
        self.exporter = entries.exporter
        self._expired = threading.local()

    def looked_up(self, result: str) -> None:
        """The service looked something up."""
        self.exporter.current_query().cache_request(self._entries.tier, result)

    def changed(self) -> None:
        """Something was stored or removed."""
        with Quietly(self.exporter, catalogue.CACHE_ENTRIES):
            self._entries.holds(self._number, len(self._cache))

    def expired(self, count: int) -> None:
        """The time of so many entries was up."""
        self._expired.count = self.expired_here + count
        if count:
            self.exporter.cache_expiration(self._entries.tier, count)

    def evicted(self, count: int) -> None:
        """So many entries were dropped for want of room."""
        if count > 0:
            self.exporter.cache_eviction(self._entries.tier, count)

    @property
    def expired_here(self) -> int:
        """How many entries this thread has seen expire."""
        return int(getattr(self._expired, "count", 0))


def _measure(cache: Any, shard: _Shard) -> None:
    cache.get = _looked_up(cache.get, shard)
    for name in _CHANGES:
        setattr(cache, name, _changing(getattr(cache, name), shard))
    cache.cull = _culling(cache.cull, shard)
    cache.expire = _expiring(cache.expire, shard)
    if hasattr(cache, "_cull"):
        cache._cull = _culling_on_the_way(cache._cull, shard)  # noqa: SLF001 - only it knows what it drops
    shard.changed()


def _looked_up(get: Callable[..., Any], shard: _Shard) -> Callable[..., Any]:
    @functools.wraps(get)
    def looked_up(key: Any, default: Any = None, *args: Any, **named: Any) -> Any:
        nothing = _Nothing()
        try:
            value = get(key, nothing, *args, **named)
        except Exception:
            shard.looked_up("error")
            raise
        # Asked for the time of expiry or the tag as well, it returns a tuple.
        first = value[0] if isinstance(value, tuple) and value else value
        if first is not nothing:
            shard.looked_up("hit")
            return value
        shard.looked_up("miss")
        return (default, *value[1:]) if isinstance(value, tuple) else default

    return looked_up


class _Nothing:
    """Stands for an entry that is not there."""


def _changing(change: Callable[..., Any], shard: _Shard) -> Callable[..., Any]:
    @functools.wraps(change)
    def changing(*args: Any, **named: Any) -> Any:
        try:
            return change(*args, **named)
        finally:
            shard.changed()

    return changing


def _expiring(expire: Callable[..., Any], shard: _Shard) -> Callable[..., Any]:
    @functools.wraps(expire)
    def expiring(*args: Any, **named: Any) -> Any:
        count = expire(*args, **named)
        with Quietly(shard.exporter, catalogue.CACHE_EXPIRATIONS):
            shard.expired(int(count))
            shard.changed()
        return count

    return expiring


def _culling(cull: Callable[..., Any], shard: _Shard) -> Callable[..., Any]:
    """``cull`` removes what has expired, by ``expire``, and then more; it returns both together."""

    @functools.wraps(cull)
    def culling(*args: Any, **named: Any) -> Any:
        expired = shard.expired_here
        count = cull(*args, **named)
        with Quietly(shard.exporter, catalogue.CACHE_EVICTIONS):
            shard.evicted(int(count) - (shard.expired_here - expired))
            shard.changed()
        return count

    return culling


def _culling_on_the_way(cull: Callable[..., Any], shard: _Shard) -> Callable[..., Any]:
    """Every write culls a little: first what has expired, then by the policy, each in one statement."""

    @functools.wraps(cull)
    def culling(now: Any, sql: Callable[..., Any], *args: Any, **named: Any) -> Any:
        def heard(statement: str, *parameters: Any) -> Any:
            cursor = sql(statement, *parameters)
            with Quietly(shard.exporter, catalogue.CACHE_EVICTIONS):
                if statement.startswith("DELETE"):
                    tell = shard.expired if "expire_time <" in statement else shard.evicted
                    tell(int(cursor.rowcount))
            return cursor

        return cull(now, heard, *args, **named)

    return culling
