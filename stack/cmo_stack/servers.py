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


def installed(name: ServerName) -> list[Server]:
    """Every version of a server on this machine, oldest first, each version once."""
    found: dict[tuple[int, int, int], Server] = {}
    for path, environment in _candidates(name):
        version = _version(path, environment)
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
    candidates: list[tuple[Path, dict[str, str]]] = []
    for executable in _EXECUTABLES[name]:
        on_path = shutil.which(executable)
        if on_path:
            candidates.append((Path(on_path), {}))
        for path in sorted(servers_directory().glob(f"*/usr/bin/{executable}")):
            root = path.parents[2]
            libraries = [str(folder) for folder in sorted((root / "usr/lib").glob("*-linux-gnu*"))]
            candidates.append((path, {"LD_LIBRARY_PATH": ":".join(libraries)} if libraries else {}))
    return candidates


def _version(path: Path, environment: dict[str, str]) -> tuple[int, int, int] | None:
    try:
        done = subprocess.run(
            [str(path), "--version"],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = _VERSION_PATTERN.search(done.stdout + done.stderr)
    return (int(match[1]), int(match[2]), int(match[3])) if match else None
