"""Model calls that know which question they are made for.

LightRAG queues its model calls and runs them in worker tasks. From 1.5 on a worker runs each call in a copy
of the context of the task that queued it, so a context variable set when a question begins is seen by every
call made for it. That carries three things: telemetry goes to the right query; a failure that LightRAG
swallows is remembered; and a call that outlives its question, which LightRAG would leave running in one of
the few places of its queue, is cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from lightrag import LightRAG

from cmo_oracle.model_client import ModelError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
    from contextlib import AbstractContextManager

    import numpy as np

    from cmo_oracle.engine_settings import EngineSettings
    from cmo_oracle.model_client import ModelClient, Usage

TOKENS_COMPONENT: Final = "lightrag"
_OUTCOMES: Final = {"api_timeout": "timeout", "rate_limit": "rejected"}


class ComponentCall(Protocol):
    """One call of a component being timed."""

    def outcome(self, outcome: str, /) -> object:
        """Say how it ended, where the exception that ends it does not."""


class QueryTelemetry(Protocol):
    """What the engine reports for one query."""

    def model_call(
        self, component: str, provider: str, model: str, operation: str, /
    ) -> AbstractContextManager[ComponentCall]:
        """Time a call of a model."""


class EngineTelemetry(Protocol):
    """What the engine reports to; an ``Exporter`` is one."""

    def current_query(self) -> QueryTelemetry:
        """The query that the caller's context belongs to."""

    def queue_wait(self, component: str, seconds: float, /) -> object:
        """A call has waited so long for its turn."""

    def queue_depth(self, component: str, value: int, /) -> object:
        """So many calls are waiting now."""

    def tokens(
        self, component: str, provider: str, model: str, /, *, input_tokens: int, output_tokens: int
    ) -> object:
        """A call has used so many tokens."""


class Silence:
    """Telemetry that goes nowhere, for an engine without an exporter."""

    def current_query(self) -> Silence:
        """Itself: it is a query too."""
        return self

    @contextlib.contextmanager
    def model_call(
        self, _component: str, _provider: str, _model: str, _operation: str, /
    ) -> Iterator[Silence]:
        """Time nothing."""
        yield self

    def outcome(self, outcome: str, /) -> None:
        """Say nothing."""

    def queue_wait(self, component: str, seconds: float, /) -> None:
        """Record nothing."""

    def queue_depth(self, component: str, value: int, /) -> None:
        """Record nothing."""

    def tokens(
        self, component: str, provider: str, model: str, /, *, input_tokens: int, output_tokens: int
    ) -> None:
        """Record nothing."""


@dataclass
class Line:
    """The answer and keyword calls of one engine that wait for their turn, over all of its queues."""

    telemetry: EngineTelemetry
    length: int = 0

    def changed(self, by: int) -> None:
        """One more, or one fewer, waits."""
        self.length += by
        self.telemetry.queue_depth("llm", self.length)


@dataclass
class Ticket:
    """One call's place in the line."""

    line: Line
    since: float = field(default_factory=time.monotonic)
    waiting: bool = True

    def start(self) -> None:
        """The call's turn has come."""
        if self.waiting:
            self.line.telemetry.queue_wait("llm", time.monotonic() - self.since)
            self.leave()

    def leave(self) -> None:
        """The call waits no longer: it has started, or its question was given up."""
        if self.waiting:
            self.waiting = False
            self.line.changed(-1)


@dataclass
class Asked:
    """One question under way, as its model calls see it, in whatever task they run."""

    query: QueryTelemetry
    line: Line
    failure: ModelError | None = None
    ended: bool = False
    calls: set[asyncio.Task[Any]] = field(default_factory=set)
    tickets: list[Ticket] = field(default_factory=list)

    def queue(self) -> Ticket:
        """Begin to wait for a place."""
        ticket = Ticket(self.line)
        self.line.changed(1)
        self.tickets.append(ticket)
        return ticket

    @contextlib.contextmanager
    def call(self, component: str, provider: str, model: str, operation: str) -> Iterator[None]:
        """Make a call for this question: timed, its failure remembered, ended when the question ends."""
        task = asyncio.current_task()
        if self.ended or task is None:
            raise asyncio.CancelledError
        self.calls.add(task)
        try:
            with self.query.model_call(component, provider, model, operation) as timed:
                try:
                    yield
                except ModelError as error:
                    self.failure = error
                    timed.outcome(_OUTCOMES.get(error.reason, "error"))
                    raise
        finally:
            self.calls.discard(task)

    def end(self) -> None:
        """Give up whatever still runs or waits for this question, except the task that says so."""
        self.ended = True
        for task in self.calls - {asyncio.current_task()}:
            task.cancel()
        for ticket in self.tickets:
            ticket.leave()


