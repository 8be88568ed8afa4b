"""Traces: off, and not even imported, until an endpoint is set."""

from __future__ import annotations

import logging
import os
from importlib import import_module
from typing import TYPE_CHECKING, Final

from cmo_exporter.errors import ExporterError

if TYPE_CHECKING:
    from types import ModuleType

    from fastapi import FastAPI
    from opentelemetry.sdk.trace import TracerProvider

    from cmo_exporter.settings import ExporterSettings
    from cmo_exporter.spans import SpanMaker

    Exemplar = dict[str, str]

_ENDPOINT_VARIABLES: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_FLUSH_TIMEOUT_MILLISECONDS: Final = 2_000

_log = logging.getLogger("cmo_exporter")


class Tracing:
    """The tracer provider of one exporter; there is none while no endpoint is set.

    Raises:
        ExporterError: an endpoint is set and a package that traces need is missing.
    """

    def __init__(self, settings: ExporterSettings) -> None:
        self._settings = settings
        self._spans: ModuleType | None = None
        self.provider: TracerProvider | None = None
        self.maker: SpanMaker | None = None
        self.open()

    @property
    def enabled(self) -> bool:
        """Whether an endpoint is set and OpenTelemetry is not switched off (OTEL_SDK_DISABLED)."""
        if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
            return False
        named = (self._settings.otlp_endpoint, *(os.environ.get(name) for name in _ENDPOINT_VARIABLES))
        return any(named)

    def open(self) -> None:
        """Begin to make spans, if an endpoint is set; again, it does nothing.

        Raises:
            ExporterError: an endpoint is set and a package that traces need is missing.
        """
        if self.provider is not None or not self.enabled:
            return
        if self._settings.otlp_endpoint is None:
            self._look_at_variables()
        try:
            self._spans = import_module("cmo_exporter.spans")
        except ImportError as error:
            raise ExporterError(
                f"An OTLP endpoint is set, but traces need a package that is missing: {error.name}. "
                "Install it, or unset the endpoint."
            ) from error
        self.provider, self.maker = self._spans.pipeline(self._settings)

    def _look_at_variables(self) -> None:
        """Say now what would else be said when the first spans cannot be sent; metrics go on without."""
        for name in _ENDPOINT_VARIABLES:
            url = os.environ.get(name, "")
            if url and not url.startswith(("http://", "https://")):
                _log.warning(
                    "%s has no scheme, and no spans can be sent there: it must be the http:// or https:// "
                    "URL of a collector that takes OTLP over HTTP, usually at port 4318.",
                    name,
                )

    def exemplar(self) -> Exemplar | None:
        """What joins a measurement made now to the span that is current, when that is sampled."""
        if self.maker is None or self._spans is None:
            return None
        found: Exemplar | None = self._spans.current_exemplar()
        return found

    def instrument(self, app: FastAPI) -> None:
        """Let opentelemetry-instrumentation-fastapi make the request spans, if the settings say so.

        Raises:
            ExporterError: they do, an endpoint is set, and that package is missing.
        """
        if self._spans is None or self._settings.request_spans != "opentelemetry":
            return
        try:
            self._spans.instrument(app, self.provider)
        except ImportError as error:
            raise ExporterError(
                'request_spans is "opentelemetry", which needs a package that is missing: '
                f"opentelemetry-instrumentation-fastapi ({error.name}). Install it, for example as "
                'cmo-observability[otel-fastapi], or leave the setting at "exporter".'
            ) from error

    def close(self) -> None:
        """Send what is left, for a short time, and stop."""
        if self.provider is None:
            return
        provider, self.provider, self.maker = self.provider, None, None
        try:
            provider.force_flush(_FLUSH_TIMEOUT_MILLISECONDS)
            provider.shutdown()
        except Exception as error:  # noqa: BLE001 - a service must end even when its spans cannot be sent
            _log.warning("The last spans could not be sent: %s.", type(error).__name__)
