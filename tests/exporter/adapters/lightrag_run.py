"""Runs a program that asks a real LightRAG, where the version is installed, and reads what it prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cmo_exporter
import pytest

HERE = Path(__file__).parent
EXPORTER = Path(cmo_exporter.__file__).parents[1]
DEADLINE_SECONDS = 300

CALLS = "cmo_component_calls_total"


def running(program: str, version: str, request: pytest.FixtureRequest, *arguments: object) -> dict[str, Any]:
    """What the program of this directory found."""
    if version == "1.5":
        # Another 1.5 than that of our own environment, for whoever wants to know of it.
        python = os.environ.get("CMO_LIGHTRAG_1_5_PYTHON", sys.executable)
    else:
        python = python_beside_1_4(request)
    done = subprocess.run(
        [python, str(HERE / f"{program}.py"), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(EXPORTER)},
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def python_beside_1_4(request: pytest.FixtureRequest) -> str:
    """The interpreter of an environment with lightrag-hku 1.4, which cannot share one with 1.5."""
    try:
        return str(request.getfixturevalue("lightrag_1_4_python"))
    except pytest.FixtureLookupError:
        found = os.environ.get("CMO_LIGHTRAG_1_4_PYTHON")
    if not found:
        pytest.skip("CMO_LIGHTRAG_1_4_PYTHON names no interpreter of an environment with lightrag-hku 1.4.6")
    return found


def outcomes(counted: dict[str, float], component: str = "lightrag") -> dict[str, float]:
    """Counts by scenario and outcome."""
    found = {}
    for key, value in counted.items():
        name, *labels = key.split()
        if name == CALLS and labels[1] == component:
            found[f"{labels[0]} {labels[2]}"] = value
    return found
