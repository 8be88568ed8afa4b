"""A program: how a real LightRAG's questions are measured, in amounts, in every form, threads, and faults.

Like ``lightrag_scenario.py``, whose model and questions it uses, it runs as it is on every version of
LightRAG. Usage: python lightrag_measures.py DIRECTORY
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any
from unittest.mock import patch

from cmo_exporter import Exporter, ExporterSettings
from cmo_exporter.adapters import lightrag as adapter
from cmo_exporter.postponed_ends import catch_up
from lightrag_scenario import (  # type: ignore[import-not-found]  # it is beside this program
    PASSAGE,
    Model,
    QueryParam,
    Seen,
    ask,
    build,
    make,
)

DEADLINE_SECONDS = 30
THREADS = 8
QUESTIONS_OF_A_THREAD = 50
LONGER_THAN_THE_REST = 20
UNANSWERABLE = "xylophones zebras quarks"

# What runs inside a question of what is the exporter's own, and may have a fault.
PARTS = (
    "_Question.__init__", "_Question.model_failed",
    "_Ticket.__init__", "_Ticket.start", "_Ticket.leave", "_Ticket.is_here",
    "_settled", "_written", "_unanswered", "_is_answer", "outcome_of",
)  # fmt: skip


def an_exporter() -> Exporter:
    return Exporter(ExporterSettings(components=("lightrag", "llm")))


def naive(*, stream: bool = False) -> QueryParam:
    return QueryParam(mode="naive", enable_rerank=False, stream=stream)


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - neither a metric nor the clock wakes anybody
        await asyncio.sleep(0.001)


class Clocked(Model):  # type: ignore[misc]  # found only when it runs
    """Notes when each call came to the provider and left it, and lets it go when the test says so."""

    def __init__(self, exporter: Exporter) -> None:
        super().__init__(exporter)
        self.entered: list[float] = []
        self.left: list[float] = []
        self.let_go: list[asyncio.Event] = []

    async def answer(self, prompt: str, system_prompt: str | None = None, **options: Any) -> Any:
        if "[live]" not in prompt:  # the index
            return await super().answer(prompt, system_prompt, **options)
        go = asyncio.Event()
        self.let_go.append(go)
        self.entered.append(time.monotonic())
        try:
            await go.wait()
            return await super().answer(prompt, system_prompt, **options)
        finally:
            self.left.append(time.monotonic())


async def amounts(directory: str) -> dict[str, Any]:
    """Two questions and one place: the second waits for as long as the first is at the provider.

    Each is held there for many times as long as everything else takes that lies between the moments which
    the test knows, so that a measure with the wrong part in it is out of its bounds.
    """
    exporter = an_exporter()
    model = Clocked(exporter)
    seen = Seen(exporter)
    rag = await make(directory, exporter, model, "amounts", at_once=1)
    await rag.ainsert(PASSAGE)
    asked: list[float] = []
    answered: dict[int, float] = {}

    async def question(number: int) -> None:
        asked.append(time.monotonic())
        await ask(rag, exporter, f"Question {number} about")
        answered[number] = time.monotonic()

    def sums() -> dict[str, float]:
        found: dict[str, float] = {}
        for family in exporter.registry.collect():
            for sample in family.samples:
                if sample.name in ("cmo_queue_wait_seconds_sum", "cmo_component_duration_seconds_sum"):
                    key = f"{sample.name} {sample.labels['component']}"
                    found[key] = found.get(key, 0) + sample.value
        return found

    warm = asyncio.create_task(question(0))
    await until(lambda: len(model.entered) == 1)
    model.let_go[0].set()
    await warm
    rest = model.entered[0] - asked[0] + answered[0] - model.left[0]
    before = sums()

    first = asyncio.create_task(question(1))
    await until(lambda: len(model.entered) == 2)
    second = asyncio.create_task(question(2))
    await until(lambda: seen.all()["cmo_queue_depth llm"] == 1)
    seen_waiting = time.monotonic()
    rest += model.entered[1] - asked[1] + seen_waiting - asked[2]
    await until(lambda: time.monotonic() - seen_waiting > LONGER_THAN_THE_REST * rest)
    model.let_go[1].set()
    await until(lambda: len(model.entered) == 3)
    await until(lambda: time.monotonic() - model.entered[2] > LONGER_THAN_THE_REST * rest)
    model.let_go[2].set()
    await asyncio.gather(first, second)
    return {
        "measured": {key: value - before[key] for key, value in sums().items()},
        "asked": asked[1:],
        "entered": model.entered[1:],
        "left": model.left[1:],
        "answered": [answered[1], answered[2]],
        "seen waiting": seen_waiting,
    }


async def logged(directory: str) -> list[list[str]]:
    """Which components each query's line in the log tells a wait for."""
    exporter = Exporter(ExporterSettings(components=("lightrag", "llm"), query_log=True))
    lines: list[dict[str, Any]] = []
    listener = logging.Handler()
    listener.emit = lambda record: lines.append(json.loads(record.getMessage()))  # type: ignore[method-assign]
    logger = logging.getLogger("cmo_exporter.queries")
    logger.addHandler(listener)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    with exporter:
        rag = await make(directory, exporter, Model(exporter), "logged", at_once=1)
        await rag.ainsert(PASSAGE)
        for words in ("Tell me about", "Tell me more about"):
            await ask(rag, exporter, words)
    return [list(line["queue_wait_seconds"]) for line in lines]


