"""What has happened, written down until it is posted to the numbers.

Bookkeepers write into a journal first and post to the ledger later, for whoever serves has no time. So it is
here: between two recording calls the service and its framework take the processor's caches, and code that
comes back to them costs three times as much as code that runs again at once. So what every query and every
HTTP request does is one line on the page of its kind, and lines are posted together: before this process is
read, ten times a second while HTTP requests arrive (`departures`) and by the `heartbeat` of one worker
among several, and when too many wait. Another worker's scrape may show this one as it was a tenth
of a second before, and so much is lost when this one is killed. Nothing is lost that any scrape has shown.

A list takes a line in one step, so no lock is needed to write one, not even in a finaliser that the garbage
collector runs in the middle of something else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from cmo_exporter.catalogue import Metric
    from cmo_exporter.guard import ErrorCounter
    from cmo_exporter.values import Numbers, Values

MOST_WAITING: Final = 500
"""Whoever finds so many lines on a page posts them."""


class Page(Protocol):
    """The lines of one kind that wait to be posted."""

    lines: list[Any]

    @property
    def metric(self) -> Metric:
        """What cannot be recorded when the lines cannot be posted."""
        ...

    def post(self, numbers: Numbers, lines: list[Any]) -> None:
        """Add the lines to the numbers."""
        ...


class Standing(Protocol):
    """What need not be written down, because it can be seen at any time; posted as it is then."""

    @property
    def metric(self) -> Metric:
        """What cannot be recorded when it cannot be posted."""
        ...

    def post(self, numbers: Numbers) -> None:
        """Let the numbers say what is so now."""
        ...

    def forget(self) -> None:
        """In a forked child: what is so is so in the parent, and the numbers are 0."""
        ...


class Journal:
    """The pages of one process.

    Args:
        values: what they are posted to.
    """

    def __init__(self, values: Values) -> None:
        self._values = values
        self.errors: ErrorCounter | None = None
        self._is_posting = False
        # In the order in which they are posted, so that when no request is active, and no query in progress,
        # all of them have been counted: what says so is taken before what it says it of. And what has ended
        # comes before what has begun, so that nothing is seen to end that has not begun.
        self.active: list[Standing] = []
        self.query_ends: list[Page] = []
        self.request_ends: list[Page] = []
        self.beginnings: list[Page] = []

    def post(self) -> None:
        """Post everything, as one change."""
        values = self._values
        failures: list[tuple[Metric, Exception]] = []
        with values.lock:
            if self._is_posting:  # the handler of a signal, or a finaliser, in the middle of this very change
                return
            self._is_posting = True
            try:
                with values.change():
                    for standing in tuple(self.active):  # an event loop may come or go meanwhile
                        self._post_standing(standing, failures)
                    for page in self._pages():
                        if page.lines:
                            self._post(page, failures)
            finally:
                self._is_posting = False
        # Only now: it is said in the log, which may take long, and nobody can read in the middle of a change.
        for metric, error in failures:
            if self.errors is not None:
                self.errors.report(metric, error)

    def forget(self) -> None:
        """In a forked child: what waits is the parent's, and so is a change that was under way."""
        self._is_posting = False
        for standing in self.active:
            standing.forget()
        for page in self._pages():
            page.lines.clear()

    def _pages(self) -> tuple[Page, ...]:
        return (*self.query_ends, *self.request_ends, *self.beginnings)

    def _post_standing(self, standing: Standing, failures: list[tuple[Metric, Exception]]) -> None:
        try:
            standing.post(self._values.numbers)
        except Exception as error:  # noqa: BLE001 - as below
            failures.append((standing.metric, error))

    def _post(self, page: Page, failures: list[tuple[Metric, Exception]]) -> None:
        lines = page.lines[:]
        del page.lines[: len(lines)]
        try:
            page.post(self._values.numbers, lines)
        except Exception as error:  # noqa: BLE001 - neither the other pages nor the reader are to suffer
            failures.append((page.metric, error))
