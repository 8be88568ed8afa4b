"""A service's counters over a month, and the truth that they are held against.

Each day has a rush hour in which a tenth of the queries fails, and a night in which nobody asks. On some days
the service restarts: its counters begin at 0 again, and what it had counted since the scrape before is lost
to everybody but the truth. The same seed gives the same month; its end is mid-afternoon, whatever the clock
says.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from cmo_exporter import catalogue
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

STEP_SECONDS: Final = 15
DAY_SECONDS: Final = 86_400
HOUR_SECONDS: Final = 3_600
SEED: Final = 15
TARGET_LABELS: Final = {"job": "cmo", "instance": "127.0.0.1:9464"}

Counts = NDArray[np.int64]
SeriesKey = tuple[str, tuple[tuple[str, str], ...]]

# The last sample is taken at this hour of the day; hours of the day are those of the people who ask.
_HOUR_OF_THE_END: Final = 15
_NIGHT_HOURS: Final = (0, 6)
_RUSH_HOURS: Final = (9, 10)
_QUERIES_PER_SECOND: Final = 0.5
_RUSH_QUERIES_PER_SECOND: Final = 10.0
# Days before the end, and hours of the day; one of them in the rush, when most is lost.
_RESTARTS: Final = ((1, 11.3), (5, 14.0), (9, 9.5), (13, 17.7), (20, 8.2), (27, 20.1))


@dataclass(frozen=True)
class _Mix:
    """What comes of queries, as shares.

    Attributes:
        outcomes: of all queries, in the order of the catalogue: success, error, timeout, rejected, cancelled.
        slow: of successes and of failures, those that take longer than 2 s.
        cache: of all queries: hit, miss, bypass.
        component_failures: of the calls that go on to LightRAG.
    """

    outcomes: tuple[float, ...]
    slow: float
    cache: tuple[float, ...]
    component_failures: float


_CALM: Final = _Mix((0.987, 0.005, 0.002, 0.001, 0.005), 0.02, (0.78, 0.20, 0.02), 0.02)
_RUSH: Final = _Mix((0.895, 0.050, 0.040, 0.010, 0.005), 0.08, (0.62, 0.36, 0.02), 0.09)


@dataclass(frozen=True)
class Series:
    """One counter or gauge as it is scraped: one value a step."""

    key: SeriesKey
    values: NDArray[Any]


@dataclass(frozen=True)
class History:
    """A month of scrapes, and every event in it.

    Attributes:
        start: Unix time of the first sample; step ``i`` is scraped at ``start + i * STEP_SECONDS``.
        seen: events of each counter that a step's scrape shows, whose step they are in.
        lost: events that a restart has taken before any scrape.
        restarts: steps in which the service has restarted.
    """

    start: int
    seen: Mapping[SeriesKey, Counts]
    lost: Mapping[SeriesKey, Counts]
    restarts: tuple[int, ...]

    @property
    def steps(self) -> int:
        """How many scrapes there are."""
        return len(next(iter(self.seen.values())))

    @property
    def end(self) -> int:
        """Unix time of the last sample."""
        return self.start + (self.steps - 1) * STEP_SECONDS

    @property
    def events_lost(self) -> int:
        """Queries that no scrape has ever shown."""
        return sum(int(counts.sum()) for key, counts in self.lost.items() if key[0] == catalogue.QUERIES.name)

    def step_at(self, moment: float) -> int:
        """The last step scraped at or before a moment (Unix time)."""
        return int((moment - self.start) // STEP_SECONDS)

    def count(self, metric: str, labels: Mapping[str, tuple[str, ...]], first: int, last: int) -> int:
        """Events of counters with any of these label values, in steps after ``first`` up to ``last``.

        Exact: each event that has happened is counted, those that were lost included.
        """
        return sum(
            int(counts[first + 1 : last + 1].sum() + self.lost[key][first + 1 : last + 1].sum())
            for key, counts in self.seen.items()
            if key[0] == metric and all(dict(key[1]).get(name) in values for name, values in labels.items())
        )

    def series(self) -> Iterator[Series]:
        """What the service exposes: counters that begin at 0 after each restart, and its start time."""
        for key, counts in self.seen.items():
            yield Series(key, self._since_restart(counts))
        yield Series(
            (catalogue.WORKER_START_TIME.name, (("worker", "0"),)),
            np.repeat(self._start_times(), np.diff([0, *self.restarts, self.steps])),
        )

    def _since_restart(self, counts: Counts) -> Counts:
        risen = np.cumsum(counts)
        bases = [0, *(risen[step - 1] for step in self.restarts)]
        since: Counts = risen - np.repeat(bases, np.diff([0, *self.restarts, self.steps]))
        return since

    def _start_times(self) -> list[int]:
        return [self.start - DAY_SECONDS, *(self.start + step * STEP_SECONDS - 5 for step in self.restarts)]


def month(end: int, seconds: int, seed: int = SEED) -> History:
    """A history that ends at a moment.

    Args:
        end: Unix time of the last sample.
        seconds: how long it is.
        seed: the same gives the same events.
    """
    chance = np.random.default_rng(seed)
    steps = seconds // STEP_SECONDS + 1
    before_end = np.arange(steps - 1, -1, -1) * STEP_SECONDS
    # Of the middle of the step that a scrape ends.
    hours = (_HOUR_OF_THE_END - (before_end + STEP_SECONDS / 2) / HOUR_SECONDS) % 24
    restarts = tuple(sorted(step for step in map(_restart_step(steps), _RESTARTS) if step > 0))
    survived = np.ones(steps)
    survived[list(restarts)] = chance.uniform(0.2, 0.8, len(restarts))
    seen, lost = _events(chance, hours, survived), _events(chance, hours, 1 - survived)
    return History(end - (steps - 1) * STEP_SECONDS, seen, lost, restarts)


def _restart_step(steps: int) -> Any:
    def step(restart: tuple[int, float]) -> int:
        days, hour = restart
        seconds = days * DAY_SECONDS + (_HOUR_OF_THE_END - hour) * HOUR_SECONDS
        return steps - 1 - int(seconds // STEP_SECONDS)

    return step


def _events(
    chance: np.random.Generator, hours: NDArray[np.float64], share_of_step: NDArray[np.float64]
) -> dict[SeriesKey, Counts]:
    """Events of every counter in each step, of which only a share is looked at."""
    rush = (hours >= _RUSH_HOURS[0]) & (hours < _RUSH_HOURS[1])
    night = (hours >= _NIGHT_HOURS[0]) & (hours < _NIGHT_HOURS[1])
    per_second = np.where(rush, _RUSH_QUERIES_PER_SECOND, np.where(night, 0.0, _QUERIES_PER_SECOND))
    queries = chance.poisson(per_second * STEP_SECONDS * share_of_step)
    outcomes = _split(chance, queries, rush, "outcomes")
    cache = _split(chance, queries, rush, "cache")
    success, error, timeout, rejected, cancelled = outcomes
    failures, failing = cache[1], np.where(rush, _RUSH.component_failures, _CALM.component_failures)
    failed_calls = chance.binomial(failures, failing)
    live = ("scenario", catalogue.LIVE)
    events: dict[SeriesKey, Counts] = {
        (catalogue.QUERIES_STARTED.name, (live,)): queries,
    }
    for outcome, counts in zip(catalogue.QUERY_OUTCOMES, outcomes, strict=True):
        events[catalogue.QUERIES.name, (live, ("outcome", outcome))] = counts
    for result, counts in zip(catalogue.QUERY_CACHE_RESULTS, cache, strict=True):
        events[catalogue.QUERY_CACHE_RESULTS_TOTAL.name, (live, ("result", result))] = counts
    lightrag = (live, ("component", "lightrag"))
    for outcome in catalogue.QUERY_OUTCOMES:
        counts = {"success": cache[1] - failed_calls, "error": failed_calls}.get(outcome, 0 * queries)
        events[catalogue.COMPONENT_CALLS.name, (*lightrag, ("outcome", outcome))] = counts
    ended = {"success": success, "failure": error + timeout + rejected, "cancelled": cancelled}
    for outcome, counts in ended.items():
        events |= _durations(chance, counts, rush, (live, ("outcome", outcome)))
    return events


def _split(chance: np.random.Generator, counts: Counts, rush: NDArray[np.bool_], share: str) -> list[Counts]:
    calm_shares, rush_shares = getattr(_CALM, share), getattr(_RUSH, share)
    split = np.where(
        rush[:, None], chance.multinomial(counts, rush_shares), chance.multinomial(counts, calm_shares)
    )
    return list(split.T)


def _durations(
    chance: np.random.Generator, counts: Counts, rush: NDArray[np.bool_], labels: tuple[tuple[str, str], ...]
) -> dict[SeriesKey, Counts]:
    """The histogram of some queries: up to each edge, and all of them."""
    edges = (*catalogue.QUERY_DURATION.buckets, float("inf"))
    calm_shares, rush_shares = (_bucket_shares(edges, mix.slow) for mix in (_CALM, _RUSH))
    inside = np.where(
        rush[:, None], chance.multinomial(counts, rush_shares), chance.multinomial(counts, calm_shares)
    )
    name = catalogue.QUERY_DURATION.name
    events = {(f"{name}_count", labels): counts}
    for index, edge in enumerate(edges):
        le = "+Inf" if edge == float("inf") else repr(edge)
        events[f"{name}_bucket", (*labels, ("le", le))] = inside[:, : index + 1].sum(axis=1)
    return events


def _bucket_shares(edges: tuple[float, ...], slow: float) -> list[float]:
    """Shares of the buckets: a triangle over those within 2 s, and few beyond."""
    within = [edge <= 2.0 for edge in edges]
    weights = list(itertools.chain(range(1, sum(within) + 1), (1 for inside in within if not inside)))
    inside_sum, outside_sum = sum(weights[: sum(within)]), len(edges) - sum(within)
    return [
        weight * ((1 - slow) / inside_sum if inside else slow / outside_sum)
        for weight, inside in zip(weights, within, strict=True)
    ]
