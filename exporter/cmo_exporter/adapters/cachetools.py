"""cachetools' caches: hits, misses, what expires, what is dropped for want of room, how much is held.

Their methods are Python's own for mappings, which are looked up in the class and not in the object, so the
object is given a class of its own, derived from the one it had.
"""

from __future__ import annotations

import threading
from importlib import import_module
from types import FunctionType
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
            # `len` would drop what has expired: measuring must not change what the service iterates over.
            count = import_module("cachetools").Cache.__len__(cache)
            self.exporter.cache_entries(self.tier, count)


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


class _Measured:
    """The methods of the class that a cache is given.

    They are copied into it, and call those of the cache's own class by name: an object can only be given a
    class whose first base is the one it had.
    """

    _cmo_counts: _Counts
    _cmo_inside: _Inside
    _cmo_kind: Any

    def __getitem__(self, key: Any) -> Any:
        self._cmo_inside.missed = False
        value = self._cmo_kind.__getitem__(self, key)
        self._cmo_inside.read = not self._cmo_inside.missed
        if self._cmo_inside.read and not self._cmo_inside.depth:
            self._cmo_counts.looked_up("hit")
        return value

    def __missing__(self, key: Any) -> Any:
        if not self._cmo_inside.depth:
            self._cmo_counts.looked_up("miss")
        value = self._cmo_kind.__missing__(self, key)
        self._cmo_inside.missed = True  # the cache made it up
        return value

    def get(self, key: Any, *default: Any, **named: Any) -> Any:
        self._cmo_inside.read = False
        with self._cmo_inside:
            value = self._cmo_kind.get(self, key, *default, **named)
        self._cmo_counts.looked_up("hit" if self._cmo_inside.read else "miss")
        return value

    def setdefault(self, key: Any, *default: Any, **named: Any) -> Any:
        self._cmo_inside.read = False
        with self._cmo_inside:
            value = self._cmo_kind.setdefault(self, key, *default, **named)
        self._cmo_counts.looked_up("hit" if self._cmo_inside.read else "miss")
        self._cmo_counts.holds(self)
        return value

    def __setitem__(self, key: Any, value: Any) -> None:
        outer, self._cmo_inside.storing = self._cmo_inside.storing, True
        try:
            with self._cmo_inside:
                self._cmo_kind.__setitem__(self, key, value)
        finally:
            self._cmo_inside.storing = outer
        self._cmo_changed()

    def __delitem__(self, key: Any) -> None:
        self._cmo_kind.__delitem__(self, key)
        self._cmo_changed()

    def pop(self, key: Any, *default: Any, **named: Any) -> Any:
        with self._cmo_inside:
            value = self._cmo_kind.pop(self, key, *default, **named)
        self._cmo_changed()
        return value

    def popitem(self) -> Any:
        # The cache calls it to make room while it stores something; the service may call it too.
        makes_room, self._cmo_inside.storing = self._cmo_inside.storing, False
        try:
            with self._cmo_inside:
                item = self._cmo_kind.popitem(self)
        finally:
            self._cmo_inside.storing = makes_room
        if makes_room:
            self._cmo_counts.exporter.cache_eviction(self._cmo_counts.tier)
        self._cmo_changed()
        return item

    def clear(self) -> None:
        self._cmo_kind.clear(self)
        self._cmo_changed()

    def __reduce_ex__(self, protocol: Any) -> Any:
        # A pickle of it, or a deep copy, is of the class that the cache had. It is made by `__new__` itself,
        # because pickle lets `copyreg.__newobj__` make objects of the very class alone.
        make, (first, *more), *rest = self._cmo_kind.__reduce_ex__(self, protocol)
        if first is type(self):
            make, first = self._cmo_kind.__new__, self._cmo_kind
        return make, (first, *more), *rest

    def _cmo_changed(self) -> None:
        if not self._cmo_inside.depth:
            self._cmo_counts.holds(self)


def _expire(self: Any, *time: Any, **named: Any) -> Any:
    removed = self._cmo_kind.expire(self, *time, **named)
    self._cmo_counts.expired(removed)
    return removed


def _measured(kind: type, counts: _Counts) -> type:
    names = ("__qualname__", "__module__", "__doc__")
    own: dict[str, Any] = {name: getattr(kind, name) for name in names}
    own |= {name: method for name, method in vars(_Measured).items() if isinstance(method, FunctionType)}
    own |= {_COUNTS: counts, "_cmo_inside": _Inside(), "_cmo_kind": kind, "__slots__": ()}
    if hasattr(kind, "expire"):
        own["expire"] = _expire
    return type(kind)(kind.__name__, (kind,), own)
