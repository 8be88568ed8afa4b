"""The verdict on ample settings, on its merit, and that of a run in which the service was started anew.

Each has a stack of its own, after those of the pages: what is well should be let alone to show it.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from cmo_loadtest.scenarios import SCENARIOS
from cmo_stack import health

from .conftest import check, drive, query, running_stack, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from cmo_stack.stack import Stack

MOST_ATTEMPTS = 3


def test_ample_settings_and_a_calm_upstream_are_compliant(tmp_path: Path, index_directory: Path) -> None:
    with running_stack(tmp_path / "stack", index_directory, "healthy") as stack:
        # A machine that others use may stand still for seconds; what was asked meanwhile was answered late,
        # and the verdict says so. That proves nothing about a service that is well, so it is asked again.
        for attempt in range(MOST_ATTEMPTS):
            run = drive(stack, tmp_path / f"runs-{attempt}", list(SCENARIOS))
            answer = check(
                "--prometheus-url",
                _prometheus(stack),
                "--run",
                run,
                "--format",
                "json",
                "--format",
                f"text:{tmp_path / 'verdict.txt'}",
            )
            if answer.status != 1:
                break
    assert answer.status == 0, (tmp_path / "verdict.txt").read_text()
    assert answer.verdict["verdict"] == "COMPLIANT"


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
