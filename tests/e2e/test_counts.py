"""The checker's counts against records that the exporter has no part in: to the operation, at 1 s and 5 s."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from cmo_loadtest.scenarios import SCENARIOS
from cmo_stack import topology

from . import ground_truth
from .conftest import check

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import RecordedRun

INTERVALS = ("1s", "5s")

# Two clocks read around the same await may lie this far apart where a thread switch falls between them.
TIMER_BAND_SECONDS = 0.05
# A client measures later than the service: the connection and its own scheduling come on top.
CLIENT_BAND_SECONDS = 1.0


@pytest.fixture(scope="module")
def counts(report_run: RecordedRun) -> dict[str, dict[str, Any]]:
    """The checker's counts by scrape interval and scenario."""
    return {interval: _counts(report_run, interval, report_run.directory) for interval in INTERVALS}


@pytest.fixture(scope="module")
def operations(report_run: RecordedRun) -> list[ground_truth.Operation]:
    """Every operation of the run, as the load test recorded it."""
    return ground_truth.read_operations(report_run.directory)


def test_the_load_was_what_was_asked_for(operations: list[ground_truth.Operation]) -> None:
    for name, scenario in SCENARIOS.items():
        assert sum(one.scenario == name for one in operations) == scenario.operations
    assert len({one.id for one in operations}) == len(operations)


@pytest.mark.parametrize("interval", INTERVALS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_counts_equal_the_records_to_the_operation(
    counts: dict[str, dict[str, Any]], operations: list[ground_truth.Operation], interval: str, scenario: str
) -> None:
    counted = counts[interval][scenario]
    assert counted["exact"], counted["problems"]
    assert counted["started"] == SCENARIOS[scenario].operations
    assert _occurred(counted["queries"]) == ground_truth.outcomes(operations, scenario)
    assert _occurred(counted["answers"]) == ground_truth.sources(operations, scenario)
    assert _occurred(counted["query_cache_results"]) == ground_truth.cache_results(operations, scenario)
    looked_up = {tier: _occurred(results) for tier, results in counted["cache_requests"].items()}
    tiers = {tier: results for tier, results in looked_up.items() if results}
    assert tiers == ground_truth.tier_results(operations, scenario)
    fallbacks = {
        (one["source"], one["target"], one["reason"]): one["count"]
        for one in counted["fallbacks"]
        if one["count"]
    }
    assert fallbacks == ground_truth.fallbacks(operations, scenario)


@pytest.mark.parametrize("interval", INTERVALS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_within_two_seconds_equals_the_independent_timer(
    report_run: RecordedRun,
    counts: dict[str, dict[str, Any]],
    operations: list[ground_truth.Operation],
    interval: str,
    scenario: str,
) -> None:
    seconds = ground_truth.read_service_durations(topology.timing_log(report_run.stack.settings))
    succeeded = [one for one in operations if one.scenario == scenario and one.outcome == "success"]
    straddling = [one.id for one in succeeded if abs(seconds[one.id] - 2.0) <= TIMER_BAND_SECONDS]
    surely_within = sum(seconds[one.id] <= 2.0 for one in succeeded if one.id not in straddling)
    counted = counts[interval][scenario]["within_threshold"]["success"]
    assert surely_within <= counted <= surely_within + len(straddling), straddling
    if not straddling:
        assert counted == surely_within


def test_clients_saw_the_same_but_for_operations_that_straddle(
    report_run: RecordedRun, operations: list[ground_truth.Operation]
) -> None:
    seconds = ground_truth.read_service_durations(topology.timing_log(report_run.stack.settings))
    differing = {
        one.id: (seconds[one.id], one.latency_seconds)
        for one in operations
        if (seconds[one.id] <= 2.0) != (one.latency_seconds <= 2.0)
    }
    outside = {
        id_: pair
        for id_, pair in differing.items()
        if not 2.0 - CLIENT_BAND_SECONDS <= pair[0] <= 2.0 < pair[1] <= 2.0 + CLIENT_BAND_SECONDS
    }
    assert not outside, f"not explained by the client being later: {outside}; straddling: {differing}"


def test_falsified_records_move_no_count(report_run: RecordedRun, tmp_path: Path) -> None:
    forged = tmp_path / "forged"
    shutil.copytree(report_run.directory, forged)
    manifest = json.loads((forged / "manifest.json").read_text())
    for truth in manifest["ground_truth"]["scenarios"].values():
        truth.update(operations=1, outcomes={"success": 1}, sources={"cache": 1}, within_2s=1)
    (forged / "manifest.json").write_text(json.dumps(manifest))
    rows = [json.loads(line) for line in (forged / "operations.jsonl").read_text().splitlines()]
    lies = [{**row, "outcome": "success", "latency_seconds": 0.001} for row in rows[: len(rows) // 2]]
    (forged / "operations.jsonl").write_text("\n".join(map(json.dumps, lies)))
    assert _counts(report_run, "1s", forged) == _counts(report_run, "1s", report_run.directory)


def _counts(run: RecordedRun, interval: str, directory: Path) -> dict[str, Any]:
    url = run.prometheus_urls[interval]
    answer = check("--prometheus-url", url, "--run", directory, "--format", "json", "--quiet")
    assert answer.status == 1, answer.stderr
    counted: dict[str, Any] = answer.verdict["counts"]
    return {name: _without_provenance(scenario) for name, scenario in counted.items()}


def _without_provenance(scenario: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in scenario.items() if name != "provenance"}


def _occurred(counts: dict[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}
