"""Whatever is asked over HTTP, and however it ends, the books balance and no series is made.

Hypothesis plays the clients and the application: requests of any method, path and header, bodies and answers
in pieces, statuses and exceptions of every sort, users who leave at any moment, tasks that are cancelled. The
server between them is played in process, by ASGI's rules, with those of its versions that tell a departure
by an `OSError` and those that do not.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from cmo_exporter import Exporter, catalogue, instrument_asgi, instrument_fastapi
from cmo_exporter.instruments import KNOWN_HTTP_METHODS, OTHER_HTTP_METHOD
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import Response, StreamingResponse
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from starlette.background import BackgroundTask

from .hostile_service import SETTINGS, WORDS, Books

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MOST_SERIES = 4
HTTP_SETTINGS = dataclasses.replace(
    SETTINGS, honour_scenario_header=True, maximum_http_series=MOST_SERIES, components=("llm",)
)
QUERY_ROUTES = ("/query", "/chats/{chat}/query", "/tenants/{tenant}/query")
QUERY_PATHS = re.compile(r"/query|/(chats|tenants)/[^/]+/query")
TEMPLATES = {*QUERY_ROUTES, "/other", "/files/{path:path}", "/tenants/{tenant}", "unmatched", catalogue.OTHER}
STATUSES = {*map(str, range(100, 600)), catalogue.OTHER}
ERROR_TYPES = {"", *map(str, range(500, 600)), catalogue.INCOMPLETE, catalogue.OTHER}
TURNS = 20
"""Of the event loop, after which whatever can happen has happened."""


class StoppedError(BaseException):
    """Ends a request and is no `Exception`, as a server's own ways to stop are none."""


def alone(step: str) -> tuple[str, bytes]:
    """A step of which there is no more to say."""
    return step, b""


METHODS = st.one_of(
    st.just("POST"), st.sampled_from((*KNOWN_HTTP_METHODS, "post", "_OTHER", "")), st.text(max_size=8)
)
PATHS = st.one_of(
    st.sampled_from(
        ("/query", "/query", "/chats/7/query", "/tenants/grey/query", "/tenants/grey/no", "/other")
    ),
    st.text(max_size=8).map("/{}".format),
    st.text(max_size=8).map("/chats/{}/query".format),
    st.text(max_size=8).map("/files/{}".format),
)
HEADER_VALUES = st.one_of(
    st.sampled_from(
        (b"live", b"clinical_rush", b"_other", b"u1", b"u2", b"u3", b"1", b"true", b"x" * 10_000)
    ),
    st.binary(max_size=8),
)
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(
            (b"x-cmo-scenario", b"x-cmo-session", b"x-cmo-session-end", b"expect", b"traceparent", b"host")
        ),
        HEADER_VALUES,
    ),
    max_size=5,
)
BODIES = st.lists(st.sampled_from((b"", b"{}", b"question")), min_size=1, max_size=3)
MESSAGE_STATUSES = st.one_of(
    st.sampled_from((200, 200, 404, 408, 499, 500, 503, 504)),
    st.integers(),
    st.sampled_from((None, "200", 200.5, float("nan"), True)),
)
ERRORS = st.sampled_from(
    (ValueError, TimeoutError, HTTPException, OSError, StoppedError, asyncio.CancelledError)
)
STEPS = st.one_of(
    st.sampled_from(("receive", "wait", "last", "return", "query", "replace the scope's method")).map(alone),
    st.tuples(st.just("start"), MESSAGE_STATUSES),
    st.tuples(st.just("piece"), st.sampled_from((b"", b"Gly", b"cine"))),
    st.tuples(st.just("raise"), ERRORS),
)
PIECES = st.sampled_from((b"", b"Gly", b"cine")).map(lambda piece: ("piece", piece))
PLANS = st.one_of(
    st.lists(STEPS, max_size=6),
    # Answers that are as they should be, but for what is in them.
    st.tuples(
        st.lists(st.sampled_from(("query", "receive", "wait")).map(alone), max_size=3),
        st.tuples(st.just("start"), MESSAGE_STATUSES).map(lambda start: [start]),
        st.lists(PIECES, max_size=2),
        st.lists(st.sampled_from(("wait", "last")).map(alone), min_size=1, max_size=2),
    ).map(lambda parts: [step for part in parts for step in part]),
)
ANSWERS = st.sampled_from(
    (
        "answers",
        "streams",
        "breaks off",
        "raises",
        "refuses",
        "waits",
        "reads",
        "asks whether it left",
        "fails later",
    )
)
WHICH = st.integers(0, 100)


