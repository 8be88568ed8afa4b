"""Make ``.venv``: the pinned packages, each held to its hash, and this project, editable.

Packages that do not go together with those have pins and an environment of their own, which tests alone need.

uv does it in seconds where it is on PATH; else pip, which has to be fetched first where Debian's Python comes
without it. Index settings are the user's own: pip's, which uv does not read, are handed on to uv.
"""

from __future__ import annotations

import configparser
import importlib.util
import os
import shutil
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cmo_bootstrap import apt
from cmo_bootstrap.work import SetupError, announced, fingerprint, run, stamped, write_stamp

if TYPE_CHECKING:
    from collections.abc import Mapping

_PIP_CONFIGURATION_SECTIONS: Final = ("global", "install")
# pip's setting, then what uv calls it. Hashes make it safe to take the best match of all indexes, as pip
# does.
_UV_NAMES: Final = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "no-index": "UV_NO_INDEX",
    "cert": "SSL_CERT_FILE",
}
_SYSTEM_CERTIFICATES: Final = "/etc/ssl/certs/ca-certificates.crt"
_CERTIFICATES_OF_DEBIAN: Final = "usr/share/ca-certificates/mozilla"
# What fights with the packages of .venv: the environment's name, then its files of pins in the order in which
# they are installed, so that the first may hold what builds the packages of the next.
_TEST_ENVIRONMENTS: Final = {
    ".venv-lightrag-1.4": ("lightrag-1.4.txt",),
    ".venv-chainlit": ("chainlit-build.txt", "chainlit.txt"),
    ".venv-grafana": ("grafana.txt",),
}
# Environments whose pins bring npm, and the folder of requirements/ with the pins of what npm installs.
_NPM_PACKAGES: Final = {".venv-grafana": "grafana-library"}
_FILES_OF_NPM: Final = ("package.json", "package-lock.json", ".npmrc")
# Not that of an environment, which may be activated, and be the one that is to be made: it goes when that is.
_PYTHON: Final = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
_fetching_pip = threading.Lock()


@dataclass(frozen=True)
class Environment:
    """A virtual environment.

    Attributes:
        folder: where it is.
        pins: files that name every package that is installed, with its hashes, in the order of installation.
        npm_packages: a folder with ``package.json`` and its lock, which names every package of npm's that is
            installed into ``node_modules``, with its hash; none for an environment without them.
    """

    folder: Path
    pins: tuple[Path, ...]
    npm_packages: Path | None = None

    @property
    def python(self) -> Path:
        """Its Python."""
        return self.folder / "bin/python"


@dataclass(frozen=True)
class Checkout:
    """Where things are in a checkout."""

    root: Path

    @property
    def main(self) -> Environment:
        """The environment of every command, ``.venv``."""
        return self._environment(".venv", ("dev.txt",))

    @property
    def test_environments(self) -> tuple[Environment, ...]:
        """Those that tests alone need, beside ``.venv``."""
        return tuple(self._environment(name, pins) for name, pins in _TEST_ENVIRONMENTS.items())

    def _environment(self, name: str, pins: tuple[str, ...]) -> Environment:
        requirements = self.root / "requirements"
        npm_packages = requirements / _NPM_PACKAGES[name] if name in _NPM_PACKAGES else None
        return Environment(self.root / name, tuple(requirements / file for file in pins), npm_packages)

    @property
    def work(self) -> Path:
        """Where unfinished things are."""
        return self.root / ".cmo/setup"


def prepare(checkout: Checkout, *, with_test_environments: bool = False) -> None:
    """Bring ``.venv``, and on demand the tests' environments, up to date; does nothing when they are.

    Environments are made at the same time: they wait for the network, and none uses more than one processor.

    Raises:
        SetupError: it cannot be done; the message says why.
    """
    wanted = [checkout.main, *(checkout.test_environments if with_test_environments else ())]
    with ThreadPoolExecutor(len(wanted)) as pool:
        for made in [pool.submit(_prepare_environment, checkout, environment) for environment in wanted]:
            made.result()
    project = fingerprint(_key(checkout, checkout.main), checkout.root / "pyproject.toml")
    stamp = checkout.main.folder / "project.stamp"
    if not stamped(stamp, project):
        if not _can_be_installed_into(checkout.main):
            _make_environment(checkout, checkout.main)
        with announced("Installing this project"):
            _install(
                checkout,
                checkout.main,
                *("--no-deps", "--no-build-isolation", "--editable", str(checkout.root)),
            )
        write_stamp(stamp, project)


