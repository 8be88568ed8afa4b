"""OpenAI's client, and whatever speaks its protocol: calls, tokens, cost, and the time to the first token.

Every call of the client passes through its method ``request``, with all its attempts, so that is where a
call is timed. A streamed call is over when its stream is. Tokens are what the provider reports; some send
the sum so far with every piece, so the last report counts.
"""

from __future__ import annotations

import functools
import inspect
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

from cmo_exporter import catalogue
from cmo_exporter.adapters.calls import Listener, OpenCall, WatchedIterator, WatchedStream, outcome_of
from cmo_exporter.adapters.instrumented import Quietly, mark

if TYPE_CHECKING:
    from collections.abc import Callable

    from cmo_exporter.exporter import Exporter

Client = TypeVar("Client")

_RETRY_HEADER: Final = "x-stainless-retry-count"
# What a path asks for, in the words of OpenTelemetry's conventions; chats and responses are chats.
_OPERATIONS: Final = {"/completions": "text_completion", "/embeddings": "embeddings"}
_FAILED_EVENTS: Final = frozenset({"error", "response.failed"})
_LAST_EVENTS: Final = frozenset({"response.completed", "response.incomplete"})
_FIRST_WORDS: Final = ("content", "reasoning_content", "refusal", "tool_calls", "function_call")


def instrument_openai(
    client: Client,
    exporter: Exporter,
    *,
    component: str,
    provider: str,
    tokens_component: str | None = None,
) -> Client:
    """Make an ``OpenAI`` or ``AsyncOpenAI`` report its model calls.

    Args:
        client: the client; it is returned. What ``with_options`` makes of it reports as well.
        exporter: where it reports. Its ``models`` and ``prices`` name what tokens are counted and cost.
        component: what a call counts as.
        provider: the provider's name in the settings' ``models``.
        tokens_component: the component in the settings' ``models``, where it is another.
    """
    caller = _Caller(exporter, component, provider, tokens_component or component)
    with Quietly(exporter, catalogue.LLM_TOKENS):
        if mark(client):
            _measure(client, caller)
    return client


class _Caller:
    """What the calls of one client have in common."""

    def __init__(self, exporter: Exporter, component: str, provider: str, tokens_component: str) -> None:
        self.exporter = exporter
        self.component = component
        self.provider = provider
        self.tokens_component = tokens_component


def _measure(client: Any, caller: _Caller) -> None:
    asynchronous = inspect.iscoroutinefunction(client.request)
    client.request = (_measured_async if asynchronous else _measured)(client.request, caller)
    counted = _retries_counted_async if asynchronous else _retries_counted
    client._prepare_request = counted(client._prepare_request, caller)  # noqa: SLF001 - called once an attempt
    for name in ("copy", "with_options"):
        setattr(client, name, _measured_copy(getattr(client, name), caller))


def _measured_copy(copy: Callable[..., Any], caller: _Caller) -> Callable[..., Any]:
    @functools.wraps(copy)
    def measured(*args: Any, **kwargs: Any) -> Any:
        return instrument_openai(
            copy(*args, **kwargs),
            caller.exporter,
            component=caller.component,
            provider=caller.provider,
            tokens_component=caller.tokens_component,
        )

    return measured


def _retries_counted(prepare: Callable[[Any], None], caller: _Caller) -> Callable[[Any], None]:
    @functools.wraps(prepare)
    def counted(request: Any) -> None:
        _count_retry(request, caller)
        return prepare(request)

    return counted


def _retries_counted_async(prepare: Callable[[Any], Any], caller: _Caller) -> Callable[[Any], Any]:
    @functools.wraps(prepare)
    async def counted(request: Any) -> Any:
        _count_retry(request, caller)
        return await prepare(request)

    return counted


def _count_retry(request: Any, caller: _Caller) -> None:
    with Quietly(caller.exporter, catalogue.RETRIES):
        if request.method == "POST" and request.headers.get(_RETRY_HEADER, "0") != "0":
            caller.exporter.retry(caller.component)


def _measured(request: Callable[..., Any], caller: _Caller) -> Callable[..., Any]:
    @functools.wraps(request)
    def measured(*args: Any, **kwargs: Any) -> Any:
        call = _begun(caller, args, kwargs)
        if call is None:
            return request(*args, **kwargs)
        try:
            result = request(*args, **kwargs)
        except BaseException as error:
            call.end(error)
            raise
        call.returned(result)
        return result

    return measured


def _measured_async(request: Callable[..., Any], caller: _Caller) -> Callable[..., Any]:
    @functools.wraps(request)
    async def measured(*args: Any, **kwargs: Any) -> Any:
        call = _begun(caller, args, kwargs)
        if call is None:
            return await request(*args, **kwargs)
        try:
            result = await request(*args, **kwargs)
        except BaseException as error:
            call.end(error)
            raise
        call.returned(result)
        return result

    return measured


