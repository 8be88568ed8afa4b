"""diskcache on a real disk: its cache, its fan-out, its culling, and its time-outs."""

from __future__ import annotations

import sqlite3
import time
from typing import TYPE_CHECKING, Any

import diskcache
import pytest
from cmo_exporter.adapters import instrument_diskcache

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cmo_exporter import Exporter

    from .readings import Readings

LOOK_UPS = ("cmo_cache_requests_total", "live", "l2")
ENTRIES = ("cmo_cache_entries", "l2")
EVICTIONS = ("cmo_cache_evictions_total", "l2")
EXPIRATIONS = ("cmo_cache_expirations_total", "l2")
PAST = -1.0  # seconds from now at which something expires


@pytest.fixture(params=["Cache", "FanoutCache"])
def cache(request: pytest.FixtureRequest, tmp_path: Path, adapted: Exporter) -> Iterator[Any]:
    kind: Any = getattr(diskcache, request.param)
    with kind(tmp_path / "cache") as plain:
        measured = instrument_diskcache(plain, adapted, tier="l2")
        assert instrument_diskcache(measured, adapted, tier="l2") is plain
        assert type(measured) is kind
        yield measured


@pytest.fixture
def small(tmp_path: Path, adapted: Exporter) -> Iterator[Any]:
    """A cache that holds fifty entries of 20 kB, and may be full before it is asked to make room."""
    with diskcache.Cache(tmp_path / "small", size_limit=1_000_000, cull_limit=2) as plain:
        yield instrument_diskcache(plain, adapted, tier="l2")


def test_look_ups_are_hits_and_misses(cache: Any, readings: Readings) -> None:
    assert cache.get("a") is None
    assert cache.get("a", default=7) == 7
    assert cache.get("a", expire_time=True, tag=True) == (None, None, None)
    with pytest.raises(KeyError):
        cache["a"]
    assert readings.added("cmo_cache") == {(*LOOK_UPS, "miss"): 4}
    cache["a"] = (1, 2)
    assert cache.get("a") == cache["a"] == (1, 2)
    assert cache.get("a", tag=True) == ((1, 2), None)
    assert readings.added("cmo_cache") == {(*LOOK_UPS, "hit"): 3, ENTRIES: 1}


def test_a_stored_none_is_a_hit(cache: Any, readings: Readings) -> None:
    cache["a"] = None
    assert cache.get("a", default=7) is None
    assert readings.added("cmo_cache_requests") == {(*LOOK_UPS, "hit"): 1}


def test_what_has_expired_is_a_miss_and_once_removed_an_expiration(cache: Any, readings: Readings) -> None:
    cache.reset("cull_limit", 0)  # or the write itself removes what has expired
    cache.set("a", 1, expire=PAST)
    assert cache.get("a") is None
    assert readings.added("cmo_cache") == {(*LOOK_UPS, "miss"): 1, ENTRIES: 1}
    assert cache.expire() == 1
    assert readings.added("cmo_cache") == {EXPIRATIONS: 1, ENTRIES: -1}


def test_memoised_functions_are_looked_up(cache: Any, readings: Readings) -> None:
    def twice(number: int) -> int:
        return 2 * number

    double = cache.memoize()(twice)
    assert double(2) == double(2) == 4
    assert readings.added("cmo_cache_requests") == {(*LOOK_UPS, "miss"): 1, (*LOOK_UPS, "hit"): 1}


def test_what_a_write_culls_is_an_expiration_or_an_eviction(small: Any, readings: Readings) -> None:
    small.set("expired", 1, expire=PAST)
    assert readings.added("cmo_cache") == {EXPIRATIONS: 1}
    for number in range(60):
        small.set(number, b"x" * 20_000)
    added = readings.added("cmo_cache")
    assert added[EVICTIONS] > 0
    assert added[ENTRIES] == 60 - added[EVICTIONS]
    assert readings.now(*ENTRIES) == len(small)


def test_culling_by_hand_tells_what_expired_from_what_had_to_go(small: Any, readings: Readings) -> None:
    small.reset("cull_limit", 0)  # nothing goes by itself
    for number in range(60):
        small.set(number, b"x" * 20_000)
    small.set("expired", 1, expire=PAST)
    readings.added()
    removed = small.cull()
    added = readings.added("cmo_cache")
    assert added[EXPIRATIONS] == 1
    assert added[EVICTIONS] == removed - 1 > 0
    assert added[ENTRIES] == -removed


def test_what_the_service_removes_is_no_eviction(cache: Any, readings: Readings) -> None:
    cache.set("a", 1, tag="t")
    cache.set("b", 1)
    cache.set("c", 1)
    assert cache.evict("t") == 1
    assert cache.pop("b") == 1
    assert cache.clear() == 1
    assert readings.added("cmo_cache") == {}


def test_a_locked_file_is_an_error_and_no_miss(tmp_path: Path, adapted: Exporter, readings: Readings) -> None:
    # With the statistics on, a look-up writes, and so can time out. A fan-out hides that.
    with diskcache.FanoutCache(tmp_path / "cache", shards=1, timeout=0.01, statistics=True) as cache:
        instrument_diskcache(cache, adapted, tier="l2")
        cache["a"] = 1
        readings.added()
        blocker = sqlite3.connect(next((tmp_path / "cache").glob("*/cache.db")), isolation_level=None)
        try:
            blocker.execute("BEGIN EXCLUSIVE")
            assert cache.get("a") is None
        finally:
            blocker.close()
        assert readings.added("cmo_cache") == {(*LOOK_UPS, "error"): 1}


def test_another_process_finds_what_is_held(tmp_path: Path, adapted: Exporter, readings: Readings) -> None:
    with diskcache.Cache(tmp_path / "cache") as before:
        before["a"] = time.time()
    with diskcache.Cache(tmp_path / "cache") as cache:
        instrument_diskcache(cache, adapted, tier="l2")
        assert readings.added("cmo_cache") == {ENTRIES: 1}
