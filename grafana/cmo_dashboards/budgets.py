"""Panels of the error budget: what is left of thirty days, how fast it burns, which hours spent it.

The rules record all of it for live traffic alone. What they record as 0 or 1 where nobody has asked is left
out here, because a full budget that nobody could spend is no good news. Hourly series are read with
``last_over_time`` of the hour that they stand for: an instant query sees nothing of them after five minutes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cmo_slo import recorded
from cmo_slo.recorded import Window

from cmo_dashboards.colours import FAIL, NEUTRAL, Step, budget_steps
from cmo_dashboards.expressions import ON_CALL, Recorded, enough, too_few
from cmo_dashboards.panels import Panel, Query, Shape, Unit, to_dashboard
from cmo_dashboards.promised import budgeted, runbook_links, target_text

if TYPE_CHECKING:
    from cmo_slo.model import Objective, Objectives

_MOST_OVERSPENT: Final = -100.0
"""Everything failed for thirty days, at a target of 99 %."""
_MOST_BURNT: Final = 100.0
_MOST_EVENTS: Final = 1e8
_HOUR: Final = "1h"
_NOT_RECORDED: Final = "No live traffic recorded, or no data: see Targets up"


def budget_left(objectives: Objectives, objective: Objective, *, width: int, height: int) -> Panel:
    """What is left of one objective's budget of thirty days."""
    of = Recorded(objectives.name, objective.name)
    month = f'window="{Window.MONTH.value}"'
    left = of.selector(recorded.BUDGET_REMAINING, ON_CALL.matcher, month)
    asked = of.selector(recorded.TOTAL_EVENTS_IN_WINDOW, ON_CALL.matcher, month)
    fewest = objective.minimum_events
    allowed = f"{(1 - objective.target) * 100:g} %"
    return Panel(
        title=f"Error budget left: {objective.title} (30 d)",
        shape=Shape.STAT,
        width=width,
        height=height,
        unit=Unit.RATIO,
        answers="How much of what may fail in 30 days is still there? The target "
        f"({target_text(objective)}) lets {allowed} of live queries miss it; 100 % is untouched, 0 % spent, "
        "below that the target is missed. It counts what was recorded: *Coverage of the recorded windows* "
        f"on *{objectives.name.upper()} compliance* says how much of the 30 days that is. It has a colour "
        "from as many events on as a verdict needs.",
        when_red=f"The month misses its target. *Burn rate* on *{objectives.name.upper()} compliance* says "
        "whether it still burns, and the panel beside it which hours spent it; if it burns no more, hold "
        "back risky releases until the budget has grown again.",
        # Empty in a busy service for up to an hour: when a roll-up has seen the time before its traffic.
        queries=(
            Query(
                f"{left} and {asked} {enough(fewest)}",
                objective.title,
                _MOST_OVERSPENT,
                1.0,
                may_be_empty=True,
            ),
            Query(
                f"{left} and {asked} {too_few(fewest)}",
                f"{objective.title}, too few to judge",
                _MOST_OVERSPENT,
                1.0,
                judged=False,
                may_be_empty=True,
            ),
        ),
        steps=budget_steps(objective),
        no_value=_NOT_RECORDED,
        decimals=1,
        links=(to_dashboard("Budgets and burn rates", objectives.name),),
    )


def burn_rates(objectives: Objectives, objective: Objective, *, width: int) -> Panel:
    """How fast one objective's budget burns, over each recorded window."""
    of = Recorded(objectives.name, objective.name)
    burn = of.selector(recorded.BURN_RATE, ON_CALL.matcher)
    asked = of.selector(recorded.TOTAL_EVENTS_IN_WINDOW, ON_CALL.matcher)
    return Panel(
        title=f"Burn rate: {objective.title}",
        shape=Shape.TIME_SERIES,
        width=width,
        height=8,
        unit=Unit.COUNT,
        answers="How fast does the budget burn? At 1, the dashed line, it lasts exactly its 30 days; at "
        "10, three days. Short windows rise first and fall first. A window in which nobody asked has no "
        "line.",
        when_red="If the short windows are above 1, it burns now: look at *CMO overview*. If only the long "
        "ones are, it has burnt, and recovers. A ticket comes when 3 days and 6 hours are above it "
        "together.",
        queries=(Query(f"{burn} and {asked} > 0", "{{window}}", 0.0, _MOST_BURNT),),
        steps=(Step(None, NEUTRAL), Step(1.0, FAIL)),
        no_value=_NOT_RECORDED,
    )


def bad_events_by_hour(objectives: Objectives, *, width: int) -> Panel:
    """Bad live events of each whole hour, for every objective that has a budget."""
    queries = []
    for objective in budgeted(objectives):
        of = Recorded(objectives.name, objective.name)
        total, good = (
            f"last_over_time({of.selector(series, ON_CALL.matcher)}[{_HOUR}])"
            for series in (recorded.TOTAL_EVENTS_HOURLY, recorded.GOOD_EVENTS_HOURLY)
        )
        queries.append(Query(f"{total} - {good}", objective.title, 0.0, _MOST_EVENTS, may_be_empty=True))
    return Panel(
        title="Bad live events of each hour",
        shape=Shape.TIME_SERIES,
        width=width,
        height=8,
        unit=Unit.COUNT,
        answers="Which hours spent the budget? Events that missed the target, of the last whole hour that "
        "was rolled up. Nothing is there before the first roll-up, up to an hour after the rules were "
        "loaded.",
        when_red="Choose the hour that stands out, and open *CMO overview* at it.",
        queries=tuple(queries),
        no_value="No hour rolled up yet, or no data: see Targets up",
    )


def coverage(objectives: Objectives, *, width: int, height: int) -> Panel:
    """How much of each recorded window has data."""
    objective = budgeted(objectives)[0]
    of = Recorded(objectives.name, objective.name)
    return Panel(
        title="Coverage of the recorded windows",
        shape=Shape.STAT,
        width=width,
        height=height,
        unit=Unit.RATIO,
        answers="How much of each window do the numbers stand on? What is missing, because nothing was "
        "scraped or Prometheus was down, is missing from good and total events alike. Shown for "
        f"*{objective.title}*. After a start, long windows fill for as long as they are.",
        when_red="Below 100 % long after a start: find the gap under *Targets "
        "up over time*, and mend what was down; a missed roll-up costs its whole hour.",
        queries=(Query(of.selector(recorded.COVERAGE, ON_CALL.matcher), "{{window}}", 0.0, 1.0),),
        no_value="Nothing recorded: no rules, or no data",
        highest=1.0,
        decimals=1,
        links=runbook_links(objectives, "CMORulesFailing"),
    )
