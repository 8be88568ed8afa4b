"""Pages on live queries: the share of bad ones over two windows, or over an hour where few ask.

Windows follow from the time that is allowed between live queries failing and the page, in scrapes
(`page_windows`); the paths and their limits are the objective's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

from cmo_exporter import catalogue
from pydantic import BeforeValidator, Field

from cmo_slo import recorded
from cmo_slo.alerts.alert import Alert, Surroundings, alert_rule, excluding, percentage, threshold_word
from cmo_slo.durations import duration
from cmo_slo.indicators import Model, no_boolean
from cmo_slo.promql import selector
from cmo_slo.recorded import Window

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cmo_slo.rule import Rule

_LONG_PER_SHORT: Final = 3
_FEWEST_SHORT_SCRAPES: Final = 4
_MOST_LONG_SCRAPES: Final = 240

# The mean wait for the next scrape and the next evaluation, half of each; and half a scrape for those that
# are still being stored when the rules run, and so are seen one evaluation later.
_SCRAPES_LOST: Final = 1.5

Share = Annotated[float, Field(ge=0.0, lt=1.0), BeforeValidator(no_boolean)]
"""Below 1, because no share is above 1: such an alert could never fire."""
Events = Annotated[int, Field(ge=1), BeforeValidator(no_boolean)]


@dataclass(frozen=True)
class PageWindows:
    """The two windows of a page, in milliseconds: the long one decides, the short one ends it soon after."""

    short: int
    long: int


def page_windows(bad_ratio_above: float, scrape_interval: int, *, scrapes: float, jump: float) -> PageWindows:
    """The windows over which a ratio of bad events is held against a limit.

    A window reaches the limit ``limit * (window - scrape) / jump`` after bad events jump from nothing to
    ``jump`` (``evidence.md``, Paging). What is allowed for that is the time allowed less what scrape and
    evaluation take. The short window is a third of the long one, 4 scrapes at least; it is how long a page
    outlives its cause.

    Args:
        bad_ratio_above: the limit, from 0 to below 1.
        scrape_interval: milliseconds, which is how often the rules are evaluated too.
        scrapes: scrapes allowed on average from the jump to the page.
        jump: the share of bad events after it.
    """
    left = max(scrapes - _SCRAPES_LOST, 0.0)
    reach = _MOST_LONG_SCRAPES if bad_ratio_above <= 0 else 1 + left * jump / bad_ratio_above
    long = min(int(reach), _MOST_LONG_SCRAPES)
    short = max(long // _LONG_PER_SHORT, _FEWEST_SHORT_SCRAPES)
    return PageWindows(short * scrape_interval, max(long, short) * scrape_interval)


class LowTraffic(Model):
    """The paths for times in which few ask: all of it is bad now, or most of it for a while."""

    bad_ratio_above: Share
    """Of a quarter of an hour, and of an hour where that holds too few."""
    minimum_bad_events: Events


class Page(Alert):
    """A page to on-call on live traffic: when the ratio of bad events is above a limit over two windows."""

    WORDS = ("limit", "minimum", "short", "long")
    LABELS = ("slo", "objective", "scenario")

    bad_ratio_above: Share
    minimum_bad_events: Events
    """Bad events that the longer window must hold, so that one failure at night wakes nobody."""
    paged_within_scrapes: Annotated[float, Field(ge=2.0, le=240.0), BeforeValidator(no_boolean)] = 4.0
    """Scrapes from the moment when ``jump`` of the queries are bad to the page, on average."""
    jump: Annotated[float, Field(gt=0.0, le=1.0), BeforeValidator(no_boolean)] = 0.5
    low_traffic: LowTraffic

    def windows(self, scrape_interval: int) -> PageWindows:
        """The windows at a scrape interval, both in milliseconds."""
        return page_windows(
            self.bad_ratio_above, scrape_interval, scrapes=self.paged_within_scrapes, jump=self.jump
        )


LINGERS_SCRAPES: Final = 20
"""A page that comes again within this is one page: a burst of failures every few minutes is one incident."""


def condition(page: Page, slo: str, objective: str, *, slow: bool) -> str:
    """When live users suffer, in terms of one objective.

    Args:
        page: the limits.
        slo: the objectives file.
        objective: the objective.
        slow: bad are those that took too long, and not those that failed, which are another page's.
    """
    short = _events(slo, objective, Window.SHORT, slow=slow)
    long = _events(slo, objective, Window.LONG, slow=slow)
    quarter = _events(slo, objective, Window.QUARTER, slow=slow)
    few = page.low_traffic
    all_of_it = f"{long.share} >= 1\nand\nmax without (window) ({long.bad}) >= {few.minimum_bad_events}"
    return "\nor\n".join(
        (
            _both(page, short, long),
            _both(page, long, quarter),
            all_of_it,
            _most_of_it(page, slo, objective, long, slow=slow),
        )
    )


def _both(page: Page, recent: _Events, window: _Events) -> str:
    """Too much is bad in a window and lately, and there is enough of it in the window."""
    return (
        f"{recent.share} > {page.bad_ratio_above!r}\n"
        f"and\n"
        f"{window.share} > {page.bad_ratio_above!r}\n"
        f"and\n"
        f"max without (window) ({window.bad}) >= {page.minimum_bad_events}"
    )


def _most_of_it(page: Page, slo: str, objective: str, long: _Events, *, slow: bool) -> str:
    """Most of a quarter of an hour is bad, and there are enough of them in it, or in an hour that is as bad.

    Only while the long window holds too few to decide: where more ask, it says sooner that all is well again.
    """
    quarter = _events(slo, objective, Window.QUARTER, slow=slow)
    hour = _events(slo, objective, Window.HOUR, slow=slow)
    few = page.low_traffic
    return (
        f"{quarter.share} > {few.bad_ratio_above!r}\n"
        f"and\n"
        f"max without (window) ({hour.bad}) >= {few.minimum_bad_events}\n"
        f"and\n"
        f"(\n"
        f"  max without (window) ({quarter.bad}) >= {few.minimum_bad_events}\n"
        f"  or\n"
        f"  {hour.share} > {few.bad_ratio_above!r}\n"
        f")\n"
        f"and\n"
        f"max without (window) ({long.total}) < {2 * page.minimum_bad_events}"
    )


@dataclass(frozen=True)
class _Events:
    bad: str
    total: str

    @property
    def share(self) -> str:
        """Divided, not multiplied out: a quotient is rounded once, so exactly the limit is not above it."""
        return f"max without (window) ({self.bad} / ({self.total} > 0))"


def _events(slo: str, objective: str, window: Window, *, slow: bool) -> _Events:
    labels: Mapping[str, tuple[str, ...]] = {
        "slo": (slo,),
        "objective": (objective,),
        "scenario": (catalogue.LIVE,),
        "window": (window.value,),
    }
    total = selector(recorded.TOTAL_EVENTS_IN_WINDOW, labels)
    if slow:
        return _Events(selector(recorded.SLOW_EVENTS_IN_WINDOW, labels), total)
    return _Events(f"({total} - {selector(recorded.GOOD_EVENTS_IN_WINDOW, labels)})", total)


def rule(
    page: Page,
    surroundings: Surroundings,
    own_condition: str,
    others: tuple[str, ...],
    threshold: float | None = None,
) -> Rule:
    """The page.

    Args:
        page: the limits and the texts.
        surroundings: whose it is.
        own_condition: when users suffer.
        others: conditions of pages that go before it: one incident wakes people once.
        threshold: seconds that an answer may take, for a page on slow ones.
    """
    expression = excluding(own_condition, others)
    windows = page.windows(surroundings.interval)
    return alert_rule(
        page,
        surroundings,
        expression,
        severity="page",
        role="symptom",
        component="service",
        words={
            "limit": percentage(page.bad_ratio_above),
            "minimum": str(page.minimum_bad_events),
            "short": duration(windows.short),
            "long": duration(windows.long),
            **threshold_word(threshold),
        },
        lingers=LINGERS_SCRAPES * surroundings.interval,
    )
