"""docker-compose.yml as plain YAML, for tests: who is in it, what it mounts, and how flags are written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

    Service = dict[str, Any]
    File = dict[str, Any]

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
PAGE = (ROOT / "docs/compose.md").read_text()
BASE_IMAGES = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
PIN = re.compile(r"^[a-z0-9./-]+:v?\d+\.\d+\.\d+(-[a-z]+)*$")
"""An image of one version, down to the patch."""
VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")
ONE_SHOTS = {"grafana-password", "victoria-metrics-volume", "load", "scale-load"}
GRAFANA = "grafana"
SERVERS = (
    "redis",
    "upstream",
    "service",
    "prober",
    "prometheus",
    "alertmanager",
    "pager",
    "dead-man",
)
"""What stays up without a profile, but Grafana, of which there is no stand-in."""
SCALED_SERVERS = (
    "service-a",
    "service-b",
    "proxy",
    "proxy-prober",
    "prometheus-a",
    "prometheus-b",
    "victoria-metrics",
    "vmalert",
    "scale-dead-man",
    "alertmanager-a",
    "alertmanager-b",
)
"""What stays up with the profile ``scale``."""
BASE = {*SERVERS, GRAFANA, "grafana-password"}
SCALED = {*SCALED_SERVERS, "victoria-metrics-volume"}


def compose_file() -> File:
    file: File = yaml.safe_load(TEXT)
    return file


def filled_in(text: str) -> str:
    """A text as Compose reads it where nothing is set."""
    return VARIABLE.sub(lambda match: match[2], text)


def services(file: File) -> Iterator[tuple[str, Service]]:
    yield from file["services"].items()


def flags(service: Service) -> list[str]:
    return [filled_in(str(word)) for word in service.get("command", ())]


@dataclass(frozen=True)
class Mount:
    """One volume of a service; without a source, a volume that nobody has named."""

    source: str
    target: str
    read_only: bool


def mounted(service: Service) -> list[Mount]:
    """Every volume of a service, whether it is written on one line or on several."""
    return [
        Mount(filled_in(volume["source"]), volume["target"], read_only=volume.get("read_only", False))
        if isinstance(volume, dict)
        else _in_short(*filled_in(volume).split(":"))
        for volume in service.get("volumes", ())
    ]


def _in_short(source: str, target: str = "", options: str = "") -> Mount:
    if not target:
        return Mount("", source, read_only=False)
    return Mount(source, target, read_only="ro" in options.split(","))


def mounts(service: Service) -> dict[str, str]:
    """Where each source is mounted, without options."""
    return {mount.source: mount.target for mount in mounted(service)}
