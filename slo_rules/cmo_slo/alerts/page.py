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
from cmo_slo.alerts.alert import Alert, Surroundings, alert_rule, excluding, percentage
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

Share = Annotated[float, BeforeValidator(no_boolean), Field(ge=0.0, lt=1.0)]
"""Below 1, because no share is above 1: such an alert could never fire."""
Events = Annotated[int, BeforeValidator(no_boolean), Field(ge=1)]


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
    """The path for hours in which few ask: most of an hour's queries were bad, and it goes on."""

    bad_ratio_above: Share
    minimum_bad_events: Events


class Page(Alert):
    """A page to on-call on live traffic: when the ratio of bad events is above a limit over two windows."""

    bad_ratio_above: Share
    minimum_bad_events: Events
    """Bad events that the longer window must hold, so that one failure at night wakes nobody."""
    paged_within_scrapes: Annotated[float, BeforeValidator(no_boolean), Field(ge=2.0, le=240.0)] = 4.0
    """Scrapes from the moment when ``jump`` of the queries are bad to the page, on average."""
    jump: Annotated[float, BeforeValidator(no_boolean), Field(gt=0.0, le=1.0)] = 0.5
    low_traffic: LowTraffic

    def windows(self, scrape_interval: int) -> PageWindows:
        """The windows at a scrape interval, both in milliseconds."""
        return page_windows(
            self.bad_ratio_above, scrape_interval, scrapes=self.paged_within_scrapes, jump=self.jump
        )


# A page that comes and goes within two short windows is one page.
_LINGERS_SCRAPES: Final = 8


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
    hour = _events(slo, objective, Window.HOUR, slow=slow)
    fast = (
        f"max without (window) ({short.bad} / ({short.total} > 0)) > {page.bad_ratio_above!r}\n"
        f"and\n"
        f"max without (window) ({long.bad} / ({long.total} > 0)) > {page.bad_ratio_above!r}\n"
        f"and\n"
        f"max without (window) ({long.bad}) >= {page.minimum_bad_events}"
    )
    few = page.low_traffic
    rare = (
        f"max without (window) ({hour.bad} / ({hour.total} > 0)) > {few.bad_ratio_above!r}\n"
        f"and\n"
        f"max without (window) ({hour.bad}) >= {few.minimum_bad_events}\n"
        f"and\n"
        f"max without (window) ({long.bad}) > 0\n"
        f"and\n"
        f"max without (window) ({long.total}) < {2 * page.minimum_bad_events}"
    )
    return f"{fast}\nor\n{rare}"


@dataclass(frozen=True)
class _Events:
    bad: str
    total: str


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


def rule(page: Page, surroundings: Surroundings, own_condition: str, others: tuple[str, ...]) -> Rule:
    """The page; ``others`` are conditions of pages that go before it: one incident wakes people once."""
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
        },
        lingers=_LINGERS_SCRAPES * surroundings.interval,
    )
