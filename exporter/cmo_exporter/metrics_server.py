"""The HTTP server behind ``/metrics``: small, from its own threads, and hard to stop up.

It has threads of its own so that a blocked event loop cannot hide itself. prometheus-client's server would
compress at the highest level for a scraper on the same machine, resolve host names when it starts, answer on
every path, and start a thread for each connection without limit.

Every connection is one request: read within a deadline, answered, closed. Handshakes and slow requests happen
in the connection's thread, so that none holds up another; when there are too many, the one that has kept us
waiting longest makes room, because a scraper that is well sends its request at once.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import socket
import socketserver
import threading
import time
import zlib
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, Final

from cmo_exporter.errors import ExporterError, MetricsAddressError
from cmo_exporter.metrics_access import MetricsAccess

if TYPE_CHECKING:
    from collections.abc import Callable

    Renderer = Callable[[str], tuple[bytes, str]]

_log = logging.getLogger("cmo_exporter")

METRICS_PATH: Final = "/metrics"
_PLAIN: Final = "text/plain; charset=utf-8"
_REQUEST_DEADLINE_SECONDS: Final = 10.0
_ANSWER_TIMEOUT_SECONDS: Final = 10.0
_MOST_CONNECTIONS: Final = 16
_POLL_SECONDS: Final = 1.0
_PAUSE_WITHOUT_RESOURCES_SECONDS: Final = 0.1
_CLOSE_TIMEOUT_SECONDS: Final = 5.0
_LINGER_SECONDS: Final = 0.5
_MOST_READS_OF_A_BODY: Final = 16
_READ_BYTES: Final = 65536
_OUT_OF_RESOURCES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
# Below this a compressed answer saves no packet worth the time.
_SMALLEST_COMPRESSED_BYTES: Final = 4096
_GZIP_WINDOW_BITS: Final = 31


def _ignore(_: object) -> None:
    pass


class MetricsServer:
    """Serves what ``render`` returns at ``/metrics``.

    Args:
        render: takes the header ``Accept``, returns the body and its content type; called from any thread.
        host: address to listen at.
        port: its port; 0 takes a free one.
        beside_others: whether other workers of the service listen at the same port; the kernel then gives
            each connection to one of them.
        access: what a reader must show; nothing, when it is not given.
        count: called with the result of every request, one of `catalogue.METRICS_REQUEST_RESULTS`.
        failed: called with what ``render`` raised.

    Raises:
        MetricsAddressError: nothing can listen at this host and port.
    """

    def __init__(
        self,
        render: Renderer,
        host: str,
        port: int,
        *,
        beside_others: bool = False,
        access: MetricsAccess | None = None,
        count: Callable[[str], None] = _ignore,
        failed: Callable[[Exception], None] = _ignore,
    ) -> None:
        self._site = _Site(render, access or MetricsAccess(), count, failed)
        self._server = _listen(self._site, host, port, beside_others=beside_others)
        self.host = host
        self._address, self.port = self._server.server_address[:2]
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_SECONDS,), name="cmo-metrics", daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """Where Prometheus finds the metrics."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        scheme = "http" if self._site.access.tls is None else "https"
        return f"{scheme}://{host}:{self.port}{METRICS_PATH}"

    def warn_when_open_to_all(self) -> None:
        """Say so in the log when other machines can read the metrics without more ado."""
        if self._site.access.open_to_all and not _is_loopback(str(self._address)):
            _log.warning(
                "/metrics listens at %s, port %d, beyond this machine, with neither a token nor TLS: whoever "
                "reaches the port can read it. Set metrics_token_file, metrics_tls_certificate or both, or "
                "host to 127.0.0.1.",
                self.host,
                self.port,
            )

    def forget(self) -> None:
        """In a forked child: the threads are the parent's; let go of its sockets, lest scrapes come here."""
        self._server.socket.close()
        self._server.connections.forget()

    def close(self) -> None:
        """Stop serving, cut off who is still connected, and free the port."""
        # Its thread looks now and then whether it is to end; this lets it look at once.
        with contextlib.suppress(OSError):
            self._server.socket.shutdown(socket.SHUT_RDWR)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._server.connections.close()


