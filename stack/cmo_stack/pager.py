"""A stand-in for the phone of somebody on call: receives what the Alertmanager sends, shows it, keeps it.

Each notification becomes one line of JSON in a file, so that a test or a person can see later when a page
came and when it was resolved, and one readable line on standard output. The standard library alone.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import json
import os
import sys
import threading
import time
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cmo_stack.health import LOOPBACK
from cmo_stack.notification_server import NotificationHandler, NotificationServer
from cmo_stack.ports import DEFAULT_PORTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_MOST_NESTED: Final = 20
_EXPECTED: Final = (
    "expected an Alertmanager notification: {'alerts': [{'status': '…', 'labels': {…}, 'annotations': {…}}]}"
)


class PageLog:
    """The notifications so far, in a file of one JSON object a line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def append(self, notification: dict[str, Any]) -> None:
        """Keep a notification, with the Unix time of its arrival.

        Raises:
            OSError: it cannot be kept, and no part of it is.
        """
        line = (json.dumps({**notification, "received": time.time()}) + "\n").encode()
        with self._lock, self._path.open("ab", buffering=0) as file:
            before = file.tell()
            if file.write(line) < len(line):
                file.truncate(before)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def read(self) -> list[dict[str, Any]]:
        """All notifications, oldest first."""
        with self._lock:
            return [json.loads(line) for line in self._path.read_text().splitlines()]


def phone_lines(notification: dict[str, Any]) -> list[str]:
    """What the phone shows: a line for each alert, in which no text can begin another."""
    lines = []
    for alert in notification["alerts"]:
        labels, annotations = alert.get("labels", {}), alert.get("annotations", {})
        what = f"{alert.get('status', '?').upper()} {labels.get('alertname', 'unnamed alert')}"
        severity = f" [{labels['severity']}]" if "severity" in labels else ""
        summary = annotations.get("summary") or annotations.get("description") or ""
        runbook = annotations.get("runbook_url") or annotations.get("runbook") or ""
        details = " - ".join(part for part in (summary, runbook) if part)
        lines.append(_on_one_line(f"{what}{severity}{': ' if details else ''}{details}"))
    return lines


def _readable(notifications: Iterable[dict[str, Any]]) -> str:
    """A line for each alert of each notification: when it came, for whom, and what the phone shows."""
    lines = [
        f"{_local_time(notification['received'])}  {_receiver(notification)}  {line}\n"
        for notification in notifications
        for line in phone_lines(notification)
    ]
    return "".join(lines) or "No page has come.\n"


def _local_time(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))


def _receiver(notification: Mapping[str, Any]) -> str:
    return _on_one_line(str(notification.get("receiver", "-")))


def _on_one_line(text: str) -> str:
    words = " ".join(text.split())
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in words)


class _Handler(NotificationHandler):
    server: Pager
    usage = "GET /pages, /pages.txt or /healthz; POST notifications to /page"

    def pages(self) -> Mapping[str, Callable[[], Mapping[str, Any] | str]]:
        log = self.server.page_log
        return {"/pages": lambda: {"pages": log.read()}, "/pages.txt": lambda: _readable(log.read())}

    def received(self, body: bytes) -> tuple[HTTPStatus, Mapping[str, Any]]:
        """Keep a notification and show it; all that can be wrong with it is found before."""
        try:
            notification = parse_notification(body)
        except NotificationError as error:
            return HTTPStatus.BAD_REQUEST, {"error": str(error)}
        try:
            self.server.page_log.append(notification)
        except OSError as error:
            problem = f"it could not be kept: {error.strerror}; send it again"
            return HTTPStatus.INSUFFICIENT_STORAGE, {"error": problem}
        with contextlib.suppress(OSError):  # nobody reads it, or the disk is full: it is kept all the same
            for line in phone_lines(notification):
                sys.stdout.write(f"{time.strftime('%H:%M:%S')} {line}\n")
            sys.stdout.flush()
        return HTTPStatus.OK, {}


class Pager(NotificationServer):
    """The receiver; ``page_log`` holds what it has received."""

    def __init__(self, port: int, log: Path, host: str = LOOPBACK) -> None:
        self.page_log = PageLog(log)
        super().__init__((host, port), _Handler)


class NotificationError(Exception):
    """What was sent is no notification of an Alertmanager; the message says what was expected and found."""


def parse_notification(body: bytes) -> dict[str, Any]:
    """Read a notification, which can then be kept and shown.

    Raises:
        NotificationError: it is none.
    """
    try:
        notification = json.loads(body, parse_constant=_refuse_constant)
        if _is_nested_deeply(notification):
            raise NotificationError(f"{_EXPECTED}; found it nested more than {_MOST_NESTED} deep")
        # What is written \ud800 is no character, and nothing can show it.
        json.dumps(notification, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise NotificationError(f"{_EXPECTED}; found half of a surrogate pair in a text") from error
    except RecursionError as error:
        raise NotificationError(f"{_EXPECTED}; found it nested more than {_MOST_NESTED} deep") from error
    except ValueError as error:
        raise NotificationError(f"{_EXPECTED}; found no JSON") from error
    if not isinstance(notification, dict) or not isinstance(notification.get("alerts"), list):
        raise NotificationError(f"{_EXPECTED}; found no list `alerts`")
    for number, alert in enumerate(notification["alerts"], start=1):
        wrong = _wrong_in(alert)
        if wrong:
            raise NotificationError(f"{_EXPECTED}; found alert {number} with {wrong}")
    return notification


def _is_nested_deeply(content: object) -> bool:
    level = [content]
    for _ in range(_MOST_NESTED):
        level = [inner for each in level for inner in _inside(each)]
    return bool(level)


def _inside(content: object) -> Iterable[object]:
    if isinstance(content, dict):
        return content.values()
    return content if isinstance(content, list) else ()


def _wrong_in(alert: object) -> str | None:
    if not isinstance(alert, dict):
        return "no fields"
    if not isinstance(alert.get("status", ""), str):
        return "a `status` that is no text"
    for field in ("labels", "annotations"):
        texts = alert.get(field, {})
        if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
            return f"`{field}` that are no mapping of names to texts"
    return None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def main() -> None:
    """Receive notifications until told to stop."""
    parser = argparse.ArgumentParser(
        prog="python -m cmo_stack.pager", description="A small receiver of pages."
    )
    parser.add_argument("--host", default=LOOPBACK, help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=DEFAULT_PORTS.pager)
    parser.add_argument(
        "--log", type=Path, default=Path(".cmo/pages.jsonl"), help="one JSON line a notification"
    )
    arguments = parser.parse_args()
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal may not know every letter
        sys.stdout.reconfigure(errors="backslashreplace")
    with Pager(arguments.port, arguments.log, arguments.host) as pager:
        pager.serve_forever()


if __name__ == "__main__":
    main()
