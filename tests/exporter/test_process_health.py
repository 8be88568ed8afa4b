"""The collector's pauses, and what the system says of the process."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing
import os
import resource
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

from cmo_exporter import Exporter, ExporterSettings, process_health
from cmo_exporter.gc_pauses import GcPauses
from cmo_exporter.process_health import count_open_files, list_open_files

from .series import blocked, errors, value
from .watched_loop import BLOCKED_AFTER, Loop

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

    Eventually = Callable[[Callable[[], object]], None]

WAIT = 60
MEBIBYTE = 1 << 20


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
    def used() -> resource.struct_rusage:
        return resource.getrusage(resource.RUSAGE_SELF)

    first = used()
    eventually(lambda: sum(range(100_000)) and used().ru_utime > first.ru_utime + 0.1)
    eventually(lambda: os.urandom(MEBIBYTE) and used().ru_stime > first.ru_stime + 0.1)
    before = used()
    user, system = (
        value(exporter, "cmo_process_cpu_seconds_total", mode=mode) for mode in ("user", "system")
    )
    after = used()
    assert before.ru_utime <= user <= after.ru_utime
    assert before.ru_stime <= system <= after.ru_stime


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


def test_a_high_water_that_fell_before_anybody_looked_is_shown(settings: ExporterSettings) -> None:
    exporter = Exporter(settings)  # not started: it reads when it is scraped, and at no other time

    def mark() -> float:
        return value(exporter, "cmo_memory_high_water_bytes", kind="rss")

    base = mark()
    now = value(exporter, "cmo_memory_bytes", kind="rss")
    missing = max(0, int(base - now))  # other tests may have had more
    ballast = bytearray(b"x") * (missing + 64 * MEBIBYTE)
    del ballast
    assert mark() >= base + 32 * MEBIBYTE


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
