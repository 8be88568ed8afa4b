"""A small service that a test drives: real counters on a real port, scraped by a real Prometheus."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
from cmo_exporter import catalogue
from cmo_stack.free_ports import free_port
from cmo_stack.process import ManagedProcess
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily
from prometheus_client.exposition import generate_latest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cmo_stack.servers import Server
    from prometheus_client.metrics_core import Metric

DEADLINE_SECONDS = 60.0


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition, generously."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.2)


class Process:
    """One life of the service: its registry, and the counters in it."""

    def __init__(self, scenarios: tuple[str, ...]) -> None:
        self.scenarios = scenarios
        self.born = time.time()
        self.users: dict[str, tuple[int, float, float]] = dict.fromkeys(scenarios, (0, 0.0, self.born))
        registry = self.registry = CollectorRegistry()
        one, two = ["scenario"], ["scenario", "outcome"]
        self.started = Counter("cmo_queries_started_total", "x", one, registry=registry)
        self.queries = Counter("cmo_queries_total", "x", two, registry=registry)
        self.cache = Counter("cmo_query_cache_results_total", "x", ["scenario", "result"], registry=registry)
        self.duration = Histogram(
            "cmo_query_duration_seconds",
            "x",
            two,
            registry=registry,
            buckets=catalogue.DURATION_BUCKETS_SECONDS,
        )
        self.in_progress = Gauge("cmo_queries_in_progress", "x", one, registry=registry)
        self.peak = Gauge("cmo_memory_peak_bytes", "x", ["worker", "scenario"], registry=registry)
        memory = Gauge("cmo_memory_bytes", "x", ["worker", "kind"], registry=registry)
        start = Gauge("cmo_worker_start_time_seconds", "x", ["worker"], registry=registry)
        memory.labels("0", "rss").set(500e6)
        start.labels("0").set(self.born)
        for name in scenarios:
            self.started.labels(name)
            self.in_progress.labels(name)
            self.peak.labels("0", name)
            for outcome in catalogue.QUERY_OUTCOMES:
                self.queries.labels(name, outcome)
            for outcome in catalogue.DURATION_OUTCOMES:
                self.duration.labels(name, outcome)
            for result in catalogue.QUERY_CACHE_RESULTS:
                self.cache.labels(name, result)
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        now = time.time()
        users = CounterMetricFamily("cmo_active_user_seconds", "x", labels=["scenario"])
        for name, (active, seconds, since) in self.users.items():
            users.add_metric([name], seconds + active * (now - since))
        yield users
        yield CounterMetricFamily("cmo_active_user_clock_seconds", "x", value=now - self.born)

    def set_users(self, scenario: str, active: int) -> None:
        before, seconds, since = self.users[scenario]
        now = time.time()
        self.users[scenario] = (active, seconds + before * (now - since), now)

    def ask(self, scenario: str, outcome: str = "success", seconds: float = 0.4, cache: str = "hit") -> None:
        group = outcome if outcome in catalogue.DURATION_OUTCOMES else "failure"
        self.started.labels(scenario).inc()
        self.queries.labels(scenario, outcome).inc()
        self.duration.labels(scenario, group).observe(seconds)
        self.cache.labels(scenario, cache).inc()


class _QuietServer(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A scraper that hangs up is no news."""


class Service:
    """The address of the service; the process behind it can be restarted."""

    def __init__(self, scenarios: tuple[str, ...], *, jobs: int = 1) -> None:
        self.scenarios = scenarios
        self.process = Process(scenarios)
        self.jobs = jobs
        self.scrapes = 0
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = generate_latest(service.process.registry)
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write(body)
                service.scrapes += 1

            def log_message(self, *_: object) -> None:
                """Keep the output of the tests clean."""

        self._server = _QuietServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Service:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def restart(self) -> None:
        self.process = Process(self.scenarios)

    def scraped(self, times: int) -> None:
        """Wait until each job has scraped it so many times more."""
        wanted = self.scrapes + times * self.jobs
        until(lambda: self.scrapes >= wanted, f"{times} scrapes")


