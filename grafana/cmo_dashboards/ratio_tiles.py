"""Tiles of a ratio that has a target: a number, its verdict's colour, and in words why there is none.

Green, amber and vermilion are a verdict, so they are given only to what a verdict would judge: populations
that the objective is judged for, from as many events on as it needs, and never the prober's canaries, which
are all that asks an idle service.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cmo_slo.model import Scope

from cmo_dashboards import expressions as promql
from cmo_dashboards.colours import NEUTRAL, verdict_steps
from cmo_dashboards.dashboard import ALL_TESTS_LEGEND
from cmo_dashboards.panels import Link, Panel, Query, Shape, Unit
from cmo_dashboards.promised import target_text
from cmo_dashboards.verdicts import TEXTS, Status

if TYPE_CHECKING:
    from cmo_slo.model import Objective

NO_TRAFFIC: Final = -2.0
"""What stands for "nobody asked", among shares that are never negative."""
_SCENARIO: Final = "{{scenario}}"
PEOPLE: Final = promql.Population(f"{promql.CHOSEN}, {promql.NOT_THE_PROBER}")
"""Each chosen scenario by itself, but the prober's."""


def ratio_tile(
    slo: str,
    objective: Objective,
    *,
    answers: str,
    when_red: str,
    width: int,
    height: int = 8,
    links: tuple[Link, ...] = (),
) -> Panel:
    """One objective over the range: each test scenario, all of them, and live traffic.

    Args:
        slo: name of the objectives file.
        objective: a counted one.
        answers: what the panel answers.
        when_red: what to do.
        width: of the panel, in columns.
        height: of the panel, in rows.
        links: to what tells more.
    """
    of = promql.Recorded(slo, objective.name)
    return Panel(
        title=f"{objective.title} (target {target_text(objective)})",
        shape=Shape.STAT,
        width=width,
        height=height,
        unit=Unit.RATIO,
        answers=answers,
        when_red=when_red,
        queries=tuple(_queries(of, objective)),
        steps=verdict_steps(objective),
        value_texts=((NO_TRAFFIC, TEXTS[Status.NO_TRAFFIC]),),
        value_colours=((NO_TRAFFIC, NEUTRAL),),
        highest=1.0,
        decimals=2,
        links=links,
    )


def _queries(of: promql.Recorded, objective: Objective) -> list[Query]:
    by_scenario = Scope.SCENARIO in objective.judged
    people = PEOPLE if by_scenario else promql.LIVE

    def judged(guard: str) -> str:
        overall = _named_overall(promql.overall_ratio(of, promql.RANGE, guard))
        return f"{promql.ratio(of, people, promql.RANGE, guard)} or {overall}"

    def grey(expression: str, legend: str = _SCENARIO, lowest: float = 0.0) -> Query:
        return Query(expression, legend, lowest, 1.0, judged=False, may_be_empty=True)

    asked = f"{promql.total_events(of, promql.LIVE, promql.RANGE)} or "
    asked += _named_overall(promql.overall_events(of, promql.RANGE))
    queries = [
        Query(judged(promql.enough(objective.minimum_events)), _SCENARIO, 0.0, 1.0),
        grey(judged(promql.too_few(objective.minimum_events)), f"{_SCENARIO}, too few to judge"),
        grey(f"{NO_TRAFFIC:g} + 0 * (({asked}) == 0)", lowest=NO_TRAFFIC),
    ]
    if not by_scenario:
        queries.append(grey(promql.ratio(of, promql.TESTS, promql.RANGE)))
    return queries


def _named_overall(expression: str) -> str:
    return f'label_replace({expression}, "scenario", "{ALL_TESTS_LEGEND}", "", "")'
