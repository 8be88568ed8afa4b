"""A page of metrics with everything that the catalogue knows, for queries that must find what they name.

Closed lists are the catalogue's own. Where a list is a setting, the values are those of the reference
service, of the objectives' run and of the shipped canaries: a query with any other value finds nothing.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from cmo_exporter import catalogue

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cmo_exporter.catalogue import Metric

ROOT = Path(__file__).resolve().parents[2]
_CANARIES = yaml.safe_load((ROOT / "exporter/cmo_probe/canaries.yml").read_text(encoding="utf-8"))["canaries"]
_SETTINGS: Mapping[str, tuple[str, ...]] = {
    "component": ("cache_l1", "cache_l2", "cache_l3", "lightrag", "perplexity", "llm", "embedding"),
    "provider": ("stub",),
    "model": ("cmo-stub", "cmo-stub-embedding", "cmo-stub-online"),
    "worker": ("0", "1"),
    "metric": tuple(catalogue.BY_NAME),
    "canary": tuple(canary["name"] for canary in _CANARIES),
    "version": ("0.1.0",),
    "revision": ("0f56e95",),
    "http_request_method": ("GET", "POST"),
    "http_route": ("/query", "/healthz", "/readyz"),
    "http_response_status_code": ("200", "400", "413", "422", "429", "499", "500", "503", "504"),
    "error_type": ("", catalogue.INCOMPLETE),
}
# Labels that the exporter sets itself, so that nothing is ever outside of their list.
_NEVER_OTHER = frozenset({"worker", "generation", "version", "revision", "error_type"})


def exposition(scenarios: tuple[str, ...]) -> str:
    """Every series of every metric, in Prometheus' text format; ``scenarios`` are those of the run."""
    settings = {**_SETTINGS, "scenario": (catalogue.LIVE, *scenarios)}
    return "\n".join(line for metric in catalogue.CATALOGUE for line in _lines(metric, settings)) + "\n"


def _lines(metric: Metric, settings: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    yield f"# TYPE {metric.name} {metric.kind}"
    values = [_values(name, closed, settings) for name, closed in metric.labels.items()]
    for chosen in product(*values):
        labels = [f'{name}="{value}"' for name, value in zip(metric.labels, chosen, strict=True)]
        if metric.buckets:
            yield from _histogram(metric, labels)
        else:
            yield f"{metric.name}{{{','.join(labels)}}} 1"


def _values(
    name: str, closed: tuple[str, ...] | None, settings: Mapping[str, tuple[str, ...]]
) -> tuple[str, ...]:
    known = settings[name] if closed is None else closed
    return known if name in _NEVER_OTHER else (*known, catalogue.OTHER)


def _histogram(metric: Metric, labels: list[str]) -> Iterator[str]:
    """One observation below each edge, and one above the last."""
    for count, edge in enumerate((*map(str, metric.buckets), "+Inf"), start=1):
        edged = [*labels, f'le="{edge}"']
        yield f"{metric.name}_bucket{{{','.join(edged)}}} {count}"
    for part in ("count", "sum"):
        yield f"{metric.name}_{part}{{{','.join(labels)}}} {len(metric.buckets) + 1}"
