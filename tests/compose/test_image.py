"""The image of this project: small, of pinned packages, and of nothing but what is named."""

from __future__ import annotations

import re

from .compose_file import BASE_IMAGES, PIN, ROOT


def test_the_image_is_small_and_runs_as_nobody_in_particular() -> None:
    stages = (ROOT / "Dockerfile").read_text().split("\nFROM ")
    assert len(stages) == 3, "a stage that builds, and one that runs"
    last = stages[-1]
    assert re.search(r"^USER 10001:10001$", last, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK ", last, re.MULTILINE)
    assert "pip install" not in last
    assert "COPY . " not in last
    assert stages[1].count("--require-hashes") == 2


def test_both_stages_are_built_on_one_image_of_one_version() -> None:
    assert len(BASE_IMAGES) == 2
    assert len(set(BASE_IMAGES)) == 1
    assert PIN.match(BASE_IMAGES[0])
    assert not PIN.match("python:3.11-slim-bookworm")


def test_only_what_is_named_reaches_the_engine() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert lines[0] == "*"
    named = [line[1:] for line in lines if line.startswith("!")]
    assert all((ROOT / name).exists() for name in named)
    assert not {"tests", ".git", ".venv", ".cmo", ".env"} & set(named)
