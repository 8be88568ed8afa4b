"""Event loops seen from outside, the collector's pauses, and what the system says of the process."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import multiprocessing
import os
import re
import resource
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import requests
from cmo_exporter import Exporter, ExporterSettings, instrument_fastapi, loop_watch, process_health
from cmo_exporter.gc_pauses import GcPauses
from cmo_exporter.process_health import count_open_files, list_open_files
from cmo_exporter.stuck_stack import where_stuck
from fastapi import FastAPI

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    Eventually = Callable[[Callable[[], object]], None]
    Serve = Callable[[Any], AbstractContextManager[int]]

WAIT = 60
MEBIBYTE = 1 << 20
BLOCKED_AFTER = 0.3
SECRET = "does my patient have gout"


@pytest.fixture
def watching() -> Iterator[Exporter]:
    """An exporter that looks often."""
    settings = ExporterSettings(loop_lag_interval_seconds=0.02, loop_blocked_after_seconds=BLOCKED_AFTER)
    with Exporter(settings) as exporter:
        yield exporter


@pytest.fixture
def silent_server() -> Iterator[tuple[str, threading.Event]]:
    """A server that takes a request and does not answer until it is told to, as a provider under load."""
    speak = threading.Event()

    def answer(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    speak.wait(WAIT)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer, args=(listener,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/chat", speak
        finally:
            speak.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(WAIT)
    assert not thread.is_alive()


def scraped(exporter: Exporter, name: str) -> float:
    """The value of one series, over the real port."""
    with requests.get(exporter.metrics_url, timeout=WAIT) as answer:
        found = re.search(rf"^{re.escape(name)} (\S+)$", answer.text, re.MULTILINE)
    assert found, name
    return float(found[1])


def value(exporter: Exporter, name: str, **labels: str) -> float:
    found = exporter.registry.get_sample_value(name, {"worker": "0", **labels})
    assert found is not None, (name, labels)
    return found


def blocked(exporter: Exporter) -> float:
    return scraped(exporter, 'cmo_event_loop_blocked_seconds{worker="0"}')


def lags(exporter: Exporter) -> float:
    found = exporter.registry.get_sample_value("cmo_event_loop_lag_seconds_count")
    assert found is not None
    return found


async def until_seen(exporter: Exporter) -> None:
    """Let the loop run until it has been seen to answer twice."""
    before = lags(exporter)
    while lags(exporter) < before + 2:  # noqa: ASYNC110 - another thread counts
        await asyncio.sleep(0.01)


def tasks(exporter: Exporter) -> list[float]:
    return [value(exporter, "cmo_asyncio_tasks", loop=loop) for loop in "0123"]


def errors(exporter: Exporter) -> float:
    return sum(
        sample.value
        for family in exporter.registry.collect()
        for sample in family.samples
        if sample.name == "cmo_instrumentation_errors_total"
    )


class Loop:
    """An event loop in a thread of its own, which the exporter is told of."""

    def __init__(self, exporter: Exporter) -> None:
        self.exporter = exporter
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.call_soon(self.exporter.watch_running_loop)
        self.loop.run_forever()

    def call(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def __enter__(self) -> Loop:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.loop.close()

    def stop(self) -> None:
        def leave() -> None:
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.loop.call_soon(self.loop.stop)

        self.loop.call_soon_threadsafe(leave)
        self.thread.join(WAIT)
        assert not self.thread.is_alive()


@pytest.mark.parametrize("call", ["requests.post", "time.sleep"])
def test_a_blocked_loop_is_shown_while_it_is_blocked(
    call: str,
    watching: Exporter,
    serve: Serve,
    silent_server: tuple[str, threading.Event],
    eventually: Eventually,
    caplog: pytest.LogCaptureFixture,
) -> None:
    url, speak = silent_server
    app = FastAPI()
    instrument_fastapi(app, watching)

    async def ask_the_provider(question: str) -> str:
        if call == "requests.post":
            requests.post(url, json={"question": question}, timeout=WAIT)  # noqa: ASYNC210 - as the CMO does
        else:
            while not speak.is_set():
                time.sleep(0.01)  # noqa: ASYNC251 - likewise
        return question

    @app.get("/ask")
    async def ask(question: str) -> str:
        return await ask_the_provider(question)

    @app.get("/quick")
    async def quick() -> str:
        return "quick"

    with caplog.at_level(logging.WARNING, logger="cmo_exporter"), serve(app) as port:
        assert httpx.get(f"http://127.0.0.1:{port}/quick", timeout=WAIT).status_code == 200
        assert blocked(watching) == 0
        asking = threading.Thread(
            target=httpx.get,
            args=(f"http://127.0.0.1:{port}/ask",),
            kwargs={"params": {"question": SECRET}, "timeout": WAIT},
        )
        asking.start()
        eventually(lambda: blocked(watching) >= BLOCKED_AFTER)
        first = blocked(watching)
        eventually(lambda: blocked(watching) > first + 0.2)
        eventually(lambda: caplog.records)
        longest = blocked(watching)
        speak.set()
        eventually(lambda: blocked(watching) == 0)
        asking.join(WAIT)
        eventually(lambda: len(caplog.records) == 2)
        assert scraped(watching, "cmo_event_loop_lag_seconds_sum") >= longest
    stuck, over = (record.getMessage() for record in caplog.records)
    here = r"tests/exporter/test_process_health\.py:\d+"
    assert re.search(f"{here} ask_the_provider < {here} ask < ", stuck), stuck
    assert ("requests/adapters.py" in stuck) == (call == "requests.post")
    assert re.fullmatch(r"The event loop of worker 0 answers again, after \d+\.\d s\.", over)
    assert "gout" not in caplog.text
    assert "\n" not in stuck


def test_many_blocks_are_reported_once(
    watching: Exporter, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    go_on = threading.Event()

    async def block() -> None:
        go_on.wait(WAIT)

    with caplog.at_level(logging.WARNING, logger="cmo_exporter"), Loop(watching) as loop:
        for _ in range(3):
            go_on.clear()
            loop.call(block())
            eventually(lambda: blocked(watching) > BLOCKED_AFTER + 0.1)
            go_on.set()
            eventually(lambda: blocked(watching) == 0)
    assert [record.getMessage().partition(", ")[0] for record in caplog.records][1:] == [
        "The event loop of worker 0 answers again"
    ]


def test_a_blocked_loop_does_not_hide_the_others(watching: Exporter, eventually: Eventually) -> None:
    go_on = threading.Event()

    async def block() -> None:
        go_on.wait(WAIT)

    async def work(number: int) -> None:
        await asyncio.sleep(WAIT * number)

    with Loop(watching) as one, Loop(watching) as other:
        eventually(lambda: len(watching._loops._watched) == 2)
        one.call(block())
        eventually(lambda: blocked(watching) >= BLOCKED_AFTER)
        seen = lags(watching)
        for number in range(1, 6):
            other.call(work(number))
        eventually(lambda: lags(watching) >= seen + 5)
        eventually(lambda: 5 in tasks(watching))
        assert blocked(watching) >= BLOCKED_AFTER
        go_on.set()
        eventually(lambda: blocked(watching) == 0)
        eventually(lambda: tasks(watching) in ([5, 0, 0, 0], [0, 5, 0, 0]))
    assert errors(watching) == 0


def test_loops_that_close_make_room_for_others(watching: Exporter, eventually: Eventually) -> None:
    async def wait() -> None:
        await asyncio.sleep(WAIT)

    for _ in range(2):
        with contextlib.ExitStack() as stack:
            loops = [stack.enter_context(Loop(watching)) for _ in range(6)]
            for loop in loops:
                loop.call(wait())
            eventually(lambda: tasks(watching) == [1, 1, 1, 1])
            eventually(lambda: value(watching, "cmo_asyncio_tasks", loop="_other") == 2)
        eventually(lambda: not watching._loops._watched)
        eventually(lambda: tasks(watching) == [0, 0, 0, 0])
        assert value(watching, "cmo_asyncio_tasks", loop="_other") == 0
    assert watching._loops.newest is None
    assert errors(watching) == 0


def test_a_loop_that_is_stopped_is_not_blocked(watching: Exporter, eventually: Eventually) -> None:
    loop = asyncio.new_event_loop()

    async def for_a_while() -> None:
        watching.watch_running_loop()
        await until_seen(watching)

    def stop_while_an_answer_is_owed() -> None:
        (watched,) = watching._loops._watched
        eventually(lambda: watched.probe is not None and watched.probe.ran_at is None)
        loop.stop()

    with contextlib.closing(loop):
        loop.run_until_complete(for_a_while())
        loop.call_soon(stop_while_an_answer_is_owed)
        loop.run_forever()
        began = time.monotonic()
        eventually(lambda: time.monotonic() > began + 2 * BLOCKED_AFTER)
        assert blocked(watching) == 0
        seen = lags(watching)
        loop.run_until_complete(for_a_while())
        assert lags(watching) > seen, "it is watched again when it runs again"
        with watching._loops._lock:
            assert len(watching._loops._watched) == 1


def test_a_block_right_before_the_loop_ends_is_recorded(watching: Exporter, eventually: Eventually) -> None:
    async def main() -> None:
        watching.watch_running_loop()
        await until_seen(watching)
        time.sleep(BLOCKED_AFTER)  # noqa: ASYNC251 - the point of it

    asyncio.run(main())
    eventually(lambda: not watching._loops._watched)
    total = watching.registry.get_sample_value("cmo_event_loop_lag_seconds_sum")
    assert total is not None
    assert total > BLOCKED_AFTER / 2


def test_no_more_than_so_many_loops_are_watched(
    watching: Exporter, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    monkeypatch.setattr(loop_watch, "_MOST_LOOPS", 2)
    dropped = {"metric": "cmo_asyncio_tasks"}
    with Loop(watching), Loop(watching), Loop(watching):
        eventually(lambda: watching.registry.get_sample_value("cmo_series_dropped_total", dropped) == 1)
        assert len(watching._loops._watched) == 2


def test_tasks_are_counted_while_other_loops_make_and_end_many(
    watching: Exporter, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Going through asyncio's set of tasks from another thread fails sooner or later; the count must not."""
    stop = threading.Event()
    counted: set[tuple[asyncio.AbstractEventLoop, int | None]] = set()
    all_tasks = asyncio.all_tasks

    def noting(loop: asyncio.AbstractEventLoop) -> set[asyncio.Task[Any]]:
        counted.add((loop, threading.get_ident()))
        return all_tasks(loop)

    monkeypatch.setattr(asyncio, "all_tasks", noting)

    async def nothing() -> None:
        await asyncio.sleep(0)

    async def churn() -> None:
        while not stop.is_set():
            await asyncio.gather(*(nothing() for _ in range(50)))

    async def stay() -> None:
        await asyncio.sleep(WAIT)

    with Loop(watching) as busy, Loop(watching) as calm:
        busy.call(churn())
        for _ in range(7):
            calm.call(stay())
        seen = lags(watching)
        eventually(lambda: 7 in tasks(watching) and lags(watching) > seen + 40)
        eventually(lambda: 51 in tasks(watching))
        stop.set()
        counted.clear()
        eventually(lambda: len(counted) == 2)
        assert counted == {(one.loop, one.thread.ident) for one in (busy, calm)}, "each in its own thread"
    assert errors(watching) == 0


