"""The table of sessions that workers share: a user is counted once, and for as long as they are there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cmo_exporter.sessions import FileLock, Sessions, table_bytes
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from pathlib import Path

IDLE = 10.0
MOVES = st.lists(
    st.tuples(
        st.sampled_from(("enter", "leave", "leave and end", "end", "read", "expire")),
        st.integers(0, 2),
        st.integers(0, 1),
        st.floats(0, 15, allow_subnormal=False),
    ),
    max_size=40,
)


def two_workers(lock: FileLock) -> tuple[Sessions, Sessions]:
    memory = bytearray(table_bytes(1, 5))

    def worker() -> Sessions:
        return Sessions(("live",), idle_timeout_seconds=IDLE, maximum=5, now=0.0, memory=memory, lock=lock)

    return worker(), worker()


@hypothesis_settings(max_examples=100)
@given(moves=MOVES)
def test_two_workers_with_one_table_count_as_one_does(
    moves: list[tuple[str, int, int, float]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    memory = bytearray(table_bytes(1, 5))
    lock = FileLock(tmp_path_factory.getbasetemp() / "lock")
    workers = [
        Sessions(("live",), idle_timeout_seconds=IDLE, maximum=5, now=100.0, memory=memory, lock=lock)
        for _ in range(2)
    ]
    alone = Sessions(("live",), idle_timeout_seconds=IDLE, maximum=5, now=100.0)
    now = 100.0
    seconds = 0.0
    # What a user has in flight at each worker: only a worker that was entered is left.
    flying = {(user, worker): 0 for user in range(3) for worker in range(2)}
    for what, user, worker, wait in moves:
        # A worker's heartbeat is much more frequent than the time-out, and comes when it comes.
        for beat in range(20):
            now += wait / 20
            workers[beat % 2].expire(now)
        sessions, key, plain = (
            workers[worker],
            workers[worker].key("live", str(user)),
            alone.key("live", str(user)),
        )
        if what == "enter":
            assert sessions.enter(key, now) == alone.enter(plain, now)
            flying[user, worker] += 1
        elif what == "end":
            sessions.end(key, now)
            alone.end(plain, now)
        elif what.startswith("leave") and flying[user, worker]:
            flying[user, worker] -= 1
            sessions.leave(key, now, end=what == "leave and end")
            alone.leave(plain, now, end=what == "leave and end")
        read = sessions.read(now)["live"]
        expected = alone.read(now)["live"]
        assert read[0] == expected[0]
        assert read[1] == pytest.approx(expected[1], abs=1e-6)
        assert read[1] >= seconds - 1e-9, "an integral never falls"
        seconds = read[1]
    lock.close()


def test_a_session_of_another_worker_ends_when_its_time_is_up_and_not_when_that_one_looks(
    tmp_path: Path,
) -> None:
    lock = FileLock(tmp_path / "lock")
    other, reader = two_workers(lock)
    key = other.key("live", "user")
    other.enter(key, 1.0)
    other.leave(key, 2.0, end=False)
    assert reader.read(12.5)["live"] == (0, 11.0)
    other.expire(12.6)
    assert reader.read(12.7)["live"] == (0, 11.0)
    # Nor when the user is back first, with yet another worker.
    other.enter(key, 20.0)
    other.leave(key, 21.0, end=False)
    reader.enter(key, 40.0)
    assert reader.read(41.0)["live"] == (1, 11.0 + 11.0 + 1.0)
    lock.close()


def test_sessions_of_a_dead_worker_end_and_those_of_a_live_one_do_not(tmp_path: Path) -> None:
    memory = bytearray(table_bytes(1, 5))
    lock = FileLock(tmp_path / "lock")

    def worker() -> Sessions:
        return Sessions(("live",), idle_timeout_seconds=IDLE, maximum=5, now=0.0, memory=memory, lock=lock)

    dead, live = worker(), worker()
    assert dead.enter(dead.key("live", "orphan"), 1.0)
    assert live.enter(live.key("live", "patient"), 1.0)
    seconds = 0.0
    for now in range(2, 101):
        live.expire(float(now))
        active, read = live.read(float(now))["live"]
        assert read >= seconds
        seconds = read
    assert active == 1
    assert 15 + 99 <= seconds <= 25 + 99
    lock.close()


def test_an_integral_never_falls_though_a_clock_was_read_before_another_worker_looked(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    one, other = two_workers(lock)
    key = one.key("live", "user")
    one.enter(key, 1.0)
    before = other.read(6.0)["live"][1]
    assert one.read(5.0)["live"] == (1, before)
    assert one.read_at == 6.0, "the clock beside the integral is that of the same instant"
    one.leave(key, 4.0, end=True)
    assert other.read(6.0)["live"] == (0, before)
    one.enter(key, 7.0)
    one.leave(key, 8.0, end=False)
    before = other.read(10.0)["live"][1]
    one.end(key, 9.0)
    assert other.read(10.0)["live"] == (0, before)
    lock.close()


@pytest.mark.parametrize("paused", [(0,), (0, 1), (0, 1, 2)])
def test_users_of_workers_that_were_stopped_for_long_are_there_when_those_go_on(
    tmp_path: Path, paused: tuple[int, ...]
) -> None:
    memory = bytearray(table_bytes(1, 50))
    lock = FileLock(tmp_path / "lock")
    workers = [
        Sessions(("live",), idle_timeout_seconds=IDLE, maximum=50, now=0.0, memory=memory, lock=lock)
        for _ in range(3)
    ]
    for number, worker in enumerate(workers):
        for user in range(5):
            worker.enter(worker.key("live", f"{number} {user}"), 1.0)
    seconds = 0.0
    for now in range(2, 80):
        for number, worker in enumerate(workers):
            if number not in paused or not 20 <= now < 50:
                worker.expire(float(now))
                active, read = worker.read(float(now))["live"]
                assert read >= seconds
                seconds = read
                assert active == 15 or len(paused) < len(workers), "whoever goes on first closes nobody's"
    assert workers[0].read(80.0)["live"][0] == 15
    for number, worker in enumerate(workers):
        for user in range(5):
            worker.leave(worker.key("live", f"{number} {user}"), 81.0, end=True)
    assert workers[0].read(82.0)["live"][0] == 0
    lock.close()


def test_a_table_that_was_left_in_mid_change_is_mended(tmp_path: Path) -> None:
    memory = bytearray(table_bytes(1, 50))
    lock = FileLock(tmp_path / "lock")
    sessions = Sessions(("live",), idle_timeout_seconds=1e9, maximum=50, now=0.0, memory=memory, lock=lock)
    for user in range(20):
        sessions.enter(sessions.key("live", str(user)), 1.0)
    # As a worker leaves it that is killed after it put a session in, and before it counted it.
    sessions.header[2] = 1.0
    sessions.header[1] -= 5
    sessions._levels[0] -= 5
    assert sessions.enter(sessions.key("live", "next"), 2.0)
    assert sessions.active("live") == 21
    for user in range(20):
        sessions.end(sessions.key("live", str(user)), 3.0)
        sessions.leave(sessions.key("live", str(user)), 3.0, end=True)
    assert sessions.active("live") == 1
    lock.close()


@hypothesis_settings(max_examples=60)
@given(order=st.permutations(range(40)), gone=st.sets(st.integers(0, 39)))
def test_whoever_is_in_the_table_is_found(order: list[int], gone: set[int]) -> None:
    sessions = Sessions(("live",), idle_timeout_seconds=1e9, maximum=40, now=0.0)
    # Few places, so that they are each other's way.
    keys = {number: (0, 1 + number // 3 + 64 * (number % 3)) for number in range(40)}
    for number in order:
        assert sessions.enter(keys[number], 0.0)
    for number in gone:
        sessions.leave(keys[number], 0.0, end=True)
    assert sessions.active("live") == 40 - len(gone)
    for number in range(40):
        there = sessions._keys[sessions._find(keys[number][1])] == keys[number][1]
        assert there == (number not in gone)
