"""The promise that instrumentation never raises into the service, kept in one place.

An error inside a recording call is counted, and said once per metric in the log; by its type alone, because
the message of an error may hold what a user has asked.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Protocol, TypeVar

from cmo_exporter.errors import ExporterError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cmo_exporter.catalogue import Metric
    from cmo_exporter.instruments import Instruments

_log = logging.getLogger("cmo_exporter")

Parameters = ParamSpec("Parameters")


class ErrorCounter:
    """Counts errors inside the instrumentation."""

    def __init__(self, instruments: Instruments) -> None:
        self._instruments = instruments
        self._logged: set[str] = set()

    def report(self, metric: Metric, error: BaseException) -> None:
        """Count an error; log the first of each metric. Never raises."""
        with contextlib.suppress(Exception):  # the log's filters and handlers are the service's
            self._report(metric, error)

    def _report(self, metric: Metric, error: BaseException) -> None:
        self._instruments.instrumentation_errors.child(metric.name).inc()
        if metric.name not in self._logged:
            self._logged.add(metric.name)
            _log.warning(
                "Recording %s failed with %s; the service goes on. Further failures are only counted, "
                "in cmo_instrumentation_errors_total.",
                metric.name,
                # Of our own errors the message, too, which says how to mend it and holds no question.
                f"{type(error).__name__}: {error}"
                if isinstance(error, ExporterError)
                else type(error).__name__,
            )


class Guarded(Protocol):
    """What has methods that must not raise."""

    @property
    def errors(self) -> ErrorCounter:
        """Where errors inside its methods are counted."""
        ...


Owner = TypeVar("Owner", bound=Guarded)


def never_raises(
    metric: Metric,
) -> Callable[
    [Callable[Concatenate[Owner, Parameters], None]], Callable[Concatenate[Owner, Parameters], None]
]:
    """Decorate a method that records ``metric``: an error inside is counted and goes no further."""

    def decorate(
        method: Callable[Concatenate[Owner, Parameters], None],
    ) -> Callable[Concatenate[Owner, Parameters], None]:
        @functools.wraps(method)
        def guarded(self: Owner, /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
            try:
                method(self, *args, **kwargs)
            except Exception as error:  # noqa: BLE001 - the point of it
                self.errors.report(metric, error)

        return guarded

    return decorate
