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
from collections import Counter
from contextvars import ContextVar, copy_context
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, TypeVar
from weakref import WeakKeyDictionary

from cmo_exporter import catalogue
from cmo_exporter.adapters.calls import Listener, OpenCall, WatchedStream, outcome_of
from cmo_exporter.adapters.instrumented import Quietly, mark

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

    def __init__(self, rag: object, query: Query) -> None:
        self.rag = rag
        self.query = query
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
        question = _Question(rag, exporter.current_query())
        call = OpenCall(question.query.component(component))
        reset = _asked.set(question)
        try:
            result = await ask(*args, **kwargs)
        except BaseException as error:
            call.end(_unanswered(error))
            raise
        finally:
            _asked.reset(reset)
        with Quietly(exporter, catalogue.COMPONENT_CALLS):
            return _settled(result, call, question)
        return result

    return measured


def _settled(result: Any, call: OpenCall, question: _Question) -> Any:
    """End the call by what was returned, or have the stream end it that was returned."""
    if hasattr(result, "__aiter__"):
        return WatchedStream(result, _Answer(call, question))
    reply = result.get("llm_response") if isinstance(result, dict) else None
    if reply and reply.get("response_iterator") is not None:
        reply["response_iterator"] = WatchedStream(reply["response_iterator"], _Answer(call, question))
    elif _is_answer(result, reply):
        call.end("success")
    else:
        call.end(question.unanswered)
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

    def __init__(self, call: OpenCall, question: _Question) -> None:
        self._call = call
        self._question = question
        self._began = False

    def piece(self, piece: Any) -> None:
        if piece and not self._began:
            self._began = True
            self._question.query.first_token()

    def end(self, error: BaseException | None) -> None:
        if error is not None:
            self._call.end(_unanswered(error))
        else:
            self._call.end("success" if self._began else "error")
        for writing in self._question.writing:  # nobody reads on; LightRAG's workers hold on to the stream
            writing.end("cancelled")

    def __del__(self) -> None:
        self.end(GeneratorExit())


# How many calls wait for their turn. A service may make a LightRAG for every chat, so they are counted
# together, and not queue by queue.
_waiting: WeakKeyDictionary[Exporter, Counter[str]] = WeakKeyDictionary()


class _Line:
    """Where the model calls of one LightRAG wait for their turn."""

    def __init__(self, exporter: Exporter, component: str, provider: str | None) -> None:
        self.exporter = exporter
        self.component = component
        self.provider = provider

    def call(self, query: Query, model: str) -> ComponentCall:
        """A call of the model for a query."""
        if self.provider is None:
            return query.component(self.component)
        return query.model_call(self.component, self.provider, model)

    def changed(self, by: int) -> None:
        """One more, or one fewer, waits."""
        waiting = _waiting.setdefault(self.exporter, Counter())
        waiting[self.component] += by
        self.exporter.queue_depth(self.component, waiting[self.component])


class _Ticket:
    """One model call's place in the line, and the question it is made for."""

    def __init__(self, line: _Line, question: _Question) -> None:
        self.question = question
        self.context = copy_context()
        self._line = line
        self._since = time.monotonic()
        self._waiting = True
        line.changed(1)

    def start(self, model: str) -> OpenCall:
        """The call's turn has come; it belongs to its question also where a task of another one makes it."""
        if self.leave():
            self._line.exporter.queue_wait(self._line.component, time.monotonic() - self._since)
        call = self._line.call(self.question.query, model)
        return OpenCall(call) if self.is_here else self.context.run(OpenCall, call)

    @property
    def is_here(self) -> bool:
        """Whether this code runs in the context of the question."""
        return _asked.get() is self.question

    def leave(self) -> bool:
        """The call waits no longer; whether it did until now."""
        waited, self._waiting = self._waiting, False
        if waited:
            self._line.changed(-1)
        return waited


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
        return _queued(wrap(role, _called(raw, _model_of(rag, role)), *args, **kwargs), line)

    rag._wrap_llm_role_func = measured  # noqa: SLF001 - as above
    rag._rebuild_role_llm_funcs()  # noqa: SLF001 - the queues that are there were made without it


