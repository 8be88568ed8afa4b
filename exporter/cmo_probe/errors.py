"""What keeps the prober from starting; the message of each says how to mend it."""

from __future__ import annotations

from typing import Final

_USAGE: Final = 3


class ProbeError(Exception):
    """The prober cannot be run as asked."""

    exit_status = _USAGE


class CanariesError(ProbeError):
    """The file of canaries cannot be read, or does not say what is needed."""