_ASKED: ContextVar[Asked | None] = ContextVar("cmo_oracle_asked", default=None)
_TICKET: ContextVar[Ticket | None] = ContextVar("cmo_oracle_ticket", default=None)


@contextlib.contextmanager
def asking(asked: Asked) -> Iterator[None]:
    """Make every model call that the block sets off a call for this question."""
    reset = _ASKED.set(asked)
    try:
        yield
    finally:
        _ASKED.reset(reset)


class QueuedLightRAG(LightRAG):  # type: ignore[misc]  # lightrag ships no types
    """LightRAG that gives a model call its ticket when it enters a queue, so that its wait can be told."""

    def _wrap_llm_role_func(self, *arguments: Any, **options: Any) -> Callable[..., Awaitable[Any]]:
        queued = super()._wrap_llm_role_func(*arguments, **options)

        @functools.wraps(queued)
        async def with_ticket(*args: Any, **kwargs: Any) -> Any:
            asked = _ASKED.get()
            if asked is None:
                return await queued(*args, **kwargs)
            reset = _TICKET.set(asked.queue())
            try:
                return await queued(*args, **kwargs)
            finally:
                _TICKET.reset(reset)

        return with_ticket


def model_function(
    client: ModelClient, settings: EngineSettings, telemetry: EngineTelemetry
) -> Callable[..., Awaitable[Any]]:
    """The function that LightRAG calls for text.

    A closure and not a method: LightRAG deep-copies its settings for every query, and a bound method would
    take the client and its connections along.
    """
    streams = asyncio.Semaphore(settings.model_calls_at_once)

    def count(usage: Usage) -> None:
        _count(telemetry, settings.provider, settings.model, usage)

    def call(asked: Asked | None) -> AbstractContextManager[None]:
        if asked is None:
            return contextlib.nullcontext()
        return asked.call("llm", settings.provider, settings.model, "chat")

    async def ask(
        prompt: str,
        system_prompt: str | None = None,
        history_messages: list[dict[str, str]] | None = None,
        *,
        stream: bool = False,
        response_format: Any = None,
        **_lightrag_options: Any,
    ) -> Any:
        messages = _messages(prompt, system_prompt, history_messages)
        asked, ticket = _ASKED.get(), _TICKET.get()
        if stream:
            return _stream(client, messages, ticket, streams, call(asked), count)
        if ticket:
            ticket.start()
        options = {"response_format": response_format} if response_format else {}
        with call(asked):
            completion = await client.complete(messages, **options)
            if asked:
                count(completion.usage)
        return completion.text

    return ask


def embedding_function(
    client: ModelClient, settings: EngineSettings, telemetry: EngineTelemetry
) -> Callable[..., Awaitable[np.ndarray[Any, Any]]]:
    """The function that LightRAG calls for vectors; a closure for the same reason."""

    async def embed(texts: list[str], **_lightrag_options: Any) -> np.ndarray[Any, Any]:
        asked = _ASKED.get()
        if asked is None:
            return (await client.embed_with_usage(texts))[0]
        with asked.call("embedding", settings.provider, settings.embedding_model, "embeddings"):
            vectors, usage = await client.embed_with_usage(texts)
            _count(telemetry, settings.provider, settings.embedding_model, usage)
        return vectors

    return embed


async def _stream(
    client: ModelClient,
    messages: list[dict[str, str]],
    ticket: Ticket | None,
    places: asyncio.Semaphore,
    call: AbstractContextManager[None],
    count: Callable[[Usage], None],
) -> AsyncGenerator[str, None]:
    # LightRAG's queue lets a streamed call go before it has begun, so its places are counted here; and all
    # of it runs in the task that reads the stream, which therefore ends it by being cancelled.
    async with places:
        if ticket:
            ticket.start()
        with call:
            async with contextlib.aclosing(client.stream(messages, on_usage=count)) as pieces:
                async for piece in pieces:
                    yield piece


def _messages(
    prompt: str, system_prompt: str | None, history: list[dict[str, str]] | None
) -> list[dict[str, str]]:
    system = [{"role": "system", "content": system_prompt}] if system_prompt else []
    return [*system, *(history or []), {"role": "user", "content": prompt}]


def _count(telemetry: EngineTelemetry, provider: str, model: str, usage: Usage) -> None:
    telemetry.tokens(
        TOKENS_COMPONENT, provider, model, input_tokens=usage.input_tokens, output_tokens=usage.output_tokens
    )
