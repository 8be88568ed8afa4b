"""What keeps the prober from starting; the message of each says how to mend it."""

from __future__ import annotations

from typing import Final

from cmo_exporter.errors import ExporterError

_USAGE: Final = 3


class ProbeError(Exception):
    """The prober cannot be run as asked."""

    exit_status = _USAGE


class CanariesError(ProbeError):
    """The file of canaries cannot be read, or does not say what is needed."""


class StuckError(ExporterError):
    """The prober no longer asks, so its metrics are no longer true; the scraper is told instead of a user."""
