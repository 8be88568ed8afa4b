"""The ports of the stack: as the user sets them, else free ones.

A port that was asked for and is busy is the user's to resolve, so it is an error that names who asked. A
default is only a preference.
"""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final, Self

from cmo_stack.free_ports import free_port
from cmo_stack.health import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

HIGHEST_PORT: Final = 65535


class PortError(Exception):
    """A port that the user asked for cannot be had; the message says which, and how to choose another."""


@dataclass(frozen=True)
class Ports:
    """Where each part of the stack listens. The defaults are what the parts use when nobody chooses."""

    redis: int = 6379
    upstream: int = 8090
    service: int = 8000
    metrics: int = 9464
    prober: int = 9465
    pager: int = 8095
    dead_man: int = 8096
    alertmanager: int = 9093
    prometheus: int = 9090

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Every part that has a port."""
        return tuple(field.name for field in fields(cls))

    @classmethod
    def choose(cls, wanted: Mapping[str, int | None], *, prefer_defaults: bool) -> Self:
        """Take the ports that are asked for, and free ones for the rest.

        Args:
            wanted: ports by part, None where the user does not care.
            prefer_defaults: take a part's well-known port where it is free.

        Raises:
            PortError: a port that is asked for is busy, impossible, or asked for twice.
        """
        asked = {name: port for name, port in wanted.items() if port is not None}
        _refuse_twice(asked)
        with contextlib.ExitStack() as held:
            # They are held until all are chosen, so that no two parts get the same one.
            chosen = {name: held.enter_context(_asked_for(name, port)) for name, port in asked.items()}
            for name in cls.names():
                if name not in chosen:
                    default = getattr(cls, name)
                    chosen[name] = default if prefer_defaults and _is_free(default) else free_port(LOOPBACK)
            return cls(**chosen)

    def unusual(self, wanted: Mapping[str, int | None]) -> dict[str, int]:
        """Ports that are not the well-known ones although nobody has asked for others, by part."""
        return {
            name: port
            for name in self.names()
            if (port := getattr(self, name)) != getattr(DEFAULT_PORTS, name) and wanted.get(name) is None
        }


DEFAULT_PORTS: Final = Ports()


def variable(part: str) -> str:
    """The environment variable that sets a part's port."""
    return f"CMO_{part.upper()}_PORT"


def _refuse_twice(asked: Mapping[str, int]) -> None:
    for name, port in asked.items():
        others = [other for other, same in asked.items() if same == port and other != name]
        if others:
            raise PortError(f"Port {port} is asked for by {name} and by {others[0]}. {_mend(name)}")


@contextlib.contextmanager
def _asked_for(part: str, port: int) -> Iterator[int]:
    if not 0 < port <= HIGHEST_PORT:
        raise PortError(f"Port {port} for {part} is not between 1 and {HIGHEST_PORT}. {_mend(part)}")
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(_bound(port))
        except PermissionError as error:
            raise PortError(f"Port {port} for {part} is reserved for root. {_mend(part)}") from error
        except OSError as error:
            raise PortError(
                f"Port {port} for {part} is busy: something listens there already. {_mend(part)}"
            ) from error
        yield port


def _is_free(port: int) -> bool:
    try:
        with _bound(port):
            return True
    except OSError:
        return False


@contextlib.contextmanager
def _bound(port: int) -> Iterator[None]:
    with socket.socket() as listener:
        # As the servers do it: connections of the stack before, which linger for a minute, are no hindrance.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((LOOPBACK, port))
        yield


def _mend(part: str) -> str:
    return (
        f"Choose another with --{part.replace('_', '-')}-port or {variable(part)}, or leave both out and a "
        "free one is taken (`ss -ltnp` shows who listens where)."
    )
