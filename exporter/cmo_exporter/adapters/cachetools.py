"""cachetools' caches: hits, misses, what expires, what is dropped for want of room, how much is held.

Their methods are Python's own for mappings, which are looked up in the class and not in the object, so the
object is given a class of its own, derived from the one it had.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final, TypeVar

from cmo_exporter import catalogue
from cmo_exporter.adapters.instrumented import Quietly

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from cmo_exporter.exporter import Exporter

Cache = TypeVar("Cache", bound="MutableMapping[Any, Any]")

_COUNTS: Final = "_cmo_counts"


def instrument_cachetools(cache: Cache, exporter: Exporter, *, tier: str) -> Cache:
    """Make a cache of cachetools report what it does as one tier.

    ``cache[key]``, ``get``, ``setdefault`` and the decorators are look-ups; ``key in cache`` and ``pop``
    are none.

    Args:
        cache: the cache; it is returned.
        exporter: where it reports.
        tier: l1, l2 or l3.
    """
    with Quietly(exporter, catalogue.CACHE_REQUESTS):
        if not hasattr(type(cache), _COUNTS):
            counts = _Counts(exporter, tier)
            cache.__class__ = _measured(type(cache), counts)
            counts.holds(cache)
    return cache


class _Counts:
    """What one cache has to report."""

    def __init__(self, exporter: Exporter, tier: str) -> None:
        self.exporter = exporter
        self.tier = tier

    def looked_up(self, result: str) -> None:
        """The service looked something up."""
        self.exporter.current_query().cache_request(self.tier, result)

    def expired(self, removed: Any) -> None:
        """These entries' time was up. Old versions of cachetools do not say which."""
        if isinstance(removed, list) and removed:
            self.exporter.cache_expiration(self.tier, len(removed))

    def holds(self, cache: Any) -> None:
        """So much is in it."""
        with Quietly(self.exporter, catalogue.CACHE_ENTRIES):
            self.exporter.cache_entries(self.tier, len(cache))


class _Inside(threading.local):
    """How deep in the cache's own methods this thread is, which call each other; a context manager."""

    depth = 0
    storing = False
    read = False
    missed = False

    def __enter__(self) -> None:
        self.depth += 1

    def __exit__(self, *exception: object) -> None:
        self.depth -= 1


def _measured(kind: Any, counts: _Counts) -> Any:
    inside = _Inside()

    class Measured(kind):  # type: ignore[misc]  # the base is whatever the cache is
        def __getitem__(self, key: Any) -> Any:
            inside.missed = False
            value = super().__getitem__(key)
            inside.read = not inside.missed
            if inside.read and not inside.depth:
                counts.looked_up("hit")
            return value

        def __missing__(self, key: Any) -> Any:
            if not inside.depth:
                counts.looked_up("miss")
            value = super().__missing__(key)
            inside.missed = True  # the cache made it up
            return value

        def get(self, key: Any, *default: Any, **named: Any) -> Any:
            inside.read = False
            with inside:
                value = super().get(key, *default, **named)
            counts.looked_up("hit" if inside.read else "miss")
            return value

        def setdefault(self, key: Any, *default: Any, **named: Any) -> Any:
            inside.read = False
            with inside:
                value = super().setdefault(key, *default, **named)
            counts.looked_up("hit" if inside.read else "miss")
            counts.holds(self)
            return value

        def __setitem__(self, key: Any, value: Any) -> None:
            outer, inside.storing = inside.storing, True
            try:
                with inside:
                    super().__setitem__(key, value)
            finally:
                inside.storing = outer
            self.__changed()

        def __delitem__(self, key: Any) -> None:
            super().__delitem__(key)
            self.__changed()

        def pop(self, key: Any, *default: Any, **named: Any) -> Any:
            with inside:
                value = super().pop(key, *default, **named)
            self.__changed()
            return value

        def popitem(self) -> Any:
            # The cache calls it to make room while it stores something; the service may call it too.
            makes_room, inside.storing = inside.storing, False
            try:
                with inside:
                    item = super().popitem()
            finally:
                inside.storing = makes_room
            if makes_room:
                counts.exporter.cache_eviction(counts.tier)
            self.__changed()
            return item

        def clear(self) -> None:
            super().clear()
            self.__changed()

        def __reduce_ex__(self, protocol: Any) -> Any:
            # A pickle of it, or a deep copy, is of the class that the cache had.
            make, (first, *more), *rest = super().__reduce_ex__(protocol)
            return make, (kind if first is type(self) else first, *more), *rest

        def __changed(self) -> None:
            if not inside.depth:
                counts.holds(self)

    if hasattr(kind, "expire"):
        Measured.expire = _measured_expire(kind, counts)  # type: ignore[attr-defined]
    setattr(Measured, _COUNTS, counts)
    for name in ("__name__", "__qualname__", "__module__", "__doc__"):
        setattr(Measured, name, getattr(kind, name))
    return Measured


def _measured_expire(kind: Any, counts: _Counts) -> Any:
    def expire(self: Any, *time: Any, **named: Any) -> Any:
        removed = kind.expire(self, *time, **named)
        counts.expired(removed)
        return removed

    return expire
