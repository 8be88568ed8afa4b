"""The query log: a slow query can be explained from its line alone, which holds no word of what was asked."""

from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from cmo_exporter import Exporter, ExporterSettings, Price, instrument_fastapi
from cmo_exporter import query_log as module
from fastapi import FastAPI, Request

if TYPE_CHECKING:
    from .collector import Collector

Serve = Callable[[Any], AbstractContextManager[int]]
Eventually = Callable[[Callable[[], object]], None]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "query-log.md"
QUESTION = 'does my patient have\n"phenylketonuria"'


class Lines(logging.Handler):
    """Keeps what the logger is given."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.threads: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())
        self.threads.add(threading.current_thread().name)

    @property
    def all(self) -> list[dict[str, Any]]:
        return [json.loads(text) for text in self.texts]


@pytest.fixture
def lines() -> Iterator[Lines]:
    """A handler of the service's choice."""
    handler, logger = Lines(), logging.getLogger(module.LOGGER)
    logger.addHandler(handler)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)


def settings(**changes: Any) -> ExporterSettings:
    return ExporterSettings(
        components=("cache_l1", "lightrag", "llm", "perplexity"),
        models=(("llm", "openai", "gpt-test"),),
        prices={"gpt-test": Price(1.0, 2.0)},
        query_log=True,
        **changes,
    )


def answer(exporter: Exporter) -> None:
    query = exporter.current_query()
    query.question(QUESTION)
    with query.component("cache_l1"):
        query.cache_request("l1", "miss")
    query.cache_result("miss")
    with query.component("lightrag") as call:
        exporter.queue_wait("llm", 0.25)
        exporter.queue_wait("llm", 0.5)
        with query.model_call("llm", "openai", "gpt-test"):
            exporter.tokens("llm", "openai", "gpt-test", input_tokens=700, output_tokens=40)
        exporter.retry("lightrag")
        call.outcome("timeout")
    exporter.breaker_state("lightrag", "open")
    exporter.breaker_rejection("lightrag", "open")
    query.fallback(source="lightrag", target="perplexity", reason="api_timeout")
    with query.component("perplexity"):
        query.first_token()
    query.answered("perplexity")


def service(exporter: Exporter) -> FastAPI:
    app = FastAPI()

    @app.post("/chats/{chat}/query")
    async def ask(chat: str) -> str:
        answer(exporter)
        return "it may be"

    instrument_fastapi(app, exporter, query_routes=("/chats/{chat}/query",))
    return app


def ask(port: int) -> httpx.Response:
    return httpx.post(
        f"http://127.0.0.1:{port}/chats/grey/query", headers={"X-CMO-Session": "of-grey"}, timeout=60
    )


def test_a_line_explains_a_query(collector: Collector, serve: Serve, lines: Lines) -> None:
    with Exporter(settings(otlp_endpoint=collector.url)) as exporter, serve(service(exporter)) as port:
        ask(port)
    (line,) = lines.all
    assert line["trace_id"] == collector.span("query").trace_id.hex()
    assert line["span_id"] == collector.span("query").span_id.hex()
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line["time"])
    assert line["process"] == os.getpid()
    assert (line["scenario"], line["outcome"], line["source"]) == ("live", "success", "perplexity")
    assert line["cache"] == "miss"
    assert line["cache_tiers"] == [{"tier": "l1", "result": "miss"}]
    calls = line["components"]
    assert [(call["component"], call["outcome"]) for call in calls] == [
        ("cache_l1", "success"),
        ("lightrag", "timeout"),
        ("llm", "success"),
        ("perplexity", "success"),
    ]
    assert [call["start_seconds"] for call in calls] == sorted(call["start_seconds"] for call in calls)
    assert all(
        call["start_seconds"] + call["duration_seconds"] <= line["duration_seconds"] + 1e-5 for call in calls
    )
    assert calls[1]["duration_seconds"] >= calls[2]["duration_seconds"] > 0
    assert (calls[2]["model"], calls[2]["input_tokens"], calls[2]["output_tokens"]) == ("gpt-test", 700, 40)
    assert 0 < line["time_to_first_token_seconds"] <= line["duration_seconds"]
    assert line["fallbacks"] == [{"source": "lightrag", "target": "perplexity", "reason": "api_timeout"}]
    assert line["retries"] == {"lightrag": 1}
    assert line["breakers"] == {"lightrag": "open"}
    assert line["breaker_rejections"] == [{"component": "lightrag", "state": "open"}]
    assert line["queue_wait_seconds"] == {"llm": 0.75}
    assert (line["input_tokens"], line["output_tokens"]) == (700, 40)
    assert line["cost_usd"] == pytest.approx(0.00078)
    assert line["http"] == {"method": "POST", "route": "/chats/{chat}/query", "status": 200}
    assert lines.threads == {"cmo-query-log"}, "writing is the work of a thread"


