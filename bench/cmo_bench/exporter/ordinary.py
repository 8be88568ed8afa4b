"""A process with prometheus-client's own metrics: as many, with the same names and labels as in a file."""

from __future__ import annotations

import gc
import json
import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prometheus_client.metrics_core import Metric


def registry_like(exposition: str) -> CollectorRegistry:
    """A registry of ordinary counters, gauges and histograms with the series of a text exposition."""
    disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no types
    registry = CollectorRegistry()
    for family in text_string_to_metric_families(exposition):
        _make(family, registry)
    return registry


def _make(family: Metric, registry: CollectorRegistry) -> None:
    labels = tuple(name for name in family.samples[0].labels if name != "le") if family.samples else ()
    values = {tuple(sample.labels[name] for name in labels): sample.value for sample in family.samples}
    if family.type == "histogram":
        edges = sorted({float(sample.labels["le"]) for sample in family.samples if "le" in sample.labels})
        histogram = Histogram(family.name, family.documentation, labels, registry=registry, buckets=edges)
        for key in values:
            for edge in edges:
                child(histogram, key).observe(edge if math.isfinite(edge) else edges[-2] * 2)
    elif family.type == "counter":
        counter = Counter(family.name, family.documentation, labels, registry=registry)
        for key, value in values.items():
            child(counter, key).inc(value)
    else:
        gauge = Gauge(family.name, family.documentation, labels, registry=registry)
        for key, value in values.items():
            child(gauge, key).set(value)


def child(metric: Any, key: tuple[str, ...]) -> Any:
    """The child with these labels; the metric itself, where it has none."""
    return metric.labels(*key) if key else metric


def main(arguments: Sequence[str]) -> int:
    """Build the registry of the file that is named, and render it as often as the input says."""
    path, accept = arguments
    registry = registry_like(Path(path).read_text(encoding="utf-8"))
    encode, _ = choose_encoder(accept)
    gc.collect()
    gc.freeze()
    for _ in sys.stdin:
        began = time.perf_counter()
        text = encode(registry).decode()
        seconds = time.perf_counter() - began
        sys.stdout.write(json.dumps({"seconds": seconds, "series": series(text)}) + "\n")
        sys.stdout.flush()
    return 0


def series(exposition: str) -> int:
    """How many series an exposition holds."""
    return sum(1 for line in exposition.splitlines() if line and not line.startswith("#"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
