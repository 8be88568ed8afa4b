"""The proof itself ends in words, whatever is missing: it never hangs, and shows nobody a traceback."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest

from . import prove, telling

if TYPE_CHECKING:
    from pathlib import Path


def test_an_engine_that_says_nothing_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _docker(tmp_path, monkeypatch, "exec sleep 600")
    monkeypatch.setattr(prove, "_ANSWERS_WITHIN_SECONDS", 0.2)
    assert not prove._engine_answers()


def test_an_engine_that_does_nothing_else_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _docker(tmp_path, monkeypatch, '[ "$1" = info ] || { echo "no space left on device" >&2; exit 7; }')
    assert prove.main([]) == 1
    told = capsys.readouterr().out
    assert re.search(r"NOT PROVED\. `docker .*` ended with 7:\nno space left on device\n", told)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prove.main(["--inside", str(tmp_path / "none")]) == 1
    assert "NOT PROVED. [Errno" in capsys.readouterr().out


@pytest.mark.parametrize(("minutes", "longer"), [(2, False), (9, True)])
def test_it_says_how_long_it_took_and_whether_that_is_longer_than_promised(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], minutes: int, *, longer: bool
) -> None:
    monkeypatch.setattr(prove, "_engine_answers", lambda: False)
    monkeypatch.setattr(prove, "_with_an_engine_of_our_own", lambda: 0)
    monkeypatch.setattr(telling, "_began", time.time() - minutes * 60)
    assert prove.main([]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"It took \d+ s in all\.", printed)
    assert ("THAT IS LONGER than the 480 s" in printed) == longer


def _docker(folder: Path, monkeypatch: pytest.MonkeyPatch, does: str) -> None:
    """A client of Docker that comes first on the search path."""
    client = folder / "docker"
    client.write_text(f"#!/bin/sh\n{does}\n")
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
