"""A scripted service and a scripted Prometheus: every event is known, so that counts can be held to a truth.

Counters are computed at the moment a scrape renders them, from the list of events alone; nothing here shares
code with the checker.
"""

from __future__ import annotations

import bisect
import random
from dataclasses import dataclass, field, replace
from itertools import product

from cmo_exporter import catalogue
from cmo_slo.manifest import Run, ScenarioRun
from cmo_slo.samples import Clock, Evidence, Reading, Series

EPOCH = 1_790_000_000.0
OUTCOMES = catalogue.QUERY_OUTCOMES
GROUPS = {"success": "success", "cancelled": "cancelled"}


@dataclass(frozen=True)
class Question:
    begin: float
    seconds: float
    outcome: str
    cache: str = "miss"

    @property
    def end(self) -> float:
        return self.begin + self.seconds


@dataclass(frozen=True)
class Load:
    """One scenario: its questions, by times relative to the epoch, and how many users asked them."""

    name: str
    questions: tuple[Question, ...]
    users: int = 50
    held_users: float = 50.0
    base_bytes: float = 500e6
    peak_bytes: float = 550e6

    @property
    def start(self) -> float:
        return min(question.begin for question in self.questions)

    @property
    def end(self) -> float:
        return max(question.end for question in self.questions)

    def truth(self, **wanted: str) -> int:
        return sum(all(getattr(one, key) == value for key, value in wanted.items()) for one in self.questions)

    def within(self, outcome: str, seconds: float = 2.0) -> int:
        return sum(one.seconds <= seconds and one.outcome == outcome for one in self.questions)


def load(
    name: str = "academic_research",
    *,
    start: float = 60.0,
    length: float = 20.0,
    operations: int = 400,
    failures: int = 8,
    slow: int = 8,
    cancelled: int = 0,
    misses: int = 80,
    seed: int = 1,
    **more: float,
) -> Load:
    """A scenario with exactly so many failures, slow successes, cancelled questions and cache misses."""
    rng = random.Random(seed)
    kinds = ["error"] * failures + ["cancelled"] * cancelled
    kinds += ["slow"] * slow + ["success"] * (operations - failures - cancelled - slow)
    rng.shuffle(kinds)
    caches = ["miss"] * misses + ["hit"] * (operations - misses)
    rng.shuffle(caches)
    questions = []
    for index, (kind, cache) in enumerate(zip(kinds, caches, strict=True)):
        begin = start + (length - 3.0) * index / operations
        (seconds,) = (2.5,) if kind == "slow" else rng.choices([0.2, 0.7, 1.3, 2.0], [33, 33, 32, 2])
        questions.append(Question(begin, seconds, "success" if kind == "slow" else kind, cache))
    return Load(name, tuple(questions), **more)  # type: ignore[arg-type]


@dataclass(frozen=True)
class World:
    """What is scraped, and how. ``born`` is when the process that is scraped first started."""

    loads: tuple[Load, ...]
    interval: float = 1.0
    phase: float = 0.3
    scrape_seconds: float = 0.05
    render_share: float = 0.5
    lag_seconds: float = 0.05
    instances: int = 1
    born: float = -100.0
    restarts: tuple[float, ...] = ()
    failed: tuple[int, ...] = ()
    lazy: bool = False
    scraped_from: float = 0.0
    scraped_until: float | None = None
    extra_labels: tuple[tuple[str, str], ...] = ()
    job: str = "cmo"
    start_times: bool = True
    broken: tuple[tuple[str, float], ...] = field(default=())  # series name, share of samples turned into NaN

    @property
    def end(self) -> float:
        until = max(one.end for one in self.loads) + 4 * self.interval + 2.0
        return until if self.scraped_until is None else self.scraped_until

    def run(self) -> Run:
        scenarios = tuple(
            ScenarioRun(
                name=one.name,
                start=EPOCH + one.start,
                end=EPOCH + one.end,
                held_start=EPOCH + one.start + 1.0,
                held_end=EPOCH + one.end - 1.0,
                users=one.users,
                operations=len(one.questions),
            )
            for one in self.loads
        )
        start, end = min(one.start for one in scenarios), max(one.end for one in scenarios)
        return Run("scripted", "elsewhere", start, end, scenarios)

    def evidence(self, *, clock: Clock | None = None) -> Evidence:
        found: dict[str, list[Series]] = {}
        for instance in range(self.instances):
            for one in _Instance(self, instance).series():
                if one.points or one.broken:
                    found.setdefault(one.name, []).append(one)
        readings = tuple(
            Reading(f'{name}{{job="{self.job}"}}[x]', EPOCH + self.end, tuple(series))
            for name, series in found.items()
        )
        return Evidence(readings, clock or Clock(0.0), EPOCH + self.end)


