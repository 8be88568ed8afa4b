"""The numbers of all workers made into one: what a scrape shows.

A worker's block says which series are where in it. Workers of one service have the same series at the
start and a few of their own later, so what has to be added to what is worked out only when a series or a
worker has come or gone. Most series do not change from one scrape to the next: which have is found out by
comparing the numbers in long stretches, and no others are added up again.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from itertools import compress, count
from operator import ne
from typing import TYPE_CHECKING, Final, TypeAlias

from cmo_exporter import catalogue
from cmo_exporter.catalogue import BY_NAME, OTHER, Kind, OverWorkers
from cmo_exporter.errors import SharedDirectoryError
from cmo_exporter.instruments import EXEMPLAR_WIDTH, EXEMPLARS, read_exemplar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cmo_exporter.catalogue import Metric
    from cmo_exporter.ledger import Ledger
    from cmo_exporter.values import Numbers, Series, Values
    from cmo_exporter.workers import SharedDirectory

Labels = tuple[str, ...]
Exemplar = tuple[dict[str, str], float, float]
"""The ids, the value and the Unix time."""

_Part: TypeAlias = "tuple[int, slice]"  # which source, and where in it
_STRETCH: Final = 64


@dataclass(frozen=True)
class Total:
    """One series with its numbers; those of a histogram are its buckets, not cumulative, and the sum."""

    labels: Labels
    numbers: Sequence[float]
    exemplars: Sequence[Exemplar | None] = ()


@dataclass(frozen=True)
class _Source:
    """A block, copied at one instant."""

    place: str | None  # None: this process, which shares with nobody
    series: list[Series]
    count: int
    alive: bool
    numbers: Numbers


@dataclass(frozen=True)
class _Sum:
    """A series, the parts that it is the sum of, and those that its exemplars are in."""

    metric: Metric
    labels: Labels
    width: int
    parts: list[_Part]
    exemplars: list[_Part]

    def read(self, sources: list[Numbers], now: float, *, with_exemplars: bool) -> Total:
        """The series as its parts are now."""
        parts: list[Sequence[float]] = [sources[source][piece] for source, piece in self.parts]
        if self.metric is catalogue.OLDEST_QUERY_AGE:
            # Workers write down when their oldest query began; all of them go by the clock of one machine.
            parts = [[max(0.0, now - began) if began else 0.0] for (began,) in parts]
        if not with_exemplars or not self.exemplars:
            return Total(self.labels, self._added(parts))
        kept = [sources[source][piece] for source, piece in self.exemplars]
        latest = [_latest(kept, bucket * EXEMPLAR_WIDTH) for bucket in range(self.width - 1)]
        return Total(self.labels, self._added(parts), latest)

    def _added(self, parts: list[Sequence[float]]) -> Sequence[float]:
        if len(parts) == 1:
            return list(parts[0])  # a part of a view would keep all of it
        if not parts:
            return (0.0,) * self.width
        if self.metric.over_workers is OverWorkers.LARGEST:
            return [max(column) for column in zip(*parts, strict=True)]
        return [sum(column) for column in zip(*parts, strict=True)]


class _Plan:
    """What is the sum of what, and what came of it last.

    Args:
        sums: the series of each metric.
    """

    def __init__(self, sums: dict[str, list[_Sum]], sources: Sequence[Numbers] = ()) -> None:
        self._sums = sums
        # Whose each number of each source is: which series of which metric, if any.
        self._owners: list[list[tuple[str, int] | None]] = [[None] * len(numbers) for numbers in sources]
        for name, series in sums.items():
            for index, one in enumerate(series):
                for source, piece in one.parts + one.exemplars:
                    self._owners[source][piece] = [(name, index)] * (piece.stop - piece.start)
        # By whether exemplars were asked for.
        self._last: dict[bool, tuple[list[Numbers], dict[str, list[Total]]]] = {}

    def read(self, sources: list[Numbers], now: float, *, with_exemplars: bool) -> dict[str, list[Total]]:
        """The series of each metric; a series, and a list of them, is the same as last time if unchanged."""
        last = self._last.get(with_exemplars)
        if last is None:
            totals = {
                name: [one.read(sources, now, with_exemplars=with_exemplars) for one in series]
                for name, series in self._sums.items()
            }
        else:
            changed = self._changed_series(sources, last[0])
            totals = {**last[1], **{name: last[1][name].copy() for name, _ in changed}}
            for name, index in changed:
                one = self._sums[name][index]
                totals[name][index] = one.read(sources, now, with_exemplars=with_exemplars)
        self._last[with_exemplars] = sources, totals
        return totals

    def _changed_series(self, sources: list[Numbers], before: list[Numbers]) -> set[tuple[str, int]]:
        """The series that are not what they were."""
        # The age of a query grows without any number changing.
        oldest = catalogue.OLDEST_QUERY_AGE.name
        changed = {(oldest, index) for index in range(len(self._sums.get(oldest, ())))}
        for owners, numbers, past in zip(self._owners, sources, before, strict=True):
            found = (owners[position] for position in _changed(numbers, past))
            changed.update(owner for owner in found if owner is not None)
        return changed


class Totals:
    """Reads all workers and adds them up; not thread-safe."""

    def __init__(self, ledger: Ledger, values: Values, directory: SharedDirectory | None) -> None:
        self._ledger = ledger
        self._values = values
        self._directory = directory
        self._plan = _Plan({})
        self._planned_for: list[tuple[str | None, list[Series], int, bool]] = []

    def read(self, *, with_exemplars: bool) -> Iterator[tuple[Metric, list[Total]]]:
        """Every metric of the catalogue with its series, in the order of the catalogue, as of now."""
        # A look through the whole table of sessions must not keep a query waiting.
        sessions = self._ledger.sessions
        now = time.monotonic()
        overdue = sessions.overdue(now)
        with self._values.lock:
            self._values.journal.post()
            users = self._ledger.users(now, overdue)
            users_at = sessions.read_at if users else now
            sources = [] if self._values.is_shared else [self._own()]
        if self._directory is not None:
            sources += self._workers(self._directory)
        # With how many there were: the lists grow.
        planned_for = [(source.place, source.series, source.count, source.alive) for source in sources]
        if planned_for != self._planned_for:
            self._plan, self._planned_for = _plan(sources), planned_for
        read = self._plan.read([source.numbers for source in sources], now, with_exemplars=with_exemplars)
        totals = {
            **read,
            catalogue.ACTIVE_USERS.name: _by_scenario(users, lambda user: user[0]),
            catalogue.ACTIVE_USER_SECONDS.name: _by_scenario(users, lambda user: user[1]),
            # Both at one instant: their quotient is the mean number of users.
            catalogue.ACTIVE_USER_CLOCK.name: [Total((), (users_at - sessions.began,))],
        }
        for name, metric in BY_NAME.items():
            if name in totals:
                yield metric, totals[name]

    def _own(self) -> _Source:
        series = self._values.series
        return _Source(None, series, len(series), alive=True, numbers=self._values.copy())

    def _workers(self, directory: SharedDirectory) -> Iterator[_Source]:
        blocks = directory.blocks()
        if directory.has_place and os.getpid() not in [block.process[0] for _, block, _ in blocks]:
            # Sums without this worker would look like counters that began again.
            raise SharedDirectoryError(
                f"shared_directory {directory.path} has been emptied or taken away while the service runs. "
                "Start the service's workers again, and keep others from cleaning up there."
            )
        for place, block, alive in blocks:
            numbers = block.read(is_written=alive)  # which also learns of new series
            yield _Source(place, block.series, len(block.series), alive, numbers)


def _by_scenario(
    users: dict[str, tuple[int, float]], what: Callable[[tuple[int, float]], float]
) -> list[Total]:
    return [
        Total((scenario,), (float(what(user)),))
        for scenario, user in users.items()
        if scenario != OTHER or user[1] > 0 or user[0]
    ]


def _plan(sources: list[_Source]) -> _Plan:
    sums: dict[str, dict[Labels, _Sum]] = {}
    exemplars: dict[tuple[str, Labels], list[_Part]] = {}
    for number, source in enumerate(sources):
        for series in source.series[: source.count]:
            part = number, slice(series.base, series.base + series.width)
            name, _, is_exemplars = series.metric.partition(EXEMPLARS[0])
            of_exemplars = exemplars.setdefault((name, series.labels), [])
            if is_exemplars:
                of_exemplars.append(part)
                continue
            metric = BY_NAME[name]
            if metric.over_workers is OverWorkers.EACH and not _is_of(source, metric, series.labels):
                continue
            known = sums.setdefault(name, {}).setdefault(
                series.labels, _Sum(metric, series.labels, series.width, [], of_exemplars)
            )
            if source.alive or metric.kind is not Kind.GAUGE:
                known.parts.append(part)
    return _Plan(
        {name: list(by_labels.values()) for name, by_labels in sums.items()},
        [source.numbers for source in sources],
    )


def _changed(numbers: Numbers, before: Numbers) -> Iterator[int]:
    """The positions of the numbers that are not what they were."""
    for start in range(0, len(numbers), _STRETCH):
        stretch, past = numbers[start : start + _STRETCH], before[start : start + _STRETCH]
        if stretch != past:
            yield from compress(count(start), map(ne, stretch, past))


def _is_of(source: _Source, metric: Metric, labels: Labels) -> bool:
    """Whether a series is about the worker in whose block it is, and that worker is alive."""
    worker = labels[list(metric.labels).index("worker")]
    return source.place is None or (source.alive and worker == source.place)


def _latest(exemplars: list[Numbers], offset: int) -> Exemplar | None:
    found = (read_exemplar(numbers[offset : offset + EXEMPLAR_WIDTH]) for numbers in exemplars)
    return max((exemplar for exemplar in found if exemplar), key=lambda exemplar: exemplar[2], default=None)
