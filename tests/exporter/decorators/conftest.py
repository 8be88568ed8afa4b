"""An exporter that is small, and not started: tests read its registry."""

from __future__ import annotations

import pytest
from cmo_exporter import Exporter, ExporterSettings


@pytest.fixture
def exporter() -> Exporter:
    """A small exporter, read without being served."""
    return Exporter(ExporterSettings(scenarios=("clinical_rush",), components=("lightrag",)))
