"""Instrumentation that a question-answering service imports: queries in, Prometheus metrics out.

The names below are loaded when they are first used: readers of the metrics (rules, dashboards, checker)
import `cmo_exporter.catalogue` alone, and must not need what a writer of metrics needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cmo_exporter.components import ComponentCall
    from cmo_exporter.defaults import default_exporter
    from cmo_exporter.errors import ExporterError, MetricsAddressError, SettingsError, SharedDirectoryError
    from cmo_exporter.exporter import Exporter
    from cmo_exporter.middleware import instrument_asgi, instrument_fastapi
    from cmo_exporter.outcomes import Classifier, Outcome, StreamEnd, returned_failures
    from cmo_exporter.queries import Query
    from cmo_exporter.settings import ExporterSettings, Price
    from cmo_exporter.user_session import UserSession

_HOMES: Final = {
    "Classifier": "outcomes",
    "ComponentCall": "components",
    "Exporter": "exporter",
    "ExporterError": "errors",
    "ExporterSettings": "settings",
    "MetricsAddressError": "errors",
    "Outcome": "outcomes",
    "Price": "settings",
    "Query": "queries",
    "SettingsError": "errors",
    "SharedDirectoryError": "errors",
    "StreamEnd": "outcomes",
    "UserSession": "user_session",
    "default_exporter": "defaults",
    "instrument_asgi": "middleware",
    "instrument_fastapi": "middleware",
    "returned_failures": "outcomes",
}

__all__ = [
    "Classifier",
    "ComponentCall",
    "Exporter",
    "ExporterError",
    "ExporterSettings",
    "MetricsAddressError",
    "Outcome",
    "Price",
    "Query",
    "SettingsError",
    "SharedDirectoryError",
    "StreamEnd",
    "UserSession",
    "default_exporter",
    "instrument_asgi",
    "instrument_fastapi",
    "returned_failures",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