def test_counting_tasks_takes_a_thousandth_of_the_time_at_most(watching: Exporter) -> None:
    async def many() -> float:
        loop = asyncio.get_running_loop()
        waiting = [asyncio.ensure_future(asyncio.sleep(WAIT)) for _ in range(5_000)]
        watched = loop_watch._WatchedLoop(loop, "0", threading.get_ident())
        now = time.monotonic()
        watched.count_tasks(now)
        assert watched.tasks == 5_001
        waiting.pop().cancel()
        await asyncio.sleep(0)
        watched.count_tasks(now + 0.02)
        assert watched.tasks == 5_001, "too soon to count again"
        for task in waiting:
            task.cancel()
        return watched._count_from - now

    assert asyncio.run(many()) > 0.02


def test_pauses_are_counted_by_generation(exporter: Exporter) -> None:
    def counted() -> list[float]:
        found = [
            exporter.registry.get_sample_value("cmo_gc_pause_seconds_count", {"generation": generation})
            for generation in "012"
        ]
        return [one or 0.0 for one in found]

    before = counted()
    for _ in range(3):
        gc.collect(0)
        gc.collect(2)
    after = counted()
    assert after[0] >= before[0] + 3
    assert after[2] >= before[2] + 3
    total = exporter.registry.get_sample_value("cmo_gc_pause_seconds_sum", {"generation": "2"})
    assert total is not None
    assert total > 0


