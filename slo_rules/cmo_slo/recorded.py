"""The names of the series that the compiled rules record: what dashboards and alerts are built on.

Names are ``level:metric:operations``, as Prometheus recommends, and the same whatever the scrape interval, so
that one dashboard fits every compiled file: windows that follow from the scrape interval are told apart by
the label ``window``, and how long each is can be read from ``WINDOW_SECONDS``. Every series has the label
``slo`` (the name of the objectives file); those of one objective have the label ``objective``, those of
components the labels ``component`` and ``indicator``.

Numerators and denominators are recorded; ratios cannot be added up over windows, and a ratio over an idle
window is NaN. Divide last, and by ``(total > 0)``. Three ratios are recorded all the same, for people to
read: burn rates, what is left of the budget, and coverage. Each says what it is where nobody asked.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

GOOD_EVENTS: Final = "scenario:slo_good_events:increase"
"""Good events since the evaluation before; add them up with ``sum_over_time`` over any range."""

TOTAL_EVENTS: Final = "scenario:slo_total_events:increase"
"""Total events since the evaluation before."""

GOOD_EVENTS_IN_WINDOW: Final = "scenario:slo_good_events:sum"
"""Good events in the window that the label ``window`` names."""

TOTAL_EVENTS_IN_WINDOW: Final = "scenario:slo_total_events:sum"
"""Total events in the window that the label ``window`` names."""

SLOW_EVENTS: Final = "scenario:slo_slow_events:increase"
"""Of a latency objective: events that took too long and did not fail, since the evaluation before."""

SLOW_EVENTS_IN_WINDOW: Final = "scenario:slo_slow_events:sum"
"""Those of the window that the label ``window`` names."""

OVERALL_GOOD_EVENTS: Final = "overall:slo_good_events:increase"
"""Good events of all scenarios of a run pooled, and never of ``live``."""

OVERALL_TOTAL_EVENTS: Final = "overall:slo_total_events:increase"
"""Total events of all scenarios of a run pooled."""

COMPONENT_GOOD_EVENTS: Final = "component:slo_good_events:increase"
"""Good calls of a component since the evaluation before; the label ``indicator`` says good in what sense."""

COMPONENT_TOTAL_EVENTS: Final = "component:slo_total_events:increase"
"""Total calls of a component since the evaluation before."""

SCRAPED: Final = "job:slo_scraped:max"
"""1 where an instance of the service is scraped, whatever its name; 0 where none is that lately was there."""

STARTED_QUERIES: Final = "instance:slo_started_queries:increase"
"""Queries that have begun since the evaluation before, by scenario and instance."""

ALERT_BAD_EVENTS: Final = "alert:slo_bad_events:increase"
"""Bad events of an alert on a share, since the evaluation before; the label ``alert`` names it."""

ALERT_TOTAL_EVENTS: Final = "alert:slo_total_events:increase"
"""Total events of an alert on a share."""

GOOD_EVENTS_HOURLY: Final = "scenario:slo_good_events:hourly"
"""Good live events of an hour, recorded once an hour: an instant query needs ``last_over_time(…[1h])``."""

TOTAL_EVENTS_HOURLY: Final = "scenario:slo_total_events:hourly"
"""Total live events of an hour, recorded once an hour."""

COMPONENT_GOOD_EVENTS_HOURLY: Final = "component:slo_good_events:hourly"
"""Good calls of a component for live queries in an hour, recorded once an hour."""

COMPONENT_TOTAL_EVENTS_HOURLY: Final = "component:slo_total_events:hourly"
"""Total calls of a component for live queries in an hour, recorded once an hour."""

COMPONENT_GOOD_EVENTS_IN_WINDOW: Final = "component:slo_good_events:sum"
"""Good calls of a component for live queries in the window that the label ``window`` names."""

COMPONENT_TOTAL_EVENTS_IN_WINDOW: Final = "component:slo_total_events:sum"
"""Total calls of a component for live queries in that window."""

COVERED_SECONDS_HOURLY: Final = "scenario:slo_covered_seconds:hourly"
"""Seconds of an hour for which live events were recorded, recorded once an hour."""

COVERAGE: Final = "scenario:slo_coverage:ratio"
"""How much of a window has data, from 0 to 1; what is missing is missing from good and total events alike."""

BURN_RATE: Final = "scenario:slo_burn_rate:ratio"
"""Share of bad live events in a window over the share that the target allows; 0 where nobody asked."""

BUDGET_REMAINING: Final = "scenario:slo_error_budget_remaining:ratio"
"""What is left of the 30-day error budget: 1 untouched, 0 spent, below 0 overspent; 1 where nobody asked."""

MEMORY_FLOOR: Final = "instance:slo_memory_floor:min"
"""Lowest memory of an instance in a quarter of an hour, in bytes, all its processes together."""

USER_SECONDS: Final = "scenario:slo_user_seconds:increase"
"""Rise of the integral of a held level since the evaluation before, all instances together."""

USER_CLOCK_SECONDS: Final = "objective:slo_user_clock_seconds:increase"
"""Rise of the clock of that integral; the level is the one over the other, where the clock has moved."""

LEVEL_PEAK: Final = "scenario:slo_level_peak:sum"
"""Peak of a level that may grow, summed over an instance's processes and all instances."""

