"""``python -m cmo_stack.first_password FILE``: make a password at the first start, and never again.

So that nothing starts with a password that everybody knows, and nobody has to think of one before they have
seen anything. The password is written to the file alone, and never printed.
"""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
from pathlib import Path
from typing import Final

_BYTES: Final = 24
_READABLE_BY_ITS_USER: Final = 0o400


class PasswordFileError(Exception):
    """The file of the password cannot be used; the message says why."""


def ensure(path: Path) -> bool:
    """Make the password, if there is none; whether it was made now.

    Raises:
        PasswordFileError: it cannot be written, or what is there is no password.
    """
    try:
        made = not path.exists() and _make(path)
        if not path.read_text(encoding="utf-8").strip():
            raise PasswordFileError(f"{path} is empty. Remove it, and a new password is made.")
    except (OSError, UnicodeDecodeError) as error:
        raise PasswordFileError(f"{path} cannot be read, or not be written: {error}") from None
    return made


def _make(path: Path) -> bool:
    """Make the password; False when somebody else, who began at the same time, was first.

    A power cut must not leave half a password, and two at once must not write into each other's file.
    """
    descriptor, name = tempfile.mkstemp(prefix=f"{path.name}.", suffix=".unfinished", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, _READABLE_BY_ITS_USER)
            file.write(secrets.token_urlsafe(_BYTES))
            file.flush()
            os.fsync(descriptor)
        os.link(name, path)
    except FileExistsError:
        return False
    finally:
        Path(name).unlink()
    return True


def main(arguments: list[str]) -> int:
    """Make the password and say so; 0 when there is one, else 3."""
    if len(arguments) != 1:
        sys.stderr.write("Expected the path of one file, which is to hold the password.\n")
        return 3
    path = Path(arguments[0])
    try:
        made = ensure(path)
    except PasswordFileError as error:
        sys.stderr.write(f"{error}\n")
        return 3
    sys.stdout.write(f"{path}: {'a password was made' if made else 'the password is there already'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
