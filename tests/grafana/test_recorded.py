"""Panels are exact: soon after series begin, when extrapolated rates are not, and they need the rules.

promtool plays counters against the committed rules and evaluates the panels' own expressions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
from cmo_dashboards import Macros, queries, shipped_dashboards
from cmo_dashboards.dashboard import ALL_TESTS_LEGEND
from cmo_dashboards.ratio_tiles import NO_TRAFFIC
from cmo_slo.rulefile import shipped_rules_directory

from .asked_of_promtool import ask_promtool

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cmo_stack import servers

MACROS: Final = Macros(range="5m", rate_interval="1m", interval="15s")
QUERIES: Final = {
    (query.panel.partition(" (target")[0], query.ref_id): query
    for board in shipped_dashboards()
    for query in queries(board, MACROS)
    if board.uid == "cmo-015" and "(target" in query.panel
}
RATIOS: Final = ("Success rate", "Answered within 2 s", "Cache hit rate")
OF_HEALTH: Final = ("System health, success", "System health, latency")
FROM_RULES: Final = {
    place: query for place, query in QUERIES.items() if not place[0].startswith("Memory growth")
}
SOON: Final = ("1m45s", "1m55s")
"""Moments after series that begin at 1m: on a scrape, and between two."""
TEST: Final = "rag_intensive"

Samples = list[dict[str, Any]]


def _expect(
    promtool: servers.Server,
    folder: Path,
    series: Mapping[str, str],
    expected: Mapping[tuple[str, str], Samples],
    *,
    moments: tuple[str, ...] = SOON,
    rules: bool = True,
) -> None:
    """Hold panels at some moments against the samples that they are expected to show."""
    test = {
        "interval": "15s",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {"expr": FROM_RULES[place].expression, "eval_time": moment, "exp_samples": samples}
            for moment in moments
            for place, samples in expected.items()
        ],
    }
    files = [shipped_rules_directory() / "cmo-015.yml"] if rules else []
    said = ask_promtool(promtool, folder, [test], rule_files=files)
    assert not said, said


def _is(value: float, scenario: str | None = TEST) -> Samples:
    return [{"labels": f'{{scenario="{scenario}"}}' if scenario else "{}", "value": value}]


def _outcomes(metric: str, scenario: str, **values: str) -> dict[str, str]:
    """Series of one metric by the value of its last label, which is part of the name given."""
    own = f'job="cmo", instance="a", scenario="{scenario}"'
    return {f"{metric.format(own=own, value=value)}": numbers for value, numbers in values.items()}


def _events(scenario: str, good: str, bad: str) -> dict[str, str]:
    """Good and bad events of every ratio: failures in time, successes in time, hits and misses."""
    edge = 'cmo_query_duration_seconds_bucket{{{own}, outcome="{value}", le="2.0"}}'
    return {
        **_outcomes('cmo_queries_total{{{own}, outcome="{value}"}}', scenario, success=good, error=bad),
        **_outcomes(
            'cmo_query_duration_seconds_count{{{own}, outcome="{value}"}}',
            scenario,
            success=good,
            failure=bad,
        ),
        **_outcomes(edge, scenario, success=good, failure=bad),
        **_outcomes('cmo_query_cache_results_total{{{own}, result="{value}"}}', scenario, hit=good, miss=bad),
    }


def _tiles(
    panel: str, *, each: Samples, overall: Samples, live: Samples | None = None
) -> dict[tuple[str, str], Samples]:
    """What a tile shows of enough events: of cache hits a verdict judges no single scenario of a test."""
    judged = [*(live or []), *overall]
    if panel == "Cache hit rate":
        return {(panel, "A"): judged, (panel, "B"): [], (panel, "C"): [], (panel, "D"): each}
    return {(panel, "A"): [*each, *judged], (panel, "B"): [], (panel, "C"): []}


def _users(clock: str) -> dict[str, str]:
    return {
        f'cmo_active_user_seconds_total{{job="cmo", instance="a", scenario="{TEST}"}}': "_x4 0+750x20",
        'cmo_active_user_clock_seconds_total{job="cmo", instance="a"}': clock,
    }


@pytest.mark.parametrize("clock", ["_x4 1000+15x20", "1000+15x24"], ids=["with-the-clock", "after-the-clock"])
def test_fifty_users_are_fifty_soon_after_they_came(
    promtool: servers.Server, tmp_path: Path, clock: str
) -> None:
    expected = {("Mean users at once", "A"): _is(50), ("Highest users held", "A"): _is(50)}
    _expect(promtool, tmp_path, _users(clock), expected, moments=("1m30s", *SOON, "4m"))


def test_half_is_half_though_only_one_of_the_counters_is_near_zero(
    promtool: servers.Server, tmp_path: Path
) -> None:
    series = _events(TEST, good="_x4 1000+100x20", bad="_x4 0+100x20")
    expected = {
        place: samples
        for panel in RATIOS
        for place, samples in {
            **_tiles(panel, each=_is(0.5), overall=_is(0.5, ALL_TESTS_LEGEND)),
            (f"{panel} over time", "A"): _is(0.5),
            (f"{panel} over time", "B"): _is(0.5, None),
        }.items()
    }
    beside = {("Answered within 2 s over time", "C"): _is(1.0)}
    _expect(promtool, tmp_path, series, {**expected, **beside})


def test_each_ratio_reads_the_events_of_its_own_objective(promtool: servers.Server, tmp_path: Path) -> None:
    ratios = {"cmo_queries": ("Success rate", 1), "cmo_query_d": ("Answered within 2 s", 4)}
    ratios["cmo_query_c"] = ("Cache hit rate", 9)
    series = {
        name: values
        for start, (_, good) in ratios.items()
        for name, values in _events(TEST, good=f"0+{good}00x24", bad="0+100x24").items()
        if name.startswith(start)
    }
    expected: dict[tuple[str, str], Samples] = {}
    for panel, good in ratios.values():
        share = good / (good + 1)
        expected |= _tiles(panel, each=_is(share), overall=_is(share, ALL_TESTS_LEGEND))
    _expect(promtool, tmp_path, series, expected)


def test_live_traffic_a_prober_and_idle_scenarios_are_no_part_of_all_tests(
    promtool: servers.Server, tmp_path: Path
) -> None:
    series = {
        **_events("live", good="0x24", bad="0+70x24"),
        **_events("probe", good="0+7x24", bad="0+7x24"),
        **_events("clinical_rush", good="0x24", bad="0x24"),
        **_events(TEST, good="0+30x24", bad="0+10x24"),
        **_events("academic_research", good="0+60x24", bad="0x24"),
    }
    each = [*_is(1.0, "academic_research"), *_is(0.75)]
    besides = [*_is(0.0, "live"), *_is(0.5, "probe")]
    expected: dict[tuple[str, str], Samples] = {}
    for panel in RATIOS:
        expected |= _tiles(panel, each=each, overall=_is(0.9, ALL_TESTS_LEGEND), live=_is(0.0, "live"))
        over_time = f"{panel} over time"
        expected |= {(over_time, "A"): [*each, *besides], (over_time, "B"): _is(0.9, None)}
    _expect(promtool, tmp_path, series, expected)


def test_without_traffic_or_without_rules_there_is_no_number(
    promtool: servers.Server, tmp_path: Path
) -> None:
    nothing: dict[tuple[str, str], Samples] = {place: [] for place in FROM_RULES}
    ratios = {place: samples for place, samples in nothing.items() if "users" not in place[0]}
    nobody = [*_is(NO_TRAFFIC, "live"), *_is(NO_TRAFFIC, ALL_TESTS_LEGEND)]
    ratios |= {(panel, "C"): nobody for panel in (*RATIOS, *OF_HEALTH)}
    idle = {**_events("live", "7x24", "0x24"), **_events(TEST, "1000x24", "0x24")}
    _expect(promtool, tmp_path, idle, ratios)
    busy = {**_events("live", "0+9x24", "0+1x24"), **_events(TEST, "0+9x24", "0+1x24"), **_users("0+15x24")}
    _expect(promtool, tmp_path, busy, nothing, rules=False)


def test_a_handful_of_events_is_shown_and_not_judged(promtool: servers.Server, tmp_path: Path) -> None:
    series = {**_events("live", "0+1x24", "0+1x24"), **_events(TEST, "0+1x24", "0+1x24")}
    few = [*_is(0.5, "live"), *_is(0.5, ALL_TESTS_LEGEND)]
    expected: dict[tuple[str, str], Samples] = {}
    for panel in RATIOS:
        expected |= _tiles(panel, each=[], overall=[])
        expected[panel, "B"] = few if panel == "Cache hit rate" else [*few, *_is(0.5)]
    expected["Cache hit rate", "D"] = _is(0.5)
    _expect(promtool, tmp_path, series, expected)


def test_every_ratio_and_users_read_recorded_series_alone() -> None:
    assert len(FROM_RULES) > 5 * len(RATIOS)
    for query in FROM_RULES.values():
        assert "increase(" not in query.expression
        assert "rate(" not in query.expression
        assert "cmo_queries_total{" not in query.expression