def test_pauses_are_measured_and_bounded() -> None:
    times = iter([1.0, 1.5, 2.0, 2.25])
    pauses = GcPauses(clock=lambda: next(times))
    pauses._heard("stop", {"generation": 0})  # the end of one that had begun before
    for generation in (0, 2):
        pauses._heard("start", {"generation": generation})
        pauses._heard("stop", {"generation": generation})
    assert list(pauses.drain()) == [("0", 0.5), ("2", 0.25)]
    assert list(pauses.drain()) == []
    unread = GcPauses()
    for _ in range(20_000):
        unread._heard("start", {"generation": 0})
        unread._heard("stop", {"generation": 0})
    assert len(list(unread.drain())) == 10_000


def test_a_collection_in_the_middle_of_anything_does_no_harm(settings: ExporterSettings) -> None:
    """With a collection at nearly every allocation, one falls inside every lock that is held."""
    threshold = gc.get_threshold()
    with Exporter(settings) as exporter:

        def record() -> None:
            for number in range(40):
                with exporter.query("clinical_rush", f"u{number}") as query, query.component("lightrag"):
                    query.answered("lightrag")

        def scrape() -> None:
            for _ in range(2):
                list(exporter.registry.collect())

        threads = [threading.Thread(target=work, daemon=True) for work in (record, scrape, record)]
        gc.freeze()  # so that each collection has little to look at
        gc.set_threshold(1, 1_000_000, 1_000_000)
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(WAIT)
        finally:
            gc.set_threshold(*threshold)
            gc.unfreeze()
        assert not any(thread.is_alive() for thread in threads), "a lock is held for ever"
        assert errors(exporter) == 0


