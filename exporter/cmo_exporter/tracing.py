"""Traces: off, and not even imported, until an endpoint is set."""

from __future__ import annotations

import logging
import os
from importlib import import_module
from typing import TYPE_CHECKING, Final

from cmo_exporter.errors import ExporterError

if TYPE_CHECKING:
    from fastapi import FastAPI
    from opentelemetry.sdk.trace import TracerProvider

    from cmo_exporter.settings import ExporterSettings

_ENDPOINT_VARIABLES: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_FLUSH_TIMEOUT_MILLISECONDS: Final = 2_000

_log = logging.getLogger("cmo_exporter")


class Tracing:
    """The tracer provider of one exporter; there is none while no endpoint is set."""

    def __init__(self, settings: ExporterSettings) -> None:
        self._provider: TracerProvider | None = None
        self._settings = settings

    @property
    def enabled(self) -> bool:
        """Whether an endpoint is set and OpenTelemetry is not switched off (OTEL_SDK_DISABLED)."""
        if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
            return False
        named = (self._settings.otlp_endpoint, *(os.environ.get(name) for name in _ENDPOINT_VARIABLES))
        return any(named)

    def instrument(self, app: FastAPI) -> None:
        """Make a span of every request of this app, if an endpoint is set.

        Raises:
            ExporterError: an endpoint is set and a package that traces need is missing.
        """
        if not self.enabled:
            return
        try:
            spans = import_module("cmo_exporter.spans")
        except ImportError as error:
            raise ExporterError(
                f"An OTLP endpoint is set, but traces need a package that is missing: {error.name}. "
                "Install it, or unset the endpoint."
            ) from error
        if self._provider is None:
            self._provider = spans.provider(self._settings)
        spans.instrument(app, self._provider)

    def close(self) -> None:
        """Send what is left, for a short time, and stop."""
        if self._provider is None:
            return
        provider, self._provider = self._provider, None
        try:
            provider.force_flush(_FLUSH_TIMEOUT_MILLISECONDS)
            provider.shutdown()
        except Exception as error:  # noqa: BLE001 - a service must end even when its spans cannot be sent
            _log.warning("The last spans could not be sent: %s.", type(error).__name__)
