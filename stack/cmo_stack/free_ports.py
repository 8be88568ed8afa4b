"""Find a TCP port for a server that is to be started, so that it is still free when the server gets there.

A port that the kernel chooses may be given away again before the server has bound it: to whoever asks next,
or to an outgoing connection, of which a load test makes thousands. So ports come from below the range of
outgoing connections, and each is promised to one caller on this machine at a time.
"""

from __future__ import annotations

import errno
import os
import random
import socket
from collections import deque
from pathlib import Path
from typing import Final

_LOWEST: Final = 10_000
_OUTGOING: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_TRIES: Final = 1_000
_PROMISES: Final = 64

_promises: Final[deque[socket.socket]] = deque()


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that nothing listens on, and that nobody else is given who asks here.

    The promise holds as long as this process lives, or until it has asked for 64 more.

    Raises:
        OSError: no port is free.
    """
    candidates = range(_LOWEST, _first_outgoing())
    for port in random.SystemRandom().sample(candidates, min(_TRIES, len(candidates))):
        promise = _promised(port)
        if promise is None:
            continue
        if _is_free(host, port):
            _keep(promise)
            return port
        promise.close()
    raise OSError(errno.EADDRINUSE, f"{os.strerror(errno.EADDRINUSE)}: no TCP port of {host} is free")


def _first_outgoing() -> int:
    """Where ports of outgoing connections begin; all ports are ours if they begin too low to leave us any."""
    try:
        first = int(_OUTGOING.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        first = 0
    return first if first >= _LOWEST + _TRIES else 2**16


def _promised(port: int) -> socket.socket | None:
    """A promise of a port: a name that one socket at a time can have, until it is closed."""
    promise = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        promise.bind(f"\0cmo-free-port-{port}")
    except OSError:
        promise.close()
        return None
    return promise


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as listener:
        try:
            listener.bind((host, port))
        except OSError:
            return False
    return True


def _keep(promise: socket.socket) -> None:
    _promises.append(promise)
    if len(_promises) > _PROMISES:
        _promises.popleft().close()
