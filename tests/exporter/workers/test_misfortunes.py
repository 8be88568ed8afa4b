"""The shared directory is taken away or damaged, workers fork and are killed, or stop and start again."""

from __future__ import annotations

import itertools
import os
import random
import resource
import shutil
import signal
import threading
import time
from typing import TYPE_CHECKING

import httpx
import pytest
from cmo_exporter import Exporter, ExporterSettings, SharedDirectoryError, membership
from cmo_exporter.errors import HeldTableError
from cmo_exporter.sessions import FileLock, Sessions, table_bytes
from cmo_exporter.values import BLOCK_BYTES, INDEX_LENGTH
from cmo_stack.free_ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path


def make(directory: Path, **settings: object) -> Exporter:
    return Exporter(
        ExporterSettings(components=("llm",), shared_directory=directory, **settings)  # type: ignore[arg-type]  # each test its own
    )


def value(exporter: Exporter, name: str, **labels: str) -> float | None:
    return exporter.registry.get_sample_value(name, labels)


def does_not_wait(enter: Callable[[], AbstractContextManager[object]]) -> None:
    def run() -> None:
        with enter():
            pass

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()


def test_a_directory_that_is_taken_away_fails_scrapes_and_nothing_else(tmp_path: Path) -> None:
    directory = tmp_path / "shared"
    with make(directory) as exporter:
        shutil.rmtree(directory)
        with exporter.query(session="somebody") as query:
            query.answered("cache")
        answer = httpx.get(exporter.metrics_url, timeout=60)
        assert answer.status_code == 500, "sums without this worker would look like a restart"
        assert "Start the service's workers again" in answer.text
    with make(directory) as exporter:
        assert httpx.get(exporter.metrics_url, timeout=60).status_code == 200


def test_a_damaged_file_is_an_error_that_says_so(tmp_path: Path) -> None:
    directory = tmp_path / "shared"
    with make(directory):
        (file,) = directory.glob("0.*.values")
    file.write_bytes(b"\xff" * BLOCK_BYTES)
    with pytest.raises(SharedDirectoryError, match="damaged file"):
        make(directory).start()


def test_a_worker_for_which_there_is_no_room_says_so_and_keeps_what_it_counted(tmp_path: Path) -> None:
    with make(tmp_path / "shared"):
        exporter = make(tmp_path / "shared")
        query = exporter.query()
        query.begin()
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (BLOCK_BYTES - 1, before[1]))
        try:
            with pytest.raises(SharedDirectoryError, match="room for a few megabytes"):
                exporter.start()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        with exporter:
            assert value(exporter, "cmo_queries_in_progress", scenario="live") == 1
            query.finish()


def test_an_index_that_was_read_too_early_is_read_again_as_a_whole(tmp_path: Path) -> None:
    with make(tmp_path / "shared") as exporter, make(tmp_path / "shared") as other:
        with exporter.query() as query:
            query.answered("cache")
        exporter.recorder.journal.post()
        numbers = exporter.recorder.ledger._values.numbers
        length = numbers[INDEX_LENGTH]
        numbers[INDEX_LENGTH] = length - 2
        with pytest.raises(ValueError, match=r"Unterminated|Expecting|delimiter"):
            value(other, "cmo_queries_total", scenario="live", outcome="success")
        numbers[INDEX_LENGTH] = length
        assert value(other, "cmo_queries_total", scenario="live", outcome="success") == 1


def test_what_is_in_progress_when_a_worker_leaves_never_falls_below_nothing(tmp_path: Path) -> None:
    exporter = make(tmp_path / "shared")
    with make(tmp_path / "shared"):
        exporter.start()
        query = exporter.query()
        query.begin()
        call = query.component("llm")
        call.__enter__()
        exporter.close()
        call.__exit__(None, None, None)
        query.finish()
        with exporter:
            assert value(exporter, "cmo_queries_in_progress", scenario="live") == 0
            assert value(exporter, "cmo_component_in_progress", component="llm") == 0


def test_a_child_of_a_worker_does_not_touch_the_sessions_of_the_service(tmp_path: Path) -> None:
    with make(tmp_path / "shared") as exporter:
        child = os.fork()
        if not child:
            exporter.query(session="somebody").begin()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert value(exporter, "cmo_active_users", scenario="live") == 0


