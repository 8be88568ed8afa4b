"""Where the numbers are: one block of memory that holds every counter, gauge and histogram of a process.

prometheus-client keeps each number in an object of its own with a lock of its own; a query touches a dozen
of them, and a scrape that passes in between sees it half counted. Here a series is a few neighbouring
64-bit floats of one block. What belongs together is changed under one lock, taken once, and read by
copying the block. Queries and HTTP requests reach it through the `journal`, many of them in one change.

The block may be a file that other processes map too, which is how several workers are counted as one
service. A reader of another process cannot take the writer's lock, so the writer makes a number odd before
it changes what belongs together, and even afterwards; a reader that saw it odd, or changed, reads again.
The end of such a block tells which series are where. The file outlives a process that is killed: what had
been added to it goes on being counted, what still waited in the journal is lost.
"""

from __future__ import annotations

import contextlib
import json
import threading
from array import array
from time import sleep as pause
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from cmo_exporter.errors import ExporterError
from cmo_exporter.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from mmap import mmap

NUMBERS: Final = 1 << 16
"""How many floats a block holds; the series of the reference service take a tenth of it."""

INDEX_BYTES: Final = 1 << 20
BLOCK_BYTES: Final = NUMBERS * 8 + INDEX_BYTES

# The first floats of a block are about the block itself.
SEQUENCE: Final = 0  # odd while what belongs together is being changed
INDEX_LENGTH: Final = 1  # bytes of the index that are complete
PROCESS_ID: Final = 2  # of the worker that writes here; 0 when it has left
PROCESS_START: Final = 3  # in clock ticks, as /proc tells it: process ids are used again
RESTARTS: Final = 4  # how many workers have written here before
_FIRST_FREE: Final = 16

_READ_ATTEMPTS: Final = 100
_READ_PAUSE_SECONDS: Final = 0.001


Numbers: TypeAlias = "list[float] | memoryview[float]"
"""A list while nobody else is to see them: it is twice as fast."""


class Series(NamedTuple):
    """A series and where its numbers are: ``width`` floats from ``base``."""

    metric: str
    labels: tuple[str, ...]
    base: int
    width: int


class FullError(ExporterError):
    """No room for another series; the guard around every recording call counts it."""

    def __init__(self) -> None:
        super().__init__(
            "There is no room for so many series. Most are scenarios times components: name fewer of them."
        )


