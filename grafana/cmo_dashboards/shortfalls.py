"""The panel "What would fail": every objective, held against its target wherever it is judged, in words.

Only what fails or cannot be judged is named; that all else holds is one tile, so that an empty panel always
means that Prometheus has nothing. `cmo check` decides; this is where to look before asking it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cmo_exporter import catalogue
from cmo_slo import recorded
from cmo_slo.indicators import ContinuityIndicator, GrowthIndicator, HeldLevelIndicator
from cmo_slo.model import OVERALL_SCENARIO, Scope

from cmo_dashboards import expressions as promql
from cmo_dashboards import verdicts
from cmo_dashboards.panels import Panel, Query, Shape, Unit
from cmo_dashboards.verdicts import Events, Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cmo_slo.model import Objective, Objectives

_LEGEND: Final = "{{scenario}}: {{objective}}"


def what_would_fail(objectives: Objectives, *, width: int, height: int) -> Panel:
    """One tile for each objective and scenario that fails, or cannot be judged, over the range."""
    cells = [cell for objective in objectives.objectives for cell in _cells(objectives.name, objective)]
    everything = " or ".join(f"({cell})" for cell in cells)
    short = f"({everything}) < {Status.WARN:d}"
    rest = f"{Status.REST_PASSES:d} + 0 * count(({everything}) >= {Status.WARN:d})"
    return Panel(
        title="What would fail today",
        shape=Shape.STAT,
        width=width,
        height=height,
        unit=Unit.COUNT,
        answers="Which objectives does the traffic of this range miss? Each is held against its target in "
        "every scenario, over all test scenarios (`overall`) and for `live`, as far as it is judged there; "
        "only those that fail, or cannot be judged, are named. *Too few to judge*: fewer events than a "
        "verdict needs, or fewer users than the target. *No traffic*: nobody asked. A restart in the range "
        "fails `no_catastrophic_failure`. `cmo check` decides on a run, from its exact beginning and end.",
        when_red="Find the same objective in the rows above, and the moment at which it fell. FAIL under "
        "`live` means that people are affected now: open *CMO overview*.",
        queries=(
            Query(short, _LEGEND, verdicts.LOWEST, verdicts.HIGHEST, may_be_empty=True),
            Query(rest, "All that is not named here", verdicts.LOWEST, verdicts.HIGHEST, may_be_empty=True),
        ),
        steps=verdicts.STEPS,
        value_texts=verdicts.VALUE_TEXTS,
        value_colours=verdicts.VALUE_COLOURS,
        no_value="No data: nothing can be judged",
        lowest=verdicts.LOWEST,
    )


def _cells(slo: str, objective: Objective) -> Iterator[str]:
    """Statuses of one objective, with the labels ``objective`` and ``scenario`` alone."""
    of, indicator = promql.Recorded(slo, objective.name), objective.indicator
    if objective.counted:
        judged = promql.EACH if Scope.SCENARIO in objective.judged else promql.LIVE
        yield verdicts.of_events(objective, _events(of, judged))
        if Scope.OVERALL in objective.judged:
            yield verdicts.of_events(objective, _overall_events(of))
        yield f"{_nothing_recorded(objective.name)} unless on () {of.selector(recorded.TOTAL_EVENTS)}"
    elif isinstance(indicator, HeldLevelIndicator):
        highest = promql.highest_mean_level(of, promql.TESTS)
        yield _named(verdicts.of_held_level(objective, highest), objective.name)
    elif isinstance(indicator, GrowthIndicator):
        grown = promql.growth(indicator, promql.TESTS)
        yield _named(verdicts.of_value(objective, grown), objective.name)
    elif isinstance(indicator, ContinuityIndicator):
        start = indicator.start_time
        restarts = f"changes((max by (job, instance) ({start}))[{promql.RANGE}:{promql.INTERVAL}])"
        status = verdicts.of_value(objective, f"max({restarts})")
        yield _named(_scenario(status, OVERALL_SCENARIO), objective.name)


def _nothing_recorded(objective: str) -> str:
    return _named(_scenario(f"vector({Status.NO_DATA:d})", "any scenario"), objective)


def _events(of: promql.Recorded, people: promql.Population) -> Events:
    matchers = (people.matcher, f'scenario!="{catalogue.PROBE_SCENARIO}"')
    return Events(
        *(
            f"sum by (objective, scenario) (sum_over_time({of.selector(series, *matchers)}[{promql.RANGE}]))"
            for series in (recorded.GOOD_EVENTS, recorded.TOTAL_EVENTS)
        )
    )


def _overall_events(of: promql.Recorded) -> Events:
    return Events(
        *(
            _scenario(
                f"sum by (objective) (sum_over_time({of.selector(series)}[{promql.RANGE}]))", OVERALL_SCENARIO
            )
            for series in (recorded.OVERALL_GOOD_EVENTS, recorded.OVERALL_TOTAL_EVENTS)
        )
    )


def _named(status: str, objective: str) -> str:
    return f'label_replace({status}, "objective", "{objective}", "", "")'


def _scenario(series: str, scenario: str) -> str:
    return f'label_replace({series}, "scenario", "{scenario}", "", "")'