def test_a_child_of_a_worker_does_not_go_on_holding_what_its_parent_held(tmp_path: Path) -> None:
    exporter = make(tmp_path / "shared")
    directory = exporter._membership.directory
    assert directory is not None
    with directory.locked():
        child = os.fork()
        if not child:
            time.sleep(60)
            os._exit(0)
    try:
        does_not_wait(directory.locked)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_child_does_not_hold_the_sessions_for_a_parent_that_was_killed(tmp_path: Path) -> None:
    with make(tmp_path / "shared") as survivor:
        here, there = os.pipe()
        parent = os.fork()
        if not parent:
            exporter = make(tmp_path / "shared")
            exporter.start()
            exporter.recorder.ledger.sessions._lock.__enter__()
            child = os.fork()
            if not child:
                os.write(there, b"%d" % os.getpid())
                time.sleep(60)
            time.sleep(60)
            os._exit(0)
        child = int(os.read(here, 20))
        try:
            os.kill(parent, signal.SIGKILL)
            os.waitpid(parent, 0)
            does_not_wait(lambda: survivor.query(session="somebody"))
        finally:
            os.kill(child, signal.SIGKILL)
            os.close(here)
            os.close(there)


def test_a_worker_that_is_stopped_while_it_has_the_users_holds_nobody_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "shared"

    def ask(session: str) -> None:
        with exporter.query(session=session) as query:
            query.answered("cache")

    with make(directory) as exporter:
        ask("before")
        (users,) = directory.glob("users.*")
        child = os.fork()
        if not child:
            try:
                with FileLock(users):
                    os.kill(os.getpid(), signal.SIGSTOP)
            finally:
                os._exit(0)
        assert os.WIFSTOPPED(os.waitpid(child, os.WUNTRACED)[1]), "it could not have the users"
        try:
            for session in ("before", "another"):
                thread = threading.Thread(target=ask, args=(session,), daemon=True)
                thread.start()
                thread.join(30)
                assert not thread.is_alive()
            scraped = httpx.get(exporter.metrics_url, timeout=60)
            assert scraped.status_code == 200
            # Neither of them is known, and none is said to be 0.
            assert "cmo_active_users{" not in scraped.text
            assert "cmo_active_user_seconds_total{" not in scraped.text
            assert 'cmo_queries_total{outcome="success",scenario="live"} 3' in scraped.text
            assert value(exporter, "cmo_series_dropped_total", metric="cmo_active_users") == 2
            assert "let it go on, or end it" in caplog.text
            with make(directory) as another:
                another.query(session="a third").begin()
                assert value(another, "cmo_queries_started_total", scenario="live") == 4
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        ask("another")
        assert value(exporter, "cmo_active_users", scenario="live") == 2


