"""The answering service and a Prometheus that watches it, as processes."""

from __future__ import annotations

import contextlib
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
from cmo_stack.free_ports import free_port
from cmo_stack.process import ManagedProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cmo_stack.servers import Server

ROOT = Path(__file__).resolve().parents[2]
_DEADLINE_SECONDS = 120.0
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class AnsweringService:
    """One that runs."""

    port: int
    metrics_port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextlib.contextmanager
def answering_service(folder: Path, **environment: str) -> Iterator[AnsweringService]:
    """The service, with more variables in its environment; ready to be asked and to be scraped."""
    service = AnsweringService(free_port(), free_port())
    process = ManagedProcess(
        "answering service",
        [sys.executable, str(Path(__file__).with_name("answering_service.py")), str(service.port)],
        log_path=folder / f"service-{service.port}.log",
        ready=lambda: _ok(f"{service.url}/readyz"),
        environment={"METRICS_PORT": str(service.metrics_port), **environment},
    )
    with process:
        yield service


@contextlib.contextmanager
def prometheus(server: Server, configuration: Path, folder: Path, port: int) -> Iterator[str]:
    """A Prometheus with that configuration, which it reads again when asked; its address."""
    url = f"http://127.0.0.1:{port}"
    process = ManagedProcess(
        server.label,
        [
            str(server.path),
            f"--config.file={configuration}",
            f"--storage.tsdb.path={folder / 'prometheus'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--web.enable-lifecycle",
            "--storage.tsdb.retention.time=40d",
            # An alert that fires just when a new configuration is read is lost, until it is sent again.
            "--rules.alert.resend-delay=2s",
        ],
        log_path=folder / "prometheus.log",
        ready=lambda: _ok(f"{url}/-/ready"),
        environment=server.environment,
    )
    with process:
        yield url


def instant(url: str, query: str) -> list[dict[str, Any]]:
    """What Prometheus answers now."""
    answer = requests.get(f"{url}/api/v1/query", params={"query": query}, timeout=30).json()
    result: list[dict[str, Any]] = answer["data"]["result"]
    return result


def until(condition: Callable[[], object], what: str) -> None:
    """Wait until a condition holds; the time is only for what never happens."""
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(_POLL_SECONDS)


def wait_for_scrapes(url: str, job: str, count: int) -> None:
    """Wait until each target of a job was scraped well so often, at least once."""
    series = f'cmo_queries_total{{job="{job}",outcome="success",scenario="live"}}'
    query = f"min(count_over_time({series}[10m])) >= {count}"
    until(lambda: instant(url, query), f"{count} scrapes of {job}")


def command_of_this_checkout(folder: Path) -> Path:
    """A folder with the command ``cmo`` that runs this checkout, whatever is installed."""
    folder.mkdir(parents=True, exist_ok=True)
    (command := folder / "cmo").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m cmo_stack.cli "$@"\n')
    command.chmod(0o755)
    return folder


def _ok(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False
