"""Ports are as asked for, or free; a busy one is the user's to resolve."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from cmo_stack.ports import DEFAULT_PORTS, PortError, Ports
from cmo_stack.process import free_port

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
