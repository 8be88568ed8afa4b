"""What a finished HTTP request moves, found once for each kind of request and moved as one change."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final

from cmo_exporter.catalogue import OTHER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cmo_exporter.instruments import Buckets, Instruments

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
        self._received = instruments.network.child("receive").slot
        self._sent = instruments.network.child("transmit").slot

    def count(
        self,
        arrived: float,
        first_byte_at: float | None,
        ended: float,
        active: int | None,
        body_bytes: tuple[int, int] | None,
        exemplar: Mapping[str, str] | None,
    ) -> None:
        """Count a request that has finished, and take it off those that are active.

        Args:
            arrived: monotonic seconds at which it came, and so are the next two.
            first_byte_at: when its first byte was sent; None when there was none.
            ended: when it was over.
            active: where it was counted as active, if it was.
            body_bytes: of a query, how long its body was and that of its answer.
            exemplar: ``trace_id`` and ``span_id`` of a trace that shows it.
        """
        seconds = ended - arrived
        duration, edges, values = self._duration.slot, self._duration.edges, self._values
        bucket = bisect_left(edges, seconds)
        with values.lock:
            numbers = values.numbers
            numbers[duration + bucket] += 1.0
            numbers[duration + len(edges) + 1] += seconds
            if first_byte_at is not None:
                slot, edges, waited = self._first_byte.slot, self._first_byte.edges, first_byte_at - arrived
                numbers[slot + bisect_left(edges, waited)] += 1.0
                numbers[slot + len(edges) + 1] += waited
            if active is not None:
                numbers[active] -= 1.0
            if body_bytes is not None:
                numbers[self._received] += body_bytes[0]
                numbers[self._sent] += body_bytes[1]
        if exemplar is not None:
            self._duration.remember(bucket, seconds, exemplar)


class HttpTallies:
    """The tallies of one application, by kind of request."""

    def __init__(self, instruments: Instruments) -> None:
        self._instruments = instruments
        self.known: dict[tuple[str, str, int, str], HttpTally] = {}

    def of(self, method: str, route: str, status: int, error_type: str) -> HttpTally:
        """The tally of labels that are not among the ``known``, or of all that are beyond the maximum."""
        instruments = self._instruments
        labels = (method, route, status_code(status), error_type)
        tally = HttpTally(
            instruments,
            instruments.http_duration.child(*labels),
            instruments.http_first_byte.child(route),
        )
        # What goes to the overflow is asked for again each time, for there it is counted as dropped.
        if instruments.http_duration.has(*labels) and instruments.http_first_byte.has(route):
            self.known[method, route, status, error_type] = tally
        return tally
