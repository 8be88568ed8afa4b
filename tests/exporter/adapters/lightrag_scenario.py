"""A program: asks a real LightRAG everything that can go well or wrong, and prints what the exporter saw.

It runs as it is on every version of LightRAG, each in an interpreter of its own, so it imports nothing
that comes with this project but the exporter. Usage: python lightrag_scenario.py DIRECTORY OTLP_ENDPOINT
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import inspect
import json
import logging
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from importlib.util import find_spec
from typing import Any

import numpy as np
from cmo_exporter import Exporter, ExporterSettings
from cmo_exporter.adapters import instrument_lightrag

os.environ["TIKTOKEN_CACHE_DIR"] = "/nonexistent"
from lightrag import LightRAG, QueryParam
from lightrag.kg.shared_storage import initialize_pipeline_status
from lightrag.utils import EmbeddingFunc, Tokenizer

DIMENSION = 64
CALLS_AT_ONCE = 4
PASSAGE = "TMAO is a metabolite of choline that gut bacteria make. It is tied to cardiovascular risk."
SCENARIOS = ("failing", "fine", "slow")


class Letters:
    """A tokenizer that needs no download."""

    def encode(self, content: str) -> list[int]:
        return [ord(letter) for letter in content]

    def decode(self, tokens: list[int]) -> str:
        return "".join(map(chr, tokens))


async def embed(texts: list[str], **_options: Any) -> np.ndarray[Any, Any]:
    """A bag of words; a text about something else is at a right angle to the passage."""
    rows = np.full((len(texts), DIMENSION), 1e-6, dtype=np.float32)
    for row, text in zip(rows, texts, strict=True):
        for word in text.lower().replace("?", " ").replace(".", " ").split():
            if word in PASSAGE.lower():
                row[0] = 1
            else:
                row[1 + int(hashlib.sha256(word.encode()).hexdigest(), 16) % (DIMENSION - 1)] += 0.01
    return rows


class RefusedError(RuntimeError):
    """As clients of models raise it that are asked too often."""

    status_code = 429


class Model:
    """What the model does next; its words may hold the question, as real ones do."""

    def __init__(self, exporter: Exporter) -> None:
        self.exporter = exporter
        self.calls = 0
        self.at_once = 0
        self.most_at_once = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.wrong_query = 0

    async def answer(self, prompt: str, system_prompt: str | None = None, **options: Any) -> Any:
        self.calls += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            asked_by = [name for name in ("live", *SCENARIOS) if f"[{name}]" in prompt]
            self.wrong_query += self.exporter.current_query().scenario not in (asked_by or ("live",))
            await self.gate.wait()
            await asyncio.sleep(0)
        finally:
            self.at_once -= 1
        if "<|COMPLETE|>" in f"{system_prompt}{prompt}":  # asked to extract entities
            return "<|COMPLETE|>"
        if "[failing]" in prompt or "breaks" in prompt:
            raise RuntimeError(f"the provider quotes: {prompt}")
        if "too late" in prompt:
            raise TimeoutError
        if "too much" in prompt:
            raise RefusedError
        if "says nothing" in prompt:
            return ""
        return self.stream(prompt) if options.get("stream") else f"An answer to {len(prompt)} letters."

    async def stream(self, prompt: str) -> AsyncIterator[str]:
        if "too often" in prompt:
            raise RefusedError
        yield "One "
        await asyncio.sleep(0)
        if "half way" in prompt:
            raise RuntimeError("broke off")
        yield "two "
        yield "three."


class Seen:
    """What the exporter has counted since the last time it was asked."""

    COUNTED = (
        "cmo_cache_requests_total",
        "cmo_component_calls_total",
        "cmo_component_in_progress",
        "cmo_instrumentation_errors_total",
        "cmo_query_time_to_first_token_seconds_count",
        "cmo_queue_depth",
        "cmo_queue_wait_seconds_count",
        "cmo_series_dropped_total",
    )
    AT_REST = ("cmo_component_in_progress", "cmo_queue_depth", "cmo_instrumentation", "cmo_series")

    def __init__(self, exporter: Exporter) -> None:
        self.exporter = exporter
        self.before = self.all()

    def all(self) -> dict[str, float]:
        return {
            " ".join((sample.name, *sample.labels.values())): sample.value
            for family in self.exporter.registry.collect()
            for sample in family.samples
            if sample.name in self.COUNTED
        }

    def added(self) -> dict[str, float]:
        before, self.before = self.before, self.all()
        return {
            key: value - before.get(key, 0)
            for key, value in self.before.items()
            if value != before.get(key, 0)
        }


def build(
    directory: str, exporter: Exporter, model: Model, workspace: str = "", at_once: int = CALLS_AT_ONCE
) -> Any:
    """An instrumented LightRAG whose storages are still to be opened."""

    async def ask(*args: Any, **options: Any) -> Any:
        return await model.answer(*args, **options)

    rag = LightRAG(
        working_dir=directory,
        workspace=workspace,  # what has the same one shares its storage, wherever it is
        tokenizer=Tokenizer("letters", Letters()),
        embedding_func=EmbeddingFunc(embedding_dim=DIMENSION, max_token_size=8192, func=embed),
        llm_model_func=ask,
        llm_model_max_async=at_once,
        enable_llm_cache=False,
        enable_llm_cache_for_entity_extract=False,
        entity_extract_max_gleaning=0,
        cosine_better_than_threshold=0.5,
        llm_model_name="gpt-test",
    )
    assert instrument_lightrag(rag, exporter, provider="openai") is rag
    assert instrument_lightrag(rag, exporter, provider="openai") is rag
    return rag


async def make(
    directory: str, exporter: Exporter, model: Model, workspace: str = "", at_once: int = CALLS_AT_ONCE
) -> Any:
    """The same, ready to be asked."""
    rag = build(directory, exporter, model, workspace, at_once)
    await rag.initialize_storages()
    if not hasattr(rag, "aquery_llm"):
        await initialize_pipeline_status()
    return rag


async def ask(rag: Any, exporter: Exporter, words: str, scenario: str = "live", **param: Any) -> Any:
    """What came back, or the name of the exception."""
    with exporter.query(scenario):
        parameters = QueryParam(mode="naive", enable_rerank=False, **param)
        try:
            return await rag.aquery(f"{words} TMAO choline? [{scenario}]", parameters)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what came
            return type(error).__name__


async def single_questions(rag: Any, exporter: Exporter, seen: Seen) -> dict[str, Any]:
    found: dict[str, Any] = {}
    questions = {
        "answered": "Tell me about", "error": "What breaks about", "timeout": "What is too late about",
        "refused": "What is too much about", "nothing said": "What says nothing about",
    }  # fmt: skip
    for name, words in questions.items():
        found[name] = {"returned": await ask(rag, exporter, words), "counted": seen.added()}
    with exporter.query():
        try:
            returned = await rag.aquery("xylophones zebras quarks", QueryParam(mode="naive"))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what came
            returned = type(error).__name__
    found["no results"] = {"returned": returned, "counted": seen.added()}
    return found


async def retrievals(rag: Any, exporter: Exporter, seen: Seen) -> dict[str, Any]:
    """Only 1.5 has a method that retrieves and answers nothing; it says by its status that it failed."""
    found: dict[str, Any] = {}
    for words in ("TMAO choline?", "xylophones zebras quarks"):
        with exporter.query():
            result = await rag.aquery_data(words, QueryParam(mode="naive", enable_rerank=False))
        found[result["status"]] = seen.added()
    return found


async def streams(rag: Any, exporter: Exporter, seen: Seen) -> dict[str, Any]:
    found: dict[str, Any] = {}

    async def begun(words: str) -> Any:
        parameters = QueryParam(mode="naive", enable_rerank=False, stream=True)
        return await rag.aquery(f"{words} TMAO choline?", parameters)

    with exporter.query():
        stream = await begun("Stream")
        found["is a generator"] = isinstance(stream, AsyncGenerator) and not inspect.isawaitable(stream)
        found["returned"] = seen.added()
        first = await anext(stream)
        found["first token"] = seen.added()
        found["text"] = first + "".join([piece async for piece in stream])
        found["ended"] = seen.added()
    with exporter.query():
        stream = await begun("Abandon")
        await anext(stream)
        await stream.aclose()
    found["abandoned"] = seen.added()
    with exporter.query():
        del stream
        stream = await begun("Forget")
        del stream
        gc.collect()
        await asyncio.sleep(0)
    found["never read"] = seen.added()
    with exporter.query():
        try:
            async for _ in await begun("Stop half way through"):
                pass
        except RuntimeError as error:
            found["broke off with"] = str(error)
    found["broke off"] = seen.added()
    with exporter.query(), contextlib.suppress(RefusedError):
        async for _ in await begun("Ask too often about"):
            pass
    found["refused"] = seen.added()
    return found


async def crowd(rag: Any, exporter: Exporter, model: Model, seen: Seen) -> dict[str, Any]:
    """Sixty at once; the first four hold the model until all the others wait, and six give up waiting."""
    model.gate.clear()
    model.most_at_once = 0
    scenarios = [SCENARIOS[number % 3] for number in range(60)]
    asking = [
        asyncio.create_task(ask(rag, exporter, f"Question {number} of", scenario))
        for number, scenario in enumerate(scenarios)
    ]
    line = "cmo_queue_depth llm"
    while seen.all()[line] < 60 - CALLS_AT_ONCE:  # noqa: ASYNC110 - a metric wakes nobody
        await asyncio.sleep(0.01)
    depth = seen.all()[line]
    for task in asking[54:]:
        task.cancel()
    await asyncio.wait(asking[54:])
    after_cancelling = seen.all()[line]
    model.gate.set()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    found = {
        "depth": depth,
        "depth after six left": after_cancelling,
        "most at once": model.most_at_once,
        "fine answers": sum("An answer" in str(answer) for answer in answers),
        "counted": seen.added(),
    }
    wait = [
        s for f in exporter.registry.collect() for s in f.samples if s.name == "cmo_queue_wait_seconds_sum"
    ]
    found["waited"] = next(s.value for s in wait if s.labels["component"] == "llm")
    return found


async def traced(directory: str, endpoint: str) -> None:
    """Questions one after the other; LightRAG's worker begins in the context of the first."""
    settings = ExporterSettings(
        components=("lightrag", "llm"),
        models=(("llm", "openai", "gpt-test"), ("llm", "openai", "gpt-other")),
        otlp_endpoint=endpoint,
    )
    with Exporter(settings) as exporter:

        class Counting(Model):
            async def answer(self, prompt: str, system_prompt: str | None = None, **options: Any) -> Any:
                exporter.tokens("llm", "openai", "gpt-test", input_tokens=70, output_tokens=4)
                return await super().answer(prompt, system_prompt, **options)

        model = Counting(exporter)
        rag = await make(directory, exporter, model, "traced")
        await rag.ainsert(PASSAGE)
        for words in ("Tell me about", "Tell me more about"):
            await ask(rag, exporter, words)
        if hasattr(rag, "aupdate_llm_role_config"):

            async def another(*args: Any, **options: Any) -> Any:
                return await model.answer(*args, **options)

            await rag.aupdate_llm_role_config("query", model="gpt-other", model_func=another)
            await ask(rag, exporter, "Let another tell me about")


