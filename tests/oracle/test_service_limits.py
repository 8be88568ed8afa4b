"""Limits of the running service: the deadline, the number of queries at once, and a cache that is damaged."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from typing import TYPE_CHECKING

import httpx
import pytest

from .running import RunningService
from .waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .running import Stub

AT_ONCE = 2
DEADLINE_SECONDS = 2.0

_numbers = iter(range(1_000_000))


def fresh() -> str:
    return f"What does citrulline say about gut mass, case {next(_numbers)}?"


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory,
    upstream_process: Stub,
    fallback_process: Stub,
    index_folder: Path,
) -> Iterator[RunningService]:
    changes = (
        f"query={{deadline_seconds: {DEADLINE_SECONDS}, at_once: {AT_ONCE}, characters: 200}}",
        "cache.l2.timeout_seconds=30.0",
        "lightrag.timeout_seconds=1.0",
        "perplexity.timeout_seconds=60.0",
    )
    folder = tmp_path_factory.mktemp("limits")
    running = RunningService(folder, upstream_process, fallback_process, index=index_folder, changes=changes)
    running.cache_file.parent.mkdir()
    running.cache_file.write_bytes(b"this is no database\n" * 500)
    with running.process:
        yield running


async def test_a_damaged_cache_file_breaks_no_query(service: RunningService) -> None:
    trail = await service.trail(fresh())
    assert (trail["outcome"], trail["source"], trail["cache"]) == ("success", "lightrag", "miss")
    assert trail["tiers"] == [["l1", "miss"], ["l2", "error"]]
    async with service.client() as client:
        readiness = await client.get("/readyz")
    assert readiness.status_code == 200
    assert readiness.json()["degraded"] == ["cache_l2"]


@pytest.mark.parametrize("stream", [False, True])
async def test_the_deadline_ends_a_query_as_a_time_out(
    service: RunningService, upstream: Stub, fallback: Stub, *, stream: bool
) -> None:
    upstream.fail("timeout")
    fallback.fail("timeout")
    timed_out = {"scenario": "live", "outcome": "timeout"}
    before = await service.value("cmo_queries_total", **timed_out)
    response = await service.ask(fresh(), stream=stream)
    assert response.status_code == 504
    trail = response.json()["trail"]
    assert (trail["outcome"], trail["source"], trail["cache"]) == ("timeout", None, "miss")
    assert trail["fallbacks"] == [["lightrag", "perplexity", "api_timeout"]]
    assert await service.value("cmo_queries_total", **timed_out) == before + 1


async def test_queries_above_the_limit_are_refused_before_any_work(
    service: RunningService, upstream: Stub, fallback: Stub
) -> None:
    upstream.fail("timeout")
    fallback.fail("timeout")
    lookups = {"scenario": "live", "tier": "l1", "result": "miss"}
    before = await service.value("cmo_cache_requests_total", **lookups)
    responses = await asyncio.gather(*(service.ask(fresh(), stream=number % 2 == 0) for number in range(8)))
    assert Counter(response.status_code for response in responses) == {503: 8 - AT_ONCE, 504: AT_ONCE}
    refused = next(response for response in responses if response.status_code == 503)
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["trail"] == {
        "outcome": "rejected",
        "source": None,
        "cache": "bypass",
        "tiers": [],
        "fallbacks": [],
        "retries": 0,
        "breaker": "closed",
    }
    assert await service.value("cmo_cache_requests_total", **lookups) == before + AT_ONCE


async def test_it_stops_when_asked_even_with_a_query_under_way(
    tmp_path: Path, upstream: Stub, fallback: Stub, index_folder: Path
) -> None:
    changes = ("query.deadline_seconds=600.0", "lightrag.timeout_seconds=600.0")
    running = RunningService(tmp_path, upstream, fallback, index=index_folder, changes=changes)
    with running.process:
        upstream.fail("timeout")
        asking = asyncio.create_task(running.ask(fresh()))
        await until(lambda: upstream.in_flight() > 0)
        process = running.process._process
        assert process is not None
        process.send_signal(signal.SIGTERM)
        await until(lambda: process.poll() is not None)
        assert process.returncode == 0
        assert "Application shutdown complete" in running.log.read_text()
        with pytest.raises(httpx.HTTPError):
            (await asking).raise_for_status()
        await until(lambda: upstream.in_flight() == 0)
