"""An unpacked Alertmanager runs for anybody, from anywhere, wherever its folder is moved."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from cmo_bootstrap.relocation import relocate_alertmanager

if TYPE_CHECKING:
    from pathlib import Path


def _unpacked(root: Path) -> Path:
    """A program with a fixed path, that shows what is there: a script stands for the binary."""
    templates = root / "usr/share/prometheus/alertmanager"
    templates.mkdir(parents=True)
    (templates / "default.tmpl").write_text("the templates")
    program = root / "usr/bin/prometheus-alertmanager"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\ncat "/usr/share/prometheus/alertmanager/default.tmpl"; echo; echo "$@"\n')
    program.chmod(0o755)
    return program


def test_it_finds_its_templates_wherever_it_is(tmp_path: Path) -> None:
    root = tmp_path / "first place"
    size = len(_unpacked(root).read_bytes())
    assert relocate_alertmanager(root)
    assert len((root / "usr/lib/cmo/prometheus-alertmanager").read_bytes()) == size, (
        "a program must not shift"
    )
    moved = root.rename(tmp_path / "second place")
    done = subprocess.run(
        [moved / "usr/bin/prometheus-alertmanager", "--flag", "two words"],
        cwd="/",
        capture_output=True,
        text=True,
    )
    assert done.stdout == "the templates\n--flag two words\n"


def test_one_that_is_mended_or_needs_no_mending_is_left_alone(tmp_path: Path) -> None:
    program = _unpacked(tmp_path)
    relocate_alertmanager(tmp_path)
    mended = program.read_text()
    assert not relocate_alertmanager(tmp_path)
    assert program.read_text() == mended
    assert not relocate_alertmanager(tmp_path / "empty")
