"""LightRAG (lightrag-hku 1.4 and 1.5): what came of each question, and where its time went.

A ``try`` around ``aquery`` counts an outage as success: 1.5 returns a status, and ``None``, where 1.4
raises, and both may return an apology as if it were an answer. So the outcome is read from what is
returned. Model calls wait in a queue of LightRAG's own, and run in its worker tasks; a ticket that travels
with a call through the queue tells how long it waited there, and for which question it is made.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
import time
from contextlib import suppress
from contextvars import ContextVar, copy_context
from importlib import import_module
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, TypeVar
from weakref import WeakKeyDictionary

from cmo_exporter import catalogue
from cmo_exporter.adapters.calls import Listener, OpenCall, WatchedStream, outcome_of
from cmo_exporter.adapters.instrumented import Quietly, mark
from cmo_exporter.postponed_ends import put_aside

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cmo_exporter.components import ComponentCall
    from cmo_exporter.exporter import Exporter
    from cmo_exporter.queries import Query

Rag = TypeVar("Rag")

_TICKET: Final = "_cmo_ticket"
_LOOK_UP: Final = "_cmo_look_up"
_ANSWERS: Final = "query"


def instrument_lightrag(
    rag: Rag,
    exporter: Exporter,
    *,
    component: str = "lightrag",
    model_component: str = "llm",
    cache_tier: str = "lightrag",
    provider: str | None = None,
) -> Rag:
    """Make a ``LightRAG`` report its questions, its model calls, their waits, and its cache.

    Call it before the first question: in 1.4 it gives the object a new queue of model calls.

    Args:
        rag: the object; it is returned.
        exporter: where it reports.
        component: what a question asked of it counts as.
        model_component: what a call of its model function counts as, and a wait for one.
        cache_tier: what its own cache of answers counts as.
        provider: who is behind the model function, as in the settings' ``models``; then a call's span tells
            its model, by the name that LightRAG has for it. Leave it out where the function itself calls
            an instrumented client, which knows better.
    """
    with Quietly(exporter, catalogue.COMPONENT_CALLS):
        if mark(rag):
            _measure_questions(rag, exporter, component)
            _measure_model(rag, exporter, model_component, provider)
            _measure_cache(rag, exporter, cache_tier)
    return rag


class _Question:
    """A question under way, as its model calls see it in whatever task they run."""

    def __init__(self, rag: object, exporter: Exporter, component: str) -> None:
        self.rag = rag
        self.exporter = exporter
        self.query = exporter.current_query()
        self.call = OpenCall(self.query.component(component))
        self.unanswered = "error"
        self.writing: list[OpenCall] = []

    def model_failed(self, error: BaseException) -> None:
        """A model call failed; LightRAG may swallow the exception, and with it the reason."""
        if outcome_of(error) == "timeout":
            self.unanswered = "timeout"


_asked: ContextVar[_Question | None] = ContextVar("cmo_exporter_lightrag_question", default=None)


def _measure_questions(rag: Any, exporter: Exporter, component: str) -> None:
    # From 1.4.9 on, `aquery` is a wrapper around `aquery_llm`, and the synchronous ones around these.
    names = ("aquery_llm", "aquery_data") if hasattr(rag, "aquery_llm") else ("aquery",)
    for name in (*names, "aquery_with_separate_keyword_extraction"):
        if hasattr(rag, name):
            setattr(rag, name, _measured_question(rag, getattr(rag, name), exporter, component))


def _measured_question(
    rag: Any, ask: Callable[..., Awaitable[Any]], exporter: Exporter, component: str
) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(ask)
    async def measured(*args: Any, **kwargs: Any) -> Any:
        under_way = _asked.get()
        if under_way is not None and under_way.rag is rag:  # one of its methods calls another
            return await ask(*args, **kwargs)
        question = _begun(rag, exporter, component)
        if question is None:
            return await ask(*args, **kwargs)
        reset = _asked.set(question)
        try:
            result = await ask(*args, **kwargs)
        except BaseException as error:
            with Quietly(exporter, catalogue.COMPONENT_CALLS):
                question.call.end(_unanswered(error))
            raise
        finally:
            with suppress(ValueError):  # it may be closed in another context than it was begun in
                _asked.reset(reset)
        with Quietly(exporter, catalogue.COMPONENT_CALLS):
            return _settled(result, question)
        return result

    return measured


def _begun(rag: object, exporter: Exporter, component: str) -> _Question | None:
    """The question that begins; None where it cannot be measured, and is asked all the same."""
    with Quietly(exporter, catalogue.COMPONENT_CALLS):
        return _Question(rag, exporter, component)
    return None


def _settled(result: Any, question: _Question) -> Any:
    """End the question by what was returned, or have the stream end it that was returned."""
    if hasattr(result, "__aiter__"):
        return WatchedStream(result, _Answer(question))
    reply = result.get("llm_response") if isinstance(result, dict) else None
    if reply and reply.get("response_iterator") is not None:
        reply["response_iterator"] = WatchedStream(reply["response_iterator"], _Answer(question))
    elif _is_answer(result, reply):
        question.call.end("success")
    else:
        question.call.end(question.unanswered)
    return result


def _unanswered(error: BaseException) -> str:
    outcome = outcome_of(error)  # where the model refuses a call, the question was not refused
    return "error" if outcome == "rejected" else outcome


def _is_answer(result: Any, reply: Any) -> bool:
    if not isinstance(result, dict):
        return _is_text(result)
    if result.get("status", "success") != "success":
        return False
    return reply is None or _is_text(reply.get("content"))  # what only retrieves has no reply


def _is_text(content: Any) -> bool:
    return bool(content) and content != _apology()


def _apology() -> str | None:
    prompts = getattr(sys.modules.get("lightrag.prompt"), "PROMPTS", {})
    apology = prompts.get("fail_response")
    return apology if isinstance(apology, str) else None


class _Answer(Listener):
    """A streamed answer on its way to the user."""

    def __init__(self, question: _Question) -> None:
        self._question = question
        self._began = False

    def piece(self, piece: Any) -> None:
        with Quietly(self._question.exporter, catalogue.QUERY_TIME_TO_FIRST_TOKEN):
            if piece and not self._began:
                self._began = True
                self._question.query.first_token()

    def end(self, error: BaseException | None) -> None:
        question = self._question
        with Quietly(question.exporter, catalogue.COMPONENT_CALLS):
            if error is not None:
                question.call.end(_unanswered(error))
            else:
                question.call.end("success" if self._began else "error")
            for writing in question.writing:  # nobody reads on; LightRAG's workers hold on to the stream
                writing.end("cancelled")

    def __del__(self) -> None:
        thrown_away = GeneratorExit()
        if not put_aside(thrown_away, lambda: self.end(thrown_away)):
            self.end(thrown_away)


# The model calls that wait for their turn. A service may make a LightRAG for every chat, and those in several
# threads, so they are counted together, and not queue by queue.
_waiting: WeakKeyDictionary[Exporter, dict[str, set[_Ticket]]] = WeakKeyDictionary()


class _Line:
    """Where the model calls of one LightRAG wait for their turn."""

    def __init__(self, exporter: Exporter, component: str, provider: str | None) -> None:
        self.exporter = exporter
        self.component = component
        self.provider = provider

    def ticket(self) -> _Ticket | None:
        """A ticket for the call of a question; None where there is none, as when the index is built."""
        with Quietly(self.exporter, catalogue.QUEUE_DEPTH):
            question = _asked.get()
            if question is not None:
                return _Ticket(self, question)
        return None

    def call(self, query: Query, model: str) -> ComponentCall:
        """A call of the model for a query."""
        if self.provider is None:
            return query.component(self.component)
        return query.model_call(self.component, self.provider, model)

    def enter(self, ticket: _Ticket) -> None:
        """A call waits."""
        waiting = self._waiting()
        waiting.add(ticket)
        self._tell(waiting)

    def leave(self, ticket: _Ticket) -> bool:
        """A call waits no longer; whether it did until now."""
        waiting = self._waiting()
        if ticket not in waiting:
            return False
        waiting.discard(ticket)
        self._tell(waiting)
        return True

    def _waiting(self) -> set[_Ticket]:
        return _waiting.setdefault(self.exporter, {}).setdefault(self.component, set())

    def _tell(self, waiting: set[_Ticket]) -> None:
        """Tell how many wait.

        Whoever tells it last has looked after telling it, so that no number stays which another thread had
        counted earlier. A lock would do too, but not where a fork or the collector may find it taken.
        """
        told = -1
        while told != len(waiting):
            told = len(waiting)
            self.exporter.queue_depth(self.component, told)


class _Ticket:
    """One model call's place in the line, and the question it is made for."""

    def __init__(self, line: _Line, question: _Question) -> None:
        self.question = question
        self.context = copy_context()
        self._line = line
        self._since = time.monotonic()
        line.enter(self)

    def start(self, model: str) -> OpenCall:
        """The call's turn has come; it belongs to its question also where a task of another one makes it."""
        return self._start(model) if self.is_here else self.context.run(self._start, model)

    @property
    def is_here(self) -> bool:
        """Whether this code runs in the context of the question."""
        return _asked.get() is self.question

    def leave(self) -> bool:
        """The call waits no longer; whether it did until now."""
        return self._line.leave(self)

    def _start(self, model: str) -> OpenCall:
        waited = time.monotonic() - self._since
        if self.leave():
            self._line.exporter.queue_wait(self._line.component, waited)
        return OpenCall(self._line.call(self.question.query, model))


