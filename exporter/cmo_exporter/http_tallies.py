"""Where HTTP requests are counted, found once for each kind of request.

Each kind is a page of the `journal`, and a request is a line on it.
"""

from __future__ import annotations

from operator import sub
from typing import TYPE_CHECKING, Final

from cmo_exporter import catalogue
from cmo_exporter.catalogue import OTHER
from cmo_exporter.instruments import KNOWN_HTTP_METHODS, OTHER_HTTP_METHOD
from cmo_exporter.routes import matched_route

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cmo_exporter.departures import Request
    from cmo_exporter.instruments import Buckets, Instruments
    from cmo_exporter.recorder import Recorder
    from cmo_exporter.routes import RouteTemplates, Scope
    from cmo_exporter.values import Numbers

_METHODS: Final = frozenset(KNOWN_HTTP_METHODS)
_MOST_USUAL: Final = 1000

STATUS_CODES: Final = {status: str(status) for status in range(100, 600)}


def status_code(status: int) -> str:
    """The status as a label value: no more than those of HTTP, whatever an application has sent."""
    return STATUS_CODES.get(status, OTHER)


def known_method(method: object) -> str:
    """The method as a label value: one of HTTP's, or ``_OTHER``."""
    return method if isinstance(method, str) and method in _METHODS else OTHER_HTTP_METHOD


class ActiveRequests:
    """How many requests are active in one event loop, by method.

    Args:
        recorder: what is counted with.
        requests: those that are active; they are in no other `ActiveRequests`.
    """

    metric: Final = catalogue.HTTP_SERVER_ACTIVE_REQUESTS

    def __init__(self, recorder: Recorder, requests: dict[Request, float]) -> None:
        self._requests = requests
        self._children = recorder.instruments.http_active
        self._journal = recorder.journal
        self._posted: dict[str, int] = {}
        self._journal.active.append(self)

    def post(self, numbers: Numbers) -> None:
        """Let the numbers say how many there are now."""
        # Copied in one step: requests come and go meanwhile, without the lock.
        now: dict[str, int] = {}
        for request in list(self._requests):
            method = known_method(request.method)
            now[method] = now.get(method, 0) + 1
        if now != self._posted:
            # All places first: after an error in the middle, some would be counted again next time.
            slots = {method: self._children.child(method).slot for method in {**self._posted, **now}}
            for method, slot in slots.items():
                numbers[slot] += now.get(method, 0) - self._posted.get(method, 0)
            self._posted = now

    def forget(self) -> None:
        """In a forked child: they are the parent's."""
        self._requests.clear()
        self._posted.clear()

    def close(self) -> None:
        """Their event loop is closed: none of them will be answered."""
        self._requests.clear()
        self._journal.post()
        self._journal.active.remove(self)


class HttpTally:
    """Where requests of one kind are counted when they end: of one method, route, status and error type."""

    __slots__ = ("_duration", "_first_byte", "_received", "_sent", "lines", "routes")

    metric: Final = catalogue.HTTP_SERVER_REQUEST_DURATION

    def __init__(self, instruments: Instruments, duration: Buckets, first_byte: Buckets) -> None:
        self._duration = duration
        self._first_byte = first_byte
        self._received = instruments.network.child("receive").slot
        self._sent = instruments.network.child("transmit").slot
        # Kept so that no other route gets the id of one of them.
        self.routes: list[object] = []
        # Of each request when it arrived, when its first byte went out (None if it never did) and its last,
        # in monotonic seconds; and, of a query, how many bytes its body had and that of its answer, else 0.
        self.lines: list[tuple[float, float | None, float, int, int]] = []
        instruments.values.journal.request_ends.append(self)

    def post(self, numbers: Numbers, lines: list[tuple[float, float | None, float, int, int]]) -> None:
        """Requests have ended."""
        arrived, first_byte_at, ended, received, sent = zip(*lines, strict=True)
        self._duration.add(numbers, list(map(sub, ended, arrived)))
        waits = zip(first_byte_at, arrived, strict=True)
        self._first_byte.add(numbers, [first - began for first, began in waits if first is not None])
        numbers[self._received] += sum(received)
        numbers[self._sent] += sum(sent)

    def remember(self, seconds: float, first_byte: float | None, exemplar: Mapping[str, str]) -> None:
        """Keep ``trace_id`` and ``span_id`` of a trace that shows such a request.

        Args:
            seconds: how long it took.
            first_byte: after how many seconds its first byte went out, if it did.
            exemplar: the ids.
        """
        self._duration.remember(seconds, exemplar)
        if first_byte is not None:
            self._first_byte.remember(first_byte, exemplar)


class HttpTallies:
    """The tallies of one application, by kind of request.

    Args:
        recorder: what is counted with.
        routes: the application's.
    """

    def __init__(self, recorder: Recorder, routes: RouteTemplates) -> None:
        self._instruments = recorder.instruments
        self._routes = routes
        # Where those are counted that all went well with, by method, the id of their route, and status.
        self.usual: dict[tuple[object, int, int], HttpTally] = {}
        self._tallies: dict[tuple[Buckets, Buckets], HttpTally] = {}
        # By labels, without those that are beyond the maximum.
        self._known: dict[tuple[str, str, str, str], HttpTally] = {}

    def of(self, scope: Scope, root_path_at_arrival: str, kind: tuple[str, int, str]) -> HttpTally:
        """Where a request is counted; one for all that are beyond the maximum.

        Args:
            scope: the request's scope, after the application has had it.
            root_path_at_arrival: the request's root path before the application had it.
            kind: its method (one of HTTP's, or ``_OTHER``), the status of its answer, and its error type,
                which is empty where all went well.
        """
        method, status, error_type = kind
        if method == OTHER_HTTP_METHOD:
            self._instruments.dropped(catalogue.HTTP_SERVER_REQUEST_DURATION.name)
        labels = (method, self._routes.of(scope, root_path_at_arrival), status_code(status), error_type)
        tally = self._labelled(labels)
        usual, route = self.usual, matched_route(scope)
        # The route alone tells next time, unless it was mounted or met for the first time.
        if (
            route is not None
            and labels in self._known
            and method != OTHER_HTTP_METHOD
            and not error_type
            and scope.get("root_path", "") == root_path_at_arrival
            and len(usual) < _MOST_USUAL
        ):
            tally.routes.append(route)
            usual[method, id(route), status] = tally
        return tally

    def _labelled(self, labels: tuple[str, str, str, str]) -> HttpTally:
        found = self._known.get(labels)
        if found is not None:
            return found
        instruments = self._instruments
        buckets = (instruments.http_duration.child(*labels), instruments.http_first_byte.child(labels[1]))
        tally = self._tallies.get(buckets)
        if tally is None:
            tally = self._tallies[buckets] = HttpTally(instruments, *buckets)
        # What goes to the overflow is asked for again each time, for there it is counted as dropped.
        if instruments.http_duration.has(*labels) and instruments.http_first_byte.has(labels[1]):
            self._known[labels] = tally
        return tally
