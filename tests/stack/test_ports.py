"""Ports are as asked for, or free; a busy one is the user's to resolve."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cmo_stack import free_ports
from cmo_stack.free_ports import free_port
from cmo_stack.ports import DEFAULT_PORTS, PortError, Ports, variable

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def busy_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_an_asked_for_port_is_taken_and_the_rest_are_free_and_distinct() -> None:
    wanted = free_port()
    ports = Ports.choose({"prometheus": wanted, "redis": None}, prefer_defaults=False)
    chosen = [getattr(ports, name) for name in Ports.names()]
    assert ports.prometheus == wanted
    assert len(set(chosen)) == len(chosen)
    assert not set(chosen) & {getattr(DEFAULT_PORTS, name) for name in Ports.names()}
    for port in chosen:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", port))


def test_a_busy_port_names_who_asked_and_how_to_choose_another(busy_port: int) -> None:
    expected = rf"Port {busy_port} for alertmanager is busy.*--alertmanager-port or CMO_ALERTMANAGER_PORT"
    with pytest.raises(PortError, match=expected):
        Ports.choose({"alertmanager": busy_port}, prefer_defaults=True)


def test_a_busy_default_gives_way(busy_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ports, "redis", busy_port)
    assert Ports.choose({}, prefer_defaults=True).redis != busy_port


def test_a_port_is_unusual_when_nobody_has_asked_for_it() -> None:
    ports = Ports(redis=1234, prometheus=5678)
    assert ports.unusual({"redis": 1234, "pager": None}) == {"prometheus": 5678}


def test_two_parts_cannot_have_one_port() -> None:
    port = free_port()
    with pytest.raises(PortError, match=f"Port {port} is asked for by redis and by pager"):
        Ports.choose({"redis": port, "pager": port}, prefer_defaults=False)


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_an_impossible_port_is_refused(port: int) -> None:
    with pytest.raises(PortError, match="is not between 1 and 65535"):
        Ports.choose({"redis": port}, prefer_defaults=False)


def test_nobody_is_given_a_port_that_somebody_else_was_promised() -> None:
    """Several at once, none of whom has begun to listen."""
    program = (
        "import sys; from cmo_stack.free_ports import free_port\n"
        "print(*(free_port() for _ in range(60)), flush=True); sys.stdin.read()"
    )
    askers = [
        subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(8)
    ]
    given = [port for asker in askers if asker.stdout for port in asker.stdout.readline().split()]
    for asker in askers:
        asker.communicate()
    assert len(given) == len(set(given)) == 8 * 60


def test_no_outgoing_connection_takes_a_free_port() -> None:
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    if first < 11_000:
        pytest.skip("outgoing connections take theirs from nearly all ports here")
    assert all(10_000 <= free_port() < first for _ in range(100))


def test_a_port_that_somebody_listens_on_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(free_ports, "_LOWEST", port)
        monkeypatch.setattr(free_ports, "_first_outgoing", lambda: port + 1)
        with pytest.raises(OSError, match="is free"):
            free_port()


def test_the_page_on_the_set_up_has_every_variable() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/set-up.md").read_text(encoding="utf-8")
    assert [name for name in map(variable, Ports.names()) if f"`{name}`" not in page] == []