def test_closing_leaves_no_callback_behind(settings: ExporterSettings) -> None:
    before = list(gc.callbacks)
    exporter = Exporter(settings)
    assert gc.callbacks == before, "an exporter that is not started costs nothing"
    for _ in range(2):
        exporter.start()
        exporter.start()
        assert len(gc.callbacks) == len(before) + 1
        exporter.close()
        assert gc.callbacks == before
    exporter.start()
    gc.callbacks.clear()  # somebody else tidies up
    exporter.close()
    gc.callbacks.extend(before)


def test_a_forked_child_begins_anew(exporter: Exporter) -> None:
    """It is forked while locks are held, and while a connection to its parent's port is open."""
    here, there = multiprocessing.Pipe()
    address = ("127.0.0.1", int(exporter.metrics_url.rpartition(":")[2].partition("/")[0]))

    def child() -> None:
        callbacks = len(gc.callbacks)
        exporter._health.publish("0")
        exporter._loops.watch(asyncio.new_event_loop())
        highest = value(exporter, "cmo_memory_high_water_bytes", kind="rss")
        exporter.start()
        blocked(exporter)  # it has a port of its own
        there.send((callbacks, len(gc.callbacks), highest))
        there.recv()
        os._exit(0)

    exporter._health._highest["rss"] = 1e15
    callbacks = len(gc.callbacks)
    process = multiprocessing.get_context("fork").Process(target=child)
    with socket.create_connection(address, WAIT) as connection:
        server: Any = exporter._server
        while not server._server.connections._open:
            time.sleep(0.01)
        with exporter._health._lock, exporter._loops._lock, server._server.connections._lock:
            process.start()
        try:
            assert here.poll(WAIT), "the child hangs"
            in_child, started, highest = here.recv()
            connection.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            while connection.recv(65536):
                pass  # until the end, which comes only when the child has not kept the connection
        finally:
            with contextlib.suppress(OSError):
                here.send("done")
            process.join(WAIT)
            process.kill()
    assert (in_child, started) == (callbacks - 1, callbacks)
    assert 0 < highest < 1e15


def test_processor_time_is_that_of_the_process(exporter: Exporter, eventually: Eventually) -> None:
    def user() -> float:
        return value(exporter, "cmo_process_cpu_seconds_total", mode="user")

    first = user()
    eventually(lambda: sum(range(100_000)) and user() > first + 0.1)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    assert first < user() <= resource.getrusage(resource.RUSAGE_SELF).ru_utime + 1e-6
    system = value(exporter, "cmo_process_cpu_seconds_total", mode="system")
    assert system == pytest.approx(usage.ru_stime, abs=1.0)


