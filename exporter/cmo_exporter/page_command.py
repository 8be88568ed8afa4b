"""What the commands that write a page of documentation have in common: where the page goes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def write_page(page: str, arguments: Sequence[str], *, module: str) -> int:
    """Write the page to the path given, or to standard output; returns the exit status."""
    if len(arguments) > 1 or (arguments and arguments[0].startswith("-")):
        sys.stderr.write(f"usage: python -m {module} [PATH]\n")
        return 2
    if arguments:
        try:
            Path(arguments[0]).write_text(page, encoding="utf-8")
        except OSError as error:
            sys.stderr.write(f"{arguments[0]} cannot be written: {error.strerror}. Give another path.\n")
            return 1
    else:
        sys.stdout.write(page)
    return 0
