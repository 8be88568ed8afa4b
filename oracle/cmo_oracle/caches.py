"""Three tiers that hold answers: memory (L1), a file (L2) and Redis (L3), asked in that order.

A cache must never break or delay a query: a tier that fails or is slow gives the result ``error`` and is then
left alone for a while, and no answer waits until a file or Redis has taken it. Answers are stored as text
under a hash of the question, without pickle: whoever can write to the file or to Redis must not be able to
run code here. The text of a question is stored nowhere.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import sqlite3
import time
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from cachetools import TTLCache
from redis import asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from cmo_oracle.failures import describe

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

_log = logging.getLogger(__name__)

_REDIS_PREFIX: Final = "cmo:answer:"
_FILE_NAME: Final = "answers.sqlite3"
_PRUNE_SHARE: Final = 0.05
_WRITES_AT_ONCE: Final = 100
_Result = TypeVar("_Result")


class CacheError(Exception):
    """A tier could not be asked. The message names the cause and holds nothing of the question."""


def cache_key(question: str, mode: str, version: str) -> str:
    """The key of an answer: SHA-256 of the normalised question, the mode and the index's version.

    Case, width, white space and closing punctuation do not make another question.
    """
    normalised = " ".join(unicodedata.normalize("NFKC", question).casefold().split()).rstrip(" ?!.")
    return hashlib.sha256("\0".join((version, mode, normalised)).encode()).hexdigest()


class Tier(Protocol):
    """One tier. ``get`` and ``put`` raise CacheError when it cannot be asked."""

    @property
    def name(self) -> str:
        """The tier's name in metrics and trails: l1, l2 or l3."""

    async def get(self, key: str) -> str | None:
        """The answer under a key, or None."""

    async def put(self, key: str, answer: str) -> None:
        """Keep an answer under a key."""

    async def entries(self) -> int:
        """How many answers the tier holds."""

    async def close(self) -> None:
        """Let go of files and connections."""


class _CountingCache(TTLCache[str, str]):
    """A TTLCache that tells of each entry it drops for want of room. Entries that expire are none."""

    def __init__(self, entries: int, ttl_seconds: float, on_eviction: Callable[[int], None]) -> None:
        super().__init__(entries, ttl_seconds)
        self._on_eviction = on_eviction

    def popitem(self) -> tuple[str, str]:
        item = super().popitem()
        self._on_eviction(1)
        return item


class MemoryTier:
    """L1: the most recently used answers, in this process."""

    name: Final = "l1"

    def __init__(self, entries: int, ttl_seconds: float, on_eviction: Callable[[int], None]) -> None:
        self._cache = _CountingCache(entries, ttl_seconds, on_eviction)

    async def get(self, key: str) -> str | None:
        """The answer under a key, or None."""
        return self._cache.get(key)

    async def put(self, key: str, answer: str) -> None:
        """Keep an answer under a key."""
        self._cache[key] = answer

    async def entries(self) -> int:
        """How many unexpired answers there are."""
        self._cache.expire()
        return len(self._cache)

    async def close(self) -> None:
        """Nothing to let go of."""