class Client:
    """One request as its client and the server between see it.

    Args:
        body: the pieces that it sends.
        leaves_after: it leaves after so many messages; None if it stays.
        tells: whether sending to a client who has left raises an `OSError`, as of ASGI 2.4.
    """

    def __init__(self, body: list[bytes], leaves_after: int | None, *, tells: bool) -> None:
        self._body = list(body)
        self._leaves_after = leaves_after
        self._tells = tells
        self._messages = 0
        self.gone = asyncio.Event()
        self.go_on = asyncio.Event()
        self.got: list[Any] = []
        self.complete = False

    async def receive(self) -> dict[str, Any]:
        self._count()
        if self._body and not self.gone.is_set():
            piece = self._body.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(self._body)}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self._count()
        await asyncio.sleep(0)
        if self.gone.is_set() and not self.complete and self._tells:
            raise OSError("the client has left")
        self.got.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self.complete = True
            self.gone.set()  # how servers say that all is done

    def _count(self) -> None:
        if self._messages == self._leaves_after:
            self.gone.set()
        self._messages += 1


@dataclasses.dataclass
class Asked:
    """A request that has been sent."""

    client: Client
    method: str
    is_query: bool
    task: asyncio.Task[None]


class Applications:
    """A bare ASGI application and one of FastAPI, which do what the scope of a request says."""

    def __init__(self, exporter: Exporter) -> None:
        self._exporter = exporter
        self.calls = 0
        self.bare: Any = instrument_asgi(self._play, exporter, query_routes=QUERY_ROUTES)
        self.fastapi: Any = FastAPI(openapi_url=None)
        inner = FastAPI(openapi_url=None)
        for route in ("/query", "/chats/{chat}/query", "/other", "/files/{path:path}"):
            self.fastapi.add_api_route(route, self._answer, methods=["GET", "POST", "PUT"])
        inner.add_api_route("/query", self._answer, methods=["POST"])
        self.fastapi.mount("/tenants/{tenant}", inner)
        instrument_fastapi(self.fastapi, exporter, query_routes=QUERY_ROUTES)

    async def _play(self, scope: Any, receive: Any, send: Any) -> None:
        for name, what in scope["plan"]:
            if name == "return":
                return
            if name == "raise":
                error: BaseException = HTTPException(500) if what is HTTPException else what()
                scope["raised"].append(error)
                raise error
            if name == "receive":
                await receive()
            elif name == "wait":
                await scope["client"].go_on.wait()
            elif name == "query":
                self._work(scope["word"])
            elif name == "replace the scope's method":
                scope["method"] = "ODD"
            else:
                await send(_message(name, what))

    async def _answer(self, request: Request) -> Response:
        scope = request.scope
        what, status, client = scope["answer"], scope["status"], scope["client"]
        self._work(scope["word"])
        if what == "raises":
            raise scope["error"]("a question")
        if what == "refuses":
            raise HTTPException(status)
        if what == "waits":
            await client.go_on.wait()
        if what == "reads":
            await request.body()
        if what == "asks whether it left":
            await request.is_disconnected()
        if what in ("streams", "breaks off"):
            error = scope["error"]("a question") if what == "breaks off" else None
            return StreamingResponse(_pieces(client, error), status)
        background = BackgroundTask(_fail) if what == "fails later" else None
        return Response(b"Glycine", status, background=background)

    def _work(self, word: Any) -> None:
        query = self._exporter.current_query()
        with query.component(word):
            self.calls += 1
        query.first_token()
        query.answered(word)


def _message(name: str, what: Any) -> dict[str, Any]:
    if name == "start":
        return {"type": "http.response.start", "status": what, "headers": []}
    return {"type": "http.response.body", "body": what, "more_body": name == "piece"}


async def _pieces(client: Client, error: BaseException | None) -> AsyncIterator[bytes]:
    yield b"Gly"
    await client.go_on.wait()
    if error is not None:
        raise error
    yield b"cine"


async def _fail() -> None:
    raise ValueError("after the last byte")


