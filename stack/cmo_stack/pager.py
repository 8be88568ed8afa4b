"""A stand-in for the phone of somebody on call: receives what the Alertmanager sends, shows it, keeps it.

Each notification becomes one line of JSON in a file, so that a test or a person can see later when a page
came and when it was resolved, and one readable line on standard output. The standard library alone.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from cmo_stack.health import LOOPBACK
from cmo_stack.ports import DEFAULT_PORTS

_LARGEST_NOTIFICATION_BYTES: Final = 1_000_000


class PageLog:
    """The notifications so far, in a file of one JSON object a line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def append(self, notification: dict[str, Any]) -> None:
        """Keep a notification, with the Unix time of its arrival."""
        line = json.dumps({"received": time.time(), **notification})
        with self._lock, self._path.open("a") as file:
            file.write(line + "\n")

    def read(self) -> list[dict[str, Any]]:
        """All notifications, oldest first."""
        with self._lock:
            return [json.loads(line) for line in self._path.read_text().splitlines()]


def phone_lines(notification: dict[str, Any]) -> list[str]:
    """What the phone shows: a line for each alert."""
    lines = []
    for alert in notification["alerts"]:
        labels, annotations = alert.get("labels", {}), alert.get("annotations", {})
        what = f"{alert.get('status', '?').upper()} {labels.get('alertname', 'unnamed alert')}"
        severity = f" [{labels['severity']}]" if "severity" in labels else ""
        summary = annotations.get("summary") or annotations.get("description") or ""
        runbook = annotations.get("runbook_url") or annotations.get("runbook") or ""
        details = " - ".join(part for part in (summary, runbook) if part)
        lines.append(f"{what}{severity}{': ' if details else ''}{details}")
    return lines


class _Handler(BaseHTTPRequestHandler):
    server: Pager

    def do_GET(self) -> None:
        if self.path == "/pages":
            self._answer(HTTPStatus.OK, {"pages": self.server.page_log.read()})
        elif self.path == "/healthz":
            self._answer(HTTPStatus.OK, {"status": "ok"})
        else:
            self._answer(
                HTTPStatus.NOT_FOUND, {"error": "GET /pages or /healthz; POST notifications to /page"}
            )

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if length > _LARGEST_NOTIFICATION_BYTES:
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"error": "at most 1 MB"})
            return
        notification = _parsed(self.rfile.read(length))
        if notification is None:
            self._answer(
                HTTPStatus.BAD_REQUEST, {"error": "expected an Alertmanager notification: {'alerts': [...]}"}
            )
            return
        self.server.page_log.append(notification)
        for line in phone_lines(notification):
            sys.stdout.write(f"{time.strftime('%H:%M:%S')} {line}\n")
        sys.stdout.flush()
        self._answer(HTTPStatus.OK, {})

    def _answer(self, status: HTTPStatus, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Say nothing about requests: the pages are the log."""


class Pager(ThreadingHTTPServer):
    """The receiver; ``page_log`` holds what it has received."""

    daemon_threads = True

    def __init__(self, port: int, log: Path, host: str = LOOPBACK) -> None:
        self.page_log = PageLog(log)
        super().__init__((host, port), _Handler)


def _parsed(body: bytes) -> dict[str, Any] | None:
    try:
        notification = json.loads(body)
    except ValueError:
        return None
    if not isinstance(notification, dict) or not isinstance(notification.get("alerts"), list):
        return None
    return notification if all(isinstance(alert, dict) for alert in notification["alerts"]) else None


def main() -> None:
    """Receive notifications until told to stop."""
    parser = argparse.ArgumentParser(
        prog="python -m cmo_stack.pager", description="A small receiver of pages."
    )
    parser.add_argument("--port", type=int, default=DEFAULT_PORTS.pager)
    parser.add_argument(
        "--log", type=Path, default=Path(".cmo/pages.jsonl"), help="one JSON line a notification"
    )
    arguments = parser.parse_args()
    with Pager(arguments.port, arguments.log) as pager:
        pager.serve_forever()


if __name__ == "__main__":
    main()
