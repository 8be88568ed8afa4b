"""Real servers for the tests of this room: Redis, and two upstream stubs."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING

import pytest
from cmo_stack import servers
from cmo_stack.free_ports import free_port
from cmo_stack.process import ManagedProcess

from .running import Stub

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


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    redis = RedisServer(tmp_path_factory.mktemp("redis"))
    with redis.process:
        yield redis


@pytest.fixture(scope="session")
def index_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tests keep the engine's index: built once, also when several processes run them."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "index"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def indexes(index_folder: Path) -> Path:
    """That folder, with the index of the whole corpus in it."""
    from .running_engine import build_index  # noqa: PLC0415 - takes seconds, and most tests do without it

    asyncio.run(build_index(index_folder))
    return index_folder


@pytest.fixture(scope="session")
def upstream_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stub]:
    stub = Stub(tmp_path_factory.mktemp("upstream"))
    with stub.process:
        yield stub


@pytest.fixture(scope="session")
def fallback_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stub]:
    """Another stub, for Perplexity: the two can fail apart, and it can be stopped while it streams."""
    stub = Stub(tmp_path_factory.mktemp("fallback"), seconds=0.4)
    with stub.process:
        yield stub


@pytest.fixture
def upstream(upstream_process: Stub) -> Iterator[Stub]:
    yield upstream_process
    upstream_process.fail(None)


@pytest.fixture
def fallback(fallback_process: Stub) -> Iterator[Stub]:
    yield fallback_process
    if not fallback_process.process.running:
        fallback_process.process.start()
    fallback_process.fail(None)
