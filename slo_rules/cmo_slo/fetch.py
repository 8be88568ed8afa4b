"""Fetch the evidence of a run: wait until it is all there, then read it once.

The edge between the data source and the pure steps after it. Which samples count is decided by
`cmo_slo.span` alone; here it is only decided from when to when samples are read, generously.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cmo_exporter import catalogue

from cmo_slo.indicators import (
    ContinuityIndicator,
    GrowthIndicator,
    HeldLevelIndicator,
    LatencyIndicator,
    RatioIndicator,
)
from cmo_slo.prometheus import DataSourceError
from cmo_slo.samples import SCRAPE_DURATION, START_TIMES, UP, Clock, Evidence, find_targets, own_labels
from cmo_slo.span import (
    BACKGROUND_SERIES,
    LONGEST_GAP_INTERVALS,
    QUERY_SERIES,
    UncountableError,
    settled,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cmo_slo.manifest import Run, ScenarioRun
    from cmo_slo.model import Objectives
    from cmo_slo.prometheus import Prometheus
    from cmo_slo.samples import Reading

_INTERVAL_SEARCH_SECONDS: Final = 900.0
_DEFAULT_INTERVAL_SECONDS: Final = 15.0
_SETTLING_SCRAPES: Final = 3
_SETTLING_SECONDS: Final = 5.0
_SHORTEST_PAUSE_SECONDS: Final = 0.2
_LONGEST_PAUSE_SECONDS: Final = 2.0
_CLOCK_TRIES: Final = 3
_LONGEST_SECOND: Final = 3.0
_PAUSE_WITHIN_A_SECOND: Final = 0.01
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")

RUN_SERIES: Final = (
    catalogue.BREAKER_TRANSITIONS.name,
    catalogue.BREAKER_REJECTIONS.name,
    catalogue.RETRIES.name,
    catalogue.LLM_COST.name,
)
"""Counters without a scenario, which a report shows for a run as a whole."""


@dataclass(frozen=True)
class Source:
    """Which series are meant: matchers of labels, for example ``job="cmo"``."""

    selector: str

    def of(self, name: str, scenarios: Sequence[str]) -> str:
        """The selector of one series name, for the given scenarios where it has them."""
        matchers = [self.selector] if self.selector else []
        if "scenario" in own_labels(name):
            matchers.append(f'scenario=~"{"|".join(scenarios)}"')
        return f"{name}{{{','.join(matchers)}}}"


def indicator_series(objectives: Objectives) -> tuple[str, ...]:
    """The series names that the indicators of objectives are counted from."""
    names: list[str] = []
    for objective in objectives.objectives:
        indicator = objective.indicator
        match indicator:
            case RatioIndicator():
                names += [indicator.good.metric, indicator.total.metric]
            case LatencyIndicator():
                names += [f"{indicator.metric}_bucket", f"{indicator.metric}_count"]
            case HeldLevelIndicator():
                names += [indicator.integral, indicator.clock]
            case GrowthIndicator():
                names += [indicator.peak.metric, indicator.base.metric]
            case ContinuityIndicator():
                names += [indicator.start_time, indicator.successes.metric]
    return tuple(dict.fromkeys(names))


@dataclass(frozen=True)
class _Asked:
    """What time it is there, and ours before and after it was asked for; Unix seconds."""

    before: float
    theirs: float
    after: float


@dataclass(frozen=True)
class Fetcher:
    """Reads the evidence of one run.

    ``wait_seconds`` bounds how long it waits for the samples after the end of a run that has only just
    ended; ``None`` is three scrape intervals and five seconds. ``progress`` hears what it waits for.
    """

    prometheus: Prometheus
    source: Source
    wait_seconds: float | None = None
    progress: Callable[[str], None] = lambda _text: None
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep

    def fetch(self, run: Run, scenarios: Sequence[ScenarioRun], objectives: Objectives) -> Evidence:
        """Wait for the evidence and read it.

        Raises:
            DataSourceError: the data source could not be read.
        """
        clock = self.compare_clocks(run)
        names = [scenario.name for scenario in scenarios]
        interval = self._interval(scenarios, names)
        until = self._wait(scenarios, interval)
        since = min(one.start for one in scenarios) - interval * (LONGEST_GAP_INTERVALS + 2) - 1.0
        wanted = [UP, SCRAPE_DURATION, *START_TIMES, catalogue.QUERIES_IN_PROGRESS.name, *QUERY_SERIES]
        wanted += [*BACKGROUND_SERIES, *indicator_series(objectives), *RUN_SERIES]
        readings = [self._read(name, names, since, until) for name in dict.fromkeys(wanted)]
        return Evidence(tuple(readings), clock, until)

    def _read(self, name: str, scenarios: Sequence[str], since: float, until: float) -> Reading:
        return self.prometheus.raw(self.source.of(name, scenarios), since=since, until=until)

    def compare_clocks(self, run: Run) -> Clock:
        """Hold the clock of Prometheus against ours, if ours wrote the manifest; the quickest of some tries.

        Raises:
            DataSourceError: the data source could not be read, or its clock stands still.
        """
        if run.host not in _host_ids():
            return Clock(None)
        asked = [self._ask_the_time() for _ in range(_CLOCK_TRIES)]
        if all(one.theirs.is_integer() for one in asked):
            return self._compare_at_the_next_second(asked[-1])
        best = min(asked, key=lambda one: one.after - one.before)
        return Clock(best.theirs - (best.before + best.after) / 2, (best.after - best.before) / 2)

    def _compare_at_the_next_second(self, last: _Asked) -> Clock:
        """Compare with a clock that tells whole seconds, as VictoriaMetrics does, at the moment it goes on.

        It was after the last answer with the old second was asked for, and before the first with the new
        one was here.
        """
        deadline = self.clock() + _LONGEST_SECOND
        while self.clock() < deadline:
            now = self._ask_the_time()
            if now.theirs > last.theirs:
                earliest, latest = now.theirs - now.after, now.theirs - last.before
                return Clock((earliest + latest) / 2, (latest - earliest) / 2)
            last = now
            self.sleep(_PAUSE_WITHIN_A_SECOND)
        raise DataSourceError(f"The clock of {self.prometheus.url} stands still at {last.theirs:.0f}.")

    def _ask_the_time(self) -> _Asked:
        before = self.clock()
        theirs = self.prometheus.now()
        return _Asked(before, theirs, self.clock())

    def _interval(self, scenarios: Sequence[ScenarioRun], names: Sequence[str]) -> float:
        """The longest usual scrape interval of the targets, from the spacing of their samples."""
        start = min(one.start for one in scenarios)
        until = min(max(one.end for one in scenarios), self.clock())
        reading = self._read(UP, names, start - _INTERVAL_SEARCH_SECONDS, max(until, start))
        intervals = []
        for series in reading.series:
            times = sorted(series.points)
            gaps = sorted(later - earlier for earlier, later in pairwise(times))
            intervals += gaps[len(gaps) // 2 : len(gaps) // 2 + 1]
        return max(intervals, default=_DEFAULT_INTERVAL_SECONDS)

    def _wait(self, scenarios: Sequence[ScenarioRun], interval: float) -> float:
        """Wait until every target has come to rest after the last scenario; say until when to read."""
        last = max(scenarios, key=lambda one: one.end)
        usual = _SETTLING_SCRAPES * interval + _SETTLING_SECONDS
        patience = usual if self.wait_seconds is None else self.wait_seconds
        # A manifest from a clock that is ahead must not make anybody wait for its future.
        deadline = min(last.end, self.clock()) + patience
        pause = min(max(interval / 3, _SHORTEST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
        told = False
        while (now := self.clock()) < deadline and not self._at_rest(last, now, interval):
            if not told:
                self.progress(f"waiting up to {deadline - now:.0f} s for the samples after {last.name} …")
                told = True
            self.sleep(min(pause, max(deadline - now, _SHORTEST_PAUSE_SECONDS)))
        return min(now, last.end + max(usual, patience))

    def _at_rest(self, scenario: ScenarioRun, now: float, interval: float) -> bool:
        since = scenario.end - interval
        if now <= since:
            return False
        names = (UP, SCRAPE_DURATION, catalogue.QUERIES_IN_PROGRESS.name, *QUERY_SERIES)
        readings = tuple(self._read(name, [scenario.name], since, now) for name in names)
        targets = find_targets(Evidence(readings, Clock(None), now), since).targets
        try:
            for target in targets:
                settled(target, scenario)
        except UncountableError:
            return False
        return bool(targets)


def _host_ids() -> tuple[str, ...]:
    """The ids that a manifest written on this host may have; none where the kernel tells no boot id."""
    try:
        text = _BOOT_ID.read_text(encoding="ascii")
    except OSError:
        return ()
    # The file ends in a newline, which some writers hash and others strip.
    return tuple(hashlib.sha256(form.encode()).hexdigest()[:16] for form in (text, text.strip()))
