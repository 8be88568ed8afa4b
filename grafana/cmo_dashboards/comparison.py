"""The same questions asked of two runs: as many seconds ago as `RUN` says, and as `AGAINST` says.

Every window is the range of the dashboard, moved as a whole, so that both sides are measured alike. What the
rules record is added up exactly; throughput, P95, cost and growth of memory are estimates from raw metrics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cmo_exporter import catalogue
from cmo_slo import recorded

from cmo_dashboards import expressions as promql
from cmo_dashboards.expressions import INTERVAL, RANGE, RATE_INTERVAL, Population, Recorded, selector
from cmo_dashboards.variables import AGAINST, RUN

if TYPE_CHECKING:
    from cmo_slo.indicators import LatencyIndicator

ALL_CHOSEN_TESTS: Final = Population(promql.TESTS.matcher, pooled=True)
"""The chosen scenarios of load tests pooled; the same on both sides, or they could not be compared."""

NOW: Final = f" offset ${{{RUN.name}}}s"
"""PromQL's ``offset`` to the run that is looked at."""
EARLIER: Final = f" offset ${{{AGAINST.name}}}s"
"""That to the one that it is compared with."""


def events(of: Recorded, people: Population, offset: str) -> str:
    """Events of an objective in the range; none where there was none."""
    return f"{promql.total_events(of, people, RANGE, offset)} {promql.ANY_EVENTS}"


def ratio(of: Recorded, people: Population, offset: str, guard: str = promql.ANY_EVENTS) -> str:
    """Good events of total events in the range; none where the guard does not hold of the total."""
    return promql.ratio(of, people, RANGE, guard, offset=offset)


def ratio_lately(of: Recorded, people: Population, offset: str) -> str:
    """The same over the last moments."""
    return promql.ratio(of, people, RATE_INTERVAL, offset=offset)


def throughput(people: Population, offset: str) -> str:
    """Mean of finished queries a second, over the moments of the range that had any (estimated)."""
    return f"avg_over_time(({throughput_lately(people)} > 0)[{RANGE}:{INTERVAL}]{offset})"


def throughput_lately(people: Population, offset: str = "") -> str:
    """Finished queries a second (estimated)."""
    finished = selector(catalogue.QUERIES.name, {}, people.matcher)
    return f"sum{people.by} (rate({finished}[{RATE_INTERVAL}]{offset}))"


def quantile(indicator: LatencyIndicator, people: Population, offset: str) -> str:
    """The quantile that an objective names, of real answers in the range (estimated from buckets)."""
    return _quantile(indicator, people, f"increase({_answers(indicator, people)}[{RANGE}]{offset})")


def quantile_lately(indicator: LatencyIndicator, people: Population, offset: str) -> str:
    """The same over the last moments."""
    return _quantile(indicator, people, f"rate({_answers(indicator, people)}[{RATE_INTERVAL}]{offset})")


def cost_of_a_query(offset: str) -> str:
    """US dollars for one finished query, of all traffic: cost is counted by model and by no scenario."""
    spent = f"sum(increase({catalogue.LLM_COST.name}[{RANGE}]{offset}))"
    return f"{spent} / (sum(increase({catalogue.QUERIES.name}[{RANGE}]{offset})) > 0)"


def on_one_side_alone() -> str:
    """The chosen scenarios that ran on one side and not on the other, which pooled would be compared too."""
    series = selector(recorded.STARTED_QUERIES, {}, promql.TESTS.matcher)
    now, earlier = (
        f"(sum by (scenario) (sum_over_time({series}[{RANGE}]{offset})) > 0)" for offset in (NOW, EARLIER)
    )
    return f"{now} unless {earlier} or {earlier} unless {now}"


def releases(offset: str) -> str:
    """Releases that were there in the range."""
    return f"max by (version, revision) (max_over_time({catalogue.BUILD_INFO.name}[{RANGE}]{offset}))"


def _quantile(indicator: LatencyIndicator, people: Population, buckets: str) -> str:
    by = "le" if people.pooled else "scenario, le"
    # A quantile of nothing is NaN, and no comparison with NaN holds.
    return f"histogram_quantile({indicator.quantile:g}, sum by ({by}) ({buckets})) >= 0"


def _answers(indicator: LatencyIndicator, people: Population) -> str:
    return selector(f"{indicator.metric}_bucket", indicator.good, people.matcher)
