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


def test_what_the_pins_need_is_pinned_too_in_a_version_that_will_do() -> None:
    """The set-up resolves nothing: what is missing here would be missing there."""
    pins = _pins()
    unmet = {
        f"{name}[{extra}] needs {needed}, pinned is {pins.get(canonicalize_name(needed.name))}"
        for name, extra in _reached(pins)
        for needed in _needs(name, extra)
        if (pinned := pins.get(canonicalize_name(needed.name))) is None
        or not needed.specifier.contains(pinned, prereleases=True)
    }
    assert not unmet


def _needs(name: str, extra: str) -> list[Requirement]:
    """What a pinned package needs when it is asked for with an extra; "" is without one."""
    requirements = [Requirement(text) for text in metadata.requires(name) or ()]
    return [
        requirement
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra})
    ]


def _reached(pins: dict[str, Version]) -> set[tuple[str, str]]:
    """Each pinned package, bare and with each extra that another package or the project asks for."""
    reached: set[tuple[str, str]] = set()
    waiting = [(name, "") for name in pins]
    waiting += [(canonicalize_name(asked.name), extra) for asked in _declared() for extra in asked.extras]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in reached or name not in pins:
            continue
        reached.add((name, extra))
        waiting += [
            (canonicalize_name(needed.name), wanted)
            for needed in _needs(name, extra)
            for wanted in needed.extras
        ]
    return reached


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
