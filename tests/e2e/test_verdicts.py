"""The verdict on the criticised settings, and every way in which a run cannot be judged."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from cmo_loadtest.scenarios import SCENARIOS
from cmo_slo.objectives import find_objectives
from cmo_stack import health
from cmo_stack.free_ports import free_port

from .conftest import another_prometheus, check, drive, query, running_stack, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from cmo_stack.stack import Stack

    from .conftest import RecordedRun

TIMES = ("start", "end", "held_start", "held_end")
A_DAY_SECONDS = 86_400.0


def test_the_criticised_settings_are_non_compliant_in_all_scenarios_but_one_at_most(
    report_run: RecordedRun,
) -> None:
    answer = check(
        "--prometheus-url",
        report_run.prometheus_urls["1s"],
        "--run",
        report_run.directory,
        "--format",
        "json",
    )
    assert answer.status == 1, answer.stderr
    assert answer.verdict["verdict"] == "NON-COMPLIANT"
    failed = {
        unit["scope"]
        for objective in answer.verdict["objectives"]
        if objective["key"]
        for unit in objective["units"]
        if unit["status"] == "FAIL"
    }
    # A breaker that opens early in a scenario sends all the rest to Perplexity, which is quick.
    assert len(set(SCENARIOS) - failed) <= 1
    assert "overall" in failed


def test_the_causes_are_visible_in_the_metrics(report_run: RecordedRun) -> None:
    url = report_run.prometheus_urls["1s"]
    for cause, expression in {
        "LightRAG calls time out": 'sum(cmo_component_calls_total{component="lightrag",outcome="timeout"})',
        "the breaker opens": 'sum(cmo_circuit_breaker_transitions_total{component="lightrag",state="open"})',
        "the breaker refuses calls": 'sum(cmo_circuit_breaker_rejections_total{component="lightrag"})',
        "the first tier is too small": 'sum(cmo_cache_evictions_total{tier="l1"})',
        "model calls queue": 'sum(cmo_queue_wait_seconds_sum{component="llm"})',
        "queries end in an apology": 'sum(cmo_fallbacks_total{target="default"})',
    }.items():
        values = [float(series["value"][1]) for series in query(url, expression)]
        assert values, cause
        assert values[0] > 0, cause
    retries = query(url, "sum(cmo_retries_total)")
    assert float(retries[0]["value"][1]) == 0, "the criticised settings retry nothing"


def test_recorded_events_give_the_same_ratios_as_the_checker(report_run: RecordedRun) -> None:
    """Over the run's scenarios, events recorded by the rules divide to what the checker counted."""
    url = report_run.prometheus_urls["1s"]
    verdict = check("--prometheus-url", url, "--run", report_run.directory, "--format", "json").verdict
    scopes = {"success": [*SCENARIOS], "within_2s": [*SCENARIOS]}
    for objective in verdict["objectives"]:
        for unit in objective["units"]:
            if unit["scope"] in scopes.get(objective["name"], ()):
                selector = f'objective="{objective["name"]}",scenario="{unit["scope"]}"'
                recorded = {
                    kind: query(
                        url, f"sum(sum_over_time(scenario:slo_{kind}_events:increase{{{selector}}}[30m]))"
                    )
                    for kind in ("good", "total")
                }
                good, total = (float(recorded[kind][0]["value"][1]) for kind in ("good", "total"))
                assert (good, total) == (unit["good"], unit["total"]), (objective["name"], unit["scope"])


def test_no_prometheus_is_a_data_source_that_cannot_be_read(report_run: RecordedRun) -> None:
    port = free_port()
    answer = check("--prometheus-url", f"http://{health.LOOPBACK}:{port}", "--run", report_run.directory)
    assert answer.status == 4
    assert str(port) in answer.stderr
    assert "Traceback" not in answer.stderr


