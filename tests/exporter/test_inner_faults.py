"""An error inside what records calls, spans or the query log is counted, and the service never sees it.

Each fault is put into a place of its own and met by functions of all four kinds, which return or raise: they
do what they do without the exporter, the error is counted under the metric that was lost, and the log says it
once, by its type alone.
"""

from __future__ import annotations

import contextvars
import logging
from typing import TYPE_CHECKING, Any

import pytest
from cmo_exporter import Exporter, ExporterSettings
from cmo_exporter import query_log as query_log_module
from cmo_exporter.ledger import Ledger, ScenarioBook
from cmo_exporter.queries import Query
from cmo_exporter.query_log import QueryLog
from cmo_exporter.query_record import QueryRecord, Step, Watch
from cmo_exporter.sessions import Sessions
from cmo_exporter.spans import OpenSpan, SpanMaker
from cmo_exporter.values import NUMBERS
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from .decorators.kinds import KINDS, of_kind, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cmo_exporter.instruments import Family

    from .collector import Collector

SECRET = "does my patient have phenylketonuria"
STARTED, FINISHED = "cmo_queries_started_total", "cmo_queries_total"
BEGUN, CALLED = "cmo_component_in_progress", "cmo_component_calls_total"

# Where a failure is put in, and the metric under which it is counted.
FAULTS = [
    # Component calls.
    (Ledger, "component", BEGUN),
    (Ledger, "begin_call", BEGUN),
    (Ledger, "finish_call", CALLED),
    # Queries.
    (Query, "__init__", STARTED),
    (Sessions, "key", STARTED),
    (Ledger, "enter", STARTED),
    (Ledger, "leave", FINISHED),
    (ScenarioBook, "post", STARTED),
    # Spans.
    (SpanMaker, "query", STARTED),
    (SpanMaker, "component", BEGUN),
    (OpenSpan, "__init__", STARTED),
    (OpenSpan, "finish", FINISHED),
    (OpenSpan, "exemplar", FINISHED),
    (OpenSpan, "event", "cmo_retries_total"),
    (OpenSpan, "event", "cmo_fallbacks_total"),
    (OpenSpan, "used", "cmo_llm_tokens_total"),
    (BatchSpanProcessor, "on_end", FINISHED),
    # Records, and the query log.
    (Watch, "query", STARTED),
    (Watch, "step", BEGUN),
    (Step, "finish", CALLED),
    (QueryRecord, "add", BEGUN),
    (QueryRecord, "step_finished", CALLED),
    (QueryRecord, "first_token", "cmo_query_time_to_first_token_seconds"),
    (QueryRecord, "looked_up", "cmo_cache_requests_total"),
    (QueryRecord, "fell_back", "cmo_fallbacks_total"),
    (QueryRecord, "retried", "cmo_retries_total"),
    (QueryRecord, "refused", "cmo_circuit_breaker_rejections_total"),
    (QueryRecord, "waited", "cmo_queue_wait_seconds"),
    (QueryRecord, "used", "cmo_llm_tokens_total"),
    (QueryRecord, "asked", FINISHED),
    (QueryRecord, "finish", FINISHED),
    (QueryLog, "put", FINISHED),
    (query_log_module, "fields", "cmo_query_log_lines_total"),
]


@pytest.fixture
def watched(collector: Collector) -> Iterator[Exporter]:
    """An exporter that does all that it can: metrics, spans and the query log."""
    logger, quiet = logging.getLogger(query_log_module.LOGGER), logging.NullHandler()
    logger.addHandler(quiet)
    settings = ExporterSettings(
        components=("llm",),
        models=(("llm", "stub", "cmo-stub"),),
        otlp_endpoint=collector.url,
        query_log=True,
        record_question_text=True,
    )
    try:
        with Exporter(settings) as exporter:
            yield exporter
    finally:
        logger.removeHandler(quiet)


