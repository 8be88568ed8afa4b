"""Find the scrapes that enclose one scenario on one target: what its counts are taken from.

T0 is the last scrape that was over before the start, and T1 the first after the end by which nothing is in
progress and two scrapes agree. Where either cannot be known, nothing can be counted, and the reason is told.

Pure functions of plain data.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from cmo_exporter import catalogue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cmo_slo.manifest import ScenarioRun
    from cmo_slo.samples import LabelKey, Scrape, Series, Target

CLOCK_MARGIN_SECONDS: Final = 0.25
"""How far two clocks may differ, a worker's numbers being a tenth of a second old in another worker's scrape.

Scrapes so close to the start or the end of a scenario are not used.
"""

START_TIME_RESOLUTION_SECONDS: Final = 1.0
"""Start times come from the kernel's boot time, which is told in whole seconds."""

LONGEST_GAP_INTERVALS: Final = 5
"""How many scrape intervals may pass without an answered scrape before what lies between is unknown."""

DURATION_BUCKET: Final = f"{catalogue.QUERY_DURATION.name}_bucket"
DURATION_COUNT: Final = f"{catalogue.QUERY_DURATION.name}_count"

QUERY_SERIES: Final = (
    catalogue.QUERIES_STARTED.name,
    catalogue.QUERIES.name,
    DURATION_COUNT,
    DURATION_BUCKET,
    catalogue.ANSWERS.name,
    catalogue.CACHE_REQUESTS.name,
    catalogue.QUERY_CACHE_RESULTS_TOTAL.name,
    catalogue.FALLBACKS.name,
)
"""Counters that stand still once the last question of a scenario has been answered."""

BACKGROUND_SERIES: Final = (catalogue.COMPONENT_CALLS.name,)
"""Counters that may still move then: a component's call can outlive the question it was made for."""


class UncountableError(Exception):
    """Something cannot be counted; the message says what is missing."""


@dataclass(frozen=True)
class Restart:
    """A process that was started anew, as seen in the scrape at ``seen``.

    ``at`` is when by its own account, if that lies between the two scrapes that tell the processes apart.
    """

    target: str
    at: float
    seen: float
    whole: bool
    what: str


@dataclass(frozen=True)
class Span:
    """The scrapes of one target that a scenario is counted from: T0 (``base``) and all after it up to T1.

    ``base`` is ``None`` for a target that was born after the start: its counters began at 0. ``fresh`` are
    the times of scrapes that showed a process newer than the scrape before did.
    """

    target: Target
    base: Scrape | None
    scrapes: tuple[Scrape, ...]
    fresh: frozenset[float]
    confirmed_at: float

    @property
    def last(self) -> Scrape:
        """T1."""
        return self.scrapes[-1]

    @property
    def samples(self) -> int:
        """How many scrapes it is counted from."""
        return len(self.scrapes) + (self.base is not None)

    @property
    def gaps(self) -> tuple[float, ...]:
        """Times of scrapes between T0 and T1 that failed."""
        first = self.base.time if self.base else self.scrapes[0].time
        return tuple(time for time in self.target.failed_scrapes if first < time < self.last.time)


def find_restarts(target: Target) -> tuple[Restart, ...]:
    """Every restart that a target's own start times show, in any of its scrapes."""
    found = []
    for earlier, later in pairwise(target.scrapes):
        before, after = target.worker_starts(earlier), target.worker_starts(later)
        changed = [key for key in before if before[key] != after.get(key)]
        appeared = [key for key in after if key not in before]
        if not changed and not appeared:
            continue
        starts = [after[key] for key in (*changed, *appeared) if key in after]
        found.append(
            Restart(
                target=target.name,
                at=_moment(max(starts, default=later.time), earlier, later),
                seen=later.time,
                whole=len(changed) == len(before),
                what="A process started anew" if starts else "A process ended",
            )
        )
    return tuple(found)


def _moment(told: float, earlier: Scrape, later: Scrape) -> float:
    """When a process was started; a service whose clock is wrong cannot move that to before the run."""
    known = earlier.time - START_TIME_RESOLUTION_SECONDS <= told <= later.time + START_TIME_RESOLUTION_SECONDS
    return told if known else later.time


def find_falls(target: Target, restarts: Sequence[Restart]) -> tuple[Restart, ...]:
    """Every scrape in which a question counter had fallen that none of the known ``restarts`` explains."""
    found: dict[float, Restart] = {}
    known = {one.seen for one in restarts}
    for name in QUERY_SERIES:
        for series in target.select(name).values():
            for (_, before), (time, after) in pairwise(sorted(series.points.items())):
                if after < before and time not in known:
                    found.setdefault(time, fall(target, series, before, after, time))
    return tuple(found.values())


def fall(target: Target, series: Series, before: float, after: float, time: float) -> Restart:
    """A counter that has fallen: whatever the start times say, what it had counted is gone."""
    what = f"{series.name} fell from {before:g} to {after:g}"
    return Restart(target.name, time, time, whole=True, what=what)


def is_inside(restart: Restart, scenario: ScenarioRun) -> bool:
    """Whether a restart came after the start of a scenario, as far as can be told."""
    return restart.at > scenario.start - START_TIME_RESOLUTION_SECONDS


