"""The ways that a query can take through the service: real HTTP, caches and engine, and the upstream stub."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from .running import RunningService
from .waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .conftest import RedisServer
    from .running import Samples, Stub

MARKER = "quetzalcoatlus"
"""A word that the tests' questions hold, and that no log, metric or key may."""

_WEBSOCKET_HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}

_numbers = iter(range(1_000_000))


def fresh(topic: str = "lactate in sepsis") -> str:
    """A question that has not been asked before."""
    return f"What is known about {topic}, {MARKER} {next(_numbers)}?"


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory,
    upstream_process: Stub,
    fallback_process: Stub,
    redis_server: RedisServer,
    index_folder: Path,
) -> Iterator[RunningService]:
    changes = (
        "cache.l1={entries: 2, ttl_seconds: 3600.0}",
        "cache.l2={entries: 1000, ttl_seconds: 3600.0, timeout_seconds: 30.0}",
        "cache.l3={ttl_seconds: 3600.0, timeout_seconds: 30.0, connections: 16}",
        "cache.rest_seconds=0.05",
        "query={deadline_seconds: 120.0, at_once: 100, characters: 200}",
        "lightrag.timeout_seconds=60.0",
        "lightrag.model_timeout_seconds=60.0",
        "lightrag.retries={times: 2, first_wait_seconds: 0.01, longest_wait_seconds: 0.05}",
        "lightrag.breaker.failure_threshold=1000",
        "perplexity={enabled: true, timeout_seconds: 60.0, connections: 16}",
    )
    running = RunningService(
        tmp_path_factory.mktemp("service"),
        upstream_process,
        fallback_process,
        index=index_folder,
        changes=changes,
        redis_url=redis_server.url,
    )
    with running.process:
        yield running


async def push_out_of_l1(service: RunningService) -> None:
    for _ in range(2):
        await service.ask(fresh())


async def test_an_answer_comes_from_lightrag_then_from_memory(service: RunningService) -> None:
    question = fresh()
    first, second = await service.ask(question), await service.ask(question)
    assert first.status_code == second.status_code == 200
    assert "Sepsis-3" in first.json()["answer"]
    assert first.json()["trail"] == {
        "outcome": "success",
        "source": "lightrag",
        "cache": "miss",
        "tiers": [["l1", "miss"], ["l2", "miss"], ["l3", "miss"]],
        "fallbacks": [],
        "retries": 0,
        "breaker": "closed",
    }
    assert second.json()["answer"] == first.json()["answer"]
    assert second.json()["trail"] == {
        "outcome": "success",
        "source": "cache",
        "cache": "hit",
        "tiers": [["l1", "hit"]],
        "fallbacks": [],
        "retries": 0,
        "breaker": "closed",
    }


async def test_modes_do_not_share_answers(service: RunningService) -> None:
    question = fresh()
    await service.ask(question, mode="naive")
    assert (await service.trail(question, mode="local"))["cache"] == "miss"
    assert (await service.trail(question, mode="local"))["cache"] == "hit"


async def test_a_hit_on_disk_is_written_to_memory(service: RunningService) -> None:
    question = fresh()
    await service.ask(question)
    await push_out_of_l1(service)
    assert (await service.trail(question))["tiers"] == [["l1", "miss"], ["l2", "hit"]]
    assert (await service.trail(question))["tiers"] == [["l1", "hit"]]


async def test_a_hit_in_redis_is_written_to_memory_and_disk(service: RunningService) -> None:
    question = fresh()
    await service.ask(question)
    await push_out_of_l1(service)
    with sqlite3.connect(service.cache_file, timeout=60) as database:
        database.execute("DELETE FROM answers")
    assert (await service.trail(question))["tiers"] == [["l1", "miss"], ["l2", "miss"], ["l3", "hit"]]
    assert (await service.trail(question))["tiers"] == [["l1", "hit"]]
    await push_out_of_l1(service)
    assert (await service.trail(question))["tiers"] == [["l1", "miss"], ["l2", "hit"]]


async def test_evictions_and_entries_are_reported(service: RunningService) -> None:
    before = await service.value("cmo_cache_evictions_total", tier="l1")
    await push_out_of_l1(service)
    await push_out_of_l1(service)
    assert await service.value("cmo_cache_evictions_total", tier="l1") >= before + 2

    async def reported() -> bool:
        return await service.value("cmo_cache_entries", tier="l1") == 2.0

    await until(reported)


