"""Functions of every kind, watched: they do what they did, and what came of them is counted once."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import gc
import inspect
import threading
import types
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from cmo_exporter import (
    Exporter,
    ExporterError,
    ExporterSettings,
    Outcome,
    StreamEnd,
    catalogue,
    returned_failures,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator

mark: contextvars.ContextVar[str] = contextvars.ContextVar("mark", default="none")

KINDS = ("function", "coroutine", "generator", "async generator")


@pytest.fixture
def exporter() -> Exporter:
    """A small exporter, read without being served."""
    return Exporter(ExporterSettings(scenarios=("clinical_rush",), components=("lightrag",)))


def count(exporter: Exporter, name: str, **labels: str) -> float:
    value = exporter.registry.get_sample_value(name, labels)
    assert value is not None, f"there is no series {name}{labels}"
    return value


Scrape = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(exporter: Exporter) -> Scrape:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in exporter.registry.collect()
        for sample in family.samples
    }


def total(scraped: Scrape, name: str, **labels: str) -> float:
    return sum(
        value for (found, has), value in scraped.items() if found == name and labels.items() <= set(has)
    )


def outcomes(exporter: Exporter, scenario: str = "live") -> dict[str, float]:
    """Finished queries by outcome, the zeros left out; checked against the other books."""
    scraped = scrape(exporter)
    found = {
        outcome: total(scraped, "cmo_queries_total", scenario=scenario, outcome=outcome)
        for outcome in catalogue.QUERY_OUTCOMES
    }
    finished = sum(found.values())
    in_progress = total(scraped, "cmo_queries_in_progress", scenario=scenario)
    assert total(scraped, "cmo_queries_started_total", scenario=scenario) == finished + in_progress
    assert total(scraped, "cmo_query_duration_seconds_count", scenario=scenario) == finished
    assert total(scraped, "cmo_query_cache_results_total", scenario=scenario) == finished
    return {outcome: number for outcome, number in found.items() if number}


def calls(exporter: Exporter, component: str = "lightrag") -> dict[str, float]:
    """Finished component calls by outcome, the zeros left out."""
    scraped = scrape(exporter)
    found = {
        outcome: total(scraped, "cmo_component_calls_total", component=component, outcome=outcome)
        for outcome in catalogue.QUERY_OUTCOMES
    }
    timed = total(scraped, "cmo_component_duration_seconds_count", component=component)
    assert timed == sum(found.values())
    return {outcome: number for outcome, number in found.items() if number}


def component_calls_in_progress(exporter: Exporter, component: str = "lightrag") -> float:
    return count(exporter, "cmo_component_in_progress", component=component)


def abandoned(exporter: Exporter) -> float:
    return count(exporter, "cmo_streams_abandoned_total", scenario="live")


def first_tokens(exporter: Exporter) -> float:
    return count(exporter, "cmo_query_time_to_first_token_seconds_count", scenario="live")


def of_kind(kind: str, body: Callable[[], object]) -> Callable[[], Any]:
    """A function of this kind, with this body."""

    def function() -> object:
        return body()

    async def coroutine() -> object:
        await asyncio.sleep(0)
        return body()

    def generator() -> Iterator[object]:
        yield "a piece"
        yield body()

    async def async_generator() -> AsyncIterator[object]:
        yield "a piece"
        await asyncio.sleep(0)
        yield body()

    made: dict[str, Callable[[], Any]] = {
        "function": function,
        "coroutine": coroutine,
        "generator": generator,
        "async generator": async_generator,
    }
    return made[kind]


def run(kind: str, function: Callable[[], Any]) -> Any:
    """Call it and take all that it gives; the value is what it gave last."""

    async def awaited() -> Any:
        return await function()

    async def last_piece() -> Any:
        return [piece async for piece in function()][-1]

    if kind == "function":
        return function()
    if kind == "coroutine":
        return asyncio.run(awaited())
    if kind == "generator":
        return list(function())[-1]
    return asyncio.run(last_piece())


def raising(error: BaseException) -> Callable[[], object]:
    def body() -> object:
        raise error

    return body


# What a function of each kind looks like from outside.


@pytest.mark.parametrize("kind", KINDS)
def test_a_function_stays_what_it_is(exporter: Exporter, kind: str) -> None:
    function = of_kind(kind, lambda: 1)
    function.__doc__ = "What it is for."
    for decorate in (exporter.observe_query, exporter.observe_component("lightrag")):
        watched = decorate(function)
        for look in (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction):
            assert look(watched) == look(function), look
        assert watched.__name__ == function.__name__
        assert watched.__doc__ == function.__doc__
        assert inspect.signature(watched) == inspect.signature(function)
        assert run(kind, watched) == 1


def test_a_partial_stays_what_it_is(exporter: Exporter) -> None:
    async def answer(question: str, *, mode: str) -> str:
        return f"{mode}: {question}"

    partial = functools.partial(answer, mode="hybrid")
    watched = exporter.observe_query(partial)
    assert inspect.iscoroutinefunction(watched)
    assert getattr(watched, "__name__", None) == "answer"
    assert inspect.signature(watched) == inspect.signature(partial)
    assert asyncio.run(watched("q")) == "hybrid: q"
    assert outcomes(exporter) == {"error": 1}, "nobody said what came of it"


def test_methods_of_every_sort(exporter: Exporter) -> None:
    class Service:
        name = "service"

        @exporter.observe_component("lightrag")
        def plain(self, number: int) -> str:
            return f"{self.name} {number}"

        @exporter.observe_component("lightrag")
        @staticmethod
        async def static(number: int) -> int:
            return number

        @staticmethod
        @exporter.observe_component("lightrag")
        def static_inside(number: int) -> int:
            return number

        @exporter.observe_component("lightrag")
        @classmethod
        def of_class(cls, number: int) -> Iterator[str]:
            yield f"{cls.name} {number}"

    service = Service()
    assert service.plain(1) == "service 1"
    assert asyncio.run(service.static(2)) == 2
    assert Service.static_inside(3) == 3
    assert list(Service.of_class(4)) == ["service 4"]
    assert inspect.iscoroutinefunction(Service.static)
    assert inspect.isgeneratorfunction(Service.of_class)
    assert exporter.observe_component("lightrag")(service.plain)(5) == "service 5"
    assert calls(exporter) == {"success": 6}


def test_what_cannot_be_called_is_refused_where_it_is_decorated(exporter: Exporter) -> None:
    with pytest.raises(ExporterError, match="beneath @property"):
        exporter.observe_query(property(lambda _: 1))  # type: ignore[call-overload]


def test_departures_that_are_no_exceptions_are_refused_where_they_are_named(exporter: Exporter) -> None:
    with pytest.raises(ExporterError, match="tuple of exception classes"):
        exporter.observe_query(departures=("WebSocketDisconnect",))  # type: ignore[arg-type]


# What came of it.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (TimeoutError(), "timeout"),
        (asyncio.CancelledError(), "cancelled"),
        (ValueError(), "error"),
    ],
)
def test_how_it_is_left_decides(exporter: Exporter, kind: str, error: BaseException, outcome: str) -> None:
    function = of_kind(kind, raising(error))
    for decorate in (exporter.observe_query, exporter.observe_component("lightrag")):
        with pytest.raises(type(error)) as caught:
            run(kind, decorate(function))
        if kind != "coroutine" or not isinstance(error, asyncio.CancelledError):  # asyncio makes a new one
            assert caught.value is error
    assert outcomes(exporter) == {outcome: 1}
    assert calls(exporter) == {outcome: 1}
    assert component_calls_in_progress(exporter) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_body_says_what_came_of_its_query(exporter: Exporter, kind: str) -> None:
    def body() -> object:
        exporter.current_query().answered("perplexity")
        return "an answer"

    watched = exporter.observe_query(of_kind(kind, body))
    assert run(kind, watched) == "an answer"
    assert outcomes(exporter) == {"success": 1}
    assert count(exporter, "cmo_answers_total", scenario="live", source="perplexity") == 1
    assert exporter.current_query().in_progress is False


@pytest.mark.parametrize("kind", KINDS)
def test_a_classifier_says_what_came_of_what_was_returned(exporter: Exporter, kind: str) -> None:
    seen: list[object] = []

    def classify(result: object) -> Outcome:
        seen.append(result)
        return Outcome("success", "lightrag")

    run(kind, exporter.observe_query(classify=classify)(of_kind(kind, lambda: "an answer")))
    run(kind, exporter.observe_component("lightrag", classify=classify)(of_kind(kind, lambda: "an answer")))
    expected = StreamEnd(2, "an answer") if "generator" in kind else "an answer"
    assert seen == [expected, expected]
    assert outcomes(exporter) == {"success": 1}
    assert calls(exporter) == {"success": 1}
    assert count(exporter, "cmo_answers_total", scenario="live", source="lightrag") == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("said", [None, 1, RuntimeError("a question")])
def test_a_classifier_that_fails_makes_an_error_and_is_counted(
    exporter: Exporter, kind: str, said: object, caplog: pytest.LogCaptureFixture
) -> None:
    def classify(result: object) -> Any:
        if isinstance(said, Exception):
            raise said
        return said

    function = of_kind(kind, lambda: "an answer")
    assert run(kind, exporter.observe_query(classify=classify)(function)) == "an answer"
    assert run(kind, exporter.observe_component("lightrag", classify=classify)(function)) == "an answer"
    assert outcomes(exporter) == {"error": 1}
    assert calls(exporter) == {"error": 1}
    for metric in ("cmo_queries_total", "cmo_component_calls_total"):
        assert count(exporter, "cmo_instrumentation_errors_total", metric=metric) == 1
    assert "a question" not in caplog.text


@pytest.mark.parametrize(
    ("said", "outcome", "source"),
    [
        ("success", "success", None),
        ("timeout", "timeout", None),
        (Outcome("success", "cache"), "success", "cache"),
        (Outcome("success", "stale"), "error", "stale"),
        (Outcome("error", "default"), "error", "default"),
        (Outcome("splendid", "lightrag"), "error", "lightrag"),
    ],
)
def test_what_a_classifier_may_say(
    exporter: Exporter, said: Outcome | str, outcome: str, source: str | None
) -> None:
    exporter.observe_query(classify=lambda _: said)(lambda: None)()
    assert outcomes(exporter) == {outcome: 1}
    answers = total(scrape(exporter), "cmo_answers_total", scenario="live")
    assert answers == (source is not None)
    if source is not None:
        assert count(exporter, "cmo_answers_total", scenario="live", source=source) == 1


def test_the_first_word_on_a_query_counts(exporter: Exporter) -> None:
    @exporter.observe_query(classify=lambda _: Outcome("success", "lightrag"))
    def answer() -> str:
        exporter.current_query().answered("default")
        return "I apologize"

    answer()
    assert outcomes(exporter) == {"error": 1}
    assert count(exporter, "cmo_answers_total", scenario="live", source="default") == 1


class Response:
    def __init__(self, content: str = "", error_details: str | None = None) -> None:
        self.content = content
        self.error_details = error_details


@pytest.mark.parametrize(
    ("returned", "outcome"),
    [
        (None, Outcome("error")),
        ("", Outcome("error")),
        (" \n", Outcome("error")),
        ("Glycine is an amino acid.", Outcome("success", "lightrag")),
        ("I APOLOGIZE, but I cannot answer.", Outcome("error", "default")),
        (Response("Glycine."), Outcome("success", "lightrag")),
        (Response(""), Outcome("error")),
        (Response("Glycine.", "the provider is down"), Outcome("error")),
        (Response("We apologize. I apologize."), Outcome("error", "default")),
        ({"answer": "Glycine."}, Outcome("success", "lightrag")),
        ({"answer": "Glycine.", "error_details": {"type": "quota"}}, Outcome("error")),
        (StreamEnd(0), Outcome("error")),
        (StreamEnd(3, "."), Outcome("success", "lightrag")),
    ],
)
def test_failures_that_are_returned_are_known(returned: object, outcome: Outcome) -> None:
    classify = returned_failures("lightrag", apologies=("I apologize",))
    assert classify(returned) == outcome


def test_the_source_may_be_read_from_what_was_returned() -> None:
    classify = returned_failures(lambda returned: str(returned["source"]))
    assert classify({"answer": "Glycine.", "source": "perplexity"}) == Outcome("success", "perplexity")


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


async def test_a_stream_whose_task_is_cancelled_is_abandoned(exporter: Exporter) -> None:
    got = asyncio.Event()

    @exporter.observe_query
    async def answer() -> AsyncIterator[str]:
        yield "a"
        got.set()
        await asyncio.Event().wait()
        yield "b"

    async def consume() -> None:
        async for _ in answer():
            pass

    task = asyncio.create_task(consume())
    await got.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert outcomes(exporter) == {"cancelled": 1}
    assert abandoned(exporter) == 1


async def test_leaving_before_the_first_piece_abandons_no_stream(exporter: Exporter) -> None:
    waiting = asyncio.Event()

    @exporter.observe_query
    async def answer() -> AsyncIterator[str]:
        waiting.set()
        await asyncio.Event().wait()
        yield "a"

    task = asyncio.ensure_future(anext(answer()))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert outcomes(exporter) == {"cancelled": 1}
    assert abandoned(exporter) == 0


async def test_a_cancelled_coroutine_is_cancelled(exporter: Exporter) -> None:
    waiting = asyncio.Event()

    @exporter.observe_query
    @exporter.observe_component("lightrag")
    async def answer() -> None:
        waiting.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(answer())
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert outcomes(exporter) == {"cancelled": 1}
    assert calls(exporter) == {"cancelled": 1}


async def test_a_deadline_of_asyncio_is_a_timeout(exporter: Exporter) -> None:
    @exporter.observe_query
    async def answer() -> None:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await answer()
    assert outcomes(exporter) == {"timeout": 1}


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


@pytest.mark.filterwarnings("ignore:coroutine .*work' was never awaited:RuntimeWarning")
async def test_coroutines_and_futures_that_a_plain_function_returns(exporter: Exporter) -> None:
    async def work() -> str:
        await asyncio.sleep(0)
        assert exporter.current_query().in_progress
        return "done"

    @exporter.observe_query(classify=lambda result: Outcome("success" if result == "done" else "error"))
    def coroutine() -> Any:
        return work()

    @exporter.observe_query(classify=lambda result: Outcome("success" if result == "done" else "error"))
    def task() -> Any:
        return asyncio.create_task(work())

    made = coroutine()
    assert outcomes(exporter) == {}
    assert await made == "done"
    assert outcomes(exporter) == {"success": 1}
    future = task()
    assert isinstance(future, asyncio.Task)
    assert await future == "done"
    assert outcomes(exporter) == {"success": 2}
    assert not exporter.current_query().in_progress
    never = coroutine()
    assert count(exporter, "cmo_queries_in_progress", scenario="live") == 1
    never.close()
    del never
    gc.collect()
    assert outcomes(exporter) == {"success": 2, "cancelled": 1}


def test_a_future_of_a_thread_pool_ends_the_call_when_it_is_done(exporter: Exporter) -> None:
    release = threading.Event()

    def work(error: Exception | None) -> None:
        assert release.wait(60)
        if error:
            raise error

    with ThreadPoolExecutor(1) as pool:

        @exporter.observe_component("lightrag")
        def submit(error: Exception | None = None) -> Future[None]:
            return pool.submit(work, error)

        futures = [submit(), submit(TimeoutError()), submit()]
        assert futures[2].cancel()
        assert calls(exporter) == {"cancelled": 1}
        release.set()
    assert isinstance(futures[1].exception(), TimeoutError)
    assert calls(exporter) == {"success": 1, "timeout": 1, "cancelled": 1}


async def test_an_error_of_a_task_that_nobody_awaits_is_still_told_by_asyncio(exporter: Exporter) -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))

    async def fail() -> None:
        raise ValueError

    @exporter.observe_query
    def task() -> Any:
        return asyncio.create_task(fail())

    future = task()
    while not outcomes(exporter):  # noqa: ASYNC110 - without awaiting the task
        await asyncio.sleep(0)
    assert outcomes(exporter) == {"error": 1}
    del future
    gc.collect()
    assert [type(context["exception"]) for context in told] == [ValueError]


async def test_a_generator_that_is_awaited_is_no_stream(exporter: Exporter) -> None:
    @exporter.observe_component("lightrag")
    @types.coroutine
    def old_style() -> Any:
        yield from asyncio.sleep(0).__await__()
        return "done"

    assert await old_style() == "done"
    assert calls(exporter) == {"success": 1}


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


async def test_tasks_and_threads_of_a_query_know_it(exporter: Exporter) -> None:
    def in_thread() -> bool:
        exporter.current_query().answered("lightrag")
        return exporter.current_query().in_progress

    @exporter.observe_query
    async def answer() -> list[bool]:
        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()
        return [
            await asyncio.to_thread(in_thread),
            await asyncio.create_task(asyncio.to_thread(in_thread)),
            await loop.run_in_executor(None, context.run, in_thread),
        ]

    async def one() -> list[bool]:
        return await answer()

    results = await asyncio.gather(*(one() for _ in range(10)))
    assert results == [[True] * 3] * 10
    assert outcomes(exporter) == {"success": 10}
    assert not exporter.current_query().in_progress


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


# Queries within queries, scenarios, sessions.


def test_a_call_within_a_query_is_a_part_of_it(exporter: Exporter) -> None:
    @exporter.observe_query(classify=lambda _: Outcome("success", "lightrag"))
    def inner() -> None:
        pass

    @exporter.observe_query
    def outer() -> None:
        inner()
        assert exporter.current_query().in_progress

    outer()
    assert outcomes(exporter) == {"success": 1}


def test_a_deadline_within_a_query_is_its_timeout_and_other_errors_may_be_mended(
    exporter: Exporter,
) -> None:
    @exporter.observe_query
    def inner(error: Exception) -> None:
        raise error

    for error in (TimeoutError(), ValueError()):
        with exporter.query() as query:
            with pytest.raises(type(error)):
                inner(error)
            query.answered("perplexity")
    assert outcomes(exporter) == {"timeout": 1, "success": 1}


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


def test_a_query_of_another_exporter_is_none_of_ours(exporter: Exporter) -> None:
    other = Exporter(exporter.settings)
    with other.query() as query:
        exporter.observe_query(classify=lambda _: "success")(lambda: None)()
        query.answered("lightrag")
    assert outcomes(exporter) == {"success": 1}
    assert outcomes(other) == {"success": 1}


def test_scenario_and_session_are_read_from_the_arguments(exporter: Exporter) -> None:
    @exporter.observe_query(scenario=lambda message: message["run"], session=lambda message: message["id"])
    async def main(message: dict[str, str]) -> None:
        assert count(exporter, "cmo_active_users", scenario="clinical_rush") == 1
        exporter.current_query().answered("lightrag")

    asyncio.run(main({"run": "clinical_rush", "id": "u1"}))
    asyncio.run(main({"run": "clinical_rush", "id": "u1"}))
    assert outcomes(exporter, "clinical_rush") == {"success": 2}
    assert count(exporter, "cmo_active_users", scenario="clinical_rush") == 1


def test_a_scenario_that_cannot_be_read_is_live_and_counted(exporter: Exporter) -> None:
    @exporter.observe_query(scenario=lambda message: message["run"], session=lambda message: message["id"])
    def main(message: dict[str, str]) -> str:
        return "done"

    assert main({}) == "done"
    assert outcomes(exporter) == {"error": 1}
    assert count(exporter, "cmo_instrumentation_errors_total", metric="cmo_queries_started_total") == 2


def test_a_name_that_is_not_in_the_settings_is_said_once_and_counted_as_other(
    exporter: Exporter, caplog: pytest.LogCaptureFixture
) -> None:
    watched = exporter.observe_component("lightrga")(of_kind("function", lambda: 1))
    assert (watched(), watched()) == (1, 1)
    assert caplog.text.count("lightrga") == 1
    assert (
        count(exporter, "cmo_component_calls_total", scenario="live", component="_other", outcome="success")
        == 2
    )


async def test_a_query_is_an_asynchronous_context_manager_too(exporter: Exporter) -> None:
    async with exporter.query() as query, query.component("lightrag"):
        assert exporter.current_query() is query
        query.answered("lightrag")
    assert outcomes(exporter) == {"success": 1}
    with pytest.raises(TimeoutError):
        async with exporter.query() as query, query.component("lightrag"):
            raise TimeoutError
    assert outcomes(exporter) == {"success": 1, "timeout": 1}
    assert calls(exporter) == {"success": 1, "timeout": 1}


# Sessions without a query, and feedback.


def test_a_session_counts_its_user_once_and_until_it_ends(exporter: Exporter) -> None:
    def users() -> float:
        return count(exporter, "cmo_active_users", scenario="live")

    with exporter.session("u1") as session:
        assert users() == 1
        with exporter.query(session="u1"):
            assert users() == 1
        session.begin()
        assert users() == 1
    assert users() == 0
    session.end()
    assert users() == 0
    chat = exporter.session("u2")
    chat.begin()
    with exporter.query(session="u2"):
        chat.end()
        assert users() == 1, "the answer is still on its way"
    assert users() == 0


async def test_a_session_is_an_asynchronous_context_manager_too(exporter: Exporter) -> None:
    async with exporter.session("u1", "clinical_rush"):
        assert count(exporter, "cmo_active_users", scenario="clinical_rush") == 1
    assert count(exporter, "cmo_active_users", scenario="clinical_rush") == 0


@pytest.mark.parametrize("session", [None, "", 5, []])
def test_a_session_without_a_usable_id_counts_nobody_and_says_so(exporter: Exporter, session: Any) -> None:
    with exporter.session(session):
        assert count(exporter, "cmo_active_users", scenario="live") == 0
    assert count(exporter, "cmo_series_dropped_total", metric="cmo_active_users") == 1


def test_feedback_is_counted_by_rating(exporter: Exporter) -> None:
    assert count(exporter, "cmo_feedback_total", scenario="live", rating="down") == 0
    exporter.feedback("up")
    exporter.feedback("down", scenario="clinical_rush")
    exporter.feedback("sideways")
    assert count(exporter, "cmo_feedback_total", scenario="live", rating="up") == 1
    assert count(exporter, "cmo_feedback_total", scenario="clinical_rush", rating="down") == 1
    assert count(exporter, "cmo_feedback_total", scenario="live", rating="_other") == 1


@pytest.mark.parametrize("decorate", ["query", "component"])
def test_what_the_collector_ends_is_not_counted_in_the_middle_of_a_change(
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
