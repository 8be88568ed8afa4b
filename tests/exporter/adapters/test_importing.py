"""An adapter imports its package only when it is used, and nothing that the service has not got."""

from __future__ import annotations

import subprocess
import sys

import pytest
from cmo_exporter import Exporter, adapters

PACKAGES = ("lightrag", "openai", "purgatory", "cachetools", "redis", "diskcache")


def test_importing_all_adapters_imports_none_of_their_packages() -> None:
    names = ", ".join(adapters.__all__)
    program = (
        f"from cmo_exporter.adapters import {names}\n"
        "import sys\n"
        f"print([name for name in {PACKAGES} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("name", "metric", "options"),
    [
        ("instrument_lightrag", "cmo_component_calls_total", {}),
        ("instrument_openai", "cmo_llm_tokens_total", {"component": "llm", "provider": "stub"}),
        ("instrument_purgatory", "cmo_circuit_breaker_state", {}),
        ("instrument_cachetools", "cmo_cache_requests_total", {"tier": "l1"}),
        ("instrument_redis", "cmo_cache_requests_total", {"tier": "l1"}),
        ("instrument_diskcache", "cmo_cache_requests_total", {"tier": "l1"}),
    ],
)
def test_an_object_of_another_kind_is_counted_and_left_as_it_is(
    adapted: Exporter, name: str, metric: str, options: dict[str, str]
) -> None:
    stranger = object()
    assert getattr(adapters, name)(stranger, adapted, **options) is stranger
    errors = {
        sample.labels["metric"]: sample.value
        for family in adapted.registry.collect()
        for sample in family.samples
        if sample.name == "cmo_instrumentation_errors_total"
    }
    assert errors[metric] == 1