async def test_redis_may_die_and_come_back(service: RunningService, redis_server: RedisServer) -> None:
    redis_server.process.kill()
    question = fresh()
    trail = await service.trail(question)
    assert trail["tiers"] == [["l1", "miss"], ["l2", "miss"], ["l3", "error"]]
    assert (trail["outcome"], trail["source"], trail["cache"]) == ("success", "lightrag", "miss")
    assert (await service.trail(question))["tiers"] == [["l1", "hit"]]
    async with service.client() as client:
        readiness = await client.get("/readyz")
        assert readiness.status_code == 200
        assert readiness.json()["degraded"] == ["cache_l3"]
    redis_server.process.start()

    async def back() -> bool:
        return bool((await service.trail(fresh()))["tiers"][2:] == [["l3", "miss"]])

    await until(back)
    async with service.client() as client:
        assert (await client.get("/readyz")).json()["degraded"] == []


async def test_failing_calls_are_repeated_then_perplexity_answers(
    service: RunningService, upstream: Stub
) -> None:
    upstream.fail("error")
    question = fresh("homocysteine")
    trail = await service.trail(question)
    assert (trail["outcome"], trail["source"], trail["cache"]) == ("success", "perplexity", "miss")
    assert trail["fallbacks"] == [["lightrag", "perplexity", "api_error"]]
    assert trail["retries"] == 2
    assert (await service.trail(question))["source"] == "cache"
    assert await service.value(
        "cmo_llm_tokens_total", component="perplexity", provider="stub", model="cmo-stub-online",
        token_type="output",
    ) > 0  # fmt: skip


async def test_an_apology_is_an_error_with_http_status_200(
    service: RunningService, upstream: Stub, fallback: Stub
) -> None:
    upstream.fail("error")
    fallback.fail("error")
    question = fresh()
    response = await service.ask(question)
    assert response.status_code == 200
    assert response.json()["answer"].startswith("I apologise")
    trail = response.json()["trail"]
    assert (trail["outcome"], trail["source"], trail["cache"]) == ("error", "default", "miss")
    assert trail["fallbacks"] == [
        ["lightrag", "perplexity", "api_error"],
        ["perplexity", "default", "api_error"],
    ]
    upstream.fail(None)
    assert (await service.trail(question))["source"] == "lightrag", "the apology was kept in a cache"


async def test_a_question_that_finds_nothing_goes_to_perplexity_for_low_confidence(
    service: RunningService,
) -> None:
    trail = await service.trail(f"{MARKER} {next(_numbers)} zzyzx qwxv")
    assert trail["fallbacks"] == [["lightrag", "perplexity", "low_confidence"]]
    assert trail["retries"] == 0


async def read_events(service: RunningService, question: str) -> list[tuple[str, dict[str, Any]]]:
    async with service.client() as client, client.stream(
        "POST", "/query", json={"question": question, "stream": True}
    ) as response:  # fmt: skip
        assert response.headers["content-type"].startswith("text/event-stream")
        return [event async for event in events(response.aiter_lines())]


async def events(lines: Any) -> Any:
    kind = ""
    async for line in lines:
        if line.startswith("event: "):
            kind = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield kind, json.loads(line.removeprefix("data: "))


async def test_a_streamed_answer_is_kept_whole(service: RunningService) -> None:
    question = fresh()
    before = await service.value("cmo_query_time_to_first_token_seconds_count", scenario="live")
    received = await read_events(service, question)
    pieces, (kind, last) = received[:-1], received[-1]
    assert {name for name, _ in pieces} == {"token"}
    assert len(pieces) > 5
    assert (kind, last["trail"]["outcome"], last["trail"]["source"]) == ("done", "success", "lightrag")
    whole = "".join(piece["text"] for _, piece in pieces)
    kept = (await service.ask(question)).json()
    assert kept["answer"] == whole
    assert kept["trail"]["tiers"] == [["l1", "hit"]]
    (_, cached), (_, done) = await read_events(service, question)
    assert cached["text"] == whole
    assert done["trail"]["source"] == "cache"
    after = await service.value("cmo_query_time_to_first_token_seconds_count", scenario="live")
    assert after - before == 2