def find_span(target: Target, scenario: ScenarioRun, restarts: Sequence[Restart]) -> Span:
    """The span of one scenario on one target, of which ``restarts`` are known.

    Raises:
        UncountableError: T0 or T1 is not known, or what happened between them cannot be.
    """
    base = _base(target, scenario, restarts)
    last, confirmed = settled(target, scenario)
    first = base.time if base else float("-inf")
    scrapes = tuple(scrape for scrape in target.scrapes if first < scrape.time <= last.time)
    fresh = frozenset(one.seen for one in restarts if first < one.seen <= last.time)
    for one in restarts:
        if one.seen in fresh and not one.whole and not is_inside(one, scenario):
            raise UncountableError(
                f"A worker of {target.name} started anew after the last scrape before the start, and others "
                "did not: where its counters began is not known."
            )
    if not any(target.worker_starts(scrape) for scrape in scrapes):
        raise UncountableError(
            f"{target.name} tells no start time (process_start_time_seconds or "
            f"{catalogue.WORKER_START_TIME.name}), so a restart, which loses events, cannot be ruled out."
        )
    return Span(target, base, scrapes, fresh, confirmed.time)


def _base(target: Target, scenario: ScenarioRun, restarts: Sequence[Restart]) -> Scrape | None:
    earlier = [s for s in target.scrapes if s.end + CLOCK_MARGIN_SECONDS <= scenario.start]
    if not earlier:
        _require_born_later(target, scenario)
        return None
    base = earlier[-1]
    longest = LONGEST_GAP_INTERVALS * (target.interval_seconds or 0.0) + CLOCK_MARGIN_SECONDS
    if scenario.start - base.time > longest:
        raise UncountableError(
            f"The last scrape of {target.name} before {scenario.name} is {scenario.start - base.time:.1f} s "
            "older than its start: what happened between is not known."
        )
    state = _state(target, scenario.name, base)
    quiet_since = earlier[-2] if len(earlier) > 1 else None
    if any(one.seen == base.time for one in restarts):
        quiet_since = None
    before = _state(target, scenario.name, quiet_since) if quiet_since else {}
    if state != before:
        raise UncountableError(
            f"{target.name} was not quiet before {scenario.name}: its counters moved between the two scrapes "
            "before the start, or there was only one. Leave two scrape intervals between runs of a scenario."
        )
    if _in_progress(target, scenario.name, base) != 0:
        raise UncountableError(
            f"{target.name} was not quiet before {scenario.name}: questions were in progress in the last "
            "scrape before the start, or their number is not known."
        )
    return base


def _require_born_later(target: Target, scenario: ScenarioRun) -> None:
    starts = target.worker_starts(target.scrapes[0]).values() if target.scrapes else ()
    if not starts or min(starts) < scenario.start - START_TIME_RESOLUTION_SECONDS:
        raise UncountableError(
            f"{target.name} was not scraped before {scenario.name} began, so where its counters stood is not "
            "known. Wait for two scrapes of the service before a load test."
        )


def settled(target: Target, scenario: ScenarioRun) -> tuple[Scrape, Scrape]:
    """T1, and the scrape after it that confirms it.

    Raises:
        UncountableError: no two scrapes after the end agree with nothing in progress.
    """
    later = [s for s in target.scrapes if s.time > scenario.end + CLOCK_MARGIN_SECONDS]
    for one, following in pairwise(later):
        quiet = (
            _in_progress(target, scenario.name, one) == 0 == _in_progress(target, scenario.name, following)
        )
        if quiet and _state(target, scenario.name, one) == _state(target, scenario.name, following):
            return one, following
    raise UncountableError(_unsettled(target, scenario, later))


def _unsettled(target: Target, scenario: ScenarioRun, later: Sequence[Scrape]) -> str:
    failed = [time for time in target.failed_scrapes if time > scenario.end]
    if len(later) >= 2:
        return (
            f"{target.name} did not come to rest after {scenario.name}: in {len(later)} scrapes after its "
            "end questions were still in progress, or counters still moved."
        )
    if failed:
        return (
            f"{target.name} does not answer: {len(failed)} scrapes failed after the end of {scenario.name}."
        )
    return (
        f"{target.name} has {len(later)} scrapes after the end of {scenario.name}, and two are needed that "
        "agree. If the run has only just ended, give it more time with --wait."
    )


def _in_progress(target: Target, scenario: str, scrape: Scrape) -> float | None:
    series = target.select(catalogue.QUERIES_IN_PROGRESS.name, scenario=scenario)
    if not series and not any(target.select(name, scenario=scenario) for name in QUERY_SERIES):
        return 0.0  # this target knows nothing of the scenario
    values = [one.points.get(scrape.time) for one in series.values()]
    return values[0] if len(values) == 1 else None


def _state(target: Target, scenario: str, scrape: Scrape) -> dict[tuple[str, LabelKey], float]:
    """What the question counters of a scenario stood at; those at 0 are left out, as are unborn ones."""
    return {
        (name, key): value
        for name in QUERY_SERIES
        for key, series in target.select(name, scenario=scenario).items()
        if (value := series.points.get(scrape.time, 0.0)) != 0.0
    }
