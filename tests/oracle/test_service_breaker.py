"""LightRAG's circuit breaker in the running service: opened by failures, one probe, closed by a success."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from .running import RunningService
from .waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .running import Stub

THRESHOLD = 3
RECOVERY_SECONDS = 0.5
CROWD = 15

_numbers = iter(range(1_000_000))


def fresh() -> str:
    return f"What raises uric acid in gout, case {next(_numbers)}?"


@pytest.fixture
def service(tmp_path: Path, upstream: Stub, fallback: Stub, index_folder: Path) -> Iterator[RunningService]:
    changes = (
        "query.deadline_seconds=120.0",
        "lightrag.timeout_seconds=4.0",
        "lightrag.model_timeout_seconds=60.0",
        f"lightrag.breaker={{failure_threshold: {THRESHOLD}, recovery_seconds: {RECOVERY_SECONDS}}}",
        "perplexity.timeout_seconds=60.0",
    )
    running = RunningService(tmp_path, upstream, fallback, index=index_folder, changes=changes)
    with running.process:
        yield running


async def state(service: RunningService) -> str:
    samples = await service.samples()
    states = [
        dict(labels)["state"]
        for (name, labels), value in samples.items()
        if name == "cmo_circuit_breaker_state" and dict(labels)["component"] == "lightrag" and value == 1.0
    ]
    assert len(states) == 1
    return states[0]


async def recovered(since: float) -> None:
    await until(lambda: time.monotonic() > since + 2 * RECOVERY_SECONDS)


async def test_it_opens_lets_one_probe_through_and_closes(service: RunningService, upstream: Stub) -> None:
    upstream.fail("error")
    for _ in range(THRESHOLD - 1):
        assert (await service.trail(fresh()))["breaker"] == "closed"
    opening = await service.trail(fresh())
    assert opening["breaker"] == "open"
    assert opening["fallbacks"] == [["lightrag", "perplexity", "api_error"]]
    assert await state(service) == "open"

    upstream.fail("timeout")
    await recovered(time.monotonic())
    crowd = await asyncio.gather(*(service.trail(fresh()) for _ in range(CROWD)))
    reasons = Counter(trail["fallbacks"][0][2] for trail in crowd)
    assert reasons == {"api_timeout": 1, "circuit_breaker_open": CROWD - 1}
    assert await state(service) == "open", "the probe timed out, and a time-out is a failure"
    refused = {"component": "lightrag", "state": "half_open"}
    assert await service.value("cmo_circuit_breaker_rejections_total", **refused) == CROWD - 1

    upstream.fail(None)
    await recovered(time.monotonic())
    closing = await service.trail(fresh())
    assert (closing["source"], closing["breaker"]) == ("lightrag", "closed")
    for reached, times in (("open", 2), ("half_open", 2), ("closed", 1)):
        labels = {"component": "lightrag", "state": reached}
        assert await service.value("cmo_circuit_breaker_transitions_total", **labels) == times


async def test_users_who_leave_do_not_open_it(service: RunningService, upstream: Stub) -> None:
    upstream.fail("timeout")
    for _ in range(THRESHOLD + 1):
        asking = asyncio.create_task(service.ask(fresh()))
        await until(lambda: upstream.in_flight() > 0)
        asking.cancel()
        await asyncio.wait([asking])
        await until(lambda: upstream.in_flight() == 0)
    cancelled = {"scenario": "live", "outcome": "cancelled"}
    assert await service.value("cmo_queries_total", **cancelled) == THRESHOLD + 1
    assert await state(service) == "closed"
    upstream.fail(None)
    assert (await service.trail(fresh()))["source"] == "lightrag"