def _measure_model(rag: Any, exporter: Exporter, component: str, provider: str | None) -> None:
    line = _Line(exporter, component, provider)
    if hasattr(rag, "_wrap_llm_role_func"):
        _measure_roles(rag, line)
    else:
        _measure_single_queue(rag, line)


def _measure_roles(rag: Any, line: _Line) -> None:
    """1.5: a queue for each role, made anew whenever the role's model is changed."""
    wrap = rag._wrap_llm_role_func  # noqa: SLF001 - there is no public place before the queue

    @functools.wraps(wrap)
    def measured(role: str, raw: Callable[..., Any], *args: Any, **kwargs: Any) -> Callable[..., Any]:
        queue = wrap(role, _called(raw, line, _model_of(rag, line, role)), *args, **kwargs)
        return _queued(queue, line)

    rag._wrap_llm_role_func = measured  # noqa: SLF001 - as above
    rag._rebuild_role_llm_funcs()  # noqa: SLF001 - the queues that are there were made without it


def _model_of(rag: Any, line: _Line, role: str) -> str:
    """The name of the role's own model, or of the one for all; no such name is worth an error."""
    with Quietly(line.exporter, catalogue.COMPONENT_CALLS):
        state = getattr(rag, "_role_llm_states", {}).get(role)
        own = getattr(state, "metadata", {}).get("model")
        return str(own or getattr(rag, "llm_model_name", ""))
    return ""


