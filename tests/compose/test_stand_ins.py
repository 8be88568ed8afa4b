"""What stands in for an image is of its version, or of another one that is told."""

from __future__ import annotations

import pytest

from . import stand_ins
from .compose_file import compose_file, services
from .telling import NotProvedError


def test_stand_ins_are_of_the_images_that_are_named() -> None:
    named = {service["image"] for _, service in services(compose_file()) if "build" not in service}
    assert set(stand_ins._IMAGES) | stand_ins.NO_STAND_IN == named
    assert {stand_in.package for stand_in in stand_ins._IMAGES.values()} <= set(stand_ins._SERVER_PACKAGES)


@pytest.mark.parametrize(
    ("image", "debian_version"),
    [
        ("prom/prometheus:v3.5.3", "3.5.3+ds1-6"),
        ("prom/alertmanager:v0.33.1", "0.33.1-5"),
        ("redis:8.0.6-alpine", "5:8.0.6-3"),
        ("python:3.11.15-slim-bookworm", "3.11.15-6+deb12u6"),
    ],
)
def test_of_the_same_version_there_is_nothing_to_say(image: str, debian_version: str) -> None:
    assert stand_ins.other_version(image, "package", debian_version) == ""


@pytest.mark.parametrize(
    ("image", "debian_version", "found"),
    [
        ("redis:8.0.6-alpine", "5:8.0.7-1", "8.0.7"),
        ("redis:8.0.6-alpine", "5:8.0.60-1", "8.0.60"),
        ("victoriametrics/vmalert:v1.145.0", "1.146.0+ds1-1", "1.146.0"),
        ("python:3.11.15-slim-bookworm", "3.11.2-6+deb12u6", "3.11.2"),
    ],
)
def test_another_version_is_told(image: str, debian_version: str, found: str) -> None:
    said = stand_ins.other_version(image, "package", debian_version)
    assert said == f"package {found} in the place of {image}"


@pytest.mark.parametrize(
    ("image", "debian_version"),
    [
        ("redis:8.0.6-alpine", "5:9.0.6-1"),
        ("redis:8.0.6-alpine", "7.0.6"),
        ("prom/prometheus:v3.5.3", "35.3-1"),
    ],
)
def test_another_major_version_proves_nothing(image: str, debian_version: str) -> None:
    with pytest.raises(NotProvedError, match=f"found package .* in the place of {image}. Name"):
        stand_ins.other_version(image, "package", debian_version)
