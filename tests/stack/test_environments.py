"""What goes into environments of its own is usable there, and nothing is installed while it runs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

_EXPORTER_WORKS = """\
import sys
from cmo_exporter import Exporter, ExporterSettings, instrument_asgi, instrument_fastapi
with Exporter(ExporterSettings()) as exporter:
    with exporter.query() as query:
        query.answered("cache")
    print(exporter.registry.get_sample_value("cmo_answers_total", {"scenario": "live", "source": "cache"}))
print(sorted(name for name in sys.modules if name.startswith("opentelemetry")))
"""


def _run(python: Path, program: str, folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "exporter")}
    done = subprocess.run(
        [python, "-c", program], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("fixture", ["lightrag_1_4_python", "chainlit_python"])
def test_the_exporter_works_beside_packages_that_are_not_ours(
    fixture: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """And imports nothing of OpenTelemetry, whose versions are another's there, unless it is to trace."""
    assert _run(request.getfixturevalue(fixture), _EXPORTER_WORKS, tmp_path) == "1.0\n[]\n"


def test_the_engine_of_the_cmo_can_install_nothing(lightrag_1_4_python: Path, tmp_path: Path) -> None:
    """Its bindings run pip when they are imported, through a package that is left out."""
    program = """\
import lightrag
print(lightrag.__version__)
try:
    import lightrag.llm.openai
except ModuleNotFoundError as error:
    print(error.name)
"""
    assert _run(lightrag_1_4_python, program, tmp_path) == "1.4.6\npipmaster\n"