def _measure_single_queue(rag: Any, line: _Line) -> None:
    """1.4: one queue, and the function behind it cannot be exchanged, so the queue is made anew."""
    behind = _called(rag.llm_model_func.__wrapped__, line, _model_of(rag, line, ""))
    limit = import_module("lightrag.utils").priority_limit_async_func_call
    options: dict[str, Any] = {}
    if "llm_timeout" in inspect.signature(limit).parameters:  # the later of 1.4
        options = {"llm_timeout": rag.default_llm_timeout, "queue_name": "LLM func"}
    rag.llm_model_func = _queued(limit(rag.llm_model_max_async, **options)(behind), line)


def _queued(queue: Callable[..., Awaitable[Any]], line: _Line) -> Callable[..., Awaitable[Any]]:
    """What LightRAG calls: gives a call its ticket, and hears of its failure.

    A function and not an object, because LightRAG deep-copies its settings for every question.
    """

    @functools.wraps(queue)
    async def with_ticket(*args: Any, **kwargs: Any) -> Any:
        ticket = line.ticket()
        if ticket is None:
            return await queue(*args, **kwargs)
        try:
            result = await queue(*args, **{**kwargs, _TICKET: ticket})
        except BaseException as error:
            _left(ticket, line, error)
            raise
        _left(ticket, line, None)
        return result

    return with_ticket


def _left(ticket: _Ticket, line: _Line, error: BaseException | None) -> None:
    """The call has left the queue, answered or by an error."""
    if error is not None and put_aside(error, lambda: _left(ticket, line, None)):
        return
    with Quietly(line.exporter, catalogue.QUEUE_DEPTH):
        ticket.leave()
        if error is not None:
            ticket.question.model_failed(error)


