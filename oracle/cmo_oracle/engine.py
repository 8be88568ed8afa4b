"""The answering engine: LightRAG over the corpus, made to say the truth about itself.

LightRAG returns ``None``, an apology or a status where a model call has failed; here that is an
``EngineError`` with a reason. Its own answer cache is off, because it would hide the model, and so is its
log, because it writes questions into it. How its model calls are attributed is in ``engine_calls``; how
its index is kept, in ``engine_index``.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Self

from lightrag import QueryParam

from cmo_oracle.corpus import Passage, load_corpus
from cmo_oracle.engine_calls import Asked, EngineTelemetry, Line, QueuedLightRAG, Silence, asking
from cmo_oracle.engine_index import LIGHTRAG_VERSION, close_rag, ensure_index, make_rag
from cmo_oracle.engine_settings import MODES, EngineError, EngineSettings, check_mode
from cmo_oracle.model_client import ModelClient, ModelError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

__all__ = ["LIGHTRAG_VERSION", "MODES", "Engine", "EngineError", "EngineSettings", "EngineTelemetry"]


class Engine:
    """Answers questions from an index that is ready. Made by ``open``, ended by ``close``."""

    def __init__(
        self, settings: EngineSettings, rag: QueuedLightRAG, client: ModelClient, telemetry: EngineTelemetry
    ) -> None:
        self.settings = settings
        self._rag = rag
        self._client = client
        self._telemetry = telemetry
        self._line = Line(telemetry)

    @classmethod
    async def open(
        cls,
        settings: EngineSettings,
        telemetry: EngineTelemetry | None = None,
        *,
        passages: tuple[Passage, ...] | None = None,
    ) -> Self:
        """Load the index, building it first where it is not there; the engine is ready when this returns.

        Args:
            settings: all that it is told.
            telemetry: where calls, waits and tokens are reported, such as an ``Exporter``.
            passages: what to answer from; the shipped corpus if left out.

        Raises:
            CorpusError: the corpus cannot be read.
            EngineError: the index could not be built.
            OSError: the working directory cannot be written.
        """
        reporting = telemetry or Silence()
        workspace = await ensure_index(settings, passages or load_corpus())
        client = ModelClient(
            base_url=settings.model_base_url,
            api_key=settings.api_key,
            model=settings.model,
            embedding_model=settings.embedding_model,
            timeout_seconds=settings.model_timeout_seconds,
            # Keywords, answers, embeddings and streams each have so many places: none waits for a connection.
            max_connections=4 * settings.model_calls_at_once,
        )
        rag = make_rag(settings, client, reporting, workspace, settings.model_calls_at_once)
        await rag.initialize_storages()
        return cls(settings, rag, client, reporting)

    async def answer(self, question: str, mode: str | None = None) -> str:
        """Answer a question from the corpus.

        Args:
            question: the user's words.
            mode: one of ``MODES``; the default of the settings if left out.

        Raises:
            EngineError: there is no answer; its reason says why.
            ValueError: there is no such mode.
        """
        parameters = self._parameters(mode, stream=False)
        with self._asked() as asked:
            return str((await self._ask(asked, question, parameters))["content"])

    async def stream(self, question: str, mode: str | None = None) -> AsyncGenerator[str, None]:
        """Answer a question piece by piece, as the model writes.

        Raises:
            EngineError: there is no answer, or it broke off; its reason says why.
            ValueError: there is no such mode.
        """
        parameters = self._parameters(mode, stream=True)
        with self._asked() as asked:
            reply = await self._ask(asked, question, parameters)
            try:
                async with contextlib.aclosing(reply["response_iterator"]) as pieces:
                    async for piece in pieces:
                        yield piece
            except ModelError as error:
                raise EngineError(error.reason, str(error)) from None

    async def retrieve(self, question: str, mode: str | None = None) -> list[str]:
        """The names of the passages that a question's context is made of, without answering it.

        Raises:
            EngineError: a model call failed.
            ValueError: there is no such mode.
        """
        with self._asked() as asked, asking(asked):
            found = await self._rag.aquery_data(question, self._parameters(mode, stream=False))
        if asked.failure and found.get("status") == "failure":
            raise EngineError(asked.failure.reason, str(asked.failure))
        chunks = found.get("data", {}).get("chunks", [])
        return list(dict.fromkeys(str(chunk["file_path"]).removesuffix(".md") for chunk in chunks))

    async def close(self) -> None:
        """Give up calls under way and close the index; the index stays on disk."""
        await close_rag(self._rag)
        await self._client.close()

    @contextlib.contextmanager
    def _asked(self) -> Iterator[Asked]:
        asked = Asked(self._telemetry.current_query(), self._line)
        try:
            yield asked
        finally:
            asked.end()

    async def _ask(self, asked: Asked, question: str, parameters: QueryParam) -> dict[str, Any]:
        try:
            with asking(asked):
                result: dict[str, Any] = await self._rag.aquery_llm(question, parameters)
        except ValueError:
            # LightRAG refuses questions of fewer than three letters before it does anything.
            raise EngineError("low_confidence", "The question is too short to retrieve anything.") from None
        reply: dict[str, Any] = result.get("llm_response") or {}
        if reply.get("llm_generated") and (reply.get("content") or reply.get("response_iterator")):
            return reply
        raise _no_answer(result, asked.failure)

    def _parameters(self, mode: str | None, *, stream: bool) -> QueryParam:
        chosen = mode or self.settings.default_mode
        check_mode(chosen)
        return QueryParam(
            mode=chosen,
            stream=stream,
            top_k=self.settings.entities_per_query,
            chunk_top_k=self.settings.chunks_per_query,
            enable_rerank=False,
        )


def _no_answer(result: dict[str, Any], failure: ModelError | None) -> EngineError:
    if failure:
        return EngineError(failure.reason, str(failure))
    if result.get("status") == "failure" and result.get("metadata", {}).get("failure_reason") != "no_results":
        return EngineError("unknown_error", "LightRAG failed for a reason of its own.")
    return EngineError("low_confidence", "Nothing in the corpus is near enough to the question.")
