"""What the exporter has recorded of HTTP, uvicorn with either of its parsers, and a client of bare bytes."""

from __future__ import annotations

import contextlib
import importlib.util
import socket
import struct
from typing import TYPE_CHECKING, Any

import pytest

from ..uvicorn_server import serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from cmo_exporter import Exporter

PARSERS = [name for name in ("h11", "httptools") if importlib.util.find_spec(name)]


@pytest.fixture(params=PARSERS)
def serve(
    request: pytest.FixtureRequest, eventually: Callable[[Callable[[], object]], None]
) -> Callable[..., AbstractContextManager[int]]:
    """Serve an ASGI application with uvicorn on a free port, which is the value."""

    def serve_with_parser(app: Any, **options: Any) -> AbstractContextManager[int]:
        return serving(app, eventually, http=request.param, **options)

    return serve_with_parser


@pytest.fixture
def counted(exporter: Exporter) -> Callable[[], dict[tuple[str, ...], float]]:
    """Finished requests by method, route and status, and error type where the status does not say it."""

    def read() -> dict[tuple[str, ...], float]:
        found: dict[tuple[str, ...], float] = {}
        for family in exporter.registry.collect():
            for sample in family.samples:
                if sample.name == "http_server_request_duration_seconds_count" and sample.value:
                    labels = dict(sample.labels)
                    status, error = labels["http_response_status_code"], labels["error_type"]
                    key = (labels["http_request_method"], labels["http_route"], status)
                    found[key if error in ("", status) else (*key, error)] = sample.value
        return found

    return read


@pytest.fixture
def value(exporter: Exporter) -> Callable[..., float]:
    """The value of a sample by name and labels; 0 where it is not there yet."""

    def read(name: str, **labels: str) -> float:
        return exporter.registry.get_sample_value(name, labels) or 0.0

    return read


@pytest.fixture
def outcomes(exporter: Exporter) -> Callable[[], dict[str, float]]:
    """Finished queries of the scenario ``live`` by outcome, those that have any."""

    def read() -> dict[str, float]:
        return {
            sample.labels["outcome"]: sample.value
            for family in exporter.registry.collect()
            for sample in family.samples
            if sample.name == "cmo_queries_total" and sample.labels["scenario"] == "live" and sample.value
        }

    return read


@pytest.fixture
def connect() -> Callable[[int], AbstractContextManager[socket.socket]]:
    """A connection that is reset when it is left, as one of a browser that is closed."""

    @contextlib.contextmanager
    def connected(port: int) -> Iterator[socket.socket]:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            yield connection
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return connected
