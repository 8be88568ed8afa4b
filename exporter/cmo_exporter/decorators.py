"""Functions that are watched whenever they are called, and stay what they were.

A coroutine function stays one, a generator function too: frameworks look at what they are given before they
call it. What a function returns may go on after it has returned (a stream, a coroutine, a future); the
observation then ends where that does, which for LightRAG's streaming answers is 30 times later.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import inspect
import logging
import types
import weakref
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Final, TypeVar

from cmo_exporter import catalogue
from cmo_exporter.catalogue import LIVE
from cmo_exporter.errors import ExporterError
from cmo_exporter.instruments import closed
from cmo_exporter.observations import ComponentObservation, QueryObservation
from cmo_exporter.queries import current_query
from cmo_exporter.streams import AsyncStream, Stream, in_context

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    from cmo_exporter.exporter import Exporter
    from cmo_exporter.observations import Observation
    from cmo_exporter.outcomes import Classifier

    Opening = Callable[[tuple[Any, ...], dict[str, Any]], Observation]

Function = TypeVar(
    "Function", bound="Callable[..., Any] | staticmethod[..., Any] | classmethod[Any, ..., Any]"
)

_MORE_THAN_A_STREAM: Final = ("__len__", "__getitem__", "__await__", "read", "readline", "fetchone")

_log = logging.getLogger("cmo_exporter")


def query_decorator(
    exporter: Exporter,
    scenario: str | Callable[..., str],
    session: str | Callable[..., str | None] | None,
    classify: Classifier | None,
    departures: tuple[type[BaseException], ...],
) -> Callable[[Function], Function]:
    """What `Exporter.observe_query` returns."""
    if not callable(scenario):
        _warn_unless_known("scenario", scenario, exporter.settings.all_scenarios)
    if not all(isinstance(departure, type) for departure in departures):
        raise ExporterError(f"departures is a tuple of exception classes, not {departures!r}.")

    def read(given: Any, default: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not callable(given):
            return given
        try:
            return given(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - it is the service's, and the call must go on
            exporter.errors.report(catalogue.QUERIES_STARTED, error)
            return default

    def opening(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Observation:
        query = current_query()
        if query is None or query.errors is not exporter.errors:
            query = exporter.query(read(scenario, LIVE, args, kwargs), read(session, None, args, kwargs))
        elif session is not None:
            query.asked_by(read(session, None, args, kwargs))
        return QueryObservation(query, classify, departures)

    return lambda function: observed(function, opening)


def component_decorator(
    exporter: Exporter, component: str, classify: Classifier | None
) -> Callable[[Function], Function]:
    """What `Exporter.observe_component` returns."""
    _warn_unless_known("component", component, exporter.settings.components)

    def opening(_args: tuple[Any, ...], _kwargs: dict[str, Any]) -> Observation:
        return ComponentObservation(exporter.current_query().component(component), classify)

    return lambda function: observed(function, opening)


def observed(function: Any, opening: Opening) -> Any:
    """A function that does what this one does, and is observed.

    Raises:
        ExporterError: it is not a function, nor anything else that is called like one.
    """
    if isinstance(function, (staticmethod, classmethod)):
        return type(function)(observed(function.__func__, opening))
    if not callable(function):
        raise ExporterError(
            f"A function was to be observed, and a {type(function).__name__} was given. "
            "Put the decorator next to the function, beneath @property and the like."
        )
    if inspect.isasyncgenfunction(function):
        wrapper = _async_generator_function(function, opening)
    elif inspect.iscoroutinefunction(function):
        wrapper = _coroutine_function(function, opening)
    elif inspect.isgeneratorfunction(function) and not _makes_coroutines(function):
        wrapper = _generator_function(function, opening)
    else:
        wrapper = _plain_function(function, opening)
    wrapped = functools.wraps(function)(wrapper)
    if isinstance(function, functools.partial):
        wrapped.__name__ = getattr(function.func, "__name__", wrapped.__name__)
        wrapped.__qualname__ = getattr(function.func, "__qualname__", wrapped.__qualname__)
    return wrapped


def _plain_function(function: Callable[..., Any], opening: Opening) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        observation = opening(args, kwargs)
        entry = _Entry(observation)
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            observation.raised(error)
            raise
        kind = type(result)  # `isinstance` asks the object too, and a proxy of nothing raises then
        if issubclass(kind, (asyncio.Future, concurrent.futures.Future)):
            return _follow_future(result, observation, entry)
        if issubclass(kind, types.CoroutineType) or _is_awaitable_generator(result):
            return _follow_coroutine(result, observation, entry)
        return _follow(result, observation, entry)

    return wrapper


def _coroutine_function(function: Callable[..., Any], opening: Opening) -> Callable[..., Any]:
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        observation = opening(args, kwargs)
        entry = _Entry(observation)
        try:
            result = await function(*args, **kwargs)
        except BaseException as error:
            observation.raised(error)
            raise
        return _follow(result, observation, entry)

    return wrapper


def _generator_function(function: Callable[..., Any], opening: Opening) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        generator = function(*args, **kwargs)
        observation = opening(args, kwargs)
        context = copy_context()
        context.run(observation.begin)
        return (yield from Stream(generator, observation, context))

    return wrapper


def _async_generator_function(function: Callable[..., Any], opening: Opening) -> Callable[..., Any]:
    async def wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        generator = function(*args, **kwargs)
        observation = opening(args, kwargs)
        context = copy_context()
        context.run(observation.begin)
        stream = AsyncStream(generator, observation, context)
        try:
            piece = await stream.__anext__()
            while True:
                try:
                    sent = yield piece
                except GeneratorExit:
                    await stream.aclose()
                    raise
                except BaseException as error:  # noqa: BLE001 - it is for the body
                    piece = await stream.athrow(error)
                else:
                    piece = await stream.asend(sent)
        except StopAsyncIteration:
            return

    return wrapper


class _Entry:
    """What an observation set in the context where it began, to be taken back if it goes on elsewhere.

    Functions share the context of their caller. The current query, and whatever else a beginning sets, has to
    be there for the body; once a stream is returned, it is the stream's, and the consumer goes without.
    """

    __slots__ = ("_before", "_within")

    def __init__(self, observation: Observation) -> None:
        self._before = copy_context()
        observation.begin()
        self._within = copy_context()

    def move(self) -> Context:
        """The context of what goes on elsewhere; here its beginning is undone."""
        context = copy_context()
        for variable, value in self._within.items():
            if self._before.get(variable) is value or variable.get(None) is not value:
                continue
            with contextlib.suppress(LookupError):
                unset = variable not in self._before
                variable.set(Context().run(variable.get) if unset else self._before[variable])
        return context


def _follow(result: Any, observation: Observation, entry: _Entry) -> Any:
    """What has been returned, watched to its end if it is a stream."""
    watched = _watched_stream(type(result))
    if watched is None:
        observation.returned(result)
        return result
    return watched(result, observation, entry.move())


def _watched_stream(kind: type) -> type[Stream | AsyncStream] | None:
    """What watches objects of this type, if those are streams and nothing more.

    A file, a database's cursor, a response bring forth lines or rows as well, but whoever is given one uses
    it otherwise, and may never come to its end: it is a result like any other.
    """
    plain, asynchronous = hasattr(kind, "__next__"), hasattr(kind, "__anext__")
    if plain == asynchronous or any(hasattr(kind, name) for name in _MORE_THAN_A_STREAM):
        return None
    return Stream if plain else AsyncStream


def _follow_future(future: Any, observation: Observation, entry: _Entry) -> Any:
    context = entry.move()
    future.add_done_callback(lambda done: context.run(_settle, done, observation))
    return future


def _follow_coroutine(coroutine: Any, observation: Observation, entry: _Entry) -> Any:
    """A coroutine that does what this one does, whoever awaits it; it may be nobody."""
    context = entry.move()
    watched = _awaited_later(coroutine, observation, entry, context)
    weakref.finalize(watched, context.run, observation.abandoned).atexit = False
    return watched


async def _awaited_later(awaitable: Any, observation: Observation, entry: _Entry, context: Context) -> Any:
    try:
        result = await in_context(context, lambda: awaitable)
    except BaseException as error:
        context.run(observation.raised, error)
        raise
    return context.run(_follow, result, observation, entry)


def _settle(future: Any, observation: Observation) -> None:
    if future.cancelled():
        observation.raised(asyncio.CancelledError())
        return
    # `exception()` would mark it as seen by the service, and asyncio would not log one that nobody sees.
    error = getattr(future, "_exception", None)
    if error is None:
        observation.returned(future.result())
    else:
        observation.raised(error)


def _makes_coroutines(function: Any) -> bool:
    """Whether `types.coroutine` has made this generator function one whose generators are awaited."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return isinstance(code, types.CodeType) and bool(code.co_flags & inspect.CO_ITERABLE_COROUTINE)


def _is_awaitable_generator(result: Any) -> bool:
    if type(result) is not types.GeneratorType:
        return False
    return bool(result.gi_code.co_flags & inspect.CO_ITERABLE_COROUTINE)


def _warn_unless_known(kind: str, name: object, known: tuple[str, ...]) -> None:
    if closed(name, known) is None:
        _log.warning(
            "A decorator names the %s %r, which is not in the settings (%s); it is counted under %s.",
            kind,
            name,
            ", ".join(known) or "none",
            catalogue.OTHER,
        )
