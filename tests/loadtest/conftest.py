"""A real service to drive, which remembers what it was asked."""

from __future__ import annotations

import contextlib
import json
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from cmo_stack.free_ports import free_port
from cmo_stack.process import ManagedProcess

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Service:
    """The running target: where it is, and what it saw so far."""

    url: str
    process: ManagedProcess
    seen_path: Path

    def seen(self, scenario: str | None = None) -> list[dict[str, Any]]:
        """Every question that has arrived, in order; of one scenario, or of all."""
        complete, _, _ = self.seen_path.read_text().rpartition("\n")  # the last line may be half written
        entries = [json.loads(line) for line in complete.splitlines()]
        return [entry for entry in entries if scenario in (None, entry["headers"]["x-cmo-scenario"])]


class StartService(Protocol):
    def __call__(self, *script: dict[str, Any], ready: int = 200) -> Service: ...


@pytest.fixture
def start_service(tmp_path: Path) -> Iterator[StartService]:
    """Start targets with a script; all are stopped at the end of the test."""
    with _starter(tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def start_module_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartService]:
    """The same, for targets that several tests look at."""
    with _starter(tmp_path_factory.mktemp("target")) as start:
        yield start


@contextlib.contextmanager
def _starter(directory: Path) -> Iterator[StartService]:
    started: list[ManagedProcess] = []

    def start(*script: dict[str, Any], ready: int = 200) -> Service:
        port = free_port()
        seen = directory / f"seen-{port}.jsonl"
        seen.touch()
        settings = {"port": port, "seen": str(seen), "script": script, "ready": ready}
        url = f"http://127.0.0.1:{port}"
        process = ManagedProcess(
            "target service",
            [sys.executable, str(Path(__file__).with_name("target_service.py")), json.dumps(settings)],
            log_path=directory / f"target-{port}.log",
            ready=lambda: _answers(url),
        )
        started.append(process)
        process.start()
        return Service(url, process, seen)

    try:
        yield start
    finally:
        for process in started:
            process.kill()  # it may be in the middle of a slow answer


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=5):  # noqa: S310 - our own service
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
