"""The `requests` adapter of the prober: each question over a connection of its own, each step timed.

A user who comes to the page resolves its name, connects and shakes hands; a prober that keeps its connection
open would see none of that fail.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from cmo_probe.watch import ANSWER, CONNECT, DNS, TLS

if TYPE_CHECKING:
    import socket
    import ssl

    from urllib3.poolmanager import PoolManager

    from cmo_probe.watch import Watch


class TimedAdapter(HTTPAdapter):
    """Sends one question, whose steps ``watch`` times.

    ``tls`` holds the certificates that are trusted. It is made once and beforehand: reading them takes as
    long as a handshake.
    """

    def __init__(self, watch: Watch, tls: ssl.SSLContext) -> None:
        self._watch = watch
        self._tls = tls
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **keywords: Any) -> None:
        """Make the pools of our own kind of connections."""
        super().init_poolmanager(*args, **keywords, ssl_context=self._tls)
        manager: PoolManager = self.poolmanager
        manager.pool_classes_by_scheme = {"http": _pool(self._watch), "https": _tls_pool(self._watch)}

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:  # noqa: ARG002 - the base's
        """Verify against the context alone: the base class would read its bundle for each connection."""
        conn.cert_reqs = "CERT_REQUIRED"


def _pool(watch: Watch) -> type[HTTPConnectionPool]:
    class Connection(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return watch.connect(self._dns_host, self.port)

        def connect(self) -> None:
            super().connect()
            watch.step = ANSWER

    class Pool(HTTPConnectionPool):
        ConnectionCls = Connection

    return Pool


def _tls_pool(watch: Watch) -> type[HTTPSConnectionPool]:
    class Connection(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            connection = watch.connect(self._dns_host, self.port or 443)
            watch.step = TLS
            return connection

        def connect(self) -> None:
            began = time.monotonic()
            try:
                super().connect()
            except Exception as error:
                watch.cause = watch.cause or error
                raise
            before = watch.seconds[DNS] + watch.seconds[CONNECT]
            watch.seconds[TLS] = time.monotonic() - began - before
            # From here on the socket that is read is the one that speaks TLS.
            if self.sock is not None:
                watch.follow(self.sock)
            watch.step = ANSWER

    class Pool(HTTPSConnectionPool):
        ConnectionCls = Connection

    return Pool
