"""An exporter that nobody scrapes, for objects whose behaviour is looked at one call at a time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cmo_exporter import Exporter, ExporterSettings, Price

from .readings import Readings


@pytest.fixture
def adapted() -> Exporter:
    """An exporter that is not started, with two models of one provider."""
    return Exporter(
        ExporterSettings(
            scenarios=("clinical_rush",),
            components=("lightrag", "llm", "cache_l3"),
            models=(("llm", "stub", "small"), ("llm", "stub", "embedder")),
            prices={"small": Price(input=1.0, output=2.0)},
        )
    )


@pytest.fixture
def readings(adapted: Exporter) -> Readings:
    """What that exporter shows."""
    return Readings(adapted)


@pytest.fixture(scope="session")
def lightrag_1_4_python() -> Path:
    """The interpreter of an environment with lightrag-hku 1.4, which cannot share one with 1.5."""
    found = os.environ.get("CMO_LIGHTRAG_1_4_PYTHON")
    if not found:
        pytest.skip("CMO_LIGHTRAG_1_4_PYTHON names no interpreter of an environment with lightrag-hku 1.4.6")
    return Path(found)
