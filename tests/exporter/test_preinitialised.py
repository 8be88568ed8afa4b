"""What a scrape shows before anything has happened, and how much it is."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import httpx
from cmo_exporter import Exporter, ExporterSettings, catalogue

if TYPE_CHECKING:
    from collections.abc import Iterator

SERIES_LIMIT = 2_600  # a worker has room for 3,000; what appears when it is needed comes on top
APPEARS_WHEN_NEEDED = {
    "http_server_request_duration_seconds",
    "http_server_time_to_first_byte_seconds",
    "cmo_fallbacks_total",
}


def lines(exporter: Exporter, accept: str = "text/plain") -> list[str]:
    text = httpx.get(exporter.metrics_url, headers={"Accept": accept}, timeout=60).text
    return [line for line in text.splitlines() if not line.startswith("#")]


def expected_label_sets(metric: catalogue.Metric, settings: ExporterSettings) -> Iterator[dict[str, str]]:
    """The label sets that must be there from the start."""
    if "provider" in metric.labels:
        for component, provider, model in settings.models:
            if metric.name == "cmo_llm_cost_usd_total" and model not in settings.prices:
                continue
            for kind in metric.labels.get("token_type") or ("",):
                labels = {"component": component, "provider": provider, "model": model}
                yield {**labels, "token_type": kind} if kind else labels
        return
    lists = {
        "scenario": settings.all_scenarios,
        "component": settings.components,
        "worker": (settings.worker,),
        "version": (settings.version,),
        "revision": (settings.revision,),
        "metric": tuple(catalogue.BY_NAME.keys() - catalogue.PROBE_METRICS),
        "http_request_method": ("GET", "POST"),
    }
    values = [known if known is not None else lists[label] for label, known in metric.labels.items()]
    for combination in itertools.product(*values):
        labels = dict(zip(metric.labels, combination, strict=True))
        if metric is not catalogue.COMPONENT_DURATION or labels["outcome"] != "cancelled":
            yield labels


def test_every_label_set_is_there_at_0(exporter: Exporter, settings: ExporterSettings) -> None:
    samples = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in exporter.registry.collect()
        for sample in family.samples
    }
    for metric in catalogue.CATALOGUE:
        if metric.name in APPEARS_WHEN_NEEDED | catalogue.PROBE_METRICS:
            continue
        name = f"{metric.name}_count" if metric.buckets else metric.name
        for labels in expected_label_sets(metric, settings):
            assert (name, frozenset(labels.items())) in samples, (name, labels)
    moving = {
        name
        for (name, _), value in samples.items()
        if value
        and not name.startswith(
            ("cmo_memory", "cmo_event_loop", "cmo_active_user_clock", "cmo_process", "cmo_gc_pause")
        )
    }
    assert moving == {"cmo_worker_start_time_seconds", "cmo_build_info"}


def test_usual_fallbacks_are_there_at_0(exporter: Exporter) -> None:
    labels = {"scenario": "live", "source": "lightrag", "target": "perplexity", "reason": "api_timeout"}
    assert exporter.registry.get_sample_value("cmo_fallbacks_total", labels) == 0


def test_durations_of_cancelled_calls_appear_when_there_are_any(exporter: Exporter) -> None:
    labels = {"scenario": "live", "component": "llm", "outcome": "cancelled"}
    name = "cmo_component_duration_seconds_count"
    assert exporter.registry.get_sample_value(name, labels) is None
    with exporter.query() as query, query.component("llm") as call:
        call.outcome("cancelled")
    assert exporter.registry.get_sample_value(name, labels) == 1


def test_nothing_is_served_that_is_not_in_the_catalogue(exporter: Exporter) -> None:
    known = {name for metric in catalogue.CATALOGUE for name in metric.series_names}
    assert {re.split(r"[{ ]", line)[0] for line in lines(exporter)} <= known


def test_the_exposition_stays_small(exporter: Exporter) -> None:
    for status in ("200", "422", "499", "500", "503", "504"):
        for route in ("/query", "/healthz", "/readyz"):
            exporter.recorder.instruments.http_duration.child("POST", route, status, "").observe(1)
    count = len(lines(exporter))
    assert 1_000 < count < SERIES_LIMIT


def test_bucket_edges_are_floats_and_nothing_is_created(exporter: Exporter) -> None:
    plain = lines(exporter)
    modern = lines(exporter, "application/openmetrics-text; version=1.0.0")
    for exposition in (plain, modern):
        assert any('le="2.0"' in line for line in exposition)
        assert not any('le="2"' in line or "_created" in line for line in exposition)
    # What is only there once it has been measured may come between the two.
    assert {line.rpartition(" ")[0] for line in plain} <= {line.rpartition(" ")[0] for line in modern}


def test_the_catalogue_can_be_read_without_what_a_writer_needs() -> None:
    code = (
        "import sys, cmo_exporter.catalogue as c; "
        "unwanted = ('prometheus_client', 'opentelemetry', 'fastapi'); "
        "bad = [m for m in sys.modules if m.split('.')[0] in unwanted]; "
        "sys.exit(', '.join(bad) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_using_the_exporter_needs_no_web_framework() -> None:
    code = (
        "import sys; from cmo_exporter import Exporter, ExporterSettings, instrument_asgi; "
        "Exporter(ExporterSettings()); "
        "bad = [m for m in ('fastapi', 'starlette', 'opentelemetry.sdk') if m in sys.modules]; "
        "sys.exit(', '.join(bad) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
