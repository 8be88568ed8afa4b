"""The one client of language models: OpenAI's, without its habits.

As it comes, the OpenAI client asks three times for a failing call and waits up to ten minutes for each;
retries belong to the service, which counts them, so here a call is one request with one deadline. Every
failure becomes a ``ModelError`` with a reason of the metric catalogue, and never carries a prompt: the
questions are clinical.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import openai

from cmo_oracle.loopback import is_loopback

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

# Shorter than any server's keep-alive that we know (the stub's is 120 s, uvicorn's default 5 s is too short),
# so that a request is not sent into a connection that the server is closing.
_KEEP_ALIVE_SECONDS: Final = 15.0
_CONNECT_SECONDS: Final = 5.0
_TOO_MANY_REQUESTS: Final = 429
_TIMEOUT_STATUSES: Final = frozenset({408, 504})
_UNAVAILABLE_STATUSES: Final = frozenset({502, 503, 529})


class ModelError(Exception):
    """A model call failed.

    Attributes:
        reason: ``api_timeout``, ``api_error``, ``rate_limit`` or ``service_unavailable``.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Usage:
    """Tokens of one call, as the provider counts them."""

    input_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class Completion:
    """A whole answer, and what it used."""

    text: str
    usage: Usage


class ModelClient:
    """Calls to one model behind one base URL, over one pool of connections.

    Args:
        base_url: up to and including the version, for example ``http://127.0.0.1:8090/v1``.
        api_key: sent as a bearer token.
        model: the model's name, for completions; embeddings may name another.
        timeout_seconds: deadline of a whole completion; for a stream, of its first piece and between pieces.
        max_connections: size of the pool; make it at least the number of calls at once.
        embedding_model: the model that ``embed`` asks for; ``model`` if left out.
    """

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str,
        model: str,
        timeout_seconds: float,
        max_connections: int,
        embedding_model: str | None = None,
    ) -> None:
        self.model = model
        self._embedding_model = embedding_model or model
        self._timeout_seconds = timeout_seconds
        # One deadline rules each call, ours; the transport only bounds how long connecting may take.
        timeout = openai.Timeout(None, connect=min(_CONNECT_SECONDS, timeout_seconds))
        # openai has changed its HTTP library once (httpx2 since 3.0): take the type that it uses itself.
        limits = type(openai.DEFAULT_CONNECTION_LIMITS)(
            max_connections=max_connections,
            max_keepalive_connections=max_connections,
            keepalive_expiry=_KEEP_ALIVE_SECONDS,
        )
        self._client = openai.AsyncOpenAI(
            base_url=base_url,
            api_key=api_key,
            max_retries=0,
            timeout=timeout,
            http_client=openai.DefaultAsyncHttpxClient(
                limits=limits,
                timeout=timeout,
                # A proxy is for the outside; the stub is on this machine.
                trust_env=not is_loopback(base_url),
            ),
        )

    async def complete(self, messages: list[dict[str, str]], **options: Any) -> Completion:
        """Ask for a whole answer.

        Raises:
            ModelError: no usable answer within the deadline.
        """
        asked: Any = messages
        async with _Deadline(self._timeout_seconds):
            reply = await self._client.chat.completions.create(model=self.model, messages=asked, **options)
            text = reply.choices[0].message.content if reply.choices else None
        if not text:
            raise ModelError("api_error", "The model's answer is empty.")
        return Completion(text, _usage(reply.usage))

    async def stream(
        self,
        messages: list[dict[str, str]],
        *,
        on_usage: Callable[[Usage], None] | None = None,
        **options: Any,
    ) -> AsyncGenerator[str, None]:
        """Ask for an answer in pieces, each handed on when it arrives.

        Args:
            messages: the conversation.
            on_usage: called once, after the last piece, if the provider reports what was used.
            options: further fields of the request.

        Raises:
            ModelError: the stream did not begin, stopped for longer than the deadline, or broke off.
        """
        asked: Any = messages
        async with _Deadline(self._timeout_seconds):
            chunks = await self._client.chat.completions.create(
                model=self.model,
                messages=asked,
                stream=True,
                stream_options={"include_usage": True},
                **options,
            )
        try:
            finished = False
            while True:
                async with _Deadline(self._timeout_seconds):
                    chunk = await anext(chunks, None)
                if chunk is None:
                    break
                for choice in chunk.choices[:1]:
                    finished = finished or choice.finish_reason is not None
                    if choice.delta.content:
                        yield choice.delta.content
                if chunk.usage and on_usage:
                    on_usage(_usage(chunk.usage))
            if not finished:
                raise ModelError("api_error", "The model's answer broke off.")
        finally:
            await chunks.close()

    async def embed(self, texts: list[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The vectors of texts, one row each, in their order.

        Raises:
            ModelError: no usable answer within the deadline.
        """
        vectors, _ = await self.embed_with_usage(texts)
        return vectors

    async def embed_with_usage(self, texts: list[str]) -> tuple[np.ndarray[Any, np.dtype[np.float32]], Usage]:
        """As ``embed``, with the tokens used.

        Raises:
            ModelError: no usable answer within the deadline.
        """
        async with _Deadline(self._timeout_seconds):
            reply = await self._client.embeddings.create(model=self._embedding_model, input=texts)
        rows = [row.embedding for row in sorted(reply.data, key=lambda row: row.index)]
        if len(rows) != len(texts):
            raise ModelError("api_error", f"{len(rows)} embeddings came for {len(texts)} texts.")
        read = reply.usage.prompt_tokens if reply.usage else 0
        return np.asarray(rows, dtype=np.float32), Usage(read, 0)

    async def close(self) -> None:
        """Close the pool; calls under way end with an error."""
        await self._client.close()


class _Deadline:
    """A block with one deadline whose failures leave as ``ModelError``; cancellation passes untouched."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._timeout = asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: Any
    ) -> None:
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError:
            raise ModelError("api_timeout", f"The model did not answer within {self._seconds:g} s.") from None
        failure = _model_error(error)
        if failure:
            raise failure from None  # a provider's error may quote the prompt


def _model_error(error: BaseException | None) -> ModelError | None:
    if isinstance(error, openai.APITimeoutError):
        return ModelError("api_timeout", "The model could not be connected to in time.")
    if isinstance(error, openai.APIStatusError):
        status = error.status_code
        return ModelError(_reason(status), f"The model answered with HTTP status {status}.")
    transport = type(error).__module__.startswith("httpx")  # what a stream raises; openai wraps only the rest
    if transport or isinstance(error, openai.APIConnectionError):
        return ModelError("service_unavailable", "The model cannot be reached, or closed the connection.")
    malformed = (openai.OpenAIError, ValueError, TypeError, AttributeError, LookupError)
    if isinstance(error, malformed):
        return ModelError("api_error", "The model's answer is malformed.")
    return None


def _reason(status: int) -> str:
    if status == _TOO_MANY_REQUESTS:
        return "rate_limit"
    if status in _TIMEOUT_STATUSES:
        return "api_timeout"
    return "service_unavailable" if status in _UNAVAILABLE_STATUSES else "api_error"


def _usage(reported: Any) -> Usage:
    if reported is None:
        return Usage(0, 0)
    return Usage(int(reported.prompt_tokens or 0), int(reported.completion_tokens or 0))
