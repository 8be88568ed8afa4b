"""The compiled rules on a real Prometheus, in every version there is, scraping counters that the test drives.

One run a version holds several promises at once, because each needs a Prometheus, an Alertmanager and some
seconds: recorded events equal the truth, the page fires, the page resolves.
"""

from __future__ import annotations

import http.server
import json
import math
import threading
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
import yaml
from cmo_exporter import catalogue
from cmo_slo import recorded
from cmo_stack import servers
from cmo_stack.free_ports import free_port
from cmo_stack.process import ManagedProcess
from prometheus_client import CollectorRegistry, Gauge, Histogram, start_http_server
from prometheus_client import Counter as EventCounter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_SECONDS = 120.0
ANSWER_SECONDS = 0.025  # so that a run spans several scrapes
Sum = tuple[str, str]  # an objective, and which of its events
SCENARIOS = (catalogue.LIVE, "academic_research", "clinical_rush")


def wait_for(what: str, condition: Callable[[], Any]) -> Any:
    """Ask again and again until the answer is true."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        answer = condition()
        if answer:
            return answer
        time.sleep(0.1)
    raise AssertionError(f"not within {DEADLINE_SECONDS:g} s: {what}")


class Service:
    """What a CMO exposes of its queries, driven by the test, with every label set at 0 from the start."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.queries = EventCounter(
            "cmo_queries", "Queries.", ["scenario", "outcome"], registry=self.registry
        )
        self.durations = Histogram(
            "cmo_query_duration_seconds",
            "Durations.",
            ["scenario", "outcome"],
            buckets=catalogue.DURATION_BUCKETS_SECONDS,
            registry=self.registry,
        )
        self.users = EventCounter("cmo_active_user_seconds", "Users.", ["scenario"], registry=self.registry)
        self.clock = EventCounter("cmo_active_user_clock_seconds", "Clock.", registry=self.registry)
        start = Gauge("cmo_worker_start_time_seconds", "Start.", ["worker"], registry=self.registry)
        start.labels("0").set(time.time())
        for scenario in SCENARIOS:
            self.users.labels(scenario)
            for outcome in catalogue.QUERY_OUTCOMES:
                self.queries.labels(scenario, outcome)
            for outcome in catalogue.DURATION_OUTCOMES:
                self.durations.labels(scenario, outcome)
        self.server, self.thread = start_http_server(0, addr="127.0.0.1", registry=self.registry)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.server_port}"

    def ask(self, scenario: str, outcome: str, seconds: float) -> None:
        self.queries.labels(scenario, outcome).inc()
        kind = outcome if outcome in catalogue.DURATION_OUTCOMES else "failure"
        self.durations.labels(scenario, kind).observe(seconds)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@dataclass
class Pager:
    """A webhook receiver that keeps what it was sent."""

    messages: list[dict[str, Any]] = field(default_factory=list)

    def start(self) -> http.server.ThreadingHTTPServer:
        messages = self.messages

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.end_headers()

            def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
                del code, size  # a test has nobody to log to

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server


@dataclass
class Stack:
    service: Service
    pager: Pager
    url: str

    def query(self, expression: str) -> list[dict[str, Any]]:
        answer = requests.get(f"{self.url}/api/v1/query", params={"query": expression}, timeout=10).json()
        assert answer["status"] == "success", answer
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def value(self, expression: str) -> float | None:
        result = self.query(expression)
        assert len(result) <= 1, result
        return float(result[0]["value"][1]) if result else None

    def events(self, series: str, objective: str, scenario: str) -> float | None:
        return self.value(f'sum_over_time({series}{{objective="{objective}",scenario="{scenario}"}}[10m])')

    def wait_for_events(self, objective: str, scenario: str, truth: Counter[Sum]) -> None:
        """Wait until as many events have been recorded as have happened."""
        wanted = truth[objective, recorded.TOTAL_EVENTS]
        wait_for(
            f"{wanted} events of {scenario}",
            lambda: self.events(recorded.TOTAL_EVENTS, objective, scenario) == wanted,
        )

    def ask_until(self, status: str, outcome: str) -> None:
        """Ask live queries of one outcome until the pager has been told of a status."""

        def told() -> bool:
            for _ in range(4):
                self.service.ask(catalogue.LIVE, outcome, 0.2)
            return any(message["status"] == status for message in self.pager.messages)

        wait_for(f"the pager being told: {status}", told)


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=1).ok
    except requests.RequestException:
        return False


def start_alertmanager(stack: ExitStack, pager_port: int, tmp_path: Path) -> int:
    server, port = servers.newest("alertmanager"), free_port()
    config = yaml.safe_load((ROOT / "alertmanager/alertmanager.yml").read_text())
    config["receivers"][0]["webhook_configs"][0]["url"] = f"http://127.0.0.1:{pager_port}/alerts"
    config["templates"] = [str(ROOT / "alertmanager/templates/*.tmpl")]
    (tmp_path / "alertmanager.yml").write_text(yaml.safe_dump(config))
    command = [
        str(server.path),
        f"--config.file={tmp_path / 'alertmanager.yml'}",
        f"--storage.path={tmp_path / 'alertmanager'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    stack.enter_context(
        ManagedProcess(
            server.label,
            command,
            log_path=tmp_path / "alertmanager.log",
            ready=lambda: answers(f"http://127.0.0.1:{port}/-/ready"),
            environment=server.environment,
        )
    )
    return port


