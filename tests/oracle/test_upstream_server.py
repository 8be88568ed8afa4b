"""The stub over real HTTP: OpenAI's shapes, faults on demand, and no work for a client that has left."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import urllib.request
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import uvicorn
from cmo_oracle.model_client import ModelClient
from cmo_oracle.upstream.__main__ import main
from cmo_oracle.upstream.calibration import Calibration, load_calibration
from cmo_oracle.upstream.server import create_app
from cmo_oracle.upstream.wording import DIMENSION
from cmo_stack.free_ports import free_port
from cmo_stack.process import ManagedProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

QUESTION = [{"role": "user", "content": "Which transporters cause hyperuricaemia in gout?"}]
WAIT_SECONDS = 60.0


def _calibration(**route: Any) -> Calibration:
    never = {"quiet": 0.0, "loaded": 0.0}
    behaviour = {
        "median_seconds": 0.001,
        "p95_seconds": 0.002,
        "error": never,
        "rate_limit": never,
        "stall": never,
    }
    routes = dict.fromkeys(("chat", "embeddings", "perplexity"), behaviour | route)
    return Calibration.model_validate(
        {"capacity": 100, "saturation": 200, "stretch": 0.5, "stall_seconds": 3600, "routes": routes}
    )


ALWAYS = {"quiet": 1.0, "loaded": 1.0}


@contextlib.asynccontextmanager
async def _serving(calibration: Calibration) -> AsyncIterator[httpx.AsyncClient]:
    port = free_port()
    config = uvicorn.Config(
        create_app(calibration), port=port, log_level="warning", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
                await asyncio.sleep(0.01)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=WAIT_SECONDS) as client:
            yield client
    finally:
        server.should_exit = True
        await serving


async def _until_in_flight(client: httpx.AsyncClient, expected: int) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while (await client.get("/healthz")).json()["in_flight"] != expected:  # noqa: ASYNC110 - over HTTP
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("prefix", ["/v1", "/perplexity/v1", "/ingest/v1"])
async def test_completion_has_openais_shape(prefix: str) -> None:
    async with _serving(_calibration()) as client:
        reply = await client.post(f"{prefix}/chat/completions", json={"model": "m", "messages": QUESTION})
    body = reply.json()
    assert reply.status_code == 200
    assert "URAT1" in body["choices"][0]["message"]["content"]
    assert (
        body["usage"]["total_tokens"]
        == body["usage"]["prompt_tokens"] + body["usage"]["completion_tokens"]
        > 0
    )


async def test_stream_is_the_same_answer_in_pieces_and_ends_with_usage() -> None:
    async with _serving(_calibration()) as client:
        whole = (await client.post("/v1/chat/completions", json={"messages": QUESTION})).json()
        request = {"messages": QUESTION, "stream": True}
        async with client.stream("POST", "/v1/chat/completions", json=request) as reply:
            lines = [line async for line in reply.aiter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    pieces = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
    assert len(pieces) > 5
    assert "".join(pieces) == whole["choices"][0]["message"]["content"]
    assert chunks[-1]["usage"] == whole["usage"]


async def test_embeddings_come_in_order_as_numbers_or_base64() -> None:
    async with _serving(_calibration()) as client:
        plain = (await client.post("/v1/embeddings", json={"input": ["gout", "sepsis"]})).json()
        base_url = f"{str(client.base_url).rstrip('/')}/v1"
        ours = ModelClient(base_url=base_url, api_key="k", model="m", timeout_seconds=30, max_connections=2)
        packed = await ours.embed(["gout", "sepsis"])
        await ours.close()
    assert packed.shape == (2, DIMENSION)
    assert [row["embedding"] for row in plain["data"]] == [pytest.approx(row) for row in packed.tolist()]


@pytest.mark.parametrize(
    ("fault", "statuses"), [("error", {500, 503}), ("rate_limit", {429})], ids=["error", "rate limit"]
)
async def test_faults_have_their_status(fault: str, statuses: set[int]) -> None:
    async with _serving(_calibration(**{fault: ALWAYS})) as client:
        replies = [
            await client.post(
                "/v1/chat/completions", json={"messages": [{"role": "user", "content": str(n)}]}
            )
            for n in range(20)
        ]
    assert {reply.status_code for reply in replies} == statuses
    assert all(reply.json()["error"]["message"] for reply in replies)


async def test_ingestion_neither_fails_nor_waits() -> None:
    async with _serving(_calibration(stall=ALWAYS)) as client:
        assert (await client.post("/ingest/v1/embeddings", json={"input": "gout"})).status_code == 200


async def test_work_stops_when_the_client_leaves_and_its_place_is_free() -> None:
    async with _serving(_calibration(stall=ALWAYS)) as client:
        calls = [
            asyncio.create_task(
                client.post("/v1/chat/completions", json={"messages": QUESTION, "stream": stream})
            )
            for stream in (False, True)
        ]
        await _until_in_flight(client, 2)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await _until_in_flight(client, 0)
        assert (await client.get("/healthz")).json()["ended"] == {"left": 2}


async def test_a_client_that_leaves_in_the_middle_of_a_stream_frees_its_place() -> None:
    async with _serving(_calibration(median_seconds=5.0, p95_seconds=5.1)) as client:
        request = client.build_request(
            "POST", "/v1/chat/completions", json={"messages": QUESTION, "stream": True}
        )
        reply = await client.send(request, stream=True)
        await anext(reply.aiter_lines())
        await _until_in_flight(client, 1)
        await reply.aclose()
        await _until_in_flight(client, 0)
        assert (await client.get("/healthz")).json()["ended"] == {"left": 1}


async def test_forced_errors_hit_every_route_but_ingestion_until_they_are_lifted() -> None:
    async with _serving(_calibration()) as client:

        async def statuses() -> list[int]:
            body = {"messages": QUESTION}
            paths = ("/v1", "/perplexity/v1", "/ingest/v1")
            return [(await client.post(f"{path}/chat/completions", json=body)).status_code for path in paths]

        assert (await client.put("/control", json={"fail": "error"})).json() == {"fail": "error"}
        assert await statuses() == [500, 500, 200]
        await client.put("/control", json={"fail": None})
        assert await statuses() == [200, 200, 200]


async def test_a_forced_timeout_hangs() -> None:
    async with _serving(_calibration()) as client:
        await client.put("/control", json={"fail": "timeout"})
        call = asyncio.create_task(client.post("/v1/chat/completions", json={"messages": QUESTION}))
        await _until_in_flight(client, 1)
        assert not call.done()
        call.cancel()
        await _until_in_flight(client, 0)


async def test_a_forced_slowness_answers_in_the_end() -> None:
    async with _serving(_calibration()) as client:
        assert (await client.put("/control", json={"fail": "slow"})).status_code == 200
        call = asyncio.create_task(client.post("/v1/chat/completions", json={"messages": QUESTION}))
        await _until_in_flight(client, 1)
        assert not call.done()
        assert (await call).status_code == 200
        assert (await client.put("/control", json={"fail": "sometimes"})).status_code == 400


async def test_control_refuses_other_machines() -> None:
    transport = httpx.ASGITransport(create_app(_calibration()), client=("192.0.2.1", 4711))
    async with httpx.AsyncClient(transport=transport, base_url="http://stub") as client:
        assert (await client.put("/control", json={"fail": "error"})).status_code == 403
        assert (await client.post("/v1/embeddings", json={"input": "gout"})).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "content"),
    [
        ("POST", "/v1/chat/completions", b"no json"),
        ("POST", "/v1/chat/completions", b'{"messages": "text"}'),
        ("POST", "/v1/chat/completions", b'{"messages": [{"role": "user"}]}'),
        ("POST", "/v1/embeddings", b'{"input": [1]}'),
        ("POST", "/v1/embeddings", b"[]"),
        ("PUT", "/control", b'{"fail": "sometimes"}'),
        ("PUT", "/control", b'{"fial": null}'),
        ("PUT", "/control", b'{"fail": ["error"]}'),
    ],
)
async def test_bad_input_says_what_was_expected(method: str, path: str, content: bytes) -> None:
    async with _serving(_calibration()) as client:
        reply = await client.request(method, path, content=content)
    assert reply.status_code == 400
    assert reply.json()["error"]["message"].startswith("Expected")


async def test_asking_again_draws_again_and_another_run_repeats_it() -> None:
    half = {"quiet": 0.5, "loaded": 0.5}
    runs = []
    for _ in range(2):
        async with _serving(_calibration(error=half)) as client:
            replies = [
                await client.post("/v1/chat/completions", json={"messages": QUESTION}) for _ in range(16)
            ]
            runs.append([reply.status_code for reply in replies])
    assert runs[0] == runs[1]
    assert len(set(runs[0])) > 1


def test_command_line_serves_and_stops(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/healthz"

    def ready() -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as reply:
            return bool(json.load(reply)["status"] == "ok")
        return False

    command = [sys.executable, "-m", "cmo_oracle.upstream", "--port", str(port), "--calibration", "calm"]
    with ManagedProcess("upstream stub", command, log_path=tmp_path / "log", ready=ready) as stub:
        assert stub.running
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_command_line_refuses_an_unknown_calibration(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--calibration", "hectic"]) == 3
    assert "there are: busy, calm" in capsys.readouterr().err


def test_shipped_calibrations_can_serve() -> None:
    for name in ("busy", "calm"):
        assert create_app(load_calibration(name)).routes