LEVEL_BASE: Final = "objective:slo_level_base:sum"
"""That level now; its growth in a run is the peak less the last base before the run."""

TARGET: Final = "objective:slo_target:value"
"""The target of each objective, with the labels ``operator`` and ``unit``."""

THRESHOLD_SECONDS: Final = "objective:slo_threshold_seconds:value"
"""The latency threshold of each latency objective."""

PAGE_BAD_RATIO_LIMIT: Final = "objective:slo_page_bad_ratio:limit"
"""The ratio of bad events above which an objective pages."""

PAGE_BAD_EVENTS_LIMIT: Final = "objective:slo_page_bad_events:limit"
"""The number of bad events in the long window from which an objective pages."""

WINDOW_SECONDS: Final = "window:slo_window_seconds:value"
"""How long each window of an objective is."""


class Window(StrEnum):
    """The windows recorded: short and long follow from the scrape interval, the rest are of live queries."""

    SHORT = "short"
    LONG = "long"
    QUARTER = "15m"
    HOUR = "1h"
    SIX_HOURS = "6h"
    DAY = "1d"
    THREE_DAYS = "3d"
    MONTH = "30d"


AGGREGATED: Final = (
    GOOD_EVENTS,
    TOTAL_EVENTS,
    GOOD_EVENTS_IN_WINDOW,
    TOTAL_EVENTS_IN_WINDOW,
    SLOW_EVENTS,
    SLOW_EVENTS_IN_WINDOW,
    OVERALL_GOOD_EVENTS,
    OVERALL_TOTAL_EVENTS,
    COMPONENT_GOOD_EVENTS,
    COMPONENT_TOTAL_EVENTS,
    STARTED_QUERIES,
    ALERT_BAD_EVENTS,
    ALERT_TOTAL_EVENTS,
    GOOD_EVENTS_HOURLY,
    TOTAL_EVENTS_HOURLY,
    COMPONENT_GOOD_EVENTS_HOURLY,
    COMPONENT_TOTAL_EVENTS_HOURLY,
    COMPONENT_GOOD_EVENTS_IN_WINDOW,
    COMPONENT_TOTAL_EVENTS_IN_WINDOW,
    COVERED_SECONDS_HOURLY,
    COVERAGE,
    BURN_RATE,
    BUDGET_REMAINING,
    MEMORY_FLOOR,
    USER_SECONDS,
    USER_CLOCK_SECONDS,
    LEVEL_PEAK,
    LEVEL_BASE,
    TARGET,
    THRESHOLD_SECONDS,
    PAGE_BAD_RATIO_LIMIT,
    PAGE_BAD_EVENTS_LIMIT,
    WINDOW_SECONDS,
)
"""All series meant to be read, in the order in which they are documented."""


def checkpoint(series: str) -> str:
    """The copy of a counter on the grid of evaluations, from which its increase is taken."""
    return f"slo:{series}:checkpoint"


def increase(series: str) -> str:
    """What a counter has gained since the evaluation before, resets and new processes included."""
    return f"slo:{series}:increase"