@pytest.mark.parametrize("switched_on", [False, True])
def test_the_question_is_in_a_line_only_when_that_is_switched_on_by_name(
    serve: Serve, lines: Lines, switched_on: bool
) -> None:
    exporter = Exporter(settings(record_question_text=switched_on))
    with exporter, serve(service(exporter)) as port:
        ask(port)
        with exporter.query() as query:
            query.question("x" * 10_000)
    text = "".join(lines.texts)
    assert ("phenylketonuria" in text) is switched_on
    assert "grey" not in text
    assert not any("\n" in one for one in lines.texts), "a line is a line"
    if switched_on:
        assert {line["question"] for line in lines.all} == {QUESTION, "x" * 2_000}


def test_what_is_passed_by_mistake_is_not_written(lines: Lines) -> None:
    exporter = Exporter(settings())
    with exporter, exporter.query(QUESTION) as query:
        with query.component(QUESTION) as call, query.model_call(QUESTION, QUESTION, QUESTION, QUESTION):
            call.outcome(QUESTION)
        exporter.tokens(QUESTION, QUESTION, QUESTION, input_tokens=1, output_tokens=1)
        query.fallback(source=QUESTION, target=QUESTION, reason=QUESTION)
        query.cache_request(QUESTION, QUESTION)
        query.cache_result(QUESTION)
        exporter.retry(QUESTION)
        exporter.queue_wait(QUESTION, 1)
        exporter.breaker_rejection(QUESTION, QUESTION)
        exporter.breaker_state(QUESTION, QUESTION)
        query.answered(QUESTION)
    (text,) = lines.texts
    assert "phenylketonuria" not in text
    assert lines.all[0]["components"][0]["component"] == "_other"


def test_a_query_with_very_many_calls_has_a_short_line(lines: Lines) -> None:
    exporter = Exporter(settings())
    with exporter, exporter.query() as query:
        for _ in range(1_000):
            with query.component("llm"):
                exporter.retry("llm")
                query.fallback(source="lightrag", target="perplexity", reason="api_error")
                query.cache_request("l1", "hit")
    (line,) = lines.all
    assert len(line["components"]) == 32
    assert line["components_omitted"]["llm"]["calls"] == 968
    assert line["components_omitted"]["llm"]["duration_seconds"] > 0
    assert len(lines.texts[0]) < 10_000


async def test_a_call_that_outlives_its_query_has_no_duration(lines: Lines) -> None:
    exporter = Exporter(settings())
    with exporter:
        with exporter.query() as query:
            call = query.component("llm")
            call.__enter__()
        call.__exit__(None, None, None)
    (line,) = lines.all
    (one,) = line["components"]
    assert one["outcome"] in (None, "success"), "whether it had ended when the line was made"


def test_a_departure_and_a_failure_are_told(serve: Serve, lines: Lines, eventually: Eventually) -> None:
    exporter = Exporter(settings())
    app, begun = FastAPI(), threading.Event()

    @app.post("/query")
    async def wait(body: dict[str, str], request: Request) -> None:
        begun.set()
        while not await request.is_disconnected():  # noqa: ASYNC110 - there is nothing else to wait for
            await asyncio.sleep(0.01)

    @app.post("/fails")
    async def fails() -> None:
        raise ValueError(QUESTION)

    instrument_fastapi(app, exporter, query_routes=("/query", "/fails"))
    with exporter, serve(app) as port:
        assert httpx.post(f"http://127.0.0.1:{port}/fails", timeout=60).status_code == 500
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(
                b"POST /query HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Content-Length: 2\r\n\r\n{}"
            )
            assert begun.wait(60)
        eventually(lambda: len(lines.texts) == 2)
    failed, left = lines.all
    assert (failed["outcome"], failed["http"]["status"], failed["http"]["route"]) == ("error", 500, "/fails")
    assert (left["outcome"], left["http"]["status"], left["http"]["route"]) == ("cancelled", 499, "/query")
    assert "phenylketonuria" not in "".join(lines.texts)


def test_a_direct_call_has_no_http_and_no_trace(lines: Lines) -> None:
    exporter = Exporter(settings())
    with exporter, exporter.query():
        answer(exporter)
    (line,) = lines.all
    assert line["http"] is line["trace_id"] is line["span_id"] is None


def test_without_a_handler_lines_go_bare_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    exporter = Exporter(settings())
    with exporter, exporter.query() as query:
        query.rejected()
    written = capsys.readouterr().err
    assert [json.loads(line)["outcome"] for line in written.splitlines()] == ["rejected"]


def errors(exporter: Exporter) -> float:
    labels = {"metric": "cmo_query_log_lines_total"}
    return exporter.registry.get_sample_value("cmo_instrumentation_errors_total", labels) or 0


def written(exporter: Exporter, result: str) -> float:
    return exporter.registry.get_sample_value("cmo_query_log_lines_total", {"result": result}) or 0


def test_a_line_that_cannot_be_written_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def write(self, _: str) -> None:
            raise OSError(28, "No space left on device")

    exporter = Exporter(settings())
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", Full())
        with exporter, exporter.query():
            pass
    assert errors(exporter) == 1
    assert written(exporter, "written") == 0


