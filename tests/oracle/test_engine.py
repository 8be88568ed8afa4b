"""The engine, with the real LightRAG over real HTTP: retrieval, failures, attribution, the kept index."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import sys
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from cmo_exporter import Exporter, ExporterSettings
from cmo_oracle.corpus import Passage, load_corpus
from cmo_oracle.engine import MODES, Engine, EngineError, EngineSettings, EngineTelemetry
from cmo_oracle.engine_index import ByteTokenizer, ensure_index, index_name
from cmo_oracle.upstream.calibration import Calibration
from cmo_oracle.upstream.server import Upstream, serve_app
from cmo_stack.process import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

WAIT_SECONDS = 90.0
NEVER = {"quiet": 0.0, "loaded": 0.0}
ALWAYS = {"quiet": 1.0, "loaded": 1.0}

# Ten questions as a user would ask them, and the passage that answers each.
QUESTIONS = {
    "What does TMAO tell us about cardiovascular risk?": "tmao-cardiovascular-risk",
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
QUESTION, ANSWER_PASSAGE = next(iter(QUESTIONS.items()))
TINY = (
    Passage(
        "gout",
        "Uric acid in gout",
        "Xanthine oxidase makes it. Allopurinol inhibits xanthine oxidase.",
    ),
    Passage("sepsis", "Lactate in sepsis", "Lactate rises in septic shock. Metformin raises lactate too."),
)


BUILD = """
import asyncio, pathlib, sys
from cmo_oracle.engine import EngineSettings
from cmo_oracle.engine_index import ensure_index
from cmo_oracle.corpus import Passage
directory, model, index, *texts = sys.argv[1:]
settings = EngineSettings(pathlib.Path(directory), model, "key", index_base_url=index)
asyncio.run(ensure_index(settings, tuple(Passage(*texts[n : n + 3]) for n in range(0, len(texts), 3))))
"""


def _folders(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir() if path.is_dir()]


def _calibration(**chat: Any) -> Calibration:
    quick = {
        "median_seconds": 0.001,
        "p95_seconds": 0.002,
        "error": NEVER,
        "rate_limit": NEVER,
        "stall": NEVER,
    }
    return Calibration.model_validate(
        {
            "capacity": 1000, "saturation": 2000, "stretch": 0.0, "stall_seconds": 3600,
            "routes": {"chat": quick | chat, "embeddings": quick, "perplexity": quick},
        }
    )  # fmt: skip


@dataclass
class Stub:
    """A running upstream: where it is, and its state to look at."""

    base_url: str
    upstream: Upstream

    def settings(self, working_directory: Path, **changes: Any) -> EngineSettings:
        plain = EngineSettings(
            working_directory=working_directory,
            model_base_url=f"{self.base_url}/v1",
            index_base_url=f"{self.base_url}/ingest/v1",
            api_key="secret-key",
        )
        return replace(plain, **changes)

    async def until_in_flight(self, expected: int) -> None:
        await _until(lambda: self.upstream.in_flight == expected)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not condition():  # noqa: ASYNC110 - counters, not events
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def _stub(**chat: Any) -> AsyncIterator[Stub]:
    upstream = Upstream(_calibration(**chat))
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(serve_app(upstream), port=port, log_level="warning", timeout_graceful_shutdown=1)
    )
    serving = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
                await asyncio.sleep(0.01)
        yield Stub(f"http://127.0.0.1:{port}", upstream)
    finally:
        server.should_exit = True
        await serving


@contextlib.asynccontextmanager
async def _engine(
    settings: EngineSettings, telemetry: EngineTelemetry | None = None, **more: Any
) -> AsyncIterator[Engine]:
    engine = await Engine.open(settings, telemetry, **more)
    try:
        yield engine
    finally:
        await engine.close()


@pytest.fixture(scope="module")
def indexes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with the index of the whole corpus in it."""
    directory = tmp_path_factory.mktemp("indexes")

    async def build() -> None:
        async with _stub() as stub:
            await ensure_index(stub.settings(directory), load_corpus())

    asyncio.run(build())
    return directory


