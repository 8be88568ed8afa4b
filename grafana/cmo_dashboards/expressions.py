"""Indicators as PromQL for people to look at: ratios of events, means of users, growth of memory.

Events and users are read from what the rules record (`cmo_slo.recorded`): exact differences, which add up to
what happened over any window. ``increase`` and ``rate`` of a raw counter extrapolate to the edges of their
window, by a factor that differs between the two sides of a ratio as soon as one of them is near zero. They
only tell here whether there was any traffic. Memory is read from raw gauges.

A picture may not say that all is well for want of data, so every denominator is guarded by ``> 0``: no
traffic, or no rules, gives no series, never NaN, 0 or 100 %. Windows are Grafana's macros, which fit any
scrape interval that the data source knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cmo_exporter import catalogue
from cmo_slo import recorded

if TYPE_CHECKING:
    from cmo_slo.indicators import GrowthIndicator, LatencyIndicator

RANGE: Final = "$__range"
RATE_INTERVAL: Final = "$__rate_interval"
INTERVAL: Final = "$__interval"

_ROUNDED_TO: Final = "0.000001"
"""As a verdict rounds: integrals are sums of floats, and 49.999999999 users are 50."""

_LEAST_RANK: Final = "0.000001"
"""At rank 0 a quantile is in the first bucket, whether or not it holds anything."""
_EDGES_ROUNDED_TO: Final = "0.001"

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


CHOSEN_COMPONENT: Final = 'component=~"$component"'
CHOSEN: Final = 'scenario=~"$scenario"'
_NO_TESTS: Final = f"{catalogue.LIVE}|{catalogue.PROBE_SCENARIO}"
TESTS: Final = Population(f'{CHOSEN}, scenario!~"{_NO_TESTS}"')
"""Each chosen scenario of a load test by itself."""
LIVE: Final = Population(f'{CHOSEN}, scenario="{catalogue.LIVE}"')
"""Live traffic, if it is chosen."""
EACH: Final = Population(CHOSEN)
"""Each chosen scenario by itself, live included."""
ON_CALL: Final = Population(f'scenario="{catalogue.LIVE}"')
"""Live traffic, whatever is chosen: a choice that somebody left behind may not hide it."""
NOT_THE_PROBER: Final = f'scenario!="{catalogue.PROBE_SCENARIO}"'
"""A verdict is about people and load tests: a prober that asks an idle service may not make it green."""

ANY_EVENTS: Final = "> 0"
"""Guards a denominator: no event, no ratio."""


def enough(minimum_events: int) -> str:
    """Guards a denominator: no ratio of fewer events than a verdict needs."""
    return f">= {max(minimum_events, 1)}"


def too_few(minimum_events: int) -> str:
    """Guards a denominator: a ratio only of what is too little for a verdict."""
    return f"{ANY_EVENTS} < {max(minimum_events, 1)}"


def selector(metric: str, labels: _Labels, *matchers: str) -> str:
    """A metric with any of the given label values, and further matchers in front of them."""
    parts = [*matchers, *(_matcher(name, values) for name, values in labels.items())]
    return f"{metric}{{{', '.join(parts)}}}"


@dataclass(frozen=True)
class Recorded:
    """What the rules record of one objective: ``slo`` names its file, ``objective`` itself."""

    slo: str
    objective: str

    def selector(self, series: str, *matchers: str) -> str:
        """A recorded series of this objective, and of no other file that happens to name one the same."""
        return selector(series, {"slo": (self.slo,), "objective": (self.objective,)}, *matchers)


def ratio(of: Recorded, people: Population, window: str, guard: str = ANY_EVENTS, offset: str = "") -> str:
    """Good events of total events over a window; no series where the guard does not let the total pass."""
    good = good_events(of, people, window, offset)
    return f"{good} / ({total_events(of, people, window, offset)} {guard})"


def good_events(of: Recorded, people: Population, window: str, offset: str = "") -> str:
    """Good events of an objective over a window; 0 where it is known that there was none."""
    return _sum(of.selector(recorded.GOOD_EVENTS, people.matcher), people, window, offset)


def total_events(of: Recorded, people: Population, window: str, offset: str = "") -> str:
    """Events of an objective over a window; 0 where it is known that there was none."""
    return _sum(of.selector(recorded.TOTAL_EVENTS, people.matcher), people, window, offset)


def overall_ratio(of: Recorded, window: str, guard: str = ANY_EVENTS) -> str:
    """Good events of total events of all scenarios of a load test, as the rules pool them for "overall".

    Live traffic, a prober and scenarios that no objective names are no part of it, whatever is chosen.
    """
    good = f"sum(sum_over_time({of.selector(recorded.OVERALL_GOOD_EVENTS)}[{window}]))"
    return f"{good} / ({overall_events(of, window)} {guard})"


def overall_events(of: Recorded, window: str) -> str:
    """Events of all scenarios of a load test over a window."""
    return f"sum(sum_over_time({of.selector(recorded.OVERALL_TOTAL_EVENTS)}[{window}]))"


def good_calls_ratio(
    slo: str, matchers: str, window: str, guard: str = ANY_EVENTS, by: str = "component"
) -> str:
    """Calls of components that gave an answer, of all; no series where the guard holds the total back."""
    good, total = (
        component_calls(series, slo, "success", matchers, window, by)
        for series in (recorded.COMPONENT_GOOD_EVENTS, recorded.COMPONENT_TOTAL_EVENTS)
    )
    return f"{good} / ({total} {guard})"


def component_calls(
    series: str, slo: str, indicator: str, matchers: str, window: str, by: str = "component"
) -> str:
    """Calls of components over a window, of a series recorded for an indicator of the objectives file."""
    selected = selector(series, {"slo": (slo,), "indicator": (indicator,)}, matchers)
    return f"sum by ({by}) (sum_over_time({selected}[{window}]))"


def quantile(rank: float, selection: str, window: str) -> str:
    """A quantile estimated from a histogram's buckets, where it has counted anything in the window.

    Args:
        rank: 0.95 for P95.
        selection: the histogram's buckets; never average what comes of several selections.
        window: a macro of Grafana's.
    """
    buckets = f"sum by (le) (rate({selection}[{window}]))"
    return f"histogram_quantile({rank:g}, {buckets}) and on () (sum({buckets}) > 0)"


def quantile_in_its_bucket(indicator: LatencyIndicator, people: Population) -> str:
    """The quantile that an objective names, of good outcomes in the range, and how sure it is.

    It is estimated between the edges of a bucket, which are its labels ``above`` and ``up_to``. They are
    found by a second histogram, whose only event lies in that bucket: its lowest quantile is the one edge,
    its highest the other. Beyond the last finite edge both are that edge.
    """
    bucket, count = (
        f"increase({selector(f'{indicator.metric}_{part}', indicator.good, people.matcher)}[{RANGE}])"
        for part in ("bucket", "count")
    )
    scenario = "" if people.pooled else "scenario"
    buckets = f"sum by ({', '.join(filter(None, (scenario, 'le')))}) ({bucket})"
    reached = f"{indicator.quantile:g} * sum by ({scenario}) ({count})"
    inside = f"({buckets}) >= bool on ({scenario}) group_left () ({reached})"
    above, up_to = (
        f"round(histogram_quantile({rank}, {inside}), {_EDGES_ROUNDED_TO})" for rank in (_LEAST_RANK, "1")
    )
    each = f"on ({scenario}) group_left ()"
    edges = f'count_values without () ("above", {above})'
    edges = f'count_values without () ("up_to", {edges} * {each} {up_to})'
    return f"{edges} * {each} (histogram_quantile({indicator.quantile:g}, {buckets}) >= 0)"


def within_threshold_of_good(slo: str, indicator: LatencyIndicator, people: Population, window: str) -> str:
    """Share of the good outcomes within the threshold: how fast the answers are that people do get."""
    labels = {"slo": (slo,), **indicator.good}
    bucket, count = (recorded.increase(f"{indicator.metric}_{part}") for part in ("bucket", "count"))
    within = _sum(selector(bucket, labels, people.matcher, _edge(indicator)), people, window)
    return f"{within} / ({_sum(selector(count, labels, people.matcher), people, window)} > 0)"


def mean_level(of: Recorded, people: Population, offset: str = "") -> str:
    """Exact mean of a level over each step of the picture: rise of its integral over rise of its clock.

    A step is at least a scrape interval, and so holds an evaluation of the rules. A longer window would only
    smooth: for its whole length it would mix the users who have come with the time before they did.
    """
    integral = _sum(of.selector(recorded.USER_SECONDS, people.matcher), people, INTERVAL, offset)
    clock = f"max(sum_over_time({of.selector(recorded.USER_CLOCK_SECONDS)}[{INTERVAL}]{offset}))"
    return f"round({integral} / on () group_left () ({clock} > 0), {_ROUNDED_TO})"


def highest_mean_level(of: Recorded, people: Population, offset: str = "") -> str:
    """The highest mean that a level had over any step of the range."""
    return f"max_over_time(({mean_level(of, people)})[{RANGE}:{INTERVAL}]{offset})"


def growth(indicator: GrowthIndicator, people: Population, offset: str = "") -> str:
    """Growth of each scenario that had traffic in the range, in the instance where it grew most (estimated).

    An exporter keeps a peak until the scenario's next run begins, so peaks count at the moments alone when
    queries have just begun, or users are there: before them in the range stands that of an earlier run.

    Args:
        indicator: what is the peak, and what the level before.
        people: whose traffic; the peak is of its scenarios.
        offset: PromQL's, to look at a range as long that has ended earlier.
    """
    begun = f"increase({_started(people)}[{RATE_INTERVAL}]) > 0"
    there = f"{selector(catalogue.ACTIVE_USERS.name, {}, people.matcher)} > 0"
    peak = f"sum by (job, instance, scenario) ({_peak(indicator, people)})"
    in_traffic = f"{peak} and on (job, instance, scenario) ({begun} or {there})"
    highest = f"max_over_time(({in_traffic})[{RANGE}:{INTERVAL}]{offset})"
    base = _growth_base(indicator, people, offset)
    return f"max by (scenario) ({highest} - on (job, instance, scenario) {base})"


def restarts(start_time: str) -> str:
    """How often each instance started anew in the range.

    Args:
        start_time: a gauge of when a process started; of several in one instance, the last counts.
    """
    return f"changes((max by (job, instance) ({start_time}))[{RANGE}:{INTERVAL}])"


def growth_so_far(indicator: GrowthIndicator, people: Population) -> str:
    """Growth of each scenario at each moment that it has users."""
    users = selector(catalogue.ACTIVE_USERS.name, {}, people.matcher)
    peak = f"sum by (job, instance, scenario) ({_peak(indicator, people)})"
    grown = f"{peak} and on (job, instance, scenario) ({users} > 0)"
    base = _growth_base(indicator, people, " @ end()")
    return f"max by (scenario) (({grown}) - on (job, instance, scenario) {base})"


def _growth_base(indicator: GrowthIndicator, people: Population, moment: str) -> str:
    """Lowest level from just before a scenario's first query on; start-up and earlier loads are left out.

    The negative offset looks one rate interval ahead: a moment counts when queries begin within it.
    """
    begins = f"increase({_started(people)}[{RATE_INTERVAL}] offset -{RATE_INTERVAL}) > 0"
    level = f"sum by (job, instance) ({selector(indicator.base.metric, indicator.base.labels)})"
    at_work = f"({begins}) * 0 + on (job, instance) group_left () {level}"
    return f"min_over_time(({at_work})[{RANGE}:{INTERVAL}]{moment})"


def _peak(indicator: GrowthIndicator, people: Population) -> str:
    return selector(indicator.peak.metric, indicator.peak.labels, people.matcher)


def _started(people: Population) -> str:
    return selector(catalogue.QUERIES_STARTED.name, {}, people.matcher)


def _sum(series: str, people: Population, window: str, offset: str = "") -> str:
    """What recorded increases add up to over a window."""
    return f"sum{people.by} (sum_over_time({series}[{window}]{offset}))"


def rate(metric: str, *matchers: str) -> str:
    """Rate of a raw counter over one rate interval (estimated)."""
    selected = f"{metric}{{{', '.join(matchers)}}}" if matchers else metric
    return f"rate({selected}[{RATE_INTERVAL}])"


def _edge(indicator: LatencyIndicator) -> str:
    """Matcher of the bucket edge: 2.0 is ``le="2"`` to some clients and ``le="2.0"`` to others."""
    edge = float(indicator.threshold_seconds)
    whole, _, decimals = str(edge).partition(".")
    return f'le=~"{whole}|{edge}"'.replace(".", "[.]") if decimals == "0" else f'le="{edge}"'


def _matcher(name: str, values: tuple[str, ...]) -> str:
    return f'{name}="{values[0]}"' if len(values) == 1 else f'{name}=~"{"|".join(values)}"'