class HttpService(RuleBasedStateMachine):
    """Clients that ask anything, of applications that do anything."""

    def __init__(self) -> None:
        super().__init__()
        self.exporter = Exporter(HTTP_SETTINGS)
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(lambda *_: None)
        self.applications = Applications(self.exporter)
        self.asked = 0
        self.queries = 0
        self.open: list[Asked] = []

    @rule(
        fastapi=st.booleans(),
        method=METHODS,
        path=PATHS,
        root_path=st.sampled_from(("", "", "/proxy")),
        headers=HEADERS,
        client=st.tuples(BODIES, st.one_of(st.none(), st.integers(0, 5)), st.booleans()),
        plan=PLANS,
        answer=st.tuples(ANSWERS, st.integers(200, 599), ERRORS),
        word=st.one_of(st.just("cache"), WORDS),
    )
    def ask(
        self,
        fastapi: bool,
        method: str,
        path: str,
        root_path: str,
        headers: list[tuple[bytes, bytes]],
        client: tuple[list[bytes], int | None, bool],
        plan: list[Any],
        answer: tuple[str, int, type[BaseException]],
        word: Any,
    ) -> None:
        body, leaves_after, tells = client
        server = Client(body, leaves_after, tells=tells)
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4" if tells else "2.0"},
            "method": method,
            "path": root_path + path,
            "raw_path": b"/",
            "query_string": b"",
            "root_path": root_path,
            "headers": headers,
            "plan": plan,
            "answer": answer[0],
            "status": answer[1],
            "error": answer[2],
            "word": word,
            "client": server,
            "raised": [],
        }
        raised: list[BaseException] = scope["raised"]
        application = self.applications.fastapi if fastapi else self.applications.bare
        task = self.loop.create_task(application(scope, server.receive, server.send))
        is_query = method == "POST" and QUERY_PATHS.fullmatch(path) is not None
        self.asked += 1
        self.queries += is_query
        self.open.append(Asked(server, method, is_query, task))
        self.turn()
        if not fastapi and task.done() and raised and not task.cancelled():
            assert task.exception() is raised[0], "what the application raises is what the server gets"

    @rule(which=WHICH, what=st.sampled_from(("goes on", "leaves", "is cancelled")))
    def happen(self, which: int, what: str) -> None:
        if not self.open:
            return
        asked = self.open[which % len(self.open)]
        if what == "goes on":
            asked.client.go_on.set()
        elif what == "leaves":
            asked.client.gone.set()
        else:
            asked.task.cancel()
        self.turn()

    @rule()
    def scrape(self) -> None:
        books = Books(self.exporter)
        under_way = [asked for asked in self.open if not asked.client.complete]
        active = Counter(
            asked.method if asked.method in KNOWN_HTTP_METHODS else OTHER_HTTP_METHOD for asked in under_way
        )
        for method in (*KNOWN_HTTP_METHODS, OTHER_HTTP_METHOD):
            found = books.total("http_server_active_requests", http_request_method=method)
            assert found == active[method], method
        in_progress = books.total("cmo_queries_in_progress")
        assert in_progress == sum(asked.is_query for asked in under_way)
        self.check(books, in_progress=len(under_way), queries_in_progress=in_progress)

    def teardown(self) -> None:
        for number, asked in enumerate(self.open):
            asked.client.go_on.set()
            if number % 2:
                asked.client.gone.set()
        self.turn()
        for asked in self.open:
            asked.task.cancel()
        self.turn()
        assert not self.open
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        books = Books(self.exporter)
        assert books.total("http_server_active_requests") == 0
        assert books.total("cmo_active_users") == 0
        self.check(books, in_progress=0, queries_in_progress=0)
        self.loop.close()

    def check(self, books: Books, *, in_progress: int, queries_in_progress: float) -> None:
        assert books.total("http_server_request_duration_seconds_count") == self.asked - in_progress
        assert books.total("http_server_time_to_first_byte_seconds_count") <= self.asked - in_progress
        assert books.total("cmo_queries_started_total") == self.queries
        for name in (
            "cmo_queries_total",
            "cmo_query_duration_seconds_count",
            "cmo_query_cache_results_total",
        ):
            assert books.total(name) == self.queries - queries_in_progress, name
        for name in ("cmo_component_calls_total", "cmo_component_duration_seconds_count"):
            assert books.total(name) == self.applications.calls, name
        assert books.total("cmo_component_in_progress") == 0
        assert books.total("cmo_instrumentation_errors_total") == 0
        books.check_values()
        self.check_http_series(books)

    def check_http_series(self, books: Books) -> None:
        durations = books.labels("http_server_request_duration_seconds_count")
        assert len(durations) <= MOST_SERIES + 1
        for labels in durations:
            assert labels["http_request_method"] in (*KNOWN_HTTP_METHODS, OTHER_HTTP_METHOD)
            assert labels["http_route"] in TEMPLATES
            assert labels["http_response_status_code"] in STATUSES
            assert labels["error_type"] in ERROR_TYPES
        routes = [
            labels["http_route"] for labels in books.labels("http_server_time_to_first_byte_seconds_count")
        ]
        assert TEMPLATES.issuperset(routes)
        methods = {labels["http_request_method"] for labels in books.labels("http_server_active_requests")}
        assert methods <= {*KNOWN_HTTP_METHODS, OTHER_HTTP_METHOD}

    def turn(self) -> None:
        """Let the event loop do all that can be done, and see who has ended."""

        async def turns() -> None:
            for _ in range(TURNS):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turns())
        for asked in self.open:
            if asked.task.done():
                with contextlib.suppress(asyncio.CancelledError):
                    asked.task.exception()
        self.open = [asked for asked in self.open if not asked.task.done()]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request takes long at once, so that each is listened to for its user's departure."""
    monkeypatch.setattr("cmo_exporter.departures._TICK_SECONDS", 0)
    monkeypatch.setattr("cmo_exporter.departures._PATIENCE_SECONDS", 0)


TestHttpService = HttpService.TestCase
TestHttpService.settings = hypothesis_settings(
    max_examples=40,
    stateful_step_count=30,
    suppress_health_check=list(HealthCheck),
    # Shrinking a failure takes minutes: add it when there is one to look into.
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
