"""What is written into the journal is posted once and balanced, whoever reads, forks, fails or joins."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from cmo_exporter import Exporter, ExporterSettings, catalogue, instrument_asgi
from cmo_exporter.heartbeat import Heartbeat
from cmo_exporter.http_tallies import ActiveRequests
from cmo_exporter.journal import MOST_WAITING
from cmo_exporter.values import SEQUENCE
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cmo_exporter.catalogue import Metric
    from cmo_exporter.departures import Request
    from cmo_exporter.journal import Journal, Page
    from cmo_exporter.values import Numbers

    Eventually = Callable[[Callable[[], object]], None]

SCENARIOS = ("live", "rush")
OUTCOMES = ("success", "error", "timeout", "rejected", "cancelled")
READS_PER_THREAD = 25


def make(directory: Path | None = None, **settings: Any) -> Exporter:
    return Exporter(ExporterSettings(scenarios=("rush",), shared_directory=directory, **settings))


def value(exporter: Exporter, name: str, **labels: str) -> float:
    return exporter.registry.get_sample_value(name, labels) or 0.0


def answer(exporter: Exporter, times: int = 1) -> None:
    for _ in range(times):
        with exporter.query() as query:
            query.answered("lightrag")


def answered(exporter: Exporter) -> float:
    return value(exporter, "cmo_queries_total", scenario="live", outcome="success")


def failures(exporter: Exporter, metric: Metric) -> float:
    return value(exporter, "cmo_instrumentation_errors_total", metric=metric.name)


def pages(journal: Journal) -> list[Page]:
    return [*journal.query_ends, *journal.request_ends, *journal.beginnings]


def waiting(exporter: Exporter) -> int:
    return sum(len(page.lines) for page in pages(exporter.recorder.journal))


def numbers_of(exporter: Exporter) -> Numbers:
    return exporter.recorder.ledger._values.numbers


class Acting:
    """A page with one line; something happens while it is posted."""

    metric = catalogue.FEEDBACK

    def __init__(self, act: Callable[[], object]) -> None:
        self.lines: list[Any] = [None]
        self._act = act

    def post(self, numbers: Numbers, lines: list[Any]) -> None:  # noqa: ARG002 - as every page
        self._act()


class Books:
    """The counts of one scenario in one read, which balance."""

    def __init__(self, exporter: Exporter, scenario: str) -> None:
        samples = [
            sample
            for family in exporter.registry.collect()
            for sample in family.samples
            if sample.labels.get("scenario") == scenario
        ]

        def total(name: str) -> float:
            return sum(sample.value for sample in samples if sample.name == name)

        self.started = total("cmo_queries_started_total")
        self.in_progress = total("cmo_queries_in_progress")
        self.finished = {
            sample.labels["outcome"]: sample.value for sample in samples if sample.name == "cmo_queries_total"
        }
        assert self.in_progress >= 0, "nothing ends that has not begun"
        assert self.started == sum(self.finished.values()) + self.in_progress
        assert total("cmo_query_duration_seconds_count") == sum(self.finished.values())
        assert total("cmo_query_cache_results_total") == sum(self.finished.values())


@hypothesis_settings(max_examples=50)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(("begin", "finish", "post", "read")),
            st.sampled_from(SCENARIOS),
            st.sampled_from(OUTCOMES),
            st.integers(0, 100),
        ),
        max_size=60,
    )
)
def test_a_read_shows_all_that_was_written_whenever_it_was_posted(
    steps: list[tuple[str, str, str, int]],
) -> None:
    exporter = make()
    begun: dict[str, list[Any]] = {scenario: [] for scenario in SCENARIOS}
    started = dict.fromkeys(SCENARIOS, 0)
    finished = {scenario: dict.fromkeys(OUTCOMES, 0) for scenario in SCENARIOS}
    for what, scenario, outcome, which in [*steps, ("read", "live", "", 0), ("read", "rush", "", 0)]:
        if what == "begin":
            query = exporter.query(scenario)
            query.begin()
            begun[scenario].append(query)
            started[scenario] += 1
        elif what == "finish" and begun[scenario]:
            query = begun[scenario].pop(which % len(begun[scenario]))
            query.concluded(outcome)
            query.finish()
            finished[scenario][outcome] += 1
        elif what == "post":
            exporter.recorder.journal.post()
            assert waiting(exporter) == 0
        elif what == "read":
            books = Books(exporter, scenario)
            assert books.started == started[scenario]
            assert books.finished == finished[scenario]


def again(enough: threading.Event, act: Callable[[], object], times: list[int]) -> None:
    """Do it again and again, and note how many times it was."""
    number = 0
    while not enough.is_set():
        act()
        number += 1
    times.append(number)


@pytest.fixture
def impatient_threads() -> Iterator[None]:
    """Threads take turns so often that they meet in the middle of everything."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("impatient_threads")
