"""Watched streams: everything passes through, and the call ends when its stream does."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import copy
import gc
import inspect
import io
import sqlite3
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cmo_exporter import Exporter, Outcome

from .counted import abandoned, calls, component_calls_in_progress, count, first_tokens, outcomes
from .kinds import run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator

mark: contextvars.ContextVar[str] = contextvars.ContextVar("mark", default="none")


# Generators: everything passes through.


def echo() -> Generator[object, object, str]:
    """Gives back what it is sent and what is thrown at it; 'stop' ends it."""
    given: object = "ready"
    while given != "stop":
        try:
            given = yield given
        except KeyError as error:
            given = error
    return "the end"


async def echo_async() -> Any:
    given: object = "ready"
    while given != "stop":
        try:
            given = yield given
        except KeyError as error:
            given = error
        await asyncio.sleep(0)


def test_send_throw_and_the_return_value_pass_through_a_generator(exporter: Exporter) -> None:
    watched = exporter.observe_component("lightrag")(echo)()
    assert (inspect.isgenerator(watched),) == (True,)  # in a tuple, so that mypy narrows nothing
    assert next(watched) == "ready"
    assert watched.send(5) == 5
    error = KeyError("thrown")
    assert watched.throw(error) is error
    with pytest.raises(StopIteration) as stop:
        watched.send("stop")
    assert stop.value.value == "the end"
    with pytest.raises(StopIteration):
        next(watched)
    assert calls(exporter) == {"success": 1}

    def delegating() -> Iterator[object]:
        got = yield from exporter.observe_component("lightrag")(echo)()
        yield got

    outer = delegating()
    next(outer)
    assert outer.send("stop") == "the end"  # type: ignore[attr-defined]


def test_a_generator_that_cannot_take_what_is_thrown_raises_it(exporter: Exporter) -> None:
    watched = exporter.observe_query(echo)()
    next(watched)
    error = ValueError("thrown")
    with pytest.raises(ValueError, match="thrown") as caught:
        watched.throw(error)
    assert caught.value is error
    watched.close()
    assert outcomes(exporter) == {"error": 1}
    assert abandoned(exporter) == 0


async def test_asend_and_athrow_pass_through_an_async_generator(exporter: Exporter) -> None:
    watched = exporter.observe_component("lightrag")(echo_async)()
    assert (inspect.isasyncgen(watched),) == (True,)
    assert await anext(watched) == "ready"
    assert await watched.asend(5) == 5
    error = KeyError("thrown")
    assert await watched.athrow(error) is error
    with pytest.raises(StopAsyncIteration):
        await watched.asend("stop")
    with pytest.raises(StopAsyncIteration):
        await anext(watched)
    assert calls(exporter) == {"success": 1}


async def test_an_async_generator_that_cannot_take_what_is_thrown_raises_it(exporter: Exporter) -> None:
    watched = exporter.observe_query(echo_async)()
    await anext(watched)
    error = ValueError("thrown")
    with pytest.raises(ValueError, match="thrown") as caught:
        await watched.athrow(error)
    assert caught.value is error
    await watched.aclose()
    assert outcomes(exporter) == {"error": 1}


def test_closing_a_generator_runs_its_cleaning_up_at_once(exporter: Exporter) -> None:
    cleaned: list[bool] = []

    @exporter.observe_query
    def answer() -> Iterator[str]:
        try:
            yield "a"
            yield "b"
        finally:
            cleaned.append(exporter.current_query().in_progress)

    watched = answer()
    next(watched)
    watched.close()  # type: ignore[attr-defined]
    assert cleaned == [True], "while cleaning up, the query is still the current one"
    assert outcomes(exporter) == {"cancelled": 1}
    assert abandoned(exporter) == 1


async def test_closing_an_async_generator_awaits_its_cleaning_up(exporter: Exporter) -> None:
    cleaned: list[bool] = []

    @exporter.observe_query
    async def answer() -> AsyncIterator[str]:
        try:
            yield "a"
            yield "b"
        finally:
            await asyncio.sleep(0)
            cleaned.append(exporter.current_query().in_progress)

    watched = answer()
    await anext(watched)
    await watched.aclose()  # type: ignore[attr-defined]
    assert cleaned == [True]
    assert outcomes(exporter) == {"cancelled": 1}
    assert abandoned(exporter) == 1


def test_a_generator_that_nobody_starts_is_no_query(exporter: Exporter) -> None:
    watched = exporter.observe_query(echo)()
    watched.close()
    assert outcomes(exporter) == {}
    assert count(exporter, "cmo_queries_in_progress", scenario="live") == 0


def test_wrong_arguments_of_a_generator_are_the_callers_error_and_no_query(exporter: Exporter) -> None:
    watched: Any = exporter.observe_query(echo)
    with pytest.raises(TypeError, match="argument"):
        next(watched("one too many"))
    assert outcomes(exporter) == {}
    assert count(exporter, "cmo_queries_in_progress", scenario="live") == 0


# The first piece, and being left in the middle.


@pytest.mark.parametrize("kind", ["generator", "async generator"])
def test_the_first_piece_that_is_one_is_the_first_token(exporter: Exporter, kind: str) -> None:
    seen: list[float] = []

    def pieces() -> Iterator[object]:
        for piece in (None, "", "Gly", "cine"):
            yield piece
            seen.append(first_tokens(exporter))

    async def async_pieces() -> AsyncIterator[object]:
        for piece in pieces():
            yield piece

    function: Callable[[], Any] = pieces if kind == "generator" else async_pieces
    run(kind, exporter.observe_query(classify=lambda _: Outcome("success", "lightrag"))(function))
    assert seen == [0, 0, 1, 1]
    assert outcomes(exporter) == {"success": 1}
    assert abandoned(exporter) == 0


def test_a_stream_that_is_dropped_is_abandoned(exporter: Exporter) -> None:
    watched = exporter.observe_query(echo)()
    next(watched)
    del watched
    gc.collect()
    assert outcomes(exporter) == {"cancelled": 1}
    assert abandoned(exporter) == 1


async def test_an_async_stream_that_is_dropped_is_abandoned(exporter: Exporter) -> None:
    watched = exporter.observe_query(echo_async)()
    await anext(watched)
    del watched
    gc.collect()
    while not outcomes(exporter):  # noqa: ASYNC110 - the loop closes it in a task of its own
        await asyncio.sleep(0)
    assert outcomes(exporter) == {"cancelled": 1}
    assert abandoned(exporter) == 1


@pytest.mark.parametrize("decorate", ["query", "component"])
def test_what_the_garbage_collector_ends_is_not_counted_in_the_middle_of_a_change(
    exporter: Exporter, decorate: str
) -> None:
    """It runs whenever it likes, also in a thread that is just counting something."""
    values = exporter.recorder.ledger._values
    unchanged: list[bool] = []

    def collect_inside() -> None:
        observe = exporter.observe_query if decorate == "query" else exporter.observe_component("lightrag")
        stream = observe(echo)()
        next(stream)
        cycle: list[object] = [stream]
        cycle.append(cycle)
        del stream, cycle
        with values.lock:
            before = list(values.numbers)
            gc.collect()
            unchanged.append(list(values.numbers) == before)

    thread = threading.Thread(target=collect_inside, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive(), "it waits for itself"
    assert unchanged == [True]
    found = outcomes(exporter) if decorate == "query" else calls(exporter)
    assert found == {"cancelled": 1}, "the scrape has caught up"


@pytest.mark.parametrize("pieces", [0, 1])
async def test_a_stream_whose_task_is_cancelled_is_abandoned_if_a_piece_was_seen(
    exporter: Exporter, pieces: int
) -> None:
    waiting = asyncio.Event()

    @exporter.observe_query
    async def answer() -> AsyncIterator[str]:
        for _ in range(pieces):
            yield "a"
        waiting.set()
        await asyncio.Event().wait()
        yield "b"

    async def consume() -> None:
        async for _ in answer():
            pass

    task = asyncio.create_task(consume())
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert outcomes(exporter) == {"cancelled": 1}
    assert abandoned(exporter) == pieces


# Streams that a function returns, as LightRAG's `aquery` does.


async def pieces_of_an_answer() -> AsyncIterator[str]:
    yield "Gly"
    yield "cine"


async def test_a_call_that_returns_a_stream_ends_with_the_stream(exporter: Exporter) -> None:
    @exporter.observe_query(classify=lambda _: Outcome("success", "lightrag"))
    @exporter.observe_component("lightrag")
    async def aquery() -> AsyncIterator[str]:
        return pieces_of_an_answer()

    stream = await aquery()
    assert not exporter.current_query().in_progress, "the query is the stream's now, not the consumer's"
    assert outcomes(exporter) == {}
    assert component_calls_in_progress(exporter) == 1
    assert [piece async for piece in stream] == ["Gly", "cine"]
    assert outcomes(exporter) == {"success": 1}
    assert calls(exporter) == {"success": 1}
    assert first_tokens(exporter) == 1
    assert component_calls_in_progress(exporter) == 0


async def test_what_a_call_sets_in_its_context_stays_and_what_its_query_sets_goes(exporter: Exporter) -> None:
    @exporter.observe_query
    async def aquery(within: contextvars.ContextVar[str]) -> AsyncIterator[str]:
        within.set("the body's")
        return pieces_of_an_answer()

    for outer in (contextlib.nullcontext(), exporter.query()):  # one that is joined, too
        with outer:
            current = exporter.current_query()
            stream = await aquery(mark)
            assert mark.get() == "the body's", "as without the decorator"
            assert exporter.current_query() is current
            assert [piece async for piece in stream] == ["Gly", "cine"]
            assert exporter.current_query() is current


def test_a_plain_function_that_returns_a_stream(exporter: Exporter) -> None:
    @exporter.observe_component("lightrag")
    def query() -> Generator[object, object, str]:
        return echo()

    stream = query()
    assert next(stream) == "ready"
    assert calls(exporter) == {}
    with pytest.raises(StopIteration) as stop:
        stream.send("stop")
    assert stop.value.value == "the end"
    assert calls(exporter) == {"success": 1}


async def test_a_returned_stream_that_nobody_reads_ends_when_it_is_dropped(exporter: Exporter) -> None:
    @exporter.observe_query
    async def aquery() -> AsyncIterator[str]:
        return pieces_of_an_answer()

    stream = await aquery()
    assert count(exporter, "cmo_queries_in_progress", scenario="live") == 1
    del stream
    gc.collect()
    assert outcomes(exporter) == {"cancelled": 1}
    assert abandoned(exporter) == 0, "nothing of it had been seen"


async def test_a_returned_stream_that_is_closed_is_abandoned(exporter: Exporter) -> None:
    @exporter.observe_query
    async def aquery() -> AsyncIterator[str]:
        return pieces_of_an_answer()

    stream = await aquery()
    await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]
    assert outcomes(exporter) == {"cancelled": 1}
    assert abandoned(exporter) == 1


class ClientStream:
    """As clients have them: an iterator with more to it, and a context manager."""

    def __init__(self) -> None:
        self.response = "the response"
        self.left = False
        self._pieces = iter(("Gly", "cine"))

    def __aiter__(self) -> ClientStream:
        return self

    async def __anext__(self) -> str:
        piece = next(self._pieces, None)
        if piece is None:
            raise StopAsyncIteration
        return piece

    async def __aenter__(self) -> ClientStream:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.left = True


async def test_a_clients_stream_keeps_what_else_it_has(exporter: Exporter) -> None:
    inner = ClientStream()

    @exporter.observe_component("lightrag")
    async def ask() -> ClientStream:
        return inner

    async with await ask() as stream:
        assert stream.response == "the response"
        assert await anext(stream) == "Gly"
        with pytest.raises(AttributeError):
            stream.no_such_thing  # type: ignore[attr-defined]  # noqa: B018
    assert inner.left
    assert calls(exporter) == {"cancelled": 1}


# Which query is the current one, for whom.


@pytest.mark.parametrize("kind", ["generator", "async generator"])
def test_the_query_of_a_stream_is_seen_in_its_body_and_nowhere_else(exporter: Exporter, kind: str) -> None:
    seen: list[object] = []

    def pieces() -> Iterator[str]:
        for piece in ("a", "b", "c"):
            seen.append(exporter.current_query())
            mark.set("the body's")
            yield piece

    async def async_pieces() -> AsyncIterator[str]:
        for piece in pieces():
            await asyncio.sleep(0)
            yield piece
            await asyncio.sleep(0)

    async def consume() -> None:
        function: Callable[[], Any] = exporter.observe_query(pieces if kind == "generator" else async_pieces)
        first, second = function(), function()
        for _ in range(3):
            for stream in (first, second):
                await anext(stream) if kind == "async generator" else next(stream)
                assert not exporter.current_query().in_progress
                assert mark.get() == "none"
        with exporter.query() as mine:
            for stream in (first, second):
                if kind == "async generator":
                    assert [piece async for piece in stream] == []
                else:
                    assert list(stream) == []
                assert exporter.current_query() is mine, "the end of a stream is not the end of mine"

    asyncio.run(consume())
    assert len(set(map(id, seen))) == 2
    assert seen[0::2] == [seen[0]] * 3
    assert seen[1::2] == [seen[1]] * 3


async def test_every_piece_may_be_asked_for_by_another_task_or_thread(exporter: Exporter) -> None:
    seen: list[object] = []

    @exporter.observe_query
    async def async_pieces() -> AsyncIterator[str]:
        for piece in ("a", "b"):
            seen.append(exporter.current_query())
            yield piece
        exporter.current_query().answered("lightrag")

    @exporter.observe_query
    def pieces() -> Iterator[str]:
        for piece in ("a", "b"):
            seen.append(exporter.current_query())
            yield piece
        exporter.current_query().answered("lightrag")

    stream = async_pieces()
    got = [await asyncio.create_task(anext(stream, "end")) for _ in range(3)]
    plain = pieces()
    got += [await asyncio.to_thread(next, plain, "end") for _ in range(3)]
    assert got == ["a", "b", "end"] * 2
    assert len(set(map(id, seen))) == 2
    assert outcomes(exporter) == {"success": 2}


async def test_many_streams_at_once_keep_their_queries_apart(exporter: Exporter) -> None:
    @exporter.observe_query
    async def answer(number: int) -> AsyncIterator[int]:
        mine = exporter.current_query()
        for piece in range(5):
            await asyncio.sleep(0)
            assert exporter.current_query() is mine
            await asyncio.to_thread(check, mine)
            yield piece
        mine.answered("lightrag" if number % 2 else "default")

    @exporter.observe_query
    def plain_answer(number: int) -> Iterator[int]:
        mine = exporter.current_query()
        for piece in range(5):
            check(mine)
            yield piece
        mine.answered("lightrag" if number % 2 else "default")

    def check(mine: object) -> None:
        assert exporter.current_query() is mine

    def consume_plain(number: int) -> list[int]:
        return list(plain_answer(number))

    async def consume(number: int) -> list[int]:
        return [piece async for piece in answer(number)]

    found = await asyncio.gather(
        *(consume(number) for number in range(40)),
        *(asyncio.to_thread(consume_plain, number) for number in range(40)),
    )
    assert found == [list(range(5))] * 80
    assert outcomes(exporter) == {"success": 40, "error": 40}


def test_what_happens_to_a_stream_after_its_end_changes_nothing(exporter: Exporter) -> None:
    @exporter.observe_query
    def inner() -> Iterator[str]:
        return iter_once()

    def iter_once() -> Iterator[str]:
        yield "a"

    with exporter.query() as query:
        stream: Any = inner()
        assert list(stream) == ["a"]
        with pytest.raises(TimeoutError):
            stream.throw(TimeoutError())
        query.answered("lightrag")
    assert outcomes(exporter) == {"success": 1}


# Results that bring forth something, too.


class Both:
    """Can be gone through either way: nobody knows which it will be."""

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        raise StopIteration

    def __aiter__(self) -> AsyncIterator[int]:
        return self

    async def __anext__(self) -> int:
        raise StopAsyncIteration


class Cursor(Both):
    """As that of a database's client: it has a length, and its rows a number."""

    __anext__ = None  # type: ignore[assignment]  # not this one

    def __getitem__(self, index: int) -> int:
        return index


@pytest.mark.parametrize(
    "make",
    [
        lambda: io.BytesIO(b"lines"),
        lambda: Path(__file__).open(encoding="utf-8"),  # noqa: SIM115 - closed below
        lambda: sqlite3.connect(":memory:").execute("SELECT 1"),
        Cursor,
        Both,
    ],
    ids=["BytesIO", "file", "cursor of sqlite", "other cursor", "both"],
)
def test_what_is_more_than_a_stream_is_a_result(exporter: Exporter, make: Callable[[], Any]) -> None:
    found = make()
    assert exporter.observe_component("lightrag")(lambda: found)() is found
    assert exporter.observe_query(classify=lambda _: Outcome("success", "cache"))(lambda: found)() is found
    with contextlib.suppress(AttributeError):
        found.close()
    assert calls(exporter) == {"success": 1}
    assert outcomes(exporter) == {"success": 1}


def test_a_watched_stream_can_be_asked_for_what_it_has_not(exporter: Exporter) -> None:
    watched: Any = exporter.observe_component("lightrag")(lambda: iter(range(3)))()
    with pytest.raises(AttributeError):
        _ = watched.nothing_of_the_kind
    assert next(copy.copy(watched)) == 0
