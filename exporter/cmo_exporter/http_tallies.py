"""What a finished HTTP request moves, found once for each kind of request and moved as one change."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final

from cmo_exporter.catalogue import OTHER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cmo_exporter.instruments import Buckets, Instruments, Number

_STATUS_CODES: Final = {status: str(status) for status in range(100, 600)}


def status_code(status: int) -> str:
    """The status as a label value: no more than those of HTTP, whatever an application has sent."""
    return _STATUS_CODES.get(status, OTHER)


class HttpTally:
    """The histograms of one kind of request: method, route, status, error type."""

    __slots__ = ("_duration", "_first_byte", "_received", "_sent", "_values")

    def __init__(self, instruments: Instruments, duration: Buckets, first_byte: Buckets) -> None:
        self._values = instruments.values
        self._duration = duration
        self._first_byte = first_byte
        self._received = instruments.network.child("receive")
        self._sent = instruments.network.child("transmit")

    def count_bytes(self, received: int, sent: int) -> None:
        """Count the bytes of the bodies of a query and its answer."""
        values = self._values
        with values.lock:
            values.numbers[self._received.slot] += received
            values.numbers[self._sent.slot] += sent

    def count(
        self,
        seconds: float,
        first_byte_seconds: float | None,
        active: Number | None,
        exemplar: Mapping[str, str] | None = None,
    ) -> None:
        """Count a request that has finished, and take it off those that are active.

        Args:
            seconds: how long it took.
            first_byte_seconds: how long until its first byte; None when there was none.
            active: where it was counted as active, if it was.
            exemplar: ``trace_id`` and ``span_id`` of a trace that shows it.
        """
        duration, first_byte, values = self._duration, self._first_byte, self._values
        edges = duration.edges
        bucket = bisect_left(edges, seconds)
        with values.lock:
            numbers = values.numbers
            slot = duration.slot
            numbers[slot + bucket] += 1.0
            numbers[slot + len(edges) + 1] += seconds
            if first_byte_seconds is not None:
                slot = first_byte.slot
                numbers[slot + bisect_left(first_byte.edges, first_byte_seconds)] += 1.0
                numbers[slot + len(first_byte.edges) + 1] += first_byte_seconds
            if active is not None:
                numbers[active.slot] -= 1.0
        if exemplar is not None:
            duration.remember(bucket, seconds, exemplar)


class HttpTallies:
    """The tallies of one application, by kind of request."""

    def __init__(self, instruments: Instruments) -> None:
        self._instruments = instruments
        self._known: dict[tuple[str, str, int, str], HttpTally] = {}

    def of(self, method: str, route: str, status: int, error_type: str) -> HttpTally:
        """The tally of these label values, or of all that are beyond the maximum of series."""
        found = self._known.get((method, route, status, error_type))
        if found is not None:
            return found
        instruments = self._instruments
        labels = (method, route, status_code(status), error_type)
        tally = HttpTally(
            instruments,
            instruments.http_duration.child(*labels),
            instruments.http_first_byte.child(route),
        )
        # What goes to the overflow is asked for again each time, for there it is counted as dropped.
        if instruments.http_duration.has(*labels) and instruments.http_first_byte.has(route):
            self._known[method, route, status, error_type] = tally
        return tally
