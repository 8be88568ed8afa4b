"""A Docker engine of our own, in namespaces of its own, that leaves nothing behind.

Its processes, mounts, interfaces and packet filter live in namespaces that end with it, whatever ends it:
with the first process of a process namespace the kernel kills all others. So no other engine, port or rule
of the machine is touched. Only its control groups and its folder are outside; both are removed by name.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cmo_bootstrap import apt
from cmo_bootstrap.work import SetupError

from .debian_trees import NEWER
from .telling import NotProvedError, step, tell

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .debian_trees import Archives

FOLDER: Final = "compose-"
"""How the name of an engine's folder begins; the id of the process that it belongs to follows."""

_ENGINE_PACKAGES: Final = ("docker.io", "iptables")
_COMPOSE_PACKAGES: Final = ("docker-compose",)
_COMPOSE: Final = "usr/libexec/docker/cli-plugins/docker-compose"
_CGROUPS: Final = Path("/sys/fs/cgroup")
_PATIENCE_SECONDS: Final = 60.0
_PR_SET_PDEATHSIG: Final = 1
_IFREQ: Final = "16sh14x"
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1


class NoEngineError(Exception):
    """No engine can run here; the message says why."""


@dataclass(frozen=True)
class Engine:
    """How to talk to an engine: its command-line client, Compose, and what both need in their environment."""

    docker_command: tuple[str, ...]
    compose_command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    has_registry: bool = False

    def docker(self, *arguments: str, stdin: str | None = None) -> str:
        """Run the client, and return what it prints.

        Raises:
            NotProvedError: it fails.
        """
        return self._run([*self.docker_command, *arguments], stdin)

    def _run(self, command: Sequence[str], stdin: str | None) -> str:
        done = subprocess.run(
            command, input=stdin or "", capture_output=True, text=True, env=self.environment, check=False
        )
        if done.returncode != 0:
            end = "\n".join((done.stdout + done.stderr).splitlines()[-25:])
            raise NotProvedError(f"`{' '.join(command)}` ended with {done.returncode}:\n{end}")
        return done.stdout


def prepare_engine(machine: apt.Distribution, archives: Archives, work: Path) -> None:
    """Unpack Docker's engine, its client and Compose into a folder; nothing is installed.

    Raises:
        SetupError: a package is not to be had.
    """
    with step("Unpacking Docker's engine and Compose from Debian packages (nothing is installed)"):
        own, tree = archives.of(machine.codename), work / "engine"
        packages = own.download_with_dependencies(_ENGINE_PACKAGES) if _lacks_engine() else []
        with contextlib.suppress(SetupError):  # Debian 12 has the client in docker.io
            packages = own.download(["docker-cli"]) if packages else []
        apt.unpack([*packages, *archives.of(NEWER).download(_COMPOSE_PACKAGES)], tree)
        for name in ("iptables", "ip6tables"):
            link = tree / "usr/sbin" / name
            if packages and not link.exists():
                link.symlink_to("xtables-nft-multi")


def prepare_compose(archives: Archives, tree: Path) -> tuple[str, ...]:
    """Unpack Compose alone into a folder; anybody may. Its command, which needs no engine to read a file.

    Raises:
        SetupError: the package is not to be had.
    """
    apt.unpack(archives.of(NEWER).download(_COMPOSE_PACKAGES), tree)
    return (str(tree / _COMPOSE),)


def _lacks_engine() -> bool:
    return not all(_on_path(name) for name in ("dockerd", "containerd", "docker", "iptables"))