def _prepare_environment(checkout: Checkout, environment: Environment) -> None:
    made = stamped(environment.folder / "pins.stamp", _key(checkout, environment))
    if not made or not environment.python.exists():
        _make_environment(checkout, environment)


def _can_be_installed_into(environment: Environment) -> bool:
    """Whether the installer at hand can: uv can always, but it makes environments without pip."""
    return bool(shutil.which("uv") or any(environment.folder.glob("lib/python*/site-packages/pip")))


def _make_environment(checkout: Checkout, environment: Environment) -> None:
    name = environment.folder.name
    with announced(f"Making {name} and installing the pinned Python packages with {_installer()}"):
        _make_venv(checkout, environment)
        install_pins(checkout, environment)
        if environment.npm_packages is not None:
            _install_npm_packages(checkout, environment, environment.npm_packages)
    write_stamp(environment.folder / "pins.stamp", _key(checkout, environment))


def _key(checkout: Checkout, environment: Environment) -> str:
    files = [*environment.pins]
    if environment.npm_packages is not None:
        files += [environment.npm_packages / name for name in _FILES_OF_NPM]
    return fingerprint(f"{_PYTHON} {sys.version}", str(checkout.root), *files)


def uv_settings(environment: Mapping[str, str], configuration: Mapping[str, str]) -> dict[str, str]:
    """What to add to the environment so that uv asks the indexes that pip would ask.

    Args:
        environment: the user's; uv's own variables in it win.
        configuration: settings from pip's configuration files, by their long option name.
    """
    settings = {}
    for option, name in _UV_NAMES.items():
        value = environment.get(f"PIP_{option.upper().replace('-', '_')}", configuration.get(option, ""))
        if value and name not in environment:
            separator = "," if option == "find-links" else " "
            settings[name] = separator.join(value.split())
    if "UV_INDEX" in settings:
        settings.setdefault("UV_INDEX_STRATEGY", environment.get("UV_INDEX_STRATEGY", "unsafe-best-match"))
    return settings


def pip_configuration(environment: Mapping[str, str]) -> dict[str, str]:
    """Settings from pip's configuration files; the later files win, as in pip."""
    if environment.get("PIP_CONFIG_FILE") == os.devnull:
        return {}
    home = Path(environment.get("HOME", "/"))
    files = [
        *(
            Path(folder) / "pip/pip.conf"
            for folder in environment.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":")
        ),
        Path("/etc/pip.conf"),
        home / ".pip/pip.conf",
        Path(environment.get("XDG_CONFIG_HOME") or home / ".config") / "pip/pip.conf",
        Path(environment.get("PIP_CONFIG_FILE", os.devnull)),
    ]
    parser = configparser.RawConfigParser()
    try:
        parser.read(files)
    except configparser.Error as error:
        raise SetupError(f"pip's configuration cannot be read: {error}") from error
    settings: dict[str, str] = {}
    for section in _PIP_CONFIGURATION_SECTIONS:
        if parser.has_section(section):
            settings.update(parser.items(section))
    return settings


def install_pins(checkout: Checkout, environment: Environment) -> None:
    """Install what the pins name, and nothing else.

    The pins are complete, so nothing is left to resolve, and nothing is: given the choice, pip prefers a
    release newer than the pin where a package is asked for with an extra, and refuses it for want of a hash.

    Raises:
        SetupError: a package cannot be had, or does not have its hash.
    """
    build: tuple[str, ...] = ()
    for pins in environment.pins:
        _install(checkout, environment, "--no-deps", "--require-hashes", *build, "--requirement", str(pins))
        build = ("--no-build-isolation",)  # by what has just been installed, which is pinned


def _install_npm_packages(checkout: Checkout, environment: Environment, packages: Path) -> None:
    """Install what the lock names, held to its hashes, and nothing else: ``npm ci`` resolves nothing."""
    for name in _FILES_OF_NPM:
        shutil.copy(packages / name, environment.folder)
    programs, cache = environment.folder / "bin", checkout.work / "npm"
    options = ("--prefix", str(environment.folder), "--cache", str(cache))
    run(
        f"Installing npm packages into {environment.folder.name}",
        # Without its log, npm does not say why a package could not be had.
        [str(programs / "npm"), "ci", *options, "--loglevel", "http", "--fetch-retries", "5"],
        {
            **os.environ,
            "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            **_certificates_of_node(os.environ),
        },
    )
    shutil.rmtree(cache, ignore_errors=True)


