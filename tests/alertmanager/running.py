"""A real Alertmanager for a test: its configuration rendered, alerts posted to it, its state read."""

from __future__ import annotations

import contextlib
import datetime
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import requests
import yaml
from cmo_stack import configuration
from cmo_stack.free_ports import free_port
from cmo_stack.ports import Ports
from cmo_stack.process import ManagedProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from cmo_stack import servers

ROOM: Final = Path(__file__).resolve().parents[2] / "alertmanager"
_DEADLINE_SECONDS: Final = 120.0


@dataclass(frozen=True)
class Alertmanager:
    """One that runs."""

    url: str
    log_path: Path

    @property
    def log(self) -> str:
        """What it has printed."""
        return self.log_path.read_text()

    def post(self, *alerts: Mapping[str, Any]) -> None:
        """Send alerts to it as Prometheus does, in one request."""
        requests.post(f"{self.url}/api/v2/alerts", json=list(alerts), timeout=30).raise_for_status()

    def alerts(self) -> list[dict[str, Any]]:
        """The alerts that it knows, with their state."""
        answer = requests.get(f"{self.url}/api/v2/alerts", timeout=30)
        answer.raise_for_status()
        alerts: list[dict[str, Any]] = answer.json()
        return alerts

    def status(self) -> dict[str, Any]:
        """What it says about itself."""
        status: dict[str, Any] = requests.get(f"{self.url}/api/v2/status", timeout=30).json()
        return status


@contextlib.contextmanager
def running(
    server: servers.Server, configured: Path, directory: Path, *more_options: str
) -> Iterator[Alertmanager]:
    """An Alertmanager with this configuration, which says all that it can in its log."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [
        str(server.path),
        f"--config.file={configured}",
        f"--storage.path={directory / 'alertmanager'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
        "--log.level=debug",
        *more_options,
    ]
    process = ManagedProcess(
        server.label,
        command,
        log_path=directory / "alertmanager.log",
        ready=lambda: _answers(f"{url}/-/ready"),
        environment=server.environment,
    )
    try:
        process.start()
        yield Alertmanager(url, directory / "alertmanager.log")
    finally:
        process.kill()  # asked to end, it would try for seconds to deliver what a test has made undeliverable


def stack_configuration(receiver_port: int) -> dict[str, Any]:
    """The committed alertmanager.yml, with every receiver at one port; their paths tell them apart."""
    rendered = configuration.alertmanager_configuration(
        (ROOM / "alertmanager.yml").read_text(),
        ports=Ports(pager=receiver_port, dead_man=receiver_port),
        directory=ROOM,
    )
    content: dict[str, Any] = yaml.safe_load(rendered)
    return content


def route_of(content: Mapping[str, Any], receiver: str) -> dict[str, Any]:
    """The route below the root that leads to a receiver."""
    routes: Sequence[dict[str, Any]] = content["route"]["routes"]
    return next(route for route in routes if route["receiver"] == receiver)


def over(alert: Mapping[str, Any]) -> dict[str, Any]:
    """The same alert, resolved now."""
    return {**alert, "endsAt": datetime.datetime.now(datetime.UTC).isoformat()}


def wait_until(what: str, condition: Callable[[], bool]) -> None:
    """Wait for a condition, and fail in words when it does not come."""
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not seen in {_DEADLINE_SECONDS:g} s: {what}")
        time.sleep(0.2)


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False
