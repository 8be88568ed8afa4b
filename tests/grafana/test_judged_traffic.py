"""Verdict colours are given to what a verdict would judge: not to the prober, nor to a handful of events.

promtool evaluates the panels' own expressions over recorded series, as an idle stack records them: the prober
asks its canaries and is answered well, and nobody else asks, or hardly anybody.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import pytest
from cmo_dashboards import Macros, PanelQuery, queries, shipped_dashboards
from cmo_dashboards.colours import FAIL, PASS, WARN
from cmo_dashboards.verdicts import Status
from cmo_exporter import catalogue
from cmo_slo import recorded
from cmo_slo.objectives import load_objectives, shipped_directory

from .asked_of_promtool import ask_promtool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cmo_stack import servers

OBJECTIVES: Final = load_objectives(shipped_directory() / "cmo-015.yml")
COUNTED: Final = [objective for objective in OBJECTIVES.objectives if objective.counted]
VERDICT: Final = {PASS, WARN, FAIL}
MACROS: Final = Macros(range="5m", rate_interval="1m", interval="15s")
EVALUATIONS: Final = 5
"""Of the rules, by the minute at which is asked; each adds as many events as a series says."""
FEWEST: Final = min(objective.minimum_events for objective in COUNTED)
HARDLY_ANY: Final = FEWEST // EVALUATIONS - 1
ENOUGH: Final = max(objective.minimum_events for objective in COUNTED) // (EVALUATIONS - 1)
"""The comparison looks a second back, where the last evaluation has not been."""
SOME_TEST: Final = OBJECTIVES.scenarios[0]


def _is_judged(query: PanelQuery) -> bool:
    """Whether any value would have a verdict's colour: PASS, or what an objective's steps call FAIL."""
    return PASS in {step.colour for step in query.steps} | {colour for _, colour in query.value_colours}


JUDGED: Final = [
    query for board in shipped_dashboards() for query in queries(board, MACROS) if _is_judged(query)
]


def _events(scenario: str, each: int) -> dict[str, float]:
    """What the rules record of events that are all good: of objectives, and of each component."""
    series: dict[str, float] = {}
    for objective in COUNTED:
        labels = f'slo="cmo-015", objective="{objective.name}"'
        for name in (recorded.GOOD_EVENTS, recorded.TOTAL_EVENTS):
            series[f'{name}{{{labels}, scenario="{scenario}"}}'] = each
        if scenario == SOME_TEST:
            for name in (recorded.OVERALL_GOOD_EVENTS, recorded.OVERALL_TOTAL_EVENTS):
                series[f"{name}{{{labels}}}"] = each
        if scenario == catalogue.LIVE:
            series |= _windows(labels, each)
    for name in (recorded.COMPONENT_GOOD_EVENTS, recorded.COMPONENT_TOTAL_EVENTS):
        for indicator in ("success", "within_2s"):
            labels = f'slo="cmo-015", component="lightrag", indicator="{indicator}"'
            series[f'{name}{{{labels}, scenario="{scenario}"}}'] = each
    return series


def _windows(labels: str, each: int) -> dict[str, float]:
    """Of live traffic: long windows, and a budget that is untouched."""
    series: dict[str, float] = {}
    for window in recorded.Window:
        of_window = f'{{{labels}, scenario="live", window="{window}"}}'
        series[f"{recorded.GOOD_EVENTS_IN_WINDOW}{of_window}"] = each * EVALUATIONS
        series[f"{recorded.TOTAL_EVENTS_IN_WINDOW}{of_window}"] = each * EVALUATIONS
    series[f'{recorded.BUDGET_REMAINING}{{{labels}, scenario="live", window="30d"}}'] = 1
    return series


IDLE: Final = {
    f'{recorded.SCRAPED}{{slo="cmo-015", job="cmo"}}': 1.0,
    'ALERTS{alertname="CMOWatchdog", alertstate="firing", severity="watchdog"}': 1.0,
    'up{job="cmo", instance="a"}': 1.0,
    'cmo_worker_start_time_seconds{job="cmo", instance="a", worker="0"}': 1_790_000_000.0,
    **_events(catalogue.LIVE, 0),
}


def _wrongly_coloured(query: PanelQuery) -> Iterator[str]:
    """Expressions that have a value if the query has one with a verdict's colour."""
    for value, colour in query.value_colours:
        if colour in VERDICT and value != Status.FEW_MISS:
            yield f"({query.expression}) == {value:g}"
    edges = [step.value for step in query.steps if step.value is not None and step.colour in VERDICT]
    if edges:
        yield f"({query.expression}) >= {min(edges)!r}"


def _found(
    promtool: servers.Server, folder: Path, series: dict[str, float], asked: list[PanelQuery]
) -> list[str]:
    """Places of the queries that have a value with a verdict's colour over some series."""
    expressions = {query.place: list(_wrongly_coloured(query)) for query in asked}
    test = {
        "interval": "15s",
        "input_series": [{"series": name, "values": f"{value:g}x20"} for name, value in series.items()],
        "promql_expr_test": [
            {"expr": expression, "eval_time": "1m", "exp_samples": []}
            for of_query in expressions.values()
            for expression in of_query
        ],
    }
    said = ask_promtool(promtool, folder, [test])
    found = [
        place
        for place, of_query in expressions.items()
        if any(f"expr: {json.dumps(expression)}" in said for expression in of_query)
    ]
    assert found or not said, said
    return found


def test_the_prober_alone_makes_nothing_green_or_red(promtool: servers.Server, tmp_path: Path) -> None:
    assert len(JUDGED) > 25
    series = {**IDLE, **_events(catalogue.PROBE_SCENARIO, ENOUGH)}
    assert _found(promtool, tmp_path, series, JUDGED) == []


@pytest.mark.parametrize("scenario", [catalogue.LIVE, SOME_TEST])
def test_fewer_events_than_a_verdict_needs_have_no_verdicts_colour(
    promtool: servers.Server, tmp_path: Path, scenario: str
) -> None:
    few = {**IDLE, **_events(scenario, HARDLY_ANY)}
    assert _found(promtool, tmp_path, few, JUDGED) == []


def test_enough_events_have_one(promtool: servers.Server, tmp_path: Path) -> None:
    """Else the others would find nothing, whatever is wrong."""
    many = {**IDLE, **_events(catalogue.LIVE, ENOUGH), **_events(SOME_TEST, ENOUGH)}
    coloured = _found(promtool, tmp_path, many, JUDGED)
    asked = {query.place for query in JUDGED}
    assert "cmo-components: Calls that succeed (LightRAG: target >= 95 %) (A)" in coloured
    shows_no_pass = {place for place in asked if "What would fail" in place}
    of_gauges = {place for place in asked if "emory" in place or "sers" in place}
    assert asked - set(coloured) - of_gauges - shows_no_pass == set()
