"""The stop-watch of one question: how long each step took, and the end of it when its time is over.

A time-out of a socket runs anew with each byte, so a server that sends one a second would never be too
late. Here one timer runs for the whole question, and shuts the connection down when it is over; whoever
waits at the socket then wakes up, and sees that the question has expired.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    Address = tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]

DNS: Final = "dns"
CONNECT: Final = "connect"
TLS: Final = "tls"
ANSWER: Final = "answer"


class Watch:
    """Times one question. A context manager: leaving it stops the timer.

    Attributes:
        step: what is under way: one of ``dns``, ``connect``, ``tls``, ``answer``.
        seconds: how long the steps of the connection took, by step, as far as they came.
        expired: whether the time is over.
        cause: what the step under way failed with.
    """

    def __init__(self, timeout_seconds: float) -> None:
        self.step = DNS
        self.seconds: dict[str, float] = {}
        self.expired = False
        self.cause: Exception | None = None
        self._timeout_seconds = timeout_seconds
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(timeout_seconds, self._expire)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()

    def elapsed(self) -> float:
        """Seconds since the question began."""
        return time.monotonic() - self._began

    def remaining(self) -> float:
        """Seconds until it expires; never 0, which would mean a socket that does not wait."""
        return max(self._timeout_seconds - self.elapsed(), 0.001)

    @contextlib.contextmanager
    def timing(self, step: str) -> Iterator[None]:
        """Time a step; what it raises is kept as its cause."""
        self.step = step
        began = time.monotonic()
        try:
            yield
        except Exception as error:
            self.cause = error
            raise
        self.seconds[step] = time.monotonic() - began

    def follow(self, connection: socket.socket) -> None:
        """Shut this connection down when the time is over, or at once when it is."""
        with self._lock:
            self._socket = connection
            if self.expired:
                _shut_down(connection)

    def connect(self, host: str, port: int) -> socket.socket:
        """Resolve the name and connect to the first of its addresses that answers.

        Raises:
            OSError: no address answers, the name has none, or the time is over.
        """
        with self.timing(DNS):
            addresses = self._resolve(host, port)
        with self.timing(CONNECT):
            return self._connect_to_one_of(addresses)

    def _resolve(self, host: str, port: int) -> Sequence[Address]:
        # The resolver knows no time-out; it is left to its own devices when it takes too long.
        found: SimpleQueue[Sequence[Address] | Exception] = SimpleQueue()

        def resolve() -> None:
            try:
                found.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
            except (OSError, UnicodeError) as error:
                found.put(error)

        threading.Thread(target=resolve, name="cmo-probe-resolver", daemon=True).start()
        try:
            addresses = found.get(timeout=self.remaining())
        except Empty:
            raise TimeoutError(f"no address within {self._timeout_seconds:g} s") from None
        if isinstance(addresses, Exception):
            raise addresses
        return addresses

    def _connect_to_one_of(self, addresses: Sequence[Address]) -> socket.socket:
        failed: OSError = OSError("the name has no address")
        for family, kind, protocol, _, address in addresses:
            connection = socket.socket(family, kind, protocol)
            try:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.settimeout(self.remaining())
                connection.connect(address)
                self.follow(connection)
            except OSError as error:
                connection.close()
                failed = error
            except BaseException:
                connection.close()
                raise
            else:
                return connection
        raise failed

    def _expire(self) -> None:
        with self._lock:
            self.expired = True
            if self._socket is not None:
                _shut_down(self._socket)


def _shut_down(connection: socket.socket) -> None:
    # The socket's own method: that of a TLS socket would pull the session from under whoever reads it.
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
