"""`cmo check` against real Prometheus servers: verdicts, exit statuses and what a person is told."""

from __future__ import annotations

import importlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cmo_stack import cli

from .exposition import Answers, Drive, Running, Service, prometheus, until

SCENARIOS = ("academic_research", "clinical_rush")
jsonschema: Any = importlib.import_module("jsonschema")  # which ships no types
ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "docs/verdict-schema.json").read_text())

if TYPE_CHECKING:
    from cmo_stack.servers import Server

GOOD = {"success": 118, "error": 2}
Captured = pytest.CaptureFixture[str]


def run(arguments: list[str], captured: Captured) -> tuple[int, str, str]:
    captured.readouterr()
    status = cli.run(["check", *arguments])
    out, err = captured.readouterr()
    assert "Traceback" not in out + err
    return status, out, err


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CMO-015 for two of its scenarios, because every scenario of a test takes seconds."""
    text = (ROOT / "slo_rules/objectives/cmo-015.yml").read_text()
    line = next(line for line in text.splitlines() if line.startswith("scenarios:"))
    file = tmp_path_factory.mktemp("objectives") / "two.yml"
    file.write_text(text.replace(line, f"scenarios: [{', '.join(SCENARIOS)}]"))
    return file


@pytest.fixture(autouse=True)
def objectives(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CMO_OBJECTIVES", str(two))


def judged(running: Running, manifest: Path, captured: Captured, *more: str) -> tuple[int, dict[str, Any]]:
    arguments = ["--run", str(manifest), "--prometheus-url", running.url, "--format", "json", *more]
    status, out, _ = run(arguments, captured)
    document: dict[str, Any] = json.loads(out)
    assert document["exit_status"] == status
    return status, document


def statuses(document: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {
        one["name"]: {unit["scope"]: unit["status"] for unit in one["units"]}
        for one in document["objectives"]
    }


@pytest.fixture
def old_manifest(tmp_path: Path) -> Path:
    """A run of two hours ago."""
    with Service(SCENARIOS) as service:
        drive = Drive(service)
        for n, name in enumerate(SCENARIOS):
            start = time.time() - 7200 + 20 * n
            drive.note(name, start, start + 15, operations=120)
    return drive.manifest(tmp_path / "old")


@dataclass
class Stage:
    """One Prometheus that scrapes one service in two jobs, and another service that was used before."""

    service: Service
    running: Running
    folder: Path
    captured: Captured

    def driven(self, *scenarios: str, outcomes: dict[str, int], **more: Any) -> Path:
        drive = Drive(self.service)
        for name in scenarios:
            drive.scenario(name, outcomes, **more)
        return drive.manifest(self.folder / str(len(list(self.folder.iterdir()))))

    def judged(self, manifest: Path, *more: str) -> tuple[int, dict[str, Any]]:
        return judged(self.running, manifest, self.captured, *more)


def test_verdicts_on_a_real_server(
    prometheus_server: Server, tmp_path: Path, capsys: Captured, old_manifest: Path
) -> None:
    """One server holds several promises at once, because each server and each run takes seconds."""
    with Service(SCENARIOS, jobs=2) as service, Service(SCENARIOS[:1]) as early:
        before_data = used_before_it_is_scraped(early, tmp_path / "early")
        jobs = {"cmo": [service.address], "cmo-again": [service.address], "early": [early.address]}
        with prometheus(prometheus_server, tmp_path / "prometheus", jobs) as running:
            for job in jobs:
                running.stored(8, job)
            stage = Stage(service, running, tmp_path, capsys)
            compliant = a_compliant_run(stage)
            one_target_in_two_jobs(stage, compliant)
            a_window_before_the_data(stage, old_manifest)
            a_service_not_scraped_before_its_run(stage, before_data)
            a_failing_run(stage)
            a_restart_in_the_middle(stage)


def used_before_it_is_scraped(early: Service, folder: Path) -> Path:
    start = early.process.born
    until(lambda: time.time() > start + 2.0, "a run that is long after the service was started")
    for _ in range(200):
        early.process.ask(SCENARIOS[0])
    drive = Drive(early)
    drive.note(SCENARIOS[0], start + 1.5, time.time(), operations=200)
    return drive.manifest(folder)


def a_compliant_run(stage: Stage) -> Path:
    manifest = stage.driven(*SCENARIOS, outcomes=GOOD)
    status, document = stage.judged(manifest)
    assert document["problems"] == []
    assert (status, document["verdict"]) == (0, "COMPLIANT"), document
    for name in SCENARIOS:
        queries = document["counts"][name]["queries"]
        assert queries == {"success": 118, "error": 2, "timeout": 0, "rejected": 0, "cancelled": 0}
    jsonschema.validate(document, SCHEMA)
    results_are_never_read(stage, manifest, document)
    text = run(["--run", str(manifest), "--prometheus-url", stage.running.url], stage.captured)[1]
    assert text.startswith("COMPLIANT  CMO-LIGHTRAG-015")
    assert max(map(len, text.splitlines())) <= 110
    return manifest


def results_are_never_read(stage: Stage, manifest: Path, document: dict[str, Any]) -> None:
    falsified = json.loads(manifest.read_text())
    falsified["ground_truth"] = {"scenarios": {name: {"operations": 1} for name in SCENARIOS}}
    manifest.write_text(json.dumps(falsified))
    again = stage.judged(manifest)[1]
    for name in SCENARIOS:
        for field in ("exact", "queries", "answers", "query_cache_results", "within_threshold"):
            assert again["counts"][name][field] == document["counts"][name][field]


def one_target_in_two_jobs(stage: Stage, manifest: Path) -> None:
    status, document = stage.judged(manifest, "--selector", '{job=~"cmo.*"}')
    assert status == 2
    assert "differ in job (cmo / cmo-again)" in document["problems"][0]


def a_window_before_the_data(stage: Stage, manifest: Path) -> None:
    status, document = stage.judged(manifest)
    assert (status, document["verdict"]) == (2, "INCONCLUSIVE")
    assert "not one sample from the time of the run" in document["problems"][0]


def a_service_not_scraped_before_its_run(stage: Stage, manifest: Path) -> None:
    status, document = stage.judged(manifest, "--scenario", SCENARIOS[0], "--job", "early")
    assert status == 2
    assert "was not scraped before academic_research began" in document["counts"][SCENARIOS[0]]["problems"][0]
    assert document["partial"] is True


def a_failing_run(stage: Stage) -> None:
    manifest = stage.driven("clinical_rush", outcomes={"success": 110, "error": 10}, slow=10)
    status, document = stage.judged(manifest, "--scenario", "clinical_rush")
    assert (status, document["verdict"]) == (1, "NON-COMPLIANT")
    assert set(statuses(document)["success"].values()) == {"FAIL"}
    assert document["counts"]["clinical_rush"]["within_threshold"]["success"] == 100
    assert statuses(document)["cache_hits"] == {"overall": "PASS"}


def a_restart_in_the_middle(stage: Stage) -> None:
    failing = {"success": 100, "error": 20}
    manifest = stage.driven(*SCENARIOS, outcomes=failing, middle=stage.service.restart)
    status, document = stage.judged(manifest)
    assert (status, document["verdict"]) == (2, "INCONCLUSIVE"), document
    found = statuses(document)
    assert set(found.pop("no_catastrophic_failure").values()) == {"FAIL"}
    for name, scopes in found.items():
        assert set(scopes.values()) == {"INCONCLUSIVE"}, name
    assert "during the run" in document["problems"][0]


def test_an_empty_prometheus_and_a_stopped_one(
    prometheus_server: Server, tmp_path: Path, capsys: Captured, old_manifest: Path
) -> None:
    with prometheus(prometheus_server, tmp_path, {}) as p:
        status, document = judged(p, old_manifest, capsys)
        assert (status, document["verdict"]) == (2, "INCONCLUSIVE")
        assert "not one sample from the time of the run" in document["problems"][0]
    status, out, err = run(["--run", str(old_manifest), "--prometheus-url", p.url], capsys)
    assert (status, out) == (4, "")
    assert "connection refused" in err
    assert "Is Prometheus running there?" in err


def test_another_server_on_the_port(tmp_path: Path, capsys: Captured, old_manifest: Path) -> None:
    with Answers().serve() as url:
        status, out, err = run(["--run", str(old_manifest), "--prometheus-url", url], capsys)
    assert (status, out) == (4, "")
    assert "is not Prometheus: it answers HTTP 200 with text/html" in err
