"""What can go wrong while the exporter is set up; afterwards it raises nothing into the service."""

from __future__ import annotations


class ExporterError(Exception):
    """The exporter cannot be set up as asked; the message says how to mend it."""


class SettingsError(ExporterError, ValueError):
    """A setting has a value that cannot work."""


class MetricsAddressError(ExporterError):
    """``/metrics`` cannot be served at the host and port of the settings."""


class SharedDirectoryError(ExporterError):
    """The directory through which workers are counted together cannot be used."""


class HeldTableError(SharedDirectoryError):
    """Another worker does not let go of the table of sessions; the service goes on."""