def test_the_service_in_prometheus_place_is_not_a_prometheus(report_run: RecordedRun) -> None:
    answer = check("--prometheus-url", report_run.service_url, "--run", report_run.directory)
    assert answer.status == 4
    assert "Prometheus" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_prometheus_that_saw_nothing_proves_nothing_and_a_stopped_one_cannot_be_read(
    report_run: RecordedRun,
) -> None:
    with another_prometheus(report_run.stack, 1) as url:
        empty = check("--prometheus-url", url, "--run", report_run.directory, "--wait", "0")
    stopped = check("--prometheus-url", url, "--run", report_run.directory)
    assert empty.status == 2, empty.stdout
    assert "PASS" not in empty.stdout
    assert stopped.status == 4


def test_a_window_before_the_data_proves_nothing(report_run: RecordedRun, tmp_path: Path) -> None:
    manifest = json.loads((report_run.directory / "manifest.json").read_text())
    for part in (manifest, *manifest["scenarios"]):
        part.update({name: part[name] - A_DAY_SECONDS for name in TIMES if name in part})
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    answer = check("--prometheus-url", report_run.prometheus_urls["1s"], "--run", tmp_path, "--wait", "0")
    assert answer.status == 2, answer.stderr
    assert answer.stdout.startswith("INCONCLUSIVE")


def test_a_typo_in_the_objectives_is_told_with_its_line(report_run: RecordedRun, tmp_path: Path) -> None:
    objectives = tmp_path / "objectives.yml"
    objectives.write_text(find_objectives("cmo-015").read_text().replace("target: 0.70", "traget: 0.70"))
    source = ("--prometheus-url", report_run.prometheus_urls["1s"], "--run", report_run.directory)
    answer = check(*source, "--objectives", objectives)
    assert answer.status == 3
    assert answer.stdout == ""
    assert "traget" in answer.stderr
    line = 1 + objectives.read_text().splitlines().index("    traget: 0.70")
    assert f"{objectives}:{line}:" in answer.stderr


def test_a_wrong_flag_is_wrong_usage_and_no_verdict(report_run: RecordedRun) -> None:
    answer = check("--run", report_run.directory, "--objectve", "cmo-015")
    assert (answer.status, answer.stdout) == (3, "")
    assert "--objective" in answer.stderr


def test_a_restart_in_mid_scenario_is_inconclusive_and_a_catastrophe(
    tmp_path: Path, index_directory: Path
) -> None:
    scenario = "clinical_rush"
    with running_stack(tmp_path / "stack", index_directory, "healthy") as stack:
        # The load in the thread, not the crash: a process dies with the thread that started it.
        with ThreadPoolExecutor(1) as pool:
            load = pool.submit(drive, stack, tmp_path / "runs", [scenario])
            _crash_and_restart_half_way(stack, scenario)
            run = load.result()
        source = ("--prometheus-url", _prometheus(stack), "--run", run)
        answer = check(*source, "--scenario", scenario, "--format", "json")
        text = check(*source, "--scenario", scenario)
    assert answer.status == 2, answer.stderr
    statuses = {
        objective["name"]: {unit["status"] for unit in objective["units"]}
        for objective in answer.verdict["objectives"]
    }
    assert statuses["no_catastrophic_failure"] == {"FAIL"}, text.stdout
    assert statuses["success"] == {"INCONCLUSIVE"}
    assert "PASS" not in statuses["within_2s"] | statuses["cache_hits"]
    assert text.status == 2
    assert "started anew" in text.stdout or "restart" in text.stdout


def _crash_and_restart_half_way(stack: Stack, scenario: str) -> None:
    url = _prometheus(stack)
    half = SCENARIOS[scenario].operations // 2

    def half_done() -> bool:
        finished = query(url, f'sum(cmo_queries_total{{scenario="{scenario}"}})')
        return bool(finished) and float(finished[0]["value"][1]) >= half

    wait_until("half of the operations", half_done)
    service = stack.process("service")
    service.kill()
    service.start()


def _prometheus(stack: Stack) -> str:
    return f"http://{health.LOOPBACK}:{stack.settings.ports.prometheus}"
