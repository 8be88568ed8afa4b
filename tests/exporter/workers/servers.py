"""Real servers with several workers around the service beside this file, asked and scraped over HTTP."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cmo_stack.free_ports import free_port
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

HERE = Path(__file__).parent
WORKERS = 4
GONE = (OSError, http.client.HTTPException)


def exchange(port: int, method: str, path: str, headers: Mapping[str, str] | None = None) -> bytes:
    """One request over a connection of its own, which takes a tenth of the time of a client that can more."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request(method, path, headers=dict(headers or {}))
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise http.client.HTTPException(answer.status)
        return body


class Service:
    """A server with several workers, and what its metrics say."""

    def __init__(self) -> None:
        self.port = free_port()
        self.metrics_port = free_port()

    def ask(self, **headers: str) -> int:
        """Ask one question over a connection of its own, so that any worker may get it; says which did."""
        renamed = {name.replace("_", "-"): value for name, value in headers.items()}
        return int(json.loads(exchange(self.port, "POST", "/query", renamed))["worker"])

    def samples(self) -> Samples:
        """All samples of one scrape."""
        text = exchange(self.metrics_port, "GET", "/metrics").decode()
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float | None:
        """One sample of a scrape."""
        return self.samples().get((name, frozenset(labels.items())))

    def total(self, name: str, **labels: str) -> float:
        """The sum of a metric over those of its samples that have these labels."""
        return total(self.samples(), name, **labels)

    def workers(self) -> dict[str, float]:
        """Start times by worker."""
        return {
            dict(labels)["worker"]: value
            for (name, labels), value in self.samples().items()
            if name == "cmo_worker_start_time_seconds"
        }


def total(samples: Samples, name: str, **labels: str) -> float:
    """The sum of a metric over those samples of a scrape that have these labels."""
    return sum(
        value
        for (found, held), value in samples.items()
        if found == name and labels.items() <= dict(held).items()
    )


@contextlib.contextmanager
def serving(
    server: str, service: Service, directory: Path, *, workers: int = WORKERS, **variables: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server, with these variables in its environment; nothing of it is left afterwards.

    What it says, the query log included, is in the file ``log`` of the directory.
    """
    name, *flags = server.split()
    address = {
        "uvicorn": ["--port", str(service.port), "--log-level", "warning"],
        "gunicorn": ["--bind", f"127.0.0.1:{service.port}", "--worker-class", "uvicorn_worker.UvicornWorker"],
    }[name]
    environment = {
        **os.environ,
        "SHARED_DIRECTORY": str(directory / "shared"),
        "METRICS_PORT": str(service.metrics_port),
        **variables,
    }
    with (directory / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", name, "service:app", "--workers", str(workers), *address, *flags],
            cwd=HERE,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def ready(service: Service, workers: int = WORKERS) -> bool:
    """Whether all of its workers are there: each joins just before it serves."""
    try:
        return len(service.workers()) == workers
    except GONE:
        return False
