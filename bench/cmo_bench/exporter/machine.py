"""What a run was made with: packages, Python, processor. Nothing that tells whose machine it was."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

PACKAGES: Final = (
    "cmo-observability",
    "fastapi",
    "opentelemetry-exporter-otlp-proto-http",
    "opentelemetry-instrumentation-fastapi",
    "opentelemetry-sdk",
    "prometheus-client",
    "prometheus-fastapi-instrumentator",
    "pydantic",
    "starlette",
    "starlette-exporter",
    "uvicorn",
)


def packages() -> list[tuple[str, str]]:
    """Every package that the figures depend on, and its version."""
    return [(name, _version(name)) for name in PACKAGES]


def machine() -> str:
    """The interpreter, the system and the processor in one line."""
    interpreter = f"{platform.python_implementation()} {platform.python_version()}"
    system = f"{platform.system()} {platform.machine()}"
    return f"{interpreter}, {system}, {os.cpu_count()} cores, {_processor()}"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "from the source tree"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return "processor unknown"
