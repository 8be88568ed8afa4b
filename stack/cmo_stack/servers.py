"""Find the servers that the stack runs: Prometheus, Alertmanager and Redis.

They come from PATH, or from ``.servers/``, where the set-up unpacks Debian packages without installing
them. One machine can hold several versions of one server: the demo runs the newest, the tests run all.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final, Literal

ServerName = Literal["prometheus", "promtool", "alertmanager", "amtool", "redis-server"]

SERVERS_DIRECTORY_VARIABLE: Final = "CMO_SERVERS_DIR"

# Debian renames the Alertmanager; everybody else calls it what its makers do.
_EXECUTABLES: Final[dict[ServerName, tuple[str, ...]]] = {
    "prometheus": ("prometheus",),
    "promtool": ("promtool",),
    "alertmanager": ("prometheus-alertmanager", "alertmanager"),
    "amtool": ("amtool",),
    "redis-server": ("redis-server",),
}
_VERSION_PATTERN: Final = re.compile(r"(?:version |v=)(\d+)\.(\d+)\.(\d+)")


class ServerMissingError(Exception):
    """No usable copy of a server is on this machine; the message says how to get one."""


@dataclass(frozen=True)
class Server:
    """One runnable copy of a server. ``environment`` is what it needs beside our own environment."""

    name: ServerName
    path: Path
    version: tuple[int, int, int]
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Name and version as people write them, for example ``prometheus 3.5.3``."""
        return f"{self.name} {'.'.join(map(str, self.version))}"


def servers_directory() -> Path:
    """Where unpacked servers live: ``CMO_SERVERS_DIR``, else ``.servers`` beside the checkout."""
    configured = os.environ.get(SERVERS_DIRECTORY_VARIABLE)
    return Path(configured) if configured else Path(__file__).resolve().parents[2] / ".servers"


def on_path(name: ServerName) -> Path | None:
    """Where PATH has a server, if it does."""
    found = (shutil.which(executable) for executable in _EXECUTABLES[name])
    return next((Path(path) for path in found if path), None)


def installed(name: ServerName) -> list[Server]:
    """Every version of a server on this machine, oldest first, each version once."""
    found: dict[tuple[int, int, int], Server] = {}
    for path, environment in _candidates(name):
        version = _version(path, tuple(environment.items()))
        if version is not None:
            found.setdefault(version, Server(name, path, version, environment))
    return [found[version] for version in sorted(found)]


def newest(name: ServerName) -> Server:
    """The newest version of a server on this machine.

    Raises:
        ServerMissingError: there is none.
    """
    servers = installed(name)
    if not servers:
        raise ServerMissingError(
            f"{name} is neither on PATH nor in {servers_directory()}. Run `make setup`, which unpacks it "
            f"from Debian or Ubuntu packages without installing it, or install {name} yourself."
        )
    return servers[-1]


def _candidates(name: ServerName) -> list[tuple[Path, dict[str, str]]]:
    from_path = on_path(name)
    candidates: list[tuple[Path, dict[str, str]]] = [(from_path, {})] if from_path else []
    for executable in _EXECUTABLES[name]:
        unpacked = sorted(servers_directory().glob(f"*/usr/bin/{executable}"))
        candidates += [(path, _library_path(path.parents[2])) for path in unpacked]
    return candidates


def _library_path(root: Path) -> dict[str, str]:
    folders = [*sorted((root / "usr/lib").glob("*-linux-gnu*")), *sorted((root / "lib").glob("*-linux-gnu*"))]
    return {"LD_LIBRARY_PATH": ":".join(map(str, folders))} if folders else {}


@cache  # a server does not change while we run, and to ask it takes as long as to start it
def _version(path: Path, environment: tuple[tuple[str, str], ...]) -> tuple[int, int, int] | None:
    try:
        done = subprocess.run(
            [str(path), "--version"],
            env={**os.environ, **dict(environment)},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = _VERSION_PATTERN.search(done.stdout + done.stderr)
    return (int(match[1]), int(match[2]), int(match[3])) if match else None