class _Instance:
    def __init__(self, world: World, index: int) -> None:
        self.world = world
        self.labels = {"job": world.job, "instance": f"127.0.0.1:{9464 + index}", **dict(world.extra_labels)}
        # Instances are scraped at different moments, as Prometheus does it.
        phase = world.phase + 0.37 * index * world.interval
        self.times: list[float] = []
        time = world.scraped_from + phase
        while time <= world.end:
            if time >= world.born:
                self.times.append(round(time, 3))
            time += world.interval
        self.index = index
        self.rng = random.Random(index)

    def series(self) -> list[Series]:
        world = self.world
        found = [self._plain("up", [0.0 if n in world.failed else 1.0 for n in range(len(self.times))])]
        found.append(self._plain("scrape_duration_seconds", [world.scrape_seconds] * len(self.times)))
        found += self._process()
        for one in world.loads:
            found += self._counters(one)
            found += self._levels(one)
        return found

    def _plain(self, name: str, values: list[float]) -> Series:
        points = {EPOCH + time: value for time, value in zip(self.times, values, strict=True)}
        return Series(name, self.labels, points)

    def _life(self, moment: float) -> float:
        """When the process that lives at a moment was started."""
        return max([self.world.born, *(at for at in self.world.restarts if at <= moment)])

    def _scraped(self, name: str, own: dict[str, str], value: object) -> Series:
        assert callable(value)
        points: dict[float, float] = {}
        broken = set()
        share = dict(self.world.broken).get(name, 0.0)
        for n, time in enumerate(self.times):
            if n in self.world.failed:
                continue
            found = value(time + self.world.scrape_seconds * self.world.render_share)
            if found is None:
                continue
            if self.rng.random() < share:
                broken.add(EPOCH + time)
                continue
            points[EPOCH + time] = found
        return Series(name, {**self.labels, **own}, points, frozenset(broken))

    def _process(self) -> list[Series]:
        if not self.world.start_times:
            return []
        own = 0.001 * self.index

        def started(moment: float) -> float:
            return EPOCH + self._life(moment) + own

        clock = catalogue.ACTIVE_USER_CLOCK.name
        return [
            self._scraped("process_start_time_seconds", {}, started),
            self._scraped(catalogue.WORKER_START_TIME.name, {"worker": "0"}, started),
            self._scraped(clock, {}, lambda moment: moment - self._life(moment)),
        ]

    def _counter(self, name: str, own: dict[str, str], events: list[float]) -> Series:
        events = sorted(events)

        def value(moment: float) -> float | None:
            life = self._life(moment)
            count = bisect.bisect_right(events, moment) - bisect.bisect_left(events, life)
            return None if self.world.lazy and count == 0 else float(count)

        return self._scraped(name, own, value)

    def _counters(self, one: Load) -> list[Series]:
        mine = [
            question for n, question in enumerate(one.questions) if n % self.world.instances == self.index
        ]
        lag, scenario = self.world.lag_seconds, {"scenario": one.name}
        found = [self._counter(catalogue.QUERIES_STARTED.name, scenario, [q.begin for q in mine])]
        for outcome in OUTCOMES:
            ends = [q.end + lag for q in mine if q.outcome == outcome]
            found.append(self._counter(catalogue.QUERIES.name, {**scenario, "outcome": outcome}, ends))
        for result in catalogue.QUERY_CACHE_RESULTS:
            ends = [q.end + lag for q in mine if q.cache == result]
            name = catalogue.QUERY_CACHE_RESULTS_TOTAL.name
            found.append(self._counter(name, {**scenario, "result": result}, ends))
        for outcome in OUTCOMES:
            # What no cache has, LightRAG is asked for, and its outcome is the question's.
            ends = [q.end + lag for q in mine if q.outcome == outcome and q.cache == "miss"]
            own = {**scenario, "component": "lightrag", "outcome": outcome}
            found.append(self._counter(catalogue.COMPONENT_CALLS.name, own, ends))
        for group, edge in product(catalogue.DURATION_OUTCOMES, (*catalogue.DURATION_BUCKETS_SECONDS, None)):
            of_group = [q for q in mine if GROUPS.get(q.outcome, "failure") == group]
            own = {**scenario, "outcome": group}
            if edge is None:
                ends = [q.end + lag for q in of_group]
                found.append(self._counter("cmo_query_duration_seconds_count", own, ends))
                continue
            ends = [q.end + lag for q in of_group if q.seconds <= edge]
            own["le"] = f"{edge:g}" if self.index else str(edge)
            found.append(self._counter("cmo_query_duration_seconds_bucket", own, ends))
        return found

    def _levels(self, one: Load) -> list[Series]:
        share = 1 / self.world.instances

        def in_progress(moment: float) -> float:
            life = self._life(moment)
            mine = [q for n, q in enumerate(one.questions) if n % self.world.instances == self.index]
            return float(sum(life <= q.begin <= moment < q.end + self.world.lag_seconds for q in mine))

        def user_seconds(moment: float) -> float:
            since = max(one.start, self._life(moment))
            return share * one.held_users * max(0.0, min(moment, one.end) - since)

        def peak(moment: float) -> float:
            return one.peak_bytes if moment >= one.start else 0.0

        def resident(moment: float) -> float:
            return (one.base_bytes + one.peak_bytes) / 2 if one.start < moment < one.end else one.base_bytes

        own = {"scenario": one.name}
        found = [
            self._scraped(catalogue.QUERIES_IN_PROGRESS.name, own, in_progress),
            self._scraped(catalogue.ACTIVE_USER_SECONDS.name, own, user_seconds),
            self._scraped(catalogue.MEMORY_PEAK.name, {**own, "worker": "0"}, peak),
        ]
        if one is self.world.loads[0]:
            found.append(self._scraped(catalogue.MEMORY.name, {"worker": "0", "kind": "rss"}, resident))
        return found


SCENARIOS = ("academic_research", "clinical_rush", "cache_effectiveness", "rag_intensive")


def four(**changes: object) -> World:
    """The four scenarios of CMO-015 back to back, compliant unless changed."""
    loads = tuple(load(name, start=60.0 + 21.0 * n, seed=n) for n, name in enumerate(SCENARIOS))
    return replace(World(loads), **changes)  # type: ignore[arg-type]


def edited(evidence: Evidence, change: object) -> Evidence:
    """The evidence with every series passed through ``change``, which may drop one by returning ``None``."""
    assert callable(change)
    readings = []
    for reading in evidence.readings:
        series = [new for one in reading.series for new in _several(change(one))]
        readings.append(replace(reading, series=tuple(series)))
    return replace(evidence, readings=tuple(readings))


def _several(found: Series | list[Series] | None) -> list[Series]:
    if found is None:
        return []
    return found if isinstance(found, list) else [found]
