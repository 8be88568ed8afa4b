"""Why a query was slow is told by its line in the query log alone, and by how much.

Each test makes exactly one cause: waiting for a turn, a slow component, retries, or an open breaker with a
fallback. The cause ends once it has lasted longer than all that went before it. It is then looked for in the
line, as whoever is on call would look for it, and its size is held against what the service itself measured.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import TYPE_CHECKING, Any

import pytest
from cmo_exporter import Exporter, ExporterSettings
from cmo_exporter.adapters import instrument_purgatory
from cmo_exporter.query_log import LOGGER
from purgatory import AsyncCircuitBreakerFactory
from purgatory.domain.model import OpenedState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from cmo_exporter import Query

    Answer = Callable[["Asked"], Coroutine[Any, Any, None]]

ROUNDING = 1e-5
LEAST_SECONDS = 0.1
TIMES = 4
"""So many times as long as all before it a cause lasts."""


class EngineError(Exception):
    """The engine does not answer."""


class Lines(logging.Handler):
    """Keeps the lines."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.all.append(json.loads(record.getMessage()))


class Asked:
    """A query while it is answered, and what its cause has taken by the service's own clock."""

    def __init__(self, exporter: Exporter, query: Query) -> None:
        self.exporter = exporter
        self.query = query
        self.began = time.monotonic()
        self.cause_seconds = 0.0

    async def last_longest(self) -> None:
        """Be slow: longer than all that this query has done up to now."""
        began = time.monotonic()
        await asyncio.sleep(max(LEAST_SECONDS, TIMES * (began - self.began - self.cause_seconds)))
        self.cause_seconds += time.monotonic() - began


async def line_of(exporter: Exporter, lines: Lines, answer: Answer) -> tuple[dict[str, Any], Asked]:
    """The line of a query that is answered in this way, after a look-up that takes no time."""
    before = time.monotonic()
    with exporter.query() as query:
        asked = Asked(exporter, query)
        with query.component("cache_l1"):
            query.cache_request("l1", "miss")
        query.cache_result("miss")
        await answer(asked)
        query.answered("lightrag")
    elapsed = time.monotonic() - before
    exporter.close()  # which writes what waits
    line = lines.all[-1]
    assert asked.cause_seconds - ROUNDING <= line["duration_seconds"] <= elapsed + ROUNDING
    return line, asked


def explained(line: dict[str, Any]) -> dict[str, float]:
    """Seconds by what they were spent on, as the line tells it: waiting, failing, or work of a component."""
    found: dict[str, float] = {}

    def add(what: str, seconds: float) -> None:
        found[what] = found.get(what, 0.0) + seconds

    for component, seconds in line["queue_wait_seconds"].items():
        add(f"queue of {component}", seconds)
        add(f"work of {component}", -seconds)  # which a call includes
    for call in line["components"]:
        tried_again = call["outcome"] != "success" and call["component"] in line["retries"]
        add(f"{'failures' if tried_again else 'work'} of {call['component']}", call["duration_seconds"])
    return found


def holds(line: dict[str, Any], asked: Asked, cause: str) -> None:
    """The line names this as the largest part of the query, and tells its size."""
    parts = explained(line)
    assert max(parts, key=lambda part: parts[part]) == cause, parts
    assert asked.cause_seconds - ROUNDING <= parts[cause] <= line["duration_seconds"] + ROUNDING
    assert sum(parts.values()) <= line["duration_seconds"] + ROUNDING, "no second is told twice"


@pytest.fixture
async def lines() -> AsyncIterator[Lines]:
    """A handler of the service's choice."""
    handler, logger = Lines(), logging.getLogger(LOGGER)
    logger.addHandler(handler)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)


@pytest.fixture
def logging_exporter() -> Exporter:
    return Exporter(ExporterSettings(components=("cache_l1", "lightrag", "perplexity"), query_log=True))


async def test_waiting_for_a_turn(logging_exporter: Exporter, lines: Lines) -> None:
    turn = asyncio.Lock()  # real: another query has it
    waits = asyncio.Event()

    async def answer(asked: Asked) -> None:
        with asked.query.component("lightrag"):
            async with asyncio.TaskGroup() as group:
                await turn.acquire()
                group.create_task(hold(asked))
                began = time.monotonic()
                waits.set()
                await turn.acquire()
                asked.exporter.queue_wait("lightrag", time.monotonic() - began)
            turn.release()

    async def hold(asked: Asked) -> None:
        await waits.wait()
        await asked.last_longest()
        turn.release()

    line, asked = await line_of(logging_exporter, lines, answer)
    holds(line, asked, "queue of lightrag")
    assert list(line["queue_wait_seconds"]) == ["lightrag"]
    assert line["retries"] == {}
    assert line["fallbacks"] == line["breaker_rejections"] == []


async def test_a_slow_component(logging_exporter: Exporter, lines: Lines) -> None:
    async def answer(asked: Asked) -> None:
        with asked.query.component("lightrag"):
            await asked.last_longest()

    line, asked = await line_of(logging_exporter, lines, answer)
    holds(line, asked, "work of lightrag")
    (call,) = [call for call in line["components"] if call["component"] == "lightrag"]
    assert call["outcome"] == "success"
    assert line["queue_wait_seconds"] == line["retries"] == {}
    assert line["fallbacks"] == line["breaker_rejections"] == []


async def test_retries(logging_exporter: Exporter, lines: Lines) -> None:
    failures = iter((True, True, False))

    @logging_exporter.observe_component("lightrag")
    async def engine(asked: Asked) -> None:
        if next(failures):
            await asked.last_longest()
            raise EngineError

    async def answer(asked: Asked) -> None:
        while True:
            try:
                await engine(asked)
            except EngineError:
                asked.exporter.retry("lightrag")
            else:
                return

    line, asked = await line_of(logging_exporter, lines, answer)
    holds(line, asked, "failures of lightrag")
    assert line["retries"] == {"lightrag": 2}
    outcomes = [call["outcome"] for call in line["components"] if call["component"] == "lightrag"]
    assert outcomes == ["error", "error", "success"]
    assert line["queue_wait_seconds"] == {}
    assert line["fallbacks"] == line["breaker_rejections"] == []


async def test_an_open_breaker_and_a_fallback(logging_exporter: Exporter, lines: Lines) -> None:
    factory = instrument_purgatory(
        AsyncCircuitBreakerFactory(default_threshold=1, default_ttl=1e9),
        logging_exporter,
        components={"engine": "lightrag"},
    )
    with pytest.raises(EngineError):  # of an earlier query
        async with await factory.get_breaker("engine"):
            raise EngineError

    async def answer(asked: Asked) -> None:
        with pytest.raises(OpenedState):
            async with await factory.get_breaker("engine"):
                pytest.fail("an open breaker lets nobody in")
        asked.query.fallback(source="lightrag", target="perplexity", reason="circuit_breaker_open")
        with asked.query.component("perplexity"):
            await asked.last_longest()

    line, asked = await line_of(logging_exporter, lines, answer)
    holds(line, asked, "work of perplexity")
    assert line["breakers"] == {"lightrag": "open"}
    assert line["breaker_rejections"] == [{"component": "lightrag", "state": "open"}]
    (fallback,) = line["fallbacks"]
    assert fallback == {"source": "lightrag", "target": "perplexity", "reason": "circuit_breaker_open"}
    assert [call["component"] for call in line["components"]] == ["cache_l1", "perplexity"]
    assert line["queue_wait_seconds"] == line["retries"] == {}
