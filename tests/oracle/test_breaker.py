from __future__ import annotations

import asyncio
import time
import traceback
from typing import TYPE_CHECKING

import pytest
from cmo_oracle.breaker import Breaker, BreakerOpenError
from purgatory.domain.model import OpenedState

from .waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

RECOVERY_SECONDS = 0.2


class Harness:
    """One breaker, the states it has announced, and calls whose end the test decides."""

    def __init__(self, *, threshold: int = 3, recovery_seconds: float = RECOVERY_SECONDS) -> None:
        self.states: list[str] = []
        self.breaker = Breaker(
            "lightrag",
            failure_threshold=threshold,
            recovery_seconds=recovery_seconds,
            on_state=self.states.append,
            not_failures=lambda error: isinstance(error, LookupError),
        )
        self.entered = 0

    async def call(self, end: asyncio.Future[None] | None = None, error: Exception | None = None) -> None:
        async with self.breaker.guard():
            self.entered += 1
            if end is not None:
                await end
            if error is not None:
                raise error

    async def fail(self, times: int, error: Callable[[], Exception] = RuntimeError) -> None:
        for _ in range(times):
            raised = error()
            with pytest.raises(type(raised)):
                await self.call(error=raised)

    async def until_admitted(self) -> None:
        """Wait until an open breaker is ready for a probe, without sending one."""
        context = (await self.breaker._factory.get_breaker("lightrag")).context
        opened_at = context.opened_at
        assert opened_at is not None
        await until(lambda: time.time() > opened_at + context.ttl)


async def begin(
    harness: Harness, end: asyncio.Future[None], error: Exception | None = None
) -> asyncio.Task[None]:
    """Start a call and return once it is inside, or has been refused."""
    before = harness.entered
    task = asyncio.create_task(harness.call(end, error))
    await until(lambda: harness.entered > before or task.done())
    return task


async def test_opens_at_the_threshold_and_refuses() -> None:
    harness = Harness()
    await harness.fail(2)
    assert harness.breaker.state == "closed"
    await harness.fail(1)
    assert harness.states == ["closed", "open"]
    with pytest.raises(BreakerOpenError) as refused:
        await harness.call()
    assert refused.value.state == "open"
    assert harness.entered == 3


async def test_a_success_in_between_starts_the_count_again() -> None:
    harness = Harness()
    await harness.fail(2)
    await harness.call()
    await harness.fail(2)
    assert harness.breaker.state == "closed"


async def test_time_outs_are_failures() -> None:
    harness = Harness()
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with harness.breaker.guard(), asyncio.timeout(0):
                await asyncio.sleep(60)
    assert harness.breaker.state == "open"


async def test_an_exception_that_shows_the_component_working_is_no_failure() -> None:
    harness = Harness()
    await harness.fail(5, LookupError)
    assert harness.breaker.state == "closed"


async def test_half_open_lets_exactly_one_of_many_concurrent_calls_through() -> None:
    harness = Harness()
    await harness.fail(3)
    await harness.until_admitted()
    end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    before = harness.entered
    calls = [asyncio.create_task(harness.call(end)) for _ in range(50)]
    done, waiting = await asyncio.wait(calls, timeout=30, return_when=asyncio.FIRST_COMPLETED)
    while len(done) < 49:
        finished, waiting = await asyncio.wait(waiting, timeout=30, return_when=asyncio.FIRST_COMPLETED)
        assert finished, f"only {len(done)} of 49 calls were refused"
        done |= finished
    assert harness.entered - before == 1
    assert {getattr(call.exception(), "state", None) for call in done} == {"half_open"}
    assert harness.states == ["closed", "open", "half_open"]
    end.set_result(None)
    await asyncio.gather(*waiting)
    assert harness.states[-1] == "closed"
    await harness.call()


async def test_a_failing_probe_opens_it_again() -> None:
    harness = Harness()
    await harness.fail(3)
    await harness.until_admitted()
    await harness.fail(1)
    assert harness.states == ["closed", "open", "half_open", "open"]
    with pytest.raises(BreakerOpenError):
        await harness.call()


async def test_cancelled_calls_decide_nothing() -> None:
    harness = Harness()
    end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    await harness.fail(2)
    for _ in range(5):
        task = await begin(harness, asyncio.get_running_loop().create_future())
        task.cancel()
        await asyncio.wait([task])
    assert harness.breaker.state == "closed"
    await harness.fail(1)  # the two failures before have not been forgotten either
    assert harness.breaker.state == "open"
    end.cancel()


async def test_a_cancelled_probe_neither_closes_it_nor_blocks_the_next() -> None:
    harness = Harness()
    await harness.fail(3)
    await harness.until_admitted()
    probe = await begin(harness, asyncio.get_running_loop().create_future())
    probe.cancel()
    await asyncio.wait([probe])
    assert harness.breaker.state == "half_open"
    await harness.call()
    assert harness.breaker.state == "closed"


@pytest.mark.parametrize("error", [None, RuntimeError("late")])
async def test_calls_from_before_it_opened_do_not_decide_for_the_probe(error: Exception | None) -> None:
    harness = Harness()
    old_end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    probe_end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    old = await begin(harness, old_end, error)
    await harness.fail(3)
    await harness.until_admitted()
    probe = await begin(harness, probe_end)
    old_end.set_result(None)
    await asyncio.wait([old])
    assert harness.breaker.state == "half_open"
    with pytest.raises(BreakerOpenError):
        await harness.call()
    probe_end.set_result(None)
    await probe
    assert harness.breaker.state == "closed"


async def test_refusals_do_not_pile_up_in_a_traceback() -> None:
    harness = Harness(recovery_seconds=600)
    await harness.fail(3)
    for _ in range(20):
        with pytest.raises(BreakerOpenError):
            await harness.call()
    state = (await harness.breaker._factory.get_breaker("lightrag")).context._state
    assert isinstance(state, OpenedState)
    assert len(traceback.extract_tb(state.__traceback__)) <= 1