def test_every_read_of_many_threads_balances_and_nothing_is_lost_or_counted_twice() -> None:
    exporter = make()
    enough = threading.Event()
    asked: list[int] = []
    posted: list[int] = []
    unbalanced: list[BaseException] = []

    def read() -> None:
        try:
            for _ in range(READS_PER_THREAD):
                Books(exporter, "live")
        except AssertionError as error:
            unbalanced.append(error)

    reading = [threading.Thread(target=read) for _ in range(2)]
    asking = (enough, lambda: answer(exporter), asked)
    posting = (enough, exporter.recorder.journal.post, posted)
    others = [threading.Thread(target=again, args=args) for args in (asking, asking, asking, posting)]
    for thread in (*others, *reading):
        thread.start()
    for thread in reading:
        thread.join()
    enough.set()
    for thread in others:
        thread.join()
    assert not unbalanced
    books = Books(exporter, "live")
    assert books.finished["success"] == books.started == sum(asked)
    assert waiting(exporter) == 0


def test_a_query_that_passes_while_lines_are_posted_is_not_seen_to_end_before_it_begins() -> None:
    exporter = make()
    answer(exporter)  # the page of its end is there
    journal, book = exporter.recorder.journal, exporter.recorder.ledger.scenario("live")
    journal.request_ends.append(Acting(lambda: answer(exporter)))
    journal.post()
    assert numbers_of(exporter)[book.in_progress] == 1, "it has begun, and its end is posted next time"
    assert answered(exporter) == 2
    assert numbers_of(exporter)[book.in_progress] == 0


def test_whoever_posts_in_the_middle_of_a_post_changes_nothing() -> None:
    """A signal's handler or a finaliser may do so: it runs in the thread that has the lock."""
    exporter = make()
    journal = exporter.recorder.journal
    answer(exporter)
    seen: list[float] = []

    class Interrupted(list[Any]):
        """Lines that have just been read when somebody else posts."""

        def __getitem__(self, key: Any) -> Any:
            found = super().__getitem__(key)
            journal.post()
            seen.append(numbers_of(exporter)[SEQUENCE] % 2)
            return found

    for page in pages(journal):
        page.lines = Interrupted(page.lines)
    books = Books(exporter, "live")
    assert books.started == books.finished["success"] == 1
    assert seen
    assert set(seen) == {1.0}, "a reader of another process would take the middle for the end"


@pytest.mark.parametrize("kind", ["query_ends", "request_ends", "beginnings"])
def test_a_page_that_cannot_be_posted_loses_its_own_lines_alone(kind: str) -> None:
    exporter = make()

    def fail() -> None:
        raise RuntimeError("does my patient have phenylketonuria")

    broken = Acting(fail)
    getattr(exporter.recorder.journal, kind).insert(0, broken)
    answer(exporter, 3)
    for number_of_failures in (1, 2):
        assert Books(exporter, "live").finished["success"] == 3
        assert failures(exporter, broken.metric) == number_of_failures
        assert not broken.lines
        broken.lines.append(None)