async def test_an_answer_that_breaks_off_is_an_error(
    service: RunningService, upstream: Stub, fallback: Stub
) -> None:
    upstream.fail("error")
    question = fresh()
    received: list[tuple[str, dict[str, Any]]] = []
    async with service.client() as client, client.stream(
        "POST", "/query", json={"question": question, "stream": True}
    ) as response:  # fmt: skip
        async for event in events(response.aiter_lines()):
            if not received:
                fallback.process.kill()
            received.append(event)
    kind, last = received[-1]
    assert kind == "done"
    assert (last["trail"]["outcome"], last["trail"]["source"]) == ("error", None)
    assert last["trail"]["fallbacks"] == [["lightrag", "perplexity", "api_error"]]
    upstream.fail(None)
    assert (await service.trail(question))["cache"] == "miss", "half an answer was kept in a cache"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_user_who_leaves_ends_the_work(
    service: RunningService, upstream: Stub, *, stream: bool
) -> None:
    upstream.fail("timeout")
    cancelled = {"scenario": "live", "outcome": "cancelled"}
    before = await service.value("cmo_queries_total", **cancelled)
    asking = asyncio.create_task(service.ask(fresh(), stream=stream))
    await until(lambda: upstream.in_flight() > 0)
    asking.cancel()
    await asyncio.wait([asking])
    assert await service.value("cmo_queries_total", **cancelled) == before + 1
    await until(lambda: upstream.in_flight() == 0)
    assert await service.value("cmo_component_calls_total", component="lightrag", **cancelled) >= 1


@pytest.mark.parametrize(
    "body",
    [
        b'{"question": ""}',
        b'{"question": "   "}',
        b'{"question": "%s"}' % (MARKER.encode() * 15),
        b'{"question": "%s", "mode": "clever"}' % MARKER.encode(),
        b'{"question": "%s", "user": "somebody"}' % MARKER.encode(),
        b'{"question": 7}',
        b'{"question": "\\ud800 %s"}' % MARKER.encode(),
        b'{"query": "%s"}' % MARKER.encode(),
        b'["%s"]' % MARKER.encode(),
        b"%s" % MARKER.encode(),
        b"\xff\xfe",
        b"",
    ],
)
async def test_bad_input_is_refused_without_an_echo(service: RunningService, body: bytes) -> None:
    rejected = {"scenario": "live", "outcome": "rejected"}
    before = await service.value("cmo_queries_total", **rejected)
    async with service.client() as client:
        response = await client.post("/query", content=body, headers={"content-type": "application/json"})
    assert response.status_code in (400, 422)
    assert response.json()["trail"]["outcome"] == "rejected"
    assert response.json()["trail"]["cache"] == "bypass"
    assert MARKER not in response.text
    assert await service.value("cmo_queries_total", **rejected) == before + 1


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_no_question_needs_is_refused(service: RunningService, *, chunked: bool) -> None:
    rejected = {"scenario": "live", "outcome": "rejected"}
    before = await service.value("cmo_queries_total", **rejected)

    async def pieces() -> Any:
        for _ in range(64):
            yield b" " * 1024

    content = pieces() if chunked else b" " * 65_536
    async with service.client() as client:
        response = await client.post("/query", content=content, headers={"content-type": "application/json"})
    assert response.status_code == 413
    assert await service.value("cmo_queries_total", **rejected) == before + 1