@dataclass
class Call:
    component: str
    outcome: str = "success"


@dataclass
class RecordedQuery:
    """One query's telemetry: a stand-in for the exporter's, which this room does not test."""

    name: str
    calls: list[Call] = field(default_factory=list)

    @contextlib.contextmanager
    def component(self, component: str, /) -> Iterator[_Timed]:
        timed = _Timed(Call(component))
        self.calls.append(timed.call)
        try:
            yield timed
        except asyncio.CancelledError:
            timed.call.outcome = "cancelled"
            raise


@dataclass
class _Timed:
    call: Call

    def outcome(self, outcome: str, /) -> None:
        self.call.outcome = outcome


CURRENT: ContextVar[RecordedQuery | None] = ContextVar("current", default=None)


class Recorder:
    """Telemetry that remembers all that it is told."""

    def __init__(self) -> None:
        self.waits: list[float] = []
        self.depths: list[int] = []
        self.used: list[tuple[str, str, str, int, int]] = []

    def current_query(self) -> RecordedQuery:
        return CURRENT.get() or RecordedQuery("none")

    def queue_wait(self, component: str, seconds: float, /) -> None:
        assert component == "llm"
        self.waits.append(seconds)

    def queue_depth(self, component: str, value: int, /) -> None:
        assert component == "llm"
        self.depths.append(value)

    def tokens(
        self, component: str, provider: str, model: str, /, *, input_tokens: int, output_tokens: int
    ) -> None:
        self.used.append((component, provider, model, input_tokens, output_tokens))


@pytest.mark.parametrize("mode", MODES)
async def test_every_mode_retrieves_the_passage_that_answers(mode: str, indexes: Path) -> None:
    async with _stub() as stub, _engine(stub.settings(indexes)) as engine:
        found = [passage in await engine.retrieve(question, mode) for question, passage in QUESTIONS.items()]
        beside = [await engine.retrieve(question, mode) for question in UNRELATED]
    assert sum(found) >= 8, dict(zip(QUESTIONS, found, strict=True))
    wanted = set(QUESTIONS.values())
    assert not any(wanted.intersection(passages) for passages in beside)


@pytest.mark.parametrize("mode", MODES)
async def test_every_mode_answers_from_the_passage(mode: str, indexes: Path) -> None:
    async with _stub() as stub, _engine(stub.settings(indexes)) as engine:
        answer = await engine.answer(QUESTION, mode)
    assert "TMAO" in answer
    assert f"{ANSWER_PASSAGE}.md" in answer


@pytest.mark.parametrize("mode", ["naive", "hybrid"])
async def test_a_stream_arrives_in_pieces_and_is_the_same_answer(mode: str, indexes: Path) -> None:
    async with _stub() as stub, _engine(stub.settings(indexes)) as engine:
        pieces = [piece async for piece in engine.stream(QUESTION, mode)]
        assert len(pieces) > 5
        assert "".join(pieces) == await engine.answer(QUESTION, mode)


@pytest.mark.parametrize("mode", MODES)
async def test_an_unrelated_question_has_no_answer_instead_of_an_apology(mode: str, indexes: Path) -> None:
    async with _stub() as stub, _engine(stub.settings(indexes)) as engine:
        with pytest.raises(EngineError) as failure:
            await engine.answer(UNRELATED[0], mode)
        assert failure.value.reason == "low_confidence"
        with pytest.raises(EngineError) as failure:
            await engine.answer("hm", mode)
        assert failure.value.reason == "low_confidence"


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
    async with _stub(**chat) as stub:
        settings = stub.settings(indexes, model_timeout_seconds=1.0)
        async with _engine(settings, telemetry) as engine:
            for ask in (engine.answer(QUESTION, mode), anext(engine.stream(QUESTION, mode))):
                with pytest.raises(EngineError) as failure:
                    await ask
                assert failure.value.reason in reasons
                assert "TMAO" not in str(failure.value)
    outcome = {"rate_limit": "rejected", "api_timeout": "timeout"}.get(failure.value.reason, "error")
    assert {call.outcome for call in query.calls if call.component == "llm"} == {outcome}


