"""Verdicts as PromQL: a number for each status, which the panel shows as a word and a colour.

They follow `cmo_slo.comparison`: strict operators leave the target outside, and a pass within the warning
band is a WARN. What cannot be judged has numbers of its own: no data, no traffic, too few to judge, all grey;
and too few that miss the target, which is no verdict, but what on-call must see where few ask.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final

from cmo_exporter import catalogue
from cmo_slo import recorded
from cmo_slo.model import UPWARD, Operator

from cmo_dashboards.colours import FAIL, NEUTRAL, PASS, WARN, Step, pass_edge, safe_edge

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cmo_slo.model import Objective

MISSED_BY: Final[Mapping[Operator, str]] = {
    Operator.ABOVE: "<=",
    Operator.AT_LEAST: "<",
    Operator.BELOW: ">=",
    Operator.AT_MOST: ">",
}
"""The comparison that holds when a value misses its target."""


class Status(IntEnum):
    """What a verdict tile says."""

    NO_DATA = -1
    NO_TRAFFIC = 0
    TOO_FEW = 1
    FAIL = 2
    WARN = 3
    PASS = 4
    REST_PASSES = 5
    FEW_MISS = 6


TEXTS: Final[Mapping[Status, str]] = {
    Status.NO_DATA: "No data",
    Status.NO_TRAFFIC: "No traffic",
    Status.TOO_FEW: "Too few to judge",
    Status.FAIL: "FAIL",
    Status.WARN: "WARN",
    Status.PASS: "PASS",
    Status.REST_PASSES: "passes",
    Status.FEW_MISS: "Few, target missed",
}
_COLOURS: Final[Mapping[Status, str]] = {
    Status.FAIL: FAIL,
    Status.WARN: WARN,
    Status.PASS: PASS,
    Status.FEW_MISS: WARN,
}

VALUE_TEXTS: Final = tuple((float(status), text) for status, text in TEXTS.items())
VALUE_COLOURS: Final = tuple((float(status), _COLOURS.get(status, NEUTRAL)) for status in Status)
STEPS: Final = (Step(None, NEUTRAL),)
"""Colours come from the values' texts; between them there is none."""
LOWEST: Final = float(min(Status))
HIGHEST: Final = float(max(Status))


def of_live_window(slo: str, objective: Objective, window: recorded.Window) -> str:
    """The verdict on live traffic over a recorded window, and "no data" where nothing is scraped now.

    A window outlives the service that filled it: while nothing is scraped, what it says is the past.
    """
    labels = (
        f'slo="{slo}", objective="{objective.name}", scenario="{catalogue.LIVE}", window="{window.value}"'
    )
    good, total = (
        f"{series}{{{labels}}}"
        for series in (recorded.GOOD_EVENTS_IN_WINDOW, recorded.TOTAL_EVENTS_IN_WINDOW)
    )
    scraped = f'max({recorded.SCRAPED}{{slo="{slo}"}}) == 1'
    return f"({_of_events(objective, good, total)}) and on () ({scraped}) or on () vector({Status.NO_DATA:d})"


def _of_events(objective: Objective, good: str, total: str) -> str:
    """The status of each series of events."""
    judged = f"{good} / ({total} >= {max(objective.minimum_events, 1)})"
    missed = f"{good} / ({total} > 0) {MISSED_BY[objective.operator]} {objective.target!r}"
    return (
        f"{of_value(objective, judged)} or {Status.FEW_MISS:d} + 0 * ({missed}) "
        f"or {Status.TOO_FEW:d} + 0 * ({total} > 0) or {Status.NO_TRAFFIC:d} * {total}"
    )


def of_value(objective: Objective, value: str) -> str:
    """The status of a value: FAIL, and one more for each of the limits that it is on the right side of."""
    held = f"(({value}) {objective.operator.value} bool {objective.target!r})"
    if not objective.warning_band:
        return f"{Status.FAIL:d} + 2 * {held}"
    sign = ">=" if objective.operator in UPWARD else "<="
    return f"{Status.FAIL:d} + {held} + (({value}) {sign} bool {safe_edge(objective)!r})"


def of_held_level(objective: Objective, value: str) -> str:
    """The status of the highest level reached: below its target nobody may have asked for more."""
    return f"{Status.TOO_FEW:d} + 3 * (({value}) >= bool {pass_edge(objective)!r})"