def test_files_and_threads_are_counted(exporter: Exporter, eventually: Eventually) -> None:
    def open_files() -> float:
        return value(exporter, "cmo_process_open_files")

    before = open_files()
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(socket.socket())
        assert open_files() >= before + 15
        # The exporter's own threads open a file now and then, maybe between the two.
        eventually(lambda: count_open_files() == list_open_files())
    assert open_files() <= before + 5
    assert value(exporter, "cmo_process_max_files") == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    wait = threading.Event()
    threads = [threading.Thread(target=wait.wait) for _ in range(9)]
    quiet = value(exporter, "cmo_process_threads")
    for thread in threads:
        thread.start()
    assert value(exporter, "cmo_process_threads") >= quiet + 9
    wait.set()
    for thread in threads:
        thread.join(WAIT)


def test_high_water_marks_stay_when_the_water_falls(exporter: Exporter) -> None:
    def mark(kind: str) -> float:
        exporter.recorder.ledger.proportional._read_from = 0.0  # read it now
        return value(exporter, "cmo_memory_high_water_bytes", kind=kind)

    base = {kind: mark(kind) for kind in ("rss", "pss")}
    now = value(exporter, "cmo_memory_bytes", kind="rss")
    missing = max(0, int(base["rss"] - now))  # other tests may have had more
    ballast = bytearray(b"x") * (missing + 64 * MEBIBYTE)
    high = {kind: mark(kind) for kind in ("rss", "pss")}
    assert all(high[kind] >= base[kind] + 32 * MEBIBYTE for kind in high)
    del ballast
    assert all(mark(kind) >= high[kind] for kind in high)


def test_what_only_the_process_knows_is_written_without_a_scrape(
    watching: Exporter, eventually: Eventually
) -> None:
    """Another worker's process may be the one that is scraped."""
    go_on = threading.Event()
    instruments = watching.recorder.instruments

    async def block() -> None:
        go_on.wait(WAIT)

    def written(family: Any) -> float:
        """The largest number that the family has in the block that other workers read."""
        numbers, series = instruments.values.copy(), instruments.values.series
        mine = [one for one in series if one.metric == family.metric.name]
        return max((max(numbers[one.base : one.base + one.width]) for one in mine), default=0.0)

    with Loop(watching) as loop:
        loop.call(block())
        eventually(lambda: written(instruments.event_loop_blocked) > BLOCKED_AFTER)
        go_on.set()
        eventually(lambda: written(instruments.event_loop_blocked) == 0)
    gc.collect()
    families = (instruments.gc_pause, instruments.cpu_seconds, instruments.open_files, instruments.threads)
    eventually(lambda: all(written(family) > 0 for family in families))
    eventually(lambda: written(instruments.memory_high_water) > MEBIBYTE)


def test_what_the_system_does_not_say_is_absent(
    settings: ExporterSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("_STATUS", "_OPEN_FILES"):
        monkeypatch.setattr(process_health, name, str(tmp_path / "no" / "proc"))
    exporter = Exporter(settings)
    for name in ("cmo_process_open_files", "cmo_process_threads"):
        assert exporter.registry.get_sample_value(name, {"worker": "0"}) is None
    rss = {"worker": "0", "kind": "rss"}
    assert exporter.registry.get_sample_value("cmo_memory_high_water_bytes", rss) is None
    assert value(exporter, "cmo_process_cpu_seconds_total", mode="user") > 0
    assert errors(exporter) == 0


def test_the_stack_says_places_and_nothing_else() -> None:
    go_on, started = threading.Event(), threading.Event()
    long = f"/srv/{SECRET}/" + "x" * 500 + ".py"
    scope: dict[str, Any] = {"started": started, "go_on": go_on}
    inner = "def inner(question):\n    started.set()\n    go_on.wait(60)"
    # File names as hostile as they can be.
    exec(compile(inner, long, "exec"), scope)  # noqa: S102
    exec(compile("def outer(): inner('gout')", "a\n\x1b.py", "exec"), scope)  # noqa: S102

    def deep(levels: int) -> None:
        if levels:
            deep(levels - 1)
        else:
            scope["outer"]()

    thread = threading.Thread(target=deep, args=(50,))
    thread.start()
    started.wait(WAIT)
    places = where_stuck(thread.ident or 0).split(" < ")
    go_on.set()
    thread.join(WAIT)
    assert places[-1] == "…"
    assert len(places) == 21
    assert not any("\n" in place or "gout" in place for place in places)
    assert any(re.fullmatch(r"…x{57}\.py:3 inner", place) for place in places), places
    assert "a??.py:1 outer" in places
    assert places[-2].startswith("tests/exporter/test_process_health.py:")
    assert where_stuck(-1) == "a thread that Python does not know"
