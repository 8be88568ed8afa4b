"""Download Debian and Ubuntu packages without installing them, without rights, without touching the system.

apt runs with lists, cache and sources of our own. Which server to ask is taken from the machine's
configuration, so that mirrors and proxies are respected and no address is written down here. Third-party
sources are left out: they can be broken, and none of them is needed.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cmo_bootstrap.work import CommandFailedError, SetupError, run

if TYPE_CHECKING:
    from collections.abc import Sequence

_TARGET: Final = re.compile(
    r"^'(?P<uri>\S+?)/dists/(?P<release>[^/\s]+)/(?P<component>[^\s']+?)/binary-[^/]+/Packages"
)
_RELEASE_FILE: Final = re.compile(r"^'(?P<uri>\S+?)/dists/(?P<release>[^/\s']+)/InRelease'")
_KEYRINGS: Final = {
    "debian": Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
    "ubuntu": Path("/usr/share/keyrings/ubuntu-archive-keyring.gpg"),
}
_DEFAULT_COMPONENTS: Final = {"debian": ("main",), "ubuntu": ("main", "universe")}
# A package of these must not shadow the machine's own: its loader would not match it.
_NEVER_UNPACKED: Final = ("libc6_", "libc-bin_", "libgcc-s1_", "gcc-")


@dataclass(frozen=True)
class Distribution:
    """A Debian or Ubuntu release: ``family`` is the one whose packages it uses."""

    family: str
    codename: str


@dataclass(frozen=True)
class Source:
    """One archive of packages, as apt's sources name it."""

    uri: str
    release: str
    components: tuple[str, ...]


def distribution(os_release: Path = Path("/etc/os-release")) -> Distribution | None:
    """Which Debian or Ubuntu this is, derivatives included; None elsewhere, and where apt is missing."""
    if not (shutil.which("apt-get") and shutil.which("dpkg") and os_release.is_file()):
        return None
    fields = _os_release_fields(os_release.read_text())
    names = [fields.get("ID", ""), *fields.get("ID_LIKE", "").split()]
    if "ubuntu" in names:
        return _named("ubuntu", fields.get("UBUNTU_CODENAME") or fields.get("VERSION_CODENAME"))
    if "debian" in names:
        return _named("debian", fields.get("DEBIAN_CODENAME") or fields.get("VERSION_CODENAME"))
    return None


def machine_sources(machine: Distribution, work: Path) -> list[Source]:
    """The machine's own archives of its own release, from its apt configuration.

    ``apt-get update --print-uris`` knows them even before the first update, and asks nobody.

    Raises:
        SetupError: the configuration names no archive of this release.
    """
    lists = work / "no-lists"
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    printed = run(
        "Reading apt's configuration",
        ["apt-get", "-o", f"Dir::State::Lists={lists}", "-o", "Debug::NoLocking=1", "update", "--print-uris"],
    )
    sources = parse_sources(printed, machine)
    if not sources:
        raise SetupError(
            f"apt's configuration names no archive of {machine.codename}: check /etc/apt/sources.list and "
            "/etc/apt/sources.list.d/."
        )
    return sources


def parse_sources(printed: str, machine: Distribution) -> list[Source]:
    """The archives of a release in what ``apt-get update --print-uris`` prints, the release itself first."""
    components: dict[tuple[str, str], list[str]] = {}
    for line in printed.splitlines():
        match = _TARGET.match(line) or _RELEASE_FILE.match(line)
        if match is None or not _of_release(match["release"], machine.codename):
            continue
        known = components.setdefault((match["uri"], match["release"]), [])
        component = match.groupdict().get("component")
        if component and component not in known:
            known.append(component)
    default = _DEFAULT_COMPONENTS[machine.family]
    found = [Source(uri, release, tuple(known) or default) for (uri, release), known in components.items()]
    return sorted(found, key=lambda source: source.release != machine.codename)


class PrivateApt:
    """apt with a state of its own in ``work``; knows the packages of ``sources`` alone."""

    def __init__(self, machine: Distribution, sources: Sequence[Source], work: Path) -> None:
        self._work = work
        self._archives = work / "archives"
        for folder in (work / "lists/partial", self._archives / "partial", work / "log"):
            folder.mkdir(parents=True, exist_ok=True)
        keyring = _KEYRINGS[machine.family]
        trust = f"[signed-by={keyring}] " if keyring.is_file() else ""
        lines = [
            f"deb {trust}{source.uri} {source.release} {' '.join(source.components)}\n" for source in sources
        ]
        (work / "sources.list").write_text("".join(lines))
        self._configuration = work / "apt.conf"
        self._configuration.write_text(_apt_configuration(work))
        self._complaint = ""

    def update(self) -> None:
        """Fetch the lists of packages. An archive that fails matters only if a package is then missing."""
        try:
            self._complaint = self._apt_get("Fetching the lists of packages", "update")
        except CommandFailedError as error:
            self._complaint = error.output

    def download(self, packages: Sequence[str]) -> list[Path]:
        """Download packages without what they depend on.

        Raises:
            SetupError: a package is not to be had; the message says why.
        """
        command = ["apt-get", "-c", str(self._configuration), "download", *packages]
        return self._fetch(
            packages, ["sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", str(self._archives), *command]
        )

    def download_with_dependencies(self, packages: Sequence[str]) -> list[Path]:
        """Download packages and whatever of their dependencies this machine lacks.

        Raises:
            SetupError: a package is not to be had; the message says why.
        """
        options = ["--yes", "--download-only", "--no-install-recommends", "install"]
        return self._fetch(packages, ["apt-get", "-c", str(self._configuration), *options, *packages])

    def _fetch(self, packages: Sequence[str], command: Sequence[str]) -> list[Path]:
        names = ", ".join(packages)
        try:
            run(f"Downloading {names}", command)
        except CommandFailedError as error:
            raise CommandFailedError(f"Downloading {names}", f"{self._complaint}\n{error.output}") from error
        return sorted(self._archives.glob("*.deb"))

    def _apt_get(self, what: str, *arguments: str) -> str:
        return run(what, ["apt-get", "-c", str(self._configuration), *arguments])


def unpack(archives: Sequence[Path], root: Path) -> None:
    """Unpack packages into a folder; no script of theirs runs."""
    root.mkdir(parents=True, exist_ok=True)
    for archive in archives:
        if not archive.name.startswith(_NEVER_UNPACKED):
            run(f"Unpacking {archive.name}", ["dpkg", "-x", str(archive), str(root)])


def _apt_configuration(work: Path) -> str:
    """Settings that keep apt to our folder. Hooks are cleared: they would write outside of it."""
    architecture = run("Asking dpkg for the architecture", ["dpkg", "--print-architecture"]).strip()
    return f"""\
#clear APT::Update;
#clear DPkg;
#clear Binary;
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Default-Release "";
APT::Sandbox::User "";
APT::Keep-Downloaded-Packages "true";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::http::Timeout "30";
Acquire::https::Timeout "30";
Debug::NoLocking "1";
Dir::State::Lists "{work}/lists";
Dir::Cache "{work}";
Dir::Cache::Archives "{work}/archives";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
Dir::Etc::SourceList "{work}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::Log "{work}/log";
"""


def _os_release_fields(text: str) -> dict[str, str]:
    lines = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {name.strip(): value.strip().strip("\"'") for name, _, value in lines}


def _named(family: str, codename: str | None) -> Distribution | None:
    return Distribution(family, codename) if codename else None


def _of_release(release: str, codename: str) -> bool:
    return release == codename or release.startswith(f"{codename}-")
