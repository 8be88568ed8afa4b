from __future__ import annotations

import asyncio
import gc
import sqlite3
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from cmo_oracle.caches import (
    CacheError,
    DiskTier,
    MemoryTier,
    RedisTier,
    RestingTier,
    cache_key,
    keep,
)
from redis import asyncio as redis

from .waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from .conftest import RedisServer

ANSWER = "Lactate above 4 mmol/l: see §3 — „Laktat“."
FOREVER = 3600.0


def disk_tier(
    folder: Path,
    *,
    entries: int = 100,
    ttl_seconds: float = FOREVER,
    timeout_seconds: float = 30.0,
    on_eviction: Callable[[int], None] = lambda _count: None,
) -> DiskTier:
    return DiskTier(
        folder,
        entries=entries,
        ttl_seconds=ttl_seconds,
        timeout_seconds=timeout_seconds,
        on_eviction=on_eviction,
    )


def redis_tier(url: str, *, ttl_seconds: float = FOREVER, timeout_seconds: float = 30.0) -> RedisTier:
    return RedisTier(url, ttl_seconds=ttl_seconds, timeout_seconds=timeout_seconds, connections=4)


def test_keys_ignore_how_a_question_is_typed() -> None:
    key = cache_key("What raises lactate in sepsis?", "hybrid", "1")
    assert cache_key("  what RAISES  lactate\nin sepsis ? ", "hybrid", "1") == key
    assert cache_key("What raises lactate in sepsis", "hybrid", "1") == key


def test_keys_tell_questions_modes_and_versions_apart() -> None:
    keys = {
        cache_key("What raises lactate?", "hybrid", "1"),
        cache_key("What lowers lactate?", "hybrid", "1"),
        cache_key("What raises lactate?", "naive", "1"),
        cache_key("What raises lactate?", "hybrid", "2"),
    }
    assert len(keys) == 4


async def test_memory_forgets_the_oldest_and_counts_it() -> None:
    evicted: list[int] = []
    tier = MemoryTier(2, FOREVER, evicted.append)
    for key in ("a", "b", "c"):
        await tier.put(key, ANSWER)
    assert await tier.get("a") is None
    assert await tier.get("c") == ANSWER
    assert await tier.entries() == 2
    assert sum(evicted) == 1


async def test_memory_does_not_count_what_expires_as_evicted() -> None:
    evicted: list[int] = []
    tier = MemoryTier(1, 0.01, evicted.append)
    await tier.put("a", ANSWER)
    await until(lambda: _is(tier.entries(), 0))
    await tier.put("b", ANSWER)
    assert evicted == []


async def test_disk_keeps_answers_between_runs(tmp_path: Path) -> None:
    first = disk_tier(tmp_path)
    assert await first.get("a") is None
    await first.put("a", ANSWER)
    await first.put("a", ANSWER)
    assert await first.entries() == 1
    await first.close()
    second = disk_tier(tmp_path)
    assert await second.get("a") == ANSWER
    assert await second.entries() == 1
    await second.close()


async def test_disk_forgets_what_has_expired(tmp_path: Path) -> None:
    tier = disk_tier(tmp_path, ttl_seconds=0.01)
    await tier.put("a", ANSWER)
    await until(lambda: _is(tier.get("a"), None))
    await tier.close()


async def test_disk_is_bounded_and_drops_the_oldest(tmp_path: Path) -> None:
    evicted: list[int] = []
    tier = disk_tier(tmp_path, entries=20, on_eviction=evicted.append)
    for number in range(50):
        await tier.put(str(number), ANSWER)
    held = await tier.entries()
    assert held <= 20
    assert sum(evicted) == 50 - held
    assert await tier.get("49") == ANSWER
    assert await tier.get("0") is None
    await tier.close()


async def test_disk_makes_room_by_what_has_expired_without_counting_it(tmp_path: Path) -> None:
    evicted: list[int] = []
    short = disk_tier(tmp_path, ttl_seconds=0.001)
    for number in range(5):
        await short.put(f"old {number}", ANSWER)
    await short.close()
    tier = disk_tier(tmp_path, entries=5, on_eviction=evicted.append)
    await asyncio.to_thread(_wait_until_expired, tmp_path)
    await tier.put("new", ANSWER)
    assert evicted == []
    assert await tier.entries() == 1
    await tier.close()


async def _is(value: Awaitable[object], expected: object) -> bool:
    return await value == expected


def _wait_until_expired(folder: Path) -> None:
    connection = sqlite3.connect(folder / "answers.sqlite3")
    (latest,) = connection.execute("SELECT max(expires) FROM answers").fetchone()
    connection.close()
    while time.time() <= latest:
        time.sleep(0.001)


async def test_a_damaged_file_is_an_error_until_it_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite3"
    path.write_bytes(b"this is no database\n" * 500)
    tier = disk_tier(tmp_path)
    with pytest.raises(CacheError, match="not a database"):
        await tier.get("a")
    with pytest.raises(CacheError):
        await tier.put("a", ANSWER)
    path.unlink()
    await tier.put("a", ANSWER)
    assert await tier.get("a") == ANSWER
    await tier.close()