async def replies(directory: str, exporter: Exporter) -> dict[str, Any]:
    """``aquery_llm``, which tells of a failure in its reply, and hands a stream over inside of it."""
    seen = Seen(exporter)
    rag = await make(directory, exporter, Model(exporter), "replies")
    await rag.ainsert(PASSAGE)
    if not hasattr(rag, "aquery_llm"):
        return {}
    seen.added()
    found: dict[str, Any] = {}
    for name, words in {
        "answered": "Tell me about TMAO choline?", "raised": "What breaks about TMAO choline?",
        "too late": "What is too late about TMAO choline?", "nothing found": UNANSWERABLE,
    }.items():  # fmt: skip
        with exporter.query():
            reply = await rag.aquery_llm(words, naive())
        found[name] = {
            "status": reply["status"],
            "content": reply["llm_response"]["content"],
            "counted": seen.added(),
        }

    async def begun(words: str) -> Any:
        reply = await rag.aquery_llm(f"{words} TMAO choline?", naive(stream=True))
        return reply["llm_response"]["response_iterator"]

    with exporter.query():
        stream = await begun("Stream")
        found["is a generator"] = isinstance(stream, AsyncGenerator)
        found["returned"] = seen.added()
        first = await anext(stream)
        found["first token"] = seen.added()
        found["text"] = first + "".join([piece async for piece in stream])
        found["ended"] = seen.added()
        stream = await begun("Abandon")
        await anext(stream)
        await stream.aclose()
        found["abandoned"] = seen.added()
        stream = await begun("Forget")
        del stream
        gc.collect()
        catch_up()
        found["never read"] = seen.added()
        try:
            async for _ in await begun("Stop half way through"):
                pass
        except RuntimeError:
            found["broke off"] = seen.added()
    return found


