"""A circuit breaker for coroutines that lets exactly one probe through when it is half open.

purgatory keeps the state machine. Used directly it has four faults for a service like this one, each of
which is mended here: half open, it lets every waiting call through; a cancelled call, excluded or not, ends
as a failure or as a success (and so closes a half-open breaker); a call that began before the breaker opened
still decides when it ends; and the exception of an open breaker is one object that is raised again and again,
whose traceback grows with every refusal and keeps the refused calls' frames alive.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from purgatory import AsyncCircuitBreakerFactory
from purgatory.domain.model import OpenedState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from purgatory import Event
    from purgatory.service._async.circuitbreaker import AsyncCircuitBreaker

CLOSED: Final = "closed"
OPEN: Final = "open"
HALF_OPEN: Final = "half_open"

# The metric catalogue's words for purgatory's states.
_STATES: Final = {"closed": CLOSED, "opened": OPEN, "half-opened": HALF_OPEN}


class BreakerOpenError(Exception):
    """The call was refused; ``state`` is the state the breaker was in."""

    def __init__(self, state: str) -> None:
        super().__init__(f"the circuit breaker is {state}")
        self.state = state


class Breaker:
    """Guards one component. Not thread-safe: it belongs to one event loop.

    Args:
        component: name of what is guarded.
        failure_threshold: failures in a row that open it.
        recovery_seconds: how long it stays open before it lets a probe through.
        on_state: told the state at the start and after every transition.
        not_failures: exceptions that show the component working; they count as successes.
    """

    def __init__(
        self,
        component: str,
        *,
        failure_threshold: int,
        recovery_seconds: float,
        on_state: Callable[[str], None],
        not_failures: Callable[[BaseException], bool] = lambda _error: False,
    ) -> None:
        self._component = component
        self._factory = AsyncCircuitBreakerFactory(
            default_threshold=failure_threshold,
            default_ttl=recovery_seconds,
            exclude=[asyncio.CancelledError, (Exception, not_failures)],
        )
        self._factory.add_listener(self._changed)
        self._on_state = on_state
        self._state = CLOSED
        self._era = 0
        self._probing = False
        on_state(CLOSED)

    @property
    def state(self) -> str:
        """``closed``, ``open`` or ``half_open``; an open breaker becomes half open when a call comes."""
        return self._state

    @asynccontextmanager
    async def guard(self) -> AsyncIterator[None]:
        """Run the block as one call of the component; its exception, time-outs included, is a failure.

        A block that is cancelled, or abandoned, decides nothing.

        Raises:
            BreakerOpenError: the call was refused; the block was not entered.
        """
        breaker = await self._factory.get_breaker(self._component)
        await self._admit(breaker)
        era = self._era
        self._probing = self._state == HALF_OPEN
        try:
            yield
        except Exception as error:
            await self._record(breaker, era, error)
            raise
        else:
            await self._record(breaker, era, None)
        finally:
            if era == self._era:
                self._probing = False

    async def _admit(self, breaker: AsyncCircuitBreaker) -> None:
        if self._state == HALF_OPEN and self._probing:
            raise BreakerOpenError(HALF_OPEN)
        try:
            await breaker.__aenter__()
        except OpenedState as error:
            error.with_traceback(None)
            raise BreakerOpenError(OPEN) from None
        await self._tell(breaker)

    async def _record(self, breaker: AsyncCircuitBreaker, era: int, error: Exception | None) -> None:
        """Let the end of a call decide, unless the breaker has changed state since the call began."""
        if era != self._era:
            return
        if error is None:
            await breaker.__aexit__(None, None, None)
        else:
            await breaker.__aexit__(type(error), error, None)

    async def _tell(self, breaker: AsyncCircuitBreaker) -> None:
        """Deliver what entering has changed: purgatory itself would wait until the call ends."""
        while breaker.context.messages:
            await breaker.messagebus.handle(breaker.context.messages.pop(0), breaker.uow)

    def _changed(self, _component: str, kind: str, event: Event) -> None:
        if kind != "state_changed":
            return
        self._era += 1
        self._probing = False
        self._state = _STATES[getattr(event, "state", "closed")]
        self._on_state(self._state)
