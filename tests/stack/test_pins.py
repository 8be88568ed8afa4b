"""The pin file is complete, hashed and current: checked without asking any index."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LINES = (ROOT / "requirements/dev.txt").read_text().replace("\\\n", " ").splitlines()
PIN_LINES = [line for line in LINES if line and not line.lstrip().startswith("#")]


def _pins() -> dict[str, Version]:
    pins: dict[str, Version] = {}
    for line in PIN_LINES:
        requirement = Requirement(line.partition("--hash")[0].strip())
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", line
        if requirement.marker is None or requirement.marker.evaluate():
            pins[canonicalize_name(requirement.name)] = Version(specifier.version)
    return pins


def _declared() -> list[Requirement]:
    project = PROJECT["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    declared = [Requirement(text) for group in groups for text in group]
    build = [Requirement(text) for text in PROJECT["build-system"]["requires"]]
    return [requirement for requirement in [*declared, *build] if requirement.name != project["name"]]


@pytest.mark.parametrize("requirement", _declared(), ids=str)
def test_what_the_project_declares_is_pinned_and_satisfied(requirement: Requirement) -> None:
    pinned = _pins().get(canonicalize_name(requirement.name))
    assert pinned is not None, f"{requirement} is not pinned: run `make pins`"
    assert requirement.specifier.contains(pinned, prereleases=True), (
        f"{requirement}, but {pinned}: run `make pins`"
    )


def test_what_the_pins_need_is_pinned_too() -> None:
    """A package that is missing here would be refused by the set-up, for want of a hash."""
    pins = _pins()
    missing = {
        f"{name} needs {needed}"
        for name in pins
        for text in metadata.requires(name) or ()
        if (needed := Requirement(text)).marker is None or needed.marker.evaluate({"extra": ""})
        if canonicalize_name(needed.name) not in pins
    }
    assert not missing


def test_what_is_installed_is_what_is_pinned() -> None:
    different = {
        name: (metadata.version(name), str(pin))
        for name, pin in _pins().items()
        if Version(metadata.version(name)) != pin
    }
    assert not different


def test_every_pin_has_its_hashes_and_no_index_is_named() -> None:
    for line in PIN_LINES:
        assert re.match(r"^[\w.-]+(\[[\w,]+\])?==\S+ ", line), line
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", line), line
    assert not [line for line in LINES if "://" in line or "index-url" in line or "find-links" in line]


def test_the_build_backend_is_pinned_as_pyproject_has_it() -> None:
    written = (ROOT / "requirements/build.in").read_text().splitlines()
    assert sorted(line for line in written if line and not line.startswith("#")) == sorted(
        PROJECT["build-system"]["requires"]
    )
