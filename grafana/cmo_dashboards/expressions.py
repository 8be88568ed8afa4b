"""Indicators as PromQL for people to look at: ratios of increases, means of users, growth of memory.

A verdict counts raw samples (see the checker); a picture may estimate. What a picture may not do is say that
all is well for want of data, so every denominator is guarded by ``> 0``: no traffic gives no series, never
NaN, 0 or 100 %. Windows are Grafana's macros, which fit any scrape interval that the data source knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cmo_exporter import catalogue

if TYPE_CHECKING:
    from cmo_slo.indicators import (
        Events,
        GrowthIndicator,
        HeldLevelIndicator,
        LatencyIndicator,
        RatioIndicator,
    )

RANGE: Final = "$__range"
RATE_INTERVAL: Final = "$__rate_interval"
INTERVAL: Final = "$__interval"

_Labels = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Population:
    """Whose queries are looked at: a matcher of scenarios, and whether they are pooled or each by itself."""

    matcher: str
    pooled: bool = False

    @property
    def by(self) -> str:
        """The grouping of an aggregation over this population."""
        return "" if self.pooled else " by (scenario)"


CHOSEN: Final = 'scenario=~"$scenario"'
TESTS: Final = Population(f'{CHOSEN}, scenario!="{catalogue.LIVE}"')
"""Each chosen scenario of a load test by itself."""
ALL_TESTS: Final = Population(TESTS.matcher, pooled=True)
"""The chosen scenarios of a load test together: "overall", which live traffic is no part of."""
LIVE: Final = Population(f'{CHOSEN}, scenario="{catalogue.LIVE}"')
"""Live traffic, if it is chosen."""
EACH: Final = Population(CHOSEN)
"""Each chosen scenario by itself, live included."""


def selector(metric: str, labels: _Labels, *matchers: str) -> str:
    """A metric with any of the given label values, and further matchers in front of them."""
    parts = [*matchers, *(_matcher(name, values) for name, values in labels.items())]
    return f"{metric}{{{', '.join(parts)}}}"


def ratio(indicator: RatioIndicator, people: Population, window: str) -> str:
    """Good events of total events over a window; no series where there was no event."""
    good = _events(indicator.good, people, window)
    return f"{good} / ({_events(indicator.total, people, window)} > 0)"


def within_threshold(indicator: LatencyIndicator, people: Population, window: str) -> str:
    """Share of queries that got a real answer within the threshold; users who left before it do not count."""
    good = _count(f"{indicator.metric}_bucket", indicator.good, people, window, _edge(indicator))
    total = _count(f"{indicator.metric}_count", indicator.total, people, window)
    if indicator.excluded_within_threshold:
        left = indicator.excluded_within_threshold
        total += f" - {_count(f'{indicator.metric}_bucket', left, people, window, _edge(indicator))}"
    return f"{good} / (({total}) > 0)"


def within_threshold_of_good(indicator: LatencyIndicator, people: Population, window: str) -> str:
    """The same of the good outcomes alone: how fast the answers are that people do get."""
    good = _count(f"{indicator.metric}_bucket", indicator.good, people, window, _edge(indicator))
    return f"{good} / ({_count(f'{indicator.metric}_count', indicator.good, people, window)} > 0)"


def mean_level(indicator: HeldLevelIndicator, people: Population, window: str) -> str:
    """Exact mean of a level over a window: rise of its integral over rise of its clock, instances added."""
    integral = f"rate({selector(indicator.integral, {}, people.matcher)}[{window}])"
    clock = f"(rate({indicator.clock}[{window}]) > 0)"
    return f"sum by (scenario) ({integral} / ignoring (scenario) group_left () {clock})"


def highest_mean_level(indicator: HeldLevelIndicator, people: Population) -> str:
    """The highest mean that a level had over any rate interval of the range."""
    return f"max_over_time(({mean_level(indicator, people, RATE_INTERVAL)})[{RANGE}:{INTERVAL}])"


def growth(indicator: GrowthIndicator, people: Population) -> str:
    """Growth of each scenario that had traffic in the range, in the instance where it grew most."""
    peak = f"max_over_time({_peak(indicator, people)}[{RANGE}])"
    busy = f"increase({_started(people)}[{RANGE}]) > 0"
    grown = f"sum by (job, instance, scenario) ({peak}) and on (job, instance, scenario) ({busy})"
    return f"max by (scenario) (({grown}) - on (job, instance, scenario) {_growth_base(indicator, people)})"


def growth_so_far(indicator: GrowthIndicator, people: Population) -> str:
    """Growth of each scenario at each moment that it has users."""
    users = selector(catalogue.ACTIVE_USERS.name, {}, people.matcher)
    peak = f"sum by (job, instance, scenario) ({_peak(indicator, people)})"
    grown = f"{peak} and on (job, instance, scenario) ({users} > 0)"
    base = _growth_base(indicator, people, " @ end()")
    return f"max by (scenario) (({grown}) - on (job, instance, scenario) {base})"


def _growth_base(indicator: GrowthIndicator, people: Population, at: str = "") -> str:
    """Lowest level from just before a scenario's first query on; start-up and earlier loads are left out.

    The negative offset looks one rate interval ahead: a moment counts when queries begin within it.
    """
    begins = f"increase({_started(people)}[{RATE_INTERVAL}] offset -{RATE_INTERVAL}) > 0"
    level = f"sum by (job, instance) ({selector(indicator.base.metric, indicator.base.labels)})"
    at_work = f"({begins}) * 0 + on (job, instance) group_left () {level}"
    return f"min_over_time(({at_work})[{RANGE}:{INTERVAL}]{at})"


def _peak(indicator: GrowthIndicator, people: Population) -> str:
    return selector(indicator.peak.metric, indicator.peak.labels, people.matcher)


def _started(people: Population) -> str:
    return selector(catalogue.QUERIES_STARTED.name, {}, people.matcher)


def _events(events: Events, people: Population, window: str) -> str:
    return _count(events.metric, events.labels, people, window)


def _count(series: str, labels: _Labels, people: Population, window: str, *matchers: str) -> str:
    return f"sum{people.by} (increase({selector(series, labels, people.matcher, *matchers)}[{window}]))"


def _edge(indicator: LatencyIndicator) -> str:
    """Matcher of the bucket edge: 2.0 is ``le="2"`` to some clients and ``le="2.0"`` to others."""
    edge = float(indicator.threshold_seconds)
    whole, _, decimals = str(edge).partition(".")
    return f'le=~"{whole}|{edge}"'.replace(".", "[.]") if decimals == "0" else f'le="{edge}"'


def _matcher(name: str, values: tuple[str, ...]) -> str:
    return f'{name}="{values[0]}"' if len(values) == 1 else f'{name}=~"{"|".join(values)}"'
