"""What the image installs: pinned, hashed, complete without resolving, in the versions of the tests."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = ("oracle", "slo", "loadtest", "probe")
"""What is run in containers; the rest is for development."""


def pins(name: str) -> dict[str, str]:
    text = (ROOT / "requirements" / name).read_text()
    found = re.findall(r"^([\w.-]+)(?:\[[\w,]+\])?==([^\s;]+)", text, re.MULTILINE)
    return {canonicalize_name(package): version for package, version in found}


def needed(requirements: list[str], extra: str = "") -> list[Requirement]:
    """Those of some requirements that count here, with an extra of who asks for them."""
    read = [Requirement(text) for text in requirements]
    return [each for each in read if each.marker is None or each.marker.evaluate({"extra": extra})]


def declared() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [
        *project["dependencies"],
        *(text for extra in EXTRAS for text in project["optional-dependencies"][extra]),
    ]


def test_everything_that_is_needed_is_pinned() -> None:
    pinned = pins("image.txt")
    waiting = [(each, extra) for each in needed(declared()) for extra in ("", *each.extras)]
    seen: set[tuple[str, str]] = set()
    missing = set()
    while waiting:
        requirement, extra = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name not in pinned or not requirement.specifier.contains(pinned[name], prereleases=True):
            missing.add(str(requirement))
        elif (name, extra) not in seen:
            seen.add((name, extra))
            inner = needed(metadata.distribution(name).requires or [], extra)
            waiting += [(each, wanted) for each in inner for wanted in ("", *each.extras)]
    assert not missing, "run `make pins`"


@pytest.mark.parametrize("name", ["image.txt", "image-build.txt"])
def test_versions_are_those_of_the_tests_and_every_pin_has_its_hash(name: str) -> None:
    ours, tested = pins(name), pins("dev.txt")
    assert {
        package: (version, tested.get(package))
        for package, version in ours.items()
        if tested.get(package) != version
    } == {}
    text = (ROOT / "requirements" / name).read_text()
    assert "://" not in text
    blocks = re.split(r"\n(?=[^\s#])", text)[1:]
    assert len(blocks) >= len(ours)
    assert all("--hash=sha256:" in block for block in blocks)


def test_what_is_for_development_stays_outside() -> None:
    assert not {"mypy", "ruff", "hypothesis", "grafana-foundation-sdk"} & set(pins("image.txt"))


def test_the_build_backend_is_that_of_the_project() -> None:
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert all(pins("image-build.txt")[each.name] in str(each.specifier) for each in needed(requires))
