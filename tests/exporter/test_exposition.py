"""The text of a scrape is what prometheus-client would have written, in both formats."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from cmo_exporter import Exporter, ExporterSettings
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from pathlib import Path

FORMATS = ["text/plain", "application/openmetrics-text; version=1.0.0"]
# They move by themselves between two readings.
MOVING = re.compile(r"^cmo_(memory|active_user|process|event_loop|asyncio|gc|oldest)[^ ]* .*$", re.MULTILINE)
TRACE = {"trace_id": "0af7651916cd43dd8448eb211c80319c", "span_id": "b7ad6b7169203331"}


def still(text: str) -> list[str]:
    """The lines, without the values that move."""
    return [line.rpartition(" ")[0] if MOVING.match(line) else line for line in text.splitlines()]


def fill(exporter: Exporter) -> None:
    for scenario in ("live", "rush", "unheard of"):
        for source in ("cache", "default", "unheard of"):
            with exporter.query(scenario, "user") as query, query.component("llm"):
                query.cache_result("hit")
                query.answered(source)
    instruments = exporter.recorder.instruments
    for seconds in (0.0, 0.01, 1.999, 2.0, 2.0001, 59.0, 61.0, 1e9):
        instruments.duration.child("live", "success").observe(seconds)
        instruments.http_duration.child("GET", '/odd/{"quoted"}\\back\nline', "200", "").observe(seconds)
    instruments.network.child("receive").inc(1e15 + 0.5)
    instruments.duration.child("rush", "failure").observe(2.5, TRACE)


@pytest.mark.parametrize("accept", FORMATS)
@pytest.mark.parametrize("workers", ["alone", "shared"])
def test_the_text_is_that_of_the_library(
    accept: str, workers: str, settings: ExporterSettings, tmp_path: Path
) -> None:
    shared = tmp_path / "shared" if workers == "shared" else None
    exporter = Exporter(ExporterSettings(scenarios=("rush",), components=("llm",), shared_directory=shared))
    with exporter:
        fill(exporter)
        encode, content_type = choose_encoder(accept)
        for _ in range(2):  # the second time from what was made the first time
            text, said = exporter._exposition.render(accept)
            assert said == content_type
            assert still(text.decode()) == still(encode(exporter.registry).decode())


def test_exemplars_are_shown_in_openmetrics_alone(settings: ExporterSettings) -> None:
    exporter = Exporter(ExporterSettings(scenarios=("rush",)))
    fill(exporter)
    text = exporter._exposition.render(FORMATS[1])[0].decode()
    (shown,) = (
        sample
        for family in text_string_to_metric_families(text)  # type: ignore[no-untyped-call]  # no types
        for sample in family.samples
        if sample.exemplar is not None
    )
    assert shown.exemplar is not None
    assert (shown.name, shown.labels["le"], shown.labels["scenario"]) == (
        "cmo_query_duration_seconds_bucket",
        "2.5",
        "rush",
    )
    assert (shown.exemplar.labels, shown.exemplar.value) == (TRACE, 2.5)
    assert shown.exemplar.timestamp is not None
    assert TRACE["trace_id"] not in exporter._exposition.render(FORMATS[0])[0].decode()


def test_the_latest_exemplar_of_any_worker_is_shown(tmp_path: Path) -> None:
    first, second = (
        Exporter(ExporterSettings(shared_directory=tmp_path / "shared")) for _ in range(2)
    )  # fmt: skip
    with first, second:
        for number, exporter in enumerate((first, second, first)):
            trace = {**TRACE, "trace_id": f"{number + 1:032x}"}
            exporter.recorder.instruments.duration.child("live", "success").observe(0.3, trace)
            for reader in (first, second):
                text = reader._exposition.render(FORMATS[1])[0].decode()
                assert re.findall(r'trace_id="(\w+)"', text) == [trace["trace_id"]]


@hypothesis_settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 100, allow_subnormal=False), max_size=50))
def test_a_histogram_holds_what_it_was_given(values: list[float]) -> None:
    exporter = Exporter(ExporterSettings())
    child = exporter.recorder.instruments.duration.child("live", "success")
    for value in values:
        child.observe(value)
    samples = {
        (sample.name.rpartition("_")[2], sample.labels.get("le")): sample.value
        for family in exporter.registry.collect()
        for sample in family.samples
        if sample.name.startswith("cmo_query_duration_seconds")
        and (sample.labels["scenario"], sample.labels["outcome"]) == ("live", "success")
    }
    for edge in child.edges:
        assert samples["bucket", str(edge)] == sum(value <= edge for value in values)
    assert samples["bucket", "+Inf"] == samples["count", None] == len(values)
    assert samples["sum", None] == pytest.approx(sum(values))