def _on_path(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def engine_in(work: Path) -> Engine:
    """The engine whose files are in a folder."""
    tree = work / "engine"
    libraries = [
        str(path) for name in ("usr/lib", "lib") for path in sorted((tree / name).glob("*-linux-gnu*"))
    ]
    bins = [str(tree / name) for name in ("usr/bin", "usr/sbin", "bin", "sbin")]
    environment = {
        **os.environ,
        "PATH": ":".join([*bins, os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]),
        "DOCKER_HOST": f"unix://{work}/docker.sock",
        "DOCKER_CONFIG": str(work / "client"),
        # The builder that every engine has in it, and that asks for nothing from a registry.
        "DOCKER_BUILDKIT": "0",
    }
    if libraries and (tree / "usr/sbin/dockerd").exists():
        environment["LD_LIBRARY_PATH"] = ":".join(libraries)
        environment["XTABLES_LIBDIR"] = next(map(str, (tree / "usr/lib").glob("*/xtables")), "")
    return Engine(("docker",), (str(tree / _COMPOSE),), environment)


def run_in_namespaces(command: Sequence[str], work: Path) -> int:
    """Run a command as the first process of namespaces of its own, and remove what it leaves outside.

    Returns its exit status.
    """
    namespaces = [
        "unshare",
        "--mount",
        "--net",
        "--pid",
        "--ipc",
        "--uts",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ]
    try:
        with subprocess.Popen([*namespaces, *command], preexec_fn=_die_with_parent) as process:  # noqa: PLW1509
            try:
                return process.wait()
            finally:
                process.kill()
    finally:
        _remove_cgroups(cgroup_of(work))


def remove_what_was_killed(state: Path) -> None:
    """Remove folders and control groups of engines whose process was killed, and so could not do it."""
    for work in state.glob(f"{FOLDER}*"):
        owner = work.name.removeprefix(FOLDER).partition("-")[0]
        if not Path("/proc", owner).exists():
            _remove_cgroups(cgroup_of(work))
            shutil.rmtree(work)


def cgroup_of(work: Path) -> str:
    """The name of the control group of an engine."""
    return f"cmo-{work.name}"


@contextlib.contextmanager
def running(engine: Engine, work: Path) -> Iterator[None]:
    """Run the engine, within the namespaces that were made for it, until the end of the block.

    Raises:
        NoEngineError: it does not run.
    """
    _raise_loopback()
    log = work / "dockerd.log"
    (work / "daemon.json").write_text("{}")
    options = {
        "--config-file": work / "daemon.json",
        "--data-root": work / "data",
        "--exec-root": work / "exec",
        "--pidfile": work / "dockerd.pid",
        "--host": f"unix://{work}/docker.sock",
        "--cgroup-parent": f"/{cgroup_of(work)}",
    }
    words = [f"{name}={value}" for name, value in options.items()]
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["dockerd", *words],
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            env=engine.environment,
        )
    try:
        _wait_until_it_answers(engine, process, log)
        version = engine.docker("version", "--format", "{{.Server.Version}}").strip()
        tell(f"A Docker engine of our own runs: {version}")
        yield
    finally:
        # Nothing of it is wanted any more, and the kernel ends its containers with the namespace.
        process.kill()


def _wait_until_it_answers(engine: Engine, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while subprocess.run(
        [*engine.docker_command, "info"], capture_output=True, env=engine.environment
    ).returncode:
        if process.poll() is not None or time.monotonic() > deadline:
            lines = [
                line for line in log.read_text(errors="replace").splitlines() if "level=info" not in line
            ]
            raise NoEngineError(f"Docker's engine does not start: {' / '.join(lines[-3:])}")
        time.sleep(0.2)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _raise_loopback() -> None:
    """Health checks and published ports need it, and in a new network namespace it is down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack(_IFREQ, b"lo", 0)
        _, flags = struct.unpack(_IFREQ, fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request))
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack(_IFREQ, b"lo", flags | _IFF_UP))


def _remove_cgroups(name: str) -> None:
    """Control groups are removed from the inside out, once their processes have ended."""
    deadline = time.monotonic() + 10
    found = [*_CGROUPS.glob(name), *_CGROUPS.glob(f"*/{name}")]
    while any(path.exists() for path in found) and time.monotonic() < deadline:
        for path in found:
            for inner in sorted([path, *path.rglob("*")], key=lambda each: len(each.parts), reverse=True):
                with contextlib.suppress(OSError):
                    if inner.is_dir():
                        inner.rmdir()
        time.sleep(0.1)
    left = [str(path) for path in found if path.exists()]
    if left:
        sys.stderr.write(f"Control groups are left, with processes in them: {', '.join(left)}\n")
