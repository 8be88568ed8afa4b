"""Notices that the monitoring itself has stopped: pages when the watchdog is no longer heard.

An alert that always fires (severity ``watchdog``) is sent here again and again, by Prometheus through the
Alertmanager. When one of them has stopped nobody else can page, so this does: past both, straight to the
pager. It belongs on another machine than they are. The standard library alone.

Silence is counted on the monotonic clock and only while this process runs. Whoever was stopped (SIGSTOP, a
frozen container, a machine without CPU) has heard nothing because it did not listen: that is not the
watchdog's fault. What is decided is in `watchdog`; here is the server that hears, and the way to the pager.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import http.client
import json
import math
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from cmo_stack.health import LOOPBACK
from cmo_stack.notification_server import NotificationHandler, NotificationServer
from cmo_stack.ports import DEFAULT_PORTS, HIGHEST_PORT
from cmo_stack.watchdog import (
    Event,
    HeardWatchdogs,
    Silence,
    Watchdog,
    firing_watchdogs,
    notification,
    rfc3339,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

DEFAULT_TIMEOUT_SECONDS: Final = 300.0

_DELIVERY_TIMEOUT_SECONDS: Final = 10.0
_SHORTEST_RETRY_SECONDS: Final = 0.5
_LONGEST_RETRY_SECONDS: Final = 30.0
_MOST_UNDELIVERED: Final = 100


@dataclass(frozen=True)
class Settings:
    """One dead-man: where it listens, how long it waits, whom it tells, and where it keeps what happened.

    ``slo`` is the label of the watchdogs that it waits for; ``None`` where any will do. ``notify_token_file``
    holds the bearer token for ``notify_url``; ``None`` where it asks for none. It listens on
    the address ``host``.
    """

    port: int
    timeout_seconds: float
    notify_url: str
    log: Path
    slo: str | None = None
    notify_token_file: Path | None = None
    host: str = LOOPBACK

    @property
    def address(self) -> str:
        """Where people on this machine find it, wherever else it listens."""
        return f"http://{LOOPBACK}:{self.port}"


class EventLog:
    """What happened, in a file of one JSON object a line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def append(self, event: str, **details: object) -> None:
        """Keep an event with its Unix time, and show it. A full disk must not stop what pages."""
        line = json.dumps({"time": time.time(), "event": event, **details})
        with self._lock, contextlib.suppress(OSError):
            with self._path.open("a") as file:
                file.write(line + "\n")
            sys.stdout.write(f"{time.strftime('%H:%M:%S')} {event} {details or ''}\n")
            sys.stdout.flush()


class TokenError(Exception):
    """There is no usable token; the message says why, and never shows what the file holds."""


