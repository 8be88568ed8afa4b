"""A dead-man as a process of its own, what is sent to it, and the pager that keeps what it says."""

from __future__ import annotations

import contextlib
import http.client
import json
import sys
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from cmo_stack import health
from cmo_stack.free_ports import free_port
from cmo_stack.ports import Ports
from cmo_stack.process import ManagedProcess

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

WATCHDOG: Final = {"labels": {"alertname": "CMOWatchdog", "severity": "watchdog"}}
HEARD: Final = {"alerts": [{"status": "firing", **WATCHDOG}]}


class Watched:
    """A dead-man and the pager that it tells, both as processes."""

    def __init__(
        self,
        directory: Path,
        timeout_seconds: float,
        environment: dict[str, str],
        more_options: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.ports = Ports(dead_man=free_port(), pager=free_port(), alertmanager=free_port())
        self._directory = directory
        options = {
            "--port": self.ports.dead_man,
            "--timeout": timeout_seconds,
            "--notify": f"http://{health.LOOPBACK}:{self.ports.pager}/alerts",
            "--log": directory / "dead-man.jsonl",
            **more_options,
        }
        self.dead_man = ManagedProcess(
            "dead-man",
            [
                sys.executable,
                "-m",
                "cmo_stack.dead_man",
                *(str(w) for option in options.items() for w in option),
            ],
            log_path=directory / "dead-man.log",
            ready=partial(health.answers, self.ports.dead_man, "/healthz"),
            environment=environment,
        )
        pages = ["--port", str(self.ports.pager), "--log", str(directory / "pages.jsonl")]
        self.pager = ManagedProcess(
            "pager",
            [sys.executable, "-m", "cmo_stack.pager", *pages],
            log_path=directory / "pager.log",
            ready=partial(health.answers, self.ports.pager, "/healthz"),
        )

    def post(self, content: object, *, timeout_seconds: float = 30.0) -> tuple[int, Any]:
        """Status and answer of a notification; bytes are sent as they are."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        connection = http.client.HTTPConnection(health.LOOPBACK, self.ports.dead_man, timeout=timeout_seconds)
        with contextlib.closing(connection):
            connection.request("POST", "/watchdog", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, json.loads(response.read())

    def status(self) -> dict[str, Any]:
        """What the dead-man says about itself."""
        status: dict[str, Any] = json.loads(health.get(self.ports.dead_man, "/status")[1])
        return status

    def is_in(self, state: str) -> bool:
        """Whether the dead-man is in this state."""
        return bool(self.status()["state"] == state)

    def pages(self) -> list[dict[str, Any]]:
        """What the pager was sent, oldest first."""
        log = self._directory / "pages.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def statuses(self) -> list[str]:
        """Whether the pages said ``firing`` or ``resolved``."""
        return [page["status"] for page in self.pages()]

    def events(self) -> list[str]:
        """What the dead-man has noted."""
        log = self._directory / "dead-man.jsonl"
        return [json.loads(line)["event"] for line in log.read_text().splitlines()]
