"""What the engine tells of its calls: to whom they belong, and how long they waited."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cmo_exporter import Exporter, ExporterSettings

from ..exporter.collector import attributes, collecting
from .running_engine import CURRENT, QUESTION, RecordedQuery, Recorder, opened, serve

if TYPE_CHECKING:
    from pathlib import Path

    from cmo_oracle.engine import Engine


async def test_calls_and_tokens_go_to_the_query_that_asked(indexes: Path) -> None:
    telemetry = Recorder()
    queries = [RecordedQuery(f"query {number}") for number in range(12)]
    modes = ["naive", "hybrid", "mix"] * 4

    async def ask(engine: Engine, query: RecordedQuery, mode: str) -> None:
        CURRENT.set(query)
        await engine.answer(QUESTION, mode)

    async with serve() as stub, opened(stub.settings(indexes, model_calls_at_once=2), telemetry) as engine:
        await asyncio.gather(*(ask(engine, *pair) for pair in zip(queries, modes, strict=True)))
    for query, mode in zip(queries, modes, strict=True):
        made = sorted((call.component, call.outcome) for call in query.calls)
        llm_calls = 1 if mode == "naive" else 2
        assert made == [("embedding", "success")] + [("llm", "success")] * llm_calls, (query.name, mode)
    answers = [used for used in telemetry.used if used[2] == "cmo-stub"]
    assert len(answers) == 4 * 1 + 8 * 2
    assert all(used[:2] == ("lightrag", "stub") and used[3] > 0 and used[4] > 0 for used in answers)


async def test_the_exporter_can_be_given_as_it_is(indexes: Path) -> None:
    settings = ExporterSettings(
        scenarios=("academic_research",),
        components=("lightrag", "llm", "embedding"),
        models=(("lightrag", "stub", "cmo-stub"),),
    )
    exporter = Exporter(settings)

    async def ask(engine: Engine, scenario: str, mode: str) -> None:
        with exporter.query(scenario=scenario, session=None) as query:
            await engine.answer(QUESTION, mode)
            query.answered("lightrag")

    async with serve() as stub, opened(stub.settings(indexes), exporter) as engine:
        await asyncio.gather(
            *(ask(engine, "academic_research", "hybrid") for _ in range(3)),
            *(ask(engine, "live", "naive") for _ in range(2)),
        )
    read = exporter.registry.get_sample_value
    for scenario, component, expected in (
        ("academic_research", "llm", 6),
        ("academic_research", "embedding", 3),
        ("live", "llm", 2),
        ("live", "embedding", 2),
    ):
        labels = {"scenario": scenario, "component": component, "outcome": "success"}
        assert read("cmo_component_calls_total", labels) == expected, labels
    assert read("cmo_queue_wait_seconds_count", {"component": "llm"}) == 8
    assert read("cmo_queue_depth", {"component": "llm"}) == 0
    tokens = {"component": "lightrag", "provider": "stub", "model": "cmo-stub", "token_type": "input"}
    assert (read("cmo_llm_tokens_total", tokens) or 0) > 0
    exporter.close()


async def test_model_calls_are_spans_of_the_query_that_asked(indexes: Path) -> None:
    with collecting() as collector:
        settings = ExporterSettings(
            components=("lightrag", "llm", "embedding"),
            models=(("lightrag", "stub", "cmo-stub"), ("lightrag", "stub", "cmo-stub-embedding")),
            otlp_endpoint=collector.url,
        )
        exporter = Exporter(settings)

        async def ask(engine: Engine) -> None:
            with exporter.query() as query, query.component("lightrag"):
                await engine.answer(QUESTION, "hybrid")

        async with serve() as stub:
            engine_settings = stub.settings(indexes, model_calls_at_once=1)
            async with opened(engine_settings, exporter) as engine:
                await asyncio.gather(*(ask(engine) for _ in range(3)))
        exporter.close()
    assert QUESTION not in collector.text
    above = {span.span_id: span for span in collector.spans if span.name in ("query", "lightrag")}
    traces: dict[bytes, list[str]] = {}
    for span in collector.spans:
        traces.setdefault(span.trace_id, []).append(span.name)
        if span.name not in ("query", "lightrag"):
            assert above[span.parent_span_id].name == "lightrag"
            assert int(str(attributes(span)["gen_ai.usage.input_tokens"])) > 0
    made = ["chat cmo-stub"] * 2 + ["embeddings cmo-stub-embedding", "lightrag", "query"]
    assert [sorted(names) for names in traces.values()] == [made] * 3


async def test_waits_for_a_place_are_reported_and_the_line_empties(indexes: Path) -> None:
    telemetry = Recorder()
    slow = serve(median_seconds=0.2, p95_seconds=0.21)
    async with slow as stub, opened(stub.settings(indexes, model_calls_at_once=1), telemetry) as engine:
        await asyncio.gather(*(engine.answer(QUESTION, "naive") for _ in range(4)))
    assert len(telemetry.waits) == 4
    # With one place, the last of four calls of 0.2 s waits for the three before it.
    assert max(telemetry.waits) > 0.5
    assert max(telemetry.depths) >= 3
    assert telemetry.depths[-1] == 0


async def test_streams_take_turns_too(indexes: Path) -> None:
    telemetry = Recorder()

    async def read(engine: Engine) -> None:
        async for _ in engine.stream(QUESTION, "naive"):
            assert stub.upstream.in_flight <= 2

    async with serve() as stub, opened(stub.settings(indexes, model_calls_at_once=1), telemetry) as engine:
        await asyncio.gather(*(read(engine) for _ in range(4)))
    assert len(telemetry.waits) == 4
    assert telemetry.depths[-1] == 0
