"""Fixtures that every room's tests share: the real servers, in every version this machine has.

And the Pythons beside packages that do not go together with those of ``.venv``.
"""

from __future__ import annotations

import shutil
import signal
import sys
from pathlib import Path

import pytest
from cmo_stack import servers
from hypothesis import HealthCheck, settings

# No test may fail because a machine is slow.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

ROOT = Path(__file__).resolve().parents[1]
_NO_CHAINLIT_SINCE = (3, 14)


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


@pytest.fixture(scope="session")
def victoria_metrics() -> Path:
    """VictoriaMetrics' program, where there is one."""
    return _program_or_skip("victoria-metrics")


@pytest.fixture(scope="session")
def vmalert() -> Path:
    """vmalert's program, where there is one."""
    return _program_or_skip("vmalert")


def _program_or_skip(name: str) -> Path:
    found = shutil.which(name)
    unpacked = sorted(servers.servers_directory().glob(f"*/usr/bin/{name}"))
    if not found and not unpacked:
        pytest.skip(f"{name} is not on PATH, and `make setup-test` can fetch it on Debian alone")
    return Path(found) if found else unpacked[-1]


@pytest.fixture(scope="session")
def lightrag_1_4_python() -> Path:
    """The Python beside lightrag-hku 1.4.6; the exporter comes to it by PYTHONPATH."""
    return _python_of(".venv-lightrag-1.4")


@pytest.fixture(scope="session")
def chainlit_python() -> Path:
    """The Python beside Chainlit; the exporter comes to it by PYTHONPATH."""
    if sys.version_info >= _NO_CHAINLIT_SINCE:
        pytest.skip("Chainlit does not support this Python: run make with PYTHON=python3.13 or an older one")
    return _python_of(".venv-chainlit")


def _python_of(environment: str) -> Path:
    python = ROOT / environment / "bin/python"
    if not python.exists():
        pytest.fail(f"There is no {python}. Run `make setup-test`, which makes {environment}.")
    return python
