"""Measure levels over one scenario of a run: users held, and memory grown.

Gauges lose what happens between scrapes. Users therefore come from an integral, whose rise over the rise of
its clock is the exact mean between any two samples, and memory from a peak that the exporter keeps.

Pure functions of plain data.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from cmo_slo.samples import LARGEST_EXACT
from cmo_slo.span import CLOCK_MARGIN_SECONDS, LONGEST_GAP_INTERVALS, UncountableError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cmo_slo.count import ScenarioCount
    from cmo_slo.indicators import GrowthIndicator, HeldLevelIndicator
    from cmo_slo.manifest import ScenarioRun
    from cmo_slo.samples import LabelKey, Scrape, Series, Target
    from cmo_slo.span import Span

_PEAK_TOLERANCE: Final = 0.01  # a scrape may read memory a moment after the peak was last raised


@dataclass(frozen=True)
class Held:
    """The mean level in the lowest and the highest interval between scrapes, as bounds over all targets.

    One user may be counted on several targets, so the true level is between that of the busiest target
    (``at_least``) and the sum of all (``at_most``); with one target they are equal. The intervals of two
    targets are not the same stretches of time: in one's lowest, the other may have had its highest.
    """

    at_least: float
    at_most: float
    highest: float
    intervals: int


@dataclass(frozen=True)
class Growth:
    """Memory of one instance in bytes: by worker, at its last scrape before the start and at its peak."""

    target: str
    base: Mapping[str, float]
    peak: Mapping[str, float]

    @property
    def bytes(self) -> float:
        """How much the instance grew, all its workers together."""
        return sum(self.peak.values()) - sum(self.base.values())


def held_level(count: ScenarioCount, indicator: HeldLevelIndicator) -> Held:
    """The level between the last user's first question and the first user's last answer.

    Raises:
        UncountableError: fewer than two intervals lie in that stretch, or samples are missing in it.
    """
    if not count.spans:
        raise UncountableError("There is no target to measure users on.")
    by_target = [_means(span.target, count.scenario, indicator) for span in count.spans]
    highest = sum(max(means) for means in by_target)
    return Held(
        at_least=max(min(means) for means in by_target),
        at_most=min(highest - max(means) + min(means) for means in by_target),
        highest=highest,
        intervals=min(len(means) for means in by_target),
    )


def _means(target: Target, scenario: ScenarioRun, indicator: HeldLevelIndicator) -> list[float]:
    first = scenario.held_start + CLOCK_MARGIN_SECONDS
    last = scenario.held_end - CLOCK_MARGIN_SECONDS
    scrapes = [scrape for scrape in target.scrapes if first <= scrape.time and scrape.end <= last]
    if len(scrapes) < 3:
        raise UncountableError(
            f"Users were all there for {max(0.0, scenario.held_end - scenario.held_start):.1f} s, with "
            f"{len(scrapes)} scrapes of {target.name}: at least 3 are needed to see 2 intervals. Scrape more "
            "often, or run longer."
        )
    _require_covered(target, scrapes, first, last)
    integral = _only(target, indicator.integral, scenario=scenario.name)
    clock = _only(target, indicator.clock)
    return [_mean(target, integral, clock, one, following) for one, following in pairwise(scrapes)]


def _require_covered(target: Target, scrapes: Sequence[Scrape], first: float, last: float) -> None:
    longest = LONGEST_GAP_INTERVALS * (target.interval_seconds or 0.0)
    times = [first, *(scrape.time for scrape in scrapes), last]
    widest = max(later - earlier for earlier, later in pairwise(times))
    if widest > longest:
        raise UncountableError(
            f"{target.name} was not scraped for {widest:.1f} s while users were to be held: how many there "
            "were is not known."
        )


def _mean(target: Target, integral: Series, clock: Series, one: Scrape, following: Scrape) -> float:
    ends = [series.points.get(scrape.time) for series in (integral, clock) for scrape in (one, following)]
    if None in ends:
        raise UncountableError(f"{integral.name} of {target.name} is missing in some scrapes.")
    before, after, clock_before, clock_after = (value for value in ends if value is not None)
    if after < before or clock_after <= clock_before:
        raise UncountableError(
            f"{integral.name} of {target.name} or its clock did not rise: was it restarted?"
        )
    mean = (after - before) / (clock_after - clock_before)
    if not all(0 <= value <= LARGEST_EXACT for value in (before, after, clock_before, clock_after, mean)):
        raise UncountableError(
            f"{integral.name} of {target.name} or its clock is below 0 or above 2^53 in some scrapes."
        )
    # Integrals are sums of floats: 50 users are 49.999999999 of them, and not fewer than 50.
    return round(mean, 6)


def _only(target: Target, name: str, **labels: str) -> Series:
    found = list(target.select(name, **labels).values())
    if len(found) != 1:
        raise UncountableError(f"{target.name} has {len(found)} series {name}, expected 1.")
    return found[0]


def memory_growth(count: ScenarioCount, indicator: GrowthIndicator) -> tuple[Growth, ...]:
    """The growth of every instance, largest first.

    Raises:
        UncountableError: the base or the peak of some worker is not known.
    """
    if not count.spans:
        raise UncountableError("There is no target to measure memory on.")
    found = [_growth(span, count.scenario, indicator) for span in count.spans]
    return tuple(sorted(found, key=lambda growth: -growth.bytes))


def _growth(span: Span, scenario: ScenarioRun, indicator: GrowthIndicator) -> Growth:
    target = span.target
    if span.base is None or span.fresh:
        raise UncountableError(
            f"A process of {target.name} was started after the last scrape before {scenario.name}: how much "
            "memory it had at the start is not known."
        )
    peaks = _by_worker(target, indicator.peak.metric, {"scenario": (scenario.name,), **indicator.peak.labels})
    resident = _by_worker(target, indicator.base.metric, indicator.base.labels)
    base = {worker: series.points.get(span.base.time) for worker, series in resident.items()}
    peak = {worker: _peak(peaks.get(worker), series, span, scenario) for worker, series in resident.items()}
    if not base or None in base.values() or set(peaks) != set(resident):
        raise UncountableError(
            f"{target.name} does not tell {indicator.base.metric} before the start and "
            f"{indicator.peak.metric} after the end for the same workers."
        )
    return Growth(target.name, {worker: value for worker, value in base.items() if value is not None}, peak)


def _by_worker(target: Target, name: str, labels: Mapping[str, Sequence[str]]) -> dict[str, Series]:
    found: dict[str, Series] = {}
    for key, series in target.series.get(name, {}).items():
        own = dict(key)
        if all(own.get(label) in values for label, values in labels.items()):
            found[_worker(key)] = series
            if any(not 0 <= value <= LARGEST_EXACT for value in series.points.values()):
                raise UncountableError(f"{name} of {target.name} is below 0 or above 2^53 in some scrapes.")
    return found


def _worker(key: LabelKey) -> str:
    return dict(key).get("worker", "")


def _peak(series: Series | None, resident: Series, span: Span, scenario: ScenarioRun) -> float:
    """The peak that the exporter kept, or a higher sample: a sample is a lower bound of any true peak."""
    kept = series.points.get(span.last.time) if series else None
    seen = [value for time, value in resident.points.items() if scenario.start <= time <= scenario.end]
    if kept is None or kept <= 0 or kept < max(seen, default=0.0) * (1 - _PEAK_TOLERANCE):
        raise UncountableError(
            f"The memory peak of {span.target.name} was not kept during {scenario.name}: it is "
            f"{'absent' if kept is None else f'{kept:.0f} bytes'}, and samples were as high as "
            f"{max(seen, default=0.0):.0f} bytes."
        )
    return max([kept, *seen])
