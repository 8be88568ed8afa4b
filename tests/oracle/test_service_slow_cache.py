"""Caches that hang while they are written to: no answer waits for them, and they hold up no shutdown."""

from __future__ import annotations

import signal
import sqlite3
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from redis import asyncio as redis

from .running import RunningService
from .waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from .conftest import RedisServer
    from .running import Stub

CHANGES = (
    # A query that waits for a write is a time-out here: the deadline passes long before the caches' own.
    "query.deadline_seconds=20.0",
    "cache.l1={entries: 2, ttl_seconds: 3600.0}",
    "cache.l2={entries: 1000, ttl_seconds: 3600.0, timeout_seconds: 3600.0}",
    "cache.l3={ttl_seconds: 3600.0, timeout_seconds: 3600.0, connections: 16}",
    "lightrag.timeout_seconds=20.0",
    "lightrag.model_timeout_seconds=20.0",
)
PAUSE_MILLISECONDS = 3_600_000

_numbers = iter(range(1_000_000))


def fresh() -> str:
    return f"What does albumin say about nutrition, case {next(_numbers)}?"


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory,
    upstream_process: Stub,
    fallback_process: Stub,
    redis_server: RedisServer,
    index_folder: Path,
) -> Iterator[RunningService]:
    running = RunningService(
        tmp_path_factory.mktemp("slow-cache"),
        upstream_process,
        fallback_process,
        index=index_folder,
        changes=CHANGES,
        redis_url=redis_server.url,
    )
    with running.process:
        yield running


@asynccontextmanager
async def writes_that_hang(server: RedisServer) -> AsyncIterator[redis.Redis]:
    """Redis answers what it is asked, and takes nothing until the end of the block."""
    async with redis.Redis.from_url(server.url) as client:
        await client.client_pause(PAUSE_MILLISECONDS, all=False)
        try:
            yield client
        finally:
            await client.client_unpause()


async def entries(server: RedisServer) -> int:
    async with redis.Redis.from_url(server.url) as client:
        return int(await client.dbsize())


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_does_not_wait_until_redis_has_taken_it(
    service: RunningService, redis_server: RedisServer, *, stream: bool
) -> None:
    question, before, on_disk_before = fresh(), await entries(redis_server), on_disk(service)
    async with writes_that_hang(redis_server):
        answered = await service.ask(question, stream=stream)
        assert '"outcome":"success"' in answered.text.replace(" ", "")
        assert await entries(redis_server) == before
        assert (await service.trail(question))["tiers"] == [["l1", "hit"]]

    async def taken() -> bool:
        return await entries(redis_server) == before + 1 and on_disk(service) == on_disk_before + 1

    await until(taken)


async def test_a_hit_in_redis_does_not_wait_until_the_disk_has_taken_it(
    service: RunningService, redis_server: RedisServer
) -> None:
    question, before, on_disk_before = fresh(), await entries(redis_server), on_disk(service)
    for each in (question, fresh(), fresh()):  # the others push it out of L1
        await service.ask(each)

    async def kept() -> bool:
        return await entries(redis_server) == before + 3 and on_disk(service) == on_disk_before + 3

    await until(kept)
    disk = sqlite3.connect(service.cache_file, timeout=60, isolation_level=None)
    disk.execute("DELETE FROM answers")
    disk.execute("BEGIN IMMEDIATE")  # others can read, and cannot write
    trail = await service.trail(question)
    assert (trail["outcome"], trail["source"]) == ("success", "cache")
    assert trail["tiers"] == [["l1", "miss"], ["l2", "miss"], ["l3", "hit"]]
    assert on_disk(service) == 0
    assert (await service.trail(question))["tiers"] == [["l1", "hit"]]
    trail = await service.trail(fresh())  # nor does a look-up on the disk wait for what is written there
    assert trail["tiers"] == [["l1", "miss"], ["l2", "miss"], ["l3", "miss"]]
    assert trail["outcome"] == "success"
    disk.execute("ROLLBACK")
    disk.close()
    await until(lambda: on_disk(service) == 2)


def on_disk(service: RunningService) -> int:
    if not service.cache_file.exists():
        return 0
    disk = sqlite3.connect(service.cache_file, timeout=60)
    (count,) = disk.execute("SELECT count(*) FROM answers").fetchone()
    disk.close()
    return int(count)


async def test_it_stops_when_asked_while_a_write_hangs(
    tmp_path: Path, upstream: Stub, fallback: Stub, redis_server: RedisServer, index_folder: Path
) -> None:
    running = RunningService(
        tmp_path, upstream, fallback, index=index_folder, changes=CHANGES, redis_url=redis_server.url
    )
    with running.process:
        async with writes_that_hang(redis_server):
            assert (await running.trail(fresh()))["outcome"] == "success"
            process = running.process._process
            assert process is not None
            process.send_signal(signal.SIGTERM)
            await until(lambda: process.poll() is not None)
        assert process.returncode == 0
    log = running.log.read_text()
    assert "Application shutdown complete" in log
    for complaint in ("Traceback", "destroyed", "never retrieved", "WARNING", "ERROR"):
        assert complaint not in log
