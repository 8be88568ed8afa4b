"""What every adapter does alike: instrument an object once, and let no error of its own out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import TracebackType

    from cmo_exporter.catalogue import Metric
    from cmo_exporter.exporter import Exporter

_MARK: Final = "_cmo_instrumented"


def mark(target: object) -> bool:
    """Mark an object as instrumented; whether it had not been before.

    Its dictionary is asked and not the object, because some objects answer for every attribute.
    """
    attributes = vars(target)
    if _MARK in attributes:
        return False
    attributes[_MARK] = True
    return True


class Quietly:
    """A block in which an error is counted under a metric and goes no further; a context manager."""

    __slots__ = ("_exporter", "_metric")

    def __init__(self, exporter: Exporter, metric: Metric) -> None:
        self._exporter = exporter
        self._metric = metric

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None or not isinstance(error, Exception):
            return False
        self._exporter.errors.report(self._metric, error)
        return True