def test_a_line_that_cannot_be_serialised_is_counted_and_the_next_is_written(lines: Lines) -> None:
    exporter = Exporter(settings())
    with exporter:
        with exporter.query() as query:
            assert query.record is not None
            query.record.cost = float("nan")
        with exporter.query():
            pass
    assert errors(exporter) == 1
    assert written(exporter, "written") == len(lines.texts) == 1


def test_a_handler_that_hangs_holds_up_no_query(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 10)
    monkeypatch.setattr(module, "_CLOSE_SECONDS", 0.01)
    release = threading.Event()

    class Hanging(logging.Handler):
        def emit(self, _: logging.LogRecord) -> None:
            release.wait(60)

    handler, logger = Hanging(), logging.getLogger(module.LOGGER)
    logger.addHandler(handler)
    exporter = Exporter(settings())
    try:
        with exporter:
            for _ in range(50):
                with exporter.query():
                    pass
        labels = {"scenario": "live", "outcome": "error"}
        assert exporter.registry.get_sample_value("cmo_queries_total", labels) == 50
        assert 39 <= written(exporter, "dropped") <= 40, "what waits is bounded, what is dropped is counted"
    finally:
        release.set()
        for thread in threading.enumerate():
            if thread.name == "cmo-query-log":
                thread.join(60)
        logger.removeHandler(handler)


def test_a_signal_while_the_log_starts_holds_nothing_up(
    lines: Lines, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    """Its handler runs in the thread that starts the log, and asks a question itself."""
    exporter = Exporter(settings())
    start = module._Writer.start

    def be_interrupted_and_start(writer: Any) -> None:
        with exporter.query():
            pass
        start(writer)

    def ask() -> None:
        with exporter.query():
            pass

    monkeypatch.setattr(module._Writer, "start", be_interrupted_and_start)
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(60)
    assert not asking.is_alive()
    eventually(lambda: len(lines.all) == 2)
    exporter.close()


def test_off_means_no_record_no_thread_and_no_line(lines: Lines) -> None:
    exporter = Exporter(ExporterSettings())
    before = {thread.name for thread in threading.enumerate()}
    with exporter.query() as query:
        assert query.record is None
    assert exporter.recorder.watch is None
    assert "cmo-query-log" not in {thread.name for thread in threading.enumerate()} - before
    assert not lines.texts


def _in_child(exporter: Exporter, path: str) -> None:
    handler = logging.FileHandler(path)
    logging.getLogger(module.LOGGER).handlers = [handler]
    with exporter.query() as query:
        query.timed_out()
    exporter.close()


def test_a_forked_worker_writes_its_lines(tmp_path: Path, lines: Lines) -> None:
    exporter = Exporter(settings())
    with exporter.query():
        pass  # the parent has a thread now
    path = tmp_path / "log"
    child = multiprocessing.get_context("fork").Process(target=_in_child, args=(exporter, str(path)))
    child.start()
    child.join(60)
    exporter.close()
    assert child.exitcode == 0
    assert [json.loads(line)["outcome"] for line in path.read_text().splitlines()] == ["timeout"]
    assert [line["outcome"] for line in lines.all] == ["error"]


@pytest.mark.parametrize("end", ["", "sys.exit(3)", "raise ValueError"])
def test_a_program_that_ends_without_closing_writes_its_lines(end: str) -> None:
    program = f"""
import sys
from cmo_exporter import Exporter, ExporterSettings
exporter = Exporter(ExporterSettings(query_log=True))
for _ in range(100):
    with exporter.query() as query:
        query.rejected()
{end}
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    lines = [line for line in ended.stderr.splitlines() if line.startswith("{")]
    assert [json.loads(line)["outcome"] for line in lines] == ["rejected"] * 100


def _fields_of(line: dict[str, Any]) -> set[str]:
    """The names of a line's fields; those of the objects in a list with the list's name before them."""
    found = set(line)
    for name, value in line.items():
        if isinstance(value, list):
            found |= {f"{name}.{key}" for one in value for key in one}
        elif name == "components_omitted":
            found |= {f"{name}.*.{key}" for one in value.values() for key in one}
        elif name == "http" and value is not None:
            found |= {f"{name}.{key}" for key in value}
    return found


def test_the_page_lists_the_fields_of_a_line(serve: Serve, lines: Lines) -> None:
    exporter = Exporter(settings(record_question_text=True))
    with exporter, serve(service(exporter)) as port:
        ask(port)
        with exporter.query() as query:
            answer(exporter)
            for _ in range(40):
                with query.component("llm"):
                    pass
    found = set().union(*map(_fields_of, lines.all))
    documented = set(re.findall(r"^\| `([a-z_.*]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert found == documented


def test_the_example_on_the_page_is_such_a_line() -> None:
    example = re.search(r"^    (\{.*\})$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert example is not None
    documented = set(re.findall(r"^\| `([a-z_.*]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert documented - _fields_of(json.loads(example[1])) <= {
        "question",
        *(name for name in documented if name.startswith(("components", "breaker_rejections."))),
    }