async def test_an_unreachable_model_is_unavailable(indexes: Path) -> None:
    async with _stub() as stub:
        settings = stub.settings(indexes, model_base_url=f"http://127.0.0.1:{free_port()}/v1")
    async with _engine(settings) as engine:
        with pytest.raises(EngineError) as failure:
            await engine.answer(QUESTION, "naive")
    assert failure.value.reason == "service_unavailable"


async def test_calls_and_tokens_go_to_the_query_that_asked(indexes: Path) -> None:
    telemetry = Recorder()
    queries = [RecordedQuery(f"query {number}") for number in range(12)]
    modes = ["naive", "hybrid", "mix"] * 4

    async def ask(engine: Engine, query: RecordedQuery, mode: str) -> None:
        CURRENT.set(query)
        await engine.answer(QUESTION, mode)

    async with _stub() as stub, _engine(stub.settings(indexes, model_calls_at_once=2), telemetry) as engine:
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

    async with _stub() as stub, _engine(stub.settings(indexes), exporter) as engine:
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


async def test_waits_for_a_place_are_reported_and_the_line_empties(indexes: Path) -> None:
    telemetry = Recorder()
    slow = _stub(median_seconds=0.2, p95_seconds=0.21)
    async with slow as stub, _engine(stub.settings(indexes, model_calls_at_once=1), telemetry) as engine:
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

    async with _stub() as stub, _engine(stub.settings(indexes, model_calls_at_once=1), telemetry) as engine:
        await asyncio.gather(*(read(engine) for _ in range(4)))
    assert len(telemetry.waits) == 4
    assert telemetry.depths[-1] == 0


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_a_query_given_up_takes_its_model_call_with_it(streamed: bool, indexes: Path) -> None:
    telemetry = Recorder()
    query = RecordedQuery("given up")
    CURRENT.set(query)
    stalled = _stub(stall=ALWAYS)
    async with stalled as stub, _engine(stub.settings(indexes, model_calls_at_once=1), telemetry) as engine:

        async def ask() -> None:
            if not streamed:
                await engine.answer(QUESTION, "naive")
            async for _ in engine.stream(QUESTION, "naive"):
                pass

        asked = [asyncio.create_task(ask()) for _ in range(3)]
        await _until(lambda: stub.upstream.asked_for["question"] == 1 and telemetry.depths[-1:] == [2])
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        await stub.until_in_flight(0)
        assert telemetry.depths[-1] == 0
        stub.upstream.calibration = _calibration()
        async with asyncio.timeout(WAIT_SECONDS):  # the only place is free again
            assert await engine.answer(QUESTION, "naive")
    assert {call.outcome for call in query.calls} == {"success", "cancelled"}


async def test_a_callers_deadline_is_a_timeout_and_not_an_engine_error(indexes: Path) -> None:
    async with _stub(stall=ALWAYS) as stub, _engine(stub.settings(indexes)) as engine:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await engine.answer(QUESTION, "naive")
        await stub.until_in_flight(0)


async def test_the_same_question_asks_the_model_again(indexes: Path) -> None:
    async with _stub() as stub, _engine(stub.settings(indexes)) as engine:
        await engine.answer(QUESTION, "hybrid")
        once = stub.upstream.ended["answered"]
        await engine.answer(QUESTION, "hybrid")
        assert stub.upstream.ended["answered"] == 2 * once


async def test_the_index_is_built_once_and_asks_no_model_again(tmp_path: Path) -> None:
    async with _stub(error=ALWAYS) as stub:
        settings = stub.settings(tmp_path)
        name = await ensure_index(settings, TINY)
        asked = stub.upstream.ended["answered"]
        assert asked > 0
        assert await ensure_index(settings, TINY) == name
        assert stub.upstream.ended["answered"] == asked
    assert _folders(tmp_path) == [name]


