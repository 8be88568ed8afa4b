"""Whatever a service calls, in whatever order and with whatever values, the books balance.

Hypothesis plays the service: it opens queries and component calls, leaves them in every way and more than
once, calls functions of every kind that are watched, reads their streams piece by piece, closes, cancels and
drops them, and hands in values of any type. When all have ended nothing is in progress, every call has one
outcome, and there is no label value that the lists do not hold.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import threading
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from cmo_exporter import Exporter, Outcome, catalogue
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from .hostile_service import AMOUNTS, SCENARIOS, SETTINGS, WORDS, Books

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from cmo_exporter import ComponentCall, Query, UserSession

ERRORS = st.sampled_from((None, ValueError, TimeoutError, asyncio.CancelledError, KeyboardInterrupt))
SESSIONS = st.one_of(st.sampled_from(("u1", "u2", "u3", "u4", "u5", "u6")), WORDS)
PIECES = st.lists(st.sampled_from((None, "", "Gly", "cine", 3)), max_size=4)
WHICH = st.integers(0, 100)

SERVICE_ERRORS = (ValueError, TimeoutError, asyncio.CancelledError, KeyboardInterrupt, KeyError, RuntimeError)


KINDS = (
    "function",
    "coroutine",
    "task",
    "generator",
    "async generator",
    "returns an iterator",
    "returns an async iterator",
)


@dataclass
class Opened:
    """Something that has been begun in a context of its own, as a task has one."""

    context: contextvars.Context
    what: Any


@dataclass
class Plan:
    """What a function of the service does when it is called."""

    pieces: list[object]
    word: object
    error: type[BaseException] | None


class Functions:
    """A function of each kind that does what is planned."""

    def __init__(self, exporter: Exporter, plan: Plan, begun: Callable[[], None]) -> None:
        self._exporter = exporter
        self._plan = plan
        self._begun = begun

    def of_kind(self, kind: str) -> Callable[[], Any]:
        return {
            "function": self.function,
            "coroutine": self.coroutine,
            "task": self.waiting,
            "generator": self.generator,
            "async generator": self.async_generator,
            "returns an iterator": self.returns_an_iterator,
            "returns an async iterator": self.returns_an_async_iterator,
        }[kind]

    def function(self) -> object:
        self._begun()
        return self._act()

    async def coroutine(self) -> object:
        self._begun()
        await asyncio.sleep(0)
        return self._act()

    async def waiting(self) -> None:
        self._begun()
        await asyncio.Event().wait()

    def generator(self) -> Iterator[object]:
        self._begun()
        yield from self._pieces()

    async def async_generator(self) -> AsyncIterator[object]:
        self._begun()
        async for piece in self._async_pieces():
            yield piece

    def returns_an_iterator(self) -> Iterator[object]:
        self._begun()
        return self._pieces()

    async def returns_an_async_iterator(self) -> AsyncIterator[object]:
        self._begun()
        return self._async_pieces()

    def _pieces(self) -> Iterator[object]:
        for piece in self._plan.pieces:
            with contextlib.suppress(KeyError):
                yield piece
        self._act()

    async def _async_pieces(self) -> AsyncIterator[object]:
        for piece in self._plan.pieces:
            with contextlib.suppress(KeyError):
                yield piece
            await asyncio.sleep(0)
        self._act()

    def _act(self) -> object:
        query = self._exporter.current_query()
        query.first_token()
        query.answered(self._plan.word)  # type: ignore[arg-type]
        if self._plan.error is not None:
            raise self._plan.error
        return self._plan.word


class Service(RuleBasedStateMachine):
    """A service that does anything that the interface allows."""

    def __init__(self) -> None:
        super().__init__()
        self.exporter = Exporter(SETTINGS)
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(lambda *_: None)
        self.queries: list[Opened] = []
        self.calls: list[Opened] = []
        self.streams: list[Opened] = []
        self.tasks: list[asyncio.Task[object]] = []
        self.sessions: list[UserSession] = []
        self.begun: Counter[str] = Counter()
        self.failed_classifiers: Counter[str] = Counter()

    # Queries and component calls, one after the other.

    @rule(scenario=SCENARIOS, session=SESSIONS, ends=st.booleans(), within=WHICH)
    def open_query(self, scenario: Any, session: Any, ends: bool, within: int) -> None:
        context = self.context(within)
        query = context.run(self.exporter.query, scenario, session, end_session=ends)
        context.run(query.begin)
        context.run(query.begin)
        self.begun["query"] += 1
        self.queries.append(Opened(context, query))

    @precondition(lambda self: self.queries)
    @rule(which=WHICH, what=st.integers(0, 12), a=WORDS, b=WORDS, c=WORDS)
    def say(self, which: int, what: int, a: Any, b: Any, c: Any) -> None:
        query: Query = self.pick(self.queries, which).what
        said: list[Callable[[], None]] = [
            lambda: query.answered(a),
            lambda: query.concluded(a, b),
            query.failed,
            query.timed_out,
            query.rejected,
            query.cancelled,
            query.client_left,
            query.undelivered,
            query.first_token,
            query.first_token,
            lambda: query.cache_result(a),
            lambda: query.cache_request(a, b),
            lambda: query.fallback(source=a, target=b, reason=c),
        ]
        said[what]()

    @precondition(lambda self: self.queries)
    @rule(which=WHICH, error=ERRORS, how=st.sampled_from(("here", "elsewhere", "in a thread")))
    def finish_query(self, which: int, error: type[BaseException] | None, how: str) -> None:
        opened = self.pick(self.queries, which)  # it stays among them, to be finished again
        raised = None if error is None else error()
        if how == "here":
            opened.context.run(opened.what.finish, raised)
        elif how == "elsewhere":
            opened.what.finish(raised)
        else:
            thread = threading.Thread(target=opened.what.finish, args=(raised,))
            thread.start()
            thread.join()
        opened.what.finish(raised)

    @rule(component=WORDS, within=WHICH)
    def open_call(self, component: Any, within: int) -> None:
        context = self.context(within)
        call = context.run(lambda: self.exporter.current_query().component(component))
        context.run(call.__enter__)
        context.run(call.__enter__)
        self.begun["call"] += 1
        self.calls.append(Opened(context, call))

    @precondition(lambda self: self.calls)
    @rule(which=WHICH, outcome=WORDS, error=ERRORS)
    def leave_call(self, which: int, outcome: Any, error: type[BaseException] | None) -> None:
        opened = self.pick(self.calls, which)
        if outcome is not None:
            opened.what.outcome(outcome)
        leave(opened, error)

    # Functions that are watched.

    @rule(
        kind=st.sampled_from(KINDS),
        as_query=st.booleans(),
        component=st.one_of(st.just("llm"), WORDS),
        classifier=st.sampled_from((None, "outcome", "word", "fails")),
        plan=st.builds(Plan, PIECES, WORDS, ERRORS),
        scenario=SCENARIOS,
        session=SESSIONS,
        within=WHICH,
    )
    def call_function(
        self,
        kind: str,
        as_query: bool,
        component: Any,
        classifier: str | None,
        plan: Plan,
        scenario: Any,
        session: Any,
        within: int,
    ) -> None:
        def begun() -> None:
            if not as_query:
                self.begun["call"] += 1

        def read_scenario() -> Any:  # asked for once by every call that is a query of its own
            self.begun["query"] += 1
            return scenario

        classify = self.classifier(classifier, plan.word, "query" if as_query else "call")
        decorate = (
            self.exporter.observe_query(scenario=read_scenario, session=lambda: session, classify=classify)
            if as_query
            else self.exporter.observe_component(component, classify=classify)
        )
        watched = decorate(Functions(self.exporter, plan, begun).of_kind(kind))
        context = self.context(within)
        with contextlib.suppress(*SERVICE_ERRORS):
            if kind == "function":
                context.run(watched)
            elif kind == "coroutine":
                self.complete(watched(), context)
            elif kind == "task":
                self.tasks.append(self.loop.create_task(watched(), context=context))
                self.complete(asyncio.sleep(0), context)
            elif kind == "returns an async iterator":
                self.streams.append(Opened(context, self.complete(watched(), context)))
            else:
                self.streams.append(Opened(context, context.run(watched)))

    @precondition(lambda self: self.streams)
    @rule(
        which=WHICH,
        step=st.sampled_from(("next", "next", "send", "throw KeyError", "throw ValueError", "close")),
        elsewhere=st.booleans(),
        within=WHICH,
    )
    def step_stream(self, which: int, step: str, elsewhere: bool, within: int) -> None:
        opened = self.pick(self.streams, which)
        context = self.context(within) if elsewhere else opened.context
        before = context.run(self.exporter.current_query)
        with contextlib.suppress(*SERVICE_ERRORS, StopIteration, StopAsyncIteration):
            self.step(opened.what, step, context)
        assert context.run(self.exporter.current_query) is before

    @precondition(lambda self: self.streams)
    @rule(which=WHICH, in_a_cycle=st.booleans())
    def drop_stream(self, which: int, in_a_cycle: bool) -> None:
        opened = self.pick(self.streams, which)
        self.streams.remove(opened)
        if in_a_cycle:
            opened.what = [opened, opened.what]
        del opened
        gc.collect()

    @precondition(lambda self: self.tasks)
    @rule(which=WHICH)
    def cancel_task(self, which: int) -> None:
        task = self.pick(self.tasks, which)
        self.tasks.remove(task)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            self.loop.run_until_complete(task)

    # All else that the interface has.

    @rule(session=SESSIONS, scenario=SCENARIOS)
    def open_session(self, session: Any, scenario: Any) -> None:
        opened = self.exporter.session(session, scenario)
        opened.begin()
        opened.begin()
        self.sessions.append(opened)

    @precondition(lambda self: self.sessions)
    @rule(which=WHICH)
    def end_session(self, which: int) -> None:
        self.pick(self.sessions, which).end()

    @rule(what=st.integers(0, 10), a=WORDS, b=WORDS, c=WORDS, amount=AMOUNTS)
    def record(self, what: int, a: Any, b: Any, c: Any, amount: Any) -> None:
        exporter = self.exporter
        calls: list[Callable[[], None]] = [
            lambda: exporter.retry(a),
            lambda: exporter.queue_wait(a, amount),
            lambda: exporter.queue_depth(a, amount),
            lambda: exporter.breaker_state(a, b),
            lambda: exporter.breaker_rejection(a, b),
            lambda: exporter.cache_entries(a, amount),
            lambda: exporter.cache_eviction(a, amount),
            lambda: exporter.tokens(a, b, c, input_tokens=amount, output_tokens=amount),
            lambda: exporter.end_session(a, b),
            lambda: exporter.feedback(a, b),
            lambda: exporter.current_query().answered(a),
        ]
        calls[what]()

    @rule()
    def scrape(self) -> None:
        books = Books(self.exporter)
        for scenario in (*SETTINGS.all_scenarios, catalogue.OTHER):
            started = books.total("cmo_queries_started_total", scenario=scenario)
            in_progress = books.total("cmo_queries_in_progress", scenario=scenario)
            assert started == in_progress + books.total("cmo_queries_total", scenario=scenario)

    def teardown(self) -> None:
        for task in self.tasks:
            task.cancel()
        while self.streams:
            stream = self.streams.pop()
            if len(self.streams) % 2:
                with contextlib.suppress(*SERVICE_ERRORS):
                    self.step(stream.what, "close", stream.context)
            del stream
        for opened in self.queries:
            opened.what.finish()
        for opened in self.calls:
            leave(opened, None)
        for session in self.sessions:
            session.end()
        gc.collect()
        if self.tasks:
            self.loop.run_until_complete(asyncio.wait(self.tasks))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()
        self.check(Books(self.exporter))

    def check(self, books: Books) -> None:
        """All have ended."""
        queries = self.begun["query"]
        for name in ("cmo_queries_started_total", "cmo_queries_total", "cmo_query_duration_seconds_count"):
            assert books.total(name) == queries, name
        assert books.total("cmo_query_cache_results_total") == queries
        assert books.total("cmo_queries_in_progress") == 0
        assert books.total("cmo_oldest_query_age_seconds") == 0
        assert books.total("cmo_answers_total") <= queries
        cancelled = books.total("cmo_queries_total", outcome="cancelled")
        first_tokens = books.total("cmo_query_time_to_first_token_seconds_count")
        assert books.total("cmo_streams_abandoned_total") <= min(cancelled, first_tokens)
        for name in ("cmo_component_calls_total", "cmo_component_duration_seconds_count"):
            assert books.total(name) == self.begun["call"], name
        assert books.total("cmo_component_in_progress") == 0
        assert books.total("cmo_active_users") == 0
        errors = "cmo_instrumentation_errors_total"
        assert books.total(errors, metric="cmo_queries_total") == self.failed_classifiers["query"]
        assert books.total(errors, metric="cmo_component_calls_total") == self.failed_classifiers["call"]
        assert books.total(errors, metric="cmo_queries_started_total") == 0
        books.check_values()

    # How it is done.

    def pick(self, among: list[Any], which: int) -> Any:
        return among[which % len(among)]

    def context(self, which: int) -> contextvars.Context:
        """One that nobody has used, that of an open query, or a copy of it, as a task of it has one."""
        if which % 3 == 0 or not self.queries:
            return contextvars.Context()
        context: contextvars.Context = self.pick(self.queries, which).context
        return context if which % 3 == 1 else context.copy()

    def complete(self, awaitable: Any, context: contextvars.Context) -> Any:
        async def wait() -> Any:
            return await awaitable

        return self.loop.run_until_complete(self.loop.create_task(wait(), context=context))

    def step(self, stream: Any, step: str, context: contextvars.Context) -> None:
        asynchronous = hasattr(stream, "__anext__")
        names = {"next": "__anext__", "send": "asend", "throw": "athrow", "close": "aclose"}
        arguments: dict[str, tuple[object, ...]] = {
            "next": (),
            "send": (None,),
            "throw": (ValueError() if step.endswith("ValueError") else KeyError(),),
            "close": (),
        }
        verb = step.partition(" ")[0]
        name = names[verb] if asynchronous else {"next": "__next__"}.get(verb, verb)
        if asynchronous:
            self.complete(getattr(stream, name)(*arguments[verb]), context)
        else:
            context.run(getattr(stream, name), *arguments[verb])

    def classifier(self, sort: str | None, word: object, what: str) -> Callable[[object], Any] | None:
        def says_an_outcome(_: object) -> Outcome:
            return Outcome(word, word)  # type: ignore[arg-type]

        def says_a_word(_: object) -> object:
            self.failed_classifiers[what] += not issubclass(type(word), str)
            return word

        def fails(_: object) -> object:
            self.failed_classifiers[what] += 1
            raise RuntimeError("a question")

        return {None: None, "outcome": says_an_outcome, "word": says_a_word, "fails": fails}[sort]


def leave(opened: Opened, error: type[BaseException] | None) -> None:
    call: ComponentCall = opened.what
    opened.context.run(call.__exit__, error, None if error is None else error(), None)


@pytest.fixture(autouse=True)
def only_its_own_garbage() -> Iterator[None]:
    """Steps collect, hundreds of them: not each time all that the tests before these have left alive."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


TestService = Service.TestCase
TestService.settings = hypothesis_settings(
    max_examples=40,
    stateful_step_count=30,
    suppress_health_check=list(HealthCheck),
    # Shrinking a failure takes minutes: add it when there is one to look into.
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
