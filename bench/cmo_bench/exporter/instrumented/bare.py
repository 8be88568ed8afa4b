"""The service as it is without any instrumentation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmo_bench.exporter.service import service
from cmo_bench.exporter.variants import Built

if TYPE_CHECKING:
    from cmo_bench.exporter.variants import Surroundings


def bare(_: Surroundings) -> Built:
    """FastAPI alone."""
    return Built(service(), lambda: None, lambda: None)
