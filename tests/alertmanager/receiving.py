"""Receivers on loopback for what a real Alertmanager sends: HTTP, and mail over STARTTLS with a password."""

from __future__ import annotations

import base64
import contextlib
import email
import email.policy
import json
import socketserver
import ssl
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from email.message import EmailMessage
    from pathlib import Path

LOOPBACK: Final = "127.0.0.1"


@dataclass(frozen=True)
class Request:
    """One POST."""

    path: str
    authorization: str
    content: dict[str, Any]


@dataclass
class HttpReceiver:
    """Keeps every POST; ``status`` is what it answers with."""

    port: int = 0
    status: int = 200
    requests: list[Request] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{LOOPBACK}:{self.port}"

    def at(self, path: str) -> list[dict[str, Any]]:
        """What came to a path, oldest first."""
        return [request.content for request in list(self.requests) if request.path == path]

    def alerts_at(self, path: str, status: str = "firing") -> list[tuple[str, str]]:
        """Name and slo of the alerts that a webhook at a path was told of, each time."""
        return [
            (alert["labels"]["alertname"], alert["labels"].get("slo", ""))
            for content in self.at(path)
            for alert in content["alerts"]
            if alert["status"] == status
        ]


@contextlib.contextmanager
def receiving_http() -> Iterator[HttpReceiver]:
    """A receiver of webhooks."""
    receiver = HttpReceiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            authorization = self.headers.get("Authorization", "")
            receiver.requests.append(Request(self.path, authorization, json.loads(body)))
            # PagerDuty answers with JSON, Slack with this word.
            answer = b'{"status": "success"}' if self.path == "/pagerduty" else b"ok"
            self.send_response(receiver.status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
    receiver.port = server.server_port
    with _serving(server):
        yield receiver


@dataclass
class MailReceiver:
    """Keeps every message."""

    user: str
    password: str
    certificate: Path
    key: Path
    port: int = 0
    messages: list[EmailMessage] = field(default_factory=list)
    refused: int = 0

    def to(self, address: str) -> list[EmailMessage]:
        """The messages to an address, oldest first."""
        return [message for message in list(self.messages) if address in message["To"]]


@contextlib.contextmanager
def receiving_mail(receiver: MailReceiver) -> Iterator[MailReceiver]:
    """A mail server that takes no mail before STARTTLS and the right password."""

    class Handler(_SmtpSession):
        mail = receiver

    server = socketserver.ThreadingTCPServer((LOOPBACK, 0), Handler)
    server.daemon_threads = True
    receiver.port = server.server_address[1]
    with _serving(server):
        yield receiver


class _SmtpSession(socketserver.StreamRequestHandler):
    """One connection, as RFC 5321, 3207 (STARTTLS) and 4954 (AUTH PLAIN) have it, and no more."""

    mail: MailReceiver
    secure = False
    trusted = False

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            self._say("220 loopback")
            while line := self.rfile.readline():
                words = line.decode().split()
                if not self._answer(words[0].upper() if words else "", words[1:]):
                    return

    def _answer(self, verb: str, arguments: list[str]) -> bool:
        if verb in {"EHLO", "HELO"}:
            self._say(f"250-loopback\r\n250 {'AUTH PLAIN' if self.secure else 'STARTTLS'}")
        elif verb == "STARTTLS":
            self._say("220 go on")
            self._wrap()
        elif verb == "AUTH" and self.secure:
            self._log_in(arguments[1])
        elif verb == "QUIT":
            self._say("221 bye")
            return False
        elif not self.trusted:
            self._say("530 log in first")
        elif verb == "DATA":
            self._take()
        else:
            self._say("250 ok")
        return True

    def _wrap(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.mail.certificate, self.mail.key)
        self.request = context.wrap_socket(self.request, server_side=True)
        self.secure = True
        self.setup()

    def _log_in(self, initial: str) -> None:
        _, user, password = base64.b64decode(initial).decode().split("\0")
        self.trusted = (user, password) == (self.mail.user, self.mail.password)
        if not self.trusted:
            self.mail.refused += 1
        self._say("235 welcome" if self.trusted else "535 wrong user or password")

    def _take(self) -> None:
        self._say("354 go on")
        lines = []
        while (line := self.rfile.readline()) not in {b".\r\n", b""}:
            lines.append(line.removeprefix(b"."))
        self.mail.messages.append(email.message_from_bytes(b"".join(lines), policy=email.policy.default))
        self._say("250 taken")

    def _say(self, line: str) -> None:
        self.wfile.write(line.encode() + b"\r\n")
        self.wfile.flush()


@contextlib.contextmanager
def _serving(server: socketserver.TCPServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