def _begun(caller: _Caller, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _ModelCall | None:
    """The call that this request is; None for one that asks no model, such as for the list of models."""
    with Quietly(caller.exporter, catalogue.COMPONENT_CALLS):
        options = kwargs.get("options") or args[1]
        body = getattr(options, "json_data", None)
        model = body.get("model") if isinstance(body, dict) else None
        if isinstance(model, str):
            operation = _OPERATIONS.get(options.url, "chat")
            return _ModelCall(caller, model, operation, streamed=bool(kwargs.get("stream")))
    return None


class _ModelCall(Listener):
    """One model call, its attempts and its stream included."""

    def __init__(self, caller: _Caller, model: str, operation: str, *, streamed: bool) -> None:
        self._streamed = streamed
        self._caller = caller
        self._model = model
        self._began = time.monotonic()
        query = caller.exporter.current_query()
        self._call = OpenCall(query.model_call(caller.component, caller.provider, model, operation))
        self._usage: Any = None
        self._counted = False
        self._first_token_seen = False
        self._failed = False
        self._said_done = False

    def returned(self, result: Any) -> None:
        """The client returned an answer, a stream, or a response that is still to be parsed."""
        with Quietly(self._caller.exporter, catalogue.COMPONENT_CALLS):
            if hasattr(result, "_iterator"):
                self._watch(result)
            elif hasattr(result, "parse") and not hasattr(result, "model_fields_set"):
                self._watch_parsing(result)
            else:
                self._read(result)

    def piece(self, piece: Any) -> None:
        with Quietly(self._caller.exporter, catalogue.LLM_TIME_TO_FIRST_TOKEN):
            self._note(piece)
            if not self._first_token_seen and _says_something(piece):
                self._first_token_seen = True
                caller = self._caller
                caller.exporter.llm_first_token(
                    caller.tokens_component, caller.provider, self._model, time.monotonic() - self._began
                )

    def end(self, error: BaseException | None) -> None:
        """The call is over. A stream that stops before the model has said that it is done broke off."""
        broke_off = self._streamed and not self._said_done
        failed = error is None and (self._failed or broke_off)
        self._count_tokens()  # first, for what has ended takes nothing more
        self._call.end("error" if failed else outcome_of(error))

    def _watch(self, stream: Any) -> None:
        source = stream._iterator  # noqa: SLF001 - exchanging it leaves the stream's own type and identity
        if hasattr(source, "__anext__"):
            watched: Any = WatchedStream(source, self)
        else:
            watched = WatchedIterator(source, self)
        stream._iterator = watched  # noqa: SLF001 - as above
        response = stream.response
        for name in ("close", "aclose"):
            if hasattr(response, name):
                setattr(response, name, _heard_close(getattr(response, name), watched))

    def _watch_parsing(self, raw: Any) -> None:
        """``with_raw_response``: the caller parses when it likes, or never; a stream begins only then."""
        parse = raw.parse
        if inspect.iscoroutinefunction(parse) or not self._streamed:
            self._call.end("success")
        if inspect.iscoroutinefunction(parse):
            return

        @functools.wraps(parse)
        def parsed(*args: Any, **kwargs: Any) -> Any:
            result = parse(*args, **kwargs)
            if mark(raw):
                self.returned(result)
            return result

        raw.parse = parsed

    def _read(self, answer: Any) -> None:
        self._note(answer)
        # Some providers answer 200 with an error in place of the choices.
        self._failed = self._failed or (hasattr(answer, "choices") and not answer.choices)
        self.end(None)

    def _note(self, piece: Any) -> None:
        """Remember what a piece says about tokens and about the end."""
        whole = getattr(piece, "response", None) or piece  # events of the Responses API carry the answer
        self._usage = getattr(whole, "usage", None) or self._usage
        kind = getattr(piece, "type", None)
        self._failed = self._failed or kind in _FAILED_EVENTS
        if self._streamed and (kind is None or not kind.startswith("response.")):
            self._said_done = self._said_done or _finished(piece)
        else:
            self._said_done = self._said_done or kind in _LAST_EVENTS

    def _count_tokens(self) -> None:
        usage = self._usage
        if usage is None or self._counted:
            return
        self._counted = True
        caller = self._caller
        with Quietly(caller.exporter, catalogue.LLM_TOKENS):
            self._call.context.run(
                caller.exporter.tokens,
                caller.tokens_component,
                caller.provider,
                self._model,
                input_tokens=_number(usage, "prompt_tokens", "input_tokens"),
                output_tokens=_number(usage, "completion_tokens", "output_tokens"),
            )


def _finished(piece: Any) -> bool:
    """Whether a piece may be the last with content: of a chat the one with a reason, elsewhere any."""
    if not hasattr(piece, "choices"):
        return True
    return any(getattr(choice, "finish_reason", None) for choice in piece.choices or ())


def _says_something(piece: Any) -> bool:
    if str(getattr(piece, "type", "")).endswith(".delta"):
        return True
    for choice in getattr(piece, "choices", None) or ():
        delta = getattr(choice, "delta", None)
        if getattr(choice, "text", None) or any(getattr(delta, name, None) for name in _FIRST_WORDS):
            return True
    return False


def _number(usage: Any, *names: str) -> int:
    return next((int(value) for name in names if (value := getattr(usage, name, None)) is not None), 0)


def _heard_close(close: Callable[[], Any], watched: WatchedStream | WatchedIterator) -> Callable[[], Any]:
    @functools.wraps(close)
    def heard() -> Any:
        watched.closed_from_outside()
        return close()

    return heard