async def run(directory: str) -> dict[str, Any]:
    settings = ExporterSettings(scenarios=SCENARIOS, components=("lightrag", "llm"))
    exporter = Exporter(settings)
    model = Model(exporter)
    rag = await make(directory, exporter, model)
    seen = Seen(exporter)
    await rag.ainsert(PASSAGE)
    found: dict[str, Any] = {"indexing": seen.added()}
    found["single"] = await single_questions(rag, exporter, seen)
    if hasattr(rag, "aquery_data"):
        found["retrievals"] = await retrievals(rag, exporter, seen)
    found["streams"] = await streams(rag, exporter, seen)
    found["crowd"] = await crowd(rag, exporter, model, seen)
    found["wrong query"] = model.wrong_query

    if hasattr(rag, "aupdate_llm_role_config"):

        async def another(*args: Any, **options: Any) -> Any:
            return await model.answer(*args, **options)

        await rag.aupdate_llm_role_config("query", model_func=another)
        await ask(rag, exporter, "What does another model say about")
        found["another model"] = seen.added()
    rag.llm_response_cache.global_config["enable_llm_cache"] = True
    found["cache"] = []
    for _ in range(2):
        before = model.calls
        answer = await ask(rag, exporter, "Remember")
        found["cache"].append({"answer": answer, "calls": model.calls - before, "counted": seen.added()})
    found["at rest"] = {
        key: value
        for key, value in seen.all().items()
        if key.startswith(
            ("cmo_component_in_progress", "cmo_queue_depth", "cmo_instrumentation", "cmo_series")
        )
        and value
    }
    return found


async def everything(directory: str, endpoint: str) -> dict[str, Any]:
    found = await run(directory)
    if find_spec("opentelemetry"):
        await traced(directory, endpoint)
    return found


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    result = asyncio.run(everything(*sys.argv[1:]))
    print(json.dumps(result))  # noqa: T201 - this is how it answers
    sys.stdout.flush()
    os._exit(0)  # LightRAG leaves tasks and threads behind
