"""Perplexity, the first fallback: the question alone, without our passages, to an OpenAI-compatible model."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from cmo_oracle.failures import API_TIMEOUT, UNKNOWN_ERROR, SourceFailedError, describe
from cmo_oracle.model_client import ModelError

if TYPE_CHECKING:
    from cmo_exporter import Exporter, Query

    from cmo_oracle.model_client import ModelClient, Usage
    from cmo_oracle.output import Output
    from cmo_oracle.profile import Model
    from cmo_oracle.question import Question

COMPONENT: Final = "perplexity"
_INSTRUCTION: Final = (
    "You answer questions on clinical metabolomics for clinicians and researchers. Be brief and precise, "
    "and say so when the evidence is weak."
)

_log = logging.getLogger(__name__)


class Perplexity:
    """Answers from Perplexity, or raises SourceFailedError."""

    def __init__(
        self, client: ModelClient, model: Model, *, timeout_seconds: float, exporter: Exporter
    ) -> None:
        self._client = client
        self._model = model
        self._timeout_seconds = timeout_seconds
        self._exporter = exporter

    async def answer(self, question: Question, output: Output, query: Query) -> str:
        """The answer, having been written to ``output`` piece by piece if the user wants it streamed.

        Raises:
            SourceFailedError: there is none; the reason says why.
        """
        with query.model_call(COMPONENT, self._model.provider, self._model.name) as call:
            try:
                async with asyncio.timeout(self._timeout_seconds):
                    return await self._ask(question, output)
            except TimeoutError:
                call.outcome("timeout")
                raise SourceFailedError(API_TIMEOUT) from None
            except ModelError as error:
                call.outcome("timeout" if error.reason == API_TIMEOUT else "error")
                raise SourceFailedError(error.reason) from None
            except Exception as error:  # noqa: BLE001 - whatever a library raises, the user gets a fallback
                _log.error("perplexity failed unexpectedly: %s", describe(error))
                call.outcome("error")
                raise SourceFailedError(UNKNOWN_ERROR) from None

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _ask(self, question: Question, output: Output) -> str:
        messages = [
            {"role": "system", "content": _INSTRUCTION},
            {"role": "user", "content": question.text},
        ]
        if output.streamed:
            pieces = []
            async with aclosing(self._client.stream(messages, on_usage=self._count)) as stream:
                async for piece in stream:
                    pieces.append(piece)
                    await output.write(piece)
            return "".join(pieces)
        completion = await self._client.complete(messages)
        self._count(completion.usage)
        return completion.text

    def _count(self, usage: Usage) -> None:
        self._exporter.tokens(
            COMPONENT,
            self._model.provider,
            self._model.name,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
        )
