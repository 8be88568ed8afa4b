"""A process that loads a service over keep-alive connections, each of which waits for its answer.

It must cost less than what it measures: one thread, sockets and a selector, no HTTP library.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from cmo_bench.exporter.question import QUERY_PATH, QUESTION

if TYPE_CHECKING:
    from collections.abc import Callable

CONNECTIONS: Final = 32

_REQUEST: Final = (
    f"POST {QUERY_PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    f"Content-Length: {len(QUESTION)}\r\n\r\n"
).encode() + QUESTION
_TIMEOUT_SECONDS: Final = 60.0
_RECEIVE_BYTES: Final = 65536


@dataclass
class _Connection:
    connection: socket.socket
    sent_at: float = 0.0
    received: bytes = b""

    def ask(self) -> None:
        self.received = b""
        self.sent_at = time.perf_counter()
        self.connection.sendall(_REQUEST)

    def answered(self) -> bool:
        """Take what has come; true when the answer is complete."""
        piece = self.connection.recv(_RECEIVE_BYTES)
        if not piece:
            raise ConnectionError("the service closed a connection that it should have kept")
        self.received += piece
        head, separator, body = self.received.partition(b"\r\n\r\n")
        if not separator:
            return False
        if not head.startswith(b"HTTP/1.1 200 "):
            raise ConnectionError(f"the service answered {head.splitlines()[0]!r}")
        _, _, rest = head.lower().partition(b"\r\ncontent-length:")
        return len(body) >= int(rest.partition(b"\r\n")[0])


@dataclass
class _Load:
    """The connections to one service."""

    port: int
    connections: list[_Connection] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        for _ in range(CONNECTIONS):
            opened = socket.create_connection(("127.0.0.1", self.port), timeout=_TIMEOUT_SECONDS)
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = _Connection(opened)
            self.connections.append(connection)
            self._selector.register(opened, selectors.EVENT_READ, connection)

    def run(self, go_on: Callable[[int], bool]) -> list[float]:
        """Ask on all connections until told not to; returns the seconds that each answer took."""
        asked = 0
        latencies: list[float] = []
        for connection in self.connections:
            connection.ask()
            asked += 1
        while len(latencies) < asked:
            ready = self._selector.select(_TIMEOUT_SECONDS)
            if not ready:
                raise TimeoutError(f"no answer in {_TIMEOUT_SECONDS:g} s")
            for key, _ in ready:
                connection = key.data
                if connection.answered():
                    latencies.append(time.perf_counter() - connection.sent_at)
                    if go_on(asked):
                        connection.ask()
                        asked += 1
        return latencies

    def close(self) -> None:
        for connection in self.connections:
            connection.connection.close()
        self._selector.close()


class _Loads:
    def __init__(self) -> None:
        self._loads: dict[int, _Load] = {}

    def requests(self, port: int, number: int) -> dict[str, Any]:
        """So many requests; returns how long they took together."""
        load = self._of(port)
        began = time.perf_counter()
        load.run(lambda asked: asked < number)
        return {"seconds": time.perf_counter() - began}

    def seconds(self, port: int, seconds: float) -> dict[str, Any]:
        """As many requests as that time allows; returns how long each took."""
        load = self._of(port)
        end = time.perf_counter() + seconds
        return {"latencies": load.run(lambda _: time.perf_counter() < end)}

    def leave(self, port: int) -> dict[str, Any]:
        """Close the connections to a service that is about to end: another may get its port."""
        self._loads.pop(port).close()
        return {}

    def _of(self, port: int) -> _Load:
        return self._loads.get(port) or self._loads.setdefault(port, _Load(port))


def main() -> int:
    """Load services as the input says."""
    loads = _Loads()
    for line in sys.stdin:
        command, *numbers = json.loads(line)
        sys.stdout.write(json.dumps(getattr(loads, command)(*numbers)) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
