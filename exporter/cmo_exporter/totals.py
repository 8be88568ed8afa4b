"""The numbers of all workers made into one: what a scrape shows.

A worker's block says which series are where in it. Workers of one service have the same series at the
start and a few of their own later, so what has to be added to what is worked out only when a series or a
worker has come or gone. Most series do not change from one scrape to the next, and what does not is not
added up again.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cmo_exporter import catalogue
from cmo_exporter.catalogue import BY_NAME, OTHER, Kind, OverWorkers
from cmo_exporter.errors import SharedDirectoryError
from cmo_exporter.instruments import EXEMPLAR_WIDTH, EXEMPLARS, read_exemplar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cmo_exporter.catalogue import Metric
    from cmo_exporter.ledger import Ledger
    from cmo_exporter.values import Series, Values
    from cmo_exporter.workers import SharedDirectory

Labels = tuple[str, ...]
Exemplar = tuple[dict[str, str], float, float]
"""The ids, the value and the Unix time."""

_Part = tuple[int, int]  # which source, and where in it
_Span = tuple[int, int, int]  # which source, where in it, and where behind


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
    numbers: list[float]


@dataclass(frozen=True)
class _Sum:
    """A series, the parts that it is the sum of, and those that its exemplars are in."""

    labels: Labels
    width: int
    parts: list[_Part]
    exemplars: list[_Part]


class _Plan:
    """One metric: its series, where the numbers of all of them are, and what was made of them last."""

    def __init__(self, metric: Metric, sums: list[_Sum]) -> None:
        self._metric = metric
        self._sums = sums
        self._spans = _spans(sums)
        # By whether exemplars were asked for.
        self._last: dict[bool, tuple[list[list[float]], list[Total]]] = {}

    def read(self, sources: list[_Source], now: float, *, with_exemplars: bool) -> list[Total]:
        """The series; the same list as last time if nothing has changed."""
        numbers = [sources[source].numbers[first:behind] for source, first, behind in self._spans]
        last = self._last.get(with_exemplars)
        # The age of a query grows without any number changing.
        if last is not None and last[0] == numbers and self._metric is not catalogue.OLDEST_QUERY_AGE:
            return last[1]
        totals = [
            _total(self._metric, one, sources, now, with_exemplars=with_exemplars) for one in self._sums
        ]
        self._last[with_exemplars] = (numbers, totals)
        return totals


class Totals:
    """Reads all workers and adds them up; not thread-safe."""

    def __init__(self, ledger: Ledger, values: Values, directory: SharedDirectory | None) -> None:
        self._ledger = ledger
        self._values = values
        self._directory = directory
        self._plans: dict[str, _Plan] = {}
        self._planned_for: tuple[object, ...] = ()

    def read(self, *, with_exemplars: bool) -> Iterator[tuple[Metric, list[Total]]]:
        """Every metric of the catalogue with its series, in the order of the catalogue, as of now."""
        # A look through the whole table of sessions must not keep a query waiting.
        sessions = self._ledger.sessions
        now = time.monotonic()
        overdue = sessions.overdue(now)
        with self._values.lock:
            self._values.journal.post()
            users = sessions.read(now, overdue)
            sources = [] if self._values.is_shared else [self._own()]
        if self._directory is not None:
            sources += self._workers(self._directory)
        planned_for = tuple(
            (source.place, id(source.series), source.count, source.alive) for source in sources
        )
        if planned_for != self._planned_for:
            self._plans, self._planned_for = _plans(sources), planned_for
        made = {
            catalogue.ACTIVE_USERS.name: _by_scenario(users, lambda user: user[0]),
            catalogue.ACTIVE_USER_SECONDS.name: _by_scenario(users, lambda user: user[1]),
            catalogue.ACTIVE_USER_CLOCK.name: [Total((), (now - self._ledger.sessions.began,))],
        }
        for name, metric in BY_NAME.items():
            if name in made:
                yield metric, made[name]
            elif name in self._plans:
                yield metric, self._plans[name].read(sources, now, with_exemplars=with_exemplars)

    def _own(self) -> _Source:
        series = self._values.series
        return _Source(None, series, len(series), alive=True, numbers=self._values.copy().tolist())

    def _workers(self, directory: SharedDirectory) -> Iterator[_Source]:
        blocks = directory.blocks()
        if directory.has_place and os.getpid() not in [block.process[0] for _, block, _ in blocks]:
            # Sums without this worker would look like counters that began again.
            raise SharedDirectoryError(
                f"shared_directory {directory.path} has been emptied or taken away while the service runs. "
                "Start the service's workers again, and keep others from cleaning up there."
            )
        for place, block, alive in blocks:
            numbers = block.read(is_written=alive).tolist()  # which also learns of new series
            yield _Source(place, block.series, len(block.series), alive, numbers)


def _by_scenario(
    users: dict[str, tuple[int, float]], what: Callable[[tuple[int, float]], float]
) -> list[Total]:
    return [
        Total((scenario,), (what(user),))
        for scenario, user in users.items()
        if scenario != OTHER or user[1] > 0 or user[0]
    ]


def _plans(sources: list[_Source]) -> dict[str, _Plan]:
    sums: dict[str, dict[Labels, _Sum]] = {}
    exemplars: dict[tuple[str, Labels], list[_Part]] = {}
    for number, source in enumerate(sources):
        for series in source.series[: source.count]:
            name, _, is_exemplars = series.metric.partition(EXEMPLARS[0])
            if is_exemplars:
                exemplars.setdefault((name, series.labels), []).append((number, series.base))
                continue
            metric = BY_NAME[name]
            if metric.over_workers is OverWorkers.EACH and not _is_of(source, metric, series.labels):
                continue
            known = sums.setdefault(name, {}).setdefault(
                series.labels,
                _Sum(series.labels, series.width, [], exemplars.setdefault((name, series.labels), [])),
            )
            if source.alive or metric.kind is not Kind.GAUGE:
                known.parts.append((number, series.base))
    return {name: _Plan(BY_NAME[name], list(by_labels.values())) for name, by_labels in sums.items()}


def _spans(sums: list[_Sum]) -> list[_Span]:
    """Where the numbers of these series and their exemplars are, in as few pieces as there can be."""
    pieces = sorted(
        (source, base, base + width)
        for one in sums
        for parts, width in ((one.parts, one.width), (one.exemplars, EXEMPLAR_WIDTH * (one.width - 1)))
        for source, base in parts
    )
    spans: list[_Span] = []
    for source, first, behind in pieces:
        if spans and spans[-1][0] == source and spans[-1][2] == first:
            spans[-1] = (source, spans[-1][1], behind)
        else:
            spans.append((source, first, behind))
    return spans


def _is_of(source: _Source, metric: Metric, labels: Labels) -> bool:
    """Whether a series is about the worker in whose block it is, and that worker is alive."""
    worker = labels[list(metric.labels).index("worker")]
    return source.place is None or (source.alive and worker == source.place)


def _total(metric: Metric, one: _Sum, sources: list[_Source], now: float, *, with_exemplars: bool) -> Total:
    width = one.width
    parts = [sources[source].numbers[base : base + width] for source, base in one.parts]
    if metric is catalogue.OLDEST_QUERY_AGE:
        # Workers write down when their oldest query began; all of them go by the clock of one machine.
        parts = [[max(0.0, now - began) if began else 0.0] for (began,) in parts]
    total: Sequence[float]
    if len(parts) == 1:
        total = parts[0]
    elif not parts:
        total = (0.0,) * width
    elif metric.over_workers is OverWorkers.LARGEST:
        total = [max(column) for column in zip(*parts, strict=True)]
    else:
        total = [sum(column) for column in zip(*parts, strict=True)]
    if with_exemplars and one.exemplars:
        return Total(one.labels, total, [_latest(one, sources, bucket) for bucket in range(width - 1)])
    return Total(one.labels, total)


def _latest(one: _Sum, sources: list[_Source], bucket: int) -> Exemplar | None:
    offset = bucket * EXEMPLAR_WIDTH
    found = (
        read_exemplar(sources[source].numbers[base + offset : base + offset + EXEMPLAR_WIDTH])
        for source, base in one.exemplars
    )
    return max((exemplar for exemplar in found if exemplar), key=lambda exemplar: exemplar[2], default=None)