def synchronous(directory: str, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> dict[str, Any]:
    """The forms without ``await``, which drive the loop themselves."""
    exporter = an_exporter()
    seen = Seen(exporter)
    rag = run(make(directory, exporter, Model(exporter), "synchronous"))
    run(rag.ainsert(PASSAGE))
    seen.added()
    found: dict[str, Any] = {}
    for name in ("query", "query_llm", "query_data"):
        if not hasattr(rag, name):
            continue
        found[name] = []
        for words in ("Tell me about TMAO choline?", UNANSWERABLE):
            with exporter.query():
                getattr(rag, name)(words, naive())
            found[name].append(seen.added())
    name = "query_with_separate_keyword_extraction"
    if hasattr(rag, name):
        with exporter.query():
            try:
                getattr(rag, name)("Tell me about TMAO choline?", "Briefly.", naive())
            except TypeError:  # 1.4.6 itself gives its naive search an argument twice
                found[name] = seen.added()

    async def read(stream: Any) -> str:
        return "".join([piece async for piece in stream])

    with exporter.query():
        stream = rag.query("Stream TMAO choline?", naive(stream=True))
        found["returned a stream"] = seen.added()
        found["text"] = run(read(stream))
        found["read it"] = seen.added()
    return found


async def faults(directory: str) -> dict[str, Any]:
    """Each part of the instrumentation raises in turn; what the service gets must stay what it was."""
    exporter = an_exporter()
    said: list[str] = []
    listener = logging.Handler()
    listener.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("cmo_exporter").addHandler(listener)
    seen = Seen(exporter)
    rag = await make(directory, exporter, Model(exporter), "faults")
    await rag.ainsert(PASSAGE)

    async def got() -> list[Any]:
        """What the service gets: of questions that go well or wrong, and of streams."""
        answers = [await ask(rag, exporter, words) for words in ("Tell me about", "What breaks about")]
        answers += [await ask(rag, exporter, "What is too late about")]
        for words in ("Stream", "Stop half way through"):
            with exporter.query():
                try:
                    stream = await rag.aquery(f"{words} TMAO choline?", naive(stream=True))
                    answers.append("".join([piece async for piece in stream]))
                except Exception as error:  # noqa: BLE001 - whatever it is, it is what came
                    answers.append(str(error))
        return answers

    def broken(*_args: object, **_kwargs: object) -> Any:
        raise ZeroDivisionError("what a user has asked")

    found: dict[str, Any] = {"whole": await got(), "parts": {}}
    seen.added()
    for part in PARTS:
        *owner, name = part.split(".")
        target = getattr(adapter, owner[0]) if owner else adapter
        with patch.object(target, name, property(broken) if name == "is_here" else broken):
            answers = await got()
        errors = {
            key.split()[1]: value for key, value in seen.added().items() if "instrumentation_errors" in key
        }
        found["parts"][part] = {"got": answers, "errors": errors}
    found["said"] = said
    await got()  # LightRAG's workers hold on to the last call until the next
    gc.collect()  # ends the calls that a fault has left open
    catch_up()
    seen.added()
    found["after"] = await got()
    found["counted after"] = seen.added()
    return found


def threads(directory: str, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> dict[str, Any]:
    """A LightRAG of its own for every chat, made in as many threads at once, and then asked."""
    exporter = an_exporter()
    model = Model(exporter)
    seen = Seen(exporter)
    run(run_first(directory, exporter, model))
    rags: list[Any] = []
    together = threading.Barrier(THREADS)

    def made() -> None:
        together.wait()
        rags.append(build(directory, exporter, model, "threads"))

    in_threads(made)
    seen.added()
    found: dict[str, Any] = {"made": len(rags)}

    async def all_asked() -> dict[str, Any]:
        for rag in rags:
            await rag.initialize_storages()
            rag.llm_response_cache.global_config["enable_llm_cache"] = True
        model.gate.clear()
        asking = [
            asyncio.create_task(ask(rag, exporter, f"Question {number} of"))
            for number, rag in enumerate(rags)
            for _ in range(5)
        ]
        await until(lambda: model.at_once == 4 * THREADS)  # four of five have a place, and one waits
        await until(lambda: seen.all()["cmo_queue_depth llm"] == THREADS)
        model.gate.set()
        await asyncio.gather(*asking)
        first = seen.added()
        for number, rag in enumerate(rags):
            await ask(rag, exporter, f"Question {number} of")
        return {"first": first, "again": seen.added(), "depth": seen.all()["cmo_queue_depth llm"]}

    found["in one loop"] = run(all_asked())
    if hasattr(rags[0], "aquery_llm"):
        found["in loops of their own"] = in_loops_of_their_own(directory)
        found["overtaken"] = overtaken(directory)
    return found


async def run_first(directory: str, exporter: Exporter, model: Model) -> None:
    rag = await make(directory, exporter, model, "threads")
    await rag.ainsert(PASSAGE)


def in_threads(work: Callable[[], None], count: int = THREADS) -> None:
    crew = [threading.Thread(target=work) for _ in range(count)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()


def in_loops_of_their_own(directory: str) -> dict[str, Any]:
    """Each thread has a loop; switching often, they disturb each other where they can.

    They ask without retrieval: the locks of LightRAG's storages are of one loop.
    """
    exporter = an_exporter()
    model = Model(exporter)
    seen = Seen(exporter)
    answers: list[str] = []

    async def asked() -> None:
        rag = build(directory, exporter, model, "loops")
        questions = (
            rag.aquery("Hello [live]", QueryParam(mode="bypass", stream=False))
            for _ in range(QUESTIONS_OF_A_THREAD)
        )
        answers.extend(await asyncio.gather(*questions))

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        in_threads(lambda: asyncio.run(asked()))
    finally:
        sys.setswitchinterval(before)
    return {"answers": len(answers), "counted": seen.added(), "depth": seen.all()["cmo_queue_depth llm"]}


def overtaken(directory: str) -> float:
    """Two calls have their turn; whoever tells that one still waits is held until none does."""
    exporter = an_exporter()
    model = Model(exporter)
    turns_have_come = threading.Event()
    both_wait = threading.Barrier(2, turns_have_come.set, DEADLINE_SECONDS)
    none_waits = threading.Event()
    start, tell = adapter._Ticket.start, exporter.queue_depth

    def started(ticket: Any, name: str) -> Any:
        both_wait.wait()
        return start(ticket, name)

    def told(component: str, value: float) -> None:
        if value == 1 and turns_have_come.is_set():
            none_waits.wait(DEADLINE_SECONDS)
        tell(component, value)
        if value == 0:
            none_waits.set()

    async def asked() -> None:
        rag = build(directory, exporter, model, "overtaken")
        await rag.aquery("Hello [live]", QueryParam(mode="bypass", stream=False))

    with patch.object(adapter._Ticket, "start", started), patch.object(exporter, "queue_depth", told):
        in_threads(lambda: asyncio.run(asked()), 2)
    return Seen(exporter).all()["cmo_queue_depth llm"]  # type: ignore[no-any-return]


def everything(directory: str) -> dict[str, Any]:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    run = loop.run_until_complete
    return {
        "amounts": run(amounts(directory)),
        "logged": run(logged(directory)),
        "replies": run(replies(directory, an_exporter())),
        "synchronous": synchronous(directory, run),
        "faults": run(faults(directory)),
        "threads": threads(directory, run),
    }


if __name__ == "__main__":
    logging.getLogger("lightrag").setLevel(logging.CRITICAL)
    print(json.dumps(everything(sys.argv[1])))  # noqa: T201 - this is how it answers
    sys.stdout.flush()
    os._exit(0)  # LightRAG leaves tasks and threads behind