async def test_a_locked_file_is_an_error_and_soon(tmp_path: Path) -> None:
    tier = disk_tier(tmp_path, timeout_seconds=0.2)
    other = disk_tier(tmp_path)
    await other.put("a", ANSWER)
    lock = sqlite3.connect(tmp_path / "answers.sqlite3", isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    with pytest.raises(CacheError):
        await tier.put("b", ANSWER)
    lock.execute("ROLLBACK")
    lock.close()
    patient = disk_tier(tmp_path)
    assert await patient.get("a") == ANSWER
    for each in (tier, other, patient):
        await each.close()


async def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    tier = disk_tier(tmp_path / "file" / "cache")
    with pytest.raises(CacheError):
        await tier.get("a")
    await tier.close()


async def test_redis_keeps_answers_for_a_while_under_the_hash_alone(redis_server: RedisServer) -> None:
    client = redis.Redis.from_url(redis_server.url, decode_responses=True)
    await client.flushall()
    tier = redis_tier(redis_server.url, ttl_seconds=1000.0)
    assert await tier.get("a") is None
    await tier.put("a", ANSWER)
    assert await tier.get("a") == ANSWER
    assert await tier.entries() == 1
    assert await client.keys("*") == ["cmo:answer:a"]
    assert 990_000 < await client.pttl("cmo:answer:a") <= 1_000_000
    await client.aclose()
    await tier.close()


async def test_redis_that_dies_is_an_error_and_comes_back(redis_server: RedisServer) -> None:
    tier = redis_tier(redis_server.url)
    await tier.put("a", ANSWER)
    redis_server.process.kill()
    for _ in range(3):
        with pytest.raises(CacheError, match=r"^Redis"):
            await tier.get("a")
    redis_server.process.start()
    assert await tier.get("a") is None
    await tier.put("a", ANSWER)
    assert await tier.get("a") == ANSWER
    await tier.close()


@asynccontextmanager
async def hanging_redis() -> AsyncIterator[tuple[str, asyncio.Event]]:
    """Something that takes connections and never says a word: its URL, and whether it has been asked."""

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        asked.set()
        await released.wait()
        writer.close()

    asked, released = asyncio.Event(), asyncio.Event()
    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0", asked
    released.set()
    server.close()
    await server.wait_closed()


async def test_redis_that_hangs_is_an_error() -> None:
    async with hanging_redis() as (url, _):
        tier = redis_tier(url, timeout_seconds=0.1)
        with pytest.raises(CacheError):
            await tier.get("a")
        await tier.close()


class SlowClock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_a_tier_that_failed_is_left_alone_for_a_while(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite3"
    path.write_bytes(b"this is no database\n" * 500)
    clock = SlowClock()
    tier = RestingTier(disk_tier(tmp_path), rest_seconds=5.0, clock=clock)
    assert tier.problem is None
    with pytest.raises(CacheError):
        await tier.get("a")
    path.unlink()
    with pytest.raises(CacheError):
        await tier.get("a")
    assert not path.exists(), "the tier was asked while it was resting"
    assert tier.problem is not None
    clock.now += 5.0
    assert await tier.get("a") is None
    assert tier.problem is None
    await tier.close()


async def test_keeping_passes_over_a_tier_that_fails(tmp_path: Path) -> None:
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    broken.mkdir()
    (broken / "answers.sqlite3").write_bytes(b"this is no database\n" * 500)
    tiers = [RestingTier(disk_tier(folder), rest_seconds=0.0) for folder in (broken, whole)]
    await keep(tiers, "a", ANSWER)
    await until(lambda: _is(tiers[1].get("a"), ANSWER))
    await until(lambda: tiers[0].problem is not None)
    for tier in tiers:
        await tier.close()


async def test_a_tier_that_hangs_holds_nobody_up_and_leaves_nothing() -> None:
    memory = RestingTier(MemoryTier(1000, FOREVER, lambda _count: None), rest_seconds=0.0)
    async with hanging_redis() as (url, asked):
        hanging = RestingTier(redis_tier(url, timeout_seconds=FOREVER), rest_seconds=0.0)
        before = asyncio.all_tasks()
        for number in range(300):
            await keep([memory, hanging], str(number), ANSWER)
        assert await memory.get("299") == ANSWER
        writes = asyncio.all_tasks() - before
        assert 0 < len(writes) <= 100
        await asked.wait()
        assert not any(write.done() for write in writes)
        await hanging.close()
        assert all(write.cancelled() for write in writes)


async def test_a_fault_of_our_own_while_nobody_waits_is_logged_without_the_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def forget_how_to_count(_count: int) -> None:
        raise ValueError(ANSWER)

    unhandled: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: unhandled.append(context))
    tier = RestingTier(disk_tier(tmp_path, entries=1, on_eviction=forget_how_to_count), rest_seconds=0.0)
    for key in ("a", "b"):
        await keep([tier], key, ANSWER)
    await until(lambda: "could not be written to cache l2: ValueError" in caplog.text)
    await tier.close()
    gc.collect()
    assert unhandled == []
    assert ANSWER not in caplog.text
