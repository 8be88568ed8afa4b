from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from cmo_stack.ports import Ports
from cmo_stack.revision import revision
from cmo_stack.topology import Settings, parts

if TYPE_CHECKING:
    from pathlib import Path


def git(folder: Path, *words: str) -> str:
    # Git tells what it starts, a hook or `rebase --exec`, where its own repository is: that one is not ours.
    ours = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    identity = {
        f"GIT_{who}_{what}": "nobody" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    done = subprocess.run(
        ["git", *words],
        cwd=folder,
        env={**ours, **identity, "GIT_CONFIG_GLOBAL": os.devnull},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    folder = tmp_path / "checkout"
    folder.mkdir()
    git(folder, "init", "--quiet")
    (folder / "file").write_text("one")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "first", "--no-verify", "--no-gpg-sign")
    return folder


def test_a_checkout_has_a_revision_and_a_changed_one_says_so(checkout: Path) -> None:
    head = git(checkout, "rev-parse", "--short", "HEAD")
    git(checkout, "tag", "--annotate", "--message=a release", "v1")
    assert revision(checkout) == head
    (checkout / "file").write_text("two, and longer")
    assert revision(checkout) == f"{head}-dirty"


def test_a_worktree_has_one_too(checkout: Path) -> None:
    git(checkout, "worktree", "add", "--quiet", "../worktree")
    assert revision(checkout.parent / "worktree") == git(checkout, "rev-parse", "--short", "HEAD")


def test_a_folder_inside_another_checkout_has_none(checkout: Path) -> None:
    (checkout / "site-packages").mkdir()
    assert revision(checkout / "site-packages") == "unknown"


def test_nothing_is_known_without_commits_without_a_folder_or_without_git(
    tmp_path: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "init", "--quiet")
    assert revision(tmp_path) == "unknown"
    assert revision(tmp_path / "nowhere") == "unknown"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert revision(checkout) == "unknown"


def test_a_git_that_hangs_is_not_waited_for(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = checkout / "programs"
    programs.mkdir()
    (programs / "git").write_text("#!/bin/sh\nexec sleep 600\n")
    (programs / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    assert revision(checkout) == "unknown"


def test_the_service_is_told(tmp_path: Path) -> None:
    settings = Settings(Ports.choose({}, prefer_defaults=False), tmp_path / "run", tmp_path / "index")
    command = next(part.command for part in parts(settings) if part.name == "service")
    told = command[command.index("--revision") + 1]
    assert re.fullmatch(r"[0-9a-f]{4,}(-dirty)?|unknown", told)
    assert told == revision()
