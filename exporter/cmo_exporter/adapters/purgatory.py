"""purgatory's circuit breakers: their states, their transitions, and the calls that they refuse.

purgatory has listeners, but tells them of a half-open breaker only once the call that probes it has ended,
and of a refused call not at all. So the breaker's own context is asked instead: each of its transitions
goes through ``set_state``, each call begins with ``handle_new_request``.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, Final, TypeVar

from cmo_exporter import catalogue
from cmo_exporter.adapters.instrumented import Quietly, mark

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cmo_exporter.exporter import Exporter

Factory = TypeVar("Factory")

_OPEN: Final = "opened"
_STATES: Final = {"closed": "closed", _OPEN: "open", "half-opened": "half_open"}


def instrument_purgatory(
    factory: Factory, exporter: Exporter, *, components: Mapping[str, str] | None = None
) -> Factory:
    """Make an ``AsyncCircuitBreakerFactory`` or ``SyncCircuitBreakerFactory`` report its breakers.

    Args:
        factory: the factory; it is returned. A breaker reports from the next time that it is got from it.
        exporter: where it reports.
        components: the component that each circuit guards, where the circuit has another name.
    """
    with Quietly(exporter, catalogue.BREAKER_STATE):
        if mark(factory):
            _measure(factory, exporter, components or {})
    return factory


def _measure(factory: Any, exporter: Exporter, components: Mapping[str, str]) -> None:
    get_breaker = factory.get_breaker

    def watch(breaker: Any) -> Any:
        with Quietly(exporter, catalogue.BREAKER_STATE):
            _watch(breaker.context, exporter, components.get(breaker.context.name, breaker.context.name))
        return breaker

    @functools.wraps(get_breaker)
    async def got_async(*args: Any, **kwargs: Any) -> Any:
        return watch(await get_breaker(*args, **kwargs))

    @functools.wraps(get_breaker)
    def got(*args: Any, **kwargs: Any) -> Any:
        return watch(get_breaker(*args, **kwargs))

    factory.get_breaker = got_async if inspect.iscoroutinefunction(get_breaker) else got


def _watch(context: Any, exporter: Exporter, component: str) -> None:
    # With a store of their own (Redis) breakers are made anew for each call, and another worker may have
    # changed the state.
    exporter.breaker_state(component, _state(context))
    if mark(context):
        context.set_state = _told(context.set_state, context, exporter, component)
        context.handle_new_request = _asked(context.handle_new_request, context, exporter, component)


def _told(
    set_state: Callable[[Any], None], context: Any, exporter: Exporter, component: str
) -> Callable[[Any], None]:
    @functools.wraps(set_state)
    def told(state: Any) -> None:
        set_state(state)
        exporter.breaker_state(component, _state(context))

    return told


def _asked(begin: Callable[[], None], context: Any, exporter: Exporter, component: str) -> Callable[[], None]:
    @functools.wraps(begin)
    def asked() -> None:
        try:
            begin()
        except Exception:
            exporter.breaker_rejection(component, _state(context))
            raise

    return asked


def _state(context: Any) -> str:
    name = str(context.state)
    return _STATES.get(name, name)