class Values:
    """The block that this process writes. Hold ``lock`` around every change of ``numbers``.

    The lock is reentrant: the garbage collector may run, inside a change, a finaliser that ends a query.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.numbers: Numbers = [0.0] * _FIRST_FREE
        self.series: list[Series] = []
        self._next = _FIRST_FREE
        self._shared: mmap | None = None
        self.journal = Journal(self)

    @property
    def is_shared(self) -> bool:
        """Whether other processes can see this block."""
        return self._shared is not None

    def allocate(self, metric: str, labels: tuple[str, ...], width: int) -> int:
        """Make room for a series, at 0.

        Raises:
            FullError: there is none.
        """
        with self.lock:
            base = self._next
            if base + width > NUMBERS:
                raise FullError
            series = Series(metric, labels, base, width)
            if isinstance(self.numbers, list):
                self.numbers.extend([0.0] * width)
            elif self._shared is not None:
                _append(self._shared, self.numbers, [series])
            self._next = base + width
            self.series.append(series)
            return base

    @contextlib.contextmanager
    def change(self) -> Iterator[None]:
        """Change what belongs together. Where microseconds count, its steps are written out instead."""
        with self.lock:
            self.numbers[SEQUENCE] += 1.0
            try:
                yield
            finally:
                self.numbers[SEQUENCE] += 1.0

    def copy(self) -> list[float]:
        """All numbers at one instant; what has not changed since the last copy is the same object."""
        with self.lock:
            self.journal.post()
            return list(self.numbers[: self._next])

    def move_into(self, shared: mmap, inherited: Iterable[tuple[Series, Sequence[float]]]) -> None:
        """Go on in memory that other processes see, from what the block holds now.

        Args:
            shared: zeros, ``BLOCK_BYTES`` long.
            inherited: what a worker that is gone, and whose place this one takes, had counted: it is added.

        Raises:
            FullError: there is no room for it.
        """
        with self.lock:
            self.journal.post()
            numbers = memoryview(shared)[: NUMBERS * 8].cast("d")
            numbers[_FIRST_FREE : self._next] = array("d", self.copy()[_FIRST_FREE:])
            _append(shared, numbers, self.series)
            self._shared, self.numbers = shared, numbers
            here = {(series.metric, series.labels): series for series in self.series}
            for series, added in inherited:
                known = here.get((series.metric, series.labels))
                base = known.base if known else self.allocate(series.metric, series.labels, series.width)
                for offset, number in enumerate(added):
                    numbers[base + offset] += number

    def move_out(self, keep: Callable[[Series], bool] = lambda _: False) -> None:
        """Go on in memory of our own, from 0: what was counted stays where other processes see it.

        Args:
            keep: whether a series goes on from where it is.
        """
        with self.lock:
            self.journal.post()
            self._begin_anew(keep)

    def _begin_anew(self, keep: Callable[[Series], bool]) -> None:
        with self.lock:
            numbers = [0.0] * self._next
            for series in filter(keep, self.series):
                here = slice(series.base, series.base + series.width)
                numbers[here] = self.numbers[here]
            self._shared, self.numbers = None, numbers

    def after_fork(self) -> None:
        """In a forked child: the parent's block is the parent's, and its lock may be held for ever."""
        self.lock = threading.RLock()
        self.journal.forget()
        # Nothing is posted: to make the parent's number odd and even while the parent does so would spoil it.
        self._begin_anew(lambda _: False)


class Block:
    """The block of one worker, as a reader of any process sees it."""

    def __init__(self, shared: mmap) -> None:
        self._shared = shared
        self._numbers = memoryview(shared)[: NUMBERS * 8].cast("d")
        self._index_read = 0
        self.series: list[Series] = []

    @property
    def process(self) -> tuple[int, int]:
        """Id and start, in clock ticks, of the process that writes here; ids are 0 when it has left."""
        return int(self._numbers[PROCESS_ID]), int(self._numbers[PROCESS_START])

    @property
    def restarts(self) -> int:
        """How many workers have written here before this one."""
        return int(self._numbers[RESTARTS])

    def read(self, *, is_written: bool = False) -> memoryview[float]:
        """All numbers at one instant; `series` then says what they are.

        Args:
            is_written: whether the writer lives, so that a change which is under way is worth waiting for.
                What a writer leaves that died in the middle of one is taken as it is.
        """
        for _ in range(_READ_ATTEMPTS if is_written else 0):
            before = self._numbers[SEQUENCE]
            copy = self._copy()
            if before % 2 == 0 and self._numbers[SEQUENCE] == before:
                return copy
            pause(_READ_PAUSE_SECONDS)
        return self._copy()

    def _copy(self) -> memoryview[float]:
        self._read_index(int(self._numbers[INDEX_LENGTH]))
        used = self.series[-1].base + self.series[-1].width if self.series else _FIRST_FREE
        return memoryview(bytes(self._numbers[:used])).cast("d")

    def _read_index(self, length: int) -> None:
        if length == self._index_read:
            return
        start = NUMBERS * 8 + self._index_read
        added = bytes(memoryview(self._shared)[start : NUMBERS * 8 + length])
        # All of it or nothing: after an error the next reader begins here again.
        self.series += [
            Series(metric, tuple(labels), base, width)
            for metric, labels, base, width in map(json.loads, added.splitlines())
        ]
        self._index_read = length


def _append(shared: mmap, numbers: memoryview[float], series: list[Series]) -> None:
    lines = "".join(f"{json.dumps([one.metric, one.labels, one.base, one.width])}\n" for one in series)
    data = lines.encode()
    length = int(numbers[INDEX_LENGTH])
    if length + len(data) > INDEX_BYTES:
        raise FullError
    start = NUMBERS * 8 + length
    shared[start : start + len(data)] = data
    # Only now does a reader look at it.
    numbers[INDEX_LENGTH] = float(length + len(data))
