"""Fixtures that every room's tests share: the real servers, in every version this machine has."""

from __future__ import annotations

import signal

import pytest
from cmo_stack import servers


def pytest_configure() -> None:
    """Undo what the background of a shell does: Ctrl-C is ignored there, and by all that a test starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for ``prometheus_server`` once on every installed Prometheus, and so on."""
    for name in ("prometheus", "alertmanager"):
        fixture = f"{name}_server"
        if fixture in metafunc.fixturenames:
            found = servers.installed(name)
            assert found, servers.ServerMissingError(name)
            metafunc.parametrize(fixture, found, ids=[server.label.replace(" ", "-") for server in found])


@pytest.fixture
def newest_prometheus() -> servers.Server:
    """The Prometheus that the demo runs."""
    return servers.newest("prometheus")
