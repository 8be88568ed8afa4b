"""A real Redis for the tests of this room, one process for each test that asks."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from cmo_stack import servers
from cmo_stack.process import ManagedProcess, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class RedisServer:
    """A Redis that the test can kill and start again at the same address, empty."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        server = servers.newest("redis-server")
        options = {"port": self.port, "bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": folder}
        command = [str(server.path)]
        for name, value in options.items():
            command += [f"--{name}", str(value)]
        self.process = ManagedProcess(
            server.label,
            command,
            log_path=folder / "redis.log",
            ready=self._answers,
            environment=server.environment,
        )

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    folder = tmp_path / "redis"
    folder.mkdir()
    redis = RedisServer(folder)
    with redis.process:
        yield redis
