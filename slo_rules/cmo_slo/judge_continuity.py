"""Judge continuity: was a process restarted, and did a scenario have a success at all."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from cmo_slo.comparison import COMPARE
from cmo_slo.doubts import NOTHING_JUDGED, restart_words
from cmo_slo.samples import at_clock
from cmo_slo.span import START_TIME_RESOLUTION_SECONDS, UncountableError
from cmo_slo.verdict import Status, Unit, exact, inconclusive

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cmo_slo.count import ScenarioCount
    from cmo_slo.doubts import Doubts
    from cmo_slo.indicators import ContinuityIndicator
    from cmo_slo.model import Objective
    from cmo_slo.span import Restart


def judge_continuity(
    doubts: Doubts,
    objective: Objective,
    indicator: ContinuityIndicator,
    count: ScenarioCount,
    ran: Iterable[ScenarioCount],
) -> Unit:
    """Judge one scenario; ``ran`` are all that are judged, among which a restart finds its own.

    Unlike any number, a restart is certain on doubtful data too: more than were promised FAIL.
    """
    scope = count.scenario.name
    series = (indicator.start_time, indicator.successes.metric)
    restarts = [one for one in doubts.restarts if one in count.restarts or _belongs(one, count, ran)]
    if restarts and not COMPARE[objective.operator](Fraction(len(restarts)), exact(objective.target)):
        reason = " ".join(f"{one.what} on {one.target} at {at_clock(one.at)}." for one in restarts)
        return Unit(scope, Status.FAIL, reason, float(len(restarts)), series=series)
    unsure = [*doubts.problems, *count.problems]
    if restarts or (doubts.restarts and not count.spans):
        unsure += restart_words(doubts.restarts)
    blind = [span.target.name for span in count.spans if not span.target.series.get(indicator.start_time)]
    if blind:
        unsure.append(f"{', '.join(blind)} tells no {indicator.start_time}: a restart could go unseen.")
    if unsure:
        return inconclusive(scope, f"{NOTHING_JUDGED}{unsure[0]}")
    try:
        successes = count.events(indicator.successes.metric, indicator.successes.labels).count
    except UncountableError as error:
        return inconclusive(scope, str(error))
    failures = 0 if successes > 0 else 1
    what = "No restart" if successes > 0 else "Not one question was answered"
    holds = COMPARE[objective.operator](Fraction(failures), exact(objective.target))
    status = Status.PASS if holds else Status.FAIL
    reason = f"{what}; {successes:g} questions got a real answer."
    return Unit(scope, status, reason, float(failures), series=series)


def _belongs(restart: Restart, count: ScenarioCount, ran: Iterable[ScenarioCount]) -> bool:
    """Whether this is the last scenario that had begun when the process started anew, or else the first."""
    in_order = sorted((one.scenario for one in ran), key=lambda scenario: scenario.start)
    begun = [one for one in in_order if one.start - START_TIME_RESOLUTION_SECONDS < restart.at]
    return (begun[-1] if begun else in_order[0]).name == count.scenario.name
