"""A webhook receiver that knows when each notification came."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Self

from cmo_stack.health import LOOPBACK

if TYPE_CHECKING:
    from types import TracebackType


class Receiver:
    """Listens on a port while its context is open."""

    def __init__(self, port: int) -> None:
        self._came = threading.Condition()
        self._firing: dict[str, float] = {}
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                now = time.time()
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                receiver._take(now, body)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer((LOOPBACK, port), Handler)
        self._server.daemon_threads = True

    def firing_since(self, alert: str, timeout_seconds: float = 0.0) -> float | None:
        """When the first notification came that an alert fires (Unix time); ``None`` if none has in time."""
        with self._came:
            self._came.wait_for(lambda: alert in self._firing, timeout_seconds)
            return self._firing.get(alert)

    def _take(self, now: float, notification: dict[str, list[dict[str, dict[str, str]]]]) -> None:
        with self._came:
            for alert in notification["alerts"]:
                if str(alert["status"]) == "firing":
                    self._firing.setdefault(alert["labels"]["alertname"], now)
            self._came.notify_all()

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
