"""The proof itself ends in words, whatever is missing: it never hangs, and shows nobody a traceback."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from . import prove

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_an_engine_that_says_nothing_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = tmp_path / "docker"
    client.write_text("#!/bin/sh\nexec sleep 600\n")
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(prove, "_ANSWERS_WITHIN_SECONDS", 0.2)
    assert not prove._engine_answers()


def test_a_folder_that_cannot_be_made_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".cmo").write_text("a file where a folder is wanted")

    def make_folder() -> int:
        (tmp_path / ".cmo").mkdir(exist_ok=True)
        return 0

    monkeypatch.setattr(prove, "_engine_answers", lambda: False)
    monkeypatch.setattr(prove, "_with_an_engine_of_our_own", make_folder)
    assert prove.main([]) == 1
    assert "NOT PROVED. [Errno 17] File exists" in capsys.readouterr().out


def test_a_command_that_fails_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def download() -> int:
        subprocess.run([sys.executable, "-c", "raise SystemExit(1)"], check=True)
        return 0

    monkeypatch.setattr(prove, "_engine_answers", lambda: False)
    monkeypatch.setattr(prove, "_with_an_engine_of_our_own", download)
    assert prove.main([]) == 1
    assert "returned non-zero exit status 1" in capsys.readouterr().out
