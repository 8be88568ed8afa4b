"""How the engine fails: with a reason, without holding on to anything, and telling nobody the question."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

import pytest
from cmo_oracle.engine import MODES, EngineError
from cmo_stack.free_ports import free_port

from .running_engine import (
    ALWAYS,
    CURRENT,
    QUESTION,
    WAIT_SECONDS,
    RecordedQuery,
    Recorder,
    calibration,
    opened,
    serve,
)
from .waiting import until

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("chat", "reasons"),
    [
        ({"error": ALWAYS}, {"api_error", "service_unavailable"}),
        ({"rate_limit": ALWAYS}, {"rate_limit"}),
        ({"stall": ALWAYS}, {"api_timeout"}),
    ],
    ids=["error", "rate limit", "stall"],
)
@pytest.mark.parametrize("mode", ["naive", "hybrid"])
async def test_a_failing_model_is_raised_with_its_reason(
    mode: str, chat: dict[str, Any], reasons: set[str], indexes: Path
) -> None:
    telemetry = Recorder()
    query = RecordedQuery("q")
    CURRENT.set(query)
    async with serve(**chat) as stub:
        settings = stub.settings(indexes, model_timeout_seconds=1.0)
        async with opened(settings, telemetry) as engine:
            for ask in (engine.answer(QUESTION, mode), anext(engine.stream(QUESTION, mode))):
                with pytest.raises(EngineError) as failure:
                    await ask
                assert failure.value.reason in reasons
                assert "TMAO" not in str(failure.value)
    outcome = {"rate_limit": "rejected", "api_timeout": "timeout"}.get(failure.value.reason, "error")
    assert {call.outcome for call in query.calls if call.component == "llm"} == {outcome}


async def test_an_unreachable_model_is_unavailable(indexes: Path) -> None:
    async with serve() as stub:
        settings = stub.settings(indexes, model_base_url=f"http://127.0.0.1:{free_port()}/v1")
    async with opened(settings) as engine:
        with pytest.raises(EngineError) as failure:
            await engine.answer(QUESTION, "naive")
    assert failure.value.reason == "service_unavailable"


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_a_query_given_up_takes_its_model_call_with_it(streamed: bool, indexes: Path) -> None:
    telemetry = Recorder()
    query = RecordedQuery("given up")
    CURRENT.set(query)
    stalled = serve(stall=ALWAYS)
    async with stalled as stub, opened(stub.settings(indexes, model_calls_at_once=1), telemetry) as engine:

        async def ask() -> None:
            if not streamed:
                await engine.answer(QUESTION, "naive")
            async for _ in engine.stream(QUESTION, "naive"):
                pass

        asked = [asyncio.create_task(ask()) for _ in range(3)]
        await until(lambda: stub.upstream.asked_for["question"] == 1 and telemetry.depths[-1:] == [2])
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        await stub.until_in_flight(0)
        assert telemetry.depths[-1] == 0
        stub.upstream.calibration = calibration()
        async with asyncio.timeout(WAIT_SECONDS):  # the only place is free again
            assert await engine.answer(QUESTION, "naive")
    assert {call.outcome for call in query.calls} == {"success", "cancelled"}


async def test_a_callers_deadline_is_a_timeout_and_not_an_engine_error(indexes: Path) -> None:
    async with serve(stall=ALWAYS) as stub, opened(stub.settings(indexes)) as engine:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await engine.answer(QUESTION, "naive")
        await stub.until_in_flight(0)


async def test_neither_questions_nor_keys_are_logged(
    indexes: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    async with serve(error={"quiet": 0.5, "loaded": 0.5}) as stub, opened(stub.settings(indexes)) as engine:
        for mode in MODES:
            for question in (QUESTION, "Is pizza well?"):
                with contextlib.suppress(EngineError):
                    await engine.answer(question, mode)
        assert "secret-key" not in repr(engine.settings)
    written = caplog.text + "".join(capfd.readouterr())
    assert not any(word in written for word in ("TMAO", "cardiovascular", "pizza", "secret-key"))