def body(exporter: Exporter, error: Exception | None) -> Callable[[], object]:
    """All that a service tells of a query while it answers it."""

    def answer() -> object:
        query = exporter.current_query()
        query.question(SECRET)
        query.first_token()
        query.cache_request("l1", "miss")
        query.fallback(source="lightrag", target="perplexity", reason="api_error")
        exporter.retry("llm")
        exporter.queue_wait("llm", 1)
        exporter.breaker_rejection("llm", "open")
        exporter.tokens("llm", "stub", "cmo-stub", input_tokens=1, output_tokens=1)
        query.answered("lightrag")
        if error is not None:
            raise error
        return SECRET

    return answer


def counted(exporter: Exporter) -> dict[str, float]:
    """Errors inside the exporter, by the metric that was lost."""
    return {
        sample.labels["metric"]: sample.value
        for family in exporter.registry.collect()
        for sample in family.samples
        if sample.name == "cmo_instrumentation_errors_total" and sample.value
    }


def fail(*_: object, **__: object) -> Any:
    raise RuntimeError(SECRET)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("owner", "method", "metric"), FAULTS, ids=lambda part: getattr(part, "__name__", part).replace(".", "-")
)
def test_a_function_does_what_it_did_and_the_error_is_counted_and_said_once(
    watched: Exporter,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    owner: Any,
    method: str,
    metric: str,
    kind: str,
) -> None:
    raised = ValueError("the service's own")

    def decorated(error: Exception | None) -> Callable[[], Any]:
        function = of_kind(kind, body(watched, error))
        return watched.observe_query(session="u1")(watched.observe_component("llm")(function))

    # Of its own: a span that cannot end remains the current one.
    context = contextvars.copy_context()
    with monkeypatch.context() as broken:
        broken.setattr(owner, method, fail)
        for _ in range(2):
            assert context.run(run, kind, decorated(None)) == SECRET
            with pytest.raises(ValueError, match="the service's own") as caught:
                context.run(run, kind, decorated(raised))
            assert caught.value is raised
        watched.close()  # which posts and writes what waits
        found = counted(watched)
    assert found[metric] >= 1
    said = [record.getMessage() for record in caplog.records if record.name == "cmo_exporter"]
    for name in found:
        assert sum(f"Recording {name} failed" in message for message in said) == 1, said
    assert not any(SECRET in message for message in said), "the query log alone may hold the question"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "family", ["component_in_progress", "component_calls", "component_duration", "queries"]
)
def test_a_metric_that_cannot_be_written_leaves_the_result_as_it_is(
    monkeypatch: pytest.MonkeyPatch, family: str, kind: str
) -> None:
    exporter = Exporter(ExporterSettings(components=("llm",)))
    broken: Family[Any] = getattr(exporter.recorder.instruments, family)
    monkeypatch.setattr(broken, "child", fail)
    function = of_kind(kind, body(exporter, None))
    # A component that is not in the settings is looked up anew.
    decorated = exporter.observe_query(exporter.observe_component("unknown")(function))
    assert run(kind, decorated) == SECRET
    assert run(kind, decorated) == SECRET
    assert sum(counted(exporter).values()) >= 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_service_goes_on_when_there_is_no_room_for_another_series(kind: str) -> None:
    exporter = Exporter(ExporterSettings(components=("llm",)))
    assert counted(exporter) == {}  # a scrape, which makes the series of this worker
    values = exporter.recorder.instruments.values
    values.allocate("cmo_queries_total", ("live", "the rest of the room"), NUMBERS - values._next)
    function = of_kind(kind, body(exporter, None))
    decorated = exporter.observe_query(scenario="unknown")(exporter.observe_component("unknown")(function))
    assert run(kind, decorated) == SECRET
    assert counted(exporter)[STARTED] == 1
    assert counted(exporter)[BEGUN] == 1
    with exporter.query("unknown") as query:
        query.answered("lightrag")
        assert not query.in_progress
    assert counted(exporter)[STARTED] == 2


def test_a_session_that_cannot_be_followed_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = Exporter(ExporterSettings())
    with monkeypatch.context() as broken:
        broken.setattr(Sessions, "key", fail)
        with exporter.session("u1"), exporter.query(session="u1") as query:
            query.answered("lightrag")
    assert counted(exporter) == {"cmo_active_users": 1, STARTED: 1}
    assert exporter.registry.get_sample_value("cmo_active_users", {"scenario": "live"}) == 0
