"""Instrumentation of the packages that a question-answering service is made of, one module a package.

Each function takes an object of the service, makes it report to an exporter, and returns the same object,
which goes on doing what it did: results, exceptions and types stay, and nothing here raises into the
service. Done twice to the same object, the second time does nothing.

The names below are loaded when they are first used, and no package is imported that the service has not
imported itself.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cmo_exporter.adapters.cachetools import instrument_cachetools
    from cmo_exporter.adapters.diskcache import instrument_diskcache
    from cmo_exporter.adapters.lightrag import instrument_lightrag
    from cmo_exporter.adapters.openai import instrument_openai
    from cmo_exporter.adapters.purgatory import instrument_purgatory
    from cmo_exporter.adapters.redis import instrument_redis

_HOMES: Final = {
    "instrument_cachetools": "cachetools",
    "instrument_diskcache": "diskcache",
    "instrument_lightrag": "lightrag",
    "instrument_openai": "openai",
    "instrument_purgatory": "purgatory",
    "instrument_redis": "redis",
}

__all__ = [
    "instrument_cachetools",
    "instrument_diskcache",
    "instrument_lightrag",
    "instrument_openai",
    "instrument_purgatory",
    "instrument_redis",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
