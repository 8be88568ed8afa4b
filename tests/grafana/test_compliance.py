"""Compliance shows every objective against its target, and what no verdict says: P95 and catastrophes.

promtool evaluates the panels' own expressions over series whose numbers are written here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from cmo_dashboards import Macros, queries
from cmo_dashboards.catastrophes import catastrophes
from cmo_dashboards.colours import FAIL, NEUTRAL, PASS, colour_of, verdict_steps
from cmo_dashboards.compliance import compliance
from cmo_dashboards.panels import Shape
from cmo_dashboards.promised import target_text
from cmo_exporter import catalogue
from cmo_slo import recorded
from cmo_slo.indicators import HeldLevelIndicator
from cmo_slo.objectives import load_objectives, shipped_directory

from .asked_of_promtool import ask_promtool

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cmo_dashboards.panels import Panel
    from cmo_slo.model import Objective
    from cmo_stack import servers

OBJECTIVES: Final = load_objectives(shipped_directory() / "cmo-015.yml")
BOARD: Final = compliance(OBJECTIVES)
PANELS: Final = [panel for row in BOARD.rows for panel in row.panels]
MACROS: Final = Macros(range="5m", rate_interval="1m", interval="15s")
ROUNDED_TO: Final = 0.0001
TEST: Final = OBJECTIVES.scenarios[0]
LAST_EDGE: Final = catalogue.QUERY_DURATION.buckets[-1]


def _expect(
    promtool: servers.Server,
    folder: Path,
    series: Mapping[str, str],
    expected: Mapping[str, Mapping[str, float]],
) -> None:
    """Hold expressions against the values that they are to have after five minutes."""
    test = {
        "interval": "15s",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": expression,
                "eval_time": "5m",
                "exp_samples": [{"labels": labels, "value": value} for labels, value in samples.items()],
            }
            for expression, samples in expected.items()
        ],
    }
    said = ask_promtool(promtool, folder, [test])
    assert not said, said


@pytest.mark.parametrize("objective", OBJECTIVES.objectives, ids=lambda objective: objective.name)
def test_every_objective_has_a_tile_with_its_target_and_its_colours(objective: Objective) -> None:
    missed = NEUTRAL if isinstance(objective.indicator, HeldLevelIndicator) else FAIL
    steps = verdict_steps(objective, missed=missed)
    tiles = [panel for panel in PANELS if panel.shape is Shape.STAT and _shows(panel, objective)]
    assert [panel.steps for panel in tiles] == [steps]


def _shows(panel: Panel, objective: Objective) -> bool:
    """Whether a panel says the target of an objective and asks for it."""
    asks = f'objective="{objective.name}"' in panel.queries[0].expression or objective.title in panel.title
    return asks and f"target {target_text(objective)}" in panel.title


def test_whether_the_service_is_scraped_is_said_beside_the_verdicts() -> None:
    assert "Targets up" in [panel.title for panel in BOARD.rows[0].panels]


def _quantiles() -> tuple[str, str]:
    each, tests = (query for query in queries(BOARD, MACROS) if query.panel.startswith("P95 of real answers"))
    return each.expression, tests.expression


def _answers(scenario: str, *seconds: float) -> dict[str, str]:
    """A histogram that sees one answer each of some durations at every scrape."""
    own = f'job="cmo", instance="a", scenario="{scenario}", outcome="success"'
    name = catalogue.QUERY_DURATION.name
    series = {
        f'{name}_bucket{{{own}, le="{edge:g}"}}': f"0+{sum(one <= edge for one in seconds)}x30"
        for edge in catalogue.QUERY_DURATION.buckets
    }
    every = f"0+{len(seconds)}x30"
    return {**series, f'{name}_bucket{{{own}, le="+Inf"}}': every, f"{name}_count{{{own}}}": every}


def test_a_quantile_stands_within_the_edges_of_its_bucket(promtool: servers.Server, tmp_path: Path) -> None:
    edges = catalogue.QUERY_DURATION.buckets
    below_two = edges[edges.index(2.0) - 1]
    beyond = LAST_EDGE * 2
    series = {
        **_answers("live", 2.0),
        **_answers(TEST, beyond),
        **_answers("rag_intensive", *[edges[0]] * 99, 2.0),
        **_answers("cache_effectiveness", *[edges[0]] * 90, *[2.0] * 10),
        **_answers("probe", 2.0),
        **_answers("clinical_rush"),
    }
    each, tests = _quantiles()
    samples = {
        f'{{scenario="live", above="{below_two:g}", up_to="2"}}': below_two + 0.95 * (2 - below_two),
        f'{{scenario="{TEST}", above="{LAST_EDGE:g}", up_to="{LAST_EDGE:g}"}}': LAST_EDGE,
        f'{{scenario="rag_intensive", above="0", up_to="{edges[0]:g}"}}': round(edges[0] * 95 / 99, 4),
        f'{{scenario="cache_effectiveness", above="{below_two:g}", up_to="2"}}': (below_two + 2) / 2,
    }
    # Of 201 events 189 are in the first bucket, 11 in that of 2 s.
    of_all = below_two + (2 - below_two) * (0.95 * 201 - 189) / 11
    pooled = {f'{{above="{below_two:g}", up_to="2"}}': round(of_all, 4)}
    rounded = {f"round({each}, {ROUNDED_TO})": samples, f"round({tests}, {ROUNDED_TO})": pooled}
    _expect(promtool, tmp_path, series, rounded)
    nobody = {**_answers("live"), **_answers(TEST)}
    _expect(promtool, tmp_path, nobody, {each: {}, tests: {}})


def _tested(good: int, total: int) -> dict[str, str]:
    labels = f'slo="cmo-015", objective="success", scenario="{TEST}"'
    return {
        f"{recorded.GOOD_EVENTS}{{{labels}}}": f"{good}x30",
        f"{recorded.TOTAL_EVENTS}{{{labels}}}": f"{total}x30",
    }


def test_a_restart_is_judged_in_a_test_alone(promtool: servers.Server, tmp_path: Path) -> None:
    judged, unanswered, shown = (
        MACROS.replace(query.expression) for query in catastrophes(OBJECTIVES, width=8, height=8).queries
    )
    start = 'cmo_worker_start_time_seconds{job="cmo", instance="a", worker="0"}'
    of_a = '{job="cmo", instance="a"}'
    restarted, stable = {start: "1000x10 2000x20"}, {start: "1000x30"}
    none: dict[str, float] = {}
    for series, expected in (
        ({**restarted, **_tested(9, 10)}, ({of_a: 1.0}, {"{}": 0.0}, none)),
        ({**stable, **_tested(9, 10)}, ({of_a: 0.0}, {"{}": 0.0}, none)),
        ({**stable, **_tested(0, 10)}, ({of_a: 0.0}, {"{}": 1.0}, none)),
        (restarted, (none, none, {of_a: 1.0})),
        ({**stable, **_tested(1, 1)}, (none, none, {of_a: 0.0})),
        ({**stable, **_tested(0, 0)}, (none, none, {of_a: 0.0})),
    ):
        _expect(promtool, tmp_path, series, dict(zip((judged, unanswered, shown), expected, strict=True)))


def test_no_catastrophe_is_green_and_one_is_not() -> None:
    panel = catastrophes(OBJECTIVES, width=8, height=8)
    assert [colour_of(value, panel.steps) for value in (0.0, 1.0, 2.0)] == [PASS, FAIL, FAIL]
    assert [query.judged for query in panel.queries] == [True, True, False]
