"""The compiled rules on a real Prometheus, in every version there is, scraping counters that the test drives.

One run a version holds several promises at once, because each needs a Prometheus, an Alertmanager and some
seconds: recorded events equal the truth, the page fires, the page resolves, the watchdog is heard all along.
Versions run side by side, because most of these seconds are waiting.
The configuration is the committed one on ports of this test's own: nothing is sent to a stack that runs here.
"""

from __future__ import annotations

import http.server
import json
import math
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
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
from cmo_stack.configuration import alertmanager_configuration, committed, prometheus_configuration
from cmo_stack.free_ports import free_port
from cmo_stack.ports import Ports
from cmo_stack.process import ManagedProcess
from prometheus_client import CollectorRegistry, Gauge, Histogram, start_http_server
from prometheus_client import Counter as EventCounter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_SECONDS = 120.0
ANSWER_SECONDS = 0.025  # so that a run spans several scrapes
Sum = tuple[str, str]  # an objective, and which of its events
COMPONENTS = ("lightrag", "perplexity")
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


def _kind(outcome: str) -> str:
    """The outcome as histograms tell it."""
    return outcome if outcome in catalogue.DURATION_OUTCOMES else "failure"


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
        self.calls = EventCounter(
            "cmo_component_calls", "Calls.", ["scenario", "component", "outcome"], registry=self.registry
        )
        self.call_durations = Histogram(
            "cmo_component_duration_seconds",
            "Durations of calls.",
            ["scenario", "component", "outcome"],
            buckets=catalogue.COMPONENT_BUCKETS_SECONDS,
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
                for component in COMPONENTS:
                    self.calls.labels(scenario, component, outcome)
            for outcome in catalogue.DURATION_OUTCOMES:
                self.durations.labels(scenario, outcome)
                for component in COMPONENTS:
                    self.call_durations.labels(scenario, component, outcome)
        self.server, self.thread = start_http_server(0, addr="127.0.0.1", registry=self.registry)

    @property
    def port(self) -> int:
        return int(self.server.server_port)

    def ask(self, scenario: str, outcome: str, seconds: float) -> None:
        """A query that fails where LightRAG does, which Perplexity is not always asked to make good."""
        self.queries.labels(scenario, outcome).inc()
        self.durations.labels(scenario, _kind(outcome)).observe(seconds)
        self.call("lightrag", scenario, outcome, seconds)
        if outcome == "error":
            self.call("perplexity", scenario, "error", seconds)

    def call(self, component: str, scenario: str, outcome: str, seconds: float) -> None:
        self.calls.labels(scenario, component, outcome).inc()
        self.call_durations.labels(scenario, component, _kind(outcome)).observe(seconds)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@dataclass
class Receiver:
    """A webhook receiver that keeps what it was sent, and on which path."""

    messages: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def start(self, stack: ExitStack) -> int:
        """Listen until the stack is closed; returns the port."""
        messages = self.messages

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                messages.append((self.path, message))
                self.send_response(200)
                self.end_headers()

            def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
                del code, size  # a test has nobody to log to

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        stack.callback(server.server_close)
        stack.callback(server.shutdown)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server.server_port

    @property
    def pages(self) -> list[dict[str, Any]]:
        """What the pager was told, tickets left out."""
        return [message for path, message in self.messages if path == "/alerts"]


@dataclass
class Stack:
    version: str
    service: Service
    pager: Receiver
    dead_man: Receiver
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

    def firing(self) -> set[str]:
        return {alert["metric"]["alertname"] for alert in self.query('ALERTS{alertstate="firing"}')}

    def events(self, series: str, objective: str, scenario: str) -> float | None:
        return self.value(f'sum_over_time({series}{{objective="{objective}",scenario="{scenario}"}}[10m])')

    def calls(self, series: str, indicator: str, component: str, scenario: str) -> float | None:
        of = f'indicator="{indicator}",component="{component}",scenario="{scenario}"'
        return self.value(f"sum_over_time({series}{{{of}}}[10m])")

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
            return any(page["status"] == status for page in self.pager.pages)

        wait_for(f"the pager being told: {status}", told)


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=1).ok
    except requests.RequestException:
        return False


def start(
    stack: ExitStack, server: servers.Server, ports: Ports, configuration: str, *options: str, folder: Path
) -> str:
    """Start a server with a rendered configuration on its port; returns its address."""
    port = getattr(ports, server.name)
    url = f"http://127.0.0.1:{port}"
    path = folder / f"{server.name}.yml"
    path.write_text(configuration)
    stack.enter_context(
        ManagedProcess(
            server.label,
            [
                str(server.path),
                f"--config.file={path}",
                f"--web.listen-address=127.0.0.1:{port}",
                *options,
            ],
            log_path=folder / f"{server.name}.log",
            ready=lambda: answers(f"{url}/-/ready"),
            environment=server.environment,
        )
    )
    return url


def start_alertmanager(stack: ExitStack, ports: Ports, folder: Path) -> None:
    template = committed("alertmanager", "alertmanager.yml")
    rendered = alertmanager_configuration(template.read_text(), ports=ports, directory=template.parent)
    options = (f"--storage.path={folder / 'alertmanager'}", "--cluster.listen-address=")
    start(stack, servers.newest("alertmanager"), ports, rendered, *options, folder=folder)


