"""An HTTP server for what Alertmanager sends: what the pager and the dead-man have in common.

Anybody on this machine may connect, so no sender may take what the next one needs: threads, file descriptors,
the size of a notification and the time for a request are bounded. The standard library alone.
"""

from __future__ import annotations

import contextlib
import io
import json
import socket
import sys
import threading
import time
from abc import ABC, abstractmethod
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_LARGEST_NOTIFICATION_BYTES: Final = 1_000_000
_MOST_DIGITS: Final = 12
_LONGEST_REQUEST_SECONDS: Final = 10.0
_MOST_CONNECTIONS: Final = 32

_Request = socket.socket | tuple[bytes, socket.socket]  # as the base class has it, also for UDP


class NotificationServer(ThreadingHTTPServer):
    """Serves each connection in a thread of its own, and no more of them than it can."""

    daemon_threads = True
    # What is sent while this process is stopped waits in the kernel, and is heard when it goes on.
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[NotificationHandler]) -> None:
        super().__init__(address, handler)
        self._places = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        self.turned_away_count = 0

    def process_request(self, request: _Request, client_address: Any) -> None:
        """Serve a connection in a thread of its own; close it at once when there are too many."""
        if not self._places.acquire(blocking=False):
            self.turned_away_count += 1
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread could be started
            self._places.release()
            raise

    def process_request_thread(self, request: _Request, client_address: Any) -> None:
        """Serve a connection, and make room for the next."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a sender that has gone; anything else is a fault of ours, and is shown."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class NotificationHandler(BaseHTTPRequestHandler, ABC):
    """Answers ``GET`` of a few pages in JSON or as text, and hands over the body of what is posted."""

    usage: str
    """What can be asked for, told to who asks for something else."""

    @abstractmethod
    def pages(self) -> Mapping[str, Callable[[], Mapping[str, Any] | str]]:
        """What makes the content of each page, by its path, a text or JSON; ``/healthz`` is there already."""

    @abstractmethod
    def received(self, body: bytes) -> tuple[HTTPStatus, Mapping[str, Any]]:
        """Take in what was posted; the status and the content of the answer."""

    def setup(self) -> None:
        """Give the request a deadline."""
        super().setup()
        self.rfile.close()  # it holds the connection open as long as it is
        deadline = time.monotonic() + _LONGEST_REQUEST_SECONDS
        self.rfile = io.BufferedReader(_UntilDeadline(self.connection, deadline))

    def do_GET(self) -> None:
        """Answer with a page."""
        page = {"/healthz": lambda: {"status": "ok"}, **self.pages()}.get(self.path)
        if page is None:
            self._answer(HTTPStatus.NOT_FOUND, {"error": self.usage})
        else:
            self._answer(HTTPStatus.OK, page())

    def do_POST(self) -> None:
        """Hand over a notification, unless it is too large or comes too slowly."""
        length = self.headers.get("Content-Length") or ""
        if not (length.isascii() and length.isdigit()):
            self._refuse(HTTPStatus.LENGTH_REQUIRED, "expected a Content-Length, in bytes")
        elif len(length) > _MOST_DIGITS or int(length) > _LARGEST_NOTIFICATION_BYTES:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "at most 1 MB")
        else:
            try:
                body = self.rfile.read(int(length))
            except OSError:  # the sender is too slow, or gone
                self.close_connection = True
                return
            self._answer(*self.received(body))

    def _refuse(self, status: HTTPStatus, problem: str) -> None:
        self.close_connection = True
        self._answer(status, {"error": problem})

    def _answer(self, status: HTTPStatus, content: Mapping[str, Any] | str) -> None:
        form, text = (
            ("text/plain; charset=utf-8", content)
            if isinstance(content, str)
            else ("application/json", json.dumps(content))
        )
        body = text.encode()
        with contextlib.suppress(OSError):  # whoever asked has gone
            self.send_response(status)
            self.send_header("Content-Type", form)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Say nothing about requests: what they bring has a log of its own."""


class _UntilDeadline(io.RawIOBase):
    """Reads from a connection until a deadline. A time-out alone begins again with every byte."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        super().__init__()
        self._connection = connection
        self._deadline = deadline

    def readable(self) -> bool:
        """It is there to be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what has come, and wait for it no longer than until the deadline."""
        left_seconds = self._deadline - time.monotonic()
        if left_seconds <= 0:
            raise TimeoutError("the request took too long")
        self._connection.settimeout(left_seconds)
        return self._connection.recv_into(buffer)
