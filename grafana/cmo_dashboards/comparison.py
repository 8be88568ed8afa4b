"""The same questions asked of two runs: as many seconds ago as `RUN` says, and as `AGAINST` says.

Every window is the range of the dashboard, moved as a whole, so that both sides are measured alike. What the
rules record is added up exactly; throughput, P95, cost and growth of memory are estimates from raw metrics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cmo_exporter import catalogue
from cmo_slo import recorded

from cmo_dashboards import expressions as promql
from cmo_dashboards.expressions import INTERVAL, RANGE, RATE_INTERVAL, Population, Recorded, selector
from cmo_dashboards.variables import AGAINST, RUN

if TYPE_CHECKING:
    from cmo_slo.indicators import GrowthIndicator, LatencyIndicator

_ROUNDED_TO: Final = "0.000001"
"""Integrals are sums of floats, and 49.999999999 users are 50."""
ALL_CHOSEN_TESTS: Final = Population(promql.TESTS.matcher, pooled=True)
"""The chosen scenarios of load tests pooled; the same on both sides, or they could not be compared."""


@dataclass(frozen=True)
class Moment:
    """One side of a comparison: PromQL's ``offset`` and how far back it goes; empty within what is moved."""

    offset: str = ""

    def over_range(self, series: str) -> str:
        """A series over the range of this side."""
        return f"{series}[{RANGE}]{self.offset}"

    def each_step(self, expression: str) -> str:
        """An expression at each step of the range of this side."""
        return f"({expression})[{RANGE}:{INTERVAL}]{self.offset}"

    def over_step(self, series: str) -> str:
        """A series over one step of the picture."""
        return f"{series}[{INTERVAL}]{self.offset}"

    def lately(self, series: str) -> str:
        """A series over the last moments of this side, for a line in a picture."""
        return f"{series}[{RATE_INTERVAL}]{self.offset}"


_HERE: Final = Moment()
NOW: Final = Moment(f" offset ${{{RUN.name}}}s")
"""The run that is looked at."""
EARLIER: Final = Moment(f" offset ${{{AGAINST.name}}}s")
"""The one that it is compared with."""


def events(of: Recorded, people: Population, at: Moment, guard: str = promql.ANY_EVENTS) -> str:
    """Events of an objective in the range; none where the guard does not hold."""
    return f"{_sum(of.selector(recorded.TOTAL_EVENTS, people.matcher), people, at)} {guard}"


def ratio(of: Recorded, people: Population, at: Moment, guard: str = promql.ANY_EVENTS) -> str:
    """Good events of total events in the range; none where the guard does not hold of the total."""
    good = _sum(of.selector(recorded.GOOD_EVENTS, people.matcher), people, at)
    return f"{good} / ({events(of, people, at, guard)})"


def ratio_lately(of: Recorded, people: Population, at: Moment) -> str:
    """The same over the last moments."""
    good, total = (
        f"sum{people.by} (sum_over_time({at.lately(of.selector(series, people.matcher))}))"
        for series in (recorded.GOOD_EVENTS, recorded.TOTAL_EVENTS)
    )
    return f"{good} / ({total} > 0)"


def held_users(of: Recorded, people: Population, at: Moment) -> str:
    """The highest mean number of users over any step of the range."""
    return f"max_over_time({at.each_step(users_lately(of, people, _HERE))})"


def users_lately(of: Recorded, people: Population, at: Moment) -> str:
    """Exact mean number of users over each step: as `expressions.mean_level` has it, and at either moment."""
    integral = (
        f"sum{people.by} (sum_over_time({at.over_step(of.selector(recorded.USER_SECONDS, people.matcher))}))"
    )
    clock = f"max(sum_over_time({at.over_step(of.selector(recorded.USER_CLOCK_SECONDS))}))"
    return f"round({integral} / on () group_left () ({clock} > 0), {_ROUNDED_TO})"


def throughput(people: Population, at: Moment) -> str:
    """Mean of finished queries a second, over the moments of the range that had any (estimated)."""
    return f"avg_over_time({at.each_step(f'{throughput_lately(people, _HERE)} > 0')})"


def throughput_lately(people: Population, at: Moment) -> str:
    """Finished queries a second (estimated)."""
    return f"sum{people.by} (rate({at.lately(_finished(people.matcher))}))"


def quantile(indicator: LatencyIndicator, people: Population, at: Moment) -> str:
    """The quantile that an objective names, of real answers in the range (estimated from buckets)."""
    return _quantile(indicator, people, f"increase({at.over_range(_answers(indicator, people))})")


def quantile_lately(indicator: LatencyIndicator, people: Population, at: Moment) -> str:
    """The same over the last moments."""
    return _quantile(indicator, people, f"rate({at.lately(_answers(indicator, people))})")


def growth(indicator: GrowthIndicator, people: Population, at: Moment) -> str:
    """Growth of memory in each scenario of the range, in the instance where it grew most (estimated)."""
    return promql.growth(indicator, people, at.offset)


def cost_of_a_query(at: Moment) -> str:
    """US dollars for one finished query, of all traffic: cost is counted by model and by no scenario."""
    spent = f"sum(increase({at.over_range(catalogue.LLM_COST.name)}))"
    return f"{spent} / (sum(increase({at.over_range(catalogue.QUERIES.name)})) > 0)"


def releases(at: Moment) -> str:
    """Releases that were there in the range."""
    return f"max by (version, revision) (max_over_time({at.over_range(catalogue.BUILD_INFO.name)}))"


def _sum(series: str, people: Population, at: Moment) -> str:
    return f"sum{people.by} (sum_over_time({at.over_range(series)}))"


def _quantile(indicator: LatencyIndicator, people: Population, buckets: str) -> str:
    by = "le" if people.pooled else "scenario, le"
    # A quantile of nothing is NaN, and no comparison with NaN holds.
    return f"histogram_quantile({indicator.quantile:g}, sum by ({by}) ({buckets})) >= 0"


def _answers(indicator: LatencyIndicator, people: Population) -> str:
    return selector(f"{indicator.metric}_bucket", indicator.good, people.matcher)


def _finished(matcher: str) -> str:
    return selector(catalogue.QUERIES.name, {}, matcher)
