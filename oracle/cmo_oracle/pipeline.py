"""The way of one query: caches, then LightRAG, then Perplexity, then an apology.

Two accounts are kept of it, side by side and never one from the other: the trail, which the response
carries, and the calls of the exporter's interface.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cmo_oracle.caches import CacheError, cache_key, keep
from cmo_oracle.failures import SourceFailedError, describe
from cmo_oracle.output import Output
from cmo_oracle.trail import Trail

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from cmo_exporter import Exporter, Query

    from cmo_oracle.caches import RestingTier
    from cmo_oracle.guarded_engine import GuardedEngine
    from cmo_oracle.perplexity import Perplexity
    from cmo_oracle.profile import QueryLimits
    from cmo_oracle.question import Question

APOLOGY: Final = (
    "I apologise: I cannot answer this question at the moment. Please try again in a few minutes, and ask a "
    "colleague in the laboratory if it is urgent."
)
TOO_LATE: Final = "I apologise: finding an answer took too long. Please try again."
TOO_BUSY: Final = (
    "I apologise: too many questions are being answered at the moment. Please try again shortly."
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reply:
    """What the user is told, and how it came about."""

    answer: str
    trail: Trail


@dataclass(frozen=True)
class _Journey:
    """One query on its way: what it asks, where its answer goes, and the two accounts of it."""

    question: Question
    output: Output
    query: Query
    trail: Trail


class Pipeline:
    """Answers queries. ``version`` tells the answers of one index and model from those of another."""

    def __init__(
        self,
        *,
        exporter: Exporter,
        limits: QueryLimits,
        tiers: Sequence[RestingTier],
        engine: GuardedEngine,
        perplexity: Perplexity | None,
        version: str,
    ) -> None:
        self._exporter = exporter
        self._limits = limits
        self._tiers = tuple(tiers)
        self._engine = engine
        self._perplexity = perplexity
        self._version = version
        self._in_progress = 0

    async def run(self, question: Question, emit: Callable[[str], Awaitable[None]] | None = None) -> Reply:
        """Answer a question within the deadline, streaming pieces to ``emit`` if it is given.

        A refusal, a time-out or a failure is a reply like any other; only cancellation is raised.
        """
        query = self._exporter.current_query()
        journey = _Journey(question, Output(query, emit), query, Trail())
        if self._in_progress >= self._limits.at_once:
            reply = self._reject(journey)
        else:
            self._in_progress += 1
            try:
                reply = await self._within_deadline(journey)
            finally:
                self._in_progress -= 1
        journey.trail.breaker = self._engine.breaker_state
        return reply

    def _reject(self, journey: _Journey) -> Reply:
        journey.trail.outcome = "rejected"
        journey.query.cache_result("bypass")
        journey.query.rejected()
        return Reply(TOO_BUSY, journey.trail)

    async def _within_deadline(self, journey: _Journey) -> Reply:
        trail, query = journey.trail, journey.query
        try:
            async with asyncio.timeout(self._limits.deadline_seconds):
                source, answer = await self._answer(journey)
        except TimeoutError:
            trail.outcome = "timeout"
            query.timed_out()
            return Reply(TOO_LATE, trail)
        except Exception as error:  # noqa: BLE001 - whatever is wrong, the user gets an apology
            _log.error("a query failed unexpectedly: %s", describe(error))
            trail.outcome = "error"
            query.failed()
            return Reply(APOLOGY, trail)
        if source is None:
            trail.outcome = "error"
            query.failed()
        else:
            trail.answered(source)
            query.answered(source)
        return Reply(answer, trail)

    async def _answer(self, journey: _Journey) -> tuple[str | None, str]:
        """The source and the answer. No source: the answer broke off after its first piece."""
        key = cache_key(journey.question.text, journey.question.mode, self._version)
        cached = await self._from_caches(key, journey)
        if cached is not None:
            await journey.output.write(cached)
            return "cache", cached
        source, answer = await self._from_sources(journey)
        if source in ("lightrag", "perplexity"):
            await keep(self._tiers, key, answer)
        return source, answer

    async def _from_caches(self, key: str, journey: _Journey) -> str | None:
        result = "bypass"  # stays so when the deadline passes, or the user leaves, during the look-ups
        try:
            for position, tier in enumerate(self._tiers):
                found = await self._look_up(tier, key, journey)
                if found is not None:
                    result = "hit"
                    await keep(self._tiers[:position], key, found)
                    return found
            result = "miss"
            return None
        finally:
            journey.trail.cache = result
            journey.query.cache_result(result)

    async def _look_up(self, tier: RestingTier, key: str, journey: _Journey) -> str | None:
        found: str | None = None
        with journey.query.component(f"cache_{tier.name}") as call:
            try:
                found = await tier.get(key)
                result = "miss" if found is None else "hit"
            except CacheError:
                result = "error"
                call.outcome("error")
        journey.trail.looked_up(tier.name, result)
        journey.query.cache_request(tier.name, result)
        return found

    async def _from_sources(self, journey: _Journey) -> tuple[str | None, str]:
        question, output, query, trail = journey.question, journey.output, journey.query, journey.trail
        try:
            return "lightrag", await self._engine.answer(question, output, query, trail)
        except SourceFailedError as error:
            if output.begun:
                return None, ""
            target = "default" if self._perplexity is None else "perplexity"
            self._fall_back(journey, "lightrag", target, error.reason)
        if self._perplexity is not None:
            try:
                return "perplexity", await self._perplexity.answer(question, output, query)
            except SourceFailedError as error:
                if output.begun:
                    return None, ""
                self._fall_back(journey, "perplexity", "default", error.reason)
        await output.write(APOLOGY)
        return "default", APOLOGY

    def _fall_back(self, journey: _Journey, source: str, target: str, reason: str) -> None:
        journey.trail.fell_back(source, target, reason)
        journey.query.fallback(source=source, target=target, reason=reason)
