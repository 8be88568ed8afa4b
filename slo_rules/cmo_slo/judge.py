"""Judge a run: objectives and exact counts in, a verdict with its reasons out.

Fails closed. An objective passes only when everything that its number rests on is known; whatever is empty,
doubled, contradictory, too little or too late makes it INCONCLUSIVE, and the reason says so in words. Ratios
are compared as fractions of whole numbers: exactly 95 % is not above 95 %.

Pure functions of plain data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cmo_slo.count import count_scenario
from cmo_slo.doubts import NOTHING_JUDGED, find_doubts
from cmo_slo.indicators import (
    ContinuityIndicator,
    GrowthIndicator,
    HeldLevelIndicator,
    LatencyIndicator,
    RatioIndicator,
)
from cmo_slo.judge_continuity import judge_continuity
from cmo_slo.judge_level import judge_growth, judge_held
from cmo_slo.judge_ratio import judge_latency, judge_ratio
from cmo_slo.model import Scope
from cmo_slo.samples import find_targets
from cmo_slo.span import UncountableError
from cmo_slo.verdict import OVERALL, Options, Result, Unit, Verdict, inconclusive, outcome_of, score_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cmo_slo.count import ScenarioCount
    from cmo_slo.doubts import Doubts
    from cmo_slo.manifest import Run
    from cmo_slo.model import Objective, Objectives
    from cmo_slo.samples import Evidence


@dataclass(frozen=True)
class _Case:
    """What the units of one verdict share: why nothing of the run may pass, and what is known of it."""

    objectives: Objectives
    options: Options
    counts: Mapping[str, ScenarioCount]
    doubts: Doubts


def judge(
    objectives: Objectives,
    run: Run,
    evidence: Evidence,
    *,
    scenarios: Sequence[str] = (),
    options: Options | None = None,
) -> Verdict:
    """Judge a run.

    Args:
        objectives: what was promised.
        run: when it ran and what it offered.
        evidence: raw samples of it.
        scenarios: judge only these of the objectives' scenarios; none are all.
        options: how strictly.
    """
    names = tuple(scenarios) or objectives.scenarios
    ran = [one for name in names if (one := run.scenario(name))]
    targets = find_targets(evidence, min((one.start for one in ran), default=run.start))
    series = tuple(dict.fromkeys(one.name for reading in evidence.readings for one in reading.series))
    counts = {one.name: count_scenario(targets.targets, one, series) for one in ran}
    doubts = find_doubts(targets, run, ran, counts, evidence)
    case = _Case(objectives, options or Options(), counts, doubts)
    results = tuple(_result(case, objective, names) for objective in objectives.objectives)
    outcome, reason = outcome_of(results, objectives)
    return Verdict(
        outcome=outcome,
        reason=reason,
        score=score_of(results),
        results=results,
        counts=tuple(counts.values()),
        problems=doubts.words,
        targets=targets.targets,
        partial=set(names) != set(objectives.scenarios),
    )


def _result(case: _Case, objective: Objective, names: Sequence[str]) -> Result:
    units = []
    if Scope.SCENARIO in objective.judged:
        units += [_unit(case, objective, name, [name]) for name in names]
    if Scope.OVERALL in objective.judged:
        units.append(_unit(case, objective, OVERALL, names))
    return Result(objective, tuple(units))


def _unit(case: _Case, objective: Objective, scope: str, names: Sequence[str]) -> Unit:
    missing = [name for name in names if name not in case.counts]
    if missing:
        return inconclusive(scope, f"The run does not hold {', '.join(missing)}, which must be judged.")
    counts = [case.counts[name] for name in names]
    if isinstance(objective.indicator, ContinuityIndicator):
        return judge_continuity(case.doubts, objective, objective.indicator, counts[0], case.counts.values())
    doubts = [*case.doubts.words, *(problem for count in counts for problem in count.problems)]
    if doubts:
        more = f" (and {len(doubts) - 1} more)" if len(doubts) > 1 else ""
        return inconclusive(scope, f"{NOTHING_JUDGED}{doubts[0]}{more}")
    try:
        return _measured(case, objective, scope, counts)
    except UncountableError as error:
        return inconclusive(scope, str(error))


def _measured(case: _Case, objective: Objective, scope: str, counts: Sequence[ScenarioCount]) -> Unit:
    options, limit = case.options, case.objectives.cancelled_limit
    match objective.indicator:
        case HeldLevelIndicator() as indicator:
            return judge_held(options, objective, indicator, counts[0])
        case GrowthIndicator() as indicator:
            return judge_growth(options, objective, indicator, counts[0])
        case RatioIndicator() as indicator:
            return judge_ratio(options, objective, indicator, limit, scope, counts)
        case LatencyIndicator() as indicator:
            return judge_latency(options, objective, indicator, limit, scope, counts)
        case _:
            raise UncountableError(f"Nothing here can measure a {objective.indicator.kind}.")