def _called(raw: Callable[..., Any], line: _Line, model: str) -> Callable[..., Awaitable[Any]]:
    """What the queue calls: the model function, timed."""

    @functools.wraps(raw)
    async def timed(*args: Any, **kwargs: Any) -> Any:
        ticket: _Ticket | None = kwargs.pop(_TICKET, None)
        if ticket is None:
            return await raw(*args, **kwargs)
        call = _started(ticket, line, model)
        try:
            result = await _in_context_of(ticket, line, raw(*args, **kwargs))
        except BaseException as error:
            with Quietly(line.exporter, catalogue.COMPONENT_CALLS):
                if call is not None:
                    call.end(outcome_of(error))
            raise
        with Quietly(line.exporter, catalogue.COMPONENT_CALLS):
            if call is not None:
                return _written(result, call, ticket.question)
        return result

    return timed


def _started(ticket: _Ticket, line: _Line, model: str) -> OpenCall | None:
    """The call whose turn has come; None where it cannot be measured, and is made all the same."""
    with Quietly(line.exporter, catalogue.COMPONENT_CALLS):
        return ticket.start(model)
    return None


async def _in_context_of(ticket: _Ticket, line: _Line, answer: Any) -> Any:
    """Run the model function in the context of its question.

    Before 1.5.7 it runs in the context of whoever asked the very first question, whose query would get all
    that is recorded inside.
    """
    with Quietly(line.exporter, catalogue.COMPONENT_CALLS):
        if not ticket.is_here and asyncio.iscoroutine(answer):
            answer = asyncio.get_running_loop().create_task(answer, context=ticket.context)
    return await answer


def _written(result: Any, call: OpenCall, question: _Question) -> Any:
    """End the call by what the model returned, or have the stream end it that it returned."""
    if hasattr(result, "__aiter__"):
        question.writing.append(call)
        return WatchedStream(result, _Writing(call, question.exporter))
    call.end("success" if result else "error")
    return result


class _Writing(Listener):
    """A model that writes its answer piece by piece."""

    def __init__(self, call: OpenCall, exporter: Exporter) -> None:
        self._call = call
        self._exporter = exporter
        self._wrote = False

    def piece(self, piece: Any) -> None:
        with Quietly(self._exporter, catalogue.COMPONENT_CALLS):
            self._wrote = self._wrote or bool(piece)

    def end(self, error: BaseException | None) -> None:
        with Quietly(self._exporter, catalogue.COMPONENT_CALLS):
            said_nothing = error is None and not self._wrote
            self._call.end("error" if said_nothing else outcome_of(error))


_instrumenting: Final = Lock()  # of the module, which every LightRAG's thread finds


def _measure_cache(rag: Any, exporter: Exporter, tier: str) -> None:
    store = rag.llm_response_cache

    def look_up(found: Any, *, failed: bool = False) -> None:
        with Quietly(exporter, catalogue.CACHE_REQUESTS):
            if not store.global_config.get("enable_llm_cache"):
                return  # a cache that is off is not looked up
            # 1.4 returns four values, the first of them the answer; 1.5 None, or a pair.
            result = "error" if failed else "hit" if found and found[0] is not None else "miss"
            exporter.current_query().cache_request(tier, result)

    setattr(store, _LOOK_UP, look_up)
    operate = import_module("lightrag.operate")
    with _instrumenting:
        if mark(operate):
            operate.handle_cache = _counted(operate.handle_cache)  # type: ignore[attr-defined]  # of a module


def _counted(handle_cache: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Every LightRAG's look-ups go through this one function; the store that is asked tells whose."""

    @functools.wraps(handle_cache)
    async def counted(store: Any, *args: Any, **kwargs: Any) -> Any:
        look_up = getattr(store, _LOOK_UP, None) if kwargs.get("cache_type") == _ANSWERS else None
        if look_up is None:
            return await handle_cache(store, *args, **kwargs)
        try:
            found = await handle_cache(store, *args, **kwargs)
        except Exception:
            look_up(None, failed=True)
            raise
        look_up(found)
        return found

    return counted
