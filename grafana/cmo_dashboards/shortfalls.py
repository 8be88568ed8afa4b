"""The panel "What would fail": every objective, held against its target wherever it is judged, in words.

Only what fails or cannot be judged is named; that all else holds is one tile, so that an empty panel always
means that nothing is recorded. `cmo check` decides; this is where to look before asking it.

Ratios are held against the targets that the rules record, all of them at once: a query with each objective by
itself is longer than some data sources take.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cmo_slo import recorded
from cmo_slo.indicators import ContinuityIndicator, GrowthIndicator, HeldLevelIndicator
from cmo_slo.model import OVERALL_SCENARIO, UPWARD, Scope

from cmo_dashboards import expressions as promql
from cmo_dashboards import verdicts
from cmo_dashboards.panels import Panel, Query, Shape, Unit
from cmo_dashboards.promised import counted
from cmo_dashboards.verdicts import MISSED_BY, Status

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cmo_slo.model import Objective, Objectives, Operator

_LEGEND: Final = "{{scenario}}: {{objective}}"
_ANY_SCENARIO: Final = "any scenario"


@dataclass(frozen=True)
class _Cells:
    """Some objectives wherever they are judged, as expressions: what falls short, and what holds.

    ``short`` has a `Status` as its value, and the labels ``objective`` and ``scenario``.
    """

    short: str
    hold: str


def what_would_fail(objectives: Objectives, *, width: int, height: int) -> Panel:
    """One tile for each objective and scenario that fails, or cannot be judged, over the range."""
    cells = [*_counted_cells(objectives), *_other_cells(objectives)]
    short = " or ".join(f"({cell.short})" for cell in cells)
    hold = " or ".join(f"({cell.hold})" for cell in cells)
    rest = f"{Status.REST_PASSES:d} + 0 * count({hold}) and on () count({_targets(objectives.name)})"
    return Panel(
        title="What would fail in this range",
        shape=Shape.STAT,
        width=width,
        height=height,
        unit=Unit.COUNT,
        answers="Which objectives does the traffic of this range miss? Each is held against its target in "
        "every scenario, over all test scenarios (`overall`) and for `live`, as far as it is judged there; "
        "only those that fail, or cannot be judged, are named. *Too few to judge*: fewer events than a "
        "verdict needs, or fewer users than the target. *No traffic*: nobody asked. `passes`, on the tile of "
        "all that is not named: the rest meets its targets; grey, because it is no verdict on any one. "
        "`cmo check` decides on a run, from its exact beginning and end.",
        when_red="Find the same objective among the tiles, and the moment at which it fell. FAIL under "
        "`live` means that people are affected now: open *CMO overview*.",
        queries=(
            Query(short, _LEGEND, verdicts.LOWEST, verdicts.HIGHEST, may_be_empty=True),
            Query(rest, "All that is not named here", verdicts.LOWEST, verdicts.HIGHEST, may_be_empty=True),
        ),
        steps=verdicts.STEPS,
        value_texts=verdicts.VALUE_TEXTS,
        value_colours=verdicts.VALUE_COLOURS,
        no_value="No data: the rules are not loaded, or not evaluated",
        lowest=verdicts.LOWEST,
    )


def _counted_cells(objectives: Objectives) -> Iterator[_Cells]:
    """Ratios, by the number of events that they need to be judged."""
    promised = counted(objectives)
    for minimum in sorted({max(objective.minimum_events, 1) for objective in promised}):
        together = [one for one in promised if max(one.minimum_events, 1) == minimum]
        good = _events(objectives.name, together, recorded.GOOD_EVENTS, recorded.OVERALL_GOOD_EVENTS)
        total = _events(objectives.name, together, recorded.TOTAL_EVENTS, recorded.OVERALL_TOTAL_EVENTS)
        ratio = f"({good}) / (({total}) >= {minimum})"
        missed, held = _held_against_targets(objectives.name, ratio)
        missing = f"{_targets(objectives.name, together)} unless on (objective) ({total})"
        short = (
            f"{Status.FAIL:d} + 0 * ({missed})",
            f"{Status.TOO_FEW:d} + 0 * ((({total}) > 0) < {minimum})",
            f"{Status.NO_TRAFFIC:d} * (({total}) == 0)",
            _scenario(f"{Status.NO_DATA:d} + 0 * ({missing})", _ANY_SCENARIO),
        )
        yield _Cells(" or ".join(short), held)


def _held_against_targets(slo: str, ratio: str) -> tuple[str, str]:
    """What misses its target, and what does not: a strict target is missed by what equals it."""
    missed = {operator: MISSED_BY[operator] for operator in UPWARD}
    by_target = "on (objective) group_left ()"
    return (
        " or ".join(
            f"{ratio} {sign} {by_target} {_targets(slo, operator=operator)}"
            for operator, sign in missed.items()
        ),
        " or ".join(
            f"{ratio} {operator} {by_target} {_targets(slo, operator=operator)}" for operator in missed
        ),
    )


def _other_cells(objectives: Objectives) -> Iterator[_Cells]:
    """What is no ratio: users, memory, restarts."""
    for objective in objectives.objectives:
        status = _status(objectives.name, objective)
        if status is not None:
            named = f'label_replace({status}, "objective", "{objective.name}", "", "")'
            yield _Cells(f"{named} < {Status.WARN:d}", f"{named} >= {Status.WARN:d}")


def _status(slo: str, objective: Objective) -> str | None:
    """The status of an objective that is not counted, with the label ``scenario`` alone."""
    of, indicator = promql.Recorded(slo, objective.name), objective.indicator
    if isinstance(indicator, HeldLevelIndicator):
        return verdicts.of_held_level(objective, promql.highest_mean_level(of, promql.TESTS))
    if isinstance(indicator, GrowthIndicator):
        return verdicts.of_value(objective, promql.growth(indicator, promql.TESTS))
    if isinstance(indicator, ContinuityIndicator):
        restarts = f"max({promql.restarts(indicator.start_time)})"
        return _scenario(verdicts.of_value(objective, restarts), OVERALL_SCENARIO)
    return None


def _events(slo: str, promised: Sequence[Objective], each: str, overall: str) -> str:
    """Events of objectives wherever each is judged; live traffic is held against all of them."""
    by_scenario = [one for one in promised if Scope.SCENARIO in one.judged]
    live_alone = [one for one in promised if Scope.SCENARIO not in one.judged]
    pooled = [one for one in promised if Scope.OVERALL in one.judged]
    parts = [
        _sums("objective, scenario", _selector(slo, group, each, people.matcher, promql.NOT_THE_PROBER))
        for group, people in ((by_scenario, promql.EACH), (live_alone, promql.LIVE))
        if group
    ]
    if pooled:
        parts.append(_scenario(_sums("objective", _selector(slo, pooled, overall)), OVERALL_SCENARIO))
    return " or ".join(parts)


def _sums(labels: str, series: str) -> str:
    return f"sum by ({labels}) (sum_over_time({series}[{promql.RANGE}]))"


def _selector(slo: str, promised: Sequence[Objective], series: str, *matchers: str) -> str:
    names = tuple(objective.name for objective in promised)
    return promql.selector(series, {"slo": (slo,), "objective": names}, *matchers)


def _targets(slo: str, promised: Sequence[Objective] = (), *, operator: Operator | None = None) -> str:
    """The targets that the rules record of ratios."""
    labels: dict[str, tuple[str, ...]] = {"slo": (slo,), "unit": ("ratio",)}
    if promised:
        labels["objective"] = tuple(objective.name for objective in promised)
    if operator is not None:
        labels["operator"] = (operator.value,)
    return f"max by (objective) ({promql.selector(recorded.TARGET, labels)})"


def _scenario(series: str, scenario: str) -> str:
    return f'label_replace({series}, "scenario", "{scenario}", "", "")'
