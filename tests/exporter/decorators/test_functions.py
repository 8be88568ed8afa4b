"""Functions of every kind, watched: they do what they did, and what came of them is counted once."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import inspect
import threading
import time
import types
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from cmo_exporter import Exporter, ExporterError, Outcome

from .counted import calls, component_calls_in_progress, count, outcomes
from .kinds import KINDS, of_kind, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


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


# Coroutines and futures that a function returns.


async def test_a_coroutine_that_a_plain_function_returns_is_watched_until_it_fails(
    exporter: Exporter,
) -> None:
    """Libraries of circuit breakers take such a call for a success of no duration: it returned at once."""
    await run_slowly(exporter, ValueError("the engine is down"), "error")


async def test_a_coroutine_that_a_plain_function_returns_lasts_until_it_is_done(exporter: Exporter) -> None:
    await run_slowly(exporter, None, "success")


async def run_slowly(exporter: Exporter, error: Exception | None, outcome: str) -> None:
    """Run a coroutine that ends only once it has been seen to be in progress, and hold its duration."""
    go_on, lasted = asyncio.Event(), 0.0

    async def work() -> str:
        nonlocal lasted
        began = time.monotonic()
        await go_on.wait()
        lasted = time.monotonic() - began
        if error is not None:
            raise error
        return "done"

    @exporter.observe_component("lightrag")
    def call() -> Any:
        return work()

    before = time.monotonic()
    task = asyncio.create_task(call())
    for _ in range(10):
        await asyncio.sleep(0)
        assert component_calls_in_progress(exporter) == 1
        assert calls(exporter) == {}, "it has returned a coroutine, and not ended"
    go_on.set()
    if error is None:
        assert await task == "done"
    else:
        with pytest.raises(ValueError, match="the engine is down") as caught:
            await task
        assert caught.value is error
    elapsed = time.monotonic() - before
    assert calls(exporter) == {outcome: 1}
    assert component_calls_in_progress(exporter) == 0
    kind = "success" if error is None else "failure"
    name = "cmo_component_duration_seconds_sum"
    seconds = count(exporter, name, scenario="live", component="lightrag", outcome=kind)
    assert 0 < lasted <= seconds <= elapsed


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


# Queries within queries, scenarios, sessions.


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


def test_a_call_within_a_query_says_whose_it_is_unless_that_is_known(exporter: Exporter) -> None:
    @exporter.observe_query(session=lambda user: user)
    def answer(user: str | None) -> float:
        return count(exporter, "cmo_active_users", scenario="live")

    with exporter.query():
        assert answer("anna") == 1
        assert answer("berta") == 1, "the first word counts"
    with exporter.query(session="clara"):
        assert answer("dora") == 2
    for nobody in (None, ""):
        with exporter.query() as query:
            answer(nobody)
            query.asked_by(3)  # type: ignore[arg-type]  # on purpose
    assert count(exporter, "cmo_active_users", scenario="live") == 2
    exporter.end_session("anna")
    exporter.end_session("clara")
    assert count(exporter, "cmo_active_users", scenario="live") == 0
    query.asked_by("somebody")
    exporter.current_query().asked_by("somebody")
    assert count(exporter, "cmo_active_users", scenario="live") == 0, "nothing is in progress"