def with_a_quick_watchdog(folder: Path) -> Path:
    """The committed rules; the watchdog is in a group of its own, so that nobody waits a minute for it.

    All tickets every second would be another matter: `up` is there only 5 s after Prometheus' start.
    """
    rules = yaml.safe_load((ROOT / "slo_rules/rules/cmo-015-1s.yml").read_text())
    (tickets,) = (group for group in rules["groups"] if group["name"] == "cmo-015-tickets")
    watchdog = [rule for rule in tickets["rules"] if rule.get("alert") == "CMOWatchdog"]
    tickets["rules"] = [rule for rule in tickets["rules"] if rule not in watchdog]
    rules["groups"].append({"name": "watchdog", "interval": "1s", "rules": watchdog})
    path = folder / "rules.yml"
    path.write_text(yaml.safe_dump(rules))
    return path


def start_prometheus(stack: ExitStack, server: servers.Server, ports: Ports, folder: Path) -> str:
    rendered = prometheus_configuration(
        committed("prometheus", "prometheus.yml").read_text(),
        ports=ports,
        scrape_interval_seconds=1,
        rules=[with_a_quick_watchdog(folder)],
    )
    # What fires before Prometheus has discovered the Alertmanager is lost, and sent again a minute later.
    options = (f"--storage.tsdb.path={folder / 'data'}", "--rules.alert.resend-delay=1s")
    return start(stack, server, ports, rendered, *options, folder=folder)


@pytest.fixture
def stacks(tmp_path: Path) -> Iterator[list[Stack]]:
    with ExitStack() as exit_stack:
        yield [
            start_stack(exit_stack, server, tmp_path / str(number))
            for number, server in enumerate(servers.installed("prometheus"))
        ]


def start_stack(exit_stack: ExitStack, server: servers.Server, folder: Path) -> Stack:
    folder.mkdir()
    pager, dead_man = Receiver(), Receiver()
    service = Service()
    exit_stack.callback(service.close)
    alertmanager = free_port()
    ports = Ports(
        prober=alertmanager,  # no canary is asked: any page that can be scraped will do
        pager=pager.start(exit_stack),
        dead_man=dead_man.start(exit_stack),
        metrics=service.port,
        alertmanager=alertmanager,
        prometheus=free_port(),
    )
    start_alertmanager(exit_stack, ports, folder)
    url = start_prometheus(exit_stack, server, ports, folder)
    return Stack(server.label, service, pager, dead_man, url)


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
        truth["perplexity", recorded.COMPONENT_TOTAL_EVENTS] += outcome == "error"
        time.sleep(ANSWER_SECONDS)
    return truth


def assert_recorded(stack: Stack, scenario: str, truth: Counter[Sum]) -> None:
    """All that has happened in a scenario has been recorded, and nothing twice."""
    for objective in ("success", "within_2s"):
        for series, of_component in (
            (recorded.GOOD_EVENTS, recorded.COMPONENT_GOOD_EVENTS),
            (recorded.TOTAL_EVENTS, recorded.COMPONENT_TOTAL_EVENTS),
        ):
            count = truth[objective, series]
            assert stack.events(series, objective, scenario) == count, (objective, series, scenario)
            assert stack.calls(of_component, objective, "lightrag", scenario) == count
        assert stack.calls(recorded.COMPONENT_GOOD_EVENTS, objective, "perplexity", scenario) == 0
        asked = truth["perplexity", recorded.COMPONENT_TOTAL_EVENTS]
        assert stack.calls(recorded.COMPONENT_TOTAL_EVENTS, objective, "perplexity", scenario) == asked > 0
    good = truth["success", recorded.GOOD_EVENTS] / truth["success", recorded.TOTAL_EVENTS]
    own = f'{{objective="success",scenario="{scenario}"}}[10m]'
    ratio = stack.value(
        f"sum_over_time({recorded.GOOD_EVENTS}{own}) / (sum_over_time({recorded.TOTAL_EVENTS}{own}) > 0)"
    )
    assert ratio == pytest.approx(good, abs=1e-9)


def test_recorded_events_equal_the_truth_and_the_page_comes_and_goes(stacks: list[Stack]) -> None:
    assert stacks
    with ThreadPoolExecutor(len(stacks)) as side_by_side:
        for _ in side_by_side.map(assert_truth_is_recorded_and_paged, stacks):
            pass


def assert_truth_is_recorded_and_paged(stack: Stack) -> None:
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
    assert stack.firing() <= {"CMOWatchdog"}
    assert stack.pager.messages == []

    stack.ask_until("firing", "error")
    (page,) = stack.pager.pages[0]["alerts"]
    assert page["labels"] == {
        "alertname": "CMOLiveQueriesFailing",
        "component": "service",
        "objective": "success",
        "role": "symptom",
        "scenario": catalogue.LIVE,
        "severity": "page",
        "slo": "cmo-015",
    }
    annotations = page["annotations"]
    assert annotations["summary"] == "Live queries are failing"
    assert annotations["description"].startswith("100% of live queries fail: users get errors")
    assert "from 10 failures" in annotations["description"]
    assert "$" not in annotations["description"]
    assert annotations["runbook_url"] == "docs/runbooks/CMOLiveQueriesFailing.md"
    assert annotations["dashboard_url"] == "/d/cmo-overview"
    assert (ROOT / annotations["runbook_url"]).is_file()

    stack.ask_until("resolved", "success")
    assert [message["status"] for message in stack.pager.pages] == ["firing", "resolved"]
    assert {message["groupLabels"]["alertname"] for message in stack.pager.pages} == {"CMOLiveQueriesFailing"}
    assert stack.firing() == {"CMOWatchdog"}
    # The dead-man receiver hears the watchdog, and nothing else.
    wait_for("the watchdog being heard", lambda: stack.dead_man.messages)
    heard = {(path, message["groupLabels"]["alertname"]) for path, message in stack.dead_man.messages}
    assert heard == {("/watchdog", "CMOWatchdog")}

    # Long after the runs, when anything counted late or twice would show.
    for scenario, counts in truth.items():
        assert_recorded(stack, scenario, counts)