@dataclass
class Answers:
    """Something that answers HTTP on a port, and is not Prometheus unless told so."""

    status: int = 200
    body: str = "<html>hello</html>"
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "text/html"})
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    @contextlib.contextmanager
    def serve(self) -> Iterator[str]:
        answers = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answers.seen.append((self.path, dict(self.headers)))
                self.send_response(answers.status)
                for name, value in answers.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answers.body.encode())

            def log_message(self, *_: object) -> None:
                """Keep the output of the tests clean."""

        server = _QuietServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def prometheus(server: Server, folder: Path, jobs: dict[str, list[str]], interval: str = "250ms") -> Running:
    """A Prometheus that scrapes the given addresses by job."""
    lines = [f"global: {{scrape_interval: {interval}, scrape_timeout: {interval}}}", "scrape_configs:"]
    for job, targets in jobs.items():
        lines.append(f"  - {{job_name: {job}, static_configs: [{{targets: {json.dumps(targets)}}}]}}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prometheus.yml").write_text("\n".join(lines))
    port = free_port()
    command = [
        str(server.path),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        try:
            return requests.get(f"{url}/-/ready", timeout=2).status_code == 200
        except requests.RequestException:
            return False

    process = ManagedProcess(
        server.label, command, log_path=folder / "log", ready=ready, environment=server.environment
    )
    return Running(url, process)


@dataclass
class Running:
    url: str
    process: ManagedProcess

    def __enter__(self) -> Running:
        self.process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stop()

    def ask(self, query: str) -> list[Any]:
        answer = requests.get(f"{self.url}/api/v1/query", params={"query": query}, timeout=10)
        return list(answer.json()["data"]["result"])

    def stored(self, samples: int, job: str = "cmo") -> None:
        """Wait until so many scrapes of every target of a job are stored."""

        def enough() -> bool:
            found = self.ask(f'count_over_time(up{{job="{job}"}}[10m])')
            return bool(found) and all(float(one["value"][1]) >= samples for one in found)

        until(enough, f"{samples} stored scrapes of {job}")


@dataclass
class Drive:
    """Drives a service through scenarios, and writes the manifest that a load test would."""

    service: Service
    scenarios: list[dict[str, Any]] = field(default_factory=list)

    def scenario(
        self,
        name: str,
        outcomes: dict[str, int],
        *,
        users: int = 50,
        middle: Callable[[], None] | None = None,
        slow: int = 0,
        misses: int = 10,
    ) -> None:
        """Ask so many questions by outcome, over some scrapes, with all users there from start to end."""
        process = self.service.process
        start = time.time()
        process.set_users(name, users)
        process.peak.labels("0", name).set(550e6)
        asked = [outcome for outcome, number in outcomes.items() for _ in range(number)]
        for n, outcome in enumerate(asked):
            if n % max(1, len(asked) // 7) == 0:
                self.service.scraped(1)
            if middle and n == len(asked) // 2:
                middle()
            cache = "miss" if n < misses else "hit"
            seconds = 2.5 if outcome == "success" and n < slow else 0.4
            self.service.process.ask(name, outcome, seconds, cache)
        self.service.scraped(2)
        end = time.time()
        self.service.process.set_users(name, 0)
        self.note(name, start, end, operations=len(asked), users=users)

    def note(self, name: str, start: float, end: float, *, operations: int, users: int = 50) -> None:
        """Write down a scenario for the manifest."""
        self.scenarios.append(
            {
                "name": name,
                "start": start,
                "end": end,
                "held_start": start,
                "held_end": end,
                "offered": {"users": users, "operations": operations, "pattern": "sustained"},
            }
        )

    def manifest(self, folder: Path, **changes: Any) -> Path:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        document = {
            "schema": "cmo.run-manifest/v1",
            "run_id": "20261123T233100Z-driven",
            "tool": "test",
            "host": hashlib.sha256(boot.encode()).hexdigest()[:16],
            "target": "http://127.0.0.1:8000",
            "start": min(one["start"] for one in self.scenarios),
            "end": max(one["end"] for one in self.scenarios),
            "scenarios": self.scenarios,
            "ground_truth": {"scenarios": {}},
            **changes,
        }
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "manifest.json"
        file.write_text(json.dumps(document))
        return file
