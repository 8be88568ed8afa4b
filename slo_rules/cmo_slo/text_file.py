"""Text files that somebody names: read without trusting their names, and written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class UnreadableFileError(Exception):
    """A file is not read: what is wrong with it, and how to mend it."""

    def __init__(self, wrong: str, mend: str) -> None:
        self.wrong = wrong
        self.mend = mend
        super().__init__(f"{wrong}; {mend}")


def read_text_file(path: Path, most_bytes: int) -> str:
    """The text of a regular file that somebody names, in UTF-8, with or without a byte order mark.

    A pipe may never end or never begin, and a device never ends, so neither is read.

    Raises:
        FileNotFoundError: there is none.
        UnreadableFileError: it is no regular file, larger than ``most_bytes``, no UTF-8, or cannot be read.
    """
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UnreadableFileError("is no regular file", "save it as a file, and name that")
            # The size that the system tells is no bound: a file may grow, and those of /proc tell none.
            content = file.read(most_bytes + 1)
    except FileNotFoundError:
        raise
    except IsADirectoryError as error:
        raise UnreadableFileError("is a directory", "name a file in it") from error
    except OSError as error:
        raise UnreadableFileError(
            f"cannot be read: {error.strerror}", "check the path and its permissions"
        ) from error
    if len(content) > most_bytes:
        wrong = f"is larger than {most_bytes // 1_000_000} MB"
        raise UnreadableFileError(wrong, "check that it is the right file, or split it")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableFileError(f"byte {error.start} is not UTF-8", "save the file as UTF-8") from error


def _without_waiting(path: str, flags: int) -> int:
    """Open, but do not wait for somebody to write into a pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def write_text_file(path: Path, text: str) -> None:
    """Write the whole file or nothing, and its folder where that is missing.

    A file that is there keeps its mode, and a link still points to it. Pipes and devices are written to.

    Raises:
        OSError: it cannot be written; what was there before is still there.
    """
    content = text.encode()
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.stat() if path.exists() else None
    if before is not None and not stat.S_ISREG(before.st_mode):
        path.write_bytes(content)
    else:
        _replace(path, content, before)


def _replace(path: Path, content: bytes, before: os.stat_result | None) -> None:
    """Write beside the file and put that in its place, so that nobody ever reads half of it."""
    # No `*.yml` of Prometheus' `rule_files`, and no `*.json` of Grafana's dashboards, matches this name.
    beside = path.with_name(f".{secrets.token_hex(8)}.new")
    try:
        # For a new file the mask of the process holds, as for any other.
        with beside.open("xb") as file:
            if before is not None:
                _take_owner_and_mode(file.fileno(), before)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _take_owner_and_mode(descriptor: int, before: os.stat_result) -> None:
    # Only root may give files away; whoever else replaces somebody's file owns it. No reason to fail.
    with contextlib.suppress(PermissionError):
        os.fchown(descriptor, before.st_uid, before.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(before.st_mode))