def _certificates_of_node(environment: Mapping[str, str]) -> dict[str, str]:
    """Node.js trusts its own list alone; a proxy or a mirror is known to the system, or to pip."""
    named = (environment.get(name, "") for name in ("SSL_CERT_FILE", "PIP_CERT"))
    bundle = next(filter(os.path.isfile, (*named, _SYSTEM_CERTIFICATES)), None)
    if bundle is None or "NODE_EXTRA_CA_CERTS" in environment:
        return {}
    return {"NODE_EXTRA_CA_CERTS": bundle}


def _installer() -> str:
    return "uv" if shutil.which("uv") else "pip (a minute or so; uv takes seconds)"


def _make_venv(checkout: Checkout, environment: Environment) -> None:
    """Make the environment afresh: one that was interrupted or had other pins is not worth mending."""
    if environment.folder.exists():
        shutil.rmtree(environment.folder)
    if shutil.which("uv"):
        command = ["uv", "venv", "--quiet", "--no-project", "--python", _PYTHON]
        run(f"Making {environment.folder.name}", [*command, str(environment.folder)])
    else:
        _make_venv_with_pip(checkout, environment)


def _install(checkout: Checkout, environment: Environment, *arguments: str) -> None:
    python = str(environment.python)
    if shutil.which("uv"):
        command = ["uv", "pip", "install", "--quiet", "--python", python, *arguments]
        variables = {**os.environ, **uv_settings(os.environ, pip_configuration(os.environ))}
    else:
        command = [python, "-m", "pip", "install", "--quiet", "--no-input", *arguments]
        variables = {
            **os.environ,
            "PIP_USER": "0",
            "PIP_USE_PEP517": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            **_certificates(checkout),
        }
    run(f"Installing Python packages into {environment.folder.name}", command, variables)


def _make_venv_with_pip(checkout: Checkout, environment: Environment) -> None:
    if importlib.util.find_spec("venv") is None:
        raise SetupError(
            "This Python has no `venv` module. Install it (Debian and Ubuntu: apt-get install python3-venv)."
        )
    what = f"Making {environment.folder.name}"
    folder = str(environment.folder)
    if importlib.util.find_spec("ensurepip") is not None:
        run(what, [_PYTHON, "-m", "venv", folder])
        return
    with _fetching_pip:
        wheel = _pip_wheel_of_debian(checkout)
    run(what, [_PYTHON, "-m", "venv", "--without-pip", folder])
    run(
        "Installing pip",
        [
            *(str(environment.python), f"{wheel}/pip"),
            *("install", "--quiet", "--no-index", "--no-deps", str(wheel)),
        ],
        {**os.environ, "PIP_USER": "0"},
    )


@cache
def _pip_wheel_of_debian(checkout: Checkout) -> Path:
    """Pip, from the package that Debian's python3-venv would have pulled in."""
    machine = apt.distribution()
    if machine is None:
        raise SetupError("This Python has no `ensurepip`. Install uv, or a Python that has it.")
    work = checkout.work / "pip"
    shutil.rmtree(work, ignore_errors=True)
    private = apt.PrivateApt(machine, apt.machine_sources(machine, work), work)
    private.update()
    wanted = ["python3-pip-whl", *([] if _system_certificates() else ["ca-certificates"])]
    apt.unpack(private.download(wanted), work / "root")
    wheels = sorted((work / "root/usr/share/python-wheels").glob("pip-*.whl"))
    if not wheels:
        raise SetupError("Debian's package python3-pip-whl holds no pip. Install python3-venv, or uv.")
    return wheels[-1]


def _system_certificates() -> bool:
    return Path(_SYSTEM_CERTIFICATES).is_file()


def _certificates(checkout: Checkout) -> dict[str, str]:
    """Debian's pip trusts the system's certificates; a bare machine has none, so bring the package's."""
    folder = checkout.work / "pip/root" / _CERTIFICATES_OF_DEBIAN
    if _system_certificates() or not folder.is_dir() or "PIP_CERT" in os.environ:
        return {}
    bundle = checkout.work / "certificates.crt"
    with _fetching_pip:  # and whole at once: another pip may be reading it
        unfinished = bundle.with_suffix(".unfinished")
        unfinished.write_text("".join(path.read_text() for path in sorted(folder.glob("*.crt"))))
        unfinished.replace(bundle)
    return {"PIP_CERT": str(bundle)}
