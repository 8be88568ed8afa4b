"""purgatory's breakers as they go through all of their states."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from cmo_exporter.adapters import instrument_purgatory
from purgatory import AsyncCircuitBreakerFactory, SyncCircuitBreakerFactory
from purgatory.domain.model import OpenedState

if TYPE_CHECKING:
    from cmo_exporter import Exporter

    from .readings import Readings

TRANSITIONS = ("cmo_circuit_breaker_transitions_total", "lightrag")
REJECTIONS = ("cmo_circuit_breaker_rejections_total", "lightrag")
STATE = ("cmo_circuit_breaker_state", "lightrag")
NEVER = 1e9
AT_ONCE = -1.0  # seconds for which it stays open


class BrokenError(Exception):
    """What is guarded does not work."""


async def fail(factory: AsyncCircuitBreakerFactory) -> None:
    with pytest.raises(BrokenError):
        async with await factory.get_breaker("engine"):
            raise BrokenError


def instrumented(adapted: Exporter, ttl: float) -> AsyncCircuitBreakerFactory:
    factory = AsyncCircuitBreakerFactory(default_threshold=2, default_ttl=ttl)
    measured = instrument_purgatory(factory, adapted, components={"engine": "lightrag"})
    assert instrument_purgatory(measured, adapted) is factory
    return measured


async def test_a_breaker_is_seen_in_every_state_and_its_refusals_are_counted(
    adapted: Exporter, readings: Readings
) -> None:
    factory = instrumented(adapted, NEVER)
    await fail(factory)
    assert readings.now(*STATE, "closed") == 1
    await fail(factory)
    assert readings.added("cmo_circuit") == {
        (*TRANSITIONS, "open"): 1,
        (*STATE, "open"): 1,
    }
    for _ in range(3):
        with pytest.raises(OpenedState):
            async with await factory.get_breaker("engine"):
                pytest.fail("an open breaker lets nobody in")
    assert readings.added("cmo_circuit") == {(*REJECTIONS, "open"): 3}


async def test_a_half_open_breaker_is_seen_while_its_probe_is_under_way(
    adapted: Exporter, readings: Readings
) -> None:
    factory = instrumented(adapted, AT_ONCE)
    await fail(factory)
    await fail(factory)
    readings.added()
    async with await factory.get_breaker("engine"):
        assert readings.added("cmo_circuit") == {
            (*TRANSITIONS, "half_open"): 1,
            (*STATE, "half_open"): 1,
            (*STATE, "open"): -1,
        }
    assert readings.added("cmo_circuit") == {
        (*TRANSITIONS, "closed"): 1,
        (*STATE, "closed"): 1,
        (*STATE, "half_open"): -1,
    }


async def test_many_at_once_make_each_transition_once(adapted: Exporter, readings: Readings) -> None:
    factory = instrumented(adapted, AT_ONCE)
    await fail(factory)
    await fail(factory)
    readings.added()
    together = asyncio.Barrier(20)

    async def probe() -> None:
        async with await factory.get_breaker("engine"):
            await together.wait()

    await asyncio.gather(*(probe() for _ in range(20)))
    assert readings.added("cmo_circuit_breaker_transitions") == {
        (*TRANSITIONS, "half_open"): 1,
        (*TRANSITIONS, "closed"): 1,
    }


async def test_the_decorator_and_a_circuit_without_another_name(
    adapted: Exporter, readings: Readings
) -> None:
    factory: Any = instrument_purgatory(AsyncCircuitBreakerFactory(default_threshold=1), adapted)

    async def fails() -> None:
        raise BrokenError

    broken = factory("llm")(fails)
    with pytest.raises(BrokenError):
        await broken()
    with pytest.raises(OpenedState):
        await broken()
    assert readings.now("cmo_circuit_breaker_state", "llm", "open") == 1
    assert readings.now("cmo_circuit_breaker_rejections_total", "llm", "open") == 1


def test_the_synchronous_breakers_are_measured_alike(adapted: Exporter, readings: Readings) -> None:
    factory: Any = instrument_purgatory(SyncCircuitBreakerFactory(default_threshold=1), adapted)

    def fails() -> None:
        raise BrokenError

    call = factory("llm")(fails)
    with pytest.raises(BrokenError):
        call()
    with pytest.raises(OpenedState):
        call()
    assert readings.added("cmo_circuit") == {
        ("cmo_circuit_breaker_transitions_total", "llm", "open"): 1,
        ("cmo_circuit_breaker_rejections_total", "llm", "open"): 1,
        ("cmo_circuit_breaker_state", "llm", "open"): 1,
    }


async def test_listeners_of_the_service_hear_what_they_did(adapted: Exporter) -> None:
    heard: list[str] = []
    factory = instrumented(adapted, NEVER)
    factory.add_listener(lambda _name, kind, _event: heard.append(kind))
    await fail(factory)
    await fail(factory)
    assert heard == ["circuit_breaker_created", "failed", "failed", "state_changed"]