class _Site:
    """What the handler of a connection needs to know."""

    def __init__(
        self,
        render: Renderer,
        access: MetricsAccess,
        count: Callable[[str], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self.render = render
        self.access = access
        self._count = count
        self._failed = failed

    def count(self, result: str) -> None:
        """Count a request; an error in counting must not cost the answer."""
        with contextlib.suppress(Exception):
            self._count(result)

    def failed(self, error: Exception) -> None:
        """Report what the renderer raised; likewise."""
        with contextlib.suppress(Exception):
            self._failed(error)


class _Connection:
    """One connection and how long it has kept us waiting."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.since = time.monotonic()
        self.waiting = True
        self.thread: threading.Thread | None = None

    def waits_for_reader(self) -> None:
        """The answer is there; a reader that does not take it keeps a place from others."""
        self.since = time.monotonic()
        self.waiting = True

    def cut(self) -> None:
        """End it, also while its thread waits in it."""
        self.waiting = False
        # Not `self.socket.shutdown`: with TLS that would take the session away under its thread.
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.socket, socket.SHUT_RDWR)


class _Connections:
    """The connections of this moment: so many at most, none of which may keep us waiting for long."""

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._lock = threading.Lock()
        self._open: set[_Connection] = set()

    def admit(self, connection: _Connection) -> tuple[bool, int]:
        """Take a connection in, where need be in the place of the one that has been waited for longest.

        Returns:
            Whether there was room, and how many were cut off for it.
        """
        cut = 0
        with self._lock:
            if len(self._open) >= self._maximum:
                waiting = [one for one in self._open if one.waiting]
                if not waiting:
                    return False, 0
                oldest = min(waiting, key=lambda one: one.since)
                oldest.cut()
                self._open.discard(oldest)
                cut = 1
            self._open.add(connection)
            return True, cut

    def replace_socket(self, connection: _Connection, wrapped: socket.socket) -> None:
        """The connection goes on through this socket, unless it has been cut off."""
        with self._lock:
            connection.socket = wrapped
            if not connection.waiting:
                connection.cut()

    def leave(self, connection: _Connection) -> None:
        """The connection has ended; its socket is closed where nobody can be about to cut it off."""
        with self._lock:
            self._open.discard(connection)
            connection.socket.close()

    def cut_off_the_slow(self) -> int:
        """End the connections that have not sent their request by now; returns how many."""
        before = time.monotonic() - _REQUEST_DEADLINE_SECONDS
        with self._lock:
            slow = [one for one in self._open if one.waiting and one.since < before]
            for one in slow:
                one.cut()
        return len(slow)

    def forget(self) -> None:
        """In a forked child, which has copies of the parent's sockets but not its threads: close them."""
        for one in list(self._open):
            socket.close(one.socket.detach())  # `close` would wait for the handler, which is not there

    def close(self) -> None:
        """Cut off who is waited for, and let the others finish, for a while."""
        with self._lock:
            left = list(self._open)
            for one in left:
                if one.waiting:
                    one.cut()
        deadline = time.monotonic() + _CLOSE_TIMEOUT_SECONDS
        for one in left:
            if one.thread is not None:
                one.thread.join(max(0.0, deadline - time.monotonic()))


class _Server(socketserver.TCPServer):
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(
        self, site: _Site, family: socket.AddressFamily, address: tuple[str, int], *, beside_others: bool
    ) -> None:
        self.address_family = family
        self.allow_reuse_port = beside_others
        self.site = site
        self.connections = _Connections(_MOST_CONNECTIONS)
        super().__init__(address, _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; without a file left for it, wait a little instead of trying at full speed."""
        try:
            return self.socket.accept()
        except OSError as error:
            if error.errno in _OUT_OF_RESOURCES:
                time.sleep(_PAUSE_WITHOUT_RESOURCES_SECONDS)
            raise

    def service_actions(self) -> None:
        """After each connection, and once a second: cut off the slow."""
        for _ in range(self.connections.cut_off_the_slow()):
            self.site.count("cut_off")

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing is printed; the connection is closed by the caller."""

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a new connection in its own thread."""
        connection = _Connection(request)
        admitted, cut = self.connections.admit(connection)
        for _ in range(cut):
            self.site.count("cut_off")
        if not admitted:
            self.site.count("refused")
            request.close()
            return
        connection.thread = threading.Thread(
            target=self._serve, args=(connection, client_address), name="cmo-metrics-connection", daemon=True
        )
        try:
            connection.thread.start()
        except RuntimeError:  # no more threads for this process
            self.site.count("refused")
            self.connections.leave(connection)

    def _serve(self, connection: _Connection, client_address: Any) -> None:
        try:
            connection.socket.settimeout(2 * _REQUEST_DEADLINE_SECONDS)  # the slow are cut off before
            tls = self.site.access.tls
            if tls is not None:
                wrapped = tls.context().wrap_socket(
                    connection.socket, server_side=True, do_handshake_on_connect=False
                )
                self.connections.replace_socket(connection, wrapped)
                wrapped.do_handshake()
            _Handler(connection, client_address, self)
        except OSError:
            pass  # who hangs up, or speaks no TLS, is no error of ours
        except Exception as error:  # noqa: BLE001 - a thread must not print a traceback into the service's log
            self.site.failed(error)
        finally:
            self.connections.leave(connection)


class _Handler(BaseHTTPRequestHandler):
    """Answers one request for ``/metrics``, and writes no log: a scrape each second is no news."""

    protocol_version = "HTTP/1.1"
    server_version = "cmo-exporter"
    sys_version = ""
    server: _Server

    def __init__(self, connection: _Connection, client_address: Any, server: _Server) -> None:
        self._connection = connection
        self._site = server.site
        super().__init__(connection.socket, client_address, server)

    def do_GET(self) -> None:
        """Render the metrics in the format that the scraper asks for."""
        self._connection.waiting = False
        token = self._site.access.token
        if token is not None and not token.admits(self.headers.get("Authorization")):
            self._refuse()
        elif self.path.partition("?")[0] != METRICS_PATH:
            self._say(404, "not_found", f"The metrics are at {METRICS_PATH}.")
        else:
            self._render()

    def do_HEAD(self) -> None:
        """The same, without the body."""
        self.do_GET()

    def send_error(self, code: int, *_: object, **__: object) -> None:
        """Answer what is no proper request; http.server calls this."""
        self._connection.waiting = False
        if code == 501:  # http.server's answer to a method without a handler of its own
            self._say(405, "wrong_method", "/metrics can only be read: use GET or HEAD.", Allow="GET, HEAD")
        else:
            self._say(code, "bad_request", "That is no HTTP request that can be answered here.")

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _render(self) -> None:
        try:
            body, content_type = self._site.render(self.headers.get("Accept") or "")
        except Exception as error:  # noqa: BLE001 - whatever it is, the scraper must hear of it
            self._site.failed(error)
            # Others' messages may hold anything; our own say how to mend it.
            why = str(error) if isinstance(error, ExporterError) else f"{type(error).__name__}."
            self._say(500, "failed", f"The metrics cannot be rendered: {why} The service itself goes on.")
            return
        headers = {"Content-Type": content_type}
        peer = str(self.client_address[0])
        if compresses(peer, self.headers.get("Accept-Encoding") or "", len(body)):
            compressor = zlib.compressobj(1, zlib.DEFLATED, _GZIP_WINDOW_BITS)
            body = compressor.compress(body) + compressor.flush()
            headers["Content-Encoding"] = "gzip"
        self._answer(200, headers, body)
        self._site.count("ok")

    def _refuse(self) -> None:
        self._say(
            401,
            "unauthorized",
            "A bearer token is needed: Authorization: Bearer TOKEN.",
            **{"WWW-Authenticate": 'Bearer realm="metrics"'},
        )

    def _say(self, status: int, result: str, line: str, **headers: str) -> None:
        self._site.count(result)
        self._answer(status, {"Content-Type": _PLAIN, **headers}, f"{line}\n".encode())

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.close_connection = True
        self.request_version = self.protocol_version  # or http.server would leave out status and headers
        self.connection.settimeout(_ANSWER_TIMEOUT_SECONDS)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()
        self._connection.waits_for_reader()
        if self.command != "HEAD":
            self.wfile.write(body)
        self._discard_the_rest()

    def _discard_the_rest(self) -> None:
        """Read the body that a request had no business to have.

        A socket that is closed with unread input resets the connection, and the answer may be lost with it.
        """
        headers = getattr(self, "headers", None)
        if headers is None or not (headers.get("Content-Length") or headers.get("Transfer-Encoding")):
            return
        self.wfile.flush()
        socket.socket.shutdown(self.connection, socket.SHUT_WR)
        self.connection.settimeout(_LINGER_SECONDS)
        for _ in range(_MOST_READS_OF_A_BODY):
            if not self.connection.recv(_READ_BYTES):
                return


def compresses(peer: str, accept_encoding: str, size: int) -> bool:
    """Whether an answer is worth compressing.

    Never for a reader on this machine, whatever it asks for: Prometheus always asks, and there
    compressing costs both sides more time than it saves. Beyond this machine level 1 takes some 1 ms for
    270 kB and leaves a fifteenth of them.
    """
    if size < _SMALLEST_COMPRESSED_BYTES or _is_loopback(peer):
        return False
    for offer in accept_encoding.lower().split(","):
        coding, *parameters = (part.strip() for part in offer.split(";"))
        if coding == "gzip":
            return not any(
                parameter.startswith("q=") and not parameter[2:].strip("0.") for parameter in parameters
            )
    return False


def _is_loopback(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback


def _listen(site: _Site, host: str, port: int, *, beside_others: bool) -> _Server:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        endpoint = (str(address[0]), int(address[1]))
        return _Server(site, family, endpoint, beside_others=beside_others)
    except (OSError, OverflowError, UnicodeError) as error:
        raise MetricsAddressError(
            f"/metrics cannot be served at {host}, port {port}: {getattr(error, 'strerror', None) or error}. "
            "Stop what listens there, or set another port (0 takes a free one) or another host."
        ) from error
