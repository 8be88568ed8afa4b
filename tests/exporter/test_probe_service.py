"""The prober against the real reference service: what it sees and counts; users' figures are left alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from cmo_probe.asking import Service, trusted
from cmo_probe.canaries import default_file, load_canaries
from cmo_probe.metrics import ProbeMetrics
from cmo_probe.prober import ask_each_once
from cmo_stack.free_ports import free_port
from cmo_stack.process import ManagedProcess
from prometheus_client.parser import text_string_to_metric_families

from ..oracle.running import RunningService, Stub

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cmo_stack.servers import Server

CMO = Path(sys.executable).with_name("cmo")
NAMES = load_canaries(default_file()).names


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stub]:
    stub = Stub(tmp_path_factory.mktemp("upstream"))
    with stub.process:
        yield stub


@pytest.fixture(scope="module")
def service(upstream: Stub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    folder = tmp_path_factory.mktemp("service")
    service = RunningService(
        folder, upstream, upstream, index=folder / "index", scenarios=("academic_research", "probe")
    )
    with service.process:
        yield service


def _once(service: RunningService, *options: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [CMO, "probe", "--once", "--format", "json", "--url", f"{service.root}/query", *options],
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def _samples(url: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = requests.get(url, timeout=60).text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_shipped_canary_gets_its_answer(service: RunningService) -> None:
    status, report = _once(service)
    assert (status, report["version"]) == (0, 1), report
    assert [one["canary"] for one in report["canaries"]] == list(NAMES)
    for one in report["canaries"]:
        assert (one["result"], one["http_status"], one["trail_outcome"]) == ("success", 200, "success")
        assert set(one["connection_seconds"]) == {"dns", "connect"}
        assert 0 < one["first_byte_seconds"] <= one["seconds"]
        streamed = one["canary"].endswith("_streamed")
        assert (one["first_token_seconds"] is not None) == streamed
        if streamed:
            assert one["first_byte_seconds"] <= one["first_token_seconds"] <= one["seconds"]


def test_what_each_part_of_an_answer_took_is_exported(service: RunningService) -> None:
    metrics = ProbeMetrics(NAMES)
    read = metrics.registry.get_sample_value

    def summed(name: str, **labels: str) -> float:
        assert read(f"{name}_count", labels) == 1
        return read(f"{name}_sum", labels) or 0

    asked = Service(f"{service.root}/query", trusted(None), 60)
    for number, one in enumerate(ask_each_once(asked, load_canaries(default_file())), 1):
        canary, exchange = one.canary.name, one.exchange
        metrics.record(canary, one.result, exchange)
        first_byte = summed("cmo_probe_time_to_first_byte_seconds", canary=canary)
        outcome = "success" if one.succeeded else "failure"
        whole = summed("cmo_probe_duration_seconds", canary=canary, outcome=outcome)
        assert 0 < first_byte <= whole
        if canary.endswith("_streamed"):
            first_token = summed("cmo_probe_time_to_first_token_seconds", canary=canary)
            assert first_byte <= first_token <= whole
        else:
            assert read("cmo_probe_time_to_first_token_seconds_count", {"canary": canary}) == 0
        for step in ("dns", "connect"):
            assert read("cmo_probe_connection_seconds_count", {"step": step}) == number
            assert (read("cmo_probe_connection_seconds_sum", {"step": step}) or 0) > 0


def test_a_fresh_question_is_never_answered_by_a_cache(service: RunningService) -> None:
    _once(service)
    _, again = _once(service)
    sources = {one["canary"]: one["trail_source"] for one in again["canaries"]}
    assert sources == {
        "popular": "cache",
        "fresh": "lightrag",
        "popular_streamed": "cache",
        "fresh_streamed": "lightrag",
    }


def test_canaries_are_counted_under_a_scenario_of_their_own_and_are_no_users(
    service: RunningService, eventually: Callable[[Callable[[], object]], None]
) -> None:
    def counted(scenario: str) -> float:
        samples = _samples(f"http://127.0.0.1:{service.metrics_port}/metrics")
        return sum(
            value
            for (name, labels), value in samples.items()
            if name == "cmo_queries_total" and ("scenario", scenario) in labels
        )

    before, live = counted("probe"), counted("live")
    _once(service)
    eventually(lambda: counted("probe") == before + len(NAMES))
    assert counted("live") == live
    _once(service, "--scenario", "")
    eventually(lambda: counted("live") == live + len(NAMES))
    samples = _samples(f"http://127.0.0.1:{service.metrics_port}/metrics")
    users = [value for (name, _), value in samples.items() if name == "cmo_active_user_seconds_total"]
    assert users
    assert not any(users)


def test_an_outage_behind_the_service_is_an_apology_whatever_the_status(
    service: RunningService, upstream: Stub
) -> None:
    upstream.fail("error")
    try:
        status, report = _once(service)
    finally:
        upstream.fail(None)
    assert status == 1
    fresh = [one for one in report["canaries"] if one["canary"].startswith("fresh")]
    assert [(one["result"], one["http_status"]) for one in fresh] == [("apology", 200)] * 2


class _Prober:
    """`cmo probe` as a process."""

    def __init__(self, folder: Path, url: str, *options: str) -> None:
        self.port = free_port()
        self.metrics = f"http://127.0.0.1:{self.port}/metrics"
        self.log = folder / "probe.log"
        self.process = ManagedProcess(
            "prober",
            [
                str(CMO),
                "probe",
                "--url",
                url,
                "--metrics-port",
                str(self.port),
                "--interval",
                "0.05",
                *options,
            ],
            log_path=self.log,
            ready=self._serves,
        )

    def _serves(self) -> bool:
        try:
            return requests.get(self.metrics, timeout=5).ok
        except requests.ConnectionError:
            return False


def test_it_runs_until_ctrl_c_and_a_real_prometheus_reads_it(
    service: RunningService,
    newest_prometheus: Server,
    tmp_path: Path,
    eventually: Callable[[Callable[[], object]], None],
) -> None:
    prober = _Prober(tmp_path, f"{service.root}/query")
    with prober.process, _prometheus(newest_prometheus, tmp_path, prober.port) as api:
        eventually(lambda: _value(api, 'count(cmo_probe_up{job="probe"} == 1)') == len(NAMES))
        eventually(lambda: (_value(api, 'sum(cmo_probe_results_total{result="success"})') or 0) >= len(NAMES))
        good = 'sum(cmo_probe_duration_seconds_bucket{le="2.0", outcome="success"})'
        assert (_value(api, good) or 0) > 0
        assert _value(api, "min(time() - cmo_probe_last_success_timestamp_seconds)") is not None
        service.process.stop()
        try:
            eventually(lambda: _value(api, "max(cmo_probe_up)") == 0)
            assert (_value(api, 'sum(cmo_probe_results_total{result=~"refused|truncated"})') or 0) > 0
        finally:
            service.process.start()
        eventually(lambda: _value(api, "min(cmo_probe_up)") == 1)
        pid = prober.process.pid
        os.kill(pid, signal.SIGINT)
        eventually(lambda: not prober.process.running)
    log = prober.log.read_text()
    failures = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert {"refused"} <= {one["result"] for one in failures}
    assert all(one["event"] == "probe_failed" for one in failures)
    assert log.splitlines()[-1] == "cmo: interrupted"
    for canary in load_canaries(default_file()).canaries:
        assert canary.question not in log


class _prometheus:  # noqa: N801 - used as a function
    def __init__(self, server: Server, folder: Path, target: int) -> None:
        self._port = free_port()
        config = folder / "prometheus.yml"
        config.write_text(
            "global: {scrape_interval: 200ms, scrape_timeout: 200ms}\n"
            f"scrape_configs: [{{job_name: probe, static_configs: [{{targets: ['127.0.0.1:{target}']}}]}}]\n"
        )
        self._process = ManagedProcess(
            server.label,
            [
                str(server.path),
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{self._port}",
            ],
            log_path=folder / "prometheus.log",
            ready=self._ready,
            environment=server.environment,
        )

    def _ready(self) -> bool:
        try:
            return requests.get(f"http://127.0.0.1:{self._port}/-/ready", timeout=5).ok
        except requests.ConnectionError:
            return False

    def __enter__(self) -> str:
        self._process.start()
        return f"http://127.0.0.1:{self._port}/api/v1/query"

    def __exit__(self, *_: object) -> None:
        self._process.stop()


def _value(api: str, query: str) -> float | None:
    answer = requests.get(api, params={"query": query, "time": str(time.time())}, timeout=60).json()
    assert answer["status"] == "success", answer
    found = answer["data"]["result"]
    return float(found[0]["value"][1]) if found else None
