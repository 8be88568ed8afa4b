"""Folders that hold what an image holds: Debian packages with all that they need, unpacked and not installed.

Where no registry can be reached, images are made of these (`stand_ins`). The engine and Compose come the same
way, so that nothing is installed on the machine, and nothing is started by its service manager.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Final

from cmo_bootstrap import apt
from cmo_bootstrap.work import run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

NEWER: Final = "forky"
PYTHONS: Final = "bookworm"
"""The release with the Python that our own image is made of."""

_MERGED: Final = ("bin", "sbin", "lib", "lib64")
_LEFT_OUT: Final = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
    "usr/share/lintian",
)


class Archives:
    """Debian's archives as this machine knows them, of any release; downloads go below ``work``."""

    def __init__(self, machine: apt.Distribution, work: Path) -> None:
        self._machine = machine
        self._work = work
        work.mkdir(parents=True, exist_ok=True)
        self._own = apt.machine_sources(machine, work)
        self._known: dict[str, apt.PrivateApt] = {}

    def of(self, release: str) -> apt.PrivateApt:
        """A private apt that knows the packages of one release.

        Raises:
            SetupError: they are not to be had.
        """
        if release in self._known:
            return self._known[release]
        sources = self._own
        if release != self._machine.codename:
            sources = [apt.Source(self._own[0].uri, release, ("main",))]
        private = apt.PrivateApt(self._machine, sources, self._work / release)
        private.update()
        self._known[release] = private
        return private

    def whole(self, release: str, packages: Sequence[str], tree: Path) -> dict[str, str]:
        """Unpack packages of a release with everything that they depend on, as if there were no machine.

        Returns the version of each package that was unpacked, as Debian writes it.

        Raises:
            SetupError: a package is not to be had.
        """
        self.of(release)
        folder = self._work / release
        (folder / "none-installed").touch()
        archives = folder / f"archives-{tree.name}"
        (archives / "partial").mkdir(parents=True)
        options = {
            "Dir::State::status": folder / "none-installed",
            "Dir::Cache::Archives": archives,
            "APT::Architecture": run("Asking dpkg", ["dpkg", "--print-architecture"]).strip(),
        }
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        command = ["apt-get", "-c", str(folder / "apt.conf"), *words]
        command += ["--yes", "--download-only", "--no-install-recommends", "install", *packages]
        run(f"Downloading {', '.join(packages)} of {release}", command)
        unpacked = sorted(archives.glob("*.deb"))
        unpack(unpacked, tree)
        show = ["dpkg-deb", "--show", "--showformat=${Package} ${Version}\n"]
        said = [run(f"Reading {archive.name}", [*show, str(archive)]) for archive in unpacked]
        return dict(line.split() for line in said)


def unpack(archives: Sequence[Path], tree: Path) -> None:
    """Unpack packages into a tree in which /bin and its like are links into /usr, as everywhere today."""
    for name in _MERGED:
        (tree / "usr" / name).mkdir(parents=True, exist_ok=True)
        if not (tree / name).is_symlink():
            (tree / name).symlink_to(f"usr/{name}")
    for archive in archives:
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", archive], stdout=subprocess.PIPE) as content:
            subprocess.run(
                ["tar", "-x", "--keep-directory-symlink", "-C", tree], stdin=content.stdout, check=True
            )
    for name in _LEFT_OUT:
        shutil.rmtree(tree / name, ignore_errors=True)


def make_root(tree: Path) -> None:
    """Add what the scripts of packages would have made: users, places to write, a shell's helpers, wget."""
    for name in ("proc", "sys", "dev", "run", "tmp", "root", "etc", "var/tmp"):
        (tree / name).mkdir(parents=True, exist_ok=True)
    for name in ("tmp", "var/tmp"):
        (tree / name).chmod(0o1777)
    for name in ("passwd", "group"):
        master = tree / f"usr/share/base-passwd/{name}.master"
        if master.exists():
            shutil.copy(master, tree / "etc" / name)
    busybox = tree / "usr/bin/busybox"
    if busybox.exists():
        for name in ("wget", "sh"):
            link = tree / "usr/bin" / name
            if not (link.exists() or link.is_symlink()):
                link.symlink_to("busybox")


def own(path: Path, user: int, group: int) -> None:
    """Make a folder for one user."""
    path.mkdir(parents=True, exist_ok=True)
    os.chown(path, user, group)
