"""cachetools' caches, each kind that there is."""

from __future__ import annotations

import copy
import functools
import pickle
from typing import TYPE_CHECKING, Any

import cachetools
import pytest
from cmo_exporter import Exporter, ExporterSettings
from cmo_exporter.adapters import instrument_cachetools
from hypothesis import given, settings
from hypothesis import strategies as st

from .readings import Readings

if TYPE_CHECKING:
    from collections.abc import Callable

LOOK_UPS = ("cmo_cache_requests_total", "live", "l1")
ENTRIES = ("cmo_cache_entries", "l1")
EVICTIONS = ("cmo_cache_evictions_total", "l1")
EXPIRATIONS = ("cmo_cache_expirations_total", "l1")

KINDS: dict[str, Callable[[], Any]] = {
    "Cache": lambda: cachetools.Cache(3),
    "FIFOCache": lambda: cachetools.FIFOCache(3),
    "LFUCache": lambda: cachetools.LFUCache(3),
    "LRUCache": lambda: cachetools.LRUCache(3),
    "RRCache": lambda: cachetools.RRCache(3),
    "TTLCache": lambda: cachetools.TTLCache(3, 60),
    "TLRUCache": lambda: cachetools.TLRUCache(3, lambda _key, _value, now: now + 60),
}


@pytest.fixture(params=KINDS)
def cache(request: pytest.FixtureRequest, adapted: Exporter) -> Any:
    plain = KINDS[request.param]()
    kind = type(plain)
    measured = instrument_cachetools(plain, adapted, tier="l1")
    assert instrument_cachetools(measured, adapted, tier="l1") is plain
    assert isinstance(measured, kind)
    return measured


def test_every_way_to_look_up_is_counted_once(cache: Any, readings: Readings) -> None:
    assert cache.get("a") is None
    assert cache.get("a", "nothing") == "nothing"
    with pytest.raises(KeyError):
        cache["a"]
    assert cache.setdefault("a", 1) == 1
    assert readings.added("cmo_cache") == {(*LOOK_UPS, "miss"): 4, ENTRIES: 1}
    assert cache["a"] == cache.get("a") == cache.setdefault("a", 2) == 1
    assert readings.added("cmo_cache") == {(*LOOK_UPS, "hit"): 3}


def test_what_is_no_look_up_is_not_counted(cache: Any, readings: Readings) -> None:
    cache["a"] = 1
    assert "a" in cache
    assert list(cache) == ["a"]
    assert cache.pop("a") == 1
    assert cache.pop("a", None) is None
    cache["b"] = 2
    assert cache.popitem() == ("b", 2)
    cache["c"] = 3
    del cache["c"]
    assert readings.added("cmo_cache") == {}


def test_what_is_dropped_for_want_of_room_is_an_eviction_and_nothing_else_is(
    cache: Any, readings: Readings
) -> None:
    for key in range(5):
        cache[key] = key
    assert readings.added("cmo_cache") == {EVICTIONS: 2, ENTRIES: 3}
    cache.clear()
    assert readings.added("cmo_cache") == {ENTRIES: -3}


def test_what_expires_is_no_eviction(adapted: Exporter, readings: Readings) -> None:
    now = 0.0
    cache: Any = instrument_cachetools(cachetools.TTLCache(3, 10, timer=lambda: now), adapted, tier="l1")
    cache["a"], cache["b"] = 1, 2
    now = 11.0
    assert cache.get("a") is None
    assert readings.added("cmo_cache") == {(*LOOK_UPS, "miss"): 1, ENTRIES: 2}
    cache["c"] = 3
    assert readings.added("cmo_cache") == {EXPIRATIONS: 2, ENTRIES: -1}


def test_a_cache_that_makes_up_what_is_missing_has_missed(adapted: Exporter, readings: Readings) -> None:
    class Squares(cachetools.LRUCache[int, int]):
        def __missing__(self, key: int) -> int:
            self[key] = key * key
            return self[key]

    cache = instrument_cachetools(Squares(3), adapted, tier="l1")
    assert cache[4] == 16
    assert readings.added("cmo_cache")[(*LOOK_UPS, "miss")] == 1
    assert cache[4] == 16
    assert readings.added("cmo_cache") == {(*LOOK_UPS, "hit"): 1}


def test_a_decorated_function_is_looked_up(adapted: Exporter, readings: Readings) -> None:
    cache: cachetools.LRUCache[Any, int] = instrument_cachetools(cachetools.LRUCache(3), adapted, tier="l1")

    @cachetools.cached(cache)
    def double(number: int) -> int:
        return 2 * number

    assert double(2) == double(2) == 4
    assert readings.added("cmo_cache_requests") == {(*LOOK_UPS, "miss"): 1, (*LOOK_UPS, "hit"): 1}


def test_a_pickle_and_a_deep_copy_are_of_the_class_that_it_had(adapted: Exporter) -> None:
    cache: cachetools.LRUCache[str, int] = instrument_cachetools(cachetools.LRUCache(3), adapted, tier="l1")
    cache["a"] = 1
    for other in (pickle.loads(pickle.dumps(cache)), copy.deepcopy(cache)):  # noqa: S301
        assert type(other) is cachetools.LRUCache
        assert dict(other) == {"a": 1}
    assert repr(cache) == repr(copy.deepcopy(cache))


KEYS = st.integers(0, 5)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("__setitem__"), KEYS, st.integers()),
        st.tuples(st.sampled_from(["get", "__contains__"]), KEYS),
        st.tuples(st.sampled_from(["pop", "setdefault"]), KEYS, st.integers()),
        st.tuples(st.sampled_from(["__getitem__", "__delitem__"]), KEYS),
        st.tuples(st.sampled_from(["popitem", "clear", "__len__"])),
    )
)


def result(cache: Any, name: str, *arguments: Any) -> Any:
    try:
        return getattr(cache, name)(*arguments)
    except KeyError as error:
        return ("raised", error.args)


@functools.cache
def shared() -> Exporter:
    """One exporter for all examples: each is held against what was there before it."""
    return Exporter(ExporterSettings())


@settings(max_examples=60)
@given(steps=STEPS)
def test_a_measured_cache_behaves_as_one_that_is_not(steps: list[tuple[Any, ...]]) -> None:
    exporter = shared()
    readings = Readings(exporter)
    plain: Any = cachetools.LRUCache(3)
    measured: Any = instrument_cachetools(cachetools.LRUCache(3), exporter, tier="l1")
    looked_up = 0
    for name, *arguments in steps:
        assert result(measured, name, *arguments) == result(plain, name, *arguments)
        looked_up += name in ("get", "__getitem__", "setdefault")
    assert list(measured.items()) == list(plain.items())
    assert readings.now(*ENTRIES) == len(plain)
    counted = sum(readings.added("cmo_cache_requests").values())
    assert counted == looked_up + len(plain)  # `items` has read them all