def start_prometheus(
    stack: ExitStack, server: servers.Server, target: str, alertmanager_port: int, tmp_path: Path
) -> str:
    port = free_port()
    config = yaml.safe_load((ROOT / "prometheus/prometheus.yml").read_text())
    config["global"] |= {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(ROOT / "slo_rules/rules/cmo-015-1s.yml")]
    config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [
        f"127.0.0.1:{alertmanager_port}"
    ]
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [target]
    config["scrape_configs"][1]["static_configs"][0]["targets"] = [f"127.0.0.1:{port}"]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = [
        str(server.path),
        f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    url = f"http://127.0.0.1:{port}"
    stack.enter_context(
        ManagedProcess(
            server.label,
            command,
            log_path=tmp_path / "prometheus.log",
            ready=lambda: answers(f"{url}/-/ready"),
            environment=server.environment,
        )
    )
    return url


@pytest.fixture
def stack(prometheus_server: servers.Server, tmp_path: Path) -> Iterator[Stack]:
    with ExitStack() as exit_stack:
        pager = Pager()
        webhook = pager.start()
        exit_stack.callback(webhook.server_close)
        exit_stack.callback(webhook.shutdown)
        alertmanager_port = start_alertmanager(exit_stack, webhook.server_port, tmp_path)
        service = Service()
        exit_stack.callback(service.close)
        url = start_prometheus(exit_stack, prometheus_server, service.address, alertmanager_port, tmp_path)
        yield Stack(service, pager, url)


def drive(service: Service, scenario: str, rounds: int) -> Counter[Sum]:
    """Ask over several scrapes, some failing, some slow, some leaving; returns what really happened."""
    truth: Counter[Sum] = Counter()
    for index in range(rounds):
        outcome = ("success", "success", "success", "error", "cancelled", "success", "timeout")[index % 7]
        seconds = (0.1, 1.9, 2.0, 2.2)[index % 4]
        service.ask(scenario, outcome, seconds)
        within = seconds <= 2.0
        truth["success", recorded.GOOD_EVENTS] += outcome == "success"
        truth["success", recorded.TOTAL_EVENTS] += outcome != "cancelled"
        truth["within_2s", recorded.GOOD_EVENTS] += outcome == "success" and within
        truth["within_2s", recorded.TOTAL_EVENTS] += not (outcome == "cancelled" and within)
        time.sleep(ANSWER_SECONDS)
    return truth


def assert_recorded(stack: Stack, scenario: str, truth: Counter[Sum]) -> None:
    """All that has happened in a scenario has been recorded, and nothing twice."""
    for (objective, series), count in truth.items():
        assert stack.events(series, objective, scenario) == count, (objective, series, scenario)
    good = truth["success", recorded.GOOD_EVENTS] / truth["success", recorded.TOTAL_EVENTS]
    own = f'{{objective="success",scenario="{scenario}"}}[10m]'
    ratio = stack.value(
        f"sum_over_time({recorded.GOOD_EVENTS}{own}) / (sum_over_time({recorded.TOTAL_EVENTS}{own}) > 0)"
    )
    assert ratio == pytest.approx(good, abs=1e-9)


def test_recorded_events_equal_the_truth_and_the_page_comes_and_goes(stack: Stack) -> None:
    service = stack.service
    # Two runs of one scenario; the first begins whether Prometheus has scraped the service yet or not.
    truth = {"academic_research": drive(service, "academic_research", 41)}
    stack.wait_for_events("success", "academic_research", truth["academic_research"])
    for scenario in ("academic_research", "clinical_rush"):
        truth[scenario] = truth.get(scenario, Counter()) + drive(service, scenario, 97)
    for scenario, counts in truth.items():
        stack.wait_for_events("success", scenario, counts)

    # An idle scenario records zero events, and nothing anywhere is NaN or infinite.
    assert stack.events(recorded.TOTAL_EVENTS, "success", catalogue.LIVE) == 0
    samples = stack.query(f'{{__name__=~"{"|".join(recorded.AGGREGATED)}"}}[10m]')
    assert {series["metric"]["__name__"] for series in samples} >= {recorded.TOTAL_EVENTS, recorded.TARGET}
    assert all(math.isfinite(float(value)) for series in samples for _, value in series["values"])
    assert stack.value(f'{recorded.TARGET}{{objective="success"}}') == 0.95
    assert stack.query("ALERTS") == []
    assert stack.pager.messages == []

    stack.ask_until("firing", "error")
    (page,) = stack.pager.messages[0]["alerts"]
    assert page["labels"] == {
        "alertname": "CMOLiveQueriesFailing",
        "objective": "success",
        "scenario": catalogue.LIVE,
        "severity": "page",
        "slo": "cmo-015",
    }
    assert page["annotations"]["description"].startswith("100% of the live queries of the last 10s were bad")

    stack.ask_until("resolved", "success")
    assert [message["status"] for message in stack.pager.messages] == ["firing", "resolved"]
    assert stack.query('ALERTS{alertstate="firing"}') == []

    # Long after the runs, when anything counted late or twice would show.
    for scenario, counts in truth.items():
        assert_recorded(stack, scenario, counts)
