"""Make ``.venv``: the pinned packages, each held to its hash, and this project, editable.

uv does it in seconds where it is on PATH; else pip, which has to be fetched first where Debian's Python comes
without it. Index settings are the user's own: pip's, which uv does not read, are handed on to uv.
"""

from __future__ import annotations

import configparser
import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass
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
_CERTIFICATES_OF_DEBIAN: Final = "usr/share/ca-certificates/mozilla"


@dataclass(frozen=True)
class Checkout:
    """Where things are in a checkout."""

    root: Path

    @property
    def venv(self) -> Path:
        """The virtual environment."""
        return self.root / ".venv"

    @property
    def python(self) -> Path:
        """The Python of the virtual environment."""
        return self.venv / "bin/python"

    @property
    def pins(self) -> Path:
        """Every package that is installed, with its hashes."""
        return self.root / "requirements/dev.txt"

    @property
    def work(self) -> Path:
        """Where unfinished things are."""
        return self.root / ".cmo/setup"


def prepare(checkout: Checkout) -> None:
    """Bring ``.venv`` up to date; does nothing when it is.

    Raises:
        SetupError: it cannot be done; the message says why.
    """
    interpreter = f"{sys.executable} {sys.version}"
    pins = fingerprint(interpreter, str(checkout.root), checkout.pins)
    if not (stamped(checkout.venv / "pins.stamp", pins) and checkout.python.exists()):
        with announced(f"Making .venv and installing the pinned Python packages with {_installer()}"):
            _make_venv(checkout)
            install_pins(checkout)
        write_stamp(checkout.venv / "pins.stamp", pins)
    project = fingerprint(pins, checkout.root / "pyproject.toml")
    if not stamped(checkout.venv / "project.stamp", project):
        with announced("Installing this project"):
            _install(checkout, "--no-deps", "--no-build-isolation", "--editable", str(checkout.root))
        write_stamp(checkout.venv / "project.stamp", project)


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


def install_pins(checkout: Checkout) -> None:
    """Install what the pins name, and nothing else.

    The pins are complete, so nothing is left to resolve, and nothing is: given the choice, pip prefers a
    release newer than the pin where a package is asked for with an extra, and refuses it for want of a hash.

    Raises:
        SetupError: a package cannot be had, or does not have its hash.
    """
    _install(checkout, "--no-deps", "--require-hashes", "--requirement", str(checkout.pins))


def _installer() -> str:
    return "uv" if shutil.which("uv") else "pip (a minute or so; uv takes seconds)"


def _make_venv(checkout: Checkout) -> None:
    """Make the environment afresh: one that was interrupted or had other pins is not worth mending."""
    if checkout.venv.exists():
        shutil.rmtree(checkout.venv)
    if shutil.which("uv"):
        run(
            "Making .venv",
            ["uv", "venv", "--quiet", "--no-project", "--python", sys.executable, str(checkout.venv)],
        )
    else:
        _make_venv_with_pip(checkout)


def _install(checkout: Checkout, *arguments: str) -> None:
    if shutil.which("uv"):
        command = ["uv", "pip", "install", "--quiet", "--python", str(checkout.python), *arguments]
        environment = {**os.environ, **uv_settings(os.environ, pip_configuration(os.environ))}
    else:
        command = [str(checkout.python), "-m", "pip", "install", "--quiet", "--no-input", *arguments]
        environment = {
            **os.environ,
            "PIP_USER": "0",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            **_certificates(checkout),
        }
    run("Installing Python packages", command, environment)


def _make_venv_with_pip(checkout: Checkout) -> None:
    if importlib.util.find_spec("venv") is None:
        raise SetupError(
            "This Python has no `venv` module. Install it (Debian and Ubuntu: apt-get install python3-venv)."
        )
    if importlib.util.find_spec("ensurepip") is not None:
        run("Making .venv", [sys.executable, "-m", "venv", str(checkout.venv)])
        return
    wheel = _pip_wheel_of_debian(checkout)
    run("Making .venv", [sys.executable, "-m", "venv", "--without-pip", str(checkout.venv)])
    run(
        "Installing pip",
        [str(checkout.python), f"{wheel}/pip", "install", "--quiet", "--no-index", "--no-deps", str(wheel)],
        {**os.environ, "PIP_USER": "0"},
    )


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
    return Path("/etc/ssl/certs/ca-certificates.crt").is_file()


def _certificates(checkout: Checkout) -> dict[str, str]:
    """Debian's pip trusts the system's certificates; a bare machine has none, so bring the package's."""
    folder = checkout.work / "pip/root" / _CERTIFICATES_OF_DEBIAN
    if _system_certificates() or not folder.is_dir() or "PIP_CERT" in os.environ:
        return {}
    bundle = checkout.work / "certificates.crt"
    bundle.write_text("".join(path.read_text() for path in sorted(folder.glob("*.crt"))))
    return {"PIP_CERT": str(bundle)}
