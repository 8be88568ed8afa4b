"""What an exporter shows now: single values of its series."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import requests

if TYPE_CHECKING:
    from cmo_exporter import Exporter

WAIT = 60


def scraped(exporter: Exporter, name: str) -> float:
    """The value of one series, over the real port."""
    with requests.get(exporter.metrics_url, timeout=WAIT) as answer:
        found = re.search(rf"^{re.escape(name)} (\S+)$", answer.text, re.MULTILINE)
    assert found, name
    return float(found[1])


def value(exporter: Exporter, name: str, **labels: str) -> float:
    found = exporter.registry.get_sample_value(name, {"worker": "0", **labels})
    assert found is not None, (name, labels)
    return found


def blocked(exporter: Exporter) -> float:
    return scraped(exporter, 'cmo_event_loop_blocked_seconds{worker="0"}')


def errors(exporter: Exporter) -> float:
    return sum(
        sample.value
        for family in exporter.registry.collect()
        for sample in family.samples
        if sample.name == "cmo_instrumentation_errors_total"
    )