class _Database:
    """A connection to an SQLite file, in a thread of its own so that no disk access stops the event loop.

    An error closes it, and the next use opens it again.
    """

    def __init__(
        self, path: Path, timeout_seconds: float, on_open: Callable[[sqlite3.Connection], None]
    ) -> None:
        self._path = path
        self._timeout_seconds = timeout_seconds
        self._on_open = on_open
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="cache-l2")
        self._connection: sqlite3.Connection | None = None

    async def run(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """Do something with the connection, off the event loop.

        Raises:
            CacheError: the file is damaged, locked or gone, or did not answer in time.
        """
        return await self._in_thread(lambda: self._guarded(work))

    async def close(self) -> None:
        """Close the connection."""
        with suppress(CacheError):
            await self._in_thread(self._disconnect)
        self._thread.shutdown(wait=False)

    async def _in_thread(self, work: Callable[[], _Result]) -> _Result:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except TimeoutError:
            raise CacheError(f"{self._path} did not answer in {self._timeout_seconds:g} s") from None

    def _guarded(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        try:
            return work(self._connect())
        except (sqlite3.Error, OSError) as error:
            self._disconnect()
            raise CacheError(f"{self._path}: {error}") from None

    def _connect(self) -> sqlite3.Connection:
        if self._connection is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self._path, timeout=self._timeout_seconds / 2, isolation_level=None)
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = NORMAL")
                self._on_open(connection)
            except sqlite3.Error:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None


class DiskTier:
    """L2: an SQLite file. Look-ups and writes have a connection each, so that none waits for the other.

    Oldest answers make room for new ones. A file that is damaged or locked is reported and left as it is.
    """

    name: Final = "l2"

    def __init__(
        self,
        directory: Path,
        *,
        entries: int,
        ttl_seconds: float,
        timeout_seconds: float,
        on_eviction: Callable[[int], None],
    ) -> None:
        path = directory / _FILE_NAME
        self._limit = entries
        self._ttl_seconds = ttl_seconds
        self._on_eviction = on_eviction
        self._look_ups = _Database(path, timeout_seconds, _make_table)
        self._writes = _Database(path, timeout_seconds, self._count_entries)
        self._count = 0  # belongs to the thread that writes

    async def get(self, key: str) -> str | None:
        """The answer under a key, or None."""
        return await self._look_ups.run(lambda connection: _find(connection, key))

    async def put(self, key: str, answer: str) -> None:
        """Keep an answer under a key."""
        evicted = await self._writes.run(lambda connection: self._put(connection, key, answer))
        if evicted:
            self._on_eviction(evicted)

    async def entries(self) -> int:
        """How many answers the file holds, expired ones that wait to be removed included."""
        return await self._look_ups.run(_entries)

    async def close(self) -> None:
        """Close the file."""
        await asyncio.gather(self._look_ups.close(), self._writes.close())

    def _count_entries(self, connection: sqlite3.Connection) -> None:
        _make_table(connection)
        self._count = _entries(connection)

    def _put(self, connection: sqlite3.Connection, key: str, answer: str) -> int:
        now = time.time()
        known = connection.execute("SELECT 1 FROM answers WHERE key = ?", (key,)).fetchone()
        connection.execute(
            "INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", (key, answer, now + self._ttl_seconds)
        )
        self._count += known is None
        return self._make_room(connection, now) if self._count > self._limit else 0

    def _make_room(self, connection: sqlite3.Connection, now: float) -> int:
        """Remove what has expired, then the oldest, some at a time; returns how many were still good."""
        self._count -= connection.execute("DELETE FROM answers WHERE expires <= ?", (now,)).rowcount
        if self._count <= self._limit:
            return 0
        surplus = self._count - self._limit + int(self._limit * _PRUNE_SHARE)
        evicted = connection.execute(
            "DELETE FROM answers WHERE key IN (SELECT key FROM answers ORDER BY expires LIMIT ?)", (surplus,)
        ).rowcount
        self._count -= evicted
        return evicted


def _make_table(connection: sqlite3.Connection) -> None:
    connection.execute(
        "CREATE TABLE IF NOT EXISTS answers "
        "(key TEXT PRIMARY KEY, answer TEXT NOT NULL, expires REAL NOT NULL) WITHOUT ROWID"
    )
    connection.execute("CREATE INDEX IF NOT EXISTS answers_by_age ON answers (expires)")


def _find(connection: sqlite3.Connection, key: str) -> str | None:
    query = "SELECT answer FROM answers WHERE key = ? AND expires > ?"
    row = connection.execute(query, (key, time.time())).fetchone()
    return None if row is None else str(row[0])


def _entries(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM answers").fetchone()[0])


class RedisTier:
    """L3: Redis, shared by every instance of the service. The client's own retries are off."""

    name: Final = "l3"

    def __init__(self, url: str, *, ttl_seconds: float, timeout_seconds: float, connections: int) -> None:
        self._ttl_milliseconds = max(1, round(ttl_seconds * 1000))
        self._timeout_seconds = timeout_seconds
        # By default the client tries three more times, with waits of up to ten seconds.
        pool = redis.BlockingConnectionPool.from_url(
            url,
            max_connections=connections,
            timeout=timeout_seconds,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
        )
        self._client = redis.Redis(connection_pool=pool)

    async def get(self, key: str) -> str | None:
        """The answer under a key, or None."""
        found = await self._run(self._client.get(_REDIS_PREFIX + key))
        return None if found is None else str(found)

    async def put(self, key: str, answer: str) -> None:
        """Keep an answer under a key."""
        await self._run(self._client.set(_REDIS_PREFIX + key, answer, px=self._ttl_milliseconds))

    async def entries(self) -> int:
        """How many keys the Redis database holds."""
        return int(await self._run(self._client.dbsize()))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose(close_connection_pool=True)

    async def _run(self, command: Awaitable[_Result]) -> _Result:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await command
        except TimeoutError:
            raise CacheError(f"Redis did not answer in {self._timeout_seconds:g} s") from None
        except (RedisError, OSError, UnicodeDecodeError) as error:
            raise CacheError(f"Redis: {type(error).__name__}") from None


class RestingTier:
    """A tier that is left alone for a while after it has failed.

    Without it every query waits for the time-out of a tier that is down. One warning is logged for a
    failure, and one line when the tier is back.
    """

    def __init__(
        self, tier: Tier, *, rest_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tier = tier
        self._rest_seconds = rest_seconds
        self._clock = clock
        self._resting_until = 0.0
        self._problem: str | None = None
        self._writes: set[asyncio.Task[None]] = set()

    @property
    def name(self) -> str:
        """The tier's name."""
        return self._tier.name

    @property
    def problem(self) -> str | None:
        """Why the tier could not be asked the last time, or None when it could."""
        return self._problem

    async def get(self, key: str) -> str | None:
        """The answer under a key, or None.

        Raises:
            CacheError: the tier has just failed, or fails now.
        """
        return await self._guarded(lambda: self._tier.get(key))

    async def put(self, key: str, answer: str) -> None:
        """Keep an answer under a key.

        Raises:
            CacheError: the tier has just failed, or fails now.
        """
        await self._guarded(lambda: self._tier.put(key, answer))

    def put_soon(self, key: str, answer: str) -> None:
        """Keep an answer under a key without being waited for.

        A write that fails, or is one too many for a tier that hangs, is passed over: it will be a miss.
        """
        if len(self._writes) < _WRITES_AT_ONCE:
            write = asyncio.create_task(self._put_or_log(key, answer))
            self._writes.add(write)
            write.add_done_callback(self._writes.discard)

    async def entries(self) -> int:
        """How many answers the tier holds.

        Raises:
            CacheError: the tier has just failed, or fails now.
        """
        return await self._guarded(self._tier.entries)

    async def close(self) -> None:
        """Close the tier; writes that are under way are given up."""
        writes = tuple(self._writes)
        for write in writes:
            write.cancel()
        await asyncio.gather(*writes, return_exceptions=True)
        await self._tier.close()

    async def _put_or_log(self, key: str, answer: str) -> None:
        try:
            await self.put(key, answer)
        except CacheError:
            pass  # has been logged, once for all writes that fail
        except Exception as error:  # noqa: BLE001 - nobody waits for this task who could be told
            _log.error("an answer could not be written to cache %s: %s", self.name, describe(error))

    async def _guarded(self, work: Callable[[], Awaitable[_Result]]) -> _Result:
        if self._problem is not None and self._clock() < self._resting_until:
            raise CacheError(self._problem)
        try:
            result = await work()
        except CacheError as error:
            if self._problem is None:
                _log.warning("cache %s cannot be used, queries go on without it: %s", self.name, error)
            self._problem = str(error)
            self._resting_until = self._clock() + self._rest_seconds
            raise
        if self._problem is not None:
            _log.info("cache %s can be used again", self.name)
            self._problem = None
        return result


async def keep(tiers: Sequence[RestingTier], key: str, answer: str) -> None:
    """Write an answer into several tiers: into memory now, into those that may be slow while nobody waits.

    Nothing is awaited that could take time, so whoever asks the same afterwards finds it in memory.
    """
    for tier in tiers:
        if tier.name == MemoryTier.name:
            await tier.put(key, answer)
        else:
            tier.put_soon(key, answer)
