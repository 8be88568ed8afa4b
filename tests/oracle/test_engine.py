"""The engine, with the real LightRAG over real HTTP: what it retrieves, and what it answers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from cmo_oracle.engine import MODES, EngineError, EngineSettings

from .running_engine import ANSWER_PASSAGE, QUESTION, opened, serve

if TYPE_CHECKING:
    from pathlib import Path

# Ten questions as a user would ask them, and the passage that answers each.
QUESTIONS = {
    QUESTION: ANSWER_PASSAGE,
    "Which amino acid is pathognomonic for maple syrup urine disease?": "maple-syrup-urine-disease",
    "How is octanoylcarnitine used to detect MCAD deficiency?": "octanoylcarnitine-mcad-deficiency",
    "When do bile acids in pregnancy threaten the fetus?": "bile-acids-cholestasis-of-pregnancy",
    "What happens to succinate at reperfusion?": "succinate-ischaemia",
    "To which target is gout treated?": "uric-acid-gout",
    "When is cystatin C better than creatinine?": "creatinine-cystatin-c",
    "How does orotic acid distinguish OTC deficiency from CPS1 deficiency?": "orotic-acid-otc-deficiency",
    "Which drugs raise 7-dehydrocholesterol?": "7-dehydrocholesterol-smith-lemli-opitz",
    "How are batch effects corrected with quality control samples?": "batch-effects-quality-control-samples",
}
UNRELATED = (
    "What is the best oven for a Neapolitan pizza?",
    "Who won the football world championship in Brazil?",
    "Which guitar strings suit jazz beginners?",
)


@pytest.mark.parametrize("mode", MODES)
async def test_every_mode_retrieves_the_passage_that_answers(mode: str, indexes: Path) -> None:
    async with serve() as stub, opened(stub.settings(indexes)) as engine:
        found = [passage in await engine.retrieve(question, mode) for question, passage in QUESTIONS.items()]
        beside = [await engine.retrieve(question, mode) for question in UNRELATED]
    assert sum(found) >= 8, dict(zip(QUESTIONS, found, strict=True))
    wanted = set(QUESTIONS.values())
    assert not any(wanted.intersection(passages) for passages in beside)


@pytest.mark.parametrize("mode", MODES)
async def test_every_mode_answers_from_the_passage(mode: str, indexes: Path) -> None:
    async with serve() as stub, opened(stub.settings(indexes)) as engine:
        answer = await engine.answer(QUESTION, mode)
    assert "TMAO" in answer
    assert f"{ANSWER_PASSAGE}.md" in answer


@pytest.mark.parametrize("mode", ["naive", "hybrid"])
async def test_a_stream_arrives_in_pieces_and_is_the_same_answer(mode: str, indexes: Path) -> None:
    async with serve() as stub, opened(stub.settings(indexes)) as engine:
        pieces = [piece async for piece in engine.stream(QUESTION, mode)]
        assert len(pieces) > 5
        assert "".join(pieces) == await engine.answer(QUESTION, mode)


@pytest.mark.parametrize("mode", MODES)
async def test_an_unrelated_question_has_no_answer_instead_of_an_apology(mode: str, indexes: Path) -> None:
    async with serve() as stub, opened(stub.settings(indexes)) as engine:
        with pytest.raises(EngineError) as failure:
            await engine.answer(UNRELATED[0], mode)
        assert failure.value.reason == "low_confidence"
        with pytest.raises(EngineError) as failure:
            await engine.answer("hm", mode)
        assert failure.value.reason == "low_confidence"


async def test_the_same_question_asks_the_model_again(indexes: Path) -> None:
    async with serve() as stub, opened(stub.settings(indexes)) as engine:
        await engine.answer(QUESTION, "hybrid")
        once = stub.upstream.ended["answered"]
        await engine.answer(QUESTION, "hybrid")
        assert stub.upstream.ended["answered"] == 2 * once


async def test_an_unknown_mode_is_refused_before_any_call(indexes: Path) -> None:
    async with serve() as stub, opened(stub.settings(indexes)) as engine:
        with pytest.raises(ValueError, match=r"'bypass'; expected one of naive, local"):
            await engine.answer(QUESTION, "bypass")
        assert not stub.upstream.ended


@pytest.mark.parametrize(
    ("field_name", "value"),
    [("default_mode", "best"), ("model_calls_at_once", 0), ("model_timeout_seconds", -1.0)],
)
def test_impossible_settings_are_refused(tmp_path: Path, field_name: str, value: object) -> None:
    settings = EngineSettings(tmp_path, "http://127.0.0.1:1/v1", "key")
    with pytest.raises(ValueError, match="expected"):
        replace(settings, **{field_name: value})  # type: ignore[arg-type]  # that is what is tested
