"""Event loops seen from outside: whether they are blocked, and where; their lag and their tasks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import requests
from cmo_exporter import Exporter, instrument_fastapi, loop_watch
from cmo_exporter.stuck_stack import where_stuck
from fastapi import FastAPI

from .series import blocked, errors, scraped, value
from .watched_loop import BLOCKED_AFTER, INTERVAL, Loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    Eventually = Callable[[Callable[[], object]], None]
    Serve = Callable[[Any], AbstractContextManager[int]]

WAIT = 60
SECRET = "does my patient have gout"


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
    here = r"tests/exporter/test_loop_watch\.py:\d+"
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


def test_a_block_is_recorded_as_the_lags_of_all_callbacks_that_were_due_in_it(
    watching: Exporter, eventually: Eventually
) -> None:
    def shown() -> dict[str, float]:
        """How many lags are recorded up to each edge of a bucket, and in all, and their sum."""
        return {
            sample.labels.get("le", sample.name): sample.value
            for family in watching.registry.collect()
            if family.name == "cmo_event_loop_lag_seconds"
            for sample in family.samples
        }

    async def block() -> None:
        watching.watch_running_loop()
        await until_seen(watching)
        (watched,) = watching._loops._watched
        eventually(lambda: watched.probe is not None and watched.probe.ran_at is None)
        probe, before = watched.probe, shown()
        assert probe is not None
        eventually(lambda: time.monotonic() >= probe.asked + BLOCKED_AFTER)
        at_least = time.monotonic() - probe.asked
        while probe.ran_at is None:  # noqa: ASYNC110 - it runs as soon as this coroutine lets it
            await asyncio.sleep(0)
        at_most = time.monotonic() - probe.asked
        eventually(lambda: watched.probe not in (None, probe))  # by then all of it is recorded
        recorded = {name: number - before[name] for name, number in shown().items()}
        lag = probe.ran_at - probe.asked
        assert at_least <= lag <= at_most
        late = [lag - number * INTERVAL for number in range(1001) if lag >= number * INTERVAL]
        name = "cmo_event_loop_lag_seconds"
        assert recorded.pop(f"{name}_sum") == pytest.approx(sum(late))
        assert recorded.pop(f"{name}_count") == len(late) > BLOCKED_AFTER / INTERVAL
        assert recorded == {edge: sum(one <= float(edge) for one in late) for edge in recorded}

    asyncio.run(block())


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
    assert places[-2].startswith("tests/exporter/test_loop_watch.py:")
    assert where_stuck(-1) == "a thread that Python does not know"