async def test_who_leaves_in_the_middle_of_the_question_has_left(service: RunningService) -> None:
    cancelled = {"scenario": "live", "outcome": "cancelled"}
    before = await service.value("cmo_queries_total", **cancelled)
    _, writer = await asyncio.open_connection("127.0.0.1", service.port)
    head = (
        "POST /query HTTP/1.1\r\nHost: cmo\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    )
    writer.write(head.encode())
    await until(service.in_progress)
    writer.close()
    assert await service.value("cmo_queries_total", **cancelled) == before + 1


async def test_other_requests_are_no_queries(service: RunningService) -> None:
    before = {key: value for key, value in (await service.samples()).items() if key[0] == "cmo_queries_total"}
    async with service.client() as client:
        assert (await client.get("/query")).status_code == 405
        assert (await client.get("/nowhere")).status_code == 404
        assert (await client.get("/healthz")).json() == {"status": "ok"}
    after = await service.samples()
    assert {key: after[key] for key in before} == before


async def test_every_query_is_in_the_timing_log(service: RunningService) -> None:
    headers = {"X-CMO-Operation": "op-17", "X-CMO-Scenario": "academic_research"}
    await service.ask(fresh(), headers=headers)
    await service.ask("", headers={"X-CMO-Operation": "op-18"})

    def logged() -> dict[str, dict[str, Any]]:
        lines = [json.loads(line) for line in service.timing_log.read_text().splitlines()]
        return {line["operation"]: line for line in lines if line["operation"]}

    await until(lambda: {"op-17", "op-18"} <= logged().keys())
    first, second = logged()["op-17"], logged()["op-18"]
    assert (first["scenario"], first["status"]) == ("academic_research", 200)
    assert (second["scenario"], second["status"]) == (None, 422)
    assert first["duration_seconds"] > 0
    assert first["start"] > 1_700_000_000


def counted(trails: list[dict[str, Any]]) -> dict[str, Counter[tuple[str, ...]]]:
    """What the trails add up to, in the words of the metrics."""
    return {
        "cmo_queries_total": Counter((trail["outcome"],) for trail in trails),
        "cmo_answers_total": Counter((trail["source"],) for trail in trails if trail["source"]),
        "cmo_query_cache_results_total": Counter((trail["cache"],) for trail in trails),
        "cmo_cache_requests_total": Counter(
            (result, tier) for trail in trails for tier, result in trail["tiers"]
        ),
        "cmo_fallbacks_total": Counter(
            (reason, source, target) for trail in trails for source, target, reason in trail["fallbacks"]
        ),
    }


def exposed(samples: Samples, scenario: str) -> dict[str, Counter[tuple[str, ...]]]:
    """The same, as exposed for a scenario: label values in the order of the labels' names."""
    found: dict[str, Counter[tuple[str, ...]]] = {name: Counter() for name in counted([])}
    for (name, labels), value in samples.items():
        others = dict(labels)
        if name in found and others.pop("scenario") == scenario and value:
            found[name][tuple(others.values())] += int(value)
    return found


async def test_trails_and_metrics_tell_the_same(
    service: RunningService, upstream: Stub, fallback: Stub
) -> None:
    headers = {"X-CMO-Scenario": "academic_research"}
    before = await service.samples()
    questions = [fresh() for _ in range(6)]
    trails: list[dict[str, Any]] = []

    async def ask_all(asked: list[str]) -> None:
        trails.extend(await asyncio.gather(*(service.trail(text, headers=headers) for text in asked)))

    await ask_all(questions)
    await ask_all(questions[:4] + questions[2:])
    upstream.fail("error")
    await ask_all([fresh() for _ in range(3)])
    fallback.fail("error")
    await ask_all([fresh() for _ in range(2)] + ["", questions[0]])
    after = await service.samples()
    told = exposed(after, "academic_research")
    told_before = exposed(before, "academic_research")
    for name, counts in counted(trails).items():
        assert told[name] - told_before[name] == counts, name
        assert sum(counts.values()) > 0, name
    retries = "cmo_retries_total", (("component", "lightrag"),)
    assert after[retries] - before[retries] == sum(trail["retries"] for trail in trails) == 10


async def logged(service: RunningService) -> list[dict[str, Any]]:
    """The lines of the query log, which stand bare between those of the service, once all are written."""

    async def written() -> bool:
        samples = await service.samples()
        finished = sum(value for (name, _), value in samples.items() if name == "cmo_queries_total")
        return samples["cmo_query_log_lines_total", (("result", "written"),)] == finished

    await until(written)
    lines = service.log.read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


async def test_the_query_log_and_the_trails_tell_the_same(
    service: RunningService, upstream: Stub, fallback: Stub
) -> None:
    before, asked = len(await logged(service)), [fresh() for _ in range(2)]
    trails = [await service.trail(asked[0]), await service.trail(asked[0])]
    upstream.fail("error")
    trails.append(await service.trail(asked[1]))
    lines = (await logged(service))[before:]
    for line, trail in zip(lines, trails, strict=True):
        for name in ("outcome", "source", "cache"):
            assert line[name] == trail[name]
        assert [[step["tier"], step["result"]] for step in line["cache_tiers"]] == trail["tiers"]
        assert [list(step.values()) for step in line["fallbacks"]] == trail["fallbacks"]
        assert line["retries"].get("lightrag", 0) == trail["retries"]
        assert line["http"] == {"method": "POST", "route": "/query", "status": 200}
    answered = {call["component"]: call for call in lines[0]["components"]}
    assert answered["llm"]["model"] == "cmo-stub"
    assert 0 < answered["llm"]["input_tokens"] < lines[0]["input_tokens"], "embeddings use tokens too"
    assert lines[0]["cost_usd"] > 0
    assert lines[2]["source"] == "perplexity"


async def test_no_question_is_in_logs_metrics_or_keys(
    service: RunningService, redis_server: RedisServer, upstream: Stub, fallback: Stub
) -> None:
    await service.ask(fresh())
    upstream.fail("error")
    fallback.fail("error")
    await service.ask(fresh())
    await service.ask("", mode=MARKER)
    async with service.client() as client:
        await client.get("/query", params={"question": MARKER}, headers=_WEBSOCKET_HANDSHAKE)
    samples = await service.samples()
    assert not [key for key in samples if MARKER in str(key).lower()]
    assert await logged(service)
    log = service.log.read_text().lower()
    assert MARKER not in log
    assert "traceback" not in log
    assert MARKER not in service.timing_log.read_text().lower()
    with sqlite3.connect(service.cache_file, timeout=60) as database:
        keys = [key for (key,) in database.execute("SELECT key FROM answers")]
    assert keys
    assert all(len(key) == 64 for key in keys)
