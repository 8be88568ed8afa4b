"""What the rule of a trend sees with the shortest window that objectives files may have, and with less."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from cmo_slo.alerts.trend import TrendAlert
from cmo_slo.compile import compile_rules
from cmo_slo.durations import MINUTE, parse_duration
from cmo_slo.objectives import find_objectives, load_objectives
from cmo_slo.rule import as_document
from cmo_stack import servers

from .promtool_runs import run
from .rule_slice import rules_of_alert

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

OBJECTIVES = load_objectives(find_objectives("cmo-015"))
(TREND,) = (alert for alert in OBJECTIVES.alerts if isinstance(alert, TrendAlert))
TARGET = 'job="cmo",instance="a",worker="0"'
MINUTES = 240
GARBAGE_MINUTES = 15


def rules_of(window: str, horizon: str) -> dict[str, Any]:
    """The rules of the trend with another window, whether a file may ask for it or not."""
    trend = TREND.model_copy(update={"window": window, "horizon": horizon})
    objectives = OBJECTIVES.model_copy(update={"alerts": (trend,)})
    return rules_of_alert(as_document(compile_rules(objectives)), trend.alert)


def growing(horizon: str, times_the_limit: float, garbage_bytes: float = 0.0) -> list[float]:
    """Memory of each minute; what is garbage is collected every quarter of an hour."""
    slope = times_the_limit * TREND.gain_bytes_above / (parse_duration(horizon) // MINUTE)
    return [
        300e6 + slope * minute + garbage_bytes * (minute % GARBAGE_MINUTES) / GARBAGE_MINUTES
        for minute in range(MINUTES)
    ]


def expecting(memory: Sequence[float], *, fires: bool) -> dict[str, Any]:
    """A test that the alert fires at some time, or never, in a process with this memory."""
    ever = f'count(max_over_time(ALERTS{{alertname="{TREND.alert}",alertstate="firing"}}[1d]))'
    series = {
        f'cmo_memory_bytes{{{TARGET},kind="rss"}}': " ".join(f"{value:.0f}" for value in memory),
        f"cmo_worker_start_time_seconds{{{TARGET}}}": f"0x{MINUTES}",
    }
    expected = {
        "expr": ever,
        "eval_time": f"{MINUTES}m",
        "exp_samples": [{"labels": "{}", "value": 1}] if fires else [],
    }
    return {
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [expected],
            }
        ],
    }


@pytest.mark.parametrize("promtool", servers.installed("promtool"), ids=lambda server: server.label)
@pytest.mark.parametrize(("window", "fires"), [("30m", True), ("28m", False)])
def test_a_trend_amid_rare_garbage_is_seen_from_two_floors_on(
    promtool: servers.Server, window: str, fires: bool, tmp_path: Path
) -> None:
    """It is three times as steep as the limit, and the floor of its memory rises by quarters of an hour."""
    memory = growing("12h", 3.0, garbage_bytes=100e6)
    assert run(promtool, rules_of(window, "12h"), expecting(memory, fires=fires), tmp_path) == ""


@pytest.mark.parametrize("promtool", servers.installed("promtool"), ids=lambda server: server.label)
@pytest.mark.parametrize(("horizon", "fires"), [("12h30m", True), ("13h", False)])
def test_a_trend_just_above_the_limit_is_no_noise_up_to_25_windows_of_horizon(
    promtool: servers.Server, horizon: str, fires: bool, tmp_path: Path
) -> None:
    memory = growing(horizon, 1.01)
    assert run(promtool, rules_of("30m", horizon), expecting(memory, fires=fires), tmp_path) == ""