def test_a_query_that_ends_while_the_users_are_held_leaves_its_user_to_the_time_out(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    sessions = Sessions(
        ("live",),
        idle_timeout_seconds=10.0,
        maximum=5,
        now=0.0,
        memory=bytearray(table_bytes(1, 5)),
        lock=lock,
    )
    key = sessions.key("live", "user")
    assert sessions.enter(key, 1.0)
    with FileLock(tmp_path / "lock"), pytest.raises(HeldTableError):
        sessions.leave(key, 2.0, end=True)
    assert sessions.read(3.0)["live"][0] == 1
    for now in (8.0, 14.0, 20.0):
        sessions.expire(now)
    assert sessions.read(20.0)["live"][0] == 0
    lock.close()


@pytest.mark.parametrize("seed", range(5))
def test_a_table_of_users_that_is_damaged_holds_nobody_up(tmp_path: Path, seed: int) -> None:
    directory = tmp_path / "shared"
    with make(directory) as exporter:
        (table,) = directory.glob("sessions.*")
        noise = random.Random(seed)
        with table.open("r+b") as file:
            file.write(noise.randbytes(table.stat().st_size))

        def ask() -> None:
            for session in range(3):
                with exporter.query(session=str(session)) as query:
                    query.answered("cache")

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        thread.join(60)
        assert not thread.is_alive()
        exporter.recorder.journal.post()
        counted = exporter.recorder.instruments.queries.child("live", "success")
        assert exporter.recorder.ledger._values.numbers[counted.slot] == 3


def test_rows_that_make_no_sense_are_swept_out(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    memory = bytearray(table_bytes(1, 5))
    sessions = Sessions(("live",), idle_timeout_seconds=1e9, maximum=5, now=0.0, memory=memory, lock=lock)
    for place in range(len(sessions._keys)):
        sessions._keys[place] = place + 1000
    with pytest.raises(SharedDirectoryError, match="damaged"):
        sessions.enter(sessions.key("live", "user"), 1.0)
    assert sessions.enter(sessions.key("live", "user"), 2.0)
    assert sessions.read(3.0)["live"][0] == 1
    lock.close()


def test_who_has_waited_in_vain_still_takes_what_is_free_in_a_moment(tmp_path: Path) -> None:
    ours = FileLock(tmp_path / "lock")
    with FileLock(tmp_path / "lock"), pytest.raises(HeldTableError), ours:
        pass
    holding, go = threading.Event(), threading.Event()

    def hold() -> None:
        with FileLock(tmp_path / "lock"):
            holding.set()
            go.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert holding.wait(60)
    looks = itertools.count()
    taken = ours._is_taken

    def look() -> bool:
        if next(looks) == 1:  # the first look was in vain, and it is let go of before the second
            go.set()
            thread.join(60)
        return taken()

    ours._is_taken = look  # type: ignore[method-assign]  # between two looks
    with ours:
        assert next(looks) >= 2


def test_a_worker_that_cannot_join_gives_its_place_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "shared"
    with make(directory) as other:
        exporter = make(directory)
        with exporter.query() as query:
            query.answered("cache")
        with monkeypatch.context() as patch:
            patch.setattr(membership, "FileLock", lambda _: (_ for _ in ()).throw(OSError(24, "Too many")))
            for _ in range(3):
                with pytest.raises(SharedDirectoryError):
                    exporter.start()
        with exporter:
            assert value(other, "cmo_queries_total", scenario="live", outcome="success") == 1


def test_two_services_with_one_directory_by_mistake_are_not_added_up(tmp_path: Path) -> None:
    first, second = (make(tmp_path / "shared", port=free_port()) for _ in range(2))
    with first, second:
        assert first.metrics_url != second.metrics_url
        with first.query() as query:
            query.answered("cache")
        assert value(second, "cmo_queries_total", scenario="live", outcome="success") == 0


class Interrupted(Sessions):
    """A table in one of whose methods something happens once, as a signal's handler might do it."""

    def interrupt(self, method: str, happens: Callable[[], object]) -> None:
        inner = getattr(self, method)

        def interrupted(*args: object) -> object:
            found = inner(*args)
            if method in self.__dict__:
                delattr(self, method)
                happens()
            return found

        setattr(self, method, interrupted)


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Interrupted]:
    lock = FileLock(tmp_path / "lock")
    memory = bytearray(table_bytes(1, 8))
    yield Interrupted(("live",), idle_timeout_seconds=1e9, maximum=8, now=1.0, memory=memory, lock=lock)
    lock.close()


def test_a_handler_that_records_in_the_midst_of_a_change_leaves_the_users_right(table: Interrupted) -> None:
    one, behind_it = (0, 5), (0, 5 + (1 << 20))
    for session in (one, behind_it):
        assert table.enter(session, 2.0)
        table.leave(session, 2.0, end=False)
    table.interrupt("_find_open", lambda: table.end(one, 3.0))
    assert table.enter(behind_it, 3.0)
    table.leave(behind_it, 4.0, end=True)
    assert table.read(5.0)["live"][0] == 0


def test_a_change_that_an_exception_stops_is_mended(table: Interrupted) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    session = (0, 5)
    assert table.enter(session, 2.0)
    table.interrupt("_step", stop)
    with pytest.raises(KeyboardInterrupt):
        table.leave(session, 3.0, end=True)
    table.end(session, 4.0)
    table.leave(session, 4.0, end=True)
    assert table.read(5.0)["live"][0] == 0
