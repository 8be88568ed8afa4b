"""redis-py against a real Redis, synchronous and asynchronous."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import redis
from cmo_exporter.adapters import instrument_redis
from cmo_stack import servers
from cmo_stack.free_ports import free_port
from cmo_stack.process import ManagedProcess
from redis.asyncio import Redis as AsyncRedis
from redis.backoff import NoBackoff
from redis.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cmo_exporter import Exporter

    from .readings import Readings

LOOK_UPS = ("cmo_cache_requests_total", "live", "l3")
CALLS = ("cmo_component_calls_total", "live", "cache_l3")
COUNTED = ("cmo_cache", "cmo_component_calls", "cmo_component_in_progress", "cmo_instrumentation_errors")


@dataclass
class Server:
    """A real Redis, which can be made to hang."""

    process: ManagedProcess
    port: int

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """It takes connections and commands, and answers none."""
        os.kill(self.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.process.pid, signal.SIGCONT)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Redis that keeps nothing."""
    found = servers.newest("redis-server")
    folder = tmp_path_factory.mktemp("redis")
    free = free_port()
    options = ("--port", str(free), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder))

    def answers() -> bool:
        with contextlib.suppress(redis.RedisError), plain_client(free) as client:
            return bool(client.ping())
        return False

    process = ManagedProcess(
        found.label,
        [str(found.path), *options],
        log_path=folder / "redis.log",
        ready=answers,
        environment=found.environment,
    )
    with process:
        yield Server(process, free)


def plain_client(port: int, **options: Any) -> redis.Redis:
    """Without the attempts that the client makes by itself, which take seconds."""
    return redis.Redis(host="127.0.0.1", port=port, retry=Retry(NoBackoff(), 0), **options)


@pytest.fixture
def client(server: Server, adapted: Exporter) -> Iterator[redis.Redis]:
    with plain_client(server.port) as plain:
        plain.flushall()
        measured = instrument_redis(plain, adapted, tier="l3", prefix="answer:", component="cache_l3")
        assert instrument_redis(measured, adapted, tier="l3") is plain
        yield measured


def test_look_ups_are_hits_and_misses_and_every_command_is_timed(
    client: redis.Redis, readings: Readings
) -> None:
    assert client.get("answer:1") is None
    assert readings.added(*COUNTED) == {(*LOOK_UPS, "miss"): 1, (*CALLS, "success"): 1}
    assert client.set("answer:1", "yes") is True
    assert readings.added(*COUNTED) == {(*CALLS, "success"): 1}
    assert client.get(b"answer:1") == b"yes"
    assert readings.added(*COUNTED) == {(*LOOK_UPS, "hit"): 1, (*CALLS, "success"): 1}


def test_an_empty_answer_is_a_hit(client: redis.Redis, readings: Readings) -> None:
    client.set("answer:empty", "")
    assert client.get("answer:empty") == b""
    assert readings.added("cmo_cache") == {(*LOOK_UPS, "hit"): 1}


def test_many_values_at_once_are_as_many_look_ups_and_only_the_caches_keys_count(
    client: redis.Redis, readings: Readings
) -> None:
    client.set("answer:1", "yes")
    client.hset("answer:h", "field", "yes")
    client.set("session:1", "somebody")
    readings.added()
    assert client.mget(["answer:1", "session:1", "answer:2"]) == [b"yes", b"somebody", None]
    assert client.hget("answer:h", "other") is None
    assert client.get("session:1") == b"somebody"
    assert readings.added(*COUNTED) == {
        (*LOOK_UPS, "hit"): 1,
        (*LOOK_UPS, "miss"): 2,
        (*CALLS, "success"): 2,
    }


def test_a_redis_that_is_gone_is_an_error_and_no_miss(adapted: Exporter, readings: Readings) -> None:
    gone = instrument_redis(plain_client(free_port()), adapted, tier="l3", component="cache_l3")
    with pytest.raises(redis.ConnectionError):
        gone.get("answer:1")
    with pytest.raises(redis.ConnectionError):
        gone.set("answer:1", "yes")
    assert readings.added(*COUNTED) == {(*LOOK_UPS, "error"): 1, (*CALLS, "error"): 2}


def test_a_redis_that_hangs_is_an_error_and_its_call_a_timeout(
    server: Server, adapted: Exporter, readings: Readings
) -> None:
    with plain_client(server.port, socket_timeout=0.2) as impatient:
        instrument_redis(impatient, adapted, tier="l3", component="cache_l3")
        with server.hanging(), pytest.raises(redis.TimeoutError):
            impatient.get("answer:1")
    assert readings.added(*COUNTED) == {(*LOOK_UPS, "error"): 1, (*CALLS, "timeout"): 1}


def test_a_value_that_cannot_be_looked_up_is_an_error(client: redis.Redis, readings: Readings) -> None:
    client.rpush("answer:list", "x")
    readings.added()
    with pytest.raises(redis.ResponseError):
        client.get("answer:list")
    assert readings.added("cmo_cache") == {(*LOOK_UPS, "error"): 1}


async def test_the_asynchronous_client_is_measured_alike(
    server: Server, adapted: Exporter, readings: Readings
) -> None:
    async with AsyncRedis(host="127.0.0.1", port=server.port) as plain:
        client = instrument_redis(plain, adapted, tier="l3", component="cache_l3")
        with adapted.query("clinical_rush"):
            assert await client.get("answer:async") is None
            await client.set("answer:async", "yes")
            assert await client.get("answer:async") == b"yes"
        assert readings.added(*COUNTED) == {
            ("cmo_cache_requests_total", "clinical_rush", "l3", "miss"): 1,
            ("cmo_cache_requests_total", "clinical_rush", "l3", "hit"): 1,
            ("cmo_component_calls_total", "clinical_rush", "cache_l3", "success"): 3,
        }
        with server.hanging():
            asking = asyncio.ensure_future(client.get("answer:async"))
            while not readings.now("cmo_component_in_progress", "cache_l3"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            # More than once: before Python 3.12 `asyncio.wait_for`, by which the command is sent, loses a
            # cancellation that comes just as it has been.
            while not asking.done():
                asking.cancel()
                await asyncio.sleep(0.01)
            with pytest.raises(asyncio.CancelledError):
                await asking
        assert readings.added(*COUNTED) == {(*CALLS, "cancelled"): 1}


async def test_an_error_of_the_asynchronous_client_ends_its_call(
    server: Server, adapted: Exporter, readings: Readings
) -> None:
    async with AsyncRedis(host="127.0.0.1", port=server.port) as plain:
        client = instrument_redis(plain, adapted, tier="l3", component="cache_l3")
        await client.rpush("answer:async list", "x")
        readings.added()
        with pytest.raises(redis.ResponseError):
            await client.get("answer:async list")
    assert readings.added(*COUNTED) == {(*LOOK_UPS, "error"): 1, (*CALLS, "error"): 1}
    assert readings.now("cmo_component_in_progress", "cache_l3") == 0