def test_the_index_is_named_by_all_that_its_content_depends_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = EngineSettings(tmp_path, "http://127.0.0.1:1/v1", "key")
    name = index_name(settings, TINY)
    others = {
        index_name(settings, TINY[:1]),
        index_name(replace(settings, model="other"), TINY),
        index_name(replace(settings, embedding_model="other"), TINY),
        index_name(replace(settings, embedding_dimension=8), TINY),
    }
    for constant in ("EXTRACTION_VERSION", "LIGHTRAG_VERSION"):
        with monkeypatch.context() as patched:
            patched.setattr(f"cmo_oracle.engine_index.{constant}", "other")
            others.add(index_name(settings, TINY))
    assert len(others - {name}) == 6
    assert index_name(replace(settings, model_calls_at_once=99, similarity_threshold=0.5), TINY) == name


async def test_a_failed_build_leaves_nothing_and_can_be_repeated(tmp_path: Path) -> None:
    async with _stub(error=ALWAYS) as stub:
        settings = stub.settings(tmp_path)
        with pytest.raises(EngineError, match=r"2 of 2 passages could not be indexed"):
            await ensure_index(replace(settings, index_base_url=settings.model_base_url), TINY)
        assert not _folders(tmp_path)
        async with _engine(settings, passages=TINY) as engine:
            assert await engine.retrieve("What does allopurinol inhibit?", "naive") == ["gout"]


async def test_an_interrupted_build_is_not_taken_for_a_finished_one(tmp_path: Path) -> None:
    async with _stub() as stub:
        settings = stub.settings(tmp_path)
        name = await ensure_index(settings, TINY)
        # What a killed process leaves: its unfinished folder; and, at worst, a folder without the mark.
        (tmp_path / name).joinpath("cmo-index.json").unlink()
        shutil.copytree(tmp_path / name, tmp_path / "building_0123")
        (tmp_path / name / "vdb_chunks.json").write_text("{")
        async with _engine(settings, passages=TINY) as engine:
            assert await engine.retrieve("What does allopurinol inhibit?", "hybrid") == ["gout"]
    assert _folders(tmp_path) == [name]


async def test_two_processes_build_one_index_between_them(tmp_path: Path) -> None:
    texts = [text for passage in TINY for text in (passage.name, passage.title, passage.body)]
    async with _stub() as stub:
        settings = stub.settings(tmp_path)
        arguments = [str(tmp_path), settings.model_base_url, settings.index_base_url, *texts]
        builders = [
            await asyncio.create_subprocess_exec(sys.executable, "-c", BUILD, *arguments) for _ in range(2)
        ]
        async with asyncio.timeout(WAIT_SECONDS):
            assert [await builder.wait() for builder in builders] == [0, 0]
        assert stub.upstream.asked_for["extraction"] == len(TINY)
        async with _engine(settings, passages=TINY) as engine:
            assert await engine.retrieve("What does allopurinol inhibit?", "hybrid") == ["gout"]
    assert _folders(tmp_path) == [index_name(settings, TINY)]


async def test_neither_questions_nor_keys_are_logged(
    indexes: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    async with _stub(error={"quiet": 0.5, "loaded": 0.5}) as stub, _engine(stub.settings(indexes)) as engine:
        for mode in MODES:
            for question in (QUESTION, "Is pizza well?"):
                with contextlib.suppress(EngineError):
                    await engine.answer(question, mode)
        assert "secret-key" not in repr(engine.settings)
    written = caplog.text + "".join(capfd.readouterr())
    assert not any(word in written for word in ("TMAO", "cardiovascular", "pizza", "secret-key"))


async def test_an_unknown_mode_is_refused_before_any_call(indexes: Path) -> None:
    async with _stub() as stub, _engine(stub.settings(indexes)) as engine:
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


@pytest.mark.parametrize("text", ["", "a", "uric acid", "β-hydroxybutyrate, 0.5 µmol/L", "日本語"])
def test_tokenizer_gives_back_what_it_was_given(text: str) -> None:
    tokenizer = ByteTokenizer()
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode(text)) == -(-len(text.encode()) // 4)
