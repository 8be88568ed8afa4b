"""Panels of the budget: what the rules record as full or zero where nobody asked is no good news.

promtool evaluates the panels' own expressions over recorded series whose numbers are written here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from cmo_dashboards.budgets import budget_left, burn_rates
from cmo_dashboards.promised import budgeted
from cmo_slo.objectives import load_objectives, shipped_directory
from cmo_slo.recorded import (
    BUDGET_REMAINING,
    BURN_RATE,
    GOOD_EVENTS_HOURLY,
    TOTAL_EVENTS_HOURLY,
    TOTAL_EVENTS_IN_WINDOW,
)

from .asked_of_promtool import ask_promtool
from .seen_elsewhere import ROLLED_UP

if TYPE_CHECKING:
    from pathlib import Path

    from cmo_stack import servers

OBJECTIVES: Final = load_objectives(shipped_directory() / "cmo-015.yml")
SUCCESS: Final = budgeted(OBJECTIVES)[0]
LIVE: Final = 'slo="cmo-015", objective="success", scenario="live"'
MONTH: Final = f'{{{LIVE}, window="30d"}}'


def _expect(
    promtool: servers.Server,
    folder: Path,
    series: dict[str, str],
    expression: str,
    expected: dict[str, float],
    moment: str = "1m",
) -> None:
    samples = [{"labels": labels, "value": value} for labels, value in expected.items()]
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [{"expr": expression, "eval_time": moment, "exp_samples": samples}],
    }
    said = ask_promtool(promtool, folder, [test], evaluated_every="1m")
    assert not said, said


def test_a_full_budget_that_nobody_could_spend_is_not_shown(promtool: servers.Server, tmp_path: Path) -> None:
    judged, few = budget_left(OBJECTIVES, SUCCESS, width=4, height=5).queries
    left, asked = f"{BUDGET_REMAINING}{MONTH}", f"{TOTAL_EVENTS_IN_WINDOW}{MONTH}"
    nothing: dict[str, float] = {}
    for events, as_judged, as_few in (
        (0, nothing, nothing),
        (99, nothing, {left: -0.5}),
        (100, {left: -0.5}, nothing),
    ):
        series = {left: "-0.5x5", asked: f"{events}x5"}
        _expect(promtool, tmp_path, series, judged.expression, as_judged)
        _expect(promtool, tmp_path, series, few.expression, as_few)
    assert (judged.judged, few.judged) == (True, False)


def test_a_window_in_which_nobody_asked_burns_nothing_that_is_shown(
    promtool: servers.Server, tmp_path: Path
) -> None:
    [query] = burn_rates(OBJECTIVES, SUCCESS, width=8).queries
    hour, month = f'{{{LIVE}, window="1h"}}', MONTH
    series = {f"{BURN_RATE}{hour}": "0x5", f"{BURN_RATE}{month}": "2x5"}
    asked = {f"{TOTAL_EVENTS_IN_WINDOW}{hour}": "0x5", f"{TOTAL_EVENTS_IN_WINDOW}{month}": "9x5"}
    _expect(promtool, tmp_path, {**series, **asked}, query.expression, {f"{BURN_RATE}{month}": 2.0})


@pytest.mark.parametrize(("moment", "seen"), [("1m", True), ("40m", True), ("59m", True), ("61m", False)])
def test_what_is_recorded_hourly_is_seen_for_its_hour(
    promtool: servers.Server, tmp_path: Path, moment: str, seen: bool
) -> None:
    for query, objective in zip(ROLLED_UP, budgeted(OBJECTIVES), strict=True):
        live = f'{{slo="cmo-015", objective="{objective.name}", scenario="live"}}'
        series = {f"{TOTAL_EVENTS_HOURLY}{live}": "100", f"{GOOD_EVENTS_HOURLY}{live}": "93"}
        expected = {live: 7.0} if seen else {}
        _expect(promtool, tmp_path, series, query.expression, expected, moment)
