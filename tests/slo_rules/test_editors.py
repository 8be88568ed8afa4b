"""Editors find the JSON Schema of shipped objectives, by the line that yaml-language-server looks for."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from cmo_slo.objectives import json_schema, shipped_directory

if TYPE_CHECKING:
    from pathlib import Path

FILES = sorted(shipped_directory().glob("*.yml"))

# A comment of a line of its own that begins so, whatever stands around it; its path is relative to the file.
MODELINE = re.compile(r"^#\s+yaml-language-server\s*:.*?\$schema=(\S+)", re.MULTILINE)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_shipped_file_names_the_published_schema(file: Path) -> None:
    first, *_ = file.read_text(encoding="utf-8").splitlines()
    found = MODELINE.match(first)
    assert found, "not every editor looks beyond the first line"
    assert json.loads((file.parent / found[1]).read_text(encoding="utf-8")) == json_schema()