def read_token(path: Path) -> str:
    """The bearer token in a file, without the end of its line.

    Raises:
        TokenError: It cannot be read, or what it holds cannot be sent in a header.
    """
    try:
        token = path.read_text(encoding="ascii").strip()
    except UnicodeDecodeError:
        token = ""
    except OSError as error:
        raise TokenError(f"the token cannot be read: {error}") from None
    if not all("!" <= character <= "~" for character in token) or not token:
        raise TokenError(f"{path} holds no token: expected one line of printable ASCII without spaces")
    return token


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST would become a GET, which is answered with 200 and tells nobody."""

    def redirect_request(self, *_: object, **__: object) -> None:
        """Follow nowhere, so that the redirect is an error."""


class Outbox:
    """Delivers notifications in their order, each until it has arrived."""

    def __init__(self, url: str, log: EventLog, token_file: Path | None = None) -> None:
        self._url = url
        self._token_file = token_file
        self._log = log
        self._changed = threading.Condition()
        # Outages are a time-out apart, so this many are hours without a pager: the oldest are wanted least.
        self._waiting: deque[dict[str, Any]] = deque(maxlen=_MOST_UNDELIVERED)
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, content: dict[str, Any]) -> None:
        """Send this after those before it. What says that an outage is over takes the place of its beginning.

        A page that could not be delivered while it was true must not wake anybody afterwards.
        """
        with self._changed:
            if content["status"] == "resolved" and self._waiting and self._waiting[-1]["status"] == "firing":
                self._waiting.pop()
            self._waiting.append(content)
            self._changed.notify()

    def deliver_for_ever(self) -> None:
        """Send what is put in, and try again after a while whatever does not arrive."""
        pause_seconds, told = _SHORTEST_RETRY_SECONDS, ""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting))
                content = self._waiting[0]
            problem = self._post(content)
            if problem is None:
                with self._changed:
                    if self._waiting and self._waiting[0] is content:
                        self._waiting.popleft()
                pause_seconds, told = _SHORTEST_RETRY_SECONDS, ""
                self._log.append("delivered", status=content["status"])
                continue
            if problem != told:  # once each, or a pager that is away for days fills the disk
                self._log.append("not delivered, will be tried again", to=self._url, problem=problem)
                told = problem
            time.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, _LONGEST_RETRY_SECONDS)

    def _post(self, content: dict[str, Any]) -> str | None:
        """Send once; what went wrong, or None."""
        headers = {"Content-Type": "application/json"}
        try:
            if self._token_file is not None:  # read each time: a new token needs no restart
                headers["Authorization"] = f"Bearer {read_token(self._token_file)}"
        except TokenError as error:
            return str(error)
        request = urllib.request.Request(  # noqa: S310 - the scheme is checked when the command line is read
            self._url, json.dumps(content).encode(), headers
        )
        try:
            with self._opener.open(request, timeout=_DELIVERY_TIMEOUT_SECONDS):
                return None
        except urllib.error.HTTPError as error:
            error.close()
            return f"answered {error.code}"
        except (OSError, http.client.HTTPException, ValueError) as error:
            return f"{type(error).__name__}: {error}"


class DeadMan(NotificationServer):
    """Receives the watchdog, looks at the clock, and tells the pager about outages."""

    def __init__(self, settings: Settings) -> None:
        super().__init__((settings.host, settings.port), _Handler)
        self._settings = settings
        self._lock = threading.Lock()
        self._silence = Silence(settings.timeout_seconds, time.monotonic())
        self._heard_count = 0
        self._watchdogs = HeardWatchdogs()
        self._last_heard = time.monotonic()
        self._outage_since = _now()
        self.log = EventLog(settings.log)
        self._outbox = Outbox(settings.notify_url, self.log, settings.notify_token_file)

    def watch(self) -> None:
        """Begin to count silence and to deliver, in threads that end with the process."""
        self.log.append("started", timeout_seconds=self._settings.timeout_seconds)
        for work in (self._look_for_ever, self._outbox.deliver_for_ever):
            threading.Thread(target=work, daemon=True).start()

    def hear(self, notification: Mapping[str, Any]) -> bool:
        """Take in a notification; whether the watchdog was heard in it."""
        watchdogs = firing_watchdogs(notification, self._settings.slo)
        if watchdogs:
            self._hear(watchdogs)
        return bool(watchdogs)

    def _hear(self, watchdogs: Iterable[Watchdog]) -> None:
        with self._lock:
            self._heard_count += 1
            self._last_heard = time.monotonic()
            self._watchdogs.hear(watchdogs, self._last_heard)
            event = self._silence.hear(self._last_heard)
            if self._heard_count == 1:
                self.log.append("heard for the first time")
            if event is not None:
                self._tell(event)

    def status(self) -> dict[str, Any]:
        """What ``GET /status`` answers."""
        with self._lock:
            silence = self._silence
            waits = "hearing" if self._heard_count else "waiting"
            return {
                "state": "silent" if silence.outage else waits,
                "silent_seconds": round(silence.seconds, 3),
                "timeout_seconds": silence.timeout_seconds,
                "silent_since": rfc3339(self._since()),
                "heard": self._heard_count,
                "watchdogs": self._watchdogs.status(time.monotonic()),
                "turned_away": self.turned_away_count,
                "undelivered": len(self._outbox),
            }

    def _look_for_ever(self) -> None:
        pause_seconds = min(self._settings.timeout_seconds / 50, 1.0)
        while True:
            time.sleep(pause_seconds)
            with self._lock:
                event = self._silence.look(time.monotonic())
                if event is not None:
                    self._tell(event)

    def _tell(self, event: Event) -> None:
        self.log.append(event)
        if event == "silent":
            self._outage_since = self._since()
        ended = None if event == "silent" else _now()
        self._outbox.put(notification(self._outage_since, ended, self._settings.address))

    def _since(self) -> datetime.datetime:
        """When the silence began, by the clock on the wall as it is now: for people, never for decisions."""
        return _now() - datetime.timedelta(seconds=time.monotonic() - self._last_heard)


class _Handler(NotificationHandler):
    server: DeadMan
    usage = "GET /status or /healthz; POST notifications to /watchdog"

    def pages(self) -> Mapping[str, Callable[[], Mapping[str, Any]]]:
        return {"/status": self.server.status}

    def received(self, body: bytes) -> tuple[HTTPStatus, Mapping[str, Any]]:
        received = _parsed(body)
        if received is None:
            expected = "expected an Alertmanager notification: {'alerts': [{...}, ...]}"
            return HTTPStatus.BAD_REQUEST, {"error": expected}
        return HTTPStatus.OK, {"heard": self.server.hear(received)}


def _parsed(body: bytes) -> dict[str, Any] | None:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):  # no JSON, or brackets without end
        return None
    if not isinstance(content, dict) or not isinstance(content.get("alerts"), list):
        return None
    return content if all(isinstance(alert, dict) for alert in content["alerts"]) else None


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= HIGHEST_PORT):
        raise argparse.ArgumentTypeError(f"expected a port from 1 to {HIGHEST_PORT}, found {text!r}")
    return int(text)


def _timeout(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number of seconds above 0, found {text!r}")
    return seconds


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise argparse.ArgumentTypeError(f"expected http://HOST/PATH or https://HOST/PATH, found {text!r}")
    return text


def _token_file(text: str) -> Path:
    path = Path(text).absolute()
    try:
        read_token(path)
    except TokenError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return path


def main() -> None:
    """Watch until told to stop."""
    parser = argparse.ArgumentParser(
        prog="python -m cmo_stack.dead_man", description="Pages when the watchdog is no longer heard."
    )
    parser.add_argument("--host", default=LOOPBACK, help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=DEFAULT_PORTS.dead_man)
    parser.add_argument(
        "--timeout",
        type=_timeout,
        default=DEFAULT_TIMEOUT_SECONDS,
        metavar="SECONDS",
        help="how long the watchdog may be silent; at least twice as long as it takes to come again",
    )
    parser.add_argument(
        "--notify",
        type=_url,
        default=f"http://{LOOPBACK}:{DEFAULT_PORTS.pager}/alerts",
        metavar="URL",
        help="whom to tell: a receiver of Alertmanager's webhooks",
    )
    parser.add_argument(
        "--notify-token-file",
        type=_token_file,
        metavar="FILE",
        help="holds the bearer token that --notify asks for; read whenever something is sent",
    )
    parser.add_argument(
        "--slo",
        metavar="NAME",
        help="wait for the watchdog with this label slo, such as cmo-015; without it, any watchdog will do",
    )
    parser.add_argument(
        "--log", type=Path, default=Path(".cmo/dead-man.jsonl"), help="one JSON line an event"
    )
    arguments = parser.parse_args()
    settings = Settings(
        arguments.port,
        arguments.timeout,
        arguments.notify,
        arguments.log,
        arguments.slo,
        arguments.notify_token_file,
        arguments.host,
    )
    try:
        with DeadMan(settings) as dead_man:
            dead_man.watch()
            dead_man.serve_forever()
    except OSError as error:
        raise SystemExit(
            f"The dead-man cannot listen on http://{settings.host}:{settings.port}, or not write "
            f"{settings.log}: {error}. "
            "Choose another --port or --log."
        ) from None
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None


if __name__ == "__main__":
    main()
