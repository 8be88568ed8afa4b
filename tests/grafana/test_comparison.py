"""Two runs are compared in what both of them are: all scenarios together only where these are the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
from cmo_dashboards import Macros, queries, shipped_dashboards
from cmo_dashboards.variables import AGAINST, RUN
from cmo_slo.recorded import GOOD_EVENTS, STARTED_QUERIES, TOTAL_EVENTS

from .asked_of_promtool import ask_promtool

if TYPE_CHECKING:
    from pathlib import Path

    from cmo_stack import servers

MACROS: Final = Macros(
    range="5m", rate_interval="1m", interval="15s", chosen={RUN.name: "1", AGAINST.name: "600"}
)
EACH, TOGETHER = (
    query.expression
    for board in shipped_dashboards()
    for query in queries(board, MACROS)
    if board.uid == "cmo-load-test" and query.panel == "Success rate, difference"
)
EARLIER, NOW = "_x24 {0}x10 _x50", "_x64 {0}x10 _x10"
"""Half of a window, ten minutes apart."""


@pytest.mark.parametrize(
    ("easy", "each", "together"),
    [
        ((EARLIER,), {"hard": 0.0}, None),
        ((EARLIER, NOW), {"easy": 0.0, "hard": 0.0}, 0.0),
        ((NOW,), {"hard": 0.0}, None),
        ((), {"hard": 0.0}, 0.0),
    ],
    ids=["earlier alone", "on both sides", "now alone", "never"],
)
def test_mixtures_of_scenarios_are_no_difference(
    promtool: servers.Server,
    tmp_path: Path,
    easy: tuple[str, ...],
    each: dict[str, float],
    together: float | None,
) -> None:
    series = [*_run("hard", (EARLIER, NOW), good=90), *_run("easy", easy, good=100)]
    of_each: list[dict[str, Any]] = [
        {"labels": f'{{scenario="{name}"}}', "value": value} for name, value in each.items()
    ]
    of_all: list[dict[str, Any]] = [] if together is None else [{"labels": "{}", "value": together}]
    test = {
        "interval": "15s",
        "input_series": series,
        "promql_expr_test": [
            {"expr": expression, "eval_time": "20m", "exp_samples": samples}
            for expression, samples in ((EACH, of_each), (TOGETHER, of_all))
        ],
    }
    assert ask_promtool(promtool, tmp_path, [test]) == ""


def _run(scenario: str, when: tuple[str, ...], *, good: int) -> list[dict[str, str]]:
    """What the rules record of one scenario: a hundred queries in each evaluation of each of its runs."""
    events = f'slo="cmo-015", objective="success", scenario="{scenario}"'
    recorded = {
        f"{GOOD_EVENTS}{{{events}}}": good,
        f"{TOTAL_EVENTS}{{{events}}}": 100,
        f'{STARTED_QUERIES}{{job="cmo", instance="a", scenario="{scenario}"}}': 100,
    }
    return [
        # A series of its own for each run: promtool wants the values of a series in one text.
        {"series": f'{name[:-1]}, run="{number}"}}', "values": values.format(count)}
        for name, count in recorded.items()
        for number, values in enumerate(when)
    ]
