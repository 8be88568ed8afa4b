"""The process that is measured: it builds one variant and obeys commands, one JSON line each, on its input.

Its event loop runs all the time, as a service's does, also while it waits for the next command: what an
instrumentation does beside requests then goes on as it would. It ends when its input does.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import uvicorn

from cmo_bench.exporter import variants
from cmo_bench.exporter.question import QUERY_PATH, QUESTION

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from cmo_exporter import Exporter

_KEEP_ALIVE_SECONDS: Final = 600
_POLL_SECONDS: Final = 0.01
_ODD_REQUESTS: Final = (
    ("GET", "/health", b""),
    ("GET", QUERY_PATH, b""),
    ("POST", QUERY_PATH, b"{}"),
    ("POST", "/nowhere", b""),
    ("BREW", "/health", b""),
)


class Subject:
    """One variant, and the commands that measure it."""

    def __init__(self, built: variants.Built) -> None:
        self._built = built
        self._server: uvicorn.Server | None = None
        self._serving: asyncio.Task[None] | None = None

    async def obey(self, command: str, *numbers: int) -> dict[str, Any]:
        """Do what a command asks; returns what it has to say."""
        told: dict[str, Any] = await getattr(self, f"do_{command}")(*numbers)
        return told

    async def do_settle(self) -> dict[str, Any]:
        """What start and warm-up have left is neither searched by the collector again nor measured."""
        gc.collect()
        gc.freeze()
        return {}

    async def do_requests(self, number: int) -> dict[str, Any]:
        """So many requests, one after the other, straight into the application.

        Each in a task of its own, as a server does it. The time is that of the processor for this process:
        its other threads count, other processes do not. What is to be sent of the requests is sent meanwhile.
        """
        gc.collect()
        app, task = self._built.app, asyncio.get_running_loop().create_task
        process = time.process_time()
        for _ in range(number):
            status = await task(_request(app))
            if status != 200:
                raise RuntimeError(f"the service answered with status {status}")
        self._built.flush()
        return {"process": time.process_time() - process}

    async def do_queries(self, number: int) -> dict[str, Any]:
        """So many queries through the interface, without HTTP."""
        exporter = self._exporter()
        gc.collect()
        process = time.process_time()
        for _ in range(number):
            with exporter.query() as query:
                query.cache_result("miss")
                query.answered("lightrag")
        return {"process": time.process_time() - process}

    async def do_component_calls(self, number: int) -> dict[str, Any]:
        """So many component calls of one query."""
        with self._exporter().query() as query:
            gc.collect()
            process = time.process_time()
            for _ in range(number):
                with query.component("lightrag"):
                    pass
            return {"process": time.process_time() - process}

    async def do_empty_loop(self, number: int) -> dict[str, Any]:
        """The same with a context manager that does nothing, for comparison."""
        nothing = contextlib.nullcontext()
        gc.collect()
        process = time.process_time()
        for _ in range(number):
            with nothing:
                pass
        return {"process": time.process_time() - process}

    async def do_serve(self) -> dict[str, Any]:
        """Serve over a socket on a free port."""
        config = uvicorn.Config(
            self._built.app,
            host="127.0.0.1",
            port=0,
            http="h11",
            loop="asyncio",
            access_log=False,
            log_level="warning",
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=1,
        )
        self._server = server = uvicorn.Server(config)
        self._serving = asyncio.get_running_loop().create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 - uvicorn offers nothing to wait for
            await asyncio.sleep(_POLL_SECONDS)
        return {"port": server.servers[0].sockets[0].getsockname()[1]}

    async def do_collect(self) -> dict[str, Any]:
        """Collect garbage, so that a round pays for its own alone."""
        gc.collect()
        return {}

    async def do_processor_time(self) -> dict[str, Any]:
        """Processor seconds of this process until now."""
        return {"process": time.process_time()}

    async def do_flush(self) -> dict[str, Any]:
        """Send what the requests so far have left to be sent."""
        await asyncio.get_running_loop().run_in_executor(None, self._built.flush)
        return {}

    async def do_odd_requests(self) -> dict[str, Any]:
        """Requests of every kind that the service knows, good and bad, for the series that they make."""
        app = self._built.app
        statuses = [await _request(app, method, path, body) for method, path, body in _ODD_REQUESTS]
        return {"statuses": statuses}

    async def do_recorded(self) -> dict[str, Any]:
        """How many requests the variant's metrics show."""
        return {"requests": self._built.recorded()}

    async def do_metrics_url(self) -> dict[str, Any]:
        """Where the exporter serves its metrics."""
        return {"url": self._exporter().metrics_url}

    async def do_memory(self) -> dict[str, Any]:
        """Resident and proportional memory of this process in bytes."""
        gc.collect()
        return _memory()

    async def do_close(self) -> dict[str, Any]:
        """Stop serving and send what is left."""
        if self._server is not None and self._serving is not None:
            self._server.should_exit = True
            await self._serving
            self._server = self._serving = None
        await asyncio.get_running_loop().run_in_executor(None, self._built.close)
        return {}

    def _exporter(self) -> Exporter:
        if self._built.exporter is None:
            raise ValueError("this variant has no exporter")
        return self._built.exporter


async def _request(
    app: Callable[..., Awaitable[None]], method: str = "POST", path: str = QUERY_PATH, body: bytes = QUESTION
) -> int:
    """One request, with as little of a server around it as an application needs; returns the status."""
    messages = iter(({"type": "http.request", "body": body, "more_body": False},))
    status = 0

    async def receive() -> dict[str, Any]:
        for message in messages:
            return message
        # The user waits for the answer: nothing more comes from them.
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    async def send(message: dict[str, Any]) -> None:
        nonlocal status
        status = message.get("status", status)

    await app(
        {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [
                (b"host", b"127.0.0.1:8000"),
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
            ],
            "client": ("127.0.0.1", 40000),
            "server": ("127.0.0.1", 8000),
            "state": {},
        },
        receive,
        send,
    )
    return status


def _memory() -> dict[str, Any]:
    sizes = {}
    for line in Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]:
        name, value = line.split(":")
        sizes[name] = int(value.split()[0]) * 1024
    return {"rss": sizes["Rss"], "pss": sizes["Pss"]}


async def _obey_input(subject: Subject) -> None:
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command, *numbers = json.loads(line)
        answer = await subject.obey(command, *numbers)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def main(arguments: Sequence[str]) -> int:
    """Build a variant in this process and measure it as the input says."""
    name, directory, otlp_endpoint, worker = arguments
    built = variants.build(name, variants.Surroundings(Path(directory), otlp_endpoint, worker))
    asyncio.run(_obey_input(Subject(built)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
