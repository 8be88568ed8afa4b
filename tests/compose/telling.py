"""What a person who runs the proof sees: what is being done, when, and what was found."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_BEGAN_VARIABLE: Final = "CMO_COMPOSE_PROOF_BEGAN"
# The proof starts itself anew in namespaces of its own, and its clock goes on.
_began: Final = float(os.environ.setdefault(_BEGAN_VARIABLE, str(time.time())))


def seconds_so_far() -> float:
    """How long the proof has taken, from its beginning."""
    return time.time() - _began


class NotProvedError(Exception):
    """Something is not as it should be; the message says what was expected and what was found."""


def tell(text: str) -> None:
    """Write a line, with the seconds since the beginning."""
    sys.stdout.write(f"[{seconds_so_far():4.0f} s] {text}\n")
    sys.stdout.flush()


@contextlib.contextmanager
def step(what: str) -> Iterator[None]:
    """Say what is being done, and that it is done."""
    tell(f"{what} ...")
    began = time.monotonic()
    yield
    tell(f"{what}: done in {time.monotonic() - began:.0f} s")


def require(truth: object, expected: str) -> None:
    """Go on only if something is true.

    Raises:
        NotProvedError: it is not.
    """
    if not truth:
        raise NotProvedError(expected)
