"""Render the committed Prometheus and Alertmanager configuration for one run.

The committed files are what people read and deploy: they name the well-known ports and the normal intervals.
A run changes ports, intervals and paths, and nothing else.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml
from cmo_slo import rulefile
from cmo_slo.objectives import find_objectives, load_objectives

from cmo_stack.health import LOOPBACK
from cmo_stack.ports import DEFAULT_PORTS, Ports

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ADDRESS: Final = re.compile(r"\b(?:127\.0\.0\.1|localhost):(\d+)\b")
_INTERVAL_KEYS: Final = ("scrape_interval", "scrape_timeout", "evaluation_interval")


class ConfigurationMissingError(Exception):
    """A file that belongs to this distribution is not where it should be."""


def committed(room: str, name: str) -> Path:
    """Where a configuration file of ``prometheus/`` or ``alertmanager/`` is, in the tree or in a wheel.

    Raises:
        ConfigurationMissingError: it is in neither.
    """
    package = Path(__file__).resolve().parent
    candidates = (package / room / name, package.parents[1] / room / name)
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise ConfigurationMissingError(
            f"{room}/{name} is missing: looked in {candidates[0]} and {candidates[1]}."
        )
    return found


def rule_file(objectives_name: str, scrape_interval_seconds: int, directory: Path) -> Path:
    """The compiled rules of shipped objectives: the committed file, or one compiled for another interval."""
    objectives = load_objectives(find_objectives(objectives_name))
    interval = f"{scrape_interval_seconds}s"
    name = rulefile.rule_file_name(objectives, interval)
    shipped = rulefile.shipped_rules_directory() / name
    if shipped.is_file():
        return shipped
    compiled = directory / name
    compiled.write_text(rulefile.render(objectives, interval))
    return compiled


def prometheus_configuration(
    template: str, *, ports: Ports, scrape_interval_seconds: int, rules: Sequence[Path]
) -> str:
    """The committed prometheus.yml with this run's ports, intervals (in seconds) and rule files."""
    configuration = _with_ports(yaml.safe_load(template), ports)
    interval = f"{scrape_interval_seconds}s"
    configuration["global"] = {**configuration.get("global", {}), **dict.fromkeys(_INTERVAL_KEYS, interval)}
    for job in configuration.get("scrape_configs", ()):
        for key in _INTERVAL_KEYS:
            job.pop(key, None)
    configuration["rule_files"] = [str(path) for path in rules]
    return _dump(configuration)


def alertmanager_configuration(template: str, *, ports: Ports, directory: Path) -> str:
    """The committed alertmanager.yml with this run's ports; templates are found beside the committed file."""
    configuration = _with_ports(yaml.safe_load(template), ports)
    if "templates" in configuration:
        configuration["templates"] = [str(directory / pattern) for pattern in configuration["templates"]]
    return _dump(configuration)


def _with_ports(value: Any, ports: Ports) -> Any:
    """The same tree with every loopback address at a well-known port moved to this run's port."""
    moved = {getattr(DEFAULT_PORTS, name): getattr(ports, name) for name in Ports.names()}
    return _walk(value, moved)


def _walk(value: Any, moved: Mapping[int, int]) -> Any:
    if isinstance(value, dict):
        return {key: _walk(item, moved) for key, item in value.items()}
    if isinstance(value, list):
        return [_walk(item, moved) for item in value]
    if isinstance(value, str):
        return _ADDRESS.sub(lambda match: f"{LOOPBACK}:{moved.get(int(match[1]), int(match[1]))}", value)
    return value


def _dump(configuration: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(configuration), sort_keys=False)