def test_active_requests_that_cannot_be_counted_cost_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = make()

    def fail(*_: object) -> None:
        raise RuntimeError("does my patient have phenylketonuria")

    monkeypatch.setattr(ActiveRequests, "post", fail)
    ActiveRequests(exporter.recorder, {})
    answer(exporter, 3)
    assert Books(exporter, "live").finished["success"] == 3
    assert failures(exporter, ActiveRequests.metric) > 0


class Waiting:
    """A request that waits."""

    def __init__(self, method: object) -> None:
        self.method = method

    def overdue(self) -> None:
        """Nobody is told."""


def active(exporter: Exporter, method: str) -> float:
    return value(exporter, "http_server_active_requests", http_request_method=method)


def test_active_requests_of_all_event_loops_are_added_up_until_the_loop_is_closed() -> None:
    exporter = make()
    here: dict[Request, float] = {Waiting("GET"): 0.0, Waiting("GET"): 0.0, Waiting("POST"): 0.0}
    there: dict[Request, float] = {Waiting("GET"): 0.0, Waiting("BREW"): 0.0, Waiting(["GET"]): 0.0}
    ActiveRequests(exporter.recorder, here)
    closing = ActiveRequests(exporter.recorder, there)
    assert [active(exporter, method) for method in ("GET", "POST", "_OTHER")] == [3, 1, 2]
    closing.close()
    assert [active(exporter, method) for method in ("GET", "POST", "_OTHER")] == [2, 1, 0]
    assert len(exporter.recorder.journal.active) == 1, "what is closed is not asked any more"
    here.clear()
    assert [active(exporter, method) for method in ("GET", "POST", "_OTHER")] == [0, 0, 0]


def test_requests_of_the_parent_are_not_active_in_a_child() -> None:
    exporter = make()
    requests: dict[Request, float] = {Waiting("GET"): 0.0}
    ActiveRequests(exporter.recorder, requests)
    assert active(exporter, "GET") == 1
    exporter._after_fork()
    assert active(exporter, "GET") == 0
    requests[Waiting("GET")] = 0.0
    assert active(exporter, "GET") == 1


EDGES = catalogue.QUERY_DURATION.buckets


@given(
    st.lists(
        st.sampled_from(EDGES)
        | st.sampled_from(EDGES).map(lambda edge: math.nextafter(edge, math.inf))
        | st.floats(0, 2 * EDGES[-1])
    )
)
def test_values_that_are_counted_together_go_where_each_would_go_alone(values: list[float]) -> None:
    exporter = make()
    together, alone = (exporter.recorder.instruments.duration.child(name, "success") for name in SCENARIOS)
    numbers = numbers_of(exporter)
    together.add(numbers, values)
    for one in values:
        alone.observe(one)
    places = len(EDGES) + 1
    assert numbers[together.slot : together.slot + places] == numbers[alone.slot : alone.slot + places]
    assert numbers[together.slot + places] == pytest.approx(numbers[alone.slot + places])


def test_a_failure_is_said_when_the_change_is_over() -> None:
    """The log's handlers are the service's: they may take long, and read the metrics of a worker."""
    exporter = make()

    def fail() -> None:
        raise RuntimeError

    class Handler(logging.Handler):
        def emit(self, _record: logging.LogRecord) -> None:
            seen.append(numbers_of(exporter)[SEQUENCE] % 2)

    seen: list[float] = []
    exporter.recorder.journal.query_ends.append(Acting(fail))
    log, handler = logging.getLogger("cmo_exporter"), Handler()
    log.addHandler(handler)
    try:
        exporter.recorder.journal.post()
    finally:
        log.removeHandler(handler)
    assert seen == [0.0]


def in_a_fork(act: Callable[[], bool]) -> bool:
    """What the function says in a forked child."""
    child = os.fork()
    if not child:
        says = False
        try:
            says = act()
        finally:
            os._exit(0 if says else 1)
    return os.waitpid(child, 0)[1] == 0


