"""Ask a server of the stack whether it serves: over loopback, never through a proxy, in the standard library.

Every function answers, rather than raises, when nothing listens: it is asked again and again while a server
starts, and once by ``cmo stack status``.
"""

from __future__ import annotations

import http.client
import json
import socket
import time
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

LOOPBACK: Final = "127.0.0.1"
_TIMEOUT_SECONDS: Final = 5.0
_LISTENING: Final = "0A"  # a state in /proc/net/tcp


def get(port: int, path: str) -> tuple[int, bytes]:
    """Status and body of a GET request; status 0 when nothing answers."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def answers(port: int, path: str) -> bool:
    """Whether a GET request is answered with 200."""
    return get(port, path)[0] == http.client.OK


def redis_answers(port: int) -> bool:
    """Whether a Redis answers a PING."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=_TIMEOUT_SECONDS) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def listens(pid: int, port: int) -> bool:
    """Whether it is this process that listens at the port, and not another one that answers there."""
    try:
        held = {str(descriptor.readlink()) for descriptor in Path(f"/proc/{pid}/fd").iterdir()}
        sockets = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    except OSError:  # it has ended, or has just closed a file
        return False
    return any(
        fields[1].endswith(f":{port:04X}") and fields[3] == _LISTENING and f"socket:[{fields[9]}]" in held
        for fields in sockets
    )


def scrapes(prometheus_port: int, job: str, since: float) -> int:
    """How many times Prometheus has scraped a job since a Unix time; 0 when it does not answer."""
    milliseconds = max(int((time.time() - since) * 1000), 1)
    query = urlencode({"query": f'sum(sum_over_time(up{{job="{job}"}}[{milliseconds}ms]))'})
    status, body = get(prometheus_port, f"/api/v1/query?{query}")
    result = json.loads(body)["data"]["result"] if status == http.client.OK else []
    return int(float(result[0]["value"][1])) if result else 0
