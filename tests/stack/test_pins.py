"""The files of pins are complete, hashed and current: checked without asking any index."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest
from cmo_bootstrap.python_environment import Checkout, Environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@dataclass(frozen=True)
class Pinned:
    """An environment as files describe it: what is asked for, what is left out, what is pinned."""

    environment: Environment
    declared: tuple[Requirement, ...]
    excluded: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        return self.environment.folder.name

    def lines(self) -> list[str]:
        texts = [path.read_text() for path in self.environment.pins]
        return [line for text in texts for line in text.replace("\\\n", " ").splitlines()]

    def pin_lines(self) -> list[str]:
        return [line for line in self.lines() if line and not line.lstrip().startswith("#")]

    def pins(self) -> dict[str, Version]:
        pins: dict[str, Version] = {}
        for line in self.pin_lines():
            requirement = Requirement(line.partition("--hash")[0].strip())
            (specifier,) = requirement.specifier
            assert specifier.operator == "==", line
            if _applies(requirement):
                pins[canonicalize_name(requirement.name)] = Version(specifier.version)
        return pins

    def installed(self) -> dict[str, metadata.Distribution]:
        """What is in the environment, read from its files."""
        return _installed(self.environment.folder)


@cache
def _installed(environment: Path) -> dict[str, metadata.Distribution]:
    folders = [str(path) for path in environment.glob("lib/python*/site-packages")]
    assert folders, f"there is no {environment}: run `make setup-test`"
    found = metadata.distributions(path=folders)
    return {canonicalize_name(distribution.metadata["Name"]): distribution for distribution in found}


def _applies(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate()


def _of_the_project() -> tuple[Requirement, ...]:
    project = PROJECT["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    declared = [Requirement(text) for group in groups for text in group]
    build = [Requirement(text) for text in PROJECT["build-system"]["requires"]]
    return tuple(requirement for requirement in [*declared, *build] if requirement.name != project["name"])


def _written(path: Path) -> list[str]:
    """The lines of a file of requirements, without comments."""
    return [line for line in path.read_text().splitlines() if line and not line.startswith("#")]


def _of_files(environment: Environment) -> Pinned:
    declared = [Requirement(line) for pins in environment.pins for line in _written(pins.with_suffix(".in"))]
    excluded = [
        canonicalize_name(line)
        for pins in environment.pins
        if (path := pins.with_suffix(".excludes")).exists()
        for line in _written(path)
    ]
    return Pinned(environment, tuple(filter(_applies, declared)), frozenset(excluded))


CHECKOUT = Checkout(ROOT)
MAIN = Pinned(CHECKOUT.main, _of_the_project())
FOR_TESTS = [_of_files(environment) for environment in CHECKOUT.test_environments]
each_environment = pytest.mark.parametrize("pinned", [MAIN, *FOR_TESTS], ids=lambda pinned: pinned.name)


@pytest.mark.parametrize(
    ("pinned", "requirement"),
    [
        pytest.param(pinned, requirement, id=f"{pinned.name}-{requirement}")
        for pinned in (MAIN, *FOR_TESTS)
        for requirement in pinned.declared
    ],
)
def test_what_is_declared_is_pinned_and_satisfied(pinned: Pinned, requirement: Requirement) -> None:
    pin = pinned.pins().get(canonicalize_name(requirement.name))
    assert pin is not None, f"{requirement} is not pinned: run `make pins`"
    assert requirement.specifier.contains(pin, prereleases=True), f"{requirement}, but {pin}: run `make pins`"


@each_environment
def test_what_the_pins_need_is_pinned_too_in_a_version_that_will_do(pinned: Pinned) -> None:
    """The set-up resolves nothing: what is missing here would be missing there."""
    pins = pinned.pins()
    unmet = {
        f"{name}[{extra}] needs {needed}, pinned is {pins.get(canonicalize_name(needed.name))}"
        for name, extra in _reached(pinned)
        for needed in _needs(pinned, name, extra)
        if canonicalize_name(needed.name) not in pinned.excluded
        if (pin := pins.get(canonicalize_name(needed.name))) is None
        or not needed.specifier.contains(pin, prereleases=True)
    }
    assert not unmet


def _needs(pinned: Pinned, name: str, extra: str) -> list[Requirement]:
    """What a pinned package needs when it is asked for with an extra; "" is without one."""
    requirements = [Requirement(text) for text in pinned.installed()[name].requires or ()]
    return [
        requirement
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra})
    ]


def _reached(pinned: Pinned) -> set[tuple[str, str]]:
    """Each pinned package, bare and with each extra that another package or the project asks for."""
    pins = pinned.pins()
    reached: set[tuple[str, str]] = set()
    waiting = [(name, "") for name in pins]
    waiting += [(canonicalize_name(asked.name), extra) for asked in pinned.declared for extra in asked.extras]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in reached or name not in pins:
            continue
        reached.add((name, extra))
        waiting += [
            (canonicalize_name(needed.name), wanted)
            for needed in _needs(pinned, name, extra)
            for wanted in needed.extras
        ]
    return reached


@each_environment
def test_what_is_installed_is_what_is_pinned(pinned: Pinned) -> None:
    installed = pinned.installed()
    different = {
        name: (installed[name].version if name in installed else "missing", str(pin))
        for name, pin in pinned.pins().items()
        if name not in installed or Version(installed[name].version) != pin
    }
    assert not different


@pytest.mark.parametrize("pinned", FOR_TESTS, ids=lambda pinned: pinned.name)
def test_what_is_left_out_is_asked_for_by_somebody_and_not_pinned(pinned: Pinned) -> None:
    asked = {
        canonicalize_name(needed.name)
        for name, extra in _reached(pinned)
        for needed in _needs(pinned, name, extra)
    }
    assert pinned.excluded <= asked, "what nobody asks for need not be left out"
    assert not pinned.excluded & set(pinned.pins())


@each_environment
def test_every_pin_has_its_hashes_and_no_index_is_named(pinned: Pinned) -> None:
    for line in pinned.pin_lines():
        assert re.match(r"^[\w.-]+(\[[\w,]+\])?==\S+ ", line), line
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", line), line
    named = [line for line in pinned.lines() if "://" in line or "index-url" in line or "find-links" in line]
    assert not named


@each_environment
def test_pins_come_from_files_of_the_checkout_alone(pinned: Pinned) -> None:
    for path in pinned.environment.pins:
        (command,) = re.findall(r"^#    (uv pip compile .*)$", path.read_text(), re.MULTILINE)
        files = [word for word in command.split() if word.endswith((".in", ".txt", ".toml", ".excludes"))]
        assert files
        assert all((ROOT / file).exists() and not Path(file).is_absolute() for file in files)


def test_the_build_backend_is_pinned_as_pyproject_has_it() -> None:
    assert sorted(_written(ROOT / "requirements/build.in")) == sorted(PROJECT["build-system"]["requires"])
