"""An exporter that nobody scrapes, for objects whose behaviour is looked at one call at a time."""

from __future__ import annotations

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


@pytest.fixture(scope="module", params=["1.5", "1.4"])
def version(request: pytest.FixtureRequest) -> str:
    """The version of LightRAG."""
    return str(request.param)