def _model_of(rag: Any, role: str) -> str:
    """The name of the role's own model, or of the one for all; no such name is worth an error."""
    state = getattr(rag, "_role_llm_states", {}).get(role)
    own = getattr(state, "metadata", {}).get("model")
    return str(own or getattr(rag, "llm_model_name", ""))


def _measure_single_queue(rag: Any, line: _Line) -> None:
    """1.4: one queue, and the function behind it cannot be exchanged, so the queue is made anew."""
    behind = _called(rag.llm_model_func.__wrapped__, _model_of(rag, ""))
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
        question = _asked.get()
        if question is None:  # building the index
            return await queue(*args, **kwargs)
        ticket = _Ticket(line, question)
        try:
            return await queue(*args, **{**kwargs, _TICKET: ticket})
        except BaseException as error:
            question.model_failed(error)
            raise
        finally:
            ticket.leave()

    return with_ticket


def _called(raw: Callable[..., Any], model: str) -> Callable[..., Awaitable[Any]]:
    """What the queue calls: the model function, timed."""

    @functools.wraps(raw)
    async def timed(*args: Any, **kwargs: Any) -> Any:
        ticket: _Ticket | None = kwargs.pop(_TICKET, None)
        if ticket is None:
            return await raw(*args, **kwargs)
        call = ticket.start(model)
        try:
            result = await _in_context_of(ticket, raw(*args, **kwargs))
        except BaseException as error:
            call.end(outcome_of(error))
            raise
        if hasattr(result, "__aiter__"):
            ticket.question.writing.append(call)
            return WatchedStream(result, _Writing(call))
        call.end("success" if result else "error")
        return result

    return timed


async def _in_context_of(ticket: _Ticket, answer: Any) -> Any:
    """Run the model function in the context of its question.

    Before 1.5.7 it runs in the context of whoever asked the very first question, whose query would get all
    that is recorded inside.
    """
    if ticket.is_here or not asyncio.iscoroutine(answer):
        return await answer
    return await asyncio.get_running_loop().create_task(answer, context=ticket.context)


class _Writing(Listener):
    """A model that writes its answer piece by piece."""

    def __init__(self, call: OpenCall) -> None:
        self._call = call
        self._wrote = False

    def piece(self, piece: Any) -> None:
        self._wrote = self._wrote or bool(piece)

    def end(self, error: BaseException | None) -> None:
        said_nothing = error is None and not self._wrote
        self._call.end("error" if said_nothing else outcome_of(error))


def _measure_cache(rag: Any, exporter: Exporter, tier: str) -> None:
    def look_up(result: str) -> None:
        exporter.current_query().cache_request(tier, result)

    setattr(rag.llm_response_cache, _LOOK_UP, look_up)
    operate = import_module("lightrag.operate")
    if mark(operate):
        operate.handle_cache = _counted(operate.handle_cache)  # type: ignore[attr-defined]  # of a module


def _counted(handle_cache: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Every LightRAG's look-ups go through this one function; the store that is asked tells whose."""

    @functools.wraps(handle_cache)
    async def counted(store: Any, *args: Any, **kwargs: Any) -> Any:
        look_up = getattr(store, _LOOK_UP, None) if kwargs.get("cache_type") == _ANSWERS else None
        if look_up is None or not store.global_config.get("enable_llm_cache"):
            return await handle_cache(store, *args, **kwargs)  # a cache that is off is not looked up
        try:
            found = await handle_cache(store, *args, **kwargs)
        except Exception:
            look_up("error")
            raise
        # 1.4 returns four values, the first of them the answer; 1.5 None, or a pair.
        look_up("hit" if found and found[0] is not None else "miss")
        return found

    return counted