def test_lines_that_wait_are_those_of_the_parent_and_not_of_its_child() -> None:
    parent = make()
    answer(parent, 3)
    under_way = parent.query()
    under_way.begin()
    before = waiting(parent)
    assert before

    def child() -> bool:
        under_way.finish()
        answer(parent)
        books = Books(parent, "live")
        return (books.started, books.finished["success"], books.in_progress) == (1, 1, 0)

    assert in_a_fork(child)
    assert waiting(parent) == before
    under_way.answered("cache")
    under_way.finish()
    books = Books(parent, "live")
    assert (books.started, books.finished["success"]) == (4, 4)


@pytest.fixture
def without_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is posted but for what a test does."""
    monkeypatch.setattr(Heartbeat, "_run", lambda _: None)


@pytest.mark.usefixtures("without_heartbeat")
def test_a_child_leaves_the_shared_numbers_of_its_parent_alone(tmp_path: Path) -> None:
    with make(tmp_path / "shared") as parent:
        answer(parent)
        before = list(numbers_of(parent))
        assert in_a_fork(lambda: not waiting(parent))
        assert list(numbers_of(parent)) == before, "to touch SEQUENCE beside the parent spoils it for good"
        assert answered(parent) == 1


def test_a_child_of_a_thread_that_is_posting_can_post() -> None:
    parent = make()
    said: list[bool] = []

    def child() -> bool:
        answer(parent)
        return answered(parent) == 1

    parent.recorder.journal.query_ends.append(Acting(lambda: said.append(in_a_fork(child))))
    parent.recorder.journal.post()
    assert said == [True]


def test_lines_do_not_pile_up_where_nothing_is_started_and_nobody_reads() -> None:
    exporter = make()
    most = 0
    for number in range(10_000):
        with exporter.query(SCENARIOS[number % 2]) as query:
            query.concluded(OUTCOMES[number % len(OUTCOMES)])
        most = max(most, waiting(exporter))
    assert most <= 2 * len(SCENARIOS) * MOST_WAITING
    assert sum(Books(exporter, scenario).started for scenario in SCENARIOS) == 10_000


@pytest.mark.usefixtures("without_heartbeat")
def test_going_into_shared_storage_and_out_of_it_loses_no_line(tmp_path: Path) -> None:
    directory = tmp_path / "shared"
    with make(directory) as stays:
        comes = make(directory)
        answer(comes, 3)
        query = comes.query("rush")
        query.begin()
        comes.start()
        try:
            assert answered(stays) == 3
            assert Books(stays, "rush").in_progress == 1
            answer(comes, 2)
            query.concluded("success")
            query.finish()
        finally:
            comes.close()
        assert answered(stays) == 5
        assert Books(stays, "rush").finished["success"] == 1
        assert waiting(comes) == 0


def test_what_a_worker_writes_down_is_seen_by_others_without_a_read_or_a_request(
    tmp_path: Path, eventually: Eventually
) -> None:
    with make(tmp_path / "shared") as one, make(tmp_path / "shared") as other:
        answer(other, 3)
        query = other.query("rush")
        query.begin()
        eventually(lambda: answered(one) == 3 and Books(one, "rush").in_progress == 1)
        query.finish()
        eventually(lambda: Books(one, "rush").finished["error"] == 1)


def test_a_blocked_loop_does_not_hide_what_it_had_begun(tmp_path: Path, eventually: Eventually) -> None:
    thaw = threading.Event()

    async def blocks(_scope: Any, _receive: Any, send: Any) -> None:
        thaw.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"sugar"})

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(_: Any) -> None:
        return

    def active() -> float:
        return value(one, "http_server_active_requests", http_request_method="POST")

    with make(tmp_path / "shared") as one, make(tmp_path / "shared") as other:
        app = instrument_asgi(blocks, other)
        scope = {"type": "http", "method": "POST", "path": "/query", "headers": []}

        async def ask() -> None:
            await app(scope, receive, send)

        loop = threading.Thread(target=asyncio.run, args=(ask(),))
        loop.start()
        try:
            eventually(lambda: Books(one, "live").in_progress == 1 and active() == 1)
        finally:
            thaw.set()
            loop.join()
        eventually(lambda: sum(Books(one, "live").finished.values()) == 1 and active() == 0)
