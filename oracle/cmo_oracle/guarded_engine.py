"""The engine behind its breaker, its time-out and its retries.

From outside to inside: the breaker refuses or admits a call; the time-out bounds the call with all its
attempts, and is inside the breaker, so that the breaker sees time-outs and not cancellations; attempts
are repeated with exponential waits and jitter as long as another wait fits into the time-out, and
only while the user has not been sent a piece of the answer.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    stop_any,
    stop_before_delay,
    wait_exponential_jitter,
)

from cmo_oracle.breaker import Breaker, BreakerOpenError
from cmo_oracle.engine_settings import EngineError
from cmo_oracle.failures import (
    API_TIMEOUT,
    CIRCUIT_BREAKER_OPEN,
    SERVICE_UNAVAILABLE,
    UNKNOWN_ERROR,
    WORTH_RETRYING,
    SourceFailedError,
    describe,
)
from cmo_oracle.model_client import ModelError

if TYPE_CHECKING:
    from cmo_exporter import Exporter, Query

    from cmo_oracle.engine import Engine
    from cmo_oracle.output import Output
    from cmo_oracle.profile import LightRAG
    from cmo_oracle.question import Question
    from cmo_oracle.trail import Trail

COMPONENT: Final = "lightrag"
_LOW_CONFIDENCE: Final = "low_confidence"

_log = logging.getLogger(__name__)


class GuardedEngine:
    """Answers from LightRAG, or raises SourceFailedError. ``engine`` is None until the index is loaded."""

    def __init__(self, settings: LightRAG, exporter: Exporter) -> None:
        self.engine: Engine | None = None
        self._settings = settings
        self._exporter = exporter
        self._breaker = Breaker(
            COMPONENT,
            failure_threshold=settings.breaker.failure_threshold,
            recovery_seconds=settings.breaker.recovery_seconds,
            on_state=lambda state: exporter.breaker_state(COMPONENT, state),
            not_failures=_shows_it_working,
        )

    @property
    def breaker_state(self) -> str:
        """The state of the circuit breaker."""
        return self._breaker.state

    async def answer(self, question: Question, output: Output, query: Query, trail: Trail) -> str:
        """The answer, having been written to ``output`` piece by piece if the user wants it streamed.

        Raises:
            SourceFailedError: there is none; the reason says why.
        """
        if self.engine is None:
            raise SourceFailedError(SERVICE_UNAVAILABLE)
        with query.component(COMPONENT) as call:
            try:
                async with self._breaker.guard(), asyncio.timeout(self._settings.timeout_seconds):
                    return await self._attempts(self.engine, question, output, trail)
            except BreakerOpenError as refusal:
                call.outcome("rejected")
                self._exporter.breaker_rejection(COMPONENT, refusal.state)
                raise SourceFailedError(CIRCUIT_BREAKER_OPEN) from None
            except TimeoutError:
                call.outcome("timeout")
                raise SourceFailedError(API_TIMEOUT) from None
            except (EngineError, ModelError) as error:
                call.outcome("timeout" if error.reason == API_TIMEOUT else "error")
                raise SourceFailedError(error.reason) from None
            except Exception as error:  # noqa: BLE001 - whatever a library raises, the user gets a fallback
                _log.error("lightrag failed unexpectedly: %s", describe(error))
                call.outcome("error")
                raise SourceFailedError(UNKNOWN_ERROR) from None

    async def _attempts(self, engine: Engine, question: Question, output: Output, trail: Trail) -> str:
        retries = self._settings.retries

        def again(_state: RetryCallState) -> None:
            trail.retries += 1
            self._exporter.retry(COMPONENT)

        retrying = AsyncRetrying(
            stop=stop_any(
                stop_after_attempt(1 + retries.times), stop_before_delay(self._settings.timeout_seconds)
            ),
            wait=wait_exponential_jitter(
                initial=retries.first_wait_seconds,
                max=retries.longest_wait_seconds,
                jitter=retries.first_wait_seconds,
            ),
            retry=retry_if_exception(lambda error: not output.begun and _worth_retrying(error)),
            before_sleep=again,
            reraise=True,
        )
        return str(await retrying(_attempt, engine, question, output))


async def _attempt(engine: Engine, question: Question, output: Output) -> str:
    if not output.streamed:
        return await engine.answer(question.text, question.mode)
    pieces = []
    async with aclosing(engine.stream(question.text, question.mode)) as stream:
        async for piece in stream:
            pieces.append(piece)
            await output.write(piece)
    return "".join(pieces)


def _worth_retrying(error: BaseException) -> bool:
    return isinstance(error, EngineError | ModelError) and error.reason in WORTH_RETRYING


def _shows_it_working(error: BaseException) -> bool:
    """An engine that finds nothing to say is not an engine that is down."""
    return isinstance(error, EngineError) and error.reason == _LOW_CONFIDENCE
