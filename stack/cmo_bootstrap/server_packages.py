"""Unpack Prometheus, Alertmanager and Redis into ``.servers/<release>/``, without installing them.

Two releases are wanted: the machine's own, with the libraries that its servers need, and Debian's newer one,
whose Prometheus and Alertmanager are programs of Go that run on older releases too. Redis is C and is taken
from the machine's own release alone. For tests alone come VictoriaMetrics and vmalert, Debian's newer ones,
in a folder of their own.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cmo_stack import servers

from cmo_bootstrap import apt
from cmo_bootstrap.relocation import relocate_alertmanager
from cmo_bootstrap.work import SetupError, announced, exclusive, fingerprint, say, stamped, write_stamp

if TYPE_CHECKING:
    from pathlib import Path

NEWER_DEBIAN: Final = "forky"
STAMP: Final = ".stamp"
_LAYOUT: Final = "2"

# What each package gives; amtool comes with the Alertmanager, promtool with Debian's Prometheus.
_PACKAGES: Final[dict[str, tuple[servers.ServerName, ...]]] = {
    "prometheus": ("prometheus", "promtool"),
    "prometheus-alertmanager": ("alertmanager", "amtool"),
    "redis-server": ("redis-server",),
}
# Debian has since moved promtool into a package of its own, and here nothing is fetched that is not named.
_NEWER_PACKAGES: Final = ("prometheus", "promtool", "prometheus-alertmanager")
_FOR_TESTS: Final = ("victoria-metrics",)
_PROGRAMS_FOR_TESTS: Final = ("victoria-metrics", "vmalert")
"""Of the version that docker-compose.yml runs. The package has more, six times as large together."""


@dataclass(frozen=True)
class Bundle:
    """Packages of one release that are unpacked together.

    Attributes:
        release: whose packages they are.
        packages: their names.
        with_dependencies: whether to take what this machine lacks of the packages that they need.
        programs: the only ones to keep; all where it is empty.
        purpose: what they are for, if not for every run; their folder is called after it too.
    """

    release: str
    packages: tuple[str, ...]
    with_dependencies: bool
    programs: tuple[str, ...] = ()
    purpose: str = ""

    @property
    def folder(self) -> str:
        """The name of its folder among the servers."""
        return f"{self.release}-{self.purpose}" if self.purpose else self.release

    @property
    def key(self) -> str:
        """Changes when anything changes that decides what is unpacked."""
        return fingerprint(_LAYOUT, self.release, *self.packages, str(self.with_dependencies), *self.programs)


def prepare(directory: Path, work: Path, *, for_tests: bool = False) -> None:
    """Bring the servers' folder up to date; does nothing when it is.

    Args:
        directory: where the servers go, a folder for each release.
        work: where downloads go; emptied afterwards.
        for_tests: whether those that tests alone run are wanted too.

    Raises:
        SetupError: a server is missing and cannot be had; the message says what to install.
    """
    machine = apt.distribution()
    if machine is not None:
        with exclusive(directory / ".lock"):
            for bundle in wanted_bundles(machine, _packages_missing_on_path(), for_tests=for_tests):
                _prepare_bundle(machine, bundle, directory, work)
    _check_every_server()


def wanted_bundles(
    machine: apt.Distribution, missing_on_path: tuple[str, ...], *, for_tests: bool = False
) -> list[Bundle]:
    """What to unpack on a machine that lacks some packages on PATH."""
    bundles = [Bundle(machine.codename, missing_on_path, with_dependencies=True)] if missing_on_path else []
    if machine.family == "debian" and machine.codename != NEWER_DEBIAN:
        bundles.append(Bundle(NEWER_DEBIAN, _NEWER_PACKAGES, with_dependencies=False))
    if machine.family == "debian" and for_tests:
        bundles.append(
            Bundle(
                NEWER_DEBIAN,
                _FOR_TESTS,
                with_dependencies=False,
                programs=_PROGRAMS_FOR_TESTS,
                purpose="for-tests",
            )
        )
    return bundles


def _packages_missing_on_path() -> tuple[str, ...]:
    return tuple(
        package for package, names in _PACKAGES.items() if not all(servers.on_path(name) for name in names)
    )


def _prepare_bundle(machine: apt.Distribution, bundle: Bundle, directory: Path, work: Path) -> None:
    if stamped(directory / bundle.folder / STAMP, bundle.key):
        return
    try:
        with announced(
            f"Unpacking {', '.join(bundle.packages)} of {bundle.release} (not installed, nothing is started)"
        ):
            _unpack_bundle(machine, bundle, directory, work / bundle.folder)
    except SetupError as error:
        if bundle.purpose:
            say(f"{', '.join(bundle.packages)} is not to be had, and tests that need it are skipped. {error}")
        elif bundle.release == machine.codename:
            raise
        else:
            newer = f"the newer servers of {bundle.release}"
            say(f"{newer} are not to be had, so the older ones are used. {error}")
    finally:
        shutil.rmtree(work / bundle.folder, ignore_errors=True)


def _unpack_bundle(machine: apt.Distribution, bundle: Bundle, directory: Path, work: Path) -> None:
    """Download and unpack aside, then put in place at once: an interruption leaves the old state."""
    shutil.rmtree(work, ignore_errors=True)
    unfinished = directory / f".unfinished-{bundle.folder}" / "root"
    shutil.rmtree(unfinished.parent, ignore_errors=True)
    sources = apt.machine_sources(machine, work)
    if bundle.release != machine.codename:
        sources = [apt.Source(sources[0].uri, bundle.release, ("main",))]
    private = apt.PrivateApt(machine, sources, work)
    private.update()
    download = private.download_with_dependencies if bundle.with_dependencies else private.download
    apt.unpack(download(bundle.packages), unfinished)
    for program in (unfinished / "usr/bin").iterdir():
        if bundle.programs and program.name not in bundle.programs:
            program.unlink()
    relocate_alertmanager(unfinished)
    write_stamp(unfinished / STAMP, bundle.key)
    _put_in_place(unfinished, directory / bundle.folder)
    shutil.rmtree(unfinished.parent)


def _put_in_place(unfinished: Path, place: Path) -> None:
    if place.exists():
        place.rename(unfinished.parent / "old")
    unfinished.rename(place)


def _check_every_server() -> None:
    for names in _PACKAGES.values():
        for name in names:
            try:
                servers.newest(name)
            except servers.ServerMissingError as error:
                raise SetupError(_missing(name)) from error


def _missing(name: servers.ServerName) -> str:
    folder = servers.servers_directory()
    if apt.distribution() is None:
        return (
            f"{name} is not on PATH, and the set-up can fetch it on Debian and Ubuntu only. Install "
            "Prometheus 2.42 or later (with promtool), Alertmanager 0.25 or later (with amtool) and Redis 7 "
            "or later, so that their programs are on PATH; or name a folder in "
            f"{servers.SERVERS_DIRECTORY_VARIABLE} that holds them as RELEASE/usr/bin/PROGRAM. Then run the "
            "same command again."
        )
    return (
        f"{name} was unpacked into {folder} but does not run there. Remove that folder and run the "
        "same command again to fetch it anew."
    )
