"""The whole stack under real load, run once for all the tests that only look at it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from cmo_loadtest.runner import RunOptions, run_scenarios
from cmo_loadtest.scenarios import SCENARIOS
from cmo_stack import configuration, health, servers, topology
from cmo_stack.free_ports import free_port
from cmo_stack.ports import Ports
from cmo_stack.process import ManagedProcess
from cmo_stack.stack import SCRAPES_BEFORE_LOAD, Stack, wait_until_scraped
from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

PATIENCE_SECONDS = 120.0

# Stacks of their own: those of the pages, and after them that of a service that is well.
OWN_STACKS = ("test_pages.py", "test_verdicts_when_healthy.py")


class TwoHalves(LoadScopeScheduling):  # type: ignore[misc]  # it ships no types
    """Two workers share the tests, because most of a stack's time is waiting.

    One has the run of all scenarios, which is made once for all who look at it, the other the rest. Groups
    marked ``xdist_group`` would say so, if pytest-xdist 3.8 saw them under pytest 9.2 (its issue 1386).
    """

    def _split_scope(self, nodeid: str) -> str:
        module, _, _ = nodeid.partition("::")
        return "own stacks" if module.endswith(OWN_STACKS) else "report run"


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> TwoHalves:
    """What decides which worker has which tests."""
    return TwoHalves(config, log)


@dataclass(frozen=True)
class Checked:
    """What ``cmo check`` answered."""

    status: int
    stdout: str
    stderr: str

    @property
    def verdict(self) -> dict[str, Any]:
        """The JSON verdict on standard output."""
        parsed: dict[str, Any] = json.loads(self.stdout)
        return parsed


@dataclass(frozen=True)
class RecordedRun:
    """A load test that has happened, and the Prometheus servers that watched it, by scrape interval."""

    stack: Stack
    directory: Path
    prometheus_urls: dict[str, str]
    dashboards_when_idle: Checked
    """What ``cmo dashboards check --idle`` said of the same stack before the load."""

    @property
    def service_url(self) -> str:
        """Where the service listens."""
        return f"http://{health.LOOPBACK}:{self.stack.settings.ports.service}"


def check(*arguments: str | Path, timeout_seconds: float = 180.0) -> Checked:
    """Run ``cmo check`` as a release manager does."""
    return cmo("check", *arguments, timeout_seconds=timeout_seconds)


def cmo(*arguments: str | Path, timeout_seconds: float = 180.0) -> Checked:
    """Run a command of ``cmo``."""
    done = subprocess.run(
        [Path(sys.executable).with_name("cmo"), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
    )
    return Checked(done.returncode, done.stdout, done.stderr)


def query(prometheus_url: str, expression: str, **parameters: float | str) -> list[dict[str, Any]]:
    """The series that an instant query returns."""
    answer = requests.get(
        f"{prometheus_url}/api/v1/query", params={"query": expression, **parameters}, timeout=30
    )
    answer.raise_for_status()
    result: list[dict[str, Any]] = answer.json()["data"]["result"]
    return result


def wait_until(what: str, condition: Callable[[], bool], patience_seconds: float = PATIENCE_SECONDS) -> None:
    """Wait for a condition, and fail in words when it does not come."""
    deadline = time.monotonic() + patience_seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not seen in {patience_seconds:g} s: {what}")
        time.sleep(0.1)


@contextmanager
def running_stack(directory: Path, index_directory: Path, profile: str) -> Iterator[Stack]:
    """The stack of one profile, scraped every second, with two scrapes of the service made."""
    settings = topology.Settings(
        ports=Ports.choose({}, prefer_defaults=False),
        directory=directory,
        index_directory=index_directory,
        profile=profile,
        scrape_interval_seconds=1,
    )
    started = time.time()
    with Stack(settings) as stack:
        wait_until_scraped(settings, started)
        yield stack


@contextmanager
def another_prometheus(stack: Stack, interval_seconds: int) -> Iterator[str]:
    """The oldest Prometheus on this machine, watching the same service from now on; its URL."""
    settings = stack.settings
    directory = settings.directory / f"prometheus-{interval_seconds}s"
    directory.mkdir()
    configured = directory / "prometheus.yml"
    configured.write_text(
        configuration.prometheus_configuration(
            configuration.committed("prometheus", "prometheus.yml").read_text(),
            ports=settings.ports,
            scrape_interval_seconds=interval_seconds,
            rules=(),
        )
    )
    server, port = servers.installed("prometheus")[0], free_port()
    command = [
        str(server.path),
        f"--config.file={configured}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address={health.LOOPBACK}:{port}",
    ]
    ready = partial(health.answers, port, "/-/ready")
    with ManagedProcess("another prometheus", command, log_path=directory / "log", ready=ready):
        yield _url(port)


def check_idle_dashboards(prometheus_url: str) -> Checked:
    """Run ``cmo dashboards check --idle`` on a stack that nobody but its prober has asked yet."""
    asked = 'sum(increase(cmo_queries_total{scenario="probe"}[1m])) > 0'
    wait_until("answers to the prober in Prometheus", lambda: bool(query(prometheus_url, asked)))
    firing = 'ALERTS{alertname="CMOWatchdog", alertstate="firing"} offset 5s'
    wait_until("the watchdog, since long enough", lambda: bool(query(prometheus_url, firing)))
    options = ("--idle", "--range", "5m", "--scrape-interval", "1s")
    return cmo("dashboards", "check", "--prometheus-url", prometheus_url, *options)


def drive(stack: Stack, runs: Path, scenarios: Sequence[str]) -> Path:
    """Drive scenarios back to back; the directory of the run."""
    target = f"http://{health.LOOPBACK}:{stack.settings.ports.service}"
    return run_scenarios([SCENARIOS[name] for name in scenarios], RunOptions(target, runs)).parent


@pytest.fixture(scope="session")
def index_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One index for all stacks of a test session: building it is not what is tested."""
    return tmp_path_factory.mktemp("index")


@pytest.fixture(scope="session")
def report_run(tmp_path_factory: pytest.TempPathFactory, index_directory: Path) -> Iterator[RecordedRun]:
    """All four scenarios on the profile ``report``, scraped at 1 s and, by another Prometheus, at 5 s."""
    directory = tmp_path_factory.mktemp("report")
    with (
        running_stack(directory / "stack", index_directory, "report") as stack,
        another_prometheus(stack, 5) as slower_url,
    ):
        slower_port = int(slower_url.rpartition(":")[2])
        wait_until(
            "two slower scrapes",
            lambda: health.scrapes(slower_port, topology.JOB, since=0) >= SCRAPES_BEFORE_LOAD,
        )
        urls = {"1s": _url(stack.settings.ports.prometheus), "5s": slower_url}
        idle = check_idle_dashboards(urls["1s"])
        run = drive(stack, directory / "runs", list(SCENARIOS))
        yield RecordedRun(stack, run, urls, idle)


def _url(port: int) -> str:
    return f"http://{health.LOOPBACK}:{port}"
